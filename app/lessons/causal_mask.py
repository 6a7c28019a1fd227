"""S19: a token may look back, never ahead; two right ways to do it, and two wrong ones."""

# shapes: B texts, H heads, G key heads, T queries, S keys, D features of a head, V tokens of the vocabulary

import math
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from app.lessons.book import BOOK, BOOK_NAMES, VectorSource
from app.lessons.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal, largest, printed
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Heatmap, matrix, numbers
from app.lessons.posts import PART_9, chapter
from app.schemas import Index, Text
from model import attention
from model.attention import AttentionFn, fused_attention, staged_attention
from model.tokenizer import token_label

Route = Literal["mask, then softmax", "softmax, then mask, then share anew", "softmax, then mask", "zero, then softmax"]
ROUTES: tuple[Route, ...] = get_args(Route)
PRINTED = (  # the rows of chapter 3.5, as far as a token may look
    (1.0,),
    (0.5517, 0.4483),
    (0.3800, 0.3097, 0.3103),
    (0.2758, 0.2460, 0.2462, 0.2319),
    (0.2175, 0.1983, 0.1984, 0.1888, 0.1971),
    (0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529),
)


class CausalMaskRequest(LessonRequest):
    """A head, a way to mask it, and a token to change."""

    source: VectorSource = Field("model", title="Scores", description="of the chosen head, or of the book's example")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    route: Route = Field("mask, then softmax", title="Way", description="what is done to the scores, in which order")
    changed: Index | None = Field(
        None,
        title="Changed token",
        description="another token is put in its place; the last if left out",
        json_schema_extra={"kind": "token"},
    )
    instead: Text = Field(
        "", title="Put in its place", description="the first token of this; any other one if empty", max_length=100
    )


class CausalMaskResult(LessonResult):
    """The weights by the chosen way, what they differ from the model's, and what a changed token changes."""

    weights: Heatmap
    difference: Heatmap = Field(description="the chosen way less the first one, which is the model's")
    sums: Bars = Field(description="of the rows of the chosen way")
    ahead: Bars = Field(description="of each row, what goes to later tokens")
    edited: Chips = Field(description="the text, with one token changed")
    moved: Bars = Field(description="the largest change of any logit after each token, when one token is changed")
    moved_unmasked: Bars = Field(description="the same where no layer masks")


def of_book() -> Tensor:
    """The scaled scores of the book's example, (1, T, T), by projections as PyTorch begins a layer, from seed 789."""
    generator = torch.Generator().manual_seed(789)
    query_OI, key_OI = (
        nn.init.kaiming_uniform_(torch.empty(2, 3), a=math.sqrt(5), generator=generator) for _ in range(2)
    )
    return attention.scaled(attention.scores((BOOK @ query_OI.T)[None], (BOOK @ key_OI.T)[None]), 2)


def head_scores(reading: Reading, request: CausalMaskRequest) -> tuple[Tensor, list[str]]:
    """Scaled scores before any mask, (1, T, T), and the names of their rows."""
    if request.source == "book":
        return of_book(), BOOK_NAMES
    return reading.trace.stage("scaled", request.layer, [request.head]).cpu(), reading.token_labels


def by_route(scaled_HTS: Tensor, route: Route, *, broken: bool = False) -> Tensor:
    """Weights from scaled scores, (H, T, T); broken, nothing is masked, whatever the way."""
    if broken:
        return attention.weights(scaled_HTS)
    n = scaled_HTS.shape[-1]
    seen_TS = attention.causal_mask(n, n, device=scaled_HTS.device)
    if route == "mask, then softmax":
        return attention.weights(attention.masked(scaled_HTS))
    if route == "zero, then softmax":
        return attention.weights(scaled_HTS * seen_TS)
    share_HTS = attention.weights(scaled_HTS) * seen_TS
    return share_HTS if route == "softmax, then mask" else share_HTS / share_HTS.sum(-1, keepdim=True)


def unmasked_attention(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
    """A Look without a mask: every query sees every key."""
    return staged_attention(q_BHTD, k_BGSD, v_BGSD, mask=lambda scaled_BHTS: scaled_BHTS)


def edited(reading: Reading, request: CausalMaskRequest) -> tuple[int, int]:
    """Which token is changed, and the id that is put in its place.

    Raises:
        UnreadableText, NothingHeld: when there is no token in what should be put there.
    """
    place = reading.position(request.changed)
    if request.instead.strip():
        return place, reading.model.tokens(f" {request.instead.strip()}").ids[0]
    return place, (reading.tokens.ids[place] + 1) % reading.config.n_vocab


@torch.inference_mode()
def moved_by(reading: Reading, place: int, id: int, attend: AttentionFn, *, exact: bool = False) -> Tensor:
    """How far the logits after each token move when one token becomes another: the largest of V changes, (T,).

    What has been read already is not read again with the usual look, unless it must be `exact`: two roads round apart.
    """
    network, ids_BT = reading.model.network, reading.ids_BT.repeat(2, 1)
    ids_BT[1, place] = id
    first = int(attend is fused_attention and not exact)
    hidden_BTM = network.hidden(ids_BT[first:], attention_fns=[attend] * network.config.n_layers)
    logits_BTV = network.unembed(hidden_BTM).float()
    before_TV = reading.trace.logits(range(len(reading.tokens))) if first else logits_BTV[0]
    moved_T: Tensor = (logits_BTV[-1] - before_TV).abs().amax(-1).cpu()
    return moved_T


def compute(reading: Reading, request: CausalMaskRequest) -> CausalMaskResult:
    """The chosen way beside the model's, and an experiment with the whole network."""
    changed, id = edited(reading, request)
    put = reading.model.tokenizer.label(id)
    scaled_1TT, names = head_scores(reading, request)
    weight_TT = by_route(scaled_1TT, request.route, broken=request.broken)[0]
    ours_TT = attention.weights(attention.masked(scaled_1TT))[0]
    token_labels = reading.token_labels
    where = "the book" if request.source == "book" else f"layer {request.layer}, head {request.head}"
    masked, unmasked = (
        moved_by(reading, changed, id, attend) for attend in (_attention_fn(request), unmasked_attention)
    )
    return CausalMaskResult(
        weights=Heatmap(
            title=f"{where}: {'no mask' if request.broken else request.route}",
            rows=names,
            columns=names,
            values=matrix(weight_TT),
            scale="probability",
        ),
        difference=Heatmap(
            title="less the weights by the first way",
            rows=names,
            columns=names,
            values=matrix(weight_TT - ours_TT),
            scale="signed",
            limit=0.1,
        ),
        sums=Bars(title="sum of each row", labels=names, values=numbers(weight_TT.sum(-1)), probabilities=True),
        ahead=Bars(
            title="weight on later tokens",
            labels=names,
            values=numbers(weight_TT.triu(1).sum(-1)),
            probabilities=True,
        ),
        edited=Chips(
            title=f"{token_labels[changed]} becomes {put}",
            rows=[
                ChipRow(
                    name="",
                    chips=[
                        Chip(text=put, about="changed")
                        if token.position == changed
                        else Chip(text=token_label(token.bytes))
                        for token in reading.tokens.tokens
                    ],
                )
            ],
        ),
        moved=Bars(
            title=f"change of the logits when {token_labels[changed]} changes",
            labels=token_labels,
            values=numbers(masked),
            chosen=changed,
            selects="changed",
        ),
        moved_unmasked=Bars(
            title="the same without a mask in any layer", labels=token_labels, values=numbers(unmasked), chosen=changed
        ),
    )


def _attention_fn(request: CausalMaskRequest) -> AttentionFn:
    return unmasked_attention if request.broken else fused_attention


def checks(reading: Reading, request: CausalMaskRequest) -> Iterator[Check]:
    """Both right ways are the model's; what comes later changes nothing before it."""
    scaled_1TT = reading.trace.stage("scaled", request.layer, [request.head])
    ours_1TT = reading.trace.stage("weights", request.layer, [request.head])
    first, second = (by_route(scaled_1TT, route, broken=request.broken) for route in ROUTES[:2])
    sums = Arithmetic(n_terms=len(reading.tokens))
    yield equal("the two right ways differ by", first, second, sums, 1.0)
    yield equal("the first way differs from the model by", first, ours_1TT, sums, 1.0)
    yield at_most(0, largest(first.triu(1)), "the largest weight on a later token is")
    book_TT = by_route(of_book(), ROUTES[1], broken=request.broken)[0]
    printed_TT = torch.zeros_like(book_TT)
    for row, values in enumerate(PRINTED):
        printed_TT[row, : len(values)] = torch.tensor(values)
    yield printed("the book's rows differ by", book_TT, printed_TT)
    changed, id = edited(reading, request)
    names = "logits before the changed token move by", "without a mask they move by"
    if not changed:
        yield from (does_not_apply(name, "the first token is changed, and there is none before it") for name in names)
        return
    if id == reading.tokens.ids[changed]:
        yield from (does_not_apply(name, "the same token is put in its own place") for name in names)
        return
    scale = largest(reading.trace.logits(range(changed)))
    before = moved_by(reading, changed, id, _attention_fn(request), exact=True)[:changed].max().item()
    yield at_most(reading.whole_pass.error(scale), before, names[0])
    unmasked = moved_by(reading, changed, id, unmasked_attention)[:changed].max().item()
    yield at_least(Arithmetic(dtype=reading.dtype).error(), unmasked, names[1])


LESSON = Lesson(
    system=19,
    title="The causal mask",
    posts=(PART_9, chapter("3.5")),
    request_type=CausalMaskRequest,
    result_type=CausalMaskResult,
    compute=compute,
    checks=checks,
    breaks="take the mask off in every layer",
    code=("model/attention.py: causal_mask, masked", "app/lessons/causal_mask.py: by_route"),
)
