"""Waiting texts -> batches -> Traces, in the one thread in which torch works.

The event loop never waits for torch: it hands the worker whatever texts wait, and the worker reads as many of their
tokens in one pass as the budget allows, makes one part of a view for each text that is read, and comes back for more.
So a long text is read in chunks, with everybody else's in between. It is one thread for all of torch because every
thread that calls it brings a team of OpenMP threads of its own; with two teams on two cores, readings took more than
twice as long. Knows nothing of HTTP.
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Self, TypeVar

import torch

from app.errors import Busy, NonFiniteNumbers, OutOfMemory
from app.models import Loaded, Models
from app.schemas import Timings
from app.settings import Settings
from model.prefix import Kept
from model.tokenizer import Tokens
from model.trace import NonFiniteNumber, Trace, foresee, read_on
from model.weights.catalogue import Progress, Source

log = logging.getLogger("lookback")
T = TypeVar("T")


@dataclass(frozen=True)
class Progressed:
    """How much of a long text is read."""

    n_read: int  # tokens
    n_tokens: int


END: Final = object()  # the last that a watch hears
N_FAILURES = 20  # of the loop around the worker in a row: then it will not get better by going on


class WorkerFailed(RuntimeError):
    """Something in the worker that is no ordinary error, such as the panic of a library; never a visitor's fault."""


class WorkerStopped(RuntimeError):
    """The worker does not go on: the server ends."""

    def __init__(self) -> None:
        super().__init__("the worker has stopped, and the server ends")


def end_process() -> None:
    """Let the server shut down, as for SIGTERM; whoever watches over it starts another one."""
    signal.raise_signal(signal.SIGTERM)


@dataclass(eq=False)
class Job:
    """A text on its way through the worker. The worker changes it while it runs, the event loop otherwise."""

    model: Loaded
    ids: tuple[int, ...]
    view: Callable[[Trace], Iterator[Any]]
    foreseeing: bool
    said: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.perf_counter)
    computed_s: float = 0.0
    trace: Trace | None = None  # of what is read of it
    parts: Iterator[Any] | None = None  # of its view, once it is read
    running: bool = False  # the worker has it
    had_turn: bool = False  # in the step just done
    left: bool = False  # nobody waits for it any more
    done: bool = False

    @property
    def read(self) -> Trace:
        """What is read of it; the worker looks for its beginning before anything else."""
        assert self.trace
        return self.trace

    @property
    def n_remaining(self) -> int:
        """Tokens that are still to be read."""
        return len(self.ids) - self.read.n_tokens

    @property
    def timings(self) -> Timings:
        queued_s = max(0.0, time.perf_counter() - self.arrived - self.computed_s)
        return Timings(queued_ms=round(queued_s * 1e3, 3), computed_ms=round(self.computed_s * 1e3, 3))


class Watch(Generic[T]):
    """What comes of a text: `Progressed` while it is long in reading, then the parts of its view, each with timings."""

    def __init__(self, job: Job, leave: Callable[[Job], None]) -> None:
        self._job = job
        self._leave = leave

    async def __aiter__(self) -> AsyncIterator[Progressed | tuple[T, Timings]]:
        while (said := await self._job.said.get()) is not END:
            if isinstance(said, NonFiniteNumber):
                model = self._job.model
                raise NonFiniteNumbers(
                    model.title, said.place, str(model.network.dtype).removeprefix("torch.")
                ) from said
            if isinstance(said, BaseException):
                raise said
            yield said

    def leave(self) -> None:
        """Nobody waits for the rest. What the worker has in hand still comes; nothing else is begun."""
        self._leave(self._job)


def take_batch(remaining: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each waiting text to read in the next pass: first come, first served, as far as they go.

    >>> take_batch([3, 500, 1], budget=128)
    [3, 125, 0]
    """
    taken = []
    for n in remaining:
        taken.append(min(n, budget))
        budget -= taken[-1]
    return taken


class Engine:
    """The queue of texts, and the models that read them."""

    def __init__(self, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None) -> None:
        self.settings = settings
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._kept = Kept(settings.kept_mb * 1_000_000)
        self.models = Models(sources, settings, self._worker, self._kept.forget, progress)
        self._waiting: list[Job] = []
        self._wake = asyncio.Event()
        self._n_steps = 0  # of the worker, so far
        self.is_alive = True  # the worker takes texts

    @classmethod
    @asynccontextmanager
    async def serving(
        cls, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Self]:
        """An engine that has begun to load its default model, and is put away at the end."""
        engine = cls(sources, settings, progress)
        engine.models.start()
        work = asyncio.create_task(engine._supervise())
        try:
            yield engine
        finally:
            work.cancel()
            engine.models.close()
            engine._worker.shutdown(wait=False, cancel_futures=True)

    async def tokens(self, text: str, model: Loaded, *, special_tokens: bool = False) -> Tokens:
        """The tokens of a text, as `Loaded.tokens` gives them; long texts keep nobody waiting."""
        try:
            return await asyncio.to_thread(model.tokens, text, special_tokens=special_tokens)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # tiktoken's PanicException is one; nothing above here would answer it
            raise as_error(error, len(text)) from error

    def watch(
        self, model: Loaded, tokens: Tokens, view: Callable[[Trace], Iterator[T]], *, foreseeing: bool = False
    ) -> Watch[T]:
        """Read a text, and make the parts of a view of it one after another, all in the worker thread.

        A view that asks for the logits after the last token says so by `foreseeing`; they are then computed together
        with those of the texts that are read at the same time.

        Raises:
            Busy: when too many texts wait already.
            WorkerStopped: when the worker does not go on.
        """
        if not self.is_alive:
            raise WorkerStopped
        n_waiting = sum(not job.left for job in self._waiting)
        if n_waiting >= self.settings.max_waiting:
            raise Busy(n_waiting, self.settings.max_waiting)
        self._waiting.append(job := Job(model, tokens.ids, view, foreseeing))
        self._wake.set()
        return Watch(job, self._leave)

    async def look(
        self, model: Loaded, tokens: Tokens, view: Callable[[Trace], T], *, foreseeing: bool = False
    ) -> tuple[T, Timings]:
        """The same for a view in one part.

        Raises:
            Busy: when too many texts wait already.
        """
        watch = self.watch(model, tokens, lambda trace: iter([view(trace)]), foreseeing=foreseeing)
        try:
            async for said in watch:
                if not isinstance(said, Progressed):
                    return said
        finally:
            watch.leave()
        raise RuntimeError("the worker was stopped")

    def _leave(self, job: Job) -> None:
        job.left = True
        if job in self._waiting and not job.running:
            self._waiting.remove(job)
            job.said.put_nowait(END)

    async def _supervise(self) -> None:
        """Keep the loop around the worker going. What it had in hand when it failed fails; the next texts are read.

        A loop that fails again and again, whatever it is given, is ended, and the process with it: the server says that
        it is neither ready nor alive rather than keep everybody waiting.
        """
        n_failures = 0
        while n_failures < N_FAILURES:
            n_done = self._n_steps
            try:
                await self._work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                n_failures = 1 if self._n_steps > n_done else n_failures + 1
                log.exception("the loop around the worker failed; %d texts are given up", len(self._waiting))
                self._give_up(error)
        log.critical("the worker does not go on; the server ends")
        self.is_alive = False
        self._give_up(WorkerStopped())
        end_process()

    def _give_up(self, error: BaseException) -> None:
        """Fail every text that waits."""
        for job in self._waiting:
            job.said.put_nowait(as_error(error, len(job.ids)))
        self._waiting.clear()

    async def _work(self) -> None:
        """Let the worker go on with what waits, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self._waiting:
                await self._wake.wait()
                continue
            jobs = [job for job in self._waiting if job.model.network is self._waiting[0].model.network]
            for job in jobs:
                job.running = True
            await loop.run_in_executor(self._worker, self._step, jobs, loop)
            self._n_steps += 1
            await asyncio.sleep(0)  # who has heard enough leaves now
            for job in jobs:
                job.running = False
                if job.left or job.done:
                    self._waiting.remove(job)
                    job.said.put_nowait(END)
            # Who had a turn goes to the end of the line; whom the budget left out stays in front.
            self._waiting.sort(key=lambda job: job.had_turn)
            for job in self._waiting:
                job.had_turn = False

    def _step(self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop) -> None:
        """One turn of the worker: a pass over tokens of the texts that wait, then a part of each view."""

        def say(job: Job, what: Any) -> None:
            loop.call_soon_threadsafe(job.said.put_nowait, what)

        try:
            self._read(jobs, say)
        except BaseException as error:
            log.exception("a step over %d texts failed", len(jobs))
            for job in jobs:
                self._fail(job, error, say)

    def _fail(self, job: Job, error: BaseException, say: Callable[[Job, Any], object]) -> None:
        if not job.done:
            job.done = True
            say(job, as_error(error, len(job.ids)))

    def _read(self, jobs: Sequence[Job], say: Callable[[Job, Any], object]) -> None:
        started = time.perf_counter()
        for job in jobs:
            job.trace = job.trace or self._kept.longest(job.model.network, job.ids)
        shares = take_batch([job.n_remaining for job in jobs], self.settings.max_batch_tokens)
        batch = [(job, n) for job, n in zip(jobs, shares, strict=True) if n]
        self._read_batch(batch, say)
        ready = [job for job in jobs if not job.done and not job.n_remaining]
        try:
            foresee([job.read for job in ready if job.foreseeing])
        except BaseException:  # it only saves time: each view then computes these logits, or fails, by itself
            log.exception("the logits of %d texts could not be computed together", len(ready))
        for job, _ in batch:
            job.computed_s += time.perf_counter() - started
            job.had_turn = True
            if job.n_remaining and not job.done:
                self._kept.keep(job.ids[: job.read.n_tokens], job.read)
                say(job, Progressed(job.read.n_tokens, len(job.ids)))
        for job in ready:
            job.had_turn = True
            self._kept.keep(job.ids, job.read)
            began = time.perf_counter()
            try:
                job.read.check()  # a text whose pass overflowed fails by itself, not with its batch
                job.parts = job.parts or job.view(job.read)
                part = next(job.parts, END)
            except BaseException as error:
                if not isinstance(error, Exception):
                    log.exception("a view of %d tokens failed", len(job.ids))
                self._fail(job, error, say)
                continue
            job.computed_s += time.perf_counter() - began
            if part is END:
                job.done = True
            else:
                say(job, (part, job.timings))

    def _read_batch(self, batch: Sequence[tuple[Job, int]], say: Callable[[Job, Any], object]) -> None:
        """Read so many more tokens of each of these texts in one pass.

        Where that fails, each is read by itself, so that a text that cannot be computed fails alone.
        """
        if not batch:
            return
        texts = [(job.read, job.ids[job.read.n_tokens : job.read.n_tokens + n]) for job, n in batch]
        try:
            traces = read_on(batch[0][0].model.network, texts)
        except BaseException as error:
            log.exception("a pass over %d texts failed", len(batch))
            if len(batch) == 1:
                self._fail(batch[0][0], error, say)
            for item in batch if len(batch) > 1 else ():
                self._read_batch([item], say)
            return
        for (job, _), trace in zip(batch, traces, strict=True):
            job.trace = trace


def as_error(error: BaseException, n_tokens: int) -> Exception:
    """What to tell of something that went wrong while a text of so many tokens was in hand.

    torch says that there is no memory in an error of its own for GPUs, and for the CPU in the words of its allocator.
    A panic is made an ordinary error, because a request that ended with it would not be answered at all.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return OutOfMemory(n_tokens)
    if isinstance(error, Exception):
        return error
    return WorkerFailed(f"{type(error).__name__}: {error}")
