"""The JSON API: models, tokens, attention, norms, predictions; and the page's own view of them."""

import asyncio
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from starlette.responses import Response, StreamingResponse

from app import problems, service, views
from app.engine import Engine, Reading
from app.errors import ReplyTooLarge
from app.live import frame
from app.models import ModelInput
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
from model.tokenizer import token_label

Format = Literal["json", "npz"]

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
    return json_reply(text_fields(await service.model_input(engine, request)))


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
        Format,
        Query(
            description="`npz`: a NumPy archive of `values`, `mask`, `layers`, `heads`, `stage` and of `ids`, `tokens` "
            "(their labels), `model`, `step` (-1 for the finished model), `edits`"
        ),
    ] = "json",
) -> Response:
    """One stage of attention for some or all heads, in the model's own numbers."""
    given = await service.model_input(engine, request)
    model, tokens, edits, _ = given
    config = model.network.config
    layers = list(range(config.n_layers)) if request.layers is None else request.layers
    heads = list(range(config.n_heads)) if request.heads is None else request.heads
    model.check_heads(layers, heads)
    check_size(engine, len(layers) * len(heads) * len(tokens) ** 2, format, "layers or heads")
    reading = Reading(tokens.ids, edits)
    stream = engine.submit(model, reading, lambda trace: views.stages(trace, request.stage, layers, heads))
    results, timings = await client.cancel_on_disconnect(service.all_results(stream))
    values = await asyncio.to_thread(np.stack, results)  # 250 MB at most
    mask = views.mask(len(tokens))
    header = {"stage": request.stage, "layers": layers, "heads": heads, "mask": mask}
    if format == "npz":
        return await npz_reply("attention", given, {**header, "values": values})
    return values_reply(text_fields(given, timings) | header, values)


@router.post("/api/v1/norms", summary="Norm statistics", response_model=NormsReply, tags=["norms"])
async def post_norms(request: TokensRequest, engine: EngineDep, client: ClientDep) -> Response:
    """The statistics of every token's vector before and after every norm.

    A LayerNorm uses `mean` and `variance`. An RMSNorm uses `rms` alone; the other two are given for comparison.
    """
    given = await service.model_input(engine, request)
    work = engine.compute(given.model, Reading(given.tokens.ids, given.edits), views.norms)
    norms, timings = await client.cancel_on_disconnect(work)
    return json_reply(text_fields(given, timings) | {"norms": norms})


@router.post(
    "/api/v1/predictions", summary="Next-token predictions", response_model=PredictionsReply, tags=["predictions"]
)
async def post_predictions(request: PredictionsRequest, engine: EngineDep, client: ClientDep) -> Response:
    """The likeliest next tokens, after the last token or after every one."""
    given = await service.model_input(engine, request)
    model, tokens, edits, _ = given
    n = len(tokens)
    positions = range(n) if request.positions == "all" else range(n - 1, n)
    work = engine.compute(
        model,
        Reading(tokens.ids, edits),
        lambda trace: views.predictions(trace, tokens.ids, model.tokenizer, positions, request.top),
        needs_last_logits=request.positions == "last",
    )
    predictions, timings = await client.cancel_on_disconnect(work)
    return json_reply(text_fields(given, timings) | {"predictions": predictions})


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
    - `masked`, `row_masked`: the masked scores, if edits change the attention of the layer;

    and with `overview` also

    - `grid` (uint8, layer × head × row × column): the weights of all heads as thumbnails; 255 is a weight of 1, and
      each pixel is the largest of `grid.pixel_size`² weights; `to_first_token` (float32, layer × token): the weight
      that each token gives the first token, averaged over heads;
    - `mean`, `variance`, `rms` before every norm (float32, token × site).

    The live channel, described at the top, sends the same frames with only what is new in them.
    """
    given = await service.model_input(engine, request)
    work = service.compute_page(engine, given, request, overview=request.overview)
    (header, arrays), timings = await client.cancel_on_disconnect(work)
    encoded = await asyncio.to_thread(frame.encode, {**header, "timings": timings.model_dump()}, arrays)
    return Response(encoded, media_type=frame.FRAME_MEDIA_TYPE)


def text_fields(given: ModelInput, timings: Timings | None = None) -> dict[str, object]:
    """The fields that every reply about a text has."""
    model, tokens, edits, text = given
    fields: dict[str, object] = {"model": model.name, "step": model.step, "edits": str(edits), "text": text}
    return fields | views.tokens(tokens) | ({"timings": timings.model_dump()} if timings else {})


def check_size(engine: Engine, n_numbers: int, format: Format, of_what: str) -> None:
    """Refuse a reply with too many numbers; the error says of what to request fewer.

    Raises:
        ReplyTooLarge: with the number and the limit.
    """
    n_json, n_npz = engine.settings.max_json_numbers, engine.settings.max_npz_numbers
    if format == "json" and n_numbers > n_json:
        archive = f", or ?format=npz, whose limit is {n_npz:,}" if n_numbers <= n_npz else ""
        raise ReplyTooLarge(n_numbers, n_json, f"Request fewer {of_what}{archive}.")
    if n_numbers > n_npz:
        raise ReplyTooLarge(n_numbers, n_npz, f"Request fewer {of_what} at a time.")


async def npz_reply(name: str, given: ModelInput, contents: Mapping[str, object]) -> Response:
    """A NumPy archive of these arrays and values, and of what was read; what is None is left out."""
    model, tokens, edits, _ = given
    labels = [token_label(token.bytes) for token in tokens.tokens]
    text: dict[str, object] = {"ids": tokens.ids, "tokens": labels, "model": model.name, "edits": str(edits)}
    text["step"] = -1 if model.step is None else model.step
    arrays = {key: np.asarray(value) for key, value in {**text, **contents}.items() if value is not None}
    headers = {"Content-Disposition": f'attachment; filename="{name}.npz"'}
    return Response(await asyncio.to_thread(_npz, arrays), media_type="application/zip", headers=headers)


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def values_reply(header: Mapping[str, object], values: Iterable[NDArray[np.float32]]) -> Response:
    """The JSON of a reply whose `values` are encoded one after another, so that other requests run in between."""
    return StreamingResponse(_with_values(header, values), media_type="application/json")


def _with_values(header: Mapping[str, object], values: Iterable[NDArray[np.float32]]) -> Iterator[bytes]:
    yield _dumps(header)[:-1] + b',"values":['
    for number, array in enumerate(values):
        yield (b"," if number else b"") + _dumps(array)
    yield b"]}"


def json_reply(content: Mapping[str, object]) -> Response:
    """A reply that may contain NumPy arrays; numbers that are not finite become `null`."""
    return Response(_dumps(content), media_type="application/json")


def _dumps(content: object) -> bytes:
    # OPT_SERIALIZE_NUMPY writes each float32 with the fewest digits that identify it, and -inf as null
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
