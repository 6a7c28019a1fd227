"""S22: multi-head attention: one projection, split into heads; and what a layer loses without some of them."""

# shapes: T queries, S keys, M features of a token, H query heads, D features of a head, X = H·D features of all heads,
#         I slices of the input, V tokens of the vocabulary

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_norms, product_scales
from app.lessons.head_arrays import N_ARRAY_STEPS, array_corner, array_facts, array_steps, separate_heads
from app.lessons.heads_off import AttentionRun, run_with_heads_off
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Cube, Facts, Heatmap, facts, numbers, probabilities, signed
from app.lessons.posts import PART_12, chapter
from app.schemas import Index

HeadProjection = Literal["one matrix, split", "one module per head"]
MAX_HEATMAP_HEADS = 16
N_CHANGED_TOKENS = 5


class MultiHeadRequest(LessonRequest):
    """A layer, how its heads are computed, a step of that computation, and heads to switch off."""

    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head", description="shows all weights of this head")
    query: Index | None = Field(
        None,
        title="Query",
        description="shows the weights of this token in all heads",
        json_schema_extra={"kind": "token"},
    )
    projection: HeadProjection = Field(
        "one matrix, split",
        title="Heads from",
        description="projects the queries, keys and values of all heads at once, or those of each head by itself",
    )
    array_step: int = Field(
        3,
        title="Step",
        ge=0,
        le=N_ARRAY_STEPS - 1,
        description="shows the array after this step",
        json_schema_extra={"playable": True},
    )
    heads_off: list[Index] = Field(
        [],
        title="Heads switched off",
        max_length=256,
        description="sets the context vectors of these heads to 0",
        json_schema_extra={"kind": "heads"},
    )


class MultiHeadResult(LessonResult):
    """All heads of a layer, how their arrays are split and joined, and what changes without some heads."""

    query_weights: Heatmap = Field(description="the weights of the chosen query, one row per head")
    head_weights: Heatmap = Field(description="the weights of the chosen head")
    input_norms: Heatmap = Field(description="the norm of each head's weights for each slice of the input")
    projection_facts: Facts
    array: Cube = Field(description="a corner of the array after the chosen step")
    array_facts: Facts = Field(description="how the array is stored after the chosen step, and its shape in all steps")
    probability_changes: Bars = Field(description="of a few next tokens, without the heads that are switched off")
    output_changes: Bars = Field(description="the change of the layer's output relative to its length, for each token")
    effect: Facts


def input_slice_norms(reading: Reading, layer: int) -> tuple[Tensor, list[str], list[str]]:
    """The norm of each head's rows of W_q over each slice of the input, (H, I); the labels of rows and columns."""
    config = reading.config
    weight_XM = reading.block(layer).attention.query.weight.detach().float().cpu()
    weight_HDM = weight_XM.view(config.n_heads, config.d_head, config.d_model)
    slices = torch.arange(config.d_model).tensor_split(config.n_heads)
    norm_HI = torch.stack([weight_HDM[..., features].flatten(1).norm(dim=1) for features in slices], dim=1)
    blocks = torch.arange(len(weight_XM)).tensor_split(config.n_heads)
    rows, columns = ([f"{indices[0].item()}–{indices[-1].item()}" for indices in groups] for groups in (blocks, slices))
    return norm_HI, rows, columns


def compute(reading: Reading, request: MultiHeadRequest) -> MultiHeadResult:
    """The layer's heads, the array after the chosen step, and the network without some heads."""
    layer, query, labels = request.layer, reading.position(request.query), reading.token_labels
    x_TM, logits_V = reading.capture(layer, reading.block(layer).attention)[0], reading.next_logits_V
    if request.heads_off:
        logits_V = _last_logits(reading, run_with_heads_off(reading, layer, request.heads_off))
    steps = array_steps(reading, layer, x_TM, request.heads_off, broken=request.broken)
    split_HTS, separate_HTS = steps[5].values, separate_heads(reading, layer, x_TM).weight_HTS
    weight_HTS = (split_HTS if request.projection == "one matrix, split" else separate_HTS).float().cpu()
    norm_HI, rows, columns = input_slice_norms(reading, layer)
    shape = f"{reading.config.n_heads * reading.config.d_head} × {reading.config.d_model}"
    probability_changes, effect = _effect_panels(reading, request, logits_V)
    return MultiHeadResult(
        query_weights=probabilities(
            f"Attention weights of {labels[query]} in all heads of layer {layer}"
            f" ({reading.config.n_heads} × {len(labels)})",
            [f"head {head}" for head in range(reading.config.n_heads)][:MAX_HEATMAP_HEADS],
            labels,
            weight_HTS[:MAX_HEATMAP_HEADS, query],
            selects=("head", "query"),
        ),
        head_weights=probabilities(
            f"Attention weights, layer {layer}, head {request.head} ({len(labels)} × {len(labels)})",
            labels,
            labels,
            weight_HTS[request.head],
            selects=("query", ""),
        ),
        input_norms=signed(
            f"W_q of layer {layer} ({shape}): norm of each head's rows over slices of the input",
            rows[:MAX_HEATMAP_HEADS],
            columns,
            norm_HI[:MAX_HEATMAP_HEADS],
        ),
        projection_facts=_projection_facts(reading, request, (split_HTS - separate_HTS).abs().max().item()),
        array=array_corner(steps[request.array_step], reading),
        array_facts=array_facts(steps, request.array_step),
        probability_changes=probability_changes,
        output_changes=_output_changes(reading, request, x_TM, steps[-1].values),
        effect=effect,
    )


@torch.inference_mode()
def _last_logits(reading: Reading, run: AttentionRun) -> Tensor:
    logits_V: Tensor = reading.model.network.unembed(run.hidden_TM[-1]).float().cpu()
    return logits_V


def _projection_facts(reading: Reading, request: MultiHeadRequest, difference: float) -> Facts:
    config = reading.config
    is_split = request.projection == "one matrix, split"
    n_rows = config.n_heads * config.d_head
    matrices = f"1 of {n_rows}" if is_split else f"{config.n_heads} of {config.d_head}"
    return facts(
        request.projection.capitalize(),
        {
            "matrices for the queries": f"{matrices} × {config.d_model}",
            "query heads": config.n_heads,
            "key and value heads": config.n_kv_heads,
            "largest difference of a weight between both methods": difference,
        },
    )


def _output_changes(reading: Reading, request: MultiHeadRequest, x_TM: Tensor, output_TM: Tensor) -> Bars:
    """The change of the layer's output without the heads that are off, relative to its length."""
    full_TM = array_steps(reading, request.layer, x_TM, broken=request.broken)[-1].values.float().cpu()
    change_T = (output_TM.float().cpu() - full_TM).norm(dim=1) / full_TM.norm(dim=1).clamp_min(1e-12)
    return Bars(
        title=f"Relative change of the attention output of layer {request.layer}",
        labels=reading.token_labels,
        values=numbers(change_T),
        selects="query",
    )


def _effect_panels(reading: Reading, request: MultiHeadRequest, logits_V: Tensor) -> tuple[Bars, Facts]:
    """The next tokens whose probabilities change most; if no head is off, the most probable ones."""
    full_V = reading.next_logits_V
    before_V, after_V = full_V.softmax(-1), logits_V.softmax(-1)
    change_V = after_V - before_V
    top = (change_V.abs() if request.heads_off else before_V).topk(N_CHANGED_TOKENS).indices
    heads_off = ", ".join(map(str, sorted(set(request.heads_off)))) or "none"
    bars = Bars(
        title=f"Change of next-token probabilities, {'most changed' if request.heads_off else 'most probable'} first",
        labels=reading.ranked_labels(top),
        values=numbers(change_V[top]),
    )
    label = reading.model.tokenizer.label
    predictions = {
        f"most probable next token {when}": f"{label(int(p_V.argmax()))} ({p_V.max().item():.2%})"
        for when, p_V in (("with all heads", before_V), ("now", after_V))
    }
    change = {"largest change of a logit": (logits_V - full_V).abs().max().item()}
    return bars, facts(f"Layer {request.layer}, heads switched off: {heads_off}", {**predictions, **change})


@torch.inference_mode()
def checks(reading: Reading, request: MultiHeadRequest) -> Iterator[Check]:
    """Split heads equal separate heads and the model's heads, and every head uses the whole input."""
    config, layer_attention = reading.config, reading.block(request.layer).attention
    run = run_with_heads_off(reading, request.layer, request.heads_off)
    steps = array_steps(reading, request.layer, run.input_TM, request.heads_off, broken=request.broken)
    q_TX, context_HTD = steps[1].values, steps[6].values
    separate = separate_heads(reading, request.layer, run.input_TM)
    x_TM = run.input_TM.float().cpu()
    arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=4)
    weight_error_scale = reading.weight_error_scale(request.layer)
    context_scale = weight_error_scale * largest(separate.context_HTD)
    query_scale = product_scales(x_TM, *parameters(layer_attention.query), reading.dtype).max().item()
    for name, split, separate_values, scale in (
        ("queries", steps[3].values, separate.q_HTD, query_scale),
        ("weights", steps[5].values, separate.weight_HTS, weight_error_scale),
        ("context vectors", context_HTD, separate.context_HTD, context_scale),
    ):
        yield equal(f"split heads have the same {name} as separate heads", split, separate_values, arithmetic, scale)
    trace_context_HTD = reading.trace.context(request.layer, range(config.n_heads))
    yield equal("the context vectors are the model's", context_HTD, trace_context_HTD, arithmetic, context_scale)
    output_scale = product_norms(steps[8].values.float().cpu(), *parameters(layer_attention.output)).max().item()
    yield equal(
        "the output is that of the layer in the running network",
        steps[-1].values,
        run.output_TM,
        arithmetic,
        weight_error_scale * output_scale,
    )
    n_joined = trace_context_HTD.shape[0] * trace_context_HTD.shape[2]
    name = f"all heads together are as wide as the queries, {q_TX.shape[1]} (difference)"
    yield at_most(0, abs(n_joined - q_TX.shape[1]), name)
    full_V = _last_logits(reading, run_with_heads_off(reading, request.layer))
    yield equal(
        "with no head switched off, the logits stay the same", full_V, reading.next_logits_V, reading.whole_pass
    )
    yield _input_check(reading, request.layer, x_TM, q_TX)


def _input_check(reading: Reading, layer: int, x_TM: Tensor, q_TX: Tensor) -> Check:
    """The queries of each head depend on each slice of the input."""
    config = reading.config
    weight_XM, _ = parameters(reading.block(layer).attention.query)
    changes = list[float]()
    for features in torch.arange(config.d_model).tensor_split(config.n_heads):
        part_THD = (x_TM[:, features] @ weight_XM[:, features].T).view(-1, config.n_heads, config.d_head)
        changes.append((part_THD.norm(dim=(0, 2)) / q_TX.float().norm().cpu()).min().item())
    name = "each head's queries change without any slice of the input (smallest relative change)"
    return at_least(Arithmetic(n_terms=config.d_model).error(), min(changes), name)


LESSON = Lesson(
    number=22,
    title="Many heads",
    posts=(PART_12, chapter("3.6")),
    request_type=MultiHeadRequest,
    result_type=MultiHeadResult,
    compute=compute,
    checks=checks,
    break_description="split the queries wrongly: head h gets the features h, h + H, h + 2H, … not consecutive ones",
    code_references=(
        "model/attention.py: Attention.forward, Attention._split",
        "app/lessons/head_arrays.py: array_steps, separate_heads",
    ),
)
