"""The models of the catalogue: loaded in the background, unloaded to stay within a memory budget."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from app.errors import (
    EmptyText,
    ModelLoading,
    ModelNotHere,
    ModelTooLarge,
    ModelUnavailable,
    NoKnownCharacters,
    NonFiniteNumbers,
    NoSuchHead,
    NoSuchStep,
    NoSuchToken,
    TextTooLong,
    UnknownModel,
    UnreadableText,
)
from app.settings import Settings
from model.config import Config
from model.edits import Edits
from model.gpt import GPT
from model.heads import probe_scores
from model.linear import choose_kernels
from model.reading import read
from model.tokenizer import Tokenizer, TokenizerError, Tokens, TooManyTokens
from model.trace import NonFiniteNumber
from model.training.record import RECORD, Record, read_record
from model.weights.catalogue import SHIPPED
from model.weights.folder import load, load_step, saved_steps
from model.weights.names import WeightsError
from model.weights.sources import Progress, Source

log = logging.getLogger("lookback")

CHECK_EVERY_S = 1.0  # how often a folder is checked for newer parameters of a training run
MAX_STEPS = 24  # training steps of a model in memory; saved steps are powers of two, so a run has fewer
RETRY_S = (30, 60, 120, 300, 600)  # until the default model is loaded again, after one failure, two, …

State = Literal["ready", "loading", "failed", "available", "not here"]


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to read texts."""

    name: str
    network: GPT
    tokenizer: Tokenizer
    max_tokens: int  # the longest text: the model's context, or a lower limit of the operator
    step: int | None = None  # of its training; None is the finished model
    version: int = 0  # how often newer parameters have replaced it

    @property
    def title(self) -> str:
        """Its name for people, with the training step."""
        return self.name if self.step is None else f"{self.name} at step {self.step:,}"

    @property
    def key(self) -> str:
        """Identifies these exact parameters; it changes on every reload."""
        return f"{self.title} {self.version}"

    def check_heads(self, layers: Iterable[int], heads: Iterable[int]) -> None:
        """Refuse layers and heads that the model does not have.

        Raises:
            NoSuchHead: for the first of them.
        """
        config = self.network.config
        for kind, indices, n in (("layer", layers, config.n_layers), ("head", heads, config.n_heads)):
            for index in indices:
                if index >= n:
                    raise NoSuchHead(kind, index, n, self.name)

    def tokens(self, text: str, *, special_tokens: bool = False, n_max: int | None = None) -> Tokens:
        """The tokens of a text, at most `n_max` or as many as the model reads.

        Raises:
            EmptyText, TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read it.
        """
        if not text:
            raise EmptyText
        n_max = min(n_max or self.max_tokens, self.max_tokens)
        try:
            tokens = self.tokenizer.encode(text, special_tokens=special_tokens, max_tokens=n_max)
        except TooManyTokens as error:
            raise self._too_long(error.n_tokens, n_max) from error
        except TokenizerError as error:
            raise UnreadableText(str(error)) from error
        if not tokens.tokens:
            raise NoKnownCharacters(len(text), self.name)
        return tokens

    def tokens_of_ids(self, ids: Sequence[int]) -> tuple[str, Tokens]:
        """The text that these token ids spell, and the tokens, as many as the model reads.

        Raises:
            NoSuchToken: for the first id that the model or its vocabulary does not have.
            TextTooLong: if there are too many.
        """
        n_vocab = self.network.config.n_vocab
        for id in ids:
            if id >= n_vocab or not self.tokenizer.token_bytes(id):
                raise NoSuchToken(id, n_vocab, self.name)
        if len(ids) > self.max_tokens:
            raise self._too_long(len(ids), self.max_tokens)
        return self.tokenizer.locate_ids(ids)

    def _too_long(self, n_tokens: int, n_max: int) -> TextTooLong:
        n_context = self.network.config.n_context
        is_limited = n_max == self.max_tokens < n_context  # by LOOKBACK_MAX_TOKENS
        return TextTooLong(n_tokens, n_max, self.name, n_context=n_context if is_limited else None)


class ModelInput(NamedTuple):
    """What a request gives a model to read, and what is changed while it does."""

    model: LoadedModel
    tokens: Tokens
    edits: Edits
    text_of_ids: str | None = None  # what the tokens spell, if the request named them by their ids


@dataclass(frozen=True)
class Files:
    """Which parameters and which training record a folder contains, without reading them."""

    parameters: tuple[int, int, int]  # inode, time of modification in ns, bytes
    record: tuple[int, int, int] | None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The files as they are now."""
        record, parameters = folder / RECORD, folder / "model.safetensors"
        return cls(_identity(parameters) or (0, 0, 0), _identity(record))


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@dataclass
class Entry:
    """The state of one model of the catalogue. Changed only in the event loop, except `doing`."""

    source: Source
    folder: Path | None = None  # of its weights, once they are on this machine
    loaded: LoadedModel | None = None
    files: Files | None = None  # from which it was loaded
    record: Record | None = None  # of its training, at that time
    checked_at: float = -float("inf")  # when the folder was last checked for newer parameters, monotonic clock
    reloading: asyncio.Task[None] | None = None
    reload_message: str = ""  # for people: when newer parameters were loaded, or why they could not be
    patterns: dict[int | None, Tensor] = field(default_factory=dict)  # of its heads, by step
    steps: dict[int, LoadedModel] = field(default_factory=dict)  # at earlier steps, the least recently used first
    loading: bool = False
    doing: str = "waiting for other models"  # for people, while it loads
    failure: str = ""  # why the last load failed; empty once another one has begun
    n_failures: int = 0  # in a row
    failed_at: float = -float("inf")  # monotonic clock
    used_at: float = 0.0

    @property
    def networks(self) -> list[GPT]:
        """Every network of this model that is in memory."""
        return [loaded.network for loaded in (self.loaded, *self.steps.values()) if loaded]

    @property
    def run_status(self) -> str:
        """A training run in progress, or continued since the load, described for people; empty if there is none."""
        if self.record is None:
            return ""
        is_running = self.record.step < self.record.recipe.n_steps
        step = f"Step {self.record.step:,} of {self.record.recipe.n_steps:,} of a run that is not finished."
        sentences = [step] if is_running else []
        sentences += (
            [f"{self.reload_message[0].upper()}{self.reload_message[1:].rstrip('.')}."] if self.reload_message else []
        )
        return " ".join(sentences)


class Models:
    """Every model of the catalogue, loaded or not."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Settings,
        worker: Executor,
        on_unload: Callable[[GPT], None],
        progress: Progress | None = None,
    ) -> None:
        """`worker` runs everything that uses torch; `on_unload` is called with every network that is unloaded."""
        self.settings = settings
        self.entries = {name: Entry(source) for name, source in sources.items()}
        self.default = next(iter(sources))
        self.fallback = SHIPPED.name if SHIPPED.name in sources else self.default
        self._progress = progress
        self._worker = worker
        self._on_unload = on_unload
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="fetcher")
        self._loads: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loading = asyncio.Lock()  # one model loads at a time, because only then is the memory in use known
        self._budget = settings.models_mb * 1_000_000  # bytes

    def start(self) -> None:
        """Begin to load the fallback, which is shown first, and then the default model."""
        for name in dict.fromkeys((self.fallback, self.default)):
            self._start_load(self.entries[name])

    def close(self) -> None:
        """Cancel all loading."""
        self._closed = True
        for load_task in self._loads:
            load_task.cancel()
        self._fetcher.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting_for(self) -> str:
        """What the default model is waiting for, or why it failed; without a full stop."""
        entry = self.entries[self.default]
        return (entry.failure or entry.doing).rstrip(".")

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded."""
        return self.entries[self.default].loaded is not None

    def shape(self, name: str) -> tuple[Config, int]:
        """The config and the number of parameters of a model, loaded or not."""
        entry = self.entries[name]
        if entry.loaded:
            return entry.loaded.network.config, entry.loaded.network.n_parameters
        config = entry.source.config()
        return config, _n_parameters(config)

    def get(self, name: str | None = None) -> LoadedModel:
        """The model of this name, or the default.

        Raises:
            UnknownModel: if the catalogue has none of this name.
            ModelNotHere: if clients may not have it fetched.
            ModelTooLarge: if it needs more memory than models may use.
            ModelLoading: if it is not ready; this call has begun to load it.
            ModelUnavailable: if it could not be loaded a moment ago.
        """
        name = self.default if name is None else name
        if (entry := self.entries.get(name)) is None:
            raise UnknownModel(name, list(self.entries))
        entry.used_at = time.monotonic()
        if entry.loaded:
            return entry.loaded
        if not entry.loading:
            if not self._may_load(name):
                raise ModelNotHere(name, entry.source.fetch_command)
            self._check_budget(name)
            if time.monotonic() - entry.failed_at < ModelUnavailable.retry_after_s:
                raise ModelUnavailable(entry.source.name, entry.failure)
            self._start_load(entry)
        raise ModelLoading(entry.source.name, entry.doing)

    async def get_at_step(self, name: str | None, step: int | None) -> LoadedModel:
        """The model of this name after the given step of its training; without a step, the finished model.

        Raises:
            UnknownModel, ModelLoading, ModelUnavailable: as for `get`.
            NoSuchStep: if it has no saved parameters of this step.
        """
        model = self.get(name)
        entry = self.entries[model.name]
        last_step = entry.record.step if entry.record else None
        await self._load_newer(entry, at_once=step not in (None, last_step, *entry.steps))
        model = self.get(name)
        if step is None or entry.folder is None:
            return model
        is_new = step not in entry.steps  # only then more memory is used than before
        if is_new:
            if entry.record and step == entry.record.step:
                return model
            if step not in (saved := await asyncio.to_thread(saved_steps, entry.folder)):
                raise NoSuchStep(step, saved, model.name)
            loop = asyncio.get_running_loop()
            network = await loop.run_in_executor(self._worker, self._load_step, entry.folder, step)
            entry.steps.setdefault(step, replace(model, network=network, step=step))
        entry.steps[step] = loaded = entry.steps.pop(step)
        while len(entry.steps) > 1 and (
            len(entry.steps) > MAX_STEPS or (is_new and self._n_bytes_loaded() > self._budget)
        ):
            self._on_unload(entry.steps.pop(next(iter(entry.steps))).network)
        return loaded

    def _n_bytes_loaded(self) -> int:
        return sum(_n_bytes(entry.networks) for entry in self.entries.values())

    async def _load_newer(self, entry: Entry, *, at_once: bool) -> None:
        """Load what a training run has written into the folder since the last load. Concurrent calls wait for it."""
        if entry.reloading is None:
            if entry.folder is None or not (at_once or time.monotonic() - entry.checked_at > CHECK_EVERY_S):
                return
            entry.checked_at = time.monotonic()
            files = await asyncio.to_thread(Files.of, entry.folder)
            if entry.reloading is None:
                if files == entry.files:
                    return
                entry.reloading = asyncio.get_running_loop().create_task(self._reload(entry, entry.folder))
                self._loads.add(entry.reloading)
                entry.reloading.add_done_callback(self._loads.discard)
        await asyncio.shield(entry.reloading)

    async def _reload(self, entry: Entry, folder: Path) -> None:
        old = entry.loaded
        try:
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(self._worker, self._load_folder, entry, folder)
            if old is None or entry.loaded is not old:
                return
            entry.loaded = replace(loaded, version=old.version + 1)
            for stale in (old, *entry.steps.values()):
                self._on_unload(stale.network)
            entry.steps.clear()
            entry.patterns.clear()
            entry.reload_message = f"newer parameters were loaded at {time.strftime('%H:%M:%S')}"
            log.info("%s: %s", entry.source.name, entry.reload_message)
        except (WeightsError, OSError) as error:
            entry.reload_message = f"newer parameters could not be loaded: {error}"
            entry.checked_at = time.monotonic() + ModelUnavailable.retry_after_s
            log.error("%s: %s", entry.source.name, entry.reload_message)
        finally:
            entry.reloading = None

    async def patterns(self, model: LoadedModel) -> Tensor:
        """What the heads of a model do, (P, L, H) as `probe_scores` returns it; computed once."""
        patterns = self.entries[model.name].patterns
        if model.step not in patterns:
            loop = asyncio.get_running_loop()
            try:
                patterns[model.step] = await loop.run_in_executor(self._worker, probe_scores, model.network)
            except NonFiniteNumber as error:
                raise NonFiniteNumbers(model.title, error.place, self.settings.dtype) from error
        return patterns[model.step]

    def _load_step(self, folder: Path, step: int) -> GPT:
        return load_step(folder, step, device=self.settings.torch_device, dtype=self.settings.torch_dtype)

    def state(self, name: str) -> State:
        """Whether a model is loaded or can be; for one that was never loaded this checks the disk."""
        entry = self.entries[name]
        if entry.loaded:
            return "ready"
        if entry.loading:
            return "loading"
        if entry.failure:
            return "failed"
        return "available" if self._may_load(name) else "not here"

    def _may_load(self, name: str) -> bool:
        """Whether clients may load this model: those in LOOKBACK_MODELS if it is set, else those on this machine."""
        if name in (self.default, self.fallback, *self.settings.models):
            return True
        return not self.settings.models and self.entries[name].source.local(self.settings.weights_dir) is not None

    def _check_budget(self, name: str) -> None:
        """Refuse a model that cannot fit into the memory budget.

        Raises:
            ModelTooLarge: if the model would not fit beside those that are never unloaded.
        """
        permanent = {self.default, self.fallback}
        if name not in permanent:
            n_free = self._budget - sum(self._n_bytes_needed(permanent_name) for permanent_name in permanent)
            if (n_needed := self._n_bytes_needed(name)) > n_free:
                raise ModelTooLarge(name, n_needed, max(0, n_free), self._budget)

    def _n_bytes_needed(self, name: str) -> int:
        """The memory that loading a model needs, in bytes: twice its parameters.

        The parameters are in memory once as they are in the file, and once more in oneDNN's layout.
        """
        return 2 * self.shape(name)[1] * self.settings.torch_dtype.itemsize

    def _start_load(self, entry: Entry) -> None:
        entry.loading, entry.failure, entry.doing = True, "", "waiting for other models"
        task = asyncio.get_running_loop().create_task(self._load(entry))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _load(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        try:
            entry.folder = await loop.run_in_executor(self._fetcher, self._fetch, entry)
            async with self._loading:
                self._make_room(entry)
                entry.loaded = await loop.run_in_executor(self._worker, self._load_folder, entry, entry.folder)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the panic of a library is no Exception, and must be reported too
            self._record_failure(entry, error)
        else:
            entry.used_at, entry.n_failures = time.monotonic(), 0
            log.info("%s is ready", entry.source.name)
        finally:
            entry.loading = False

    def _record_failure(self, entry: Entry, error: BaseException) -> None:
        entry.failure = str(error) if isinstance(error, WeightsError) else f"{type(error).__name__}: {error}"
        entry.failed_at = time.monotonic()
        entry.n_failures += 1
        log.error("%s could not be loaded: %s", entry.source.name, entry.failure)
        if entry.source.name in (self.default, self.fallback):
            wait_s = RETRY_S[min(entry.n_failures, len(RETRY_S)) - 1]
            log.info("%s is loaded again in %d s", entry.source.name, wait_s)
            asyncio.get_running_loop().call_later(wait_s, self._retry, entry)

    def _retry(self, entry: Entry) -> None:
        if not (self._closed or entry.loaded or entry.loading):
            self._start_load(entry)

    def _fetch(self, entry: Entry) -> Path:
        return entry.source.fetch(self.settings.weights_dir, lambda *progress: self._report(entry, *progress))

    def _load_folder(self, entry: Entry, folder: Path) -> LoadedModel:
        self._report(entry, "loading the weights", 0, 0)
        files, record = Files.of(folder), read_record(folder)  # before the weights, so that a later change is noticed
        network, tokenizer = load(folder, device=self.settings.torch_device, dtype=self.settings.torch_dtype)
        kernels = choose_kernels(network)
        log.info("%s: kernels of the linear layers by number of rows: %s", entry.source.name, kernels or "plain")
        read(network, [0])  # the first forward pass is slow; no client should wait for it
        n_context = min(network.config.n_context, self.settings.max_tokens)
        entry.files, entry.record = files, record
        return LoadedModel(entry.source.name, network, tokenizer, n_context)

    def _report(self, entry: Entry, what: str, done: int, total: int) -> None:
        entry.doing = f"{what}, {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else what
        if self._progress:
            self._progress(what, done, total)

    def _make_room(self, new: Entry) -> None:
        """Unload the least recently used models until the next one fits. The default and the fallback always stay."""
        permanent = (self.default, self.fallback)
        loaded = {name: entry for name, entry in self.entries.items() if entry.networks and entry is not new}
        n_bytes = {name: max(self._n_bytes_needed(name), _n_bytes(entry.networks)) for name, entry in loaded.items()}
        evictable = sorted((name for name in loaded if name not in permanent), key=lambda name: loaded[name].used_at)
        while evictable and sum(n_bytes.values()) + self._n_bytes_needed(new.source.name) > self._budget:
            name = evictable.pop(0)
            del n_bytes[name]
            log.info("%s is unloaded to make room for %s", name, new.source.name)
            self._unload(loaded[name])

    def _unload(self, entry: Entry) -> None:
        for network in entry.networks:
            self._on_unload(network)
        entry.loaded = None
        entry.steps.clear()


def _n_bytes(networks: Sequence[GPT]) -> int:
    return sum(parameter.nbytes for network in networks for parameter in network.parameters())


def check_settings(settings: Settings, sources: Mapping[str, Source]) -> None:
    """Refuse settings with which no model could be served.

    Raises:
        WeightsError: with the name of the setting.
    """
    if unknown := sorted(set(settings.models) - set(sources)):
        raise WeightsError(f"LOOKBACK_MODELS names {', '.join(unknown)}. Models: {', '.join(sources)}.")
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise WeightsError("The device is cuda, but PyTorch finds no CUDA here. --device cpu or auto runs on the CPU.")


@lru_cache
def _n_parameters(config: Config) -> int:
    with torch.device("meta"):  # counting needs no memory, and only two layers
        one_layer = GPT(replace(config, n_layers=1)).n_parameters
        two_layers = GPT(replace(config, n_layers=2)).n_parameters
    return one_layer + (config.n_layers - 1) * (two_layers - one_layer)
