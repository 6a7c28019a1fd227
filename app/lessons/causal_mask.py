"""S19: a token may attend only to itself and to earlier tokens: two correct ways to mask, and two wrong ones."""

# shapes: H heads, T tokens, O, I outputs and inputs of a matrix

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from app.engine import Reading
from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal, largest, printed
from app.experiments.controls import Choice, Controls, HeadOf, Layer, ShortText, TokenOf
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Heatmap, numbers, probabilities, signed
from app.lessons.book import BOOK, BOOK_NAMES, VectorSource
from app.lessons.posts import PART_9, chapter
from app.schemas import Text
from model import attention
from model.edits import Edits, NoMask
from model.tokenizer import token_label

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

    source: Annotated[VectorSource, Choice("Scores", "those of the chosen head, or of the book's example")] = "model"
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


def masked_weights(scaled_HTT: Tensor, method: MaskingMethod, *, broken: bool = False) -> Tensor:
    """Weights from scaled scores, (H, T, T); if broken, nothing is masked by any method.

    >>> masked_weights(torch.zeros(1, 2, 2), "softmax, then mask").tolist()
    [[[0.5, 0.0], [0.5, 0.5]]]
    """
    if broken:
        return attention.weights(scaled_HTT)
    n = scaled_HTT.shape[-1]
    allowed_TT = attention.causal_mask(n, n, device=scaled_HTT.device)
    if method == "mask, then softmax":
        return attention.weights(attention.masked(scaled_HTT))
    if method == "set to 0, then softmax":
        return attention.weights(scaled_HTT * allowed_TT)
    weight_HTT = attention.weights(scaled_HTT) * allowed_TT
    return weight_HTT if method == "softmax, then mask" else weight_HTT / weight_HTT.sum(-1, keepdim=True)


class CausalMaskWork(Work):
    """The weights by the chosen method, and how far logits change when a token is replaced."""

    controls: CausalMaskControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text as it is and with the token replaced, with the mask and without."""
        yield {
            "text": self.under(*self.masking),
            "changed text": Reading(self.changed_ids, Edits(self.masking)),
            "unmasked text": self.under(NoMask()),
            "unmasked changed text": Reading(self.changed_ids, Edits((NoMask(),))),
        }

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The changed text once more; the cache would copy what comes before the change from the text."""
        yield {"changed text": Reading(self.changed_ids, Edits(self.masking), is_fresh=True)}

    @property
    def masking(self) -> tuple[NoMask, ...]:
        """What is done to the mask of the model: nothing, unless the lesson is broken."""
        return (NoMask(),) if self.controls.broken else ()

    @property
    def changed(self) -> int:
        """The position of the token that is replaced."""
        return self.position(self.controls.changed_token)

    @cached_property
    def replacement_id(self) -> int:
        """The id of the replacement.

        Raises:
            TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read the replacement.
        """
        if replacement := self.controls.replacement.strip():
            return self.model.tokens(f" {replacement}").ids[0]
        return (self.tokens.ids[self.changed] + 1) % self.config.n_vocab

    @property
    def changed_ids(self) -> tuple[int, ...]:
        """The text with the token replaced."""
        return self.with_token(self.changed, self.replacement_id)

    def logit_change(self, mask: Literal["", "unmasked "]) -> Tensor:
        """How far the logits after each token change at most when the token is replaced, (T,)."""
        rows = range(len(self.tokens))
        before_TV, after_TV = (self.traces[f"{mask}{text}"].logits(rows) for text in ("text", "changed text"))
        return (after_TV - before_TV).abs().amax(-1).cpu()

    @cached_property
    def scaled_1TT(self) -> Tensor:
        """The scaled scores of the chosen head or of the book, before masking."""
        if self.controls.source == "book":
            return book_scaled_scores()
        return self.trace.stage("scaled", self.controls.layer, [self.controls.head]).cpu()

    @cached_property
    def weight_TT(self) -> Tensor:
        """The weights by the chosen method."""
        return masked_weights(self.scaled_1TT, self.controls.method, broken=self.controls.broken)[0]

    @property
    def rows(self) -> list[str]:
        """The labels of the rows and columns of the weights."""
        return BOOK_NAMES if self.controls.source == "book" else self.token_labels

    @panel
    def weights(self) -> Heatmap:
        """The attention weights by the chosen method."""
        controls = self.controls
        is_book = controls.source == "book"
        place = "the book's example" if is_book else f"layer {controls.layer}, head {controls.head}"
        title = f"Attention weights, {place}: {'no mask' if controls.broken else controls.method}"
        return probabilities(title, self.rows, self.rows, self.weight_TT)

    @panel
    def difference(self) -> Heatmap:
        """The weights minus the correct ones."""
        difference_TT = self.weight_TT - attention.weights(attention.masked(self.scaled_1TT))[0]
        return signed("Difference to the correct weights", self.rows, self.rows, difference_TT, limit=0.1)

    @panel
    def row_sums(self) -> Bars:
        """The sum of each row of weights."""
        values = numbers(self.weight_TT.sum(-1))
        return Bars(title="Sum of each row of weights", labels=self.rows, values=values, probabilities=True)

    @panel
    def later_weights(self) -> Bars:
        """The weight that each row gives to later tokens."""
        values = numbers(self.weight_TT.triu(1).sum(-1))
        return Bars(title="Attention to later tokens", labels=self.rows, values=values, probabilities=True)

    @panel
    def changed_text(self) -> Chips:
        """The text with one token replaced."""
        replacement = self.model.tokenizer.label(self.replacement_id)
        chips = [Chip(text=token_label(token.bytes)) for token in self.tokens.tokens]
        chips[self.changed] = Chip(text=replacement, about="replaced")
        title = f"The text, {self.token_labels[self.changed]} replaced by {replacement}"
        return Chips(title=title, rows=[ChipRow(name="", chips=chips)])

    @panel
    def logit_changes(self) -> Bars:
        """The largest change of a logit after each token."""
        labels, values = self.token_labels, numbers(self.logit_change(""))
        title = f"Largest change of a logit after each token, if {labels[self.changed]} is replaced"
        return Bars(title=title, labels=labels, values=values, chosen=self.changed, selects="changed_token")

    @panel
    def unmasked_logit_changes(self) -> Bars:
        """The same if no layer has a mask."""
        title, values = "The same without a mask in any layer", numbers(self.logit_change("unmasked "))
        return Bars(title=title, labels=self.token_labels, values=values, chosen=self.changed)

    def checks(self) -> Iterator[Check]:
        """Both correct methods give the model's weights, and a later token changes nothing before it."""
        layer, head, broken = self.controls.layer, [self.controls.head], self.controls.broken
        scaled_1TT, trace_weight_1TT = (self.trace.stage(stage, layer, head) for stage in ("scaled", "weights"))
        before_1TT, after_1TT = (masked_weights(scaled_1TT, method, broken=broken) for method in MASKING_METHODS[:2])
        sums = Arithmetic(n_terms=len(self.tokens))
        name = "masking before the softmax, or after it and renormalising, is the same"
        yield equal(name, before_1TT, after_1TT, sums, 1.0)
        yield equal("masking before the softmax gives the model's weights", before_1TT, trace_weight_1TT, sums, 1.0)
        yield at_most(0, largest(before_1TT.triu(1)), "every weight of a later token is 0")
        book_TT = masked_weights(book_scaled_scores(), MASKING_METHODS[1], broken=broken)[0]
        printed_TT = torch.zeros_like(book_TT)
        for row, values in enumerate(PRINTED_WEIGHTS):
            printed_TT[row, : len(values)] = torch.tensor(values)
        yield printed("the weights of the book's example are those in the book", book_TT, printed_TT)
        yield from self.change_checks()

    def change_checks(self) -> Iterator[Check]:
        """With the mask, logits before the replaced token stay the same; without it, they change."""
        names = "logits before the replaced token stay the same", "without a mask, they change"
        reason = "the first token is replaced, and no token comes before it" if not self.changed else ""
        if self.replacement_id == self.tokens.ids[self.changed]:
            reason = "the replacement is the same token"
        if reason:
            yield from (does_not_apply(name, reason) for name in names)
            return
        scale = largest(self.trace.logits(range(self.changed)))
        change, unmasked_change = (self.logit_change(mask)[: self.changed].max().item() for mask in ("", "unmasked "))
        yield at_most(self.whole_pass.error(scale), change, names[0])
        yield at_least(Arithmetic(dtype=self.dtype).error(), unmasked_change, names[1])


EXPERIMENT = Lesson(
    number=19,
    title="The causal mask",
    posts=(PART_9, chapter("3.5")),
    work=CausalMaskWork,
    break_description="compute every layer without a mask",
    code_references=("model/attention.py: causal_mask, masked", "app/lessons/causal_mask.py: masked_weights"),
)
