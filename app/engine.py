"""Models that load in the background, and texts that wait for the one thread in which torch works.

The event loop never waits for torch: a reading and a load are jobs for the worker, a fetch is one for the fetcher, and
both answer through futures. It is one thread for all of torch because every thread that calls it brings a team of
OpenMP threads of its own; with two teams on two cores, readings took more than twice as long. Knows nothing of HTTP.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self, TypeVar

import torch

from app.errors import (
    Busy,
    EmptyText,
    ModelLoading,
    ModelUnavailable,
    NothingHeld,
    TextTooLong,
    UnknownModel,
    UnreadableText,
)
from app.schemas import Timings
from app.settings import Settings
from model.config import Config
from model.gpt import GPT
from model.tokenizer import Tokenizer, TokenizerError, Tokens, TooManyTokens
from model.trace import Trace, read
from model.weights.catalogue import Progress, Source
from model.weights.folder import load
from model.weights.names import WeightsError

log = logging.getLogger("lookback")
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    name: str
    network: GPT
    tokenizer: Tokenizer
    n_context: int  # tokens; the model's own, or less where the operator says so


@dataclass
class Entry:
    """What the engine knows of one model of the catalogue. Changed in the event loop only, but for `doing`."""

    source: Source
    loaded: Loaded | None = None
    loading: bool = False
    doing: str = "waiting for its turn"  # for people, while it loads
    failure: str = ""  # why the last load went wrong
    failed_at: float = -float("inf")  # on the monotonic clock
    used_at: float = 0.0

    @property
    def state(self) -> Literal["ready", "loading", "available"]:
        if self.loaded:
            return "ready"
        return "loading" if self.loading else "available"


class Kept:
    """Traces of the texts that were read last, up to a number of bytes. Belongs to the worker thread.

    The key names all that a trace depends on: the model and the tokens.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._traces: OrderedDict[tuple[str, tuple[int, ...]], Trace] = OrderedDict()
        self._n_bytes = 0  # of all of them; hundreds may be kept, so it is not summed anew for each reading

    def read(self, loaded: Loaded, ids: tuple[int, ...]) -> Trace:
        """The trace of this text: the kept one, or a new one, which is then kept."""
        key = loaded.name, ids
        if key in self._traces:
            self._traces.move_to_end(key)
            return self._traces[key]
        trace = self._traces[key] = read(loaded.network, ids)
        self._n_bytes += trace.n_bytes
        while self._n_bytes > self.max_bytes:
            self._drop(next(iter(self._traces)))
        return trace

    def forget(self, model: str) -> None:
        """Drop what was kept of one model; its traces hold its weights."""
        for key in [key for key in self._traces if key[0] == model]:
            self._drop(key)

    def _drop(self, key: tuple[str, tuple[int, ...]]) -> None:
        self._n_bytes -= self._traces.pop(key).n_bytes


class Engine:
    """Every model of the catalogue, and the queue of texts for them."""

    def __init__(self, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None) -> None:
        self.settings = settings
        self.entries = {name: Entry(source) for name, source in sources.items()}
        self.default = next(iter(sources))
        self._progress = progress
        self._kept = Kept(settings.kept_mb * 1_000_000)
        self._n_waiting = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="fetcher")
        self._loads: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def serving(
        cls, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Self]:
        """An engine that has begun to load its default model, and is put away at the end."""
        engine = cls(sources, settings, progress)
        engine._start_load(engine.entries[engine.default])
        try:
            yield engine
        finally:
            for load_task in engine._loads:
                load_task.cancel()
            engine._worker.shutdown(wait=False, cancel_futures=True)
            engine._fetcher.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """The default model can answer."""
        return self.entries[self.default].loaded is not None

    def shape(self, name: str) -> tuple[Config, int]:
        """A model's Config and its number of parameters, loaded or not."""
        entry = self.entries[name]
        if entry.loaded:
            return entry.loaded.network.config, entry.loaded.network.n_parameters
        config = entry.source.config()
        return config, _n_parameters(config)

    def model(self, name: str | None = None) -> Loaded:
        """The model of this name, or the default.

        Raises:
            UnknownModel: when the catalogue has none of this name.
            ModelLoading: when it is not ready; asking for it began to load it.
            ModelUnavailable: when it could not be loaded a moment ago.
        """
        entry = self.entries.get(self.default if name is None else name)
        if entry is None:
            raise UnknownModel(str(name), list(self.entries))
        entry.used_at = time.monotonic()
        if entry.loaded:
            return entry.loaded
        if not entry.loading:
            if time.monotonic() - entry.failed_at < ModelUnavailable.retry_after_s:
                raise ModelUnavailable(entry.source.name, entry.failure)
            self._start_load(entry)
        raise ModelLoading(entry.source.name, entry.doing)

    async def tokens(self, text: str, model: Loaded, *, special_tokens: bool = False) -> Tokens:
        """The tokens of a text that this model can read.

        Raises:
            EmptyText, TextTooLong, UnreadableText, NothingHeld: when it cannot.
        """
        if not text:
            raise EmptyText
        try:
            tokens = await asyncio.to_thread(
                model.tokenizer.encode, text, special_tokens=special_tokens, n_most=model.n_context
            )
        except TooManyTokens as error:
            raise TextTooLong(error.n_tokens, model.n_context, model.name) from error
        except TokenizerError as error:
            raise UnreadableText(str(error)) from error
        if not tokens.tokens:
            raise NothingHeld(len(text), model.name)
        return tokens

    async def look(self, model: Loaded, tokens: Tokens, view: Callable[[Trace], T]) -> tuple[T, Timings]:
        """Read a text (or take its kept trace) and make a view of it, both in the worker thread.

        Raises:
            Busy: when too many texts wait already.
        """
        if self._n_waiting >= self.settings.max_waiting:
            raise Busy(self._n_waiting, self.settings.max_waiting)

        def work() -> tuple[T, float, float]:
            started = time.perf_counter()
            seen = view(self._kept.read(model, tokens.ids))
            return seen, started, time.perf_counter()

        arrived = time.perf_counter()
        self._n_waiting += 1
        try:
            seen, started, finished = await asyncio.get_running_loop().run_in_executor(self._worker, work)
        finally:
            self._n_waiting -= 1
        timings = Timings(
            queued_ms=round(max(0.0, started - arrived) * 1e3, 3), computed_ms=round((finished - started) * 1e3, 3)
        )
        return seen, timings

    def _start_load(self, entry: Entry) -> None:
        entry.loading, entry.failure, entry.doing = True, "", "waiting for its turn"
        task = asyncio.get_running_loop().create_task(self._load(entry))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _load(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        try:
            folder = await loop.run_in_executor(self._fetcher, self._fetch, entry)
            entry.loaded = await loop.run_in_executor(self._worker, self._load_folder, entry, folder)
            entry.used_at = time.monotonic()
            log.info("%s is ready", entry.source.name)
        except Exception as error:
            entry.failed_at = time.monotonic()
            entry.failure = str(error) if isinstance(error, WeightsError) else f"{type(error).__name__}: {error}"
            log.error("%s could not be loaded: %s", entry.source.name, entry.failure)
        finally:
            entry.loading = False
        self._make_room()

    def _fetch(self, entry: Entry) -> Path:
        return entry.source.fetch(self.settings.cache, lambda *progress: self._say(entry, *progress))

    def _load_folder(self, entry: Entry, folder: Path) -> Loaded:
        self._say(entry, "loading the weights", 0, 0)
        network, tokenizer = load(folder, device=self.settings.torch_device, dtype=self.settings.torch_dtype)
        read(network, [0])  # the first reading is slow; no visitor should pay for it
        n_context = min(network.config.n_context, self.settings.max_tokens)
        return Loaded(entry.source.name, network, tokenizer, n_context)

    def _say(self, entry: Entry, what: str, done: int, total: int) -> None:
        entry.doing = f"{what}, {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else what
        if self._progress:
            self._progress(what, done, total)

    def _make_room(self) -> None:
        """Let go of the models that were longest unused, but never of the default."""
        ready = [entry for name, entry in self.entries.items() if entry.loaded and name != self.default]
        n_most = self.settings.max_loaded - 1
        for entry in sorted(ready, key=lambda entry: -entry.used_at)[n_most:]:
            entry.loaded = None
            self._worker.submit(self._kept.forget, entry.source.name)


@lru_cache
def _n_parameters(config: Config) -> int:
    with torch.device("meta"):  # counting needs no memory, and not every layer
        one = GPT(replace(config, n_layers=1)).n_parameters
        two = GPT(replace(config, n_layers=2)).n_parameters
    return one + (config.n_layers - 1) * (two - one)
