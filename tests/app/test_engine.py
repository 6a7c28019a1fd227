"""Loading in the background, waiting in line, and what is kept."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from app.engine import Engine
from app.errors import Busy, ModelLoading, ModelUnavailable, UnknownModel
from app.models import Loaded
from app.settings import Settings
from model.trace import Trace, read_on
from model.weights.catalogue import FetchError, FolderSource, Progress
from model.weights.folder import load


class Slow(FolderSource):
    """A folder that is fetched only when the test says so; `orders` holds what happens at each fetch."""

    orders: tuple[Callable[[], object], ...] = ()

    def fetch(self, _: Path, progress: Progress) -> Path:
        progress("fetching weights", 34_000_000, 93_000_000)
        order, *rest = type(self).orders
        type(self).orders = tuple(rest)
        order()
        return self.folder


def slow(*orders: Callable[[], object]) -> type[Slow]:
    return type("Ordered", (Slow,), {"orders": orders})


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=60))


async def ready(engine: Engine, name: str | None = None) -> Loaded:
    while True:
        try:
            return engine.models.get(name)
        except ModelLoading:
            await asyncio.sleep(0.01)


def settings(**change: Any) -> Settings:
    return Settings(**{"device": "cpu", **change})


def test_a_model_that_loads_says_how_far_it_is(tiny_llama: Path) -> None:
    gate = threading.Event()

    async def test() -> None:
        sources = {"tiny": slow(gate.wait)("tiny", tiny_llama)}
        async with Engine.serving(sources, settings()) as engine:
            while "MB" not in engine.models.entries["tiny"].doing:
                await asyncio.sleep(0.01)
            assert (engine.models.ready, engine.models.entries["tiny"].state) == (False, "loading")
            with pytest.raises(ModelLoading, match="tiny is not ready yet: fetching weights, 34 of 93 MB"):
                engine.models.get()
            gate.set()
            await ready(engine)
            assert (engine.models.ready, engine.models.entries["tiny"].state) == (True, "ready")

    run(test())


def test_a_model_that_cannot_be_had_says_why_and_can_be_asked_for_again(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FetchError("The registry is out of reach.")

    async def test() -> None:
        sources = {"tiny": slow(fail, bool)("tiny", tiny_llama)}
        async with Engine.serving(sources, settings()) as engine:
            while engine.models.entries["tiny"].loading:
                await asyncio.sleep(0.01)
            assert engine.models.entries["tiny"].state == "available"
            with pytest.raises(ModelUnavailable, match=r"tiny could not be loaded\. The registry is out of reach\."):
                engine.models.get()
            monkeypatch.setattr(ModelUnavailable, "retry_after_s", 0)
            await ready(engine)

    run(test())


def test_an_unknown_model_is_told_which_there_are(tiny_llama: Path) -> None:
    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            with pytest.raises(UnknownModel, match=r"There is no model 'other'\. There are: tiny"):
                engine.models.get("other")

    run(test())


def test_the_model_longest_unused_makes_room_but_never_the_default(tiny_llama: Path) -> None:
    async def test() -> None:
        sources = {name: FolderSource(name, tiny_llama) for name in ("default", "b", "c")}
        async with Engine.serving(sources, settings(max_loaded=2)) as engine:
            for name in ("default", "b", "c"):
                await ready(engine, name)
            await asyncio.sleep(0)
            states = {name: entry.state for name, entry in engine.models.entries.items()}
            assert states == {"default": "ready", "b": "available", "c": "ready"}

    run(test())


def test_beyond_the_bound_a_text_is_refused_and_the_others_are_read(tiny_llama: Path) -> None:
    gate = threading.Event()

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings(max_waiting=2)) as engine:
            model = await ready(engine)
            tokens = await engine.tokens("cat", model)

            def wait(trace: Trace) -> int:
                gate.wait()
                return trace.n_tokens

            first, second = (asyncio.ensure_future(engine.look(model, tokens, wait)) for _ in range(2))
            await asyncio.sleep(0.05)
            with pytest.raises(Busy, match="2 texts are waiting; the server keeps 2"):
                await engine.look(model, tokens, wait)
            gate.set()
            assert (await first)[0] == (await second)[0] == len(tokens)
            assert (await second)[1].queued_ms > 20
            await engine.look(model, tokens, wait)

    run(test())


def test_the_event_loop_goes_on_while_torch_works(tiny_llama: Path) -> None:
    gate = threading.Event()

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await ready(engine)
            look = asyncio.ensure_future(engine.look(model, await engine.tokens("cat", model), lambda _: gate.wait()))
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert not look.done()
            gate.set()
            assert (await look)[0]

    run(test())


def test_torch_works_in_one_thread_alone_whatever_the_work(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread would bring a second team of OpenMP threads, and halve the speed of both."""
    threads = set()

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return work(*arguments, **options)

        return note

    monkeypatch.setattr("app.models.load", noted(load))
    monkeypatch.setattr("app.engine.read_on", noted(read_on))

    async def test() -> None:
        async with Engine.serving({"tiny": FolderSource("tiny", tiny_llama)}, settings()) as engine:
            model = await ready(engine)
            await engine.look(model, await engine.tokens("cat", model), noted(lambda trace: trace.logits([0])))

    run(test())
    assert threads == {"torch_0"}
