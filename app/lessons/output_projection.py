"""S23: the output projection is a sum over heads: each head adds a vector of its own to the residual stream."""

# shapes: H heads, T tokens, D features of a head, M features of a token, X features of all heads,
#         V tokens of the vocabulary

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, equal, product_norms
from app.lessons.heads_off import run_with_heads_off
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import PART_12, chapter
from app.schemas import Index


class OutputProjectionRequest(LessonRequest):
    """A layer, a token, and a head to switch off."""

    layer: Index = Field(0, title="Layer")
    token: Index | None = Field(
        None,
        title="Token",
        description="shows what the heads add to this token",
        json_schema_extra={"kind": "token"},
    )
    head_off: Index | None = Field(
        None,
        title="Head switched off",
        description="leaves out what this head adds",
        json_schema_extra={"kind": "head"},
    )
    skip_projection: bool = Field(
        False, title="No projection", description="adds the context vectors of the heads side by side, as they are"
    )


class OutputProjectionResult(LessonResult):
    """What each head adds to the residual stream at the chosen token."""

    lengths: Bars = Field(description="of the vector that each head adds, and of the bias")
    components: Bars = Field(
        description="of each vector in the direction of the layer's whole output; they sum to its length"
    )
    cosines: Heatmap = Field(description="of the angle between the vectors of each pair of heads")
    facts: Facts


def head_contributions(
    reading: Reading, layer: int, *, skip_projection: bool = False, broken: bool = False
) -> tuple[Tensor, Tensor]:
    """The vector that each head adds, (H, T, M), and the bias, (M,); float32. If broken, the last head adds 0."""
    config, output = reading.config, reading.block(layer).attention.output
    context_HTD = reading.trace.context(layer, range(config.n_heads)).cpu()
    weight_MX = torch.eye(config.d_model) if skip_projection else output.weight.detach().float().cpu()
    weight_MHD = weight_MX.view(config.d_model, config.n_heads, config.d_head)
    bias_M = torch.zeros(config.d_model)
    if output.bias is not None and not skip_projection:
        bias_M = output.bias.detach().float().cpu()
    added_HTM = torch.einsum("htd,mhd->htm", context_HTD, weight_MHD)
    if broken:
        added_HTM[-1] = 0
    return added_HTM, bias_M


def compute(reading: Reading, request: OutputProjectionRequest) -> OutputProjectionResult:
    """The vectors that the heads of a layer add to one token."""
    token, skip_projection = reading.position(request.token), request.skip_projection
    added_HTM, bias_M = head_contributions(
        reading, request.layer, skip_projection=skip_projection, broken=request.broken
    )
    added_HM = added_HTM[:, token]
    if request.head_off is not None:
        added_HM = added_HM.index_fill(0, torch.tensor([request.head_off]), 0.0)
    names = [f"head {head}" for head in range(len(added_HM))]
    sum_M = added_HM.sum(0) + bias_M
    vectors = torch.cat((added_HM, bias_M[None]))
    unit_HM = added_HM / added_HM.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return OutputProjectionResult(
        lengths=Bars(
            title=f"Lengths of the vectors added to {reading.token_labels[token]}",
            labels=[*names, "bias"],
            values=numbers(vectors.norm(dim=1)),
            chosen=request.head_off,
        ),
        components=Bars(
            title="Their components in the direction of the sum",
            labels=[*names, "bias"],
            values=numbers(vectors @ sum_M / sum_M.norm().clamp_min(1e-12)),
            chosen=request.head_off,
        ),
        cosines=signed("Cosine similarity of the vectors of two heads", names, names, unit_HM @ unit_HM.T),
        facts=facts(
            "Lengths, and the effect on the prediction",
            {
                "length of the sum": sum_M.norm().item(),
                "sum of the lengths": vectors.norm(dim=1).sum().item(),
                "largest change of a logit after the text": _logit_change(reading, request),
            },
        ),
    )


@torch.inference_mode()
def _logit_change(reading: Reading, request: OutputProjectionRequest) -> float:
    """The largest change of a logit after the text without the head that is off, or without the projection."""
    heads_off = [] if request.head_off is None else [request.head_off]
    if not heads_off and not request.skip_projection:
        return 0.0
    run = run_with_heads_off(reading, request.layer, heads_off, skip_projection=request.skip_projection)
    logits_V: Tensor = reading.model.network.unembed(run.hidden_TM)[-1].float().cpu()
    return (logits_V - reading.next_logits_V).abs().max().item()


def checks(reading: Reading, request: OutputProjectionRequest) -> Iterator[Check]:
    """The vectors of the heads and the bias sum to what the layer adds."""
    added_HTM, bias_M = head_contributions(reading, request.layer, broken=request.broken)
    output_TM = run_with_heads_off(reading, request.layer).output_TM.float().cpu()
    config = reading.config
    context_TX = reading.trace.context(request.layer, range(config.n_heads)).transpose(0, 1).flatten(1).cpu()
    scale_TM = product_norms(context_TX, *parameters(reading.block(request.layer).attention.output))
    # Both sides compute scores from the same stored queries and keys, so these differ only by the eps of float32.
    score_scale = (
        reading.weight_error_scale(request.layer) * torch.finfo(torch.float32).eps / torch.finfo(reading.dtype).eps
    )
    scale = max(1.0, score_scale) * scale_TM.max().item()
    arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=3)
    sum_TM = added_HTM.sum(0) + bias_M
    yield equal("the vectors of all heads and the bias sum to the layer's output", sum_TM, output_TM, arithmetic, scale)
    without_TM = run_with_heads_off(reading, request.layer, [0]).output_TM.float().cpu()
    yield equal(
        "with head 0 switched off, the output is the sum without its vector",
        output_TM - added_HTM[0],
        without_TM,
        arithmetic,
        scale,
    )


LESSON = Lesson(
    number=23,
    title="What each head adds",
    posts=(PART_12, chapter("3.6")),
    request_type=OutputProjectionRequest,
    result_type=OutputProjectionResult,
    compute=compute,
    checks=checks,
    break_description="leave the last head out of the sum",
    code_references=("model/attention.py: Attention.forward", "app/lessons/output_projection.py: head_contributions"),
)
