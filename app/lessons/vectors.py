"""S01: a vector is a point and a direction; a dot product measures how far two vectors point the same way."""

# shapes: T tokens, M features of a token, D features of any two vectors

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_scales
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import N_BARS, Bars, Facts, Heatmap, Point, Points, facts, numbers, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter
from app.schemas import Index

ARROW_LIMIT = 5.0

ArrowCoordinate = Annotated[float, Field(ge=-ARROW_LIMIT, le=ARROW_LIMIT)]
Arrow = Annotated[list[ArrowCoordinate], Field(min_length=2, max_length=2)]
PairMeasure = Literal["dot product", "cosine"]


class VectorsRequest(LessonRequest):
    """Two arrows to choose freely, two tokens of the text, and the measure that compares all pairs of tokens."""

    a: Arrow = Field(
        [3.0, 1.0],
        title="Arrow a",
        json_schema_extra={"kind": "sliders", "limit": ARROW_LIMIT, "names": ["across", "up"]},
    )
    b: Arrow = Field(
        [1.0, 3.0],
        title="Arrow b",
        json_schema_extra={"kind": "sliders", "limit": ARROW_LIMIT, "names": ["across", "up"]},
    )
    first_token: Index | None = Field(
        1, title="First token", description="is compared with the second token", json_schema_extra={"kind": "token"}
    )
    second_token: Index | None = Field(
        2, title="Second token", description="is compared with the first token", json_schema_extra={"kind": "token"}
    )
    measure: PairMeasure = Field("dot product", title="Measure", description="compares every pair of tokens")


class VectorsResult(LessonResult):
    """The two arrows, the two tokens, and all pairs of tokens."""

    arrows: Points
    arrow_products: Bars = Field(description="the terms of the arrows' dot product, one per coordinate")
    arrow_facts: Facts
    token_products: Bars = Field(description="the first terms of the tokens' dot product, one per feature")
    token_facts: Facts
    pairs: Heatmap


def dot_terms(a_D: Tensor, b_D: Tensor, *, broken: bool = False) -> Tensor:
    """The terms of a dot product, (D,); broken: each feature is multiplied by the feature before it.

    >>> dot_terms(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 2.0])).tolist()
    [2.0, 0.0, 8.0]
    """
    return a_D * (b_D.roll(1) if broken else b_D)


def cosine(a_D: Tensor, b_D: Tensor, *, broken: bool = False) -> float:
    """The cosine of the angle between two vectors: their dot product after both are scaled to length 1."""
    return dot_terms(F.normalize(a_D, dim=0), F.normalize(b_D, dim=0), broken=broken).sum().item()


def compare_pairs(x_TM: Tensor, request: VectorsRequest) -> Tensor:
    """The dot product or cosine of every pair of tokens, (T, T)."""
    if request.measure == "cosine":
        x_TM = F.normalize(x_TM, dim=1)
    return x_TM @ (x_TM.roll(1, 1) if request.broken else x_TM).T


def _vector_facts(title: str, a_D: Tensor, b_D: Tensor, *, broken: bool) -> Facts:
    return facts(
        title,
        {
            "dot product": dot_terms(a_D, b_D, broken=broken).sum().item(),
            "length of the first": a_D.norm().item(),
            "length of the second": b_D.norm().item(),
            "cosine": cosine(a_D, b_D, broken=broken),
        },
    )


def _arrows(request: VectorsRequest) -> Points:
    return Points(
        title="Arrows a and b (drag their tips)",
        x_axis="across",
        y_axis="up",
        points=[Point(name=name, group=name, x=x, y=y) for name, (x, y) in (("a", request.a), ("b", request.b))],
        arrows=True,
        limit=ARROW_LIMIT,
        draggable=["a", "b"],
    )


def compute(reading: Reading, request: VectorsRequest) -> VectorsResult:
    """The dot products and cosines of two arrows, of two tokens, and of all pairs of tokens."""
    a_D, b_D = torch.tensor(request.a), torch.tensor(request.b)
    x_TM, labels = reading.embeddings_TM, reading.token_labels
    first, second = reading.position(request.first_token), reading.position(request.second_token)
    d_model = x_TM.shape[1]
    n_bars = min(N_BARS, d_model)
    return VectorsResult(
        arrows=_arrows(request),
        arrow_products=Bars(
            title="Terms of the dot product a · b",
            labels=["across", "up"],
            values=numbers(dot_terms(a_D, b_D, broken=request.broken)),
        ),
        arrow_facts=_vector_facts("Arrows a and b", a_D, b_D, broken=request.broken),
        token_products=Bars(
            title=f"Terms of the dot product {labels[first]} · {labels[second]}, the first {n_bars} of {d_model}",
            labels=[str(feature) for feature in range(n_bars)],
            values=numbers(dot_terms(x_TM[first], x_TM[second], broken=request.broken)[:N_BARS]),
        ),
        token_facts=_vector_facts(
            f"Tokens {labels[first]} and {labels[second]}, all {d_model} features",
            x_TM[first],
            x_TM[second],
            broken=request.broken,
        ),
        pairs=signed(
            f"{request.measure.capitalize()} of every pair of tokens",
            labels,
            labels,
            compare_pairs(x_TM, request),
            selects=("first_token", "second_token"),
        ),
    )


def checks(reading: Reading, request: VectorsRequest) -> Iterator[Check]:
    """The table equals single dot products, no cosine is above 1, and an example of the post comes out as printed."""
    x_TM = reading.embeddings_TM
    dots_TT = compare_pairs(x_TM, request.model_copy(update={"measure": "dot product"}))
    samples_TM = x_TM[:N_SAMPLES]
    looped_TT = torch.stack([torch.stack([dot_terms(a_M, b_M).sum() for b_M in samples_TM]) for a_M in samples_TM])
    arithmetic, n = Arithmetic(n_terms=x_TM.shape[1]), len(samples_TM)
    yield equal(
        f"the table has the dot product of every pair of the first {N_SAMPLES} tokens",
        looped_TT,
        dots_TT[:n, :n],
        arithmetic,
        product_scales(samples_TM, samples_TM),
    )
    cosine_TT = compare_pairs(x_TM, request.model_copy(update={"measure": "cosine"}))
    yield at_most(1 + arithmetic.error(), largest(cosine_TT), "no cosine is above 1 or below −1")
    yield at_least(1 - arithmetic.error(), cosine_TT.diagonal().min().item(), "every token's cosine with itself is 1")
    a_D, b_D = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 2.0])
    difference = abs(dot_terms(a_D, b_D, broken=request.broken).sum().item() - 10)
    yield at_most(0, difference, "(2, 3, 4) · (1, 0, 2) is 10")


LESSON = Lesson(
    number=1,
    title="Vectors and the dot product",
    posts=(MATHS, MATHS_ADDENDUM, chapter("3.3.1")),
    request_type=VectorsRequest,
    result_type=VectorsResult,
    compute=compute,
    checks=checks,
    break_description="multiply each feature by the feature before it",
    code_references=("model/attention.py: scores", "app/lessons/vectors.py: dot_terms, cosine"),
)
