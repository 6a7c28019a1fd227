"""The JSON API: models, tokens, attention, norms, predictions; and the page's own view of them."""

import asyncio
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.responses import Response, StreamingResponse

from app import problems, service, views
from app.engine import Engine
from app.errors import ReplyTooLarge
from app.live import frame
from app.models import LoadedModel
from app.schemas import (
    AttentionReply,
    AttentionRequest,
    Checkpoint,
    CheckpointsReply,
    ModelsReply,
    NormsReply,
    Patterns,
    PredictionsReply,
    PredictionsRequest,
    Timings,
    TokensReply,
    TokensRequest,
    ViewRequest,
)
from app.service import ClientDep, EngineDep
from model.heads import PROBE_PATTERNS
from model.tokenizer import Tokens

router = APIRouter(responses=problems.DESCRIBED)


@router.get("/api/v1/models", summary="Models", response_model=ModelsReply, tags=["models"])
async def get_models(engine: EngineDep) -> Response:
    """All models, the default first."""
    return json_reply({"models": [info.model_dump() for info in service.model_infos(engine)]})


@router.get("/api/v2/models/{name}/checkpoints", summary="A model through its training", tags=["models"])
async def get_checkpoints(name: str, engine: EngineDep) -> CheckpointsReply:
    """The saved training steps of a model, what its heads did at each, and the curve of its losses.

    A model that came without its training has one step, which has no number.
    """
    model = engine.models.get(name)
    history = await service.training_history(engine, model.name)
    checkpoints = []
    for step in history.steps:
        patterns = await engine.models.patterns(await engine.models.get_at_step(name, step))
        scores = {pattern: values.tolist() for pattern, values in zip(PROBE_PATTERNS, patterns, strict=True)}
        checkpoints.append(Checkpoint(step=step, patterns=Patterns(**scores)))
    return CheckpointsReply(
        model=model.name,
        checkpoints=checkpoints,
        curve=history.curve,
        n_curriculum_steps=history.n_curriculum_steps,
    )


@router.post("/api/v1/tokens", summary="Tokens of a text", response_model=TokensReply, tags=["text"])
async def post_tokens(request: TokensRequest, engine: EngineDep) -> Response:
    """The tokens of a text: ids, bytes, and the characters that each covers."""
    model, tokens = await service.model_and_tokens(engine, request)
    return json_reply(_text_fields(model, tokens))


@router.post(
    "/api/v1/attention",
    summary="Attention of some or all heads",
    response_model=AttentionReply,
    tags=["attention"],
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def post_attention(
    request: AttentionRequest,
    engine: EngineDep,
    client: ClientDep,
    format: Annotated[
        Literal["json", "npz"],
        Query(description="`npz`: a NumPy archive of `values`, `mask`, `ids`, `layers`, `heads`"),
    ] = "json",
) -> Response:
    """One stage of attention for some or all heads, in the model's own numbers."""
    model, tokens = await service.model_and_tokens(engine, request)
    config = model.network.config
    layers = list(range(config.n_layers)) if request.layers is None else request.layers
    heads = list(range(config.n_heads)) if request.heads is None else request.heads
    model.check_heads(layers, heads)
    _check_size(engine, len(layers) * len(heads) * len(tokens) ** 2, format)
    stream = engine.submit(model, tokens, lambda trace: views.stages(trace, request.stage, layers, heads))
    results, timings = await client.cancel_on_disconnect(service.all_results(stream))
    values = await asyncio.to_thread(np.stack, results)  # 250 MB at most
    mask = views.mask(len(tokens))
    if format == "npz":
        arrays = {"values": values, "mask": mask, "ids": np.array(tokens.ids)}
        arrays |= {"layers": np.array(layers), "heads": np.array(heads)}
        return Response(await asyncio.to_thread(_npz, arrays), media_type="application/zip", headers=_NPZ_NAME)
    header = _text_fields(model, tokens, timings) | {
        "stage": request.stage,
        "layers": layers,
        "heads": heads,
        "mask": mask,
    }
    return StreamingResponse(_with_values(header, values), media_type="application/json")


@router.post("/api/v1/norms", summary="Norm statistics", response_model=NormsReply, tags=["norms"])
async def post_norms(request: TokensRequest, engine: EngineDep, client: ClientDep) -> Response:
    """The statistics of every token's vector before and after every norm.

    A LayerNorm uses `mean` and `variance`. An RMSNorm uses `rms` alone; the other two are given for comparison.
    """
    model, tokens = await service.model_and_tokens(engine, request)
    norms, timings = await client.cancel_on_disconnect(engine.compute(model, tokens, views.norms))
    return json_reply(_text_fields(model, tokens, timings) | {"norms": norms})


@router.post(
    "/api/v1/predictions", summary="Next-token predictions", response_model=PredictionsReply, tags=["predictions"]
)
async def post_predictions(request: PredictionsRequest, engine: EngineDep, client: ClientDep) -> Response:
    """The likeliest next tokens, after the last token or after every one."""
    model, tokens = await service.model_and_tokens(engine, request)
    n = len(tokens)
    positions = range(n) if request.positions == "all" else range(n - 1, n)
    work = engine.compute(
        model,
        tokens,
        lambda trace: views.predictions(trace, tokens.ids, model.tokenizer, positions, request.top),
        needs_last_logits=request.positions == "last",
    )
    predictions, timings = await client.cancel_on_disconnect(work)
    return json_reply(_text_fields(model, tokens, timings) | {"predictions": predictions})


@router.post(
    f"/api/v{frame.FRAME_VERSION}/view",
    summary="What the page shows, as a binary frame",
    tags=["page"],
    response_class=Response,
    responses={200: {"content": {frame.FRAME_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def post_view(request: ViewRequest, engine: EngineDep, client: ClientDep) -> Response:
    """Everything the page shows of a text, as one binary frame.

    A frame is a JSON header followed by typed arrays: 4 bytes, the length of the header (little-endian); the header in
    UTF-8; then the arrays, each at the `offset` from the header's end and in the `dtype` and `shape` that the header's
    `arrays` names. The arrays are

    - `scores`, `scaled`, `weights` of the chosen head (float32, query × key) in the header's `heatmap.window`. Up to
      256 tokens each cell is one weight; in a larger window each cell is the largest of `heatmap.cell_size`² of them.
      Request a smaller `window` to see them all;
    - `row_scores`, `row_scaled`, `row_weights`: the numbers of the chosen query, exact;

    and with `overview` also

    - `grid` (uint8, layer × head × row × column): the weights of all heads as thumbnails; 255 is a weight of 1, and
      each pixel is the largest of `grid.pixel_size`² weights; `to_first_token` (float32, layer × token): the weight
      that each token gives the first token, averaged over heads;
    - `mean`, `variance`, `rms` before every norm (float32, token × site).

    The live channel, described at the top, sends the same frames with only what is new in them.
    """
    model, tokens = await service.model_and_tokens(engine, request)
    work = service.compute_page(engine, model, tokens, request, overview=request.overview)
    (header, arrays), timings = await client.cancel_on_disconnect(work)
    encoded = await asyncio.to_thread(frame.encode, {**header, "timings": timings.model_dump()}, arrays)
    return Response(encoded, media_type=frame.FRAME_MEDIA_TYPE)


def _text_fields(model: LoadedModel, tokens: Tokens, timings: Timings | None = None) -> dict[str, object]:
    """The fields that every reply about a text has."""
    fields: dict[str, object] = {"model": model.name, "step": model.step, **views.tokens(tokens)}
    return fields | ({"timings": timings.model_dump()} if timings else {})


def _check_size(engine: Engine, n_numbers: int, format: Literal["json", "npz"]) -> None:
    n_json, n_npz = engine.settings.max_json_numbers, engine.settings.max_npz_numbers
    if format == "json" and n_numbers > n_json:
        archive = f", or ?format=npz, whose limit is {n_npz:,}" if n_numbers <= n_npz else ""
        raise ReplyTooLarge(n_numbers, n_json, f"Request fewer layers or heads{archive}.")
    if n_numbers > n_npz:
        raise ReplyTooLarge(n_numbers, n_npz, "Request fewer layers or heads at a time.")


_NPZ_NAME = {"Content-Disposition": 'attachment; filename="attention.npz"'}


def _npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _with_values(header: Mapping[str, object], values: Iterable[NDArray[np.float32]]) -> Iterator[bytes]:
    """The JSON of a reply whose `values` are encoded layer by layer, so that other requests run in between."""
    yield _dumps(header)[:-1] + b',"values":['
    for layer, layer_values in enumerate(values):
        yield (b"," if layer else b"") + _dumps(layer_values)
    yield b"]}"


def json_reply(content: Mapping[str, object]) -> Response:
    """A reply that may contain NumPy arrays; numbers that are not finite become `null`."""
    return Response(_dumps(content), media_type="application/json")


def _dumps(content: object) -> bytes:
    # OPT_SERIALIZE_NUMPY writes each float32 with the fewest digits that identify it, and -inf as null
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
