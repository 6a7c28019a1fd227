"""S14: attention without trainable weights: every token takes most from the tokens that are similar to it."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.book import BOOK, VectorSource, vectors
from app.lessons.checks import Arithmetic, Check, does_not_apply, equal, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Heatmap, numbers, signed
from app.lessons.posts import PART_6, PART_6B, chapter
from app.schemas import Index

Normalisation = Literal["softmax", "naive softmax", "sum"]


class SimpleAttentionRequest(LessonRequest):
    """The vectors, the token that attends, and how its scores become weights."""

    source: VectorSource = Field(
        "model", title="Vectors", description="the model's embedded tokens, or the six of the book's example"
    )
    query: Index | None = Field(
        None, title="Query", description="the token that attends", json_schema_extra={"kind": "token"}
    )
    normalisation: Normalisation = Field(
        "softmax",
        title="Normalise with",
        description="turns scores into weights; “naive softmax” and “sum” can overflow or divide by 0",
    )
    fraction_summed: float = Field(
        1.0,
        title="Tokens summed",
        ge=0,
        le=1,
        description="the context vector is summed token by token; this stops after a fraction of the text",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class SimpleAttentionResult(LessonResult):
    """The three steps for one query: scores, weights, context vector."""

    scores: Bars = Field(description="dot products of the query with every token")
    weights: Bars
    context: Heatmap = Field(description="the query's vector, and the weighted sum of the vectors added so far")


def normalise(score_T: Tensor, normalisation: Normalisation) -> Tensor:
    """The weights of one query, (T,), from its scores."""
    if normalisation == "sum":
        return score_T / score_T.sum()
    if normalisation == "naive softmax":
        return score_T.exp() / score_T.exp().sum()
    return score_T.softmax(-1)


def attend_simply(x_TM: Tensor, query: int, request: SimpleAttentionRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and weights, (T,) each, and context vector, (M,), of one query."""
    score_T = x_TM @ x_TM[query]
    if request.broken:
        weight_T = torch.softmax(x_TM @ x_TM.T, dim=0)[query]
    else:
        weight_T = normalise(score_T, request.normalisation)
    return score_T, weight_T, weight_T @ x_TM


def _query_index(x_TM: Tensor, reading: Reading, request: SimpleAttentionRequest) -> int:
    query = reading.position(request.query) if request.source == "model" else (request.query or 0)
    return min(query, len(x_TM) - 1)


def compute(reading: Reading, request: SimpleAttentionRequest) -> SimpleAttentionResult:
    """Scores, weights and context vector of the chosen token."""
    x_TM, labels = vectors(reading, request.source)
    query = _query_index(x_TM, reading, request)
    score_T, weight_T, _ = attend_simply(x_TM, query, request)
    n_summed = round(request.fraction_summed * len(labels))
    context_M = weight_T[:n_summed] @ x_TM[:n_summed]
    n_features = x_TM.shape[1]
    return SimpleAttentionResult(
        scores=Bars(
            title=f"Scores of {labels[query]}, x · x",
            labels=labels,
            values=numbers(score_T),
            chosen=query,
            selects="query",
        ),
        weights=Bars(
            title=f"Attention weights of {labels[query]}",
            labels=labels,
            values=numbers(weight_T),
            chosen=query,
            selects="query",
        ),
        context=signed(
            f"Vector x and context vector z of {labels[query]}: {n_summed} of {len(labels)} tokens summed, "
            f"{n_features} features",
            ["x", "z"],
            [str(feature) for feature in range(n_features)],
            torch.stack((x_TM[query], context_M)),
        ),
    )


def checks(reading: Reading, request: SimpleAttentionRequest) -> Iterator[Check]:
    """Weights sum to 1; the context vector is the weighted sum of the vectors; the book's numbers come out."""
    x_TM, _ = vectors(reading, request.source)
    _, weight_T, context_M = attend_simply(x_TM, _query_index(x_TM, reading, request), request)
    names = "the weights sum to 1", "the context vector is the weighted sum, added token by token"
    if weight_T.isfinite().all():
        sums = Arithmetic(n_terms=len(weight_T))
        yield equal(names[0], weight_T.sum()[None], torch.ones(1), sums, max(1.0, weight_T.norm().item()))
        summed_M = sum((weight * x_M for weight, x_M in zip(weight_T, x_TM, strict=True)), torch.zeros_like(context_M))
        yield equal(names[1], summed_M, context_M, sums, product_scales(weight_T[None], x_TM.T)[0])
    else:
        reason = f"with {request.normalisation} the weights are not finite here: a sum is too large, or 0"
        yield from (does_not_apply(name, reason) for name in names)
    with_softmax = request.model_copy(update={"normalisation": "softmax"})
    _, weight_T, context_M = attend_simply(BOOK, 1, with_softmax)
    printed_T = torch.tensor([0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    yield printed("the weights of the second word are those in the book", weight_T, printed_T)
    printed_M = torch.tensor([0.4419, 0.6515, 0.5683])
    yield printed("the context vector of the second word is that in the book", context_M, printed_M)


LESSON = Lesson(
    number=14,
    title="Attention without trainable weights",
    posts=(PART_6, PART_6B, chapter("3.3.1")),
    request_type=SimpleAttentionRequest,
    result_type=SimpleAttentionResult,
    compute=compute,
    checks=checks,
    break_description="normalise over the wrong axis, so that columns sum to 1 and not rows",
    code_references=("app/lessons/simple_attention.py: attend_simply",),
)
