"""What every route uses: the checks and results that need no particular route."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import service
from app.engine import Engine, ReadingProgress, ResultStream
from app.errors import NoSuchHead
from app.models import LoadedModel
from app.schemas import Timings
from app.settings import Settings
from model.weights.sources import FolderSource

EARLY, LATE = Timings(queued_ms=1.0, computed_ms=2.0), Timings(queued_ms=1.0, computed_ms=5.0)


class FixedStream(ResultStream[str]):
    """A stream of these events."""

    def __init__(self, *events: ReadingProgress | tuple[str, Timings]) -> None:
        self.is_cancelled = False
        self._events = events

    async def __aiter__(self) -> AsyncIterator[ReadingProgress | tuple[str, Timings]]:
        for event in self._events:
            yield event

    def cancel(self) -> None:
        self.is_cancelled = True


def test_all_results_come_in_order_with_the_timings_of_the_last() -> None:
    stream = FixedStream(ReadingProgress(4, 10), ("a", EARLY), ("b", LATE))
    assert asyncio.run(service.all_results(stream)) == (["a", "b"], LATE)
    assert stream.is_cancelled


def test_a_stream_that_ends_without_a_result_is_an_error() -> None:
    stream = FixedStream(ReadingProgress(4, 10))
    with pytest.raises(RuntimeError, match="the worker was stopped"):
        asyncio.run(service.all_results(stream))
    assert stream.is_cancelled


@pytest.mark.parametrize(
    ("layers", "heads", "message"),
    [([0, 3], [9], "no layer 3; tiny has 3"), ([2], [0, 4], "no head 4; tiny has 4")],
)
def test_the_first_layer_or_head_that_does_not_exist_is_refused(
    tiny_model: LoadedModel, layers: list[int], heads: list[int], message: str
) -> None:
    tiny_model.check_heads([0, 2], [0, 3])
    with pytest.raises(NoSuchHead, match=message):
        tiny_model.check_heads(layers, heads)


def test_the_training_history_of_a_model_that_is_not_loaded_is_empty(tiny_llama: Path) -> None:
    async def test() -> None:
        engine = Engine({"tiny": FolderSource("tiny", tiny_llama)}, Settings(device="cpu"))
        assert await service.training_history(engine, "tiny") == ([], [], 0)
        engine.models.close()

    asyncio.run(test())
