"""The JSON API, /api/v1: tokens, attention, norms, predictions; and the page's own view of them."""

import asyncio
import io
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request
from numpy.typing import NDArray
from starlette.responses import Response, StreamingResponse

from app import figures, frame, picture, problems, views
from app.engine import Engine, ReadingProgress, ResultStream
from app.errors import ClientDisconnected, NoSuchHead, ReplyTooLarge
from app.models import Loaded
from app.picture import Shown
from app.schemas import (
    AttentionReply,
    AttentionRequest,
    Checkpoint,
    CheckpointsReply,
    CurvePoint,
    ModelInfo,
    ModelsReply,
    NormsReply,
    PageRequest,
    Patterns,
    PredictionsReply,
    PredictionsRequest,
    Timings,
    TokensReply,
    TokensRequest,
    ViewRequest,
)
from model.heads import PROBE_PATTERNS
from model.tokenizer import Tokens
from model.training.record import read_record
from model.weights.folder import steps_of

T = TypeVar("T")

router = APIRouter(prefix="/api/v1", responses=problems.DESCRIBED)


def engine(request: Request) -> Engine:
    """The engine of the application that got this request."""
    found: Engine = request.app.state.engine
    return found


EngineHere = Annotated[Engine, Depends(engine)]


class Visitor:
    """Whoever sent a request, and may leave before it is answered."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive

    async def waits_for(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of some work, which is given up when the visitor leaves.

        Raises:
            VisitorLeft: then.
        """
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(self._leaves())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientDisconnected
        finally:
            working.cancel()
            leaving.cancel()

    async def _leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


VisitorHere = Annotated[Visitor, Depends()]


@router.get("/models", summary="Models", response_model=ModelsReply, tags=["models"])
async def get_models(engine: EngineHere) -> Response:
    """Every model that can be asked for, the default first."""
    return json_reply({"models": [info.model_dump() for info in models(engine)]})


@router.get("/models/{name}/checkpoints", summary="A model through its training", tags=["models"])
async def get_checkpoints(name: str, engine: EngineHere) -> CheckpointsReply:
    """The steps of a model's training that can be looked at, what its heads did at each, and the curve of its losses.

    A model that came without its training has one step, which has no number.
    """
    model = engine.models.get(name)
    steps, curve, n_drills = await course(engine, model.name)
    found = []
    for step in steps:
        patterns = await engine.models.patterns(await engine.models.at(name, step))
        scores = {pattern: values.tolist() for pattern, values in zip(PROBE_PATTERNS, patterns, strict=True)}
        found.append(Checkpoint(step=step, patterns=Patterns(**scores)))
    return CheckpointsReply(model=model.name, checkpoints=found, curve=curve, n_drills=n_drills)


async def course(engine: Engine, name: str) -> tuple[list[int | None], list[CurvePoint], int]:
    """The steps of a model's training that can be looked at, the last one without a number where nobody knows it, and
    the curve of its losses, and how many steps were drills. Empty while the model is not on this machine."""
    if (folder := engine.models.entries[name].folder) is None:
        return [], [], 0
    steps = await asyncio.to_thread(steps_of, folder)
    record = await asyncio.to_thread(read_record, folder)
    last = record.step if record else None
    curve = [CurvePoint(**asdict(point)) for point in record.curve] if record else []
    return [*(step for step in steps if step != last), last], curve, record.n_drills if record else 0


@router.post("/tokens", summary="Tokens of a text", response_model=TokensReply, tags=["text"])
async def post_tokens(ask: TokensRequest, engine: EngineHere) -> Response:
    """The tokens of a text: ids, bytes, and which characters each covers."""
    model, tokens = await read(engine, ask)
    return json_reply({"model": model.name, "step": model.step, **views.tokens(tokens)})


@router.post(
    "/attention",
    summary="Attention of some or all heads",
    response_model=AttentionReply,
    tags=["attention"],
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def post_attention(
    ask: AttentionRequest,
    engine: EngineHere,
    visitor: VisitorHere,
    format: Annotated[
        Literal["json", "npz"],
        Query(description="`npz`: a NumPy archive of `values`, `mask`, `ids`, `layers`, `heads`"),
    ] = "json",
) -> Response:
    """One stage of attention for some or all heads, in the model's own numbers."""
    model, tokens = await read(engine, ask)
    config = model.network.config
    layers = list(range(config.n_layers)) if ask.layers is None else ask.layers
    heads = list(range(config.n_heads)) if ask.heads is None else ask.heads
    _check_heads(model, layers, heads)
    _check_size(engine, len(layers) * len(heads) * len(tokens) ** 2, format)
    stream = engine.submit(model, tokens, lambda trace: views.stages(trace, ask.stage, layers, heads))
    found, timings = await visitor.waits_for(_all(stream))
    values = await asyncio.to_thread(np.stack, found)  # some 250 MB, at most
    mask = views.mask(len(tokens))
    if format == "npz":
        arrays = {"values": values, "mask": mask, "ids": np.array(tokens.ids)}
        arrays |= {"layers": np.array(layers), "heads": np.array(heads)}
        return Response(await asyncio.to_thread(_npz, arrays), media_type="application/zip", headers=_NPZ_NAME)
    header = {
        "model": model.name,
        "step": model.step,
        "stage": ask.stage,
        **views.tokens(tokens),
        "layers": layers,
        "heads": heads,
        "mask": mask,
        "timings": timings.model_dump(),
    }
    return StreamingResponse(_with_values(header, values), media_type="application/json")


@router.post("/norms", summary="Norm statistics", response_model=NormsReply, tags=["norms"])
async def post_norms(ask: TokensRequest, engine: EngineHere, visitor: VisitorHere) -> Response:
    """The statistics of every token's vector before and after every norm.

    A LayerNorm uses `mean` and `variance`; an RMSNorm uses `rms` alone, and the other two are given to compare.
    """
    model, tokens = await read(engine, ask)
    norms, timings = await visitor.waits_for(engine.compute(model, tokens, views.norms))
    return json_reply(
        {
            "model": model.name,
            "step": model.step,
            **views.tokens(tokens),
            "norms": norms,
            "timings": timings.model_dump(),
        }
    )


@router.post("/predictions", summary="Next-token predictions", response_model=PredictionsReply, tags=["predictions"])
async def post_predictions(ask: PredictionsRequest, engine: EngineHere, visitor: VisitorHere) -> Response:
    """The likeliest next tokens, after the last token or after every one."""
    model, tokens = await read(engine, ask)
    n = len(tokens)
    positions = range(n) if ask.positions == "all" else range(n - 1, n)
    work = engine.compute(
        model,
        tokens,
        lambda trace: views.predictions(trace, tokens.ids, model.tokenizer, positions, ask.top),
        needs_last_logits=ask.positions == "last",
    )
    found, timings = await visitor.waits_for(work)
    return json_reply(
        {
            "model": model.name,
            "step": model.step,
            **views.tokens(tokens),
            "predictions": found,
            "timings": timings.model_dump(),
        }
    )


@router.post(
    "/view",
    summary="What the page shows, as a binary frame",
    tags=["page"],
    response_class=Response,
    responses={200: {"content": {frame.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def post_view(ask: ViewRequest, engine: EngineHere, visitor: VisitorHere) -> Response:
    """Everything the page shows of a text, as one binary frame.

    A frame is a JSON header with typed arrays after it: 4 bytes, the header's length (little-endian); the header in
    UTF-8; then the arrays, each at the `offset` from the header's end and in the `dtype` and `shape` that the header's
    `arrays` names. There are

    - `scores`, `scaled`, `weights` of the chosen head (float32, query × key) in the header's `one.window`. Up to 256
      tokens a cell is one weight; in a larger window a cell is the largest of `one.step`² of them. Ask for a smaller
      `window` to see them all;
    - `row_scores`, `row_scaled`, `row_weights`: the chosen query's numbers, exact;

    and with `overview` also

    - `grid` (uint8, layer × head × row × column): the weights of all heads, 255 is 1, a pixel the largest of
      `grid.step`² of them; `first` (float32, layer × token): the mean weight that each token gives the first;
    - `mean`, `variance`, `rms` before every norm (float32, token × site).

    The live channel, described at the top, sends the same frames with only what is new in them.
    """
    model, tokens = await read(engine, ask)
    header, arrays = await visitor.waits_for(look_at(engine, model, tokens, ask, overview=ask.overview))
    return Response(await asyncio.to_thread(frame.encode, header, arrays), media_type=frame.MEDIA_TYPE)


async def look_at(
    engine: Engine, model: Loaded, tokens: Tokens, ask: PageRequest, *, overview: bool
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What the page shows of a text: the frame's header and arrays."""
    found, timings = await _all(watch_page(engine, model, tokens, ask, Shown(), overview=overview))
    header, arrays = picture.whole(found)
    return header | {"timings": timings.model_dump()}, arrays


def watch_page(
    engine: Engine, model: Loaded, tokens: Tokens, ask: PageRequest, shown: Shown, *, overview: bool = True
) -> ResultStream[picture.Part]:
    """Have a text read for the page: the parts that a client lacks who was sent `shown`.

    Raises:
        NoSuchHead, Busy: when there is nothing to wait for.
    """
    _check_heads(model, [ask.layer], [ask.head])
    return engine.submit(
        model,
        tokens,
        lambda trace: picture.parts(trace, tokens, model, ask, shown, overview=overview),
        needs_last_logits=ask.query in (None, len(tokens) - 1),
    )


async def _all(stream: ResultStream[T]) -> tuple[list[T], Timings]:
    """All parts of a view."""
    found, timings = [], None
    try:
        async for said in stream:
            if not isinstance(said, ReadingProgress):
                part, timings = said
                found.append(part)
    finally:
        stream.cancel()
    if timings is None:
        raise RuntimeError("the worker was stopped")
    return found, timings


def models(engine: Engine) -> list[ModelInfo]:
    """Every model of the catalogue, the default first."""
    infos = []
    for name, entry in engine.models.entries.items():
        config, n_parameters = engine.models.shape(name)
        fields = ("family", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "n_vocab")
        infos.append(
            ModelInfo(
                name=name,
                **{field: getattr(config, field) for field in (*fields, "norm", "positions", "tied")},
                n_context=config.n_context,
                max_tokens=min(config.n_context, engine.settings.max_tokens),
                max_tokens_from="n_context"
                if config.n_context <= engine.settings.max_tokens
                else "LOOKBACK_MAX_TOKENS",
                about=entry.source.about(engine.settings.dtype),
                n_parameters=n_parameters,
                source=entry.source.origin,
                state=(state := engine.models.state(name)),
                command=entry.source.fetch_command if state == "not here" else None,
                default=name == engine.models.default,
                device=str(entry.loaded.network.device) if entry.loaded else None,
                dtype=engine.settings.dtype,
            )
        )
    return infos


async def read(engine: Engine, ask: TokensRequest) -> tuple[Loaded, Tokens]:
    """The model that a request names and the tokens of its text."""
    model = await engine.models.at(ask.model, ask.step)
    return model, await engine.tokens(ask.text, model, special_tokens=ask.special_tokens)


def _check_heads(model: Loaded, layers: list[int], heads: list[int]) -> None:
    config = model.network.config
    for kind, chosen, n in (("layer", layers, config.n_layers), ("head", heads, config.n_heads)):
        for wrong in (index for index in chosen if index >= n):
            raise NoSuchHead(kind, wrong, n, model.name)


def _check_size(engine: Engine, n_numbers: int, format: Literal["json", "npz"]) -> None:
    n_json, n_npz = engine.settings.max_json_numbers, engine.settings.max_npz_numbers
    if format == "json" and n_numbers > n_json:
        archive = f", or for ?format=npz, which holds {n_npz:,}" if n_numbers <= n_npz else ""
        raise ReplyTooLarge(n_numbers, n_json, f"Ask for fewer layers or heads{archive}.")
    if n_numbers > n_npz:
        raise ReplyTooLarge(n_numbers, n_npz, "Ask for fewer layers or heads at a time.")


_NPZ_NAME = {"Content-Disposition": 'attachment; filename="attention.npz"'}


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _with_values(header: dict[str, Any], values: figures.Array) -> Iterator[bytes]:
    """The JSON of a reply whose `values` are encoded layer by layer, so that others get a turn in between."""
    yield _dumps(header)[:-1] + b',"values":['
    for layer, of_layer in enumerate(values):
        yield (b"," if layer else b"") + _dumps(of_layer)
    yield b"]}"


def json_reply(content: dict[str, Any]) -> Response:
    """A reply with NumPy arrays in it; what is not finite becomes `null`."""
    return Response(_dumps(content), media_type="application/json")


def _dumps(content: Any) -> bytes:
    # OPT_SERIALIZE_NUMPY writes a float32 with the fewest digits that give it back, and -inf as null
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
