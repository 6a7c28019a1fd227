"""S23: what a layer's heads bring back is put side by side and projected; so each head adds a vector of its own."""

# shapes: H heads, T tokens, D features of a head, M features of a token, V tokens of the vocabulary

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from app.lessons.checks import Arithmetic, Check, equal, product_norms
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, matrix, numbers
from app.lessons.posts import PART_12, chapter
from app.schemas import Index


class OutputProjectionRequest(LessonRequest):
    """A layer, a token, and a head to switch off."""

    layer: Index = Field(0, title="Layer")
    query: Index | None = Field(
        None,
        title="Token",
        description="whose vectors are shown; the last if left out",
        json_schema_extra={"kind": "token"},
    )
    off: Index | None = Field(
        None,
        title="Head switched off",
        description="what it adds is left out; none if left empty",
        json_schema_extra={"kind": "head"},
    )
    plain: bool = Field(
        False, title="No projection", description="what the heads bring is added as it is, side by side"
    )


class OutputProjectionResult(LessonResult):
    """What each head adds to the residual stream at the chosen token."""

    lengths: Bars = Field(description="of what each head adds, and of the bias where there is one")
    along: Bars = Field(
        description="of each head's vector, how much goes along the layer's whole output; their sum is its length"
    )
    cosines: Heatmap = Field(description="between what two heads add")
    facts: Facts


def head_parts(reading: Reading, layer: int, *, plain: bool = False, broken: bool = False) -> tuple[Tensor, Tensor]:
    """What each head adds, (H, T, M), and the bias that no head adds, (M,); float32. Broken, the last head's is 0."""
    config, output = reading.config, reading.block(layer).attention.output
    context_HTD = reading.trace.context(layer, range(config.n_heads)).cpu()
    weight_MX = torch.eye(config.d_model) if plain else output.weight.detach().float().cpu()
    weight_MHD = weight_MX.view(config.d_model, config.n_heads, config.d_head)
    bias_M = torch.zeros(config.d_model)
    if output.bias is not None and not plain:
        bias_M = output.bias.detach().float().cpu()
    part_HTM = torch.einsum("htd,mhd->htm", context_HTD, weight_MHD)
    if broken:
        part_HTM[-1] = 0
    return part_HTM, bias_M


def measured(reading: Reading, layer: int, off: int | None = None, *, plain: bool = False) -> tuple[Tensor, Tensor]:
    """What the layer's attention adds, (T, M), as a hook hears it, and the logits after the last token, (V,).

    A head that is `off` brings nothing back: its features are 0 before the projection, which `plain` leaves out.
    """
    captured, d_head = list[Tensor](), reading.config.d_head
    attended = reading.block(layer).attention

    def silence(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        joined_BTX = given[0].clone()
        if off is not None:
            joined_BTX[..., off * d_head : (off + 1) * d_head] = 0
        return (joined_BTX,)

    def let_through(_: nn.Module, given: tuple[Tensor, ...], projected_BTM: Tensor) -> Tensor:
        return given[0] if plain else projected_BTM

    def capture(_module: nn.Module, _given: Any, added_BTM: Tensor) -> None:
        captured.append(added_BTM[0].float().cpu())

    output = attended.output
    with (
        output.register_forward_pre_hook(silence),
        output.register_forward_hook(let_through),
        attended.register_forward_hook(capture),
    ):
        logits_V = reading.rerun()[-1]
    return captured[0], logits_V


def compute(reading: Reading, request: OutputProjectionRequest) -> OutputProjectionResult:
    """The heads' vectors at one token."""
    query = reading.position(request.query)
    part_HTM, bias_M = head_parts(reading, request.layer, plain=request.plain, broken=request.broken)
    part_HM = part_HTM[:, query]
    if request.off is not None:
        part_HM = part_HM.index_fill(0, torch.tensor([request.off]), 0.0)
    names = [f"head {head}" for head in range(len(part_HM))]
    whole_M = part_HM.sum(0) + bias_M
    all_XM = torch.cat((part_HM, bias_M[None]))
    unit_HM = part_HM / part_HM.norm(dim=1, keepdim=True).clamp_min(1e-12)
    before_V = reading.next_logits_V
    is_changed = request.plain or request.off is not None
    after_V = measured(reading, request.layer, request.off, plain=request.plain)[1] if is_changed else before_V
    return OutputProjectionResult(
        lengths=Bars(
            title=f"length of what is added at {reading.token_labels[query]}",
            labels=[*names, "bias"],
            values=numbers(all_XM.norm(dim=1)),
            chosen=request.off,
        ),
        along=Bars(
            title="of that, along the whole",
            labels=[*names, "bias"],
            values=numbers(all_XM @ whole_M / whole_M.norm().clamp_min(1e-12)),
            chosen=request.off,
        ),
        cosines=Heatmap(
            title="cosine between what two heads add",
            rows=names,
            columns=names,
            values=matrix(unit_HM @ unit_HM.T),
            scale="signed",
        ),
        facts=Facts(
            title="in numbers",
            names=["length of the whole", "sum of the lengths", "largest change of a logit after the text"],
            values=numbers(torch.stack((whole_M.norm(), all_XM.norm(dim=1).sum(), (after_V - before_V).abs().max()))),
        ),
    )


def checks(reading: Reading, request: OutputProjectionRequest) -> Iterator[Check]:
    """The heads' parts and the bias are what the layer adds."""
    part_HTM, bias_M = head_parts(reading, request.layer, broken=request.broken)
    whole_TM, _ = measured(reading, request.layer)
    config = reading.config
    context_TX = reading.trace.context(request.layer, range(config.n_heads)).transpose(0, 1).flatten(1).cpu()
    scale_TM = product_norms(context_TX, *parameters(reading.block(request.layer).attention.output))
    # scores are made of the same stored queries and keys on both sides, so they differ by float32's eps, if at all
    of_scores = reading.weight_scale(request.layer) * torch.finfo(torch.float32).eps / torch.finfo(reading.dtype).eps
    scale = max(1.0, of_scores) * scale_TM.max().item()
    arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=3)
    sum_TM = part_HTM.sum(0) + bias_M
    yield equal("heads and bias differ from what the layer adds by", sum_TM, whole_TM, arithmetic, scale)
    silent_TM, _ = measured(reading, request.layer, 0)
    yield equal(
        "with head 0 off the layer adds what it did, minus that head's part, to within",
        whole_TM - part_HTM[0],
        silent_TM,
        arithmetic,
        scale,
    )


LESSON = Lesson(
    system=23,
    title="What each head adds",
    posts=(PART_12, chapter("3.6")),
    request_type=OutputProjectionRequest,
    result_type=OutputProjectionResult,
    compute=compute,
    checks=checks,
    breaks="forget the last head in the sum",
    code=("model/attention.py: Attention.forward", "app/lessons/output_projection.py: head_parts"),
)
