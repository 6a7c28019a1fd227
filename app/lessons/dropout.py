"""S20: during training, random numbers are set to 0 and the others are scaled up, so that their mean stays the same."""

# shapes: N draws, T tokens, D features of a head, M features of a token, V tokens of the vocabulary, X any of these

import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, probabilities, signed
from app.lessons.posts import PART_10, chapter
from app.schemas import Index
from model import attention
from model.attention import Attention, Heads, fused_attention, staged_attention

MAX_NUMBERS = 4_000_000  # of all draws together; for a long text, fewer draws are averaged
MAX_COLUMNS = 64  # of a heatmap
N_PASSES = 8  # forward passes with dropout
N_PREDICTIONS = 6
N_CHECKED_ROWS = 32  # statistics of more rows would need too many draws
N_CHECKED_DRAWS = 2000
MIN_DROPS = 50  # of a number in these draws, on average; with fewer, its mean is not normally distributed
MAX_DEVIATIONS = 5.5  # with a thousand means per text, chance exceeds this for one text in ten thousand

DropoutTarget = Literal["attention weights", "context vectors", "embedded tokens", "attention outputs"]


class DropoutRequest(LessonRequest):
    """The numbers that dropout is applied to, its rate, and the draw."""

    target: DropoutTarget = Field("attention weights", title="Dropout on", description="sets some of these to 0")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    rate: float = Field(
        0.5,
        title="Rate",
        ge=0,
        le=0.9,
        description="drops each number with this probability",
        json_schema_extra={"step": 0.05},
    )
    seed: int = Field(
        0, title="Seed", ge=0, le=100, description="draws other numbers to drop; each seed repeats its draw"
    )
    n_draws: int = Field(100, title="Draws in the mean", ge=1, le=1000, description="averages this many draws")
    inference: bool = Field(False, title="Inference", description="drops nothing, as when a trained model is used")


class DropoutResult(LessonResult):
    """One draw, the mean of many, and the model's predictions with dropout."""

    original: Heatmap = Field(description="the chosen numbers without dropout")
    dropped: Heatmap = Field(description="the same numbers after one draw")
    mean: Heatmap = Field(description="the mean of many draws")
    row_sums: Bars = Field(description="the sum of each row after the draw")
    draw_facts: Facts
    predictions: Heatmap = Field(description="next-token probabilities with dropout in all layers, one column per draw")
    prediction_facts: Facts


def apply_dropout(x: Tensor, request: DropoutRequest, n_draws: int, generator: torch.Generator | None = None) -> Tensor:
    """Numbers after each of some draws, (N, …)."""
    if request.inference:
        return x.expand(n_draws, *x.shape)
    generator = generator or torch.Generator().manual_seed(request.seed)
    mask = torch.rand(n_draws, *x.shape, generator=generator) >= request.rate
    return x * mask.to(x.device) / (1 if request.broken else 1 - request.rate)


def target_values(reading: Reading, request: DropoutRequest) -> Tensor:
    """The numbers that dropout is applied to, one row per token: (T, T), (T, D) or (T, M)."""
    if request.target == "attention weights":
        return reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    if request.target == "context vectors":
        return reading.trace.context(request.layer, [request.head])[0].cpu()
    if request.target == "embedded tokens":
        return reading.capture(0, reading.block(0))[0].float().cpu()
    return reading.capture(request.layer, reading.block(request.layer).attention)[1].float().cpu()


@torch.inference_mode()
def predictions_with_dropout(reading: Reading, request: DropoutRequest) -> Tensor:
    """Next-token probabilities after the text, with dropout in every layer, for each of N_PASSES draws, (N, V)."""
    network = reading.model.network
    generator = torch.Generator().manual_seed(request.seed)

    def drop(x_BX: Tensor) -> Tensor:
        return apply_dropout(x_BX, request, 1, generator)[0]

    def hook(_module: nn.Module, _inputs: object, output_BX: Tensor) -> Tensor:
        return drop(output_BX)

    attend = partial(staged_attention, normalise=lambda masked_BHTT: drop(attention.weights(masked_BHTT)))
    modules: dict[DropoutTarget, list[nn.Module]] = {
        "attention weights": [],
        "context vectors": [module for module in network.modules() if isinstance(module, Heads)],
        "embedded tokens": [network.dropout],
        "attention outputs": [module for module in network.modules() if isinstance(module, Attention)],
    }
    attention_fns = [attend if request.target == "attention weights" else fused_attention] * network.config.n_layers
    with ExitStack() as hooks:
        for module in modules[request.target]:
            hooks.enter_context(module.register_forward_hook(hook))
        hidden_NTM = network.hidden(reading.ids_BT.repeat(N_PASSES, 1), attention_fns=attention_fns)
    probability_NV: Tensor = network.unembed(hidden_NTM[:, -1]).float().softmax(-1).cpu()
    return probability_NV


def compute(reading: Reading, request: DropoutRequest) -> DropoutResult:
    """One draw, the mean of many draws, and next-token probabilities with dropout in all layers."""
    x_TX = target_values(reading, request)
    n_draws = max(1, min(request.n_draws, MAX_NUMBERS // x_TX.numel()))
    dropped_NTX = apply_dropout(x_TX, request, n_draws)
    mean_TX, first_TX = dropped_NTX.mean(0), dropped_NTX[0]
    is_weights, labels = request.target == "attention weights", reading.token_labels
    columns = labels if is_weights else list(map(str, range(min(MAX_COLUMNS, x_TX.shape[1]))))
    draw = partial(probabilities if is_weights else signed, rows=labels, columns=columns)
    n = len(columns)
    predictions, prediction_facts = _prediction_panels(reading, request)
    return DropoutResult(
        original=draw(f"{_target_title(request)}: {x_TX.shape[0]} × {x_TX.shape[1]}", values=x_TX[:, :n]),
        dropped=signed(f"After the draw with seed {request.seed}", labels, columns, first_TX[:, :n]),
        mean=draw(f"Mean of {n_draws:,} draws", values=mean_TX[:, :n]),
        row_sums=Bars(title="Sum of each row after the draw", labels=labels, values=numbers(first_TX.sum(-1))),
        draw_facts=facts(
            "Effect on these numbers",
            {
                "fraction of the numbers that are 0": (first_TX == 0).float().mean().item(),
                "rows of only zeros": float((first_TX == 0).all(-1).sum()),
                "mean distance of the averaged draws from the numbers": (mean_TX - x_TX)[x_TX != 0].abs().mean().item(),
            },
        ),
        predictions=predictions,
        prediction_facts=prediction_facts,
    )


def _target_title(request: DropoutRequest) -> str:
    target = request.target.capitalize()
    if request.target == "embedded tokens":
        return target
    has_heads = request.target in ("attention weights", "context vectors")
    return f"{target}, layer {request.layer}{f', head {request.head}' if has_heads else ''}"


def _prediction_panels(reading: Reading, request: DropoutRequest) -> tuple[Heatmap, Facts]:
    """Probabilities of the most probable next tokens, without dropout and in each draw; and how much these differ."""
    usual_V = reading.next_logits_V.softmax(-1)
    probability_NV = predictions_with_dropout(reading, request)
    top = usual_V.topk(min(N_PREDICTIONS, len(usual_V))).indices
    heatmap = probabilities(
        f"Next-token probabilities: inference, and {N_PASSES} draws with dropout in all layers",
        reading.ranked_labels(top),
        ["inference", *(f"draw {draw}" for draw in range(N_PASSES))],
        torch.cat((usual_V[None], probability_NV))[:, top].T,
    )
    return heatmap, facts(
        "How much the draws differ",
        {
            "probability of the most probable token": usual_V.max().item(),
            "its mean over the draws": probability_NV[:, top[0]].mean().item(),
            "its standard deviation": probability_NV[:, top[0]].std(correction=0).item(),
            "draws with another most probable token": float((probability_NV.argmax(-1) != top[0]).sum()),
        },
    )


def checks(reading: Reading, request: DropoutRequest) -> Iterator[Check]:
    """Scaling keeps the mean, inference drops nothing, and each seed repeats its draw."""
    x_TX = target_values(reading, request)[:N_CHECKED_ROWS, :N_CHECKED_ROWS]
    training = request.model_copy(update={"inference": False})
    dropped_TX = apply_dropout(x_TX, training, 1)[0]
    scaled_TX = torch.where(dropped_TX != 0, x_TX / (1 - request.rate), 0)
    yield equal(
        "each number that is not dropped is divided by 1 − rate", dropped_TX, scaled_TX, Arithmetic(), scaled_TX.abs()
    )
    difference = largest(dropped_TX - apply_dropout(x_TX, training, 1)[0])
    yield at_most(0, difference, "the same seed gives the same draw")
    usual_V = reading.next_logits_V
    scale = max(1.0, largest(usual_V) / 2)  # softmax passes on at most half of an error in its logits
    probability_NV = predictions_with_dropout(reading, request.model_copy(update={"inference": True}))
    yield equal(
        "inference gives the model's probabilities",
        probability_NV,
        usual_V.softmax(-1).expand_as(probability_NV),
        reading.whole_pass,
        scale,
    )
    yield from _statistics(x_TX, training)


def _statistics(x_TX: Tensor, training: DropoutRequest) -> Iterator[Check]:
    """The mean of many draws is the number itself, and rows are emptied as often as the rate predicts."""
    rate = training.rate
    names = (
        f"the mean of {N_CHECKED_DRAWS:,} draws is the number itself (largest difference, in standard deviations)",
        "the first row is emptied as often as the rate predicts (difference in standard deviations)",
    )
    if (n_drops := N_CHECKED_DRAWS * rate) < MIN_DROPS:
        reason = f"at rate {rate:g} a number is dropped about {n_drops:.2g} times, too seldom for a mean"
        yield from (does_not_apply(name, reason) for name in names)
        return
    dropped_NTX, is_nonzero_TX = (
        apply_dropout(x_TX, training, N_CHECKED_DRAWS),
        x_TX.abs() > torch.finfo(x_TX.dtype).tiny,
    )
    deviation_TX = x_TX.abs() * math.sqrt(rate / (1 - rate) / N_CHECKED_DRAWS)
    deviations_X = ((dropped_NTX.mean(0) - x_TX).abs() / deviation_TX)[is_nonzero_TX]
    if len(deviations_X):
        yield at_most(MAX_DEVIATIONS, deviations_X.max().item(), names[0])
    else:
        yield does_not_apply(names[0], "all of these numbers are 0")
    if training.target == "attention weights":
        emptied = (dropped_NTX[:, 0] == 0).all(-1).double().mean().item()
        deviation = math.sqrt(rate * (1 - rate) / N_CHECKED_DRAWS)
        yield at_most(MAX_DEVIATIONS, abs(emptied - rate) / deviation, names[1])


LESSON = Lesson(
    number=20,
    title="Dropout",
    posts=(PART_10, chapter("3.5.2")),
    request_type=DropoutRequest,
    result_type=DropoutResult,
    compute=compute,
    checks=checks,
    break_description="do not scale up the numbers that are not dropped",
    code_references=(
        "model/dropout.py: Dropout",
        "model/attention.py: Heads.forward",
        "model/gpt.py: Block",
        "app/lessons/dropout.py: apply_dropout",
    ),
    requirement="learned positions and dropout in its training",
    is_supported_by=lambda config: config.positions == "learned",
)
