"""S14: attention with nothing to learn: every token takes a little of all that resemble it."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.book import BOOK, Source, vectors
from app.lessons.checks import Arithmetic, Check, does_not_apply, equal, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Heatmap, matrix, numbers
from app.lessons.posts import PART_6, PART_6B, chapter
from app.schemas import Index

Normalise = Literal["softmax", "naive softmax", "sum"]


class SimpleAttentionRequest(LessonRequest):
    """Which vectors, which of them looks, and how scores become shares."""

    source: Source = Field(
        "model", title="Vectors", description="the model's embedded tokens, or the six of the book's example"
    )
    query: Index | None = Field(
        None,
        title="Query",
        description="the token that attends; by default the last",
        json_schema_extra={"kind": "token"},
    )
    normalise: Normalise = Field("softmax", title="Shares by", description="how scores become shares of one whole")
    summed: float = Field(
        1.0,
        title="Summed so far",
        ge=0,
        le=1,
        description="how far the weighted sum has got, token by token",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class SimpleAttentionResult(LessonResult):
    """The three steps for one token."""

    scores: Bars = Field(description="dot products of the query with every token")
    weights: Bars
    context: Heatmap = Field(
        description="the query's vector, and the sum of all vectors with these weights, as far as it has got"
    )


def normalised(score_T: Tensor, normalise: Normalise) -> Tensor:
    """Scores of one query as shares, (T,)."""
    if normalise == "sum":
        return score_T / score_T.sum()
    if normalise == "naive softmax":
        return score_T.exp() / score_T.exp().sum()
    return score_T.softmax(-1)


def steps(x_TM: Tensor, query: int, request: SimpleAttentionRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and weights, (T,), and the context vector, (M,), of one query."""
    score_T = x_TM @ x_TM[query]
    weight_T = torch.softmax(x_TM @ x_TM.T, dim=0)[query] if request.broken else normalised(score_T, request.normalise)
    return score_T, weight_T, weight_T @ x_TM


def _query(x_TM: Tensor, reading: Reading, request: SimpleAttentionRequest) -> int:
    return min(reading.position(request.query) if request.source == "model" else (request.query or 0), len(x_TM) - 1)


def compute(reading: Reading, request: SimpleAttentionRequest) -> SimpleAttentionResult:
    """Scores, weights and context vector of the chosen token."""
    x_TM, names = vectors(reading, request.source)
    query = _query(x_TM, reading, request)
    score_T, weight_T, _ = steps(x_TM, query, request)
    n_summed = round(request.summed * len(names))
    context_M = weight_T[:n_summed] @ x_TM[:n_summed]
    features = [str(feature) for feature in range(x_TM.shape[1])]
    return SimpleAttentionResult(
        scores=Bars(
            title=f"x · x of {names[query]}", labels=names, values=numbers(score_T), chosen=query, selects="query"
        ),
        weights=Bars(title="weights", labels=names, values=numbers(weight_T), chosen=query, selects="query"),
        context=Heatmap(
            title=f"{names[query]} before and after {n_summed} of {len(names)} tokens, {len(features)} features each",
            rows=["x", "z"],
            columns=features,
            values=matrix(torch.stack((x_TM[query], context_M))),
            scale="signed",
        ),
    )


def checks(reading: Reading, request: SimpleAttentionRequest) -> Iterator[Check]:
    """Weights are shares; the context vector is their mean; the book's numbers come out."""
    x_TM, _ = vectors(reading, request.source)
    query = _query(x_TM, reading, request)
    _, weight_T, context_M = steps(x_TM, query, request)
    names = "the weights sum to 1, to within", "the context vector differs from the sum, token by token, by"
    if weight_T.isfinite().all():
        sums = Arithmetic(n_terms=len(weight_T))
        yield equal(names[0], weight_T.sum()[None], torch.ones(1), sums, max(1.0, weight_T.norm().item()))
        summed_M = sum((weight * x_M for weight, x_M in zip(weight_T, x_TM, strict=True)), torch.zeros_like(context_M))
        yield equal(names[1], summed_M, context_M, sums, product_scales(weight_T[None], x_TM.T)[0])
    else:
        reason = f"shares by {request.normalise} are no numbers here: a sum is too large, or 0"
        yield from (does_not_apply(name, reason) for name in names)
    book = request.model_copy(update={"normalise": "softmax"})
    _, weight_T, context_M = steps(BOOK, 1, book)
    printed_T = torch.tensor([0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    yield printed("the book's weights for its second word differ by", weight_T, printed_T)
    printed_M = torch.tensor([0.4419, 0.6515, 0.5683])
    yield printed("the book's context vector for it differs by", context_M, printed_M)


LESSON = Lesson(
    system=14,
    title="Attention with nothing to learn",
    posts=(PART_6, PART_6B, chapter("3.3.1")),
    request_type=SimpleAttentionRequest,
    result_type=SimpleAttentionResult,
    compute=compute,
    checks=checks,
    breaks="share along the wrong axis, so that columns sum to 1 and not rows",
    code=("app/lessons/simple_attention.py: steps",),
)
