"""S01: a vector is a place and a direction; the dot product of two says how far they point the same way."""

# shapes: T tokens, M features of a token, D features of any two vectors

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Facts, Heatmap, Point, Points, facts, numbers, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter
from app.schemas import Index

LIMIT = 5.0
N_BARS = 48  # of a token's features; more bars cannot be told apart

Coordinate = Annotated[float, Field(ge=-LIMIT, le=LIMIT)]
Plane = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Measure = Literal["dot product", "cosine"]


class VectorsRequest(LessonRequest):
    """Two arrows of one's own, two tokens of the text, and how pairs are compared."""

    a: Plane = Field(
        [3.0, 1.0], title="Arrow a", json_schema_extra={"kind": "sliders", "limit": LIMIT, "names": ["across", "up"]}
    )
    b: Plane = Field(
        [1.0, 3.0], title="Arrow b", json_schema_extra={"kind": "sliders", "limit": LIMIT, "names": ["across", "up"]}
    )
    one: Index | None = Field(
        1, title="One token", description="the last if left out", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        2, title="Another one", description="the last if left out", json_schema_extra={"kind": "token"}
    )
    measure: Measure = Field("dot product", title="Compared by", description="in the table of all pairs")


class VectorsResult(LessonResult):
    """The arrows, the tokens, and all pairs."""

    arrows: Points
    products: Bars = Field(description="what each coordinate of the arrows adds to their dot product")
    plane: Facts
    features: Bars = Field(description="what each of the first features of the two tokens adds to their dot product")
    space: Facts
    pairs: Heatmap


def dot(a_D: Tensor, b_D: Tensor, *, broken: bool = False) -> Tensor:
    """What each feature adds, (D,): their sum is the dot product. Broken, each meets the one before it.

    >>> dot(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 2.0])).tolist()
    [2.0, 0.0, 8.0]
    """
    return a_D * (b_D.roll(1) if broken else b_D)


def cosine(a_D: Tensor, b_D: Tensor, *, broken: bool = False) -> float:
    """Of the angle between two vectors: their dot product, where both had length 1."""
    return dot(F.normalize(a_D, dim=0), F.normalize(b_D, dim=0), broken=broken).sum().item()


def embedded(reading: Reading) -> Tensor:
    """The tokens' rows of the model's table, (T, M); float32."""
    return reading.model.network.embed.weight[reading.ids_BT[0]].detach().float().cpu()


def pairs(x_TM: Tensor, request: VectorsRequest) -> Tensor:
    """Every token with every other one, (T, T)."""
    if request.measure == "cosine":
        x_TM = F.normalize(x_TM, dim=1)
    return x_TM @ (x_TM.roll(1, 1) if request.broken else x_TM).T


def _compared(title: str, a_D: Tensor, b_D: Tensor, *, broken: bool) -> Facts:
    return facts(
        title,
        {
            "dot product": dot(a_D, b_D, broken=broken).sum().item(),
            "length of the first": a_D.norm().item(),
            "length of the second": b_D.norm().item(),
            "cosine": cosine(a_D, b_D, broken=broken),
        },
    )


def compute(reading: Reading, request: VectorsRequest) -> VectorsResult:
    """The arrows and the tokens, compared feature by feature."""
    a_D, b_D = torch.tensor(request.a), torch.tensor(request.b)
    x_TM = embedded(reading)
    one, other = reading.position(request.one), reading.position(request.other)
    names = reading.token_labels
    return VectorsResult(
        arrows=Points(
            title="two arrows: pull their tips",
            x_axis="across",
            y_axis="up",
            points=[Point(name=n, group=n, x=v[0], y=v[1]) for n, v in (("a", request.a), ("b", request.b))],
            arrows=True,
            limit=LIMIT,
            draggable=["a", "b"],
        ),
        products=Bars(
            title="a·b: what each coordinate adds",
            labels=["across", "up"],
            values=numbers(dot(a_D, b_D, broken=request.broken)),
        ),
        plane=_compared("a and b", a_D, b_D, broken=request.broken),
        features=Bars(
            title=f"{names[one]} · {names[other]}: what the first {N_BARS} of {x_TM.shape[1]} features add",
            labels=[str(feature) for feature in range(min(N_BARS, x_TM.shape[1]))],
            values=numbers(dot(x_TM[one], x_TM[other], broken=request.broken)[:N_BARS]),
        ),
        space=_compared(
            f"{names[one]} and {names[other]}, all {x_TM.shape[1]} features",
            x_TM[one],
            x_TM[other],
            broken=request.broken,
        ),
        pairs=signed(f"{request.measure} of all pairs", names, names, pairs(x_TM, request), selects=("one", "other")),
    )


def checks(reading: Reading, request: VectorsRequest) -> Iterator[Check]:
    """The table is what pairs give one by one; a cosine is one; the sum of an example in the post."""
    x_TM = embedded(reading)
    dots_TT = pairs(x_TM, request.model_copy(update={"measure": "dot product"}))
    some_TM = x_TM[:16]
    looped_TT = torch.stack([torch.stack([dot(a_M, b_M).sum() for b_M in some_TM]) for a_M in some_TM])
    products, n = Arithmetic(n_terms=x_TM.shape[1]), len(some_TM)
    yield equal(
        "pair by pair, the dot products of the first 16 tokens differ by",
        looped_TT,
        dots_TT[:n, :n],
        products,
        product_scales(some_TM, some_TM),
    )
    cosine_TT = pairs(x_TM, request.model_copy(update={"measure": "cosine"}))
    yield at_most(1 + products.error(), largest(cosine_TT), "the largest cosine, whatever its sign, is")
    yield at_least(1 - products.error(), cosine_TT.diagonal().min().item(), "a token's cosine with itself is")
    ten = dot(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 2.0]), broken=request.broken).sum().item()
    yield at_most(0, abs(ten - 10), "(2, 3, 4) · (1, 0, 2) = 10, to within")


LESSON = Lesson(
    system=1,
    title="Vectors and the dot product",
    posts=(MATHS, MATHS_ADDENDUM, chapter("3.3.1")),
    request_type=VectorsRequest,
    result_type=VectorsResult,
    compute=compute,
    checks=checks,
    breaks="multiply each feature with the one before it",
    code=("model/attention.py: scores", "app/lessons/vectors.py: dot, cosine"),
)
