"""S15: all tokens attend at once: one matrix of scores, one of weights, one product for all context vectors."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, different, equal, printed, product_scales
from app.experiments.controls import Choice, Controls, Slider, TokenOf
from app.experiments.panels import Bars, Heatmap, numbers, probabilities, signed
from app.lessons.book import BOOK, VectorSource, vectors
from app.lessons.posts import PART_7, chapter
from model.sites import ObservedSite

N_PRODUCTS = 48  # features; more bars are hard to distinguish


class AllAtOnceControls(Controls):
    """The vectors that attend to each other, the axis of softmax, and a cell of the scores."""

    source: Annotated[
        VectorSource, Choice("Vectors", "the model's embedded tokens, or the six of the book's example")
    ] = "model"
    axis: Annotated[
        Literal["rows", "columns"],
        Choice("Softmax over", "attention takes the softmax of each row, so that each row sums to 1"),
    ] = "rows"
    query: Annotated[int | None, TokenOf("Row", "shows the cell in this row feature by feature")] = None
    key: Annotated[int | None, TokenOf("Column", "the column of that cell")] = 0
    fraction_filled: Annotated[
        float,
        Slider(0, 1, 0.02, "Cells filled", "a loop fills the scores; one product computes all of them", playable=True),
    ] = 1.0


class AllAtOnceWork(Work):
    """Scores, weights, and the sums of the rows and columns of the weights."""

    sites = frozenset[ObservedSite]({"embedding"})
    controls: AllAtOnceControls

    @cached_property
    def labelled_vectors(self) -> tuple[Tensor, list[str]]:
        """The vectors, (T, M), and their labels."""
        return vectors(self, self.controls.source)

    def weight_matrix(self, x_TM: Tensor, axis: Literal["rows", "columns"]) -> Tensor:
        """The weights of all tokens, (T, T)."""
        return (x_TM @ x_TM.T).softmax(dim=0 if (axis == "columns") != self.controls.broken else 1)

    @cached_property
    def weight_TT(self) -> Tensor:
        """The weights over the chosen axis."""
        return self.weight_matrix(self.labelled_vectors[0], self.controls.axis)

    @panel
    def scores(self) -> Heatmap:
        """The dot products of all pairs, as far as the loop has come."""
        x_TM, labels = self.labelled_vectors
        n_cells = len(labels) ** 2
        n_filled = round(self.controls.fraction_filled * n_cells)
        empty = torch.arange(n_filled, n_cells)
        score_TT = (x_TM @ x_TM.T).flatten().index_fill(0, empty, torch.nan).view_as(self.weight_TT)
        title = f"Scores X Xᵀ, {n_filled:,} of {n_cells:,} dot products"
        return signed(title, labels, labels, score_TT, selects=("query", "key"))

    @panel
    def products(self) -> Bars:
        """What the first features of two tokens contribute to their score."""
        x_TM, labels = self.labelled_vectors
        last = len(labels) - 1
        query, key = (min(self.position(chosen), last) for chosen in (self.controls.query, self.controls.key))
        product_M, pair = x_TM[query] * x_TM[key], f"{labels[query]} and {labels[key]}"
        title = f"Products of the features of {pair}; their sum is the score {(x_TM[query] @ x_TM[key]).item():.4g}"
        features = list(map(str, range(min(N_PRODUCTS, len(product_M)))))
        return Bars(title=title, labels=features, values=numbers(product_M[:N_PRODUCTS]))

    @panel
    def weights(self) -> Heatmap:
        """The softmax of the scores."""
        labels = self.labelled_vectors[1]
        return probabilities("Attention weights", labels, labels, self.weight_TT)

    @panel
    def row_sums(self) -> Bars:
        """The sum of each row of weights: all that a token gives."""
        labels, sum_T = self.labelled_vectors[1], self.weight_TT.sum(1)
        return Bars(title="Sum of each row of weights", labels=labels, values=numbers(sum_T))

    @panel
    def column_sums(self) -> Bars:
        """The sum of each column of weights: all that a token receives."""
        labels, sum_T = self.labelled_vectors[1], self.weight_TT.sum(0)
        return Bars(title="Sum of each column of weights", labels=labels, values=numbers(sum_T))

    def checks(self) -> Iterator[Check]:
        """Scores are symmetric, weights are not; each row sums to 1; the book's numbers come out."""
        x_TM = self.labelled_vectors[0]
        score_TT, scale_TT = x_TM @ x_TM.T, product_scales(x_TM, x_TM)
        products = Arithmetic(n_terms=x_TM.shape[1])
        yield equal("the scores are symmetric", score_TT, score_TT.T, products, scale_TT)
        looped_TT = torch.stack([torch.stack([(a * b).sum() for b in x_TM[:16]]) for a in x_TM[:16]])
        name = "a loop over the pairs of the first 16 tokens gives the same scores"
        yield equal(name, looped_TT, score_TT[:16, :16], products, scale_TT[:16, :16])
        weight_TT = self.weight_matrix(x_TM, "rows")
        sums = Arithmetic(n_terms=len(weight_TT))
        yield equal("each row of weights sums to 1", weight_TT.sum(1), torch.ones(len(weight_TT)), sums)
        book_TT = self.weight_matrix(BOOK, "rows")
        printed_T = torch.tensor([0.2098, 0.2006, 0.1981, 0.1242, 0.1220, 0.1452])
        yield printed("the weights of the first word are those in the book", book_TT[0], printed_T)
        printed_M = torch.tensor([0.4421, 0.5931, 0.5790])
        yield printed("the context vector of the first word is that in the book", (book_TT @ BOOK)[0], printed_M)
        name = "the weights of the book's example are not symmetric"
        yield different(name, book_TT, book_TT.T, Arithmetic(n_terms=6))


EXPERIMENT = Lesson(
    number=15,
    title="All tokens at once",
    posts=(PART_7, chapter("3.3.2")),
    work=AllAtOnceWork,
    break_description="normalise over the wrong axis, so that columns sum to 1 and not rows",
    code_references=(
        "model/attention.py: scores, weights, context",
        "app/lessons/all_at_once.py: AllAtOnceWork.weight_matrix",
    ),
)
