"""S01: a vector is a point and a direction; a dot product measures how far two vectors point the same way."""

# shapes: T tokens, M features of a token, D features of any two vectors

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.experiments.base import N_SAMPLES, Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_scales
from app.experiments.controls import Choice, Controls, Sliders, TokenOf
from app.experiments.panels import N_BARS, Bars, Facts, Heatmap, Point, Points, facts, numbers, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter

ARROW_LIMIT = 5.0
ARROW_AXES = ("across", "up")

ArrowCoordinate = Annotated[float, Field(ge=-ARROW_LIMIT, le=ARROW_LIMIT)]
PairMeasure = Literal["dot product", "cosine"]


class VectorsControls(Controls):
    """Two arrows to choose freely, two tokens of the text, and the measure that compares all pairs of tokens."""

    a: Annotated[list[ArrowCoordinate], Sliders(ARROW_LIMIT, "Arrow a", names=ARROW_AXES)] = [3.0, 1.0]
    b: Annotated[list[ArrowCoordinate], Sliders(ARROW_LIMIT, "Arrow b", names=ARROW_AXES)] = [1.0, 3.0]
    first_token: Annotated[int | None, TokenOf("First token", "is compared with the second token")] = 1
    second_token: Annotated[int | None, TokenOf("Second token", "is compared with the first token")] = 2
    measure: Annotated[PairMeasure, Choice("Measure", "compares every pair of tokens")] = "dot product"


def dot_terms(a_D: Tensor, b_D: Tensor, *, broken: bool = False) -> Tensor:
    """The terms of a dot product, (D,); broken: each feature is multiplied by the feature before it.

    >>> dot_terms(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 2.0])).tolist()
    [2.0, 0.0, 8.0]
    """
    return a_D * (b_D.roll(1) if broken else b_D)


class VectorsWork(Work):
    """The two arrows, the two tokens, and all pairs of tokens."""

    controls: VectorsControls

    @property
    def arrows_2D(self) -> Tensor:
        """The two arrows."""
        return torch.tensor([self.controls.a, self.controls.b])

    @property
    def chosen(self) -> list[int]:
        """The positions of the two tokens."""
        return [self.position(self.controls.first_token), self.position(self.controls.second_token)]

    def terms(self, pair_2D: Tensor) -> Tensor:
        """The terms of the dot product of two vectors, (D,)."""
        return dot_terms(pair_2D[0], pair_2D[1], broken=self.controls.broken)

    def vector_facts(self, title: str, pair_2D: Tensor) -> Facts:
        """The dot product, lengths and cosine of two vectors; the cosine is that after both are scaled to length 1."""
        first, second = pair_2D.norm(dim=1).tolist()
        named = {
            "dot product": self.terms(pair_2D).sum().item(),
            "length of the first": first,
            "length of the second": second,
            "cosine": self.terms(F.normalize(pair_2D, dim=1)).sum().item(),
        }
        return facts(title, named)

    def compared(self, measure: PairMeasure) -> Tensor:
        """The dot product or cosine of every pair of tokens, (T, T)."""
        x_TM = F.normalize(self.embeddings_TM, dim=1) if measure == "cosine" else self.embeddings_TM
        return x_TM @ (x_TM.roll(1, 1) if self.controls.broken else x_TM).T

    @panel
    def arrows(self) -> Points:
        """The two arrows; their tips can be dragged."""
        named = {"a": self.controls.a, "b": self.controls.b}
        return Points(
            title="Arrows a and b (drag their tips)",
            x_axis=ARROW_AXES[0],
            y_axis=ARROW_AXES[1],
            points=[Point(name=name, group=name, x=x, y=y) for name, (x, y) in named.items()],
            arrows=True,
            limit=ARROW_LIMIT,
            draggable=[*named],
        )

    @panel
    def arrow_products(self) -> Bars:
        """The terms of the arrows' dot product, one per coordinate."""
        values = numbers(self.terms(self.arrows_2D))
        return Bars(title="Terms of the dot product a · b", labels=[*ARROW_AXES], values=values)

    @panel
    def arrow_facts(self) -> Facts:
        """The dot product, lengths and cosine of the arrows."""
        return self.vector_facts("Arrows a and b", self.arrows_2D)

    @panel
    def token_products(self) -> Bars:
        """The first terms of the tokens' dot product, one per feature."""
        term_M = self.terms(self.embeddings_TM[self.chosen])
        values, (first, second) = numbers(term_M[:N_BARS]), (self.token_labels[position] for position in self.chosen)
        title = f"Terms of the dot product {first} · {second}, the first {len(values)} of {len(term_M)}"
        return Bars(title=title, labels=[str(feature) for feature in range(len(values))], values=values)

    @panel
    def token_facts(self) -> Facts:
        """The dot product, lengths and cosine of the two tokens."""
        first, second = (self.token_labels[position] for position in self.chosen)
        title = f"Tokens {first} and {second}, all {self.config.d_model} features"
        return self.vector_facts(title, self.embeddings_TM[self.chosen])

    @panel
    def pairs(self) -> Heatmap:
        """The measure of every pair of tokens."""
        measure, labels = self.controls.measure, self.token_labels
        title = f"{measure.capitalize()} of every pair of tokens"
        return signed(title, labels, labels, self.compared(measure), selects=("first_token", "second_token"))

    def checks(self) -> Iterator[Check]:
        """The table equals single dot products, no cosine is above 1, and the post's example comes out as printed."""
        samples_TM, arithmetic = self.embeddings_TM[:N_SAMPLES], Arithmetic(n_terms=self.config.d_model)
        looped_TT = torch.tensor([[dot_terms(a_M, b_M).sum() for b_M in samples_TM] for a_M in samples_TM])
        n, scales = len(samples_TM), product_scales(samples_TM, samples_TM)
        name = f"the table has the dot product of every pair of the first {N_SAMPLES} tokens"
        yield equal(name, looped_TT, self.compared("dot product")[:n, :n], arithmetic, scales)
        cosine_TT = self.compared("cosine")
        yield at_most(1 + arithmetic.error(), largest(cosine_TT), "no cosine is above 1 or below −1")
        own_cosine = cosine_TT.diagonal().min().item()
        yield at_least(1 - arithmetic.error(), own_cosine, "every token's cosine with itself is 1")
        product = self.terms(torch.tensor([[2.0, 3.0, 4.0], [1.0, 0.0, 2.0]])).sum().item()
        yield at_most(0, abs(product - 10), "(2, 3, 4) · (1, 0, 2) is 10")


EXPERIMENT = Lesson(
    number=1,
    title="Vectors and the dot product",
    posts=(MATHS, MATHS_ADDENDUM, chapter("3.3.1")),
    work=VectorsWork,
    break_description="multiply each feature by the feature before it",
    code_references=("model/attention.py: scores", "app/lessons/vectors.py: dot_terms"),
)
