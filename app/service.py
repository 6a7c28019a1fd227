"""What every route does: find the model, tokenize the text, submit to the engine, cancel on disconnect."""

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Annotated, NamedTuple, TypeVar

from fastapi import Depends, Request

from app.edits import parse_edits
from app.engine import Engine, Reading, ReadingProgress, ResultStream
from app.errors import ClientDisconnected
from app.live import delta
from app.live.delta import ClientState
from app.models import ModelInput
from app.schemas import CurvePoint, ModelInfo, PageRequest, Timings, TokensRequest
from model.edits import NO_EDITS
from model.training.record import read_record
from model.weights.folder import saved_steps

T = TypeVar("T")


def get_engine(request: Request) -> Engine:
    """The engine of the application that got this request."""
    engine: Engine = request.app.state.engine
    return engine


class Client:
    """The sender of a request, who may disconnect before the reply."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive

    async def cancel_on_disconnect(self, work: Coroutine[object, object, T]) -> T:
        """The result of `work`, which is cancelled if the client disconnects.

        Raises:
            ClientDisconnected: in that case.
        """
        working, disconnect = asyncio.ensure_future(work), asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait((working, disconnect), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientDisconnected
        finally:
            working.cancel()
            disconnect.cancel()

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


EngineDep = Annotated[Engine, Depends(get_engine)]
ClientDep = Annotated[Client, Depends()]


async def model_input(engine: Engine, request: TokensRequest) -> ModelInput:
    """The model that a request names, the tokens of its text or its ids, and its edits.

    Raises:
        AppError: if the model cannot read the text or does not have the ids, or if the edits cannot be made.
    """
    model = await engine.models.get_at_step(request.model, request.step)
    text = None
    if request.ids is None:
        tokens = await engine.tokens(request.text, model, special_tokens=request.special_tokens)
    else:
        text, tokens = await asyncio.to_thread(model.tokens_of_ids, request.ids)
    edits = NO_EDITS
    if request.edits:
        edits = await asyncio.to_thread(parse_edits, request.edits, request.directions, model, len(tokens))
    return ModelInput(model, tokens, edits, text)


def submit_page(
    engine: Engine, given: ModelInput, request: PageRequest, client: ClientState, *, overview: bool = True
) -> ResultStream[delta.Frame]:
    """Read a text for the page: a stream of the frames that a client in this state needs.

    Raises:
        NoSuchHead, TextTooLongForEdits, Busy: before anything is read.
    """
    given.model.check_heads([request.layer], [request.head])
    return engine.submit(
        given.model,
        Reading(given.tokens.ids, given.edits),
        lambda trace: delta.frames(trace, given, request, client, overview=overview),
        needs_last_logits=request.query in (None, len(given.tokens) - 1),
    )


async def compute_page(
    engine: Engine, given: ModelInput, request: PageRequest, *, overview: bool
) -> tuple[delta.Frame, Timings]:
    """What the page shows of a text, as one frame."""
    stream = submit_page(engine, given, request, ClientState(), overview=overview)
    frames, timings = await all_results(stream)
    return delta.merge_frames(frames), timings


async def all_results(stream: ResultStream[T]) -> tuple[list[T], Timings]:
    """All results of a stream, with the timings of the last one."""
    results, timings = [], None
    try:
        async for event in stream:
            if not isinstance(event, ReadingProgress):
                result, timings = event
                results.append(result)
    finally:
        stream.cancel()
    if timings is None:
        raise RuntimeError("the worker was stopped")
    return results, timings


def model_infos(engine: Engine) -> list[ModelInfo]:
    """Every model of the catalogue, the default first."""
    infos = []
    for name, entry in engine.models.entries.items():
        config, n_parameters = engine.models.shape(name)
        is_limited = config.n_context > engine.settings.max_tokens
        state = engine.models.state(name)
        infos.append(
            ModelInfo(
                name=name,
                family=config.family,
                n_layers=config.n_layers,
                n_heads=config.n_heads,
                n_kv_heads=config.n_kv_heads,
                d_model=config.d_model,
                d_head=config.d_head,
                n_vocab=config.n_vocab,
                n_context=config.n_context,
                max_tokens=engine.settings.max_tokens if is_limited else config.n_context,
                max_tokens_from="LOOKBACK_MAX_TOKENS" if is_limited else "n_context",
                n_parameters=n_parameters,
                norm=config.norm,
                positions=config.positions,
                tied=config.tied,
                about=entry.source.about(engine.settings.dtype),
                source=entry.source.origin,
                state=state,
                command=entry.source.fetch_command if state == "not here" else None,
                default=name == engine.models.default,
                device=str(entry.loaded.network.device) if entry.loaded else None,
                dtype=engine.settings.dtype,
            )
        )
    return infos


class TrainingHistory(NamedTuple):
    """The training of a model; empty while its weights are not on this machine."""

    steps: list[int | None]  # whose parameters are saved; the last is the finished model, None if its step is unknown
    curve: list[CurvePoint]
    n_curriculum_steps: int


async def training_history(engine: Engine, name: str) -> TrainingHistory:
    """The saved steps of a model's training, and the record of its losses."""
    if (folder := engine.models.entries[name].folder) is None:
        return TrainingHistory([], [], 0)
    saved = await asyncio.to_thread(saved_steps, folder)
    record = await asyncio.to_thread(read_record, folder)
    last = record.step if record else None
    steps = [*(step for step in saved if step != last), last]
    curve = [CurvePoint(**asdict(point)) for point in record.curve] if record else []
    return TrainingHistory(steps, curve, record.recipe.n_curriculum_steps if record else 0)
