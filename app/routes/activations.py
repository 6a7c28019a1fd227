"""The calls for what is inside a pass: the vectors of a site, and the logits of next tokens."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Query
from starlette.responses import Response

from app import activations, problems, service
from app.engine import Engine, Reading
from app.errors import NoSuchHead, NoSuchPosition, NoSuchToken, NotOneToken
from app.models import LoadedModel, ModelInput
from app.routes.api import Format, check_size, npz_reply, text_fields, values_reply
from app.schemas import ActivationsReply, ActivationsRequest, LogitsReply, LogitsRequest
from app.service import ClientDep, EngineDep
from model.tokenizer import token_label

ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}
OF_WHAT_WAS_READ = "and of `ids`, `tokens` (their labels), `model`, `step` (-1 for the finished model), `edits`"

router = APIRouter(responses=problems.DESCRIBED)


@router.post(
    "/api/v1/activations",
    summary="The vectors inside a pass",
    response_model=ActivationsReply,
    tags=["activations"],
    responses=ARCHIVE,
)
async def post_activations(
    request: ActivationsRequest,
    engine: EngineDep,
    client: ClientDep,
    format: Annotated[
        Format,
        Query(
            description="`npz`: a NumPy archive of `values`, `site`, `layers`, `heads` (where the site has them), "
            f"`positions` {OF_WHAT_WAS_READ}"
        ),
    ] = "json",
) -> Response:
    """The vectors of one site, for some or all layers, heads and positions, in the model's own numbers."""
    given = await service.model_input(engine, request)
    layers, heads, positions = _chosen_vectors(request, given)
    config, site = given.model.network.config, request.site
    d_vector = config.d_model if heads is None else config.d_head
    n_numbers = len(layers or [None]) * len(heads or [0]) * len(positions) * d_vector
    check_size(engine, n_numbers, format, "layers, heads or positions")
    stream = engine.submit(
        given.model,
        Reading(given.tokens.ids, given.edits, activations.observed_sites(site)),
        lambda trace: activations.activations(trace, site, layers or [None], heads or [], positions),
    )
    results, timings = await client.cancel_on_disconnect(service.all_results(stream))
    values = results[0] if layers is None else await asyncio.to_thread(np.stack, results)
    contents: dict[str, object] = {"site": site, "layers": layers, "heads": heads, "positions": positions}
    if format == "npz":
        return await npz_reply("activations", given, {**contents, "values": values})
    contents |= {"axes": activations.axes(site), "shape": values.shape}
    return values_reply(text_fields(given, timings) | contents, values)


@router.post(
    "/api/v1/logits",
    summary="The logits of chosen next tokens",
    response_model=LogitsReply,
    tags=["predictions"],
    responses=ARCHIVE,
)
async def post_logits(
    request: LogitsRequest,
    engine: EngineDep,
    client: ClientDep,
    format: Annotated[
        Format,
        Query(
            description="`npz`: a NumPy archive of `values`, `token_ids` (if they are chosen), `positions` "
            f"{OF_WHAT_WAS_READ}"
        ),
    ] = "json",
) -> Response:
    """The scores of chosen tokens, or of the whole vocabulary, as the next ones, after some or all positions."""
    given = await service.model_input(engine, request)
    model, tokens, edits, _ = given
    ids = await _next_ids(engine, model, request)
    positions = _positions(request.positions, len(tokens))
    n_columns = model.network.config.n_vocab if ids is None else len(ids)
    check_size(engine, len(positions) * n_columns, format, "next tokens or positions")
    stream = engine.submit(
        model,
        Reading(tokens.ids, edits),
        lambda trace: activations.logits(trace, positions, ids),
        needs_last_logits=positions == [len(tokens) - 1],
    )
    results, timings = await client.cancel_on_disconnect(service.all_results(stream))
    values = await asyncio.to_thread(np.concatenate, results)
    contents: dict[str, object] = {"token_ids": ids, "positions": positions}
    if format == "npz":
        return await npz_reply("logits", given, {**contents, "values": values})
    contents |= {"axes": ["position", "next token"], "shape": values.shape}
    return values_reply(text_fields(given, timings) | contents, values)


class Vectors(NamedTuple):
    """Which vectors of a site are requested."""

    layers: list[int] | None  # None for the embedding
    heads: list[int] | None  # None for a site without heads
    positions: list[int]


def _chosen_vectors(request: ActivationsRequest, given: ModelInput) -> Vectors:
    """The requested vectors.

    Raises:
        NoSuchHead, NoSuchPosition: for the first that there is not.
    """
    model, site = given.model, request.site
    layers = None if site == "embedding" else _chosen(request.layers, model.network.config.n_layers)
    n_heads = activations.n_heads(site, model.network.config)
    heads = _chosen(request.heads, n_heads) if n_heads else None
    model.check_heads(layers or (), ())
    for head in heads or ():
        if head >= n_heads:
            raise NoSuchHead("key head" if site in ("keys", "values") else "head", head, n_heads, model.name)
    return Vectors(layers, heads, _positions(request.positions, len(given.tokens)))


async def _next_ids(engine: Engine, model: LoadedModel, request: LogitsRequest) -> list[int] | None:
    """The ids of the chosen next tokens; None for all.

    Raises:
        NoSuchToken, NotOneToken: for the first that is no token.
    """
    n_vocab = model.network.config.n_vocab
    for id in request.token_ids or ():
        if id >= n_vocab:
            raise NoSuchToken(id, n_vocab, model.name)
    if request.tokens is None:
        return request.token_ids
    ids = []
    for text in request.tokens:
        tokens = await engine.tokens(text, model, special_tokens=request.special_tokens)
        if len(tokens) != 1 or tokens.dropped:
            labels = [token_label(token.bytes) for token in tokens.tokens]
            raise NotOneToken(text, [*labels, *(drop.text for drop in tokens.dropped)], model.name)
        ids.append(tokens.ids[0])
    return ids


def _chosen(requested: Sequence[int] | None, n: int) -> list[int]:
    """The requested indices; all if there are none."""
    return list(range(n) if requested is None else requested)


def _positions(requested: Sequence[int] | None, n_tokens: int) -> list[int]:
    """The requested positions, all if there are none.

    Raises:
        NoSuchPosition: for the first that the text does not have.
    """
    for position in requested or ():
        if position >= n_tokens:
            raise NoSuchPosition(position, n_tokens)
    return _chosen(requested, n_tokens)
