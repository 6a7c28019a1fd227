"""S16: three learned projections: what a token looks for, what it is found by, and what it hands over."""

# shapes: B texts, L layers, H heads, G key heads, T tokens, S keys, D features of a head, M features of a token,
#         V tokens of the vocabulary

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.book import BOOK, BOOK_NAMES, VectorSource
from app.lessons.checks import Arithmetic, Check, equal, largest, printed
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Facts, Heatmap, Number, Point, Points, facts, numbers, probabilities, signed
from app.lessons.posts import PART_8, chapter
from app.schemas import Index
from model import attention
from model.attention import AttentionFn

N_HEADS_NAMED = 12
N_MOVED = 10

Shown = Literal["queries", "keys", "values", "context vectors"]


class SelfAttentionRequest(LessonRequest):
    """A head, and three tokens: a noun, what belongs to it, and a noun that this does not belong to."""

    source: VectorSource = Field("model", title="Vectors", description="of the chosen head, or of the book's example")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    shown: Shown = Field("queries", title="Show the", description="of every token")
    noun: Index | None = Field(
        2, title="Noun", description="the token that should look", json_schema_extra={"kind": "token"}
    )
    modifier: Index | None = Field(
        1, title="What belongs to it", description="the token it should look at", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        None, title="Another noun", description="that should not look there", json_schema_extra={"kind": "token"}
    )
    cut: bool = Field(
        False,
        title="Cut the edge",
        description="in this head the noun cannot see what belongs to it; the rest is read anew",
    )


class SelfAttentionResult(LessonResult):
    """The head step by step, the three tokens in all heads, and what the noun's look is worth."""

    vectors: Heatmap
    scores: Heatmap
    weights: Heatmap
    effects: Heatmap = Field(description="each weight times the length of what it brings into the residual stream")
    triple: Facts
    heads: Points = Field(
        description="of every head: the weight from the noun, and from the other noun, times positions"
    )
    ranked: Bars = Field(description="the heads that tell the two nouns apart best")
    moved: Bars = Field(description="the largest changes of a probability after the noun when the edge is cut")


@dataclass(frozen=True)
class Head:
    """One head at work. Rows are tokens."""

    names: list[str]
    vectors: dict[Shown, Tensor]  # (T, D) each
    scores_TT: Tensor
    weights_TT: Tensor
    effects_TT: Tensor


def of_model(reading: Reading, layer: int, head: int, *, broken: bool = False) -> Head:
    """The head as the model ran it, queries and keys with rotary positions if the model has them; broken, keys ask."""
    trace = reading.trace
    q_TD, k_TD, v_TD = (rows(layer, [head])[0].cpu() for rows in (trace.queries, trace.keys, trace.values))
    if broken:
        q_TD, k_TD = k_TD, q_TD
    score_TT = attention.scores(q_TD, k_TD)
    weight_TT = attention.weights(attention.masked(attention.scaled(score_TT, reading.config.d_head)))
    d = reading.config.d_head
    output_MD = reading.block(layer).attention.output.weight[:, head * d : (head + 1) * d].detach().float().cpu()
    brought_T = (v_TD @ output_MD.T).norm(dim=1)
    vectors: dict[Shown, Tensor] = {
        "queries": q_TD,
        "keys": k_TD,
        "values": v_TD,
        "context vectors": attention.context(weight_TT, v_TD),
    }
    return Head(reading.token_labels, vectors, score_TT, weight_TT, weight_TT * brought_T)


def of_book(*, broken: bool = False) -> Head:
    """The book's example (chapter 3.4): three projections from 3 features to 2, drawn at random; no mask yet."""
    generator = torch.Generator().manual_seed(123)
    q_TD, k_TD, v_TD = (BOOK @ torch.rand(3, 2, generator=generator) for _ in range(3))
    if broken:
        q_TD, k_TD = k_TD, q_TD
    score_TT = attention.scores(q_TD, k_TD)
    weight_TT = attention.weights(attention.scaled(score_TT, 2))
    names = BOOK_NAMES
    vectors: dict[Shown, Tensor] = {
        "queries": q_TD,
        "keys": k_TD,
        "values": v_TD,
        "context vectors": attention.context(weight_TT, v_TD),
    }
    return Head(names, vectors, score_TT, weight_TT, weight_TT * v_TD.norm(dim=1))


def edges(reading: Reading, edge: tuple[int, int], more: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The weights of two edges (from, to) in every head, (L, H) each, times the tokens that the row shares among."""
    found = []
    for query, key in (edge, more):
        rows, heads = range(query, query + 1), range(reading.config.n_heads)
        layers = [dict(reading.trace.stages(layer, heads, rows))["weights"] for layer in range(reading.config.n_layers)]
        found.append(torch.stack(layers)[:, :, 0, key].cpu() * (query + 1))
    return found[0], found[1]


def without(layer: int, head: int, query: int, key: int, n_layers: int) -> list[AttentionFn]:
    """How each layer looks when one edge of one head is cut; the others of the row share what it had."""

    def mask(scaled_BHTT: Tensor) -> Tensor:
        masked_BHTT = attention.masked(scaled_BHTT)
        masked_BHTT[:, head, query, key] = -math.inf
        return masked_BHTT

    attend = partial(attention.staged_attention, mask=mask)
    return [attend if one == layer else attention.fused_attention for one in range(n_layers)]


def _moved(reading: Reading, request: SelfAttentionRequest, noun: int, modifier: int) -> tuple[Tensor | None, str]:
    """The change of each token's probability, after the noun and after the text, (2, V); and what was cut.

    Where nothing is cut there is no change to speak of: 0 would say that a cut changes nothing.
    """
    if not request.cut:
        return None, "not cut yet"
    if modifier >= noun:
        return None, "a token sees none after it, and always itself: nothing can be cut"
    rows = [noun, len(reading.tokens) - 1]
    after_2V = reading.rerun(without(request.layer, request.head, noun, modifier, reading.config.n_layers))[rows]
    return after_2V.softmax(-1) - reading.trace.logits(rows).cpu().softmax(-1), "the edge is cut"


def _turned(reading: Reading, request: SelfAttentionRequest, noun: int, modifier: int) -> float:
    """How far the noun's context vector in this head moves when the edge is cut, in lengths of it."""
    head = of_model(reading, request.layer, request.head)
    rest_T = head.weights_TT[noun].clone()
    rest_T[modifier] = 0
    if modifier >= noun or rest_T.sum() == 0:
        return 0.0
    before_D = head.vectors["context vectors"][noun]
    after_D = rest_T / rest_T.sum() @ head.vectors["values"]
    return float((after_D - before_D).norm() / before_D.norm())


def compute(reading: Reading, request: SelfAttentionRequest) -> SelfAttentionResult:
    """One head's steps, three tokens in all heads, and the text read again without one look."""
    if request.source == "book":
        head = of_book(broken=request.broken)
    else:
        head = of_model(reading, request.layer, request.head, broken=request.broken)
    noun, modifier, other = (reading.position(place) for place in (request.noun, request.modifier, request.other))
    one_LH, two_LH = edges(reading, (noun, modifier), (other, modifier))
    weight_TT = reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    names, where = (
        reading.token_labels,
        "the book" if request.source == "book" else f"layer {request.layer}, head {request.head}",
    )
    best = (one_LH - two_LH).flatten().topk(min(N_HEADS_NAMED, one_LH.numel()))
    moved_2V, cut = _moved(reading, request, noun, modifier)
    if moved_2V is None:  # the tokens that are likeliest now stand where a change would
        likely_V = reading.trace.logits([noun])[0].cpu()
        top = likely_V.topk(min(N_MOVED, len(likely_V))).indices
        moved: list[Number] = [None] * len(top)
        moved_at_end: float | str = cut
    else:
        top = moved_2V[0].abs().topk(min(N_MOVED, moved_2V.shape[1])).indices
        moved = numbers(moved_2V[0][top])
        moved_at_end = moved_2V[1].abs().max().item()
    n_heads = reading.config.n_heads
    selects = None if request.source == "book" else ("noun", "modifier")
    return SelfAttentionResult(
        vectors=signed(
            f"{request.shown}, {where}",
            head.names,
            list(map(str, range(head.vectors[request.shown].shape[1]))),
            head.vectors[request.shown],
        ),
        scores=signed(f"scores q·k, {where}", head.names, head.names, head.scores_TT, selects=selects),
        weights=probabilities(f"weights, {where}", head.names, head.names, head.weights_TT, selects=selects),
        effects=signed("weight × length of what it brings", head.names, head.names, head.effects_TT),
        triple=facts(
            f"in layer {request.layer}, head {request.head}",
            {
                f"weight {names[noun]} → {names[modifier]}": weight_TT[noun, modifier].item(),
                f"weight {names[other]} → {names[modifier]}": weight_TT[other, modifier].item(),
                f"{names[noun]} → {names[modifier]}, times its row's {noun + 1} cells": one_LH[
                    request.layer, request.head
                ].item(),
                f"{names[other]} → {names[modifier]}, times its row's {other + 1} cells": two_LH[
                    request.layer, request.head
                ].item(),
                f"score {names[noun]} → {names[modifier]}": of_score(reading, request, noun, modifier),
                f"score {names[modifier]} → {names[noun]}": of_score(reading, request, modifier, noun),
                "heads of the model with more than an equal share there from the one, and less from the other": float(
                    ((one_LH > 1) & (two_LH < 1)).sum()
                ),
                f"with the edge cut, context vector of {names[noun]} moves by, in its lengths": _turned(
                    reading, request, noun, modifier
                ),
                "and a probability after the text by at most": moved_at_end,
            },
        ),
        heads=Points(
            title="every head: weight × cells of the row; 1 is what an equal share would be",
            x_axis=f"{names[noun]} → {names[modifier]}",
            y_axis=f"{names[other]} → {names[modifier]}",
            points=[
                Point(
                    name=f"{layer}.{number}",
                    group="chosen" if (layer, number) == (request.layer, request.head) else "a head",
                    x=one_LH[layer, number].item(),
                    y=two_LH[layer, number].item(),
                    selects={"layer": layer, "head": number},
                )
                for layer in range(len(one_LH))
                for number in range(n_heads)
            ],
        ),
        ranked=Bars(
            title="how much more the noun looks there than the other one does",
            labels=[f"layer {int(i) // n_heads}, head {int(i) % n_heads}" for i in best.indices],
            values=numbers(best.values),
        ),
        moved=Bars(
            title=f"change of probabilities after {names[noun]}: {cut}",
            labels=reading.ranked_labels(top),
            values=moved,
        ),
    )


def of_score(reading: Reading, request: SelfAttentionRequest, query: int, key: int) -> float:
    """q·k before any mask: it is there in both directions."""
    return reading.trace.stage("scores", request.layer, [request.head])[0, query, key].item()


@torch.inference_mode()
def projected(reading: Reading, layer: int, head: int, *, transposed: bool) -> tuple[Tensor, Tensor]:
    """Weights and context vectors of a head, (T, T) and (T, D), and worked out from what its layer is given."""
    block, config, network = reading.block(layer), reading.config, reading.model.network
    x_TM, _ = reading.capture(layer, block.attention)
    d, key_head = config.d_head, config.key_head(head)
    rotate = network.positions.rotation(torch.arange(len(reading.tokens), device=network.device))
    found = []
    for linear, number in (
        (block.attention.query, head),
        (block.attention.key, key_head),
        (block.attention.value, key_head),
    ):
        rows = slice(number * d, (number + 1) * d)
        bias_D = None if linear.bias is None else linear.bias[rows]
        found.append(F.linear(x_TM[None], linear.weight[rows], bias_D)[:, None])
    q_BHTD, k_BHTD = rotate(found[0]), rotate(found[1])
    score_TT = attention.scaled(attention.scores(q_BHTD, k_BHTD), d)[0, 0].float()
    weight_TT = attention.weights(attention.masked(score_TT.T if transposed else score_TT))
    return weight_TT.cpu(), attention.context(weight_TT, found[2][0, 0].float()).cpu()


def checks(reading: Reading, request: SelfAttentionRequest) -> Iterator[Check]:
    """From what the layer was given, its matrices lead to the head's weights and context; the book's numbers too."""
    weight_TT, context_TD = projected(reading, request.layer, request.head, transposed=request.broken)
    ours_TT = reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    ours_TD = reading.trace.context(request.layer, [request.head])[0].cpu()
    config, scale = reading.config, reading.weight_scale(request.layer)
    sums = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=4)
    yield equal("softmax(QKᵀ / √d), masked, differs from the model's weights by", weight_TT, ours_TT, sums, scale)
    value_scale = largest(of_model(reading, request.layer, request.head).vectors["values"])
    yield equal("A V differs from the head's context vectors by", context_TD, ours_TD, sums, scale * value_scale)
    noun, modifier = reading.position(request.noun), reading.position(request.modifier)
    one_LH, _ = edges(reading, (noun, modifier), (noun, modifier))
    theirs = ours_TT[noun, modifier][None] * (noun + 1)
    part = min(1.0, 4 * ours_TT[noun, modifier].item())  # an error in a score changes a weight in proportion to it
    name = "weight × cells of the row differs from the cell of the matrix by"
    yield equal(
        name,
        one_LH[request.layer, request.head][None],
        theirs,
        Arithmetic(n_terms=config.d_head),
        scale * part * (noun + 1),
    )
    book = of_book(broken=request.broken)
    for name, ours, values in (
        ("scores", book.scores_TT[1], [1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440]),
        ("weights", book.weights_TT[1], [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820]),
        ("context vector", book.vectors["context vectors"][1], [0.3061, 0.8210]),
    ):
        yield printed(f"the book's {name} for its second word differ by", ours, torch.tensor(values))


LESSON = Lesson(
    system=16,
    title="Queries, keys and values",
    posts=(PART_8, chapter("3.4")),
    request_type=SelfAttentionRequest,
    result_type=SelfAttentionResult,
    compute=compute,
    checks=checks,
    breaks="let the keys ask and the queries answer",
    code=("model/attention.py: Attention.forward", "model/attention.py: scores, scaled, masked, weights, context"),
)
