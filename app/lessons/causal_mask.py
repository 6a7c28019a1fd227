"""S19: a token may attend only to itself and to earlier tokens: two correct ways to mask, and two wrong ones."""

# shapes: B texts, H heads, G key heads, T queries, S keys, D features of a head, O, I outputs and inputs of a matrix,
#         M features of a token, V tokens of the vocabulary

import math
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from app.lessons.book import BOOK, BOOK_NAMES, VectorSource
from app.lessons.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal, largest, printed
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Heatmap, numbers, probabilities, signed
from app.lessons.posts import PART_9, chapter
from app.schemas import Index, Text
from model import attention
from model.attention import AttentionFn, fused_attention, staged_attention
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


class CausalMaskRequest(LessonRequest):
    """A head, a method to mask it, and a token to replace."""

    source: VectorSource = Field("model", title="Scores", description="shows the chosen head, or the book's example")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    method: MaskingMethod = Field(
        "mask, then softmax", title="Method", description="masks the later tokens before or after the softmax"
    )
    changed_token: Index | None = Field(
        None,
        title="Changed token",
        description="replaces this token in the text",
        json_schema_extra={"kind": "token"},
    )
    replacement: Text = Field(
        "", title="Replacement", description="uses the first token of this text instead", max_length=100
    )


class CausalMaskResult(LessonResult):
    """The weights by the chosen method, and how far logits change when a token is replaced."""

    weights: Heatmap
    difference: Heatmap = Field(description="the weights minus the correct ones")
    row_sums: Bars = Field(description="the sum of each row of weights")
    later_weights: Bars = Field(description="the weight that each row gives to later tokens")
    changed_text: Chips = Field(description="the text with one token replaced")
    logit_changes: Bars = Field(description="the largest change of a logit after each token")
    unmasked_logit_changes: Bars = Field(description="the same if no layer has a mask")


def book_scaled_scores() -> Tensor:
    """The scaled scores of the book's example, (1, T, T); its weights are PyTorch's initial ones, from seed 789."""
    generator = torch.Generator().manual_seed(789)
    query_OI, key_OI = (
        nn.init.kaiming_uniform_(torch.empty(2, 3), a=math.sqrt(5), generator=generator) for _ in range(2)
    )
    return attention.scaled(attention.scores((BOOK @ query_OI.T)[None], (BOOK @ key_OI.T)[None]), 2)


def scaled_scores(reading: Reading, request: CausalMaskRequest) -> tuple[Tensor, list[str]]:
    """Scaled scores before masking, (1, T, T), and the labels of their rows."""
    if request.source == "book":
        return book_scaled_scores(), BOOK_NAMES
    return reading.trace.stage("scaled", request.layer, [request.head]).cpu(), reading.token_labels


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


def unmasked_attention(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
    """Attention without a mask: every query attends to every key."""
    return staged_attention(q_BHTD, k_BGSD, v_BGSD, mask=lambda scaled_BHTS: scaled_BHTS)


def token_change(reading: Reading, request: CausalMaskRequest) -> tuple[int, int]:
    """The position of the token that is replaced, and the id of its replacement.

    Raises:
        TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read the replacement.
    """
    position = reading.position(request.changed_token)
    if request.replacement.strip():
        return position, reading.model.tokens(f" {request.replacement.strip()}").ids[0]
    return position, (reading.tokens.ids[position] + 1) % reading.config.n_vocab


@torch.inference_mode()
def largest_logit_changes(
    reading: Reading, position: int, id: int, attend: AttentionFn, *, exact: bool = False
) -> Tensor:
    """The largest change of a logit after each token when the token at a position is replaced by `id`, (T,).

    With fused attention, the logits before the change come from the trace, unless the result must be `exact`: then both
    texts are computed in one batch, because a batch of another shape may round differently.
    """
    network, ids_BT = reading.model.network, reading.ids_BT.repeat(2, 1)
    ids_BT[1, position] = id
    uses_trace = attend is fused_attention and not exact
    hidden_BTM = network.hidden(ids_BT[int(uses_trace) :], attention_fns=[attend] * network.config.n_layers)
    logits_BTV = network.unembed(hidden_BTM).float()
    before_TV = reading.trace.logits(range(len(reading.tokens))) if uses_trace else logits_BTV[0]
    change_T: Tensor = (logits_BTV[-1] - before_TV).abs().amax(-1).cpu()
    return change_T


def compute(reading: Reading, request: CausalMaskRequest) -> CausalMaskResult:
    """The weights by the chosen method, and the effect of a replaced token with and without the mask."""
    position, id = token_change(reading, request)
    scaled_1TT, names = scaled_scores(reading, request)
    weight_TT = masked_weights(scaled_1TT, request.method, broken=request.broken)[0]
    correct_TT = attention.weights(attention.masked(scaled_1TT))[0]
    labels = reading.token_labels
    place = "the book's example" if request.source == "book" else f"layer {request.layer}, head {request.head}"
    change_T, unmasked_change_T = (
        largest_logit_changes(reading, position, id, attend)
        for attend in (_chosen_attention(request), unmasked_attention)
    )
    return CausalMaskResult(
        weights=probabilities(
            f"Attention weights, {place}: {'no mask' if request.broken else request.method}", names, names, weight_TT
        ),
        difference=signed("Difference to the correct weights", names, names, weight_TT - correct_TT, limit=0.1),
        row_sums=Bars(
            title="Sum of each row of weights", labels=names, values=numbers(weight_TT.sum(-1)), probabilities=True
        ),
        later_weights=Bars(
            title="Attention to later tokens",
            labels=names,
            values=numbers(weight_TT.triu(1).sum(-1)),
            probabilities=True,
        ),
        changed_text=_changed_text(reading, position, id),
        logit_changes=Bars(
            title=f"Largest change of a logit after each token, if {labels[position]} is replaced",
            labels=labels,
            values=numbers(change_T),
            chosen=position,
            selects="changed_token",
        ),
        unmasked_logit_changes=Bars(
            title="The same without a mask in any layer",
            labels=labels,
            values=numbers(unmasked_change_T),
            chosen=position,
        ),
    )


def _changed_text(reading: Reading, position: int, id: int) -> Chips:
    """The text with one token replaced."""
    replacement = reading.model.tokenizer.label(id)
    chips = [Chip(text=token_label(token.bytes)) for token in reading.tokens.tokens]
    chips[position] = Chip(text=replacement, about="replaced")
    return Chips(
        title=f"The text, {reading.token_labels[position]} replaced by {replacement}",
        rows=[ChipRow(name="", chips=chips)],
    )


def _chosen_attention(request: CausalMaskRequest) -> AttentionFn:
    return unmasked_attention if request.broken else fused_attention


def checks(reading: Reading, request: CausalMaskRequest) -> Iterator[Check]:
    """Both correct methods give the model's weights, and a later token changes nothing before it."""
    scaled_1TT = reading.trace.stage("scaled", request.layer, [request.head])
    trace_weight_1TT = reading.trace.stage("weights", request.layer, [request.head])
    before_1TT, after_1TT = (
        masked_weights(scaled_1TT, method, broken=request.broken) for method in MASKING_METHODS[:2]
    )
    sums = Arithmetic(n_terms=len(reading.tokens))
    yield equal(
        "masking before the softmax, or after it and renormalising, is the same", before_1TT, after_1TT, sums, 1.0
    )
    yield equal("masking before the softmax gives the model's weights", before_1TT, trace_weight_1TT, sums, 1.0)
    yield at_most(0, largest(before_1TT.triu(1)), "every weight of a later token is 0")
    book_TT = masked_weights(book_scaled_scores(), MASKING_METHODS[1], broken=request.broken)[0]
    printed_TT = torch.zeros_like(book_TT)
    for row, values in enumerate(PRINTED_WEIGHTS):
        printed_TT[row, : len(values)] = torch.tensor(values)
    yield printed("the weights of the book's example are those in the book", book_TT, printed_TT)
    yield from _change_checks(reading, request)


def _change_checks(reading: Reading, request: CausalMaskRequest) -> Iterator[Check]:
    """With the mask, logits before the replaced token stay the same; without it, they change."""
    position, id = token_change(reading, request)
    names = "logits before the replaced token stay the same", "without a mask, they change"
    if not position:
        yield from (does_not_apply(name, "the first token is replaced, and no token comes before it") for name in names)
        return
    if id == reading.tokens.ids[position]:
        yield from (does_not_apply(name, "the replacement is the same token") for name in names)
        return
    scale = largest(reading.trace.logits(range(position)))
    change_T = largest_logit_changes(reading, position, id, _chosen_attention(request), exact=True)
    yield at_most(reading.whole_pass.error(scale), change_T[:position].max().item(), names[0])
    unmasked_change_T = largest_logit_changes(reading, position, id, unmasked_attention)
    yield at_least(Arithmetic(dtype=reading.dtype).error(), unmasked_change_T[:position].max().item(), names[1])


LESSON = Lesson(
    number=19,
    title="The causal mask",
    posts=(PART_9, chapter("3.5")),
    request_type=CausalMaskRequest,
    result_type=CausalMaskResult,
    compute=compute,
    checks=checks,
    break_description="compute every layer without a mask",
    code_references=("model/attention.py: causal_mask, masked", "app/lessons/causal_mask.py: masked_weights"),
)
