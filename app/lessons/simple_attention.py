"""S14: attention without trainable weights: every token takes most from the tokens that are similar to it."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, does_not_apply, equal, printed, product_scales
from app.experiments.controls import Choice, Controls, Slider, TokenOf
from app.experiments.panels import Bars, Heatmap, numbers, signed
from app.lessons.book import BOOK, VectorSource, vectors
from app.lessons.posts import PART_6, PART_6B, chapter
from model.sites import ObservedSite

Normalisation = Literal["softmax", "naive softmax", "sum"]


class SimpleAttentionControls(Controls):
    """The vectors, the token that attends, and how its scores become weights."""

    source: Annotated[
        VectorSource, Choice("Vectors", "the model's embedded tokens, or the six of the book's example")
    ] = "model"
    query: Annotated[int | None, TokenOf("Query", "the token that attends")] = None
    normalisation: Annotated[
        Normalisation,
        Choice("Normalise with", "turns scores into weights; “naive softmax” and “sum” can overflow or divide by 0"),
    ] = "softmax"
    fraction_summed: Annotated[
        float,
        Slider(0, 1, 0.05, "Tokens summed", "stops the weighted sum after a fraction of the text", playable=True),
    ] = 1.0


def normalise(score_T: Tensor, normalisation: Normalisation) -> Tensor:
    """The weights of one query, (T,), from its scores.

    >>> normalise(Tensor([1.0, 3.0]), "sum").tolist()
    [0.25, 0.75]
    """
    if normalisation == "sum":
        return score_T / score_T.sum()
    if normalisation == "naive softmax":
        return score_T.exp() / score_T.exp().sum()
    return score_T.softmax(-1)


class SimpleAttentionWork(Work):
    """The three steps for one query: scores, weights, context vector."""

    sites = frozenset[ObservedSite]({"embedding"})
    controls: SimpleAttentionControls

    @cached_property
    def labelled_vectors(self) -> tuple[Tensor, list[str]]:
        """The vectors, (T, M), and their labels."""
        return vectors(self, self.controls.source)

    @cached_property
    def query(self) -> int:
        """The position of the token that attends."""
        is_model = self.controls.source == "model"
        query = self.position(self.controls.query) if is_model else (self.controls.query or 0)
        return min(query, len(self.labelled_vectors[0]) - 1)

    def attend(self, x_TM: Tensor, query: int, normalisation: Normalisation) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and weights, (T,) each, and context vector, (M,), of one query."""
        score_T = x_TM @ x_TM[query]
        broken_T = torch.softmax(x_TM @ x_TM.T, dim=0)[query]
        weight_T = broken_T if self.controls.broken else normalise(score_T, normalisation)
        return score_T, weight_T, weight_T @ x_TM

    @cached_property
    def attended(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, weights and context vector of the chosen query."""
        return self.attend(self.labelled_vectors[0], self.query, self.controls.normalisation)

    def bars(self, title: str, values_T: Tensor) -> Bars:
        """One number per token."""
        labels = self.labelled_vectors[1]
        title = f"{title.format(labels[self.query])}"
        return Bars(title=title, labels=labels, values=numbers(values_T), chosen=self.query, selects="query")

    @panel
    def scores(self) -> Bars:
        """Dot products of the query with every token."""
        return self.bars("Scores of {}, x · x", self.attended[0])

    @panel
    def weights(self) -> Bars:
        """The scores as weights that sum to 1."""
        return self.bars("Attention weights of {}", self.attended[1])

    @panel
    def context(self) -> Heatmap:
        """The query's vector, and the weighted sum of the vectors added so far."""
        (x_TM, labels), weight_T = self.labelled_vectors, self.attended[1]
        n_summed = round(self.controls.fraction_summed * len(labels))
        shown = torch.stack((x_TM[self.query], weight_T[:n_summed] @ x_TM[:n_summed]))
        summed = f"{n_summed} of {len(labels)} tokens summed, {x_TM.shape[1]} features"
        title = f"Vector x and context vector z of {labels[self.query]}: {summed}"
        return signed(title, ["x", "z"], list(map(str, range(x_TM.shape[1]))), shown)

    def checks(self) -> Iterator[Check]:
        """Weights sum to 1; the context vector is the weighted sum of the vectors; the book's numbers come out."""
        x_TM, (_, weight_T, context_M) = self.labelled_vectors[0], self.attended
        names = "the weights sum to 1", "the context vector is the weighted sum, added token by token"
        if weight_T.isfinite().all():
            sums = Arithmetic(n_terms=len(weight_T))
            yield equal(names[0], weight_T.sum()[None], torch.ones(1), sums, max(1.0, weight_T.norm().item()))
            terms = (weight * x_M for weight, x_M in zip(weight_T, x_TM, strict=True))
            summed_M = sum(terms, torch.zeros_like(context_M))
            yield equal(names[1], summed_M, context_M, sums, product_scales(weight_T[None], x_TM.T)[0])
        else:
            reason = f"with {self.controls.normalisation} the weights are not finite here: a sum is too large, or 0"
            yield from (does_not_apply(name, reason) for name in names)
        _, weight_T, context_M = self.attend(BOOK, 1, "softmax")
        printed_T = torch.tensor([0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
        yield printed("the weights of the second word are those in the book", weight_T, printed_T)
        printed_M = torch.tensor([0.4419, 0.6515, 0.5683])
        yield printed("the context vector of the second word is that in the book", context_M, printed_M)


EXPERIMENT = Lesson(
    number=14,
    title="Attention without trainable weights",
    posts=(PART_6, PART_6B, chapter("3.3.1")),
    work=SimpleAttentionWork,
    break_description="normalise over the wrong axis, so that columns sum to 1 and not rows",
    code_references=("app/lessons/simple_attention.py: SimpleAttentionWork.attend",),
)
