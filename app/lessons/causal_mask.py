"""S19: a token may attend only to itself and to earlier tokens: two correct ways to mask, and two wrong ones."""

# shapes: H heads, T queries, S keys, O, I outputs and inputs of a matrix, V tokens of the vocabulary

import math
from collections.abc import Generator, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from app.engine import Reading
from app.experiments.base import Lesson, PanelProgress, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal, largest, printed
from app.experiments.controls import Choice, Controls, HeadOf, Layer, ShortText, TokenOf
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Heatmap, numbers, probabilities, signed
from app.lessons.book import BOOK, BOOK_NAMES, VectorSource
from app.lessons.posts import PART_9, chapter
from app.schemas import Text
from model import attention
from model.edits import NO_EDITS, Edits, NoMask
from model.tokenizer import token_label
from model.trace import Trace

N_ROWS_AT_ONCE = 16  # whose logits are compared at a time, in some tens of milliseconds
N_UNMASKED = 128  # tokens read without a mask, which must be read in one pass
UNMASKED = Edits((NoMask(),))

MaskingMethod = Literal[
    "mask, then softmax", "softmax, then mask, then renormalise", "softmax, then mask", "set to 0, then softmax"
]
MASKING_METHODS: tuple[MaskingMethod, ...] = get_args(MaskingMethod)
PRINTED_WEIGHTS = (  # the rows of chapter 3.5, up to the diagonal
    (1.0,),
    (0.5517, 0.4483),
    (0.3800, 0.3097, 0.3103),
    (0.2758, 0.2460, 0.2462, 0.2319),
    (0.2175, 0.1983, 0.1984, 0.1888, 0.1971),
    (0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529),
)


class CausalMaskControls(Controls):
    """A head, a method to mask it, and a token to replace."""

    source: Annotated[VectorSource, Choice("Scores", "shows the chosen head, or the book's example")] = "model"
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    method: Annotated[MaskingMethod, Choice("Method", "masks the later tokens before or after the softmax")] = (
        "mask, then softmax"
    )
    changed_token: Annotated[int | None, TokenOf("Changed token", "replaces this token in the text")] = None
    replacement: Annotated[
        Text, ShortText("Replacement", "uses the first token of this text instead", max_length=100)
    ] = ""


def book_scaled_scores() -> Tensor:
    """The scaled scores of the book's example, (1, T, T); its weights are PyTorch's initial ones, from seed 789."""
    generator = torch.Generator().manual_seed(789)
    query_OI, key_OI = (
        nn.init.kaiming_uniform_(torch.empty(2, 3), a=math.sqrt(5), generator=generator) for _ in range(2)
    )
    return attention.scaled(attention.scores((BOOK @ query_OI.T)[None], (BOOK @ key_OI.T)[None]), 2)


def masked_weights(scaled_HTS: Tensor, method: MaskingMethod, *, broken: bool = False) -> Tensor:
    """Weights from scaled scores, (H, T, T); if broken, nothing is masked by any method."""
    if broken:
        return attention.weights(scaled_HTS)
    n = scaled_HTS.shape[-1]
    allowed_TS = attention.causal_mask(n, n, device=scaled_HTS.device)
    if method == "mask, then softmax":
        return attention.weights(attention.masked(scaled_HTS))
    if method == "set to 0, then softmax":
        return attention.weights(scaled_HTS * allowed_TS)
    weight_HTS = attention.weights(scaled_HTS) * allowed_TS
    return weight_HTS if method == "softmax, then mask" else weight_HTS / weight_HTS.sum(-1, keepdim=True)


class CausalMaskWork(Work):
    """The weights by the chosen method, and how far logits change when a token is replaced."""

    controls: CausalMaskControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text with a token replaced, and both texts without a mask in any layer."""
        texts = {"text": self.tokens.ids, "changed": self.changed_ids}
        unmasked = {f"unmasked {name}": Reading(ids[:N_UNMASKED], UNMASKED) for name, ids in texts.items()}
        yield {"changed": Reading(self.changed_ids), **unmasked}

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """Both texts read from their beginning, so that no row is the same only because it is kept."""
        edits, n = (UNMASKED, N_UNMASKED) if self.controls.broken else (NO_EDITS, None)
        texts = {"fresh text": self.tokens.ids, "fresh changed": self.changed_ids}
        yield {name: Reading(ids[:n], edits, is_fresh=True) for name, ids in texts.items()}

    @property
    def changed(self) -> int:
        """The position of the token that is replaced."""
        return self.position(self.controls.changed_token)

    @cached_property
    def replacement(self) -> int:
        """The id of the token that replaces it.

        Raises:
            TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read the replacement.
        """
        if self.controls.replacement.strip():
            return self.model.tokens(f" {self.controls.replacement.strip()}").ids[0]
        return (self.tokens.ids[self.changed] + 1) % self.config.n_vocab

    @property
    def changed_ids(self) -> tuple[int, ...]:
        """The ids of the text with the token replaced."""
        return self.with_token(self.changed, self.replacement)

    @cached_property
    def labelled_scores(self) -> tuple[Tensor, list[str]]:
        """Scaled scores before masking, (1, T, T), and the labels of their rows."""
        if self.controls.source == "book":
            return book_scaled_scores(), BOOK_NAMES
        return self.trace.stage("scaled", self.controls.layer, [self.controls.head]).cpu(), self.token_labels

    @cached_property
    def weight_TT(self) -> Tensor:
        """The weights by the chosen method."""
        return masked_weights(self.labelled_scores[0], self.controls.method, broken=self.controls.broken)[0]

    @panel
    def weights(self) -> Heatmap:
        """The weights by the chosen method."""
        controls, names = self.controls, self.labelled_scores[1]
        is_book = controls.source == "book"
        place = "the book's example" if is_book else f"layer {controls.layer}, head {controls.head}"
        title = f"Attention weights, {place}: {'no mask' if controls.broken else controls.method}"
        return probabilities(title, names, names, self.weight_TT)

    @panel
    def difference(self) -> Heatmap:
        """The weights minus the correct ones."""
        scaled_1TT, names = self.labelled_scores
        correct_TT = attention.weights(attention.masked(scaled_1TT))[0]
        return signed("Difference to the correct weights", names, names, self.weight_TT - correct_TT, limit=0.1)

    @panel
    def row_sums(self) -> Bars:
        """The sum of each row of weights."""
        names, sum_T = self.labelled_scores[1], self.weight_TT.sum(-1)
        return Bars(title="Sum of each row of weights", labels=names, values=numbers(sum_T), probabilities=True)

    @panel
    def later_weights(self) -> Bars:
        """The weight that each row gives to later tokens."""
        names, later_T = self.labelled_scores[1], self.weight_TT.triu(1).sum(-1)
        return Bars(title="Attention to later tokens", labels=names, values=numbers(later_T), probabilities=True)

    @panel
    def changed_text(self) -> Chips:
        """The text with one token replaced."""
        replacement = self.model.tokenizer.label(self.replacement)
        chips = [Chip(text=token_label(token.bytes)) for token in self.tokens.tokens]
        chips[self.changed] = Chip(text=replacement, about="replaced")
        title = f"The text, {self.token_labels[self.changed]} replaced by {replacement}"
        return Chips(title=title, rows=[ChipRow(name="", chips=chips)])

    def unmasked_changes(self) -> Generator[PanelProgress, None, Tensor]:
        """The largest change of a logit after each token without a mask; only of the first N_UNMASKED tokens."""
        return _largest_changes(self.traces["unmasked text"], self.traces["unmasked changed"])

    @panel
    def logit_changes(self) -> Generator[PanelProgress, None, Bars]:
        """The largest change of a logit after each token."""
        is_masked = not self.controls.broken
        changes = _largest_changes(self.trace, self.traces["changed"]) if is_masked else self.unmasked_changes()
        title = f"Largest change of a logit after each token, if {self.token_labels[self.changed]} is replaced"
        return self._change_bars(title, (yield from changes))

    @panel
    def unmasked_logit_changes(self) -> Generator[PanelProgress, None, Bars]:
        """The same if no layer has a mask."""
        shown = f", first {N_UNMASKED} tokens" if len(self.tokens) > N_UNMASKED else ""
        return self._change_bars(f"The same without a mask in any layer{shown}", (yield from self.unmasked_changes()))

    def _change_bars(self, title: str, change_T: Tensor) -> Bars:
        labels = self.token_labels[: len(change_T)]
        chosen = self.changed if self.changed < len(change_T) else None
        return Bars(title=title, labels=labels, values=numbers(change_T), chosen=chosen, selects="changed_token")

    def checks(self) -> Iterator[Check | PanelProgress]:
        """Both correct methods give the model's weights, and a later token changes nothing before it."""
        layer, heads, broken = self.controls.layer, [self.controls.head], self.controls.broken
        scaled_1TT = self.trace.stage("scaled", layer, heads)
        before_1TT, after_1TT = (masked_weights(scaled_1TT, method, broken=broken) for method in MASKING_METHODS[:2])
        sums = Arithmetic(n_terms=len(self.tokens))
        name = "masking before the softmax, or after it and renormalising, is the same"
        yield equal(name, before_1TT, after_1TT, sums, 1.0)
        trace_weight_1TT = self.trace.stage("weights", layer, heads)
        yield equal("masking before the softmax gives the model's weights", before_1TT, trace_weight_1TT, sums, 1.0)
        yield at_most(0, largest(before_1TT.triu(1)), "every weight of a later token is 0")
        book_TT = masked_weights(book_scaled_scores(), MASKING_METHODS[1], broken=broken)[0]
        printed_TT = torch.zeros_like(book_TT)
        for row, values in enumerate(PRINTED_WEIGHTS):
            printed_TT[row, : len(values)] = torch.tensor(values)
        yield printed("the weights of the book's example are those in the book", book_TT, printed_TT)
        yield from self._change_checks()

    def _change_checks(self) -> Iterator[Check | PanelProgress]:
        """With the mask, logits before the replaced token stay the same; without it, they change."""
        names = "logits before the replaced token stay the same", "without a mask, they change"
        reason = "" if self.changed else "the first token is replaced, and no token comes before it"
        if self.changed_ids == self.tokens.ids:
            reason = "the replacement is the same token"
        if reason:
            yield from (does_not_apply(name, reason) for name in names)
            return
        scale = largest(self.trace.logits(range(self.changed)))
        change_T = yield from _largest_changes(self.traces["fresh text"], self.traces["fresh changed"])
        yield at_most(self.whole_pass.error(scale), change_T[: self.changed].max().item(), names[0])
        if self.changed < N_UNMASKED:
            before = (yield from self.unmasked_changes())[: self.changed].max().item()
            yield at_least(Arithmetic(dtype=self.dtype).error(), before, names[1])
        else:
            yield does_not_apply(names[1], f"only {N_UNMASKED} tokens are read without a mask")


def _largest_changes(before: Trace, after: Trace) -> Generator[PanelProgress, None, Tensor]:
    """The largest change of a logit after each token of two texts of one length, (T,), a few rows at a time."""
    changes, n = list[Tensor](), before.n_tokens
    for first in range(0, n, N_ROWS_AT_ONCE):
        rows = range(first, min(first + N_ROWS_AT_ONCE, n))
        changes.append((after.logits(rows) - before.logits(rows)).abs().amax(-1).cpu())
        yield PanelProgress(rows.stop, n)
    return torch.cat(changes)


EXPERIMENT = Lesson(
    number=19,
    title="The causal mask",
    posts=(PART_9, chapter("3.5")),
    work=CausalMaskWork,
    break_description="compute every layer without a mask",
    code_references=("model/attention.py: causal_mask, masked", "app/lessons/causal_mask.py: masked_weights"),
)
