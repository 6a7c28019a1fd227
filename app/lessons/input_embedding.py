"""S12: what goes into the first layer is a token's vector plus its position's; so two equal tokens differ."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Facts, Heatmap, facts, matrix
from app.lessons.posts import PART_3, PART_6B, chapter
from app.schemas import Index
from model.positions import LearnedPositions


class InputEmbeddingRequest(LessonRequest):
    """Two tokens, and how much of their positions is added."""

    scale: float = Field(
        1.0,
        title="Share of the position",
        ge=0,
        le=2,
        description="0 leaves it out, 1 is the model",
        json_schema_extra={"step": 0.05},
    )
    one: Index | None = Field(
        0, title="One token", description="whose vectors are shown", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        None,
        title="Another one",
        description="the next one that is the same token, if left out and if there is one",
        json_schema_extra={"kind": "token", "empty_label": "the same token"},
    )


class InputEmbeddingResult(LessonResult):
    """The vectors of both tokens, and how alike all tokens are."""

    strips: Heatmap = Field(description="token, position and their sum, for both tokens")
    before: Heatmap = Field(description="cosines between the tokens' vectors alone")
    after: Heatmap = Field(description="cosines between the sums")
    weights: Heatmap = Field(description="what attention with nothing to learn would make of the sums")
    facts: Facts


@torch.inference_mode()
def vectors(reading: Reading, request: InputEmbeddingRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token: its own vector, its position's, scaled, and their sum; (T, M) each."""
    network = reading.model.network
    ids_T = torch.tensor(reading.tokens.ids, device=network.device)
    token_TM = network.embed(ids_T).float().cpu()
    position_TM = _positions(reading).roll(1, 0) if request.broken else _positions(reading)
    return token_TM, request.scale * position_TM, token_TM + request.scale * position_TM


def _positions(reading: Reading) -> Tensor:
    positions = reading.model.network.positions
    assert isinstance(positions, LearnedPositions)
    return positions.table.weight[: len(reading.tokens)].detach().float().cpu()


def cosines(x_TM: Tensor) -> Tensor:
    """Of all pairs, (T, T)."""
    unit_TM = F.normalize(x_TM, dim=1)
    return unit_TM @ unit_TM.T


def pair(reading: Reading, request: InputEmbeddingRequest) -> tuple[int, int | None]:
    """The two chosen tokens; where no second is chosen, the next one with the same id, or None if there is none."""
    one = reading.position(request.one)
    return one, reading.next_same_token(one) if request.other is None else reading.position(request.other)


def compute(reading: Reading, request: InputEmbeddingRequest) -> InputEmbeddingResult:
    """Both tokens, and the cosines of all."""
    token_TM, position_TM, sum_TM = vectors(reading, request)
    one, other = pair(reading, request)
    names = reading.token_labels
    chosen = {names[one]: one}
    if other is not None:
        chosen[f"{names[other]}{' again' * (one == other)}"] = other
    rows = [f"{name}: {what}" for name in chosen for what in ("token", "position", "sum")]
    strips = torch.stack([x_TM[place] for place in chosen.values() for x_TM in (token_TM, position_TM, sum_TM)])
    before_TT, after_TT = cosines(token_TM), cosines(sum_TM)
    around: Any = {"rows": names, "columns": names, "selects": ("one", "other")}
    return InputEmbeddingResult(
        strips=Heatmap(
            title=f"{token_TM.shape[1]} features of {' and '.join(chosen)}",
            rows=rows,
            columns=list(map(str, range(token_TM.shape[1]))),
            values=matrix(strips),
            scale="signed",
        ),
        before=Heatmap(title="cosines of the tokens alone", **around, values=matrix(before_TT), scale="signed"),
        after=Heatmap(
            title=f"cosines of token + {request.scale:g} · position", **around, values=matrix(after_TT), scale="signed"
        ),
        weights=Heatmap(
            title=f"softmax of x · x, x being token + {request.scale:g} · position",
            **around,
            values=matrix((sum_TM @ sum_TM.T).softmax(-1)),
            scale="probability",
        ),
        facts=_compared(names, one, other, {"tokens alone": token_TM, "with positions": sum_TM}),
    )


def _compared(names: list[str], one: int, other: int | None, vectors: Mapping[str, Tensor]) -> Facts:
    """Cosines and dot products of two tokens, for each kind of vectors, (T, M); or that there is no second one."""
    if other is None:
        return facts(names[one], {"the same token again": "nowhere in this text: choose another one"})
    values = {}
    for kind, x_TM in vectors.items():
        values[f"cosine, {kind}"] = cosines(x_TM)[one, other].item()
        values[f"dot product, {kind}"] = (x_TM[one] @ x_TM[other]).item()
    return facts(f"{names[one]} and {names[other]}", values)


@torch.inference_mode()
def checks(reading: Reading, request: InputEmbeddingRequest) -> Iterator[Check]:
    """The sum is what the first block gets; equal tokens are equal except for their positions."""
    network = reading.model.network
    whole = request.model_copy(update={"scale": 1.0})
    token_TM, _, sum_TM = vectors(reading, whole)
    given_TM = reading.capture(0, network.blocks[0])[0]
    stored = Arithmetic(dtype=reading.dtype)
    yield equal("token + position differs from what the first block gets by", sum_TM, given_TM, stored)
    rows_TM = F.one_hot(reading.ids_BT[0].cpu(), network.config.n_vocab).float() @ network.embed.weight.float().cpu()
    yield at_most(0, largest(rows_TM - token_TM), "a row of the table differs from one-hot times table by")
    ids = reading.tokens.ids
    twins = [(i, j) for j in range(len(ids)) for i in range(j) if ids[i] == ids[j]][:100]
    names = "equal tokens differ, without positions, by", "with positions their cosine is"
    if not twins:
        yield from (does_not_apply(name, "no two tokens of this text are the same") for name in names)
        return
    yield at_most(0, max(largest(token_TM[i] - token_TM[j]) for i, j in twins), names[0])
    cosine_TT = cosines(sum_TM)
    limit = 1 - Arithmetic(n_terms=sum_TM.shape[1]).error()
    yield at_most(limit, max(cosine_TT[i, j].item() for i, j in twins), names[1])


LESSON = Lesson(
    system=12,
    title="Token + position",
    posts=(PART_6B, PART_3, chapter("2.8")),
    request_type=InputEmbeddingRequest,
    result_type=InputEmbeddingResult,
    compute=compute,
    checks=checks,
    breaks="add to each token the position before its own",
    code=("model/positions.py: LearnedPositions", "app/lessons/input_embedding.py: vectors"),
    needs="learned positions",
    fits=lambda config: config.positions == "learned",
)
