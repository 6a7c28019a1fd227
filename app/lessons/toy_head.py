"""A head made by hand, with two features: is the token an article, and is it a noun."""

# shapes: T tokens, K = 2 features

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from pydantic.fields import FieldInfo
from torch import Tensor

from app.experiments.base import Work
from app.experiments.controls import Sliders
from app.experiments.panels import Chip, ChipRow, Chips, Facts, Point, Points, facts
from model import attention

ARTICLES, NOUNS = {"the", "a", "an"}, {"cat", "mat"}
WORD_KINDS = ("article", "noun")
TOY_LIMIT = 5.0  # of the numbers in a query or key

ToyNumber = Annotated[float, Field(ge=-TOY_LIMIT, le=TOY_LIMIT)]


def ToyVector(title: str, help: str) -> FieldInfo:
    """A query or key of the toy head: a control with one slider per kind of word."""
    return Sliders(TOY_LIMIT, title, help, names=WORD_KINDS)


def word_kinds(work: Work) -> list[int | None]:
    """The kind of each token, as an index of WORD_KINDS; None if it is neither."""
    words = [token.bytes.decode(errors="replace").strip().lower() for token in work.tokens.tokens]
    return [0 if word in ARTICLES else 1 if word in NOUNS else None for word in words]


def word_chips(labels: Sequence[str], kinds: Sequence[int | None]) -> Chips:
    """The tokens with their kinds."""
    chips = [
        Chip(text=label, about="other" if kind is None else WORD_KINDS[kind])
        for label, kind in zip(labels, kinds, strict=True)
    ]
    return Chips(title="Kinds of words", rows=[ChipRow(name="", chips=chips)])


@dataclass(frozen=True)
class ToyHead:
    """The queries and keys of articles and nouns, and whether later tokens are masked."""

    article_query: list[float]
    noun_query: list[float]
    article_key: list[float]
    noun_key: list[float]
    has_mask: bool

    def weights(self, kinds: Sequence[int | None]) -> Tensor:
        """The attention weights on tokens of these kinds, (T, T); tokens of neither kind have query 0 and key 0."""
        x_TK = torch.zeros(len(kinds), 2)  # (1, 0) is an article, (0, 1) a noun
        for position, kind in enumerate(kinds):
            if kind is not None:
                x_TK[position, kind] = 1
        w_q_KK = torch.tensor([self.article_query, self.noun_query]).T
        w_k_KK = torch.tensor([self.article_key, self.noun_key]).T
        score_TT = attention.scaled(attention.scores(x_TK @ w_q_KK.T, x_TK @ w_k_KK.T), 2)
        return attention.weights(attention.masked(score_TT) if self.has_mask else score_TT)

    def arrows(self) -> Points:
        """The queries and keys as arrows whose tips can be dragged."""
        article, noun = WORD_KINDS
        return Points(
            title="Queries and keys of the made-up head: drag the tips",
            x_axis="article",
            y_axis="noun",
            points=[
                Point(name=name, group=group, x=vector[0], y=vector[1])
                for group, name, vector in (
                    ("query", noun, self.noun_query),
                    ("query", article, self.article_query),
                    ("key", noun, self.noun_key),
                    ("key", article, self.article_key),
                )
            ],
            arrows=True,
            limit=TOY_LIMIT,
            draggable=["noun_query", "article_query", "noun_key", "article_key"],
        )


def weights_of_arrows(arrows: Points, kinds: Sequence[int | None], *, has_mask: bool) -> Iterator[list[float]]:
    """The softmax of the dot products of the arrows in a picture, row by row."""
    tips = {(point.group, point.name): (point.x, point.y) for point in arrows.points}

    def tip(group: str, kind: int | None) -> tuple[float, float]:
        return (0.0, 0.0) if kind is None else tips[group, WORD_KINDS[kind]]

    for i, query_kind in enumerate(kinds):
        x, y = tip("query", query_kind)
        keys = [tip("key", kind) for kind in (kinds[: i + 1] if has_mask else kinds)]
        powers = [math.exp((x * key_x + y * key_y) / math.sqrt(2)) for key_x, key_y in keys]
        yield [power / sum(powers) for power in powers] + [0.0] * (len(kinds) - len(powers))


def mean_weight(weight_TT: Tensor, from_T: Tensor, to_T: Tensor) -> float:
    """The mean total weight from tokens of one kind to those of another; NaN if there are none of the first kind."""
    return weight_TT[from_T][:, to_T].sum(-1).mean().item()


def uniform_weights(n_tokens: int, *, has_mask: bool = True) -> Tensor:
    """The weights of a head that attends equally to all tokens that the mask allows, (T, T)."""
    allowed_TT = torch.ones(n_tokens, n_tokens)
    allowed_TT = allowed_TT.tril() if has_mask else allowed_TT
    return allowed_TT / allowed_TT.sum(-1, keepdim=True)


def toy_facts(weight_TT: Tensor, kinds: Sequence[int | None], *, has_mask: bool) -> Facts:
    """The mean weight from nouns to articles and back, beside that of equal weights."""
    article_T, noun_T = (torch.tensor([kind == index for kind in kinds]) for index in range(2))
    uniform_TT = uniform_weights(len(kinds), has_mask=has_mask)
    return facts(
        "Mean weight between nouns and articles",
        {
            "from nouns to articles": mean_weight(weight_TT, noun_T, article_T),
            "from nouns to articles, if all weights were equal": mean_weight(uniform_TT, noun_T, article_T),
            "from articles to nouns": mean_weight(weight_TT, article_T, noun_T),
            "from articles to nouns, if all weights were equal": mean_weight(uniform_TT, article_T, noun_T),
        },
    )
