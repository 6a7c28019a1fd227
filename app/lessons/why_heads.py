"""S24: why attention works: a head compares the query of one token with the keys of others, and does nothing else."""

# shapes: T tokens, H heads, L layers, D features of a head, P patterns, X queries and keys in a picture,
#         N pairs of positions, U different pairs of tokens

import math
from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from pydantic.config import JsonDict
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Facts, Heatmap, Point, Points, numbers, probabilities
from app.lessons.posts import PART_13, chapter
from app.lessons.toy_head import (
    TOY_LIMIT,
    WORD_KINDS,
    ToyHead,
    ToyVector,
    toy_facts,
    uniform_weights,
    weights_of_arrows,
    word_chips,
    word_kinds,
)
from app.schemas import Index
from model.heads import TEXT_PATTERNS, TextPattern, text_scores

N_PLANE_TOKENS = 16  # the labels of more queries and keys would hide one another
N_TOKEN_PAIRS = 8
MIN_RATIO = 1.5  # of a head's score to that of equal weights, for the pattern to be named
TOY_SLIDERS: JsonDict = {"kind": "sliders", "limit": TOY_LIMIT, "names": [*WORD_KINDS]}


class WhyHeadsRequest(LessonRequest):
    """The queries and keys of a made-up head, a head of the model, and a pattern."""

    noun_query: ToyVector = Field(
        [1.0, 1.0], title="Query of a noun", description="a column of W_q", json_schema_extra=TOY_SLIDERS
    )
    article_query: ToyVector = Field(
        [-1.0, 2.0], title="Query of an article", description="the other column of W_q", json_schema_extra=TOY_SLIDERS
    )
    noun_key: ToyVector = Field(
        [0.0, 3.0], title="Key of a noun", description="a column of W_k", json_schema_extra=TOY_SLIDERS
    )
    article_key: ToyVector = Field(
        [3.0, 0.0], title="Key of an article", description="the other column of W_k", json_schema_extra=TOY_SLIDERS
    )
    no_mask: bool = Field(
        False, title="No causal mask", description="lets the made-up head attend to later tokens, too"
    )
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    pattern: TextPattern = Field(
        "previous token", title="Pattern", description="measures this pattern in all heads of the model"
    )


class WhyHeadsResult(LessonResult):
    """The made-up head, a head of the model, and the patterns of all heads of the model."""

    word_kinds: Chips = Field(description="the kind of word that each token counts as")
    toy_arrows: Points = Field(description="queries and keys of the made-up head")
    toy_weights: Heatmap = Field(description="weights of the made-up head")
    toy_facts: Facts = Field(description="the mean weight from nouns to articles, and from articles to nouns")
    weights: Heatmap = Field(description="of the chosen head")
    head_plane: Points = Field(description="its first queries and keys, in the plane that retains most of their length")
    best_pairs: Bars = Field(description="pairs of tokens with the highest mean score")
    model_scores: Heatmap = Field(description="of every head of the model, for the chosen pattern")
    layer_scores: Heatmap = Field(description="of every head of the layer, for every pattern")
    head_patterns: Chips = Field(
        description="the strongest pattern of each head of the layer, if clearly stronger than with equal weights"
    )
    head_facts: Facts = Field(description="the scores of the chosen head, each beside that of equal weights")


def toy_head(request: WhyHeadsRequest) -> ToyHead:
    """The made-up head of a request."""
    return ToyHead(
        article_query=request.article_query,
        noun_query=request.noun_query,
        article_key=request.article_key,
        noun_key=request.noun_key,
        has_mask=not request.no_mask,
    )


def pattern_scores(weight_HTT: Tensor, ids: Sequence[int], *, broken: bool = False) -> Tensor:
    """The score of some heads for each of TEXT_PATTERNS, (H, P); if broken, of the next token, not the previous one."""
    score_HP = text_scores(weight_HTT, ids)
    if broken:
        score_HP[:, TEXT_PATTERNS.index("previous token")] = weight_HTT.diagonal(1, 1, 2).mean(-1)
    return score_HP


def model_pattern_scores(reading: Reading, *, broken: bool) -> Tensor:
    """The score of every head of the model for each of TEXT_PATTERNS, (L, H, P)."""
    heads = range(reading.config.n_heads)
    layers = (reading.trace.stage("weights", layer, heads).cpu() for layer in range(reading.config.n_layers))
    return torch.stack([pattern_scores(weight_HTT, reading.tokens.ids, broken=broken) for weight_HTT in layers])


def head_plane(reading: Reading, layer: int, head: int) -> Points:
    """The first queries and keys of a head, in the plane through 0 that retains most of their squared lengths.

    The mean key is subtracted from each key: that changes all scores of a query by the same number, and no weight.
    """
    q_TD, k_TD = (rows(layer, [head])[0].cpu()[:N_PLANE_TOKENS] for rows in (reading.trace.queries, reading.trace.keys))
    vector_XD = torch.cat((q_TD, k_TD - k_TD.mean(0)))
    _, length_D, axis_DD = torch.linalg.svd(vector_XD, full_matrices=False)
    point_X2 = vector_XD @ axis_DD[:2].T
    fraction_D = length_D.square() / length_D.square().sum().clamp_min(1e-12)
    names = [(group, label) for group in ("query", "key") for label in reading.token_labels[:N_PLANE_TOKENS]]
    return Points(
        title=f"Queries, and keys minus their mean: layer {layer}, head {head}, {len(q_TD)} tokens",
        x_axis=f"{fraction_D[0]:.0%} of all squared lengths",
        y_axis=f"{fraction_D[1]:.0%}",
        points=[
            Point(name=name, group=group, x=x, y=y)
            for (group, name), (x, y) in zip(names, point_X2.tolist(), strict=True)
        ],
    )


def best_pairs(reading: Reading, layer: int, head: int) -> Bars:
    """The pairs of tokens with the highest mean score over all their positions.

    The mean of its row is subtracted from each score.
    """
    score_TT = reading.trace.stage("scaled", layer, [head])[0].cpu()
    score_TT = score_TT - (score_TT * uniform_weights(len(score_TT))).sum(-1, keepdim=True)
    ids_T = torch.tensor(reading.tokens.ids)
    query_N, key_N = torch.ones_like(score_TT).tril().nonzero().T
    pair_N2 = torch.stack((ids_T[query_N], ids_T[key_N]), dim=1)
    pair_U2, index_N, count_U = torch.unique(pair_N2, dim=0, return_inverse=True, return_counts=True)
    mean_U = torch.zeros(len(pair_U2)).index_add(0, index_N, score_TT[query_N, key_N]) / count_U
    best = mean_U.topk(min(N_TOKEN_PAIRS, len(mean_U)))
    label = reading.model.tokenizer.label
    return Bars(
        title="Highest scores, query → key, minus the mean of the row",
        labels=[" → ".join(label(id) for id in pair_U2[index].tolist()) for index in best.indices.tolist()],
        values=numbers(best.values),
    )


def compute(reading: Reading, request: WhyHeadsRequest) -> WhyHeadsResult:
    """A made-up head on this text, a head of the model, and the patterns of all heads."""
    layer, head, labels, kinds = request.layer, request.head, reading.token_labels, word_kinds(reading)
    toy, score_LHP = toy_head(request), model_pattern_scores(reading, broken=request.broken)
    toy_TT = toy.weights(kinds)
    uniform_P = text_scores(uniform_weights(len(labels))[None], reading.tokens.ids)[0]
    heads = [f"head {index}" for index in range(reading.config.n_heads)]
    return WhyHeadsResult(
        word_kinds=word_chips(labels, kinds),
        toy_arrows=toy.arrows(),
        toy_weights=probabilities("Attention weights of the made-up head", labels, labels, toy_TT),
        toy_facts=toy_facts(toy_TT, kinds, has_mask=toy.has_mask),
        weights=probabilities(
            f"Attention weights, layer {layer}, head {head}",
            labels,
            labels,
            reading.trace.stage("weights", layer, [head])[0],
        ),
        head_plane=head_plane(reading, layer, head),
        best_pairs=best_pairs(reading, layer, head),
        model_scores=probabilities(
            f"Mean weight of all heads, {request.pattern} ({len(score_LHP)} layers × {len(heads)} heads)",
            [f"layer {index}" for index in range(len(score_LHP))],
            heads,
            score_LHP[..., TEXT_PATTERNS.index(request.pattern)],
            selects=("layer", "head"),
        ),
        layer_scores=probabilities(
            f"Mean weight for each pattern, layer {layer}", heads, TEXT_PATTERNS, score_LHP[layer], selects=("head", "")
        ),
        head_patterns=Chips(
            title=f"Strongest pattern of each head, layer {layer}",
            rows=[
                ChipRow(
                    name="",
                    chips=[
                        _pattern_chip(name, score_P, uniform_P)
                        for name, score_P in zip(heads, score_LHP[layer], strict=True)
                    ],
                )
            ],
        ),
        head_facts=_head_facts(f"Layer {layer}, head {head}", score_LHP[layer, head], uniform_P),
    )


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


def checks(reading: Reading, request: WhyHeadsRequest) -> Iterator[Check]:
    """A loop gives the scores of the patterns; the weights of the made-up head are a softmax of its arrows."""
    shown = compute(reading, request)
    weight_HTT = reading.trace.stage("weights", request.layer, range(reading.config.n_heads)).cpu()
    score_LHP = model_pattern_scores(reading, broken=request.broken)
    means = Arithmetic(n_terms=len(reading.tokens))
    for index, pattern in enumerate(TEXT_PATTERNS):
        loop_H = torch.tensor([score_by_loop(pattern, weight, reading.tokens.ids) for weight in weight_HTT.tolist()])
        score_H = score_LHP[request.layer, :, index]
        name = f"a loop over the weights gives the same scores of this layer: {pattern}"
        if loop_H.isnan().all() and score_H.isnan().all():
            yield does_not_apply(name, "this text has nothing to measure")
        else:
            yield equal(name, score_H, loop_H, means, 1.0)
    yield at_least(0, score_LHP.nan_to_num(0).min().item(), "no score of a head is below 0 (smallest score)")
    yield at_most(1 + means.error(), score_LHP.nan_to_num(0).max().item(), "none is above 1 (largest score)")
    toy_TT = torch.tensor(shown.toy_weights.values)
    arrows_TT = torch.tensor(
        list(weights_of_arrows(shown.toy_arrows, word_kinds(reading), has_mask=not request.no_mask))
    )
    name = "the weights of the made-up head are a softmax of its arrows' dot products"
    yield equal(name, toy_TT, arrows_TT, means, TOY_LIMIT**2)  # scores are at most 2 · 5² / √2 = 35
    for name, weight_TT in (("made-up head", toy_TT), ("heads of the layer", weight_HTT)):
        sums = weight_TT.sum(-1)
        yield equal(f"each row of weights sums to 1: {name}", sums, torch.ones_like(sums), means)


LESSON = Lesson(
    number=24,
    title="Heads are dumb",
    posts=(PART_13, chapter("3.4")),
    request_type=WhyHeadsRequest,
    result_type=WhyHeadsResult,
    compute=compute,
    checks=checks,
    break_description="count the next token instead of the previous one",
    code_references=("model/attention.py: scores", "model/heads.py: text_scores", "app/lessons/toy_head.py: ToyHead"),
)
