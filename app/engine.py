"""Waiting texts -> batches -> Traces -> results, in the one thread in which torch works.

The event loop never waits for torch. It hands all waiting jobs to the worker; the worker reads as many of their tokens
in one pass as the budget allows, computes one result for each job whose text is read, and takes the next jobs. So a
long text is read in chunks, and other jobs run in between. There is one thread for all of torch because every thread
that calls it starts a team of OpenMP threads of its own; with two teams on two cores, readings took more than twice as
long. This module knows nothing of HTTP.
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Self, TypeVar, cast

import torch

from app.errors import Busy, NonFiniteNumbers, OutOfMemory, TextTooLongForEdits
from app.models import LoadedModel, Models
from app.schemas import Timings
from app.settings import Settings
from model.cache import PrefixCache
from model.edits import NO_EDITS, Edits
from model.gpt import GPT
from model.reading import compute_last_logits, read_batch
from model.sites import ObservedSite
from model.tokenizer import Tokens
from model.trace import NonFiniteNumber, Trace
from model.weights.sources import Progress, Source

log = logging.getLogger("lookback")
T = TypeVar("T")
NO_SITES: frozenset[ObservedSite] = frozenset()


@dataclass(frozen=True)
class ReadingProgress:
    """How much of a long text is read."""

    n_read: int  # tokens
    n_tokens: int


class Pause:
    """A result after which a job waits until its stream is resumed; a view yields a subclass to ask for something."""


END: Final = object()  # the last event of a ResultStream
MAX_FAILURES = 20  # consecutive failures of the worker loop, after which going on would not help


@dataclass(frozen=True)
class Reading:
    """What is to be read: ids, under which edits, with which sites observed."""

    ids: tuple[int, ...]
    edits: Edits = NO_EDITS
    sites: frozenset[ObservedSite] = NO_SITES  # beyond what every trace holds
    is_fresh: bool = False  # takes nothing from the cache and leaves nothing in it


class WorkerFailed(RuntimeError):
    """The worker failed with something that is no ordinary error, such as the panic of a library."""


class WorkerStopped(RuntimeError):
    """The worker has stopped for good: the server ends."""

    def __init__(self) -> None:
        super().__init__("the worker has stopped, and the server ends")


def end_process() -> None:
    """Shut the server down as SIGTERM does; its supervisor starts another one."""
    signal.raise_signal(signal.SIGTERM)


@dataclass(eq=False)
class Job:
    """A text, and the view to compute from its trace.

    While it is `running`, only the worker changes it, except `cancelled`.
    """

    model: LoadedModel
    reading: Reading
    view: Callable[[Trace], Iterator[object]]
    needs_last_logits: bool
    events: asyncio.Queue[object] = field(default_factory=asyncio.Queue)  # ReadingProgress, results, errors, END
    submitted_at: float = field(default_factory=time.perf_counter)
    computed_s: float = 0.0
    trace: Trace | None = None  # of the tokens read so far
    results: Iterator[object] | None = None  # of the view, once the whole text is read
    running: bool = False  # the worker has it
    ran: bool = False  # in the step just done
    cancelled: bool = False
    done: bool = False
    paused: bool = False  # until `resume`: whoever reads its events must do something first

    @property
    def pass_key(self) -> tuple[GPT, Edits, frozenset[ObservedSite]]:
        """Jobs with the same one can be read in one pass."""
        return self.model.network, self.reading.edits, self.reading.sites

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the text."""
        return self.reading.ids

    @property
    def read_so_far(self) -> Trace:
        """The trace of the tokens read so far; only in the worker, which looks it up in the cache first."""
        assert self.trace
        return self.trace

    @property
    def n_remaining(self) -> int:
        """Tokens that are not read yet."""
        return len(self.ids) - self.read_so_far.n_tokens

    @property
    def timings(self) -> Timings:
        """Time in the queue and time of computation until now."""
        queued_s = max(0.0, time.perf_counter() - self.submitted_at - self.computed_s)
        return Timings(queued_ms=round(queued_s * 1e3, 3), computed_ms=round(self.computed_s * 1e3, 3))


Send = Callable[[Job, object], None]  # sends an event of a job from the worker thread to the event loop


class ResultStream(Generic[T]):
    """The events of one job: `ReadingProgress` while a long text is read, then the results, each with its timings."""

    def __init__(self, job: Job, cancel: Callable[[Job], None], resume: Callable[[Job], None]) -> None:
        self._job = job
        self._cancel = cancel
        self._resume = resume

    async def __aiter__(self) -> AsyncIterator[ReadingProgress | tuple[T, Timings]]:
        while (event := await self._job.events.get()) is not END:
            if isinstance(event, NonFiniteNumber):
                model = self._job.model
                dtype = str(model.network.dtype).removeprefix("torch.")
                raise NonFiniteNumbers(model.title, event.place, dtype, str(self._job.reading.edits)) from event
            if isinstance(event, BaseException):
                raise event
            yield cast("ReadingProgress | tuple[T, Timings]", event)

    def cancel(self) -> None:
        """Compute nothing more for this job. A result that is being computed is still delivered."""
        self._cancel(self._job)

    def resume(self) -> None:
        """Continue a job whose last result was `Pause`."""
        self._resume(self._job)


def split_budget(remaining: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each waiting text to read in the next pass: first come, first served, within the budget.

    >>> split_budget([3, 500, 1], budget=128)
    [3, 125, 0]
    """
    n_taken = []
    for n in remaining:
        n_taken.append(min(n, budget))
        budget -= n_taken[-1]
    return n_taken


def fit_budget(remaining: Sequence[int], budget: int) -> list[int]:
    """As `split_budget`, but of each text all tokens are read in the next pass, or none.

    >>> fit_budget([3, 500, 1], budget=128)
    [3, 0, 1]
    """
    n_taken = []
    for n in remaining:
        n_taken.append(n if n <= budget else 0)
        budget -= n_taken[-1]
    return n_taken


class Engine:
    """The queue of jobs, and the models that read their texts."""

    def __init__(self, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None) -> None:
        self.settings = settings
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._cache = PrefixCache(settings.cache_mb * 1_000_000)
        self.models = Models(sources, settings, self._worker, self._cache.evict_model, progress)
        self._waiting: list[Job] = []
        self._wake = asyncio.Event()
        self._n_iterations = 0  # that the worker has completed
        self.is_alive = True  # the worker accepts jobs

    @classmethod
    @asynccontextmanager
    async def serving(
        cls, sources: Mapping[str, Source], settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Self]:
        """An engine that has begun to load its default model, and is closed at the end of the context."""
        engine = cls(sources, settings, progress)
        engine.models.start()
        supervisor = asyncio.create_task(engine._supervise())
        try:
            yield engine
        finally:
            supervisor.cancel()
            engine.models.close()
            engine._worker.shutdown(wait=False, cancel_futures=True)

    async def tokens(self, text: str, model: LoadedModel, *, special_tokens: bool = False) -> Tokens:
        """The tokens of a text, as `LoadedModel.tokens` returns them, computed in a thread of their own."""
        try:
            return await asyncio.to_thread(model.tokens, text, special_tokens=special_tokens)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # such as tiktoken's PanicException, to which no caller would reply
            raise as_error(error, len(text)) from error

    def submit(
        self,
        model: LoadedModel,
        reading: Reading,
        view: Callable[[Trace], Iterator[T]],
        *,
        needs_last_logits: bool = False,
    ) -> ResultStream[T]:
        """Read a text, then compute the results of a view one after another, all in the worker thread.

        A view that uses the logits after the last token sets `needs_last_logits`; they are then computed together
        with those of the other texts of the batch. Texts under other edits, or with other sites, are read in another
        pass. A head without a mask needs all tokens of a text, which therefore may not be longer than one pass.

        Raises:
            Busy: if too many texts are waiting.
            TextTooLongForEdits: if a head has no mask, and the text does not fit into one pass.
            WorkerStopped: if the worker has stopped.
        """
        if not reading.edits.is_causal and len(reading.ids) > self.settings.max_batch_tokens:
            raise TextTooLongForEdits(len(reading.ids), self.settings.max_batch_tokens)
        if not self.is_alive:
            raise WorkerStopped
        n_waiting = sum(not job.cancelled for job in self._waiting)
        if n_waiting >= self.settings.max_waiting:
            raise Busy(n_waiting, self.settings.max_waiting)
        self._waiting.append(job := Job(model, reading, view, needs_last_logits))
        self._wake.set()
        return ResultStream(job, self._cancel, self._resume)

    async def compute(
        self,
        model: LoadedModel,
        reading: Reading,
        view: Callable[[Trace], T],
        *,
        needs_last_logits: bool = False,
    ) -> tuple[T, Timings]:
        """The result of a view that has only one, with its timings; see `submit`.

        Raises:
            Busy: if too many texts are waiting.
        """
        stream = self.submit(model, reading, lambda trace: iter([view(trace)]), needs_last_logits=needs_last_logits)
        try:
            async for event in stream:
                if not isinstance(event, ReadingProgress):
                    return event
        finally:
            stream.cancel()
        raise RuntimeError("the worker was stopped")

    def _cancel(self, job: Job) -> None:
        job.cancelled = True
        if job in self._waiting and not job.running:
            self._waiting.remove(job)
            job.events.put_nowait(END)

    def _resume(self, job: Job) -> None:
        job.paused = False
        self._wake.set()

    async def _supervise(self) -> None:
        """Restart the worker loop when it fails; the jobs it had fail with it, later ones run.

        If it fails MAX_FAILURES times in a row, whatever the jobs are, the process ends, so that whatever supervises it
        can start another one.
        """
        n_failures = 0
        while n_failures < MAX_FAILURES:
            n_iterations_before = self._n_iterations
            try:
                await self._work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                n_failures = 1 if self._n_iterations > n_iterations_before else n_failures + 1
                log.exception("the worker loop failed; %d waiting texts fail with it", len(self._waiting))
                self._fail_all(error)
        log.critical("the worker loop failed %d times in a row; the server ends", MAX_FAILURES)
        self.is_alive = False
        self._fail_all(WorkerStopped())
        end_process()

    def _fail_all(self, error: BaseException) -> None:
        for job in self._waiting:
            job.events.put_nowait(as_error(error, len(job.ids)))
        self._waiting.clear()

    async def _work(self) -> None:
        """Run one step of the worker after another over the waiting jobs, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            ready = [job for job in self._waiting if not job.paused]
            if not ready:
                await self._wake.wait()
                continue
            jobs = [job for job in ready if job.pass_key == ready[0].pass_key]
            for job in jobs:
                job.running = True
            await loop.run_in_executor(self._worker, self._iterate, jobs, loop)
            self._n_iterations += 1
            await asyncio.sleep(0)  # lets clients that need no further result cancel now
            for job in jobs:
                job.running = False
                if job.cancelled or job.done:
                    self._waiting.remove(job)
                    job.events.put_nowait(END)
            # Jobs that ran go to the end of the queue; those that did not fit in this batch keep their place in front.
            self._waiting.sort(key=lambda job: job.ran)
            for job in self._waiting:
                job.ran = False

    def _iterate(self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop) -> None:
        """One step of the worker: one forward pass over waiting tokens, then one result of each view."""

        def send(job: Job, event: object) -> None:
            loop.call_soon_threadsafe(job.events.put_nowait, event)

        try:
            self._run(jobs, send)
        except BaseException as error:
            log.exception("a step over %d texts failed", len(jobs))
            for job in jobs:
                self._fail(job, error, send)

    def _fail(self, job: Job, error: BaseException, send: Send) -> None:
        if not job.done:
            job.done = True
            send(job, as_error(error, len(job.ids)))

    def _run(self, jobs: Sequence[Job], send: Send) -> None:
        started = time.perf_counter()
        for job in jobs:
            cache = PrefixCache(0) if job.reading.is_fresh else self._cache
            job.trace = job.trace or cache.longest_prefix(
                job.model.network, job.ids, job.reading.edits, job.reading.sites
            )
        divide = split_budget if jobs[0].reading.edits.is_causal else fit_budget
        n_taken = divide([job.n_remaining for job in jobs], self.settings.max_batch_tokens)
        batch = [(job, n) for job, n in zip(jobs, n_taken, strict=True) if n]
        self._read_batch(batch, send)
        read = [job for job in jobs if not job.done and not job.n_remaining]
        try:
            compute_last_logits([job.read_so_far for job in read if job.needs_last_logits])
        except BaseException:  # it only saves time: each view then computes its own logits, or fails by itself
            log.exception("the logits of %d texts could not be computed together", len(read))
        for job, _ in batch:
            job.computed_s += time.perf_counter() - started
            job.ran = True
            if job.n_remaining and not job.done:
                self._keep(job)
                send(job, ReadingProgress(job.read_so_far.n_tokens, len(job.ids)))
        for job in read:
            job.ran = True
            self._keep(job)
            self._compute_next(job, send)

    def _keep(self, job: Job) -> None:
        if not job.reading.is_fresh:
            self._cache.put(job.ids[: job.read_so_far.n_tokens], job.read_so_far)

    def _compute_next(self, job: Job, send: Send) -> None:
        """The next result of a job whose text is read. A view that fails fails alone, not with its batch."""
        started = time.perf_counter()
        try:
            job.read_so_far.check_finite()
            job.results = job.results or job.view(job.read_so_far)
            result = next(job.results, END)
        except BaseException as error:
            if not isinstance(error, Exception):
                log.exception("a view of %d tokens failed", len(job.ids))
            self._fail(job, error, send)
            return
        job.computed_s += time.perf_counter() - started
        if result is END:
            job.done = True
        else:
            job.paused = isinstance(result, Pause)
            send(job, (result, job.timings))

    def _read_batch(self, batch: Sequence[tuple[Job, int]], send: Send) -> None:
        """Read that many more tokens of each job's text in one pass.

        If the pass fails, each text is read by itself, so that only the text that cannot be computed fails.
        """
        if not batch:
            return
        texts = [
            (job.read_so_far, job.ids[job.read_so_far.n_tokens : job.read_so_far.n_tokens + n]) for job, n in batch
        ]
        try:
            first, _ = batch[0]
            traces = read_batch(first.model.network, texts, first.reading.edits, first.reading.sites)
        except BaseException as error:
            log.exception("a pass over %d texts failed", len(batch))
            if len(batch) == 1:
                self._fail(batch[0][0], error, send)
            for item in batch if len(batch) > 1 else ():
                self._read_batch([item], send)
            return
        for (job, _), trace in zip(batch, traces, strict=True):
            job.trace = trace


def as_error(error: BaseException, n_tokens: int) -> Exception:
    """The error to report for one that occurred while a text of `n_tokens` was computed.

    torch reports missing memory by an error class for GPUs, and by its allocator's message for the CPU. A panic
    becomes an ordinary error, because a request that ended with it would get no reply at all.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return OutOfMemory(n_tokens)
    if isinstance(error, Exception):
        return error
    return WorkerFailed(f"{type(error).__name__}: {error}")
