"""S16: three vectors per token: a query (what it looks for), a key (what it offers), a value (what it passes on)."""

# shapes: L layers, H heads, T tokens, D features of a head, V tokens of the vocabulary

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.book import VectorSource
from app.lessons.checks import Arithmetic, Check, equal, largest, printed
from app.lessons.head import (
    VectorKind,
    attention_without,
    head_of_book,
    head_of_model,
    recompute_head,
    relative_weights,
)
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Facts, Heatmap, Number, Point, Points, facts, numbers, probabilities, signed
from app.lessons.posts import PART_8, chapter
from app.schemas import Index

N_BEST_HEADS = 12
N_CHANGES = 10


class SelfAttentionRequest(LessonRequest):
    """A head, and three tokens: a noun, its modifier, and another noun, to which the modifier does not belong."""

    source: VectorSource = Field(
        "model", title="Vectors", description="those of the chosen head, or the book's example"
    )
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    vector_kind: VectorKind = Field("queries", title="Vectors shown", description="one row per token")
    noun: Index | None = Field(
        2, title="Noun", description="the token that should attend to the modifier", json_schema_extra={"kind": "token"}
    )
    modifier: Index | None = Field(
        1, title="Its modifier", description="the token that belongs to the noun", json_schema_extra={"kind": "token"}
    )
    other_noun: Index | None = Field(
        None,
        title="Another noun",
        description="it should not attend to the modifier",
        json_schema_extra={"kind": "token"},
    )
    cut: bool = Field(
        False,
        title="Cut the edge",
        description="in this head the noun cannot attend to its modifier; everything after is computed again",
    )


class SelfAttentionResult(LessonResult):
    """One head step by step, the three tokens in all heads, and what changes without one attention weight."""

    vectors: Heatmap
    scores: Heatmap
    weights: Heatmap
    contributions: Heatmap = Field(
        description="each weight times the length of the vector that it adds to the residual stream"
    )
    edge_facts: Facts
    heads: Points = Field(description="for every head: weight × row length from the noun, and from the other noun")
    best_heads: Bars = Field(description="the heads that best distinguish the two nouns")
    probability_changes: Bars = Field(
        description="the largest changes of next-token probabilities after the noun when the edge is cut"
    )


def _probability_changes(
    reading: Reading, request: SelfAttentionRequest, noun: int, modifier: int
) -> tuple[Tensor | None, str]:
    """The change of each token's probability, after the noun and after the text, (2, V); and whether the edge is cut.

    The change is None if nothing is cut: a 0 would claim that the cut changes nothing.
    """
    if not request.cut:
        return None, "not cut yet"
    if modifier >= noun:
        return None, "only an edge to an earlier token can be cut"
    rows = [noun, len(reading.tokens) - 1]
    attention_fns = attention_without(request.layer, request.head, noun, modifier, reading.config.n_layers)
    after_2V = reading.rerun(attention_fns)[rows]
    return after_2V.softmax(-1) - reading.trace.logits(rows).cpu().softmax(-1), "the edge is cut"


def _context_change(reading: Reading, request: SelfAttentionRequest, noun: int, modifier: int) -> float:
    """How far the noun's context vector in this head moves if the edge is cut, relative to its length."""
    head = head_of_model(reading, request.layer, request.head)
    weight_T = head.weights_TT[noun].clone()
    weight_T[modifier] = 0
    if modifier >= noun or weight_T.sum() == 0:
        return 0.0
    before_D = head.vectors["context vectors"][noun]
    after_D = weight_T / weight_T.sum() @ head.vectors["values"]
    return float((after_D - before_D).norm() / before_D.norm())


def compute(reading: Reading, request: SelfAttentionRequest) -> SelfAttentionResult:
    """One head's steps, three tokens in all heads, and the model's predictions without one attention weight."""
    if request.source == "book":
        head, head_name, selects = head_of_book(swap=request.broken), "the book's example", None
    else:
        head = head_of_model(reading, request.layer, request.head, swap=request.broken)
        head_name, selects = f"layer {request.layer}, head {request.head}", ("noun", "modifier")
    noun, modifier, other_noun = map(reading.position, (request.noun, request.modifier, request.other_noun))
    noun_LH, other_LH = (relative_weights(reading, query, modifier) for query in (noun, other_noun))
    changes, end_change = _change_bars(reading, request, noun, modifier)
    shown_TD = head.vectors[request.vector_kind]
    return SelfAttentionResult(
        vectors=signed(
            f"{request.vector_kind.capitalize()}, {head_name}",
            head.labels,
            list(map(str, range(shown_TD.shape[1]))),
            shown_TD,
        ),
        scores=signed(f"Scores q·k, {head_name}", head.labels, head.labels, head.scores_TT, selects=selects),
        weights=probabilities(
            f"Attention weights, {head_name}", head.labels, head.labels, head.weights_TT, selects=selects
        ),
        contributions=signed(
            f"Weight × length of its contribution, {head_name}", head.labels, head.labels, head.contributions_TT
        ),
        edge_facts=_edge_facts(reading, request, noun_LH, other_LH, end_change),
        heads=_head_points(reading, request, noun_LH, other_LH),
        best_heads=_best_heads(noun_LH - other_LH),
        probability_changes=changes,
    )


def _change_bars(reading: Reading, request: SelfAttentionRequest, noun: int, modifier: int) -> tuple[Bars, float | str]:
    """The largest changes of probabilities after the noun; and the largest one after the text, or why there is none."""
    changes_2V, state = _probability_changes(reading, request, noun, modifier)
    end_change: float | str
    if changes_2V is None:  # the most probable tokens, without a change
        logits_V = reading.trace.logits([noun])[0].cpu()
        top = logits_V.topk(min(N_CHANGES, len(logits_V))).indices
        changes: list[Number] = [None] * len(top)
        end_change = state
    else:
        top = changes_2V[0].abs().topk(min(N_CHANGES, changes_2V.shape[1])).indices
        changes = numbers(changes_2V[0][top])
        end_change = changes_2V[1].abs().max().item()
    title = f"Change of next-token probabilities after {reading.token_labels[noun]}: {state}"
    return Bars(title=title, labels=reading.ranked_labels(top), values=changes), end_change


def _edge_facts(
    reading: Reading, request: SelfAttentionRequest, noun_LH: Tensor, other_LH: Tensor, end_change: float | str
) -> Facts:
    """The weights and scores of the three tokens in the chosen head, and the effect of cutting the edge."""
    layer, head, labels = request.layer, request.head, reading.token_labels
    noun, modifier, other_noun = map(reading.position, (request.noun, request.modifier, request.other_noun))
    weight_TT, score_TT = (reading.trace.stage(stage, layer, [head])[0].cpu() for stage in ("weights", "scores"))
    noun_edge, other_edge = (f"{labels[query]} → {labels[modifier]}" for query in (noun, other_noun))
    return facts(
        f"Three tokens in layer {layer}, head {head}",
        {
            f"weight {noun_edge}": weight_TT[noun, modifier].item(),
            f"weight {other_edge}": weight_TT[other_noun, modifier].item(),
            f"weight × row length {noun + 1}, {noun_edge}": noun_LH[layer, head].item(),
            f"weight × row length {other_noun + 1}, {other_edge}": other_LH[layer, head].item(),
            f"score {noun_edge}": score_TT[noun, modifier].item(),
            f"score {labels[modifier]} → {labels[noun]}": score_TT[modifier, noun].item(),
            "heads with weight × row length above 1 from the noun and below 1 from the other noun": float(
                ((noun_LH > 1) & (other_LH < 1)).sum()
            ),
            f"relative change of the context vector of {labels[noun]} if the edge is cut": _context_change(
                reading, request, noun, modifier
            ),
            "largest change of a probability after the text": end_change,
        },
    )


def _head_points(reading: Reading, request: SelfAttentionRequest, noun_LH: Tensor, other_LH: Tensor) -> Points:
    """One point per head: weight × row length from the noun and from the other noun."""
    labels = reading.token_labels
    noun, modifier, other_noun = map(reading.position, (request.noun, request.modifier, request.other_noun))
    n_layers, n_heads = noun_LH.shape
    return Points(
        title="All heads: weight × row length; 1 means equal weights",
        x_axis=f"{labels[noun]} → {labels[modifier]}",
        y_axis=f"{labels[other_noun]} → {labels[modifier]}",
        points=[
            Point(
                name=f"{layer}.{head}",
                group="chosen head" if (layer, head) == (request.layer, request.head) else "head",
                x=noun_LH[layer, head].item(),
                y=other_LH[layer, head].item(),
                selects={"layer": layer, "head": head},
            )
            for layer in range(n_layers)
            for head in range(n_heads)
        ],
    )


def _best_heads(difference_LH: Tensor) -> Bars:
    """The heads with the largest difference between the noun and the other noun."""
    n_heads = difference_LH.shape[1]
    best = difference_LH.flatten().topk(min(N_BEST_HEADS, difference_LH.numel()))
    return Bars(
        title="Heads that distinguish the nouns: difference of weight × row length",
        labels=[f"layer {int(index) // n_heads}, head {int(index) % n_heads}" for index in best.indices],
        values=numbers(best.values),
    )


def checks(reading: Reading, request: SelfAttentionRequest) -> Iterator[Check]:
    """The layer's input and matrices give the head's weights and context vectors; the book's numbers come out."""
    weight_TT, context_TD = recompute_head(reading, request.layer, request.head, transpose=request.broken)
    trace_weight_TT = reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    trace_context_TD = reading.trace.context(request.layer, [request.head])[0].cpu()
    config, scale = reading.config, reading.weight_error_scale(request.layer)
    sums = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=4)
    yield equal("softmax(QKᵀ / √d), masked, gives the model's weights", weight_TT, trace_weight_TT, sums, scale)
    value_scale = largest(head_of_model(reading, request.layer, request.head).vectors["values"])
    yield equal("A V gives the head's context vectors", context_TD, trace_context_TD, sums, scale * value_scale)
    noun, modifier = reading.position(request.noun), reading.position(request.modifier)
    relative_LH = relative_weights(reading, noun, modifier)
    expected = trace_weight_TT[noun, modifier][None] * (noun + 1)
    # An error in a score changes a weight in proportion to that weight.
    weight_error_scale = min(1.0, 4 * trace_weight_TT[noun, modifier].item())
    yield equal(
        "weight × row length is that of the cell in the matrix of weights",
        relative_LH[request.layer, request.head][None],
        expected,
        Arithmetic(n_terms=config.d_head),
        scale * weight_error_scale * (noun + 1),
    )
    book = head_of_book(swap=request.broken)
    for name, actual, values in (
        ("scores of the second word are those", book.scores_TT[1], [1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440]),
        ("weights of the second word are those", book.weights_TT[1], [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820]),
        ("context vector of the second word is that", book.vectors["context vectors"][1], [0.3061, 0.8210]),
    ):
        yield printed(f"the {name} in the book", actual, torch.tensor(values))


LESSON = Lesson(
    number=16,
    title="Queries, keys and values",
    posts=(PART_8, chapter("3.4")),
    request_type=SelfAttentionRequest,
    result_type=SelfAttentionResult,
    compute=compute,
    checks=checks,
    break_description="swap queries and keys",
    code_references=(
        "model/attention.py: Attention.forward",
        "model/attention.py: scores, scaled, masked, weights, context",
        "app/lessons/head.py: head_of_model",
    ),
)
