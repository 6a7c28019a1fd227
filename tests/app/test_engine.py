"""The engine: models load in the background, texts wait in a queue, and what was read is cached."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app import engine as engine_module
from app.engine import Engine, Pause, Reading, ReadingProgress, WorkerFailed, WorkerStopped, fit_budget, split_budget
from app.errors import Busy, ModelLoading, ModelNotHere, ModelTooLarge, ModelUnavailable, OutOfMemory, UnknownModel
from app.models import Entry, LoadedModel
from app.settings import Settings
from model.edits import NO_EDITS, Cut, Edit, Edits, Temperature
from model.gpt import GPT
from model.reading import read, read_batch
from model.sites import ObservedSite
from model.tokenizer import Tokens
from model.trace import Trace
from model.weights.catalogue import catalogue
from model.weights.folder import load
from model.weights.sources import FetchError, FolderSource, Progress

OFF = Edit("context", 0, (1,), scale=0.0)
NO_SITES: frozenset[ObservedSite] = frozenset()
MLP: frozenset[ObservedSite] = frozenset({"mlp"})


class Panic(BaseException):
    """What a library written in Rust raises when it panics: it is no Exception."""


class ControlledSource(FolderSource):
    """A folder whose fetches the test controls: each fetch calls the next of `on_fetch`."""

    on_fetch: tuple[Callable[[], object], ...] = ()

    def fetch(self, _: Path, progress: Progress) -> Path:
        progress("fetching weights", 34_000_000, 93_000_000)
        call, *rest = type(self).on_fetch
        type(self).on_fetch = tuple(rest)
        call()
        return self.folder


def controlled(*on_fetch: Callable[[], object]) -> type[ControlledSource]:
    """Each is a class of its own, because the remaining calls are stored in the class."""
    return type("Controlled", (ControlledSource,), {"on_fetch": on_fetch})


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=60))


async def loaded_model(engine: Engine, name: str | None = None) -> LoadedModel:
    """The model, once it is loaded."""
    while True:
        try:
            return engine.models.get(name)
        except ModelLoading:
            await asyncio.sleep(0.01)


def settings(**change: Any) -> Settings:
    return Settings(**{"device": "cpu", **change})


def test_while_a_model_loads_its_progress_is_reported(tiny_llama: Path) -> None:
    gate = threading.Event()

    async def test() -> None:
        sources = {"tiny": controlled(gate.wait)("tiny", tiny_llama)}
        async with Engine.serving(sources, settings()) as engine:
            while "MB" not in engine.models.entries["tiny"].doing:
                await asyncio.sleep(0.01)
            assert (engine.models.ready, engine.models.state("tiny")) == (False, "loading")
            with pytest.raises(ModelLoading, match="tiny is not ready yet: fetching weights, 34 of 93 MB"):
                engine.models.get()
            gate.set()
            await loaded_model(engine)
            assert (engine.models.ready, engine.models.state("tiny")) == (True, "ready")

    run(test())


def test_a_failed_load_has_a_reason_and_can_be_retried(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FetchError("The registry is out of reach.")

    async def test() -> None:
        sources = {"tiny": controlled(fail, bool)("tiny", tiny_llama)}
        async with Engine.serving(sources, settings()) as engine:
            while engine.models.entries["tiny"].loading:
                await asyncio.sleep(0.01)
            assert engine.models.state("tiny") == "failed"
            with pytest.raises(ModelUnavailable, match=r"tiny could not be loaded\. The registry is out of reach\."):
                engine.models.get()
            monkeypatch.setattr(ModelUnavailable, "retry_after_s", 0)
            await loaded_model(engine)

    run(test())


def test_the_error_for_an_unknown_model_lists_the_models(tiny_llama: Path) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            with pytest.raises(UnknownModel, match=r"There is no model 'other'\. Models: tiny"):
                engine.models.get("other")

    run(test())


def test_a_failed_load_of_the_default_model_is_retried_automatically(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.models.RETRY_S", (0.01, 0.02))

    def fail() -> None:
        raise FetchError("The registry is out of reach.")

    async def test() -> None:
        sources = {"tiny": controlled(fail, fail, fail, bool)("tiny", tiny_llama)}
        async with Engine.serving(sources, settings()) as engine:
            while not engine.models.ready:  # no request for it is made
                await asyncio.sleep(0.01)
            assert engine.models.entries["tiny"].n_failures == 0

    run(test())


def test_a_panic_during_a_load_is_reported_with_its_name(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: Any, **__: Any) -> None:
        raise Panic("a byte without a rank")

    monkeypatch.setattr("app.models.load", panic)

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            while engine.models.entries["tiny"].loading:
                await asyncio.sleep(0.01)
            with pytest.raises(ModelUnavailable, match="Panic: a byte without a rank"):
                engine.models.get()

    run(test())


class LocalSource(FolderSource):
    """A model whose weights are on this machine."""

    is_here = True

    def local(self, _: Path) -> Path:
        return self.folder if self.is_here else None  # type: ignore[return-value]


class RemoteSource(LocalSource):
    """A model whose weights would have to be fetched."""

    is_here = False


def test_only_models_on_this_machine_are_loaded_unless_the_settings_name_others(tiny_llama: Path) -> None:
    sources = {"default": RemoteSource("default", tiny_llama), "here": LocalSource("here", tiny_llama)}
    sources |= {name: RemoteSource(name, tiny_llama) for name in ("b", "c")}

    async def states_with(**change: Any) -> dict[str, str]:
        async with Engine.serving(sources, settings(**change)) as engine:
            await loaded_model(engine)
            states: dict[str, str] = {name: engine.models.state(name) for name in sources}
            for name in (name for name, state in states.items() if state == "not here"):
                with pytest.raises(ModelNotHere, match=f"`lookback fetch {name}`"):
                    engine.models.get(name)
                assert not engine.models.entries[name].loading
            return states

    async def test() -> None:
        assert await states_with() == {"default": "ready", "here": "available", "b": "not here", "c": "not here"}
        named = await states_with(models="b, default")
        assert named == {"default": "ready", "here": "not here", "b": "available", "c": "not here"}

    run(test())


def test_the_least_recently_used_model_is_unloaded_before_the_next_one_is_loaded(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {name: FolderSource(name, tiny_llama) for name in ("default", "b", "c", "d")}
    at_loading: dict[str, list[str]] = {}

    async def test() -> None:
        async with Engine.serving(sources, settings()) as engine:
            engine.models._budget = 3 * engine.models._n_bytes_needed("default")
            load_folder = engine.models._load_folder

            def record(entry: Entry, folder: Path) -> LoadedModel:
                loaded = [name for name, entry in engine.models.entries.items() if entry.loaded]
                at_loading[entry.source.name] = loaded
                return load_folder(entry, folder)

            monkeypatch.setattr(engine.models, "_load_folder", record)
            for name in ("default", "b", "c", "b", "d"):
                await loaded_model(engine, name)
            assert at_loading["c"] == ["default", "b"]
            assert at_loading["d"] == ["default", "b"]  # c was unloaded, because b was used after it

    run(test())


def test_a_model_that_does_not_fit_beside_the_default_is_refused(tiny_llama: Path) -> None:
    async def test() -> None:
        sources = {name: FolderSource(name, tiny_llama) for name in ("default", "b")}
        async with Engine.serving(sources, settings()) as engine:
            await loaded_model(engine)
            engine.models._budget = 2 * engine.models._n_bytes_needed("default") - 1
            with pytest.raises(ModelTooLarge, match="LOOKBACK_MODELS_MB"):
                engine.models.get("b")
            assert engine.models.ready

    run(test())


def test_gpt2_large_fits_into_the_default_budget_and_gpt2_xl_does_not() -> None:
    """They have 0.77 and 1.56 billion parameters of 4 bytes each, counted twice, beside SmolLM2's 0.13 billion."""

    async def test() -> None:
        engine = Engine(catalogue("smollm2-135m"), settings(models="gpt2-large,gpt2-xl", dtype="float32"))
        assert engine.models._n_bytes_needed("gpt2-xl") == 2 * 4 * 1_557_611_200
        with pytest.raises(ModelTooLarge, match=r"gpt2-xl needs 12,461 MB"):
            engine.models.get("gpt2-xl")
        engine.models._check_budget("gpt2-large")
        engine.models.close()

    run(test())


def test_when_the_queue_is_full_a_text_is_refused_and_the_waiting_ones_are_read(tiny_llama: Path) -> None:
    gate, started = threading.Event(), threading.Event()

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings(max_waiting=2)) as engine:
            model = await loaded_model(engine)
            tokens = await cat(engine, model)

            def wait(trace: Trace) -> int:
                started.set()
                gate.wait()
                return trace.n_tokens

            first, second = (asyncio.ensure_future(engine.compute(model, tokens, wait)) for _ in range(2))
            await asyncio.to_thread(started.wait)
            await asyncio.sleep(0.05)
            with pytest.raises(Busy, match="2 texts are waiting; the limit is 2"):
                await engine.compute(model, tokens, wait)
            gate.set()
            assert (await first)[0] == (await second)[0] == len(tokens.ids)
            assert (await second)[1].queued_ms > 20
            await engine.compute(model, tokens, wait)

    run(test())


def test_the_event_loop_is_not_blocked_while_torch_works(tiny_llama: Path) -> None:
    gate = threading.Event()

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            work = asyncio.ensure_future(engine.compute(model, await cat(engine, model), lambda _: gate.wait()))
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert not work.done()
            gate.set()
            assert (await work)[0]

    run(test())


def test_torch_is_used_in_only_one_thread(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread would start a second team of OpenMP threads, and both would run at half the speed."""
    threads = set()

    def recorded(work: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return work(*arguments, **options)

        return record

    monkeypatch.setattr("app.models.load", recorded(load))
    monkeypatch.setattr("app.engine.read_batch", recorded(read_batch))

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            await engine.compute(model, await cat(engine, model), recorded(lambda trace: trace.logits([0])))

    run(test())
    assert threads == {"torch_0"}


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 200))
def test_a_batch_takes_tokens_in_the_order_of_the_queue_within_its_budget(remaining: list[int], budget: int) -> None:
    taken = split_budget(remaining, budget)
    assert sum(taken) == min(budget, sum(remaining))
    for n, n_remaining in zip(taken, remaining, strict=True):
        assert 0 <= n <= n_remaining
    incomplete = [i for i, (n, n_remaining) in enumerate(zip(taken, remaining, strict=True)) if n < n_remaining]
    assert not any(taken[i] for i in range(len(taken)) if incomplete and i > incomplete[0])


class Passes:
    """Records each pass of the worker: the number of new tokens of each text, which is named by its first id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_tokens: list[dict[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        monkeypatch.setattr("app.engine.read_batch", self._read_batch)

    def _read_batch(self, model: GPT, texts: list[tuple[Trace, tuple[int, ...]]], *under: Any) -> list[Trace]:
        self.gate.wait()
        traces = read_batch(model, texts, *under)
        self.n_tokens.append({self._first_id(trace): len(ids) for trace, (_, ids) in zip(traces, texts, strict=True)})
        return traces

    def _first_id(self, trace: Trace) -> int:
        """The id of the first token, found by its key in layer 0."""
        key = trace.chunks[0].keys_LGTD[0, 0, 0]
        return next(id for id, key_of_id in enumerate(self.keys) if torch.allclose(key, key_of_id, atol=1e-5))

    def use_keys_of(self, model: LoadedModel) -> None:
        self.keys = [read(model.network, [id]).chunks[0].keys_LGTD[0, 0, 0] for id in range(10)]


def text(first: int, n: int, edits: Edits = NO_EDITS, sites: frozenset[ObservedSite] = NO_SITES) -> Reading:
    """A text of `n` tokens whose first token has the id `first`."""
    return Reading((first, *[50] * (n - 1)), edits, sites)


async def cat(engine: Engine, model: LoadedModel) -> Reading:
    """The text "cat"."""
    return Reading((await engine.tokens("cat", model)).ids)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


async def wait_for_queue(engine: Engine, n: int) -> None:
    """Wait until `n` texts are waiting."""
    while len(engine._waiting) < n:
        await asyncio.sleep(0.001)


def test_waiting_texts_are_read_in_one_pass_and_each_gets_its_own_result(tiny_llama: Path, passes: Passes) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            passes.gate.clear()

            def last(trace: Trace) -> torch.Tensor:
                return trace.logits([trace.n_tokens - 1])[0]

            futures = [asyncio.ensure_future(engine.compute(model, text(i, i), last)) for i in range(1, 6)]
            await wait_for_queue(engine, 5)
            passes.gate.set()
            results = [(await future)[0] for future in futures]
            assert passes.n_tokens == [{1: 1, 2: 2, 3: 3, 4: 4, 5: 5}]
            for i, logits_V in enumerate(results, 1):
                alone = read(model.network, text(i, i).ids).logits([i - 1])[0]
                torch.testing.assert_close(logits_V, alone, atol=1e-4, rtol=0)

    run(test())


@given(st.lists(st.integers(0, 100), max_size=12), st.integers(1, 100))
def test_a_batch_of_whole_texts_takes_all_of_a_text_or_nothing(remaining: list[int], budget: int) -> None:
    taken = fit_budget(remaining, budget)
    assert sum(taken) <= budget
    assert all(n in (0, n_remaining) for n, n_remaining in zip(taken, remaining, strict=True))
    assert not taken or taken[0] == (remaining[0] if remaining[0] <= budget else 0)  # the first is not passed over


def test_texts_under_the_same_edits_share_a_pass_and_texts_under_others_do_not(
    tiny_llama: Path, passes: Passes
) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            passes.gate.clear()
            off, also_off, cooler = (Edits((change,)) for change in (OFF, OFF, Temperature(None, None, 2.0)))
            work = [
                asyncio.ensure_future(engine.compute(model, text(i, 3, edits, sites), lambda trace: trace.edits))
                for i, (edits, sites) in enumerate(
                    [(off, NO_SITES), (cooler, NO_SITES), (also_off, NO_SITES), (off, MLP)], 1
                )
            ]
            await wait_for_queue(engine, 4)
            passes.gate.set()
            assert [(await future)[0] for future in work] == [off, cooler, off, off]
            assert passes.n_tokens == [{1: 3, 3: 3}, {2: 3}, {4: 3}]

    run(test())


def test_a_fresh_reading_takes_nothing_from_the_cache_and_leaves_nothing_in_it(
    tiny_llama: Path, passes: Passes
) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            for reading in (text(1, 3), Reading(text(1, 3).ids, is_fresh=True), Reading((2, 50), is_fresh=True)):
                await engine.compute(model, reading, lambda trace: trace.n_tokens)
            await engine.compute(model, text(2, 2), lambda trace: trace.n_tokens)
            assert passes.n_tokens == [{1: 3}, {1: 3}, {2: 2}, {2: 2}]

    run(test())


def test_a_paused_job_waits_until_it_is_resumed_and_others_run(tiny_llama: Path) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            read_meanwhile: list[int] = []
            stream = engine.submit(model, text(1, 3), lambda _: iter([Pause(), len(read_meanwhile), read_meanwhile]))
            async for event in stream:
                assert not isinstance(event, ReadingProgress)
                if isinstance(event[0], Pause):
                    n_tokens, _ = await engine.compute(model, text(2, 4), lambda trace: trace.n_tokens)
                    read_meanwhile.append(n_tokens)
                    stream.resume()
            assert not isinstance(event, ReadingProgress)
            assert event[0] == [4]

    run(test())


def test_the_unedited_beginning_of_an_edited_text_is_not_read_again(tiny_llama: Path, passes: Passes) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            edits = Edits((Cut(1, 0, query=7, key=2),))
            await engine.compute(model, text(1, 10), lambda trace: trace.n_tokens)
            for _ in range(2):
                await engine.compute(model, text(1, 10, edits), lambda trace: trace.n_tokens)
            assert passes.n_tokens == [{1: 10}, {1: 3}]  # the tokens from the cut query on, and only once

    run(test())


def test_short_texts_are_read_between_the_chunks_of_a_long_one(tiny_llama: Path, passes: Passes) -> None:
    async def test() -> None:
        limits = settings(max_batch_tokens=10)
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, limits) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            passes.gate.clear()
            done = []

            async def compute(first: int, n: int) -> None:
                await engine.compute(model, text(first, n), lambda trace: trace.n_tokens)
                done.append(first)

            futures = [asyncio.ensure_future(compute(1, 35))]
            await wait_for_queue(engine, 1)
            futures += [asyncio.ensure_future(compute(first, 2)) for first in (2, 3)]
            await wait_for_queue(engine, 3)
            passes.gate.set()
            await asyncio.gather(*futures)
            assert passes.n_tokens == [{1: 10}, {2: 2, 3: 2, 1: 6}, {1: 10}, {1: 9}]
            assert done == [2, 3, 1]

    run(test())


def test_progress_of_a_long_text_comes_before_the_results_of_its_view(tiny_llama: Path) -> None:
    async def test() -> None:
        limits = settings(max_batch_tokens=4)
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, limits) as engine:
            model = await loaded_model(engine)
            events = [event async for event in engine.submit(model, text(1, 10), lambda _: iter("ab"))]
            assert events[:2] == [ReadingProgress(4, 10), ReadingProgress(8, 10)]
            assert [result for result, _ in events[2:]] == ["a", "b"]  # type: ignore[misc]

    run(test())


def test_a_cancelled_text_is_not_read(tiny_llama: Path, passes: Passes) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings(max_waiting=3)) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            passes.gate.clear()
            first = asyncio.ensure_future(engine.compute(model, text(1, 3), lambda trace: trace.n_tokens))
            await wait_for_queue(engine, 1)
            await asyncio.sleep(0.05)
            cancelled = [asyncio.ensure_future(engine.compute(model, text(i, 3), lambda t: t.n_tokens)) for i in (2, 3)]
            await wait_for_queue(engine, 3)
            for future in cancelled:
                future.cancel()
            await asyncio.sleep(0)
            last = asyncio.ensure_future(
                engine.compute(model, text(4, 3), lambda trace: trace.n_tokens)
            )  # the cancelled texts do not count as waiting
            await asyncio.sleep(0.01)
            passes.gate.set()
            await asyncio.gather(first, last)
            assert passes.n_tokens == [{1: 3}, {4: 3}]

    run(test())


def test_a_long_text_that_is_cancelled_is_read_no_further_and_the_part_that_was_read_is_cached(
    tiny_llama: Path, passes: Passes
) -> None:
    async def test() -> None:
        limits = settings(max_batch_tokens=4)
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, limits) as engine:
            model = await loaded_model(engine)
            passes.use_keys_of(model)
            stream = engine.submit(model, text(1, 30), lambda trace: iter([trace.n_tokens]))
            async for _ in stream:
                stream.cancel()
            n_read = sum(lengths[1] for lengths in passes.n_tokens)
            assert n_read < 30
            assert (await engine.compute(model, text(1, 30), lambda trace: trace.n_tokens))[0] == 30
            assert sum(lengths[1] for lengths in passes.n_tokens) == 30

    run(test())


def test_a_failing_view_does_not_affect_the_other_views_of_the_batch(tiny_llama: Path) -> None:
    def fail(_: Trace) -> int:
        raise ZeroDivisionError

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            results = await asyncio.gather(
                engine.compute(model, text(1, 2), lambda trace: trace.n_tokens),
                engine.compute(model, text(2, 3), fail),
                engine.compute(model, text(3, 4), lambda trace: trace.n_tokens),
                return_exceptions=True,
            )
            assert [result[0] if isinstance(result, tuple) else type(result) for result in results] == [
                2,
                ZeroDivisionError,
                4,
            ]

    run(test())


def test_a_panic_in_a_view_fails_only_its_text_and_the_worker_continues(tiny_llama: Path) -> None:
    def panic(_: Trace) -> int:
        raise Panic("called unwrap on nothing")

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            results = await asyncio.gather(
                engine.compute(model, text(1, 2), panic),
                engine.compute(model, text(2, 3), lambda trace: trace.n_tokens),
                return_exceptions=True,
            )
            assert isinstance(results[0], WorkerFailed)
            assert "Panic: called unwrap" in str(results[0])
            assert results[1][0] == 3  # type: ignore[index]
            assert (await engine.compute(model, text(3, 4), lambda trace: trace.n_tokens))[0] == 4

    run(test())


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (Panic("no rank"), WorkerFailed),
        (MemoryError(), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), OutOfMemory),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_a_text_that_cannot_be_read_fails_without_the_rest_of_its_batch(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reported: type[Exception]
) -> None:
    gate = threading.Event()

    def failing_read_batch(model: GPT, texts: list[tuple[Trace, tuple[int, ...]]], *under: Any) -> list[Trace]:
        gate.wait()
        if any(ids[0] == 2 for _, ids in texts):
            raise error
        return read_batch(model, texts, *under)

    monkeypatch.setattr("app.engine.read_batch", failing_read_batch)

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            work = [engine.compute(model, text(i, 3), lambda trace: trace.n_tokens) for i in (1, 2, 3)]
            waiting = asyncio.gather(*work, return_exceptions=True)
            await wait_for_queue(engine, 3)
            gate.set()
            first, second, third = await waiting
            assert isinstance(second, reported)
            assert (first[0], third[0]) == (3, 3)  # type: ignore[index]

    run(test())


def test_a_panic_of_the_tokenizer_becomes_an_ordinary_error(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: Any, **__: Any) -> Tokens:
        raise Panic("no rank")

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            monkeypatch.setattr(LoadedModel, "tokens", panic)
            with pytest.raises(WorkerFailed, match="no rank"):
                await engine.tokens("cat", model)

    run(test())


def test_a_failure_of_the_worker_loop_fails_the_waiting_texts_and_the_loop_continues(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            with monkeypatch.context() as patch:
                patch.setattr(engine, "_iterate", None)  # the worker cannot call it
                with pytest.raises(TypeError):
                    await engine.compute(model, text(1, 2), lambda trace: trace.n_tokens)
            assert (await engine.compute(model, text(1, 2), lambda trace: trace.n_tokens))[0] == 2
            assert engine.is_alive

    run(test())


def test_a_worker_loop_that_keeps_failing_ends_the_process(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(engine_module, "end_process", lambda: ended.append("ended"))

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await loaded_model(engine)
            monkeypatch.setattr(engine, "_iterate", None)
            for _ in range(engine_module.MAX_FAILURES):
                with pytest.raises(TypeError):
                    await engine.compute(model, text(1, 2), lambda trace: trace.n_tokens)
            assert (engine.is_alive, ended) == (False, ["ended"])
            with pytest.raises(WorkerStopped):
                await engine.compute(model, text(1, 2), lambda trace: trace.n_tokens)

    run(test())
