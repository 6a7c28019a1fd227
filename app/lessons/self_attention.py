"""S16: three vectors per token: a query (what it looks for), a key (what it offers), a value (what it passes on)."""

# shapes: L layers, H heads, T tokens, D features of a head, V tokens of the vocabulary

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import RESIDUAL, Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, equal, largest, printed
from app.experiments.controls import Choice, Controls, HeadOf, Layer, Switch, TokenOf
from app.experiments.panels import Bars, Facts, Heatmap, Number, Point, Points, facts, numbers, probabilities, signed
from app.lessons.book import VectorSource
from app.lessons.head import Head, VectorKind, head_of_book, head_of_model, recompute_head, relative_weights
from app.lessons.posts import PART_8, chapter
from model.edits import Cut

N_BEST_HEADS = 12
N_CHANGES = 10


class SelfAttentionControls(Controls):
    """A head, and three tokens: a noun, its modifier, and another noun, to which the modifier does not belong."""

    source: Annotated[VectorSource, Choice("Vectors", "those of the chosen head, or the book's example")] = "model"
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    vector_kind: Annotated[VectorKind, Choice("Vectors shown", "one row per token")] = "queries"
    noun: Annotated[int | None, TokenOf("Noun", "the token that should attend to the modifier")] = 2
    modifier: Annotated[int | None, TokenOf("Its modifier", "the token that belongs to the noun")] = 1
    other_noun: Annotated[int | None, TokenOf("Another noun", "it should not attend to the modifier")] = None
    cut: Annotated[
        bool,
        Switch(
            "Cut the edge",
            "in this head the noun cannot attend to its modifier; everything after is computed again",
        ),
    ] = False


class SelfAttentionWork(Work):
    """One head step by step, the three tokens in all heads, and what changes without one attention weight."""

    sites = RESIDUAL
    controls: SelfAttentionControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text without the edge."""
        if self.cut_state == "the edge is cut":
            controls = self.controls
            yield {"cut": self.under(Cut(controls.layer, controls.head, self.noun, self.modifier))}

    @property
    def cut_state(self) -> str:
        """Whether the edge is cut, in words."""
        if not self.controls.cut:
            return "not cut yet"
        is_earlier = self.modifier < self.noun
        return "the edge is cut" if is_earlier else "only an edge to an earlier token can be cut"

    @property
    def noun(self) -> int:
        """The position of the noun."""
        return self.position(self.controls.noun)

    @property
    def modifier(self) -> int:
        """The position of its modifier."""
        return self.position(self.controls.modifier)

    @property
    def other_noun(self) -> int:
        """The position of the other noun."""
        return self.position(self.controls.other_noun)

    @cached_property
    def shown_head(self) -> Head:
        """The chosen head, or the book's."""
        controls = self.controls
        if controls.source == "book":
            return head_of_book(swap=controls.broken)
        return head_of_model(self, controls.layer, controls.head, swap=controls.broken)

    @property
    def head_name(self) -> str:
        """The shown head in words."""
        is_book = self.controls.source == "book"
        return "the book's example" if is_book else f"layer {self.controls.layer}, head {self.controls.head}"

    @property
    def selects(self) -> tuple[str, str] | None:
        """The controls that a click on a cell of the head sets."""
        return None if self.controls.source == "book" else ("noun", "modifier")

    @cached_property
    def noun_LH(self) -> Tensor:
        """Weight × row length from the noun to the modifier in every head, (L, H)."""
        return relative_weights(self, self.noun, self.modifier)

    @cached_property
    def other_LH(self) -> Tensor:
        """Weight × row length from the other noun to the modifier in every head, (L, H)."""
        return relative_weights(self, self.other_noun, self.modifier)

    @cached_property
    def changes_2V(self) -> Tensor | None:
        """The change of each token's probability, after the noun and after the text, (2, V), by the cut.

        None if nothing is cut: a 0 would claim that the cut changes nothing.
        """
        if "cut" not in self.traces:
            return None
        rows = [self.noun, len(self.tokens) - 1]
        after_2V, before_2V = (trace.logits(rows).cpu().softmax(-1) for trace in (self.traces["cut"], self.trace))
        return after_2V - before_2V

    @panel
    def vectors(self) -> Heatmap:
        """The chosen vectors of the head, one row per token."""
        kind, head = self.controls.vector_kind, self.shown_head
        shown_TD = head.vectors[kind]
        features = list(map(str, range(shown_TD.shape[1])))
        return signed(f"{kind.capitalize()}, {self.head_name}", head.labels, features, shown_TD)

    @panel
    def scores(self) -> Heatmap:
        """How well each query matches each key."""
        head = self.shown_head
        title = f"Scores q·k, {self.head_name}"
        return signed(title, head.labels, head.labels, head.scores_TT, selects=self.selects)

    @panel
    def weights(self) -> Heatmap:
        """The softmax of each row of scores."""
        head = self.shown_head
        title = f"Attention weights, {self.head_name}"
        return probabilities(title, head.labels, head.labels, head.weights_TT, selects=self.selects)

    @panel
    def contributions(self) -> Heatmap:
        """Each weight times the length of the vector that it adds to the residual stream."""
        head = self.shown_head
        title = f"Weight × length of its contribution, {self.head_name}"
        return signed(title, head.labels, head.labels, head.contributions_TT)

    @panel
    def edge_facts(self) -> Facts:
        """The weights and scores of the three tokens in the chosen head, and the effect of cutting the edge."""
        layer, head, labels = self.controls.layer, self.controls.head, self.token_labels
        noun, modifier, other_noun = self.noun, self.modifier, self.other_noun
        weight_TT, score_TT = (self.trace.stage(stage, layer, [head])[0].cpu() for stage in ("weights", "scores"))
        noun_edge, other_edge = (f"{labels[query]} → {labels[modifier]}" for query in (noun, other_noun))
        changes_2V = self.changes_2V
        n_telling = float(((self.noun_LH > 1) & (self.other_LH < 1)).sum())
        named = {
            f"weight {noun_edge}": weight_TT[noun, modifier].item(),
            f"weight {other_edge}": weight_TT[other_noun, modifier].item(),
            f"weight × row length {noun + 1}, {noun_edge}": self.noun_LH[layer, head].item(),
            f"weight × row length {other_noun + 1}, {other_edge}": self.other_LH[layer, head].item(),
            f"score {noun_edge}": score_TT[noun, modifier].item(),
            f"score {labels[modifier]} → {labels[noun]}": score_TT[modifier, noun].item(),
            "heads with weight × row length above 1 from the noun and below 1 from the other noun": n_telling,
            f"relative change of the context vector of {labels[noun]} if the edge is cut": self.context_change,
            "largest change of a probability after the text": self.cut_state
            if changes_2V is None
            else changes_2V[1].abs().max().item(),
        }
        return facts(f"Three tokens in layer {layer}, head {head}", named)

    @cached_property
    def context_change(self) -> float:
        """How far the noun's context vector in this head moves if the edge is cut, relative to its length."""
        head = head_of_model(self, self.controls.layer, self.controls.head)
        weight_T = head.weights_TT[self.noun].clone()
        weight_T[self.modifier] = 0
        if self.modifier >= self.noun or weight_T.sum() == 0:
            return 0.0
        before_D = head.vectors["context vectors"][self.noun]
        after_D = weight_T / weight_T.sum() @ head.vectors["values"]
        return float((after_D - before_D).norm() / before_D.norm())

    @panel
    def heads(self) -> Points:
        """For every head: weight × row length from the noun, and from the other noun."""
        labels, chosen = self.token_labels, (self.controls.layer, self.controls.head)
        noun_LH, other_LH = self.noun_LH, self.other_LH
        points = [
            Point(
                name=f"{layer}.{head}",
                group="chosen head" if (layer, head) == chosen else "head",
                x=noun_LH[layer, head].item(),
                y=other_LH[layer, head].item(),
                selects={"layer": layer, "head": head},
            )
            for layer, head in torch.cartesian_prod(*map(torch.arange, noun_LH.shape)).tolist()
        ]
        return Points(
            title="All heads: weight × row length; 1 means equal weights",
            x_axis=f"{labels[self.noun]} → {labels[self.modifier]}",
            y_axis=f"{labels[self.other_noun]} → {labels[self.modifier]}",
            points=points,
        )

    @panel
    def best_heads(self) -> Bars:
        """The heads that best distinguish the two nouns."""
        difference_LH = self.noun_LH - self.other_LH
        n_heads = difference_LH.shape[1]
        best = difference_LH.flatten().topk(min(N_BEST_HEADS, difference_LH.numel()))
        labels = [f"layer {index // n_heads}, head {index % n_heads}" for index in best.indices.tolist()]
        title = "Heads that distinguish the nouns: difference of weight × row length"
        return Bars(title=title, labels=labels, values=numbers(best.values))

    @panel
    def probability_changes(self) -> Bars:
        """The largest changes of next-token probabilities after the noun when the edge is cut."""
        changes_2V = self.changes_2V
        order_V = self.trace.logits([self.noun])[0].cpu() if changes_2V is None else changes_2V[0].abs()
        top = order_V.topk(min(N_CHANGES, len(order_V))).indices
        changes: list[Number] = [None] * len(top) if changes_2V is None else numbers(changes_2V[0][top])
        title = f"Change of next-token probabilities after {self.token_labels[self.noun]}: {self.cut_state}"
        return Bars(title=title, labels=self.ranked_labels(top), values=changes)

    def checks(self) -> Iterator[Check]:
        """The layer's input and matrices give the head's weights and context vectors; the book's numbers come out."""
        layer, head, config = self.controls.layer, self.controls.head, self.config
        weight_TT, context_TD = recompute_head(self, layer, head, transpose=self.controls.broken)
        trace_weight_TT = self.trace.stage("weights", layer, [head])[0].cpu()
        scale = self.weight_error_scale(layer)
        sums = Arithmetic(n_terms=config.d_model + config.d_head, dtype=self.dtype, n_roundings=4)
        yield equal("softmax(QKᵀ / √d), masked, gives the model's weights", weight_TT, trace_weight_TT, sums, scale)
        value_scale = largest(self.trace.values(layer, [head]))
        trace_context_TD = self.trace.context(layer, [head])[0].cpu()
        yield equal("A V gives the head's context vectors", context_TD, trace_context_TD, sums, scale * value_scale)
        edge = trace_weight_TT[self.noun, self.modifier]
        yield equal(
            "weight × row length is that of the cell in the matrix of weights",
            self.noun_LH[layer, head][None],
            edge[None] * (self.noun + 1),
            Arithmetic(n_terms=config.d_head),
            # an error in a score changes a weight in proportion to that weight
            scale * min(1.0, 4 * edge.item()) * (self.noun + 1),
        )
        book = head_of_book(swap=self.controls.broken)
        for name, actual, values in (
            ("scores of the second word are those", book.scores_TT[1], (1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.544)),
            ("weights of the second word are those", book.weights_TT[1], (0.15, 0.2264, 0.2199, 0.1311, 0.0906, 0.182)),
            ("context vector of the second word is that", book.vectors["context vectors"][1], (0.3061, 0.8210)),
        ):
            yield printed(f"the {name} in the book", actual, torch.tensor(values))


EXPERIMENT = Lesson(
    number=16,
    title="Queries, keys and values",
    posts=(PART_8, chapter("3.4")),
    work=SelfAttentionWork,
    break_description="swap queries and keys",
    code_references=(
        "model/attention.py: Attention.forward",
        "model/attention.py: scores, scaled, masked, weights, context",
        "app/lessons/head.py: head_of_model",
    ),
)
