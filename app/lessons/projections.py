"""S05: a matrix carries vectors from one space into another; on the way to a smaller one something is lost."""

# shapes: T tokens, I features before, O features after, R features on the narrower side, B texts, M features of a token

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.book import BOOK, BOOK_NAMES
from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Curves, Facts, Heatmap, Line, Point, Points, facts, numbers, signed
from app.lessons.posts import MATHS, PART_8, chapter
from app.schemas import Index
from model.linear import Linear

N_SHOWN = 32  # tokens
N_ROWS = 2048  # of a matrix with more, whose singular values would take too long
FLAT = 1e-3  # a direction that is stretched by less than this share of the most stretched one counts as lost

Which = Literal["query", "key", "value", "feed-forward up", "unembedding", "the book's query"]


class ProjectionsRequest(LessonRequest):
    """A matrix of the model, and two tokens that go through it."""

    which: Which = Field("query", title="Matrix", description="of a head, of a layer, of the model, or of the book")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    one: Index | None = Field(
        1, title="One token", description="the last if left out", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        2, title="Another one", description="the last if left out", json_schema_extra={"kind": "token"}
    )


class ProjectionsResult(LessonResult):
    """The tokens before and after, and what became of them."""

    before: Points
    after: Points
    pair: Facts
    distances: Heatmap = Field(description="of each two tokens after, over their distance before")
    stretch: Curves = Field(description="the singular values of the matrix")
    lost: Bars = Field(description="of each token's vector, the share of its length that the matrix maps to 0")
    facts: Facts


@dataclass(frozen=True)
class Map:
    """A matrix, and the vectors that go into it where it stands; float32."""

    names: list[str]  # of the tokens
    x_TI: Tensor
    weight_OI: Tensor
    bias_O: Tensor | float

    @property
    def y_TO(self) -> Tensor:
        """What comes out."""
        return self.x_TI @ self.weight_OI.T + self.bias_O

    @property
    def rows_OI(self) -> Tensor:
        """The matrix, or its first rows where it has too many."""
        return self.weight_OI[:N_ROWS]


def where(reading: Reading, request: ProjectionsRequest) -> tuple[Linear, slice]:
    """The layer of the network that is meant, and which of its outputs are the chosen head's."""
    network, config = reading.model.network, reading.config
    if request.which == "unembedding":
        return network.unembed, slice(None)
    block = reading.block(request.layer)
    if request.which == "feed-forward up":
        return reading.up(request.layer), slice(None)
    linear = getattr(block.attention, request.which)
    assert isinstance(linear, Linear)
    head = request.head if request.which == "query" else config.key_head(request.head)
    first = head * config.d_head
    return linear, slice(first, first + config.d_head)


def entering(reading: Reading, request: ProjectionsRequest) -> Tensor:
    """What goes into that layer of the network, (T, M)."""
    if request.which == "unembedding":
        return reading.trace.hidden_TM
    return reading.capture(request.layer, where(reading, request)[0])[0]


def leaving(reading: Reading, request: ProjectionsRequest) -> Tensor:
    """What comes out of it there, (T, O): of a layer's matrix the chosen head's outputs."""
    if request.which == "unembedding":
        return reading.trace.logits(range(len(reading.tokens)))
    linear, rows = where(reading, request)
    return reading.capture(request.layer, linear)[1][:, rows]


def mapped(reading: Reading, request: ProjectionsRequest) -> Map:
    """The chosen matrix with its tokens."""
    if request.which == "the book's query":
        weight_OI = torch.rand(3, 2, generator=torch.Generator().manual_seed(123)).T  # as the book draws it
        names = BOOK_NAMES
        return Map(names, BOOK, weight_OI.roll(1, 0) if request.broken else weight_OI, 0.0)
    linear, rows = where(reading, request)
    weight_OI = linear.weight[rows].float().cpu()
    bias_O = 0.0 if linear.bias is None else linear.bias[rows].float().cpu()
    x_TI = entering(reading, request).float().cpu()
    return Map(reading.token_labels, x_TI, weight_OI.roll(1, 0) if request.broken else weight_OI, bias_O)


def singular_values(weight_OI: Tensor) -> Tensor:
    """The singular values of a matrix, (R,), the largest first: how much it stretches along each of its directions."""
    n_outputs, n_inputs = weight_OI.shape
    narrow_RR = weight_OI @ weight_OI.T if n_outputs < n_inputs else weight_OI.T @ weight_OI
    squares_R: Tensor = torch.linalg.eigvalsh(narrow_RR)
    return squares_R.clamp_min(0).sqrt().flip(0)


def null_part(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """Of each vector the part that the matrix cannot see, (T, I): what stands square on all of its rows."""
    if len(weight_OI) >= weight_OI.shape[1]:
        return torch.zeros_like(x_TI)  # as many rows as features: where they point different ways, nothing is left
    seen_IR: Tensor = torch.linalg.qr(weight_OI.T).Q
    return x_TI - x_TI @ seen_IR @ seen_IR.T


def plane(x_TX: Tensor) -> tuple[Tensor, list[str]]:
    """Vectors in two dimensions, (T, 2), and the names of these: main axes by PCA where there are more of them."""
    if x_TX.shape[1] <= 2:
        return F.pad(x_TX, (0, 2 - x_TX.shape[1])), ["feature 0", "feature 1"]
    centred_TX = x_TX - x_TX.mean(0)
    spread_T, axes_TT = torch.linalg.eigh(centred_TX @ centred_TX.T)  # U and S² of the SVD of the centred vectors
    spread_T = F.pad(spread_T.clamp_min(0).flip(0), (0, 1))
    places_T2 = F.pad(axes_TT.flip(1), (0, 1))[:, :2] * spread_T[:2].sqrt()
    farthest_2 = places_T2.gather(0, places_T2.abs().argmax(0, keepdim=True))[0]
    upright_2 = torch.where(farthest_2 < 0, -1.0, 1.0)  # an axis has no sign: its farthest token shall be above 0
    share_2 = spread_T[:2] / spread_T.sum().clamp_min(1e-12)
    titles = [f"main axis {n}, {share:.0%} of the spread" for n, share in enumerate(share_2.tolist(), 1)]
    return places_T2 * upright_2, titles


def points(title: str, x_TX: Tensor, names: list[str], chosen: tuple[int, int]) -> Points:
    """The first tokens in a plane."""
    places_T2, axes = plane(x_TX[:N_SHOWN])
    return Points(
        title=title,
        x_axis=axes[0],
        y_axis=axes[1],
        points=[
            Point(name=name, group="chosen" if place in chosen else "others", x=x, y=y, selects={"one": place})
            for place, (name, (x, y)) in enumerate(zip(names, places_T2.tolist(), strict=False))
        ],
    )


def distances(x_TX: Tensor) -> Tensor:
    """Of all pairs, (T, T)."""
    return torch.cdist(x_TX, x_TX, compute_mode="donot_use_mm_for_euclid_dist")


@torch.inference_mode()
def compute(reading: Reading, request: ProjectionsRequest) -> ProjectionsResult:
    """The tokens before and after the matrix."""
    found = mapped(reading, request)
    x_TI, y_TO, names = found.x_TI, found.y_TO, found.names
    n_outputs, n_inputs = found.weight_OI.shape
    one, other = (min(reading.position(place), len(names) - 1) for place in (request.one, request.other))
    what = (
        f"layer {request.layer}, head {request.head}: {request.which}"
        if request.which in ("query", "key", "value")
        else request.which
    )
    what = f"layer {request.layer}: {request.which}" if request.which == "feed-forward up" else what
    stretch_R = singular_values(found.rows_OI)
    rank = int((stretch_R > FLAT * stretch_R[0]).sum())
    lost_T = null_part(x_TI, found.weight_OI).norm(dim=1) / x_TI.norm(dim=1).clamp_min(1e-12)
    far, near = (x_TI[one] - x_TI[other]).norm(), (y_TO[one] - y_TO[other]).norm()
    some = len(found.rows_OI)
    return ProjectionsResult(
        before=points(f"before, ({len(names)} × {n_inputs})", x_TI, names, (one, other)),
        after=points(f"after {what}, ({len(names)} × {n_outputs})", y_TO, names, (one, other)),
        pair=facts(
            f"{names[one]} and {names[other]}",
            {
                "distance before": far.item(),
                "distance after": near.item(),
                "after / before": (near / far).item(),
                "cosine before": F.cosine_similarity(x_TI[one], x_TI[other], dim=0).item(),
                "cosine after": F.cosine_similarity(y_TO[one], y_TO[other], dim=0).item(),
            },
        ),
        distances=signed(
            f"distance after / before, {min(N_SHOWN, len(names))} tokens",
            names[:N_SHOWN],
            names[:N_SHOWN],
            distances(y_TO[:N_SHOWN]) / distances(x_TI[:N_SHOWN]),
            selects=("one", "other"),
        ),
        stretch=Curves(
            title=f"singular values of W, ({some} × {n_inputs})" + f": {some} of {n_outputs} rows" * (some < n_outputs),
            x_axis="direction, the most stretched first",
            lines=[Line(name="stretched by", x=list(map(float, range(1, len(stretch_R) + 1))), y=numbers(stretch_R))],
        ),
        lost=Bars(
            title="share of each vector's length that W maps to 0",
            labels=names,
            values=numbers(lost_T),
            chosen=one,
            probabilities=True,
            selects="one",
        ),
        facts=facts(
            f"W of {what}",
            {
                "features before": float(n_inputs),
                "features after": float(n_outputs),
                "rank: directions that get through": float(rank),
                "directions lost": float(n_inputs - rank),
                "largest singular value": stretch_R[0].item(),
                "smallest": stretch_R[-1].item(),
                "first token, first feature after": y_TO[0, 0].item(),
            },
        ),
    )


@torch.inference_mode()
def checks(reading: Reading, request: ProjectionsRequest) -> Iterator[Check]:
    """What comes out is what the running layer gives; the rest is what a matrix of this shape must do."""
    found = mapped(reading, request)
    n_inputs = found.weight_OI.shape[1]
    name = "x Wᵀ + b differs from the running layer by"
    if request.which == "the book's query":
        yield does_not_apply(name, "the book's matrix runs in no model")
    else:
        stored = Arithmetic(n_terms=n_inputs, dtype=reading.dtype)
        scale_TO = product_scales(found.x_TI, found.weight_OI, found.bias_O, reading.dtype)
        yield equal(name, found.y_TO, leaving(reading, request), stored, scale_TO)
    rows_OI = found.rows_OI
    rank = torch.linalg.matrix_rank((rows_OI.T @ rows_OI).double(), rtol=FLAT**2, hermitian=True)
    yield at_most(min(found.weight_OI.shape), float(rank), "directions that get through (Wᵀ W has so many)")
    products, most = Arithmetic(n_terms=n_inputs), singular_values(rows_OI)[0]
    hidden_TI = null_part(found.x_TI, found.weight_OI)
    through = (hidden_TI @ rows_OI.T).norm() / (found.x_TI.norm() * most)
    yield at_most(
        products.error(), through.item(), "of the part that is mapped to 0 there comes through, relative to the most,"
    )
    some_TO = found.y_TO[:N_SHOWN, : len(rows_OI)]
    beyond_TT = distances(some_TO) - most * distances(found.x_TI[:N_SHOWN])
    scale_TO = product_scales(found.x_TI[:N_SHOWN], rows_OI)
    error = products.error(scale_TO.norm(dim=1).max().item())
    yield at_most(
        error, beyond_TT.max().item(), "the most that a distance after exceeds the largest singular value times it is"
    )
    second_O = mapped(reading, request.model_copy(update={"which": "the book's query"})).y_TO[1]
    yield printed(
        "the book's query of its second word, (0.4306, 1.4551), differs by", second_O, torch.tensor([0.4306, 1.4551])
    )


LESSON = Lesson(
    system=5,
    title="Projections",
    posts=(MATHS, PART_8, chapter("3.4")),
    request_type=ProjectionsRequest,
    result_type=ProjectionsResult,
    compute=compute,
    checks=checks,
    breaks="give each output the row of W that belongs to the one before it",
    code=(
        "model/linear.py: Linear",
        "model/attention.py: Attention",
        "app/lessons/projections.py: singular_values, null_part",
    ),
)
