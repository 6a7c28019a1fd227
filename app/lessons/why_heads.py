"""S24: why attention works: a head compares the query of one token with the keys of others, and does nothing else."""

# shapes: T tokens, H heads, L layers, D features of a head, P patterns, X queries and keys in a picture,
#         N pairs of positions, U different pairs of tokens

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal
from app.experiments.controls import Choice, Controls, HeadOf, Layer, Switch
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Facts, Heatmap, Point, Points, numbers, probabilities
from app.lessons.posts import PART_13, chapter
from app.lessons.toy_head import (
    TOY_LIMIT,
    ToyHead,
    ToyNumber,
    ToyVector,
    toy_facts,
    uniform_weights,
    weights_of_arrows,
    word_chips,
    word_kinds,
)
from model.heads import TEXT_PATTERNS, TextPattern, text_scores

N_PLANE_TOKENS = 16  # the labels of more queries and keys would hide one another
N_TOKEN_PAIRS = 8
MIN_RATIO = 1.5  # of a head's score to that of equal weights, for the pattern to be named


class WhyHeadsControls(Controls):
    """The queries and keys of a made-up head, a head of the model, and a pattern."""

    noun_query: Annotated[list[ToyNumber], ToyVector("Query of a noun", "a column of W_q")] = [1.0, 1.0]
    article_query: Annotated[list[ToyNumber], ToyVector("Query of an article", "the other column of W_q")] = [-1.0, 2.0]
    noun_key: Annotated[list[ToyNumber], ToyVector("Key of a noun", "a column of W_k")] = [0.0, 3.0]
    article_key: Annotated[list[ToyNumber], ToyVector("Key of an article", "the other column of W_k")] = [3.0, 0.0]
    no_mask: Annotated[bool, Switch("No causal mask", "lets the made-up head attend to later tokens, too")] = False
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    pattern: Annotated[TextPattern, Choice("Pattern", "measures this pattern in all heads of the model")] = (
        "previous token"
    )


def pattern_scores(weight_HTT: Tensor, ids: Sequence[int], *, broken: bool = False) -> Tensor:
    """The score of some heads for each of TEXT_PATTERNS, (H, P); if broken, of the next token, not the previous one."""
    score_HP = text_scores(weight_HTT, ids)
    if broken:
        score_HP[:, TEXT_PATTERNS.index("previous token")] = weight_HTT.diagonal(1, 1, 2).mean(-1)
    return score_HP


def score_by_loop(pattern: TextPattern, weight: Sequence[Sequence[float]], ids: Sequence[int]) -> float:
    """The score of a head for a pattern, computed weight by weight; NaN if the text has nothing to measure.

    >>> score_by_loop("previous token", [[1.0, 0.0], [0.25, 0.75]], [7, 8])
    0.25
    """
    weights = []
    for i, row in enumerate(weight):
        same_token = [row[j] for j in range(i) if ids[j] == ids[i]]
        if pattern == "previous token" and i > 0:
            weights.append(row[i - 1])
        elif pattern == "current token":
            weights.append(row[i])
        elif pattern == "first token" and i > 0:
            weights.append(row[0])
        elif pattern == "same token before" and same_token:
            weights.append(sum(same_token))
    return sum(weights) / len(weights) if weights else math.nan


class WhyHeadsWork(Work):
    """The made-up head, a head of the model, and the patterns of all heads of the model."""

    controls: WhyHeadsControls

    @cached_property
    def kinds(self) -> list[int | None]:
        """The kind of each token."""
        return word_kinds(self)

    @cached_property
    def toy(self) -> ToyHead:
        """The made-up head."""
        controls = self.controls
        return ToyHead(
            article_query=controls.article_query,
            noun_query=controls.noun_query,
            article_key=controls.article_key,
            noun_key=controls.noun_key,
            has_mask=not controls.no_mask,
        )

    @cached_property
    def score_LHP(self) -> Tensor:
        """The score of every head of the model for each of TEXT_PATTERNS."""
        heads, ids = range(self.config.n_heads), self.tokens.ids
        layers = (self.trace.stage("weights", layer, heads).cpu() for layer in range(self.config.n_layers))
        scores = (pattern_scores(weight_HTT, ids, broken=self.controls.broken) for weight_HTT in layers)
        return torch.stack([*scores])

    @cached_property
    def uniform_P(self) -> Tensor:
        """The scores of a head whose weights are equal."""
        return text_scores(uniform_weights(len(self.tokens))[None], self.tokens.ids)[0]

    @property
    def head_names(self) -> list[str]:
        """The heads of a layer."""
        return [f"head {head}" for head in range(self.config.n_heads)]

    @panel
    def word_kinds(self) -> Chips:
        """The kind of word that each token counts as."""
        return word_chips(self.token_labels, self.kinds)

    @panel
    def toy_arrows(self) -> Points:
        """Queries and keys of the made-up head."""
        return self.toy.arrows()

    @panel
    def toy_weights(self) -> Heatmap:
        """Weights of the made-up head."""
        labels, weight_TT = self.token_labels, self.toy.weights(self.kinds)
        return probabilities("Attention weights of the made-up head", labels, labels, weight_TT)

    @panel
    def toy_facts(self) -> Facts:
        """The mean weight from nouns to articles, and from articles to nouns."""
        return toy_facts(self.toy.weights(self.kinds), self.kinds, has_mask=self.toy.has_mask)

    @panel
    def weights(self) -> Heatmap:
        """The weights of the chosen head."""
        layer, head, labels = self.controls.layer, self.controls.head, self.token_labels
        weight_TT = self.trace.stage("weights", layer, [head])[0]
        return probabilities(f"Attention weights, layer {layer}, head {head}", labels, labels, weight_TT)

    @panel
    def head_plane(self) -> Points:
        """Its first queries and keys, in the plane through 0 that retains most of their squared lengths.

        The mean key is subtracted from each key: that changes all scores of a query by the same number, and no weight.
        """
        layer, head = self.controls.layer, self.controls.head
        q_TD, k_TD = (rows(layer, [head])[0].cpu()[:N_PLANE_TOKENS] for rows in (self.trace.queries, self.trace.keys))
        vector_XD = torch.cat((q_TD, k_TD - k_TD.mean(0)))
        _, length_D, axis_DD = torch.linalg.svd(vector_XD, full_matrices=False)
        fraction_D = length_D.square() / length_D.square().sum().clamp_min(1e-12)
        names = [(group, label) for group in ("query", "key") for label in self.token_labels[:N_PLANE_TOKENS]]
        points = zip(names, (vector_XD @ axis_DD[:2].T).tolist(), strict=True)
        return Points(
            title=f"Queries, and keys minus their mean: layer {layer}, head {head}, {len(q_TD)} tokens",
            x_axis=f"{fraction_D[0]:.0%} of all squared lengths",
            y_axis=f"{fraction_D[1]:.0%}",
            points=[Point(name=name, group=group, x=x, y=y) for (group, name), (x, y) in points],
        )

    @panel
    def best_pairs(self) -> Bars:
        """The pairs of tokens with the highest mean score over all their positions, minus the mean of the row."""
        score_TT = self.trace.stage("scaled", self.controls.layer, [self.controls.head])[0].cpu()
        score_TT = score_TT - (score_TT * uniform_weights(len(score_TT))).sum(-1, keepdim=True)
        ids_T = torch.tensor(self.tokens.ids)
        query_N, key_N = torch.ones_like(score_TT).tril().nonzero().T
        pair_N2 = torch.stack((ids_T[query_N], ids_T[key_N]), dim=1)
        pair_U2, index_N, count_U = torch.unique(pair_N2, dim=0, return_inverse=True, return_counts=True)
        mean_U = torch.zeros(len(pair_U2)).index_add(0, index_N, score_TT[query_N, key_N]) / count_U
        best = mean_U.topk(min(N_TOKEN_PAIRS, len(mean_U)))
        label = self.model.tokenizer.label
        labels = [" → ".join(label(id) for id in pair_U2[index].tolist()) for index in best.indices.tolist()]
        title = "Highest scores, query → key, minus the mean of the row"
        return Bars(title=title, labels=labels, values=numbers(best.values))

    @panel
    def model_scores(self) -> Heatmap:
        """The score of every head of the model, for the chosen pattern."""
        pattern, (n_layers, n_heads, _) = self.controls.pattern, self.score_LHP.shape
        title = f"Mean weight of all heads, {pattern} ({n_layers} layers × {n_heads} heads)"
        layers = [f"layer {layer}" for layer in range(n_layers)]
        score_LH = self.score_LHP[..., TEXT_PATTERNS.index(pattern)]
        return probabilities(title, layers, self.head_names, score_LH, selects=("layer", "head"))

    @panel
    def layer_scores(self) -> Heatmap:
        """The score of every head of the layer, for every pattern."""
        layer = self.controls.layer
        title = f"Mean weight for each pattern, layer {layer}"
        return probabilities(title, self.head_names, TEXT_PATTERNS, self.score_LHP[layer], selects=("head", ""))

    @panel
    def head_patterns(self) -> Chips:
        """The strongest pattern of each head of the layer, if clearly stronger than with equal weights."""
        layer = self.controls.layer
        scored = zip(self.head_names, self.score_LHP[layer], strict=True)
        chips = [_pattern_chip(name, score_P, self.uniform_P) for name, score_P in scored]
        return Chips(title=f"Strongest pattern of each head, layer {layer}", rows=[ChipRow(name="", chips=chips)])

    @panel
    def head_facts(self) -> Facts:
        """The scores of the chosen head, each beside that of equal weights."""
        layer, head = self.controls.layer, self.controls.head
        return _head_facts(f"Layer {layer}, head {head}", self.score_LHP[layer, head], self.uniform_P)

    def checks(self) -> Iterator[Check]:
        """A loop gives the scores of the patterns; the weights of the made-up head are a softmax of its arrows."""
        layer, ids, means = self.controls.layer, self.tokens.ids, Arithmetic(n_terms=len(self.tokens))
        weight_HTT = self.trace.stage("weights", layer, range(self.config.n_heads)).cpu()
        for index, pattern in enumerate(TEXT_PATTERNS):
            loop_H = torch.tensor([score_by_loop(pattern, weight, ids) for weight in weight_HTT.tolist()])
            score_H = self.score_LHP[layer, :, index]
            name = f"a loop over the weights gives the same scores of this layer: {pattern}"
            if loop_H.isnan().all() and score_H.isnan().all():
                yield does_not_apply(name, "this text has nothing to measure")
            else:
                yield equal(name, score_H, loop_H, means, 1.0)
        lowest, highest = (
            edge().item() for edge in (self.score_LHP.nan_to_num(0).min, self.score_LHP.nan_to_num(0).max)
        )
        yield at_least(0, lowest, "no score of a head is below 0 (smallest score)")
        yield at_most(1 + means.error(), highest, "none is above 1 (largest score)")
        toy_TT = self.toy.weights(self.kinds)
        rows = weights_of_arrows(self.toy.arrows(), self.kinds, has_mask=self.toy.has_mask)
        name = "the weights of the made-up head are a softmax of its arrows' dot products"
        # scores are at most 2 · 5² / √2 = 35
        yield equal(name, toy_TT, torch.tensor([*rows]), means, TOY_LIMIT**2)
        for name, weight_TT in (("made-up head", toy_TT), ("heads of the layer", weight_HTT)):
            sums = weight_TT.sum(-1)
            yield equal(f"each row of weights sums to 1: {name}", sums, torch.ones_like(sums), means)


def _pattern_chip(name: str, score_P: Tensor, uniform_P: Tensor) -> Chip:
    best = int(score_P.nan_to_num(-1).argmax())
    ratio = (score_P[best] / uniform_P[best]).item()
    pattern = TEXT_PATTERNS[best] if ratio >= MIN_RATIO else f"none; highest: {TEXT_PATTERNS[best]}"
    return Chip(text=name, about=f"{pattern}, {score_P[best]:.2f} = {ratio:.1f} × that of equal weights")


def _head_facts(title: str, score_P: Tensor, uniform_P: Tensor) -> Facts:
    lines = [
        "nothing to measure"
        if math.isnan(score)
        else f"{score:.4f}; with equal weights {uniform:.4f}; ratio {score / uniform:.2f}"
        for score, uniform in zip(score_P.tolist(), uniform_P.tolist(), strict=True)
    ]
    return Facts(title=title, names=[*TEXT_PATTERNS], values=[*lines])


EXPERIMENT = Lesson(
    number=24,
    title="Heads are dumb",
    posts=(PART_13, chapter("3.4")),
    work=WhyHeadsWork,
    break_description="count the next token instead of the previous one",
    code_references=("model/attention.py: scores", "model/heads.py: text_scores", "app/lessons/toy_head.py: ToyHead"),
)
