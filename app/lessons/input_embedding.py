"""S12: the first layer gets each token's vector plus its position's vector, so two equal tokens differ."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.lessons.geometry import cosines
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Facts, Heatmap, facts, probabilities, signed
from app.lessons.posts import PART_3, PART_6B, chapter
from app.schemas import Index
from model.positions import LearnedPositions


class InputEmbeddingRequest(LessonRequest):
    """Two tokens, and the factor of the position vectors."""

    position_scale: float = Field(
        1.0,
        title="Position factor",
        ge=0,
        le=2,
        description="position vectors are multiplied by it: 0 leaves them out, 1 is what the model does",
        json_schema_extra={"step": 0.05},
    )
    token: Index | None = Field(
        0, title="Token", description="its vectors are shown", json_schema_extra={"kind": "token"}
    )
    other_token: Index | None = Field(
        None,
        title="Compare with",
        description="its vectors are shown too; at first it is the next occurrence of the same token",
        json_schema_extra={"kind": "token", "empty_label": "the same token"},
    )


class InputEmbeddingResult(LessonResult):
    """The vectors of both tokens, and how similar all tokens are."""

    vectors: Heatmap = Field(description="token vector, position vector and their sum, for both tokens")
    token_cosines: Heatmap = Field(description="cosine similarities of the token vectors alone")
    sum_cosines: Heatmap = Field(description="cosine similarities of the sums")
    weights: Heatmap = Field(description="the weights of attention without trainable weights, computed from the sums")
    facts: Facts


@torch.inference_mode()
def embeddings(reading: Reading, request: InputEmbeddingRequest) -> tuple[Tensor, Tensor, Tensor]:
    """The token vectors, the scaled position vectors and their sums, (T, M) each."""
    network = reading.model.network
    ids_T = torch.tensor(reading.tokens.ids, device=network.device)
    token_TM = network.embed(ids_T).float().cpu()
    position_TM = _position_vectors(reading).roll(1, 0) if request.broken else _position_vectors(reading)
    return token_TM, request.position_scale * position_TM, token_TM + request.position_scale * position_TM


def _position_vectors(reading: Reading) -> Tensor:
    """The vectors of the text's positions, (T, M)."""
    positions = reading.model.network.positions
    assert isinstance(positions, LearnedPositions)
    return positions.table.weight[: len(reading.tokens)].detach().float().cpu()


def chosen_pair(reading: Reading, request: InputEmbeddingRequest) -> tuple[int, int | None]:
    """The positions of the two tokens; if no second one is requested, the next one with the same id, or None."""
    token = reading.position(request.token)
    if request.other_token is None:
        return token, reading.next_same_token(token)
    return token, reading.position(request.other_token)


def compute(reading: Reading, request: InputEmbeddingRequest) -> InputEmbeddingResult:
    """The vectors of two tokens, the cosine similarities of all pairs, and the attention weights they lead to."""
    token_TM, position_TM, sum_TM = embeddings(reading, request)
    token, other_token = chosen_pair(reading, request)
    labels = reading.token_labels
    chosen = {labels[token]: token}
    if other_token is not None:
        chosen[f"{labels[other_token]}{' again' * (token == other_token)}"] = other_token
    rows = [f"{label}: {kind}" for label in chosen for kind in ("token", "position", "sum")]
    vectors = torch.stack([x_TM[position] for position in chosen.values() for x_TM in (token_TM, position_TM, sum_TM)])
    sum_name = f"token + {request.position_scale:g} · position"
    cosine_map = partial(signed, rows=labels, columns=labels, selects=("token", "other_token"))
    n_features = token_TM.shape[1]
    return InputEmbeddingResult(
        vectors=signed(
            f"Vectors of {' and '.join(chosen)}, {n_features} features",
            rows,
            list(map(str, range(n_features))),
            vectors,
        ),
        token_cosines=cosine_map("Cosine similarity of the token vectors", values=cosines(token_TM)),
        sum_cosines=cosine_map(f"Cosine similarity of the sums, {sum_name}", values=cosines(sum_TM)),
        weights=probabilities(
            f"Attention weights softmax(x · x), where x is {sum_name}",
            labels,
            labels,
            (sum_TM @ sum_TM.T).softmax(-1),
            selects=("token", "other_token"),
        ),
        facts=_cosine_facts(labels, token, other_token, {"token vectors": token_TM, "sums": sum_TM}),
    )


def _cosine_facts(labels: list[str], token: int, other_token: int | None, vectors: Mapping[str, Tensor]) -> Facts:
    """Cosine similarity and dot product of two tokens, for each kind of vectors, (T, M)."""
    if other_token is None:
        return facts(labels[token], {"the same token again": "nowhere in this text: choose another one"})
    values = {}
    for kind, x_TM in vectors.items():
        values[f"cosine similarity, {kind}"] = cosines(x_TM)[token, other_token].item()
        values[f"dot product, {kind}"] = (x_TM[token] @ x_TM[other_token]).item()
    return facts(f"{labels[token]} and {labels[other_token]}", values)


@torch.inference_mode()
def checks(reading: Reading, request: InputEmbeddingRequest) -> Iterator[Check]:
    """The sums are the input of the first layer; equal tokens differ only by their positions."""
    network = reading.model.network
    unscaled = request.model_copy(update={"position_scale": 1.0})
    token_TM, _, sum_TM = embeddings(reading, unscaled)
    input_TM = reading.capture(0, network.blocks[0])[0]
    stored = Arithmetic(dtype=reading.dtype)
    yield equal("token + position is the input of the first layer", sum_TM, input_TM, stored)
    rows_TM = F.one_hot(reading.ids_BT[0].cpu(), network.config.n_vocab).float() @ network.embed.weight.float().cpu()
    yield at_most(0, largest(rows_TM - token_TM), "the token vectors are one-hot vectors times the table")
    yield from _equal_token_checks(reading.tokens.ids, token_TM, sum_TM)


def _equal_token_checks(ids: Sequence[int], token_TM: Tensor, sum_TM: Tensor) -> Iterator[Check]:
    """Equal tokens have equal vectors without positions, and different ones with them."""
    pairs = [(i, j) for j in range(len(ids)) for i in range(j) if ids[i] == ids[j]][:100]
    names = (
        "without positions, equal tokens have equal vectors",
        "with positions, the cosine of equal tokens is below 1",
    )
    if not pairs:
        yield from (does_not_apply(name, "no two tokens of this text are the same") for name in names)
        return
    yield at_most(0, max(largest(token_TM[i] - token_TM[j]) for i, j in pairs), names[0])
    cosine_TT = cosines(sum_TM)
    limit = 1 - Arithmetic(n_terms=sum_TM.shape[1]).error()
    yield at_most(limit, max(cosine_TT[i, j].item() for i, j in pairs), names[1])


LESSON = Lesson(
    number=12,
    title="Token + position",
    posts=(PART_6B, PART_3, chapter("2.8")),
    request_type=InputEmbeddingRequest,
    result_type=InputEmbeddingResult,
    compute=compute,
    checks=checks,
    break_description="add the vector of the previous position to each token",
    code_references=("model/positions.py: LearnedPositions", "app/lessons/input_embedding.py: embeddings"),
    requirement="learned positions",
    is_supported_by=lambda config: config.positions == "learned",
)
