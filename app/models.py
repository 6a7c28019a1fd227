"""The models of the catalogue, which load in the background. Knows nothing of HTTP."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

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
    NoSuchStep,
    TextTooLong,
    UnknownModel,
    UnreadableText,
)
from app.settings import Settings
from model.config import Config
from model.gpt import GPT
from model.heads import probe_scores
from model.linear import choose_kernels
from model.reading import read
from model.tokenizer import Tokenizer, TokenizerError, Tokens, TooManyTokens
from model.trace import NonFiniteNumber
from model.training.record import RECORD, Record, read_record
from model.weights.catalogue import SHIPPED, Progress, Source
from model.weights.folder import load, load_step, steps_of
from model.weights.names import WeightsError

log = logging.getLogger("lookback")

NEWER_EVERY_S = 1.0  # how often a folder is asked whether a training run has written newer parameters
N_STEPS = 24  # of a model in memory; they double, so that is more than any run keeps
RETRY_S = (30, 60, 120, 300, 600)  # until the default model is tried again, after one failure, two, …

State = Literal["ready", "loading", "failed", "available", "not here"]


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    name: str
    network: GPT
    tokenizer: Tokenizer
    n_context: int  # tokens; the model's own, or less where the operator says so
    step: int | None = None  # of its training, where it is not as it was at the end
    version: int = 0  # how often newer parameters were loaded in its place

    @property
    def title(self) -> str:
        """Its name for people, with the step."""
        return self.name if self.step is None else f"{self.name} at step {self.step:,}"

    @property
    def key(self) -> str:
        """A name that no other parameters have had."""
        return f"{self.title} {self.version}"

    def tokens(self, text: str, *, special_tokens: bool = False, n_most: int | None = None) -> Tokens:
        """The tokens of a text that this model can read; no more than `n_most`, where that is less.

        Raises:
            EmptyText, TextTooLong, UnreadableText, NothingHeld: when it cannot.
        """
        if not text:
            raise EmptyText
        n_most = min(n_most or self.n_context, self.n_context)
        try:
            tokens = self.tokenizer.encode(text, special_tokens=special_tokens, n_most=n_most)
        except TooManyTokens as error:
            could_read = self.network.config.n_context
            by_setting = n_most == self.n_context < could_read
            raise TextTooLong(
                error.n_tokens, n_most, self.name, n_context=could_read if by_setting else None
            ) from error
        except TokenizerError as error:
            raise UnreadableText(str(error)) from error
        if not tokens.tokens:
            raise NoKnownCharacters(len(text), self.name)
        return tokens


@dataclass(frozen=True)
class Files:
    """Which parameters and which record of its training a folder holds, without reading them."""

    parameters: tuple[int, int, int]  # inode, time of the last change in ns, bytes
    record: tuple[int, int, int] | None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Those that are there now."""
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
    """What the engine knows of one model of the catalogue. Changed in the event loop only, but for `doing`."""

    source: Source
    folder: Path | None = None  # where its weights are, once they are there
    loaded: Loaded | None = None
    files: Files | None = None  # from which it was loaded
    record: Record | None = None  # of its training, as it was then
    looked_at: float = -float("inf")  # when the folder was last asked for newer parameters, on the monotonic clock
    reloading: asyncio.Task[None] | None = None
    reloaded: str = ""  # when newer parameters came, or why they could not be loaded; for people
    patterns: dict[int | None, Tensor] = field(default_factory=dict)  # of its heads, by step
    steps: dict[int, Loaded] = field(default_factory=dict)  # the same at earlier steps, the latest used last
    loading: bool = False
    doing: str = "waiting for its turn"  # for people, while it loads
    failure: str = ""  # why the last load went wrong; empty once another one began
    n_failures: int = 0  # in a row
    failed_at: float = -float("inf")  # on the monotonic clock
    used_at: float = 0.0

    @property
    def networks(self) -> list[GPT]:
        """Every network of this model that is in memory."""
        return [loaded.network for loaded in (self.loaded, *self.steps.values()) if loaded]

    @property
    def run(self) -> str:
        """What is known of a training run that goes on, or went on since this was loaded; empty where none did."""
        if self.record is None:
            return ""
        goes_on = self.record.step < self.record.recipe["n_steps"]
        step = f"Step {self.record.step:,} of {self.record.recipe['n_steps']:,} of a run that is not finished."
        words = [step] if goes_on else []
        words += [f"{self.reloaded[0].upper()}{self.reloaded[1:].rstrip('.')}."] if self.reloaded else []
        return " ".join(words)


class Models:
    """Every model of the catalogue: those that answer, and those that can be had."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Settings,
        worker: Executor,
        forget: Callable[[GPT], None],
        progress: Progress | None = None,
    ) -> None:
        """`worker` is where torch works; `forget` is told of every network that is let go."""
        self.settings = settings
        self.entries = {name: Entry(source) for name, source in sources.items()}
        self.default = next(iter(sources))
        self.fallback = SHIPPED.name if SHIPPED.name in sources else self.default
        self._progress = progress
        self._worker = worker
        self._forget = forget
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="fetcher")
        self._loads: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loading = asyncio.Lock()  # a model is loaded when the one before it is: only then is known what is held
        self._budget = settings.models_mb * 1_000_000  # bytes

    def start(self) -> None:
        """Begin to load the default model, and first the one that is there while that is not."""
        for name in dict.fromkeys((self.fallback, self.default)):
            self._start_load(self.entries[name])

    def close(self) -> None:
        """Load nothing more."""
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
        """A model's Config and its number of parameters, loaded or not."""
        entry = self.entries[name]
        if entry.loaded:
            return entry.loaded.network.config, entry.loaded.network.n_parameters
        config = entry.source.config()
        return config, _n_parameters(config)

    def get(self, name: str | None = None) -> Loaded:
        """The model of this name, or the default.

        Raises:
            UnknownModel: when the catalogue has none of this name.
            ModelNotHere: when visitors may not have it fetched.
            ModelTooLarge: when it needs more memory than models may have.
            ModelLoading: when it is not ready; asking for it began to load it.
            ModelUnavailable: when it could not be loaded a moment ago.
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

    async def at(self, name: str | None, step: int | None) -> Loaded:
        """The model of this name as it was after so many steps of its training; without a step, as it is.

        Raises:
            UnknownModel, ModelLoading, ModelUnavailable: as `get` does.
            NoSuchStep: when it has no parameters of this step.
        """
        model = self.get(name)
        entry = self.entries[model.name]
        last_step = entry.record.step if entry.record else None
        await self._load_newer(entry, at_once=step not in (None, last_step, *entry.steps))
        model = self.get(name)
        if step is None or entry.folder is None:
            return model
        is_new = step not in entry.steps  # only then is more held than before
        if is_new:
            if entry.record and step == entry.record.step:
                return model
            if step not in (known := await asyncio.to_thread(steps_of, entry.folder)):
                raise NoSuchStep(step, known, model.name)
            loop = asyncio.get_running_loop()
            network = await loop.run_in_executor(self._worker, self._load_step, entry.folder, step)
            entry.steps.setdefault(step, replace(model, network=network, step=step))
        entry.steps[step] = found = entry.steps.pop(step)
        while len(entry.steps) > 1 and (len(entry.steps) > N_STEPS or (is_new and self._n_held() > self._budget)):
            self._forget(entry.steps.pop(next(iter(entry.steps))).network)
        return found

    def _n_held(self) -> int:
        return sum(_n_bytes(entry.networks) for entry in self.entries.values())

    async def _load_newer(self, entry: Entry, *, at_once: bool) -> None:
        """Load what a training run has written into the folder since it was loaded; who asks meanwhile waits too."""
        if entry.reloading is None:
            if entry.folder is None or not (at_once or time.monotonic() - entry.looked_at > NEWER_EVERY_S):
                return
            entry.looked_at = time.monotonic()
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
                self._forget(stale.network)
            entry.steps.clear()
            entry.patterns.clear()
            entry.reloaded = f"newer parameters were loaded at {time.strftime('%H:%M:%S')}"
            log.info("%s: %s", entry.source.name, entry.reloaded)
        except (WeightsError, OSError) as error:
            entry.reloaded = f"newer parameters could not be loaded: {error}"
            entry.looked_at = time.monotonic() + ModelUnavailable.retry_after_s
            log.error("%s: %s", entry.source.name, entry.reloaded)
        finally:
            entry.reloading = None

    async def patterns(self, model: Loaded) -> Tensor:
        """What the heads of a model do, (P, L, H) as `pattern_scores` has it; measured once."""
        known = self.entries[model.name].patterns
        if model.step not in known:
            loop = asyncio.get_running_loop()
            try:
                known[model.step] = await loop.run_in_executor(self._worker, probe_scores, model.network)
            except NonFiniteNumber as error:
                raise NonFiniteNumbers(model.title, error.place, self.settings.dtype) from error
        return known[model.step]

    def _load_step(self, folder: Path, step: int) -> GPT:
        return load_step(folder, step, device=self.settings.torch_device, dtype=self.settings.torch_dtype)

    def state(self, name: str) -> State:
        """What can be had of a model; asks the disk about one that was not loaded yet."""
        entry = self.entries[name]
        if entry.loaded:
            return "ready"
        if entry.loading:
            return "loading"
        if entry.failure:
            return "failed"
        return "available" if self._may_load(name) else "not here"

    def _may_load(self, name: str) -> bool:
        """May a visitor have this model loaded? The names of the settings, or else what is on this machine."""
        if name in (self.default, self.fallback, *self.settings.models):
            return True
        return not self.settings.models and self.entries[name].source.local(self.settings.cache) is not None

    def _check_budget(self, name: str) -> None:
        """
        Raises:
            ModelTooLarge: when the model would not fit beside those that never leave.
        """
        stay = {self.default, self.fallback}
        if name not in stay:
            n_free = self._budget - sum(self._needed(other) for other in stay)
            if (n_needed := self._needed(name)) > n_free:
                raise ModelTooLarge(name, n_needed, max(0, n_free), self._budget)

    def _needed(self, name: str) -> int:
        """Bytes that a model takes while it is loaded: its parameters twice.

        They are read beside the file's own, and a layout for oneDNN takes as much again.
        """
        return 2 * self.shape(name)[1] * self.settings.torch_dtype.itemsize

    def _start_load(self, entry: Entry) -> None:
        entry.loading, entry.failure, entry.doing = True, "", "waiting for its turn"
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
        except BaseException as error:  # a library's panic is no Exception, and must not end as silence
            self._note_failure(entry, error)
        else:
            entry.used_at, entry.n_failures = time.monotonic(), 0
            log.info("%s is ready", entry.source.name)
        finally:
            entry.loading = False

    def _note_failure(self, entry: Entry, error: BaseException) -> None:
        entry.failure = str(error) if isinstance(error, WeightsError) else f"{type(error).__name__}: {error}"
        entry.failed_at = time.monotonic()
        entry.n_failures += 1
        log.error("%s could not be loaded: %s", entry.source.name, entry.failure)
        if entry.source.name in (self.default, self.fallback):
            wait_s = RETRY_S[min(entry.n_failures, len(RETRY_S)) - 1]
            log.info("%s is tried again in %d s", entry.source.name, wait_s)
            asyncio.get_running_loop().call_later(wait_s, self._retry, entry)

    def _retry(self, entry: Entry) -> None:
        if not (self._closed or entry.loaded or entry.loading):
            self._start_load(entry)

    def _fetch(self, entry: Entry) -> Path:
        return entry.source.fetch(self.settings.cache, lambda *progress: self._say(entry, *progress))

    def _load_folder(self, entry: Entry, folder: Path) -> Loaded:
        self._say(entry, "loading the weights", 0, 0)
        files, record = Files.of(folder), read_record(folder)  # before the weights: what changes now is noticed later
        network, tokenizer = load(folder, device=self.settings.torch_device, dtype=self.settings.torch_dtype)
        roads = choose_kernels(network)
        log.info("%s: linear layers take the roads %s", entry.source.name, roads or "plain")
        read(network, [0])  # the first reading is slow; no visitor should pay for it
        n_context = min(network.config.n_context, self.settings.max_tokens)
        entry.files, entry.record = files, record
        return Loaded(entry.source.name, network, tokenizer, n_context)

    def _say(self, entry: Entry, what: str, done: int, total: int) -> None:
        entry.doing = f"{what}, {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else what
        if self._progress:
            self._progress(what, done, total)

    def _make_room(self, coming: Entry) -> None:
        """Let go of the models that were longest unused until the next one fits beside the rest.

        The default model and the one that stands in for it never leave.
        """
        stay = (self.default, self.fallback)
        present = {name: entry for name, entry in self.entries.items() if entry.networks and entry is not coming}
        n_held = {name: max(self._needed(name), _n_bytes(entry.networks)) for name, entry in present.items()}
        leaving = sorted((name for name in present if name not in stay), key=lambda name: present[name].used_at)
        while leaving and sum(n_held.values()) + self._needed(coming.source.name) > self._budget:
            name = leaving.pop(0)
            del n_held[name]
            log.info("%s makes room for %s", name, coming.source.name)
            self._unload(present[name])

    def _unload(self, entry: Entry) -> None:
        for network in entry.networks:
            self._forget(network)
        entry.loaded = None
        entry.steps.clear()


def _n_bytes(networks: Sequence[GPT]) -> int:
    return sum(parameter.nbytes for network in networks for parameter in network.parameters())


def check_settings(settings: Settings, sources: Mapping[str, Source]) -> None:
    """Stop at a setting that no model could be served with, before anything is served.

    Raises:
        WeightsError: naming the setting.
    """
    if unknown := sorted(set(settings.models) - set(sources)):
        raise WeightsError(f"LOOKBACK_MODELS names {', '.join(unknown)}. There are: {', '.join(sources)}.")
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise WeightsError("The device is cuda, but PyTorch finds no CUDA here. --device cpu or auto runs on the CPU.")


@lru_cache
def _n_parameters(config: Config) -> int:
    with torch.device("meta"):  # counting needs no memory, and not every layer
        one = GPT(replace(config, n_layers=1)).n_parameters
        two = GPT(replace(config, n_layers=2)).n_parameters
    return one + (config.n_layers - 1) * (two - one)
