"""S05: a matrix maps vectors to another space; if that space is smaller, something is lost."""

# shapes: T tokens, I features before the matrix, O features after it, R singular values, X features of either

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.book import BOOK, BOOK_NAMES
from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, printed, product_scales
from app.lessons.geometry import distances, null_part, plane, singular_values
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Curves, Facts, Heatmap, Line, Point, Points, facts, numbers, signed
from app.lessons.posts import MATHS, PART_8, chapter
from app.schemas import Index
from model.linear import Linear

N_POINTS = 32  # tokens in the planes and the table of distances
N_MATRIX_ROWS = 2048  # more would make the singular values too slow
RANK_TOLERANCE = 1e-3  # a singular value below this fraction of the largest one counts as 0

MatrixName = Literal["query", "key", "value", "feed-forward up", "unembedding", "the book's query"]


class ProjectionsRequest(LessonRequest):
    """A matrix of the model, and two tokens."""

    matrix: MatrixName = Field(
        "query", title="Matrix", description="of the chosen head, of the layer, of the model, or of the book's example"
    )
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    token: Index | None = Field(
        1, title="Token", description="it is highlighted and compared", json_schema_extra={"kind": "token"}
    )
    other_token: Index | None = Field(
        2, title="Compare with", description="its distance to the token is shown", json_schema_extra={"kind": "token"}
    )


class ProjectionsResult(LessonResult):
    """The tokens before and after the matrix, and what is lost."""

    inputs: Points
    outputs: Points
    pair_facts: Facts
    distance_ratios: Heatmap = Field(
        description="for each two tokens, the distance after divided by the distance before"
    )
    singular_values: Curves = Field(description="the singular values of the matrix")
    lost: Bars = Field(description="for each token, the length of the part that the matrix maps to 0 / its length")
    facts: Facts


@dataclass(frozen=True)
class Projection:
    """A matrix, and the vectors that it is applied to; float32."""

    labels: list[str]  # of the tokens
    x_TI: Tensor
    weight_OI: Tensor
    bias_O: Tensor | float

    @property
    def y_TO(self) -> Tensor:
        """The vectors after the matrix."""
        return self.x_TI @ self.weight_OI.T + self.bias_O

    @property
    def rows_OI(self) -> Tensor:
        """The matrix, or its first rows if it has too many."""
        return self.weight_OI[:N_MATRIX_ROWS]


def linear_and_rows(reading: Reading, request: ProjectionsRequest) -> tuple[Linear, slice]:
    """The linear layer that has the matrix, and the rows that belong to the chosen head."""
    network, config = reading.model.network, reading.config
    if request.matrix == "unembedding":
        return network.unembed, slice(None)
    block = reading.block(request.layer)
    if request.matrix == "feed-forward up":
        return reading.up(request.layer), slice(None)
    linear = getattr(block.attention, request.matrix)
    assert isinstance(linear, Linear)
    head = request.head if request.matrix == "query" else config.key_head(request.head)
    first = head * config.d_head
    return linear, slice(first, first + config.d_head)


def linear_input(reading: Reading, request: ProjectionsRequest) -> Tensor:
    """The input of that linear layer in a run of the model, (T, I)."""
    if request.matrix == "unembedding":
        return reading.trace.hidden_TM
    return reading.capture(request.layer, linear_and_rows(reading, request)[0])[0]


def linear_output(reading: Reading, request: ProjectionsRequest) -> Tensor:
    """The output of that linear layer in a run of the model, (T, O): the chosen head's part of it."""
    if request.matrix == "unembedding":
        return reading.trace.logits(range(len(reading.tokens)))
    linear, rows = linear_and_rows(reading, request)
    return reading.capture(request.layer, linear)[1][:, rows]


def chosen_projection(reading: Reading, request: ProjectionsRequest) -> Projection:
    """The chosen matrix, with the vectors that it is applied to."""
    if request.matrix == "the book's query":
        weight_OI = torch.rand(3, 2, generator=torch.Generator().manual_seed(123)).T  # as the book draws it
        return Projection(BOOK_NAMES, BOOK, weight_OI.roll(1, 0) if request.broken else weight_OI, 0.0)
    linear, rows = linear_and_rows(reading, request)
    weight_OI = linear.weight[rows].float().cpu()
    bias_O = 0.0 if linear.bias is None else linear.bias[rows].float().cpu()
    x_TI = linear_input(reading, request).float().cpu()
    return Projection(reading.token_labels, x_TI, weight_OI.roll(1, 0) if request.broken else weight_OI, bias_O)


def points(title: str, x_TX: Tensor, labels: list[str], chosen: tuple[int, int]) -> Points:
    """The first tokens in a plane."""
    point_T2, axes = plane(x_TX[:N_POINTS])
    return Points(
        title=title,
        x_axis=axes[0],
        y_axis=axes[1],
        points=[
            Point(name=label, group="chosen" if index in chosen else "others", x=x, y=y, selects={"token": index})
            for index, (label, (x, y)) in enumerate(zip(labels, point_T2.tolist(), strict=False))
        ],
    )


def matrix_label(request: ProjectionsRequest) -> str:
    """The name of the chosen matrix, with its layer and head if it has them."""
    if request.matrix in ("query", "key", "value"):
        return f"layer {request.layer}, head {request.head}: {request.matrix}"
    return f"layer {request.layer}: {request.matrix}" if request.matrix == "feed-forward up" else request.matrix


@torch.inference_mode()
def compute(reading: Reading, request: ProjectionsRequest) -> ProjectionsResult:
    """The tokens before and after the matrix, its singular values, and what is lost."""
    projection = chosen_projection(reading, request)
    x_TI, y_TO, labels = projection.x_TI, projection.y_TO, projection.labels
    n_outputs, n_inputs = projection.weight_OI.shape
    pair = _chosen_tokens(reading, request, len(labels))
    name = matrix_label(request)
    singular_R = singular_values(projection.rows_OI)
    lost_T = null_part(x_TI, projection.weight_OI).norm(dim=1) / x_TI.norm(dim=1).clamp_min(1e-12)
    n_rows, n_points = len(projection.rows_OI), min(N_POINTS, len(labels))
    return ProjectionsResult(
        inputs=points(f"Vectors before the matrix, ({len(labels)} × {n_inputs})", x_TI, labels, pair),
        outputs=points(f"Vectors after the matrix, {name}, ({len(labels)} × {n_outputs})", y_TO, labels, pair),
        pair_facts=_projected_pair_facts(projection, *pair),
        distance_ratios=signed(
            f"Distance after / distance before, {n_points} tokens",
            labels[:N_POINTS],
            labels[:N_POINTS],
            distances(y_TO[:N_POINTS]) / distances(x_TI[:N_POINTS]),
            selects=("token", "other_token"),
        ),
        singular_values=Curves(
            title=f"Singular values of W, ({n_rows} × {n_inputs})"
            + f": {n_rows} of {n_outputs} rows" * (n_rows < n_outputs),
            x_axis="singular values, the largest first",
            lines=[
                Line(name="singular value", x=list(map(float, range(1, len(singular_R) + 1))), y=numbers(singular_R))
            ],
        ),
        lost=Bars(
            title="Fraction of each vector's length that W maps to 0",
            labels=labels,
            values=numbers(lost_T),
            chosen=pair[0],
            probabilities=True,
            selects="token",
        ),
        facts=_matrix_facts(f"W, {name}", projection, singular_R),
    )


def _chosen_tokens(reading: Reading, request: ProjectionsRequest, n_tokens: int) -> tuple[int, int]:
    """The positions of the two chosen tokens."""
    token, other_token = (reading.position(position) for position in (request.token, request.other_token))
    return min(token, n_tokens - 1), min(other_token, n_tokens - 1)


def _projected_pair_facts(projection: Projection, token: int, other_token: int) -> Facts:
    """Distance and cosine similarity of two tokens before and after the matrix."""
    x_TI, y_TO, labels = projection.x_TI, projection.y_TO, projection.labels
    before, after = (x_TI[token] - x_TI[other_token]).norm(), (y_TO[token] - y_TO[other_token]).norm()
    return facts(
        f"{labels[token]} and {labels[other_token]}",
        {
            "distance before": before.item(),
            "distance after": after.item(),
            "distance after / distance before": (after / before).item(),
            "cosine similarity before": F.cosine_similarity(x_TI[token], x_TI[other_token], dim=0).item(),
            "cosine similarity after": F.cosine_similarity(y_TO[token], y_TO[other_token], dim=0).item(),
        },
    )


def _matrix_facts(title: str, projection: Projection, singular_R: Tensor) -> Facts:
    """The shape, rank and singular values of the matrix."""
    n_outputs, n_inputs = projection.weight_OI.shape
    rank = int((singular_R > RANK_TOLERANCE * singular_R[0]).sum())
    return facts(
        title,
        {
            "features before": float(n_inputs),
            "features after": float(n_outputs),
            "rank": float(rank),
            "directions lost: features before − rank": float(n_inputs - rank),
            "largest singular value": singular_R[0].item(),
            "smallest singular value": singular_R[-1].item(),
            "first token, first feature after": projection.y_TO[0, 0].item(),
        },
    )


@torch.inference_mode()
def checks(reading: Reading, request: ProjectionsRequest) -> Iterator[Check]:
    """The outputs are those of the model's layer; rank, null space and distances are as for any matrix of its shape."""
    projection = chosen_projection(reading, request)
    n_inputs = projection.weight_OI.shape[1]
    name = "x Wᵀ + b is the output of the model's layer"
    if request.matrix == "the book's query":
        yield does_not_apply(name, "the book's matrix is in no model")
    else:
        stored = Arithmetic(n_terms=n_inputs, dtype=reading.dtype)
        scale_TO = product_scales(projection.x_TI, projection.weight_OI, projection.bias_O, reading.dtype)
        yield equal(name, projection.y_TO, linear_output(reading, request), stored, scale_TO)
    yield from _shape_checks(projection)
    second_O = chosen_projection(reading, request.model_copy(update={"matrix": "the book's query"})).y_TO[1]
    printed_O = torch.tensor([0.4306, 1.4551])
    yield printed("the query of the second word is that in the book, (0.4306, 1.4551)", second_O, printed_O)


def _shape_checks(projection: Projection) -> Iterator[Check]:
    """What holds for every matrix: a bound on its rank, its null space, and a bound on the distances after it."""
    rows_OI, x_TI = projection.rows_OI, projection.x_TI
    products, largest_singular = Arithmetic(n_terms=rows_OI.shape[1]), singular_values(rows_OI)[0]
    rank = torch.linalg.matrix_rank((rows_OI.T @ rows_OI).double(), rtol=RANK_TOLERANCE**2, hermitian=True)
    yield at_most(min(projection.weight_OI.shape), float(rank), "the rank is at most the smaller of both widths")
    null_TI = null_part(x_TI, projection.weight_OI)
    null_output = (null_TI @ rows_OI.T).norm() / (x_TI.norm() * largest_singular)
    yield at_most(products.error(), null_output.item(), "the part of the vectors that is lost is mapped to 0")
    excess_TT = distances(projection.y_TO[:N_POINTS, : len(rows_OI)]) - largest_singular * distances(x_TI[:N_POINTS])
    error = products.error(product_scales(x_TI[:N_POINTS], rows_OI).norm(dim=1).max().item())
    yield at_most(error, excess_TT.max().item(), "no distance grows by more than the largest singular value")


LESSON = Lesson(
    number=5,
    title="Projections",
    posts=(MATHS, PART_8, chapter("3.4")),
    request_type=ProjectionsRequest,
    result_type=ProjectionsResult,
    compute=compute,
    checks=checks,
    break_description="give each output the row of W that belongs to the previous output",
    code_references=(
        "model/linear.py: Linear",
        "model/attention.py: Attention",
        "app/lessons/geometry.py: singular_values, null_part",
    ),
)
