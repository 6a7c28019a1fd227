"""S05: a matrix maps vectors to another space; if that space is smaller, something is lost."""

# shapes: T tokens, I features before the matrix, O features after it, R singular values, X features of either

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from app.experiments.base import RESIDUAL, Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_most, does_not_apply, equal, printed, product_scales
from app.experiments.controls import Choice, Controls, HeadOf, Layer, TokenOf
from app.experiments.panels import Bars, Curves, Facts, Heatmap, Line, Point, Points, facts, numbers, signed
from app.lessons.book import BOOK, BOOK_NAMES
from app.lessons.geometry import distances, null_part, plane, singular_values
from app.lessons.posts import MATHS, PART_8, chapter
from model.linear import Linear

N_POINTS = 32  # tokens in the planes and the table of distances
N_MATRIX_ROWS = 2048  # more would make the singular values too slow
RANK_TOLERANCE = 1e-3  # a singular value below this fraction of the largest one counts as 0

MatrixName = Literal["query", "key", "value", "feed-forward up", "unembedding", "the book's query"]


class ProjectionsControls(Controls):
    """A matrix of the model, and two tokens."""

    matrix: Annotated[
        MatrixName, Choice("Matrix", "of the chosen head, of the layer, of the model, or of the book's example")
    ] = "query"
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    token: Annotated[int | None, TokenOf("Token", "it is highlighted and compared")] = 1
    other_token: Annotated[int | None, TokenOf("Compare with", "its distance to the token is shown")] = 2


@dataclass(frozen=True)
class Projection:
    """A matrix, and the vectors that it is applied to; float32."""

    labels: list[str]  # of the tokens
    x_TI: Tensor
    weight_OI: Tensor
    bias_O: Tensor | float

    @cached_property
    def y_TO(self) -> Tensor:
        """The vectors after the matrix."""
        return self.x_TI @ self.weight_OI.T + self.bias_O

    @property
    def rows_OI(self) -> Tensor:
        """The matrix, or its first rows if it has too many."""
        return self.weight_OI[:N_MATRIX_ROWS]

    @cached_property
    def singular_R(self) -> Tensor:
        """The singular values of these rows, the largest first."""
        return singular_values(self.rows_OI)

    @cached_property
    def null_TI(self) -> Tensor:
        """The part of each vector that the matrix maps to 0."""
        return null_part(self.x_TI, self.weight_OI)


def book_projection(*, broken: bool) -> Projection:
    """The book's matrix, drawn as the book draws it, and its six vectors (chapter 3.4)."""
    weight_OI = torch.rand(3, 2, generator=torch.Generator().manual_seed(123)).T
    return Projection(BOOK_NAMES, BOOK, weight_OI.roll(1, 0) if broken else weight_OI, 0.0)


class ProjectionsWork(Work):
    """The tokens before and after the matrix, its singular values, and what is lost."""

    sites = RESIDUAL | {"attention"}
    controls: ProjectionsControls

    @cached_property
    def linear_and_rows(self) -> tuple[Linear, slice]:
        """The linear layer that has the matrix, and the rows that belong to the chosen head."""
        matrix, d_head = self.controls.matrix, self.config.d_head
        if matrix == "unembedding":
            return self.network.unembed, slice(None)
        if matrix == "feed-forward up":
            return self.up(self.controls.layer), slice(None)
        head = self.controls.head if matrix == "query" else self.config.key_head(self.controls.head)
        linear = getattr(self.block(self.controls.layer).attention, matrix)
        return cast("Linear", linear), slice(head * d_head, (head + 1) * d_head)

    @cached_property
    def linear_input(self) -> Tensor:
        """The input of that linear layer, (T, I), in the model's dtype."""
        if self.controls.matrix == "unembedding":
            return self.trace.hidden_TM
        is_mlp = self.controls.matrix == "feed-forward up"
        return (self.mlp_input if is_mlp else self.attention_input)(self.controls.layer)

    def linear_output(self) -> Tensor:
        """The output of that linear layer, (T, O): the chosen head's part of it."""
        if self.controls.matrix == "unembedding":
            return self.trace.logits(range(len(self.tokens)))
        linear, rows = self.linear_and_rows
        outputs: Tensor = linear(self.linear_input)
        return outputs[:, rows]

    @cached_property
    def projection(self) -> Projection:
        """The chosen matrix, with the vectors that it is applied to."""
        if self.controls.matrix == "the book's query":
            return book_projection(broken=self.controls.broken)
        linear, rows = self.linear_and_rows
        weight_OI = linear.weight[rows].float().cpu()
        bias_O = 0.0 if linear.bias is None else linear.bias[rows].float().cpu()
        if self.controls.broken:
            weight_OI = weight_OI.roll(1, 0)
        return Projection(self.token_labels, self.linear_input.float().cpu(), weight_OI, bias_O)

    @property
    def pair(self) -> tuple[int, int]:
        """The positions of the two chosen tokens."""
        last = len(self.projection.labels) - 1
        token, other_token = self.controls.token, self.controls.other_token
        return min(self.position(token), last), min(self.position(other_token), last)

    @property
    def matrix_label(self) -> str:
        """The name of the chosen matrix, with its layer and head if it has them."""
        matrix, layer, head = self.controls.matrix, self.controls.layer, self.controls.head
        if matrix in ("query", "key", "value"):
            return f"layer {layer}, head {head}: {matrix}"
        return f"layer {layer}: {matrix}" if matrix == "feed-forward up" else matrix

    def points(self, title: str, x_TX: Tensor) -> Points:
        """The first tokens in a plane."""
        (point_T2, axes), chosen = plane(x_TX[:N_POINTS]), self.pair
        points = [
            Point(name=label, group="chosen" if index in chosen else "others", x=x, y=y, selects={"token": index})
            for index, (label, (x, y)) in enumerate(zip(self.projection.labels, point_T2.tolist(), strict=False))
        ]
        return Points(
            title=f"{title}, ({x_TX.shape[0]} × {x_TX.shape[1]})", x_axis=axes[0], y_axis=axes[1], points=points
        )

    @panel
    def inputs(self) -> Points:
        """The tokens before the matrix, in the plane of their principal components."""
        return self.points("Vectors before the matrix", self.projection.x_TI)

    @panel
    def outputs(self) -> Points:
        """The tokens after the matrix, in the plane of their principal components."""
        return self.points(f"Vectors after the matrix, {self.matrix_label}", self.projection.y_TO)

    @panel
    def pair_facts(self) -> Facts:
        """Distance and cosine similarity of the two tokens, before and after the matrix."""
        token, other_token = self.pair
        labels, x_TI, y_TO = self.projection.labels, self.projection.x_TI, self.projection.y_TO
        before, after = (x_TI[token] - x_TI[other_token]).norm(), (y_TO[token] - y_TO[other_token]).norm()
        named = {
            "distance before": before.item(),
            "distance after": after.item(),
            "distance after / distance before": (after / before).item(),
            "cosine similarity before": F.cosine_similarity(x_TI[token], x_TI[other_token], dim=0).item(),
            "cosine similarity after": F.cosine_similarity(y_TO[token], y_TO[other_token], dim=0).item(),
        }
        return facts(f"{labels[token]} and {labels[other_token]}", named)

    @panel
    def distance_ratios(self) -> Heatmap:
        """For each two tokens, the distance after divided by the distance before."""
        labels, x_TI, y_TO = self.projection.labels[:N_POINTS], self.projection.x_TI, self.projection.y_TO
        ratio_TT = distances(y_TO[:N_POINTS]) / distances(x_TI[:N_POINTS])
        title = f"Distance after / distance before, {len(labels)} tokens"
        return signed(title, labels, labels, ratio_TT, selects=("token", "other_token"))

    @panel
    def singular_values(self) -> Curves:
        """The singular values of the matrix."""
        n_outputs, n_inputs = self.projection.weight_OI.shape
        n_rows, singular_R = len(self.projection.rows_OI), self.projection.singular_R
        rows = f": {n_rows} of {n_outputs} rows" * (n_rows < n_outputs)
        line = Line(name="singular value", x=list(map(float, range(1, len(singular_R) + 1))), y=numbers(singular_R))
        x_axis, title = "singular values, the largest first", f"Singular values of W, ({n_rows} × {n_inputs}){rows}"
        return Curves(title=title, x_axis=x_axis, lines=[line])

    @panel
    def lost(self) -> Bars:
        """For each token, the length of the part that the matrix maps to 0, divided by its length."""
        lost_T = self.projection.null_TI.norm(dim=1) / self.projection.x_TI.norm(dim=1).clamp_min(1e-12)
        return Bars(
            title="Fraction of each vector's length that W maps to 0",
            labels=self.projection.labels,
            values=numbers(lost_T),
            chosen=self.pair[0],
            probabilities=True,
            selects="token",
        )

    @panel
    def facts(self) -> Facts:
        """The shape, rank and singular values of the matrix."""
        n_outputs, n_inputs = self.projection.weight_OI.shape
        singular_R = self.projection.singular_R
        rank = int((singular_R > RANK_TOLERANCE * singular_R[0]).sum())
        named = {
            "features before": float(n_inputs),
            "features after": float(n_outputs),
            "rank": float(rank),
            "directions lost: features before − rank": float(n_inputs - rank),
            "largest singular value": singular_R[0].item(),
            "smallest singular value": singular_R[-1].item(),
            "first token, first feature after": self.projection.y_TO[0, 0].item(),
        }
        return facts(f"W, {self.matrix_label}", named)

    def checks(self) -> Iterator[Check]:
        """The outputs are those of the model's layer; rank, null space and distances are as for any such matrix."""
        projection, name = self.projection, "x Wᵀ + b is the output of the model's layer"
        if self.controls.matrix == "the book's query":
            yield does_not_apply(name, "the book's matrix is in no model")
        else:
            stored = Arithmetic(n_terms=projection.weight_OI.shape[1], dtype=self.dtype)
            scale_TO = product_scales(projection.x_TI, projection.weight_OI, projection.bias_O, self.dtype)
            yield equal(name, projection.y_TO, self.linear_output(), stored, scale_TO)
        yield from _shape_checks(projection)
        second_O, printed_O = book_projection(broken=self.controls.broken).y_TO[1], torch.tensor([0.4306, 1.4551])
        yield printed("the query of the second word is that in the book, (0.4306, 1.4551)", second_O, printed_O)


def _shape_checks(projection: Projection) -> Iterator[Check]:
    """What holds for every matrix: a bound on its rank, its null space, and a bound on the distances after it."""
    rows_OI, x_TI, largest_singular = projection.rows_OI, projection.x_TI, projection.singular_R[0]
    products = Arithmetic(n_terms=rows_OI.shape[1])
    rank = torch.linalg.matrix_rank((rows_OI.T @ rows_OI).double(), rtol=RANK_TOLERANCE**2, hermitian=True)
    yield at_most(min(projection.weight_OI.shape), float(rank), "the rank is at most the smaller of both widths")
    null_output = (projection.null_TI @ rows_OI.T).norm() / (x_TI.norm() * largest_singular)
    yield at_most(products.error(), null_output.item(), "the part of the vectors that is lost is mapped to 0")
    excess_TT = distances(projection.y_TO[:N_POINTS, : len(rows_OI)]) - largest_singular * distances(x_TI[:N_POINTS])
    error = products.error(product_scales(x_TI[:N_POINTS], rows_OI).norm(dim=1).max().item())
    yield at_most(error, excess_TT.max().item(), "no distance grows by more than the largest singular value")


EXPERIMENT = Lesson(
    number=5,
    title="Projections",
    posts=(MATHS, PART_8, chapter("3.4")),
    work=ProjectionsWork,
    break_description="give each output the row of W that belongs to the previous output",
    code_references=(
        "model/linear.py: Linear",
        "model/attention.py: Attention",
        "app/lessons/geometry.py: singular_values, null_part",
    ),
)
