"""S20: while a model learns, some of its numbers are set to 0 at random, and the others grow."""

# shapes: N draws, T tokens, D features of a head, M features of a token, V tokens of the vocabulary, X any of these

import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

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

N_CELLS = 4_000_000  # numbers of all draws together; a long text gets fewer draws
N_CHECKED = 32  # tokens; the statistics of more rows would need more draws than anybody waits for
N_RUNS = 8  # readings with dropout
N_TOP = 6  # tokens that are expected
N_FEATURES = 64  # that are drawn
N_DRAWS = 2000  # of which a check takes the mean
N_DROPPED = 50  # times that a number is dropped in these draws, at least: below, chance is no longer normal
N_DEVIATIONS = 5.5  # a check of chance allows; among a thousand means one in ten thousand texts goes beyond

Place = Literal["attention weights", "context vectors", "embedded tokens", "what attention adds"]


class DropoutRequest(LessonRequest):
    """Where, how much is dropped, and which draw."""

    place: Place = Field("attention weights", title="Place", description="whose numbers are dropped")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    rate: float = Field(
        0.5,
        title="Share dropped",
        ge=0,
        le=0.9,
        description="the chance of each number to be 0",
        json_schema_extra={"step": 0.05},
    )
    seed: int = Field(
        0, title="Draw", ge=0, le=100, description="another number, another draw; the same one, the same draw"
    )
    draws: int = Field(100, title="Draws in the mean", ge=1, le=1000, description="of how many draws the mean is taken")
    reads: bool = Field(False, title="Read, not learn", description="a model that reads drops nothing")


class DropoutResult(LessonResult):
    """One draw, the mean of many, and what a model expects that is read so."""

    numbers: Heatmap = Field(description="of the chosen place, as they are")
    dropped: Heatmap = Field(description="the same numbers after one draw")
    mean: Heatmap = Field(description="the mean over many draws")
    sums: Bars = Field(description="of each row after the draw")
    facts: Facts
    expected: Heatmap = Field(description="probabilities after the text, when every layer drops so, draw by draw")
    spread: Facts


def drawn(x: Tensor, request: DropoutRequest, n_draws: int, generator: torch.Generator | None = None) -> Tensor:
    """Numbers after each of some draws, (N, …)."""
    if request.reads:
        return x.expand(n_draws, *x.shape)
    generator = generator or torch.Generator().manual_seed(request.seed)
    kept = torch.rand(n_draws, *x.shape, generator=generator) >= request.rate
    return x * kept.to(x.device) / (1 if request.broken else 1 - request.rate)


def at_place(reading: Reading, request: DropoutRequest) -> Tensor:
    """The numbers of the chosen place, a row a token: (T, T), (T, D) or (T, M)."""
    if request.place == "attention weights":
        return reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    if request.place == "context vectors":
        return reading.trace.context(request.layer, [request.head])[0].cpu()
    if request.place == "embedded tokens":
        return reading.capture(0, reading.block(0))[0].float().cpu()
    return reading.capture(request.layer, reading.block(request.layer).attention)[1].float().cpu()


@torch.inference_mode()
def expected(reading: Reading, request: DropoutRequest) -> Tensor:
    """Probabilities after the text when every layer drops numbers of this place, for each of N_RUNS draws, (N, V)."""
    network = reading.model.network
    generator = torch.Generator().manual_seed(request.seed)

    def drop(x_BX: Tensor) -> Tensor:
        return drawn(x_BX, request, 1, generator)[0]

    def after(_module: nn.Module, _given: Any, x_BX: Tensor) -> Tensor:
        return drop(x_BX)

    attend = partial(staged_attention, normalise=lambda masked_BHTT: drop(attention.weights(masked_BHTT)))
    parts: dict[Place, list[nn.Module]] = {
        "attention weights": [],
        "context vectors": [part for part in network.modules() if isinstance(part, Heads)],
        "embedded tokens": [network.dropout],
        "what attention adds": [part for part in network.modules() if isinstance(part, Attention)],
    }
    attention_fns = [attend if request.place == "attention weights" else fused_attention] * network.config.n_layers
    with ExitStack() as hooks:
        for part in parts[request.place]:
            hooks.enter_context(part.register_forward_hook(after))
        hidden_NTM = network.hidden(reading.ids_BT.repeat(N_RUNS, 1), attention_fns=attention_fns)
    probability_NV: Tensor = network.unembed(hidden_NTM[:, -1]).float().softmax(-1).cpu()
    return probability_NV


def compute(reading: Reading, request: DropoutRequest) -> DropoutResult:
    """What the draws make of one place, and of what the model expects."""
    x_TX = at_place(reading, request)
    n_draws = max(1, min(request.draws, N_CELLS // x_TX.numel()))
    found_NTX = drawn(x_TX, request, n_draws)
    mean_TX, once_TX = found_NTX.mean(0), found_NTX[0]
    is_weights = request.place == "attention weights"
    columns = reading.token_labels if is_weights else list(map(str, range(min(N_FEATURES, x_TX.shape[1]))))
    draw = partial(probabilities if is_weights else signed, rows=reading.token_labels, columns=columns)
    of_head = f", head {request.head}" if request.place in ("attention weights", "context vectors") else ""
    where = request.place if request.place == "embedded tokens" else f"{request.place}, layer {request.layer}{of_head}"
    usual_V = reading.next_logits_V.softmax(-1)
    probability_NV = expected(reading, request)
    top = usual_V.topk(min(N_TOP, len(usual_V))).indices
    n = len(columns)
    return DropoutResult(
        numbers=draw(f"{where}: {x_TX.shape[0]} × {x_TX.shape[1]}", values=x_TX[:, :n]),
        dropped=signed(f"after draw {request.seed}", reading.token_labels, columns, once_TX[:, :n]),
        mean=draw(f"mean of {n_draws:,} draws", values=mean_TX[:, :n]),
        sums=Bars(title="sum of each row after the draw", labels=reading.token_labels, values=numbers(once_TX.sum(-1))),
        facts=facts(
            "in numbers",
            {
                "share of the numbers that are 0": (once_TX == 0).float().mean().item(),
                "rows that are all 0": float((once_TX == 0).all(-1).sum()),
                "mean difference of the mean from the numbers": (mean_TX - x_TX)[x_TX != 0].abs().mean().item(),
            },
        ),
        expected=probabilities(
            "probabilities after the text: as it reads, and in 8 draws of all layers",
            reading.ranked_labels(top),
            ["reads", *(f"draw {run}" for run in range(N_RUNS))],
            torch.cat((usual_V[None], probability_NV))[:, top].T,
        ),
        spread=facts(
            "how far the draws are apart",
            {
                "probability of the likeliest token": usual_V.max().item(),
                "mean of the same over the draws": probability_NV[:, top[0]].mean().item(),
                "its deviation": probability_NV[:, top[0]].std(correction=0).item(),
                "draws in which another token is likeliest": float((probability_NV.argmax(-1) != top[0]).sum()),
            },
        ),
    )


def checks(reading: Reading, request: DropoutRequest) -> Iterator[Check]:
    """What is kept grows so that the mean stays; reading drops nothing; a draw can be had again."""
    x_TX = at_place(reading, request)[:N_CHECKED, :N_CHECKED]
    learning = request.model_copy(update={"reads": False})
    once_TX = drawn(x_TX, learning, 1)[0]
    grown_TX = torch.where(once_TX != 0, x_TX / (1 - request.rate), 0)
    yield equal("what is kept differs from number / (1 − rate) by", once_TX, grown_TX, Arithmetic(), grown_TX.abs())
    yield at_most(0, largest(once_TX - drawn(x_TX, learning, 1)[0]), "the same draw differs from itself by")
    reads = request.model_copy(update={"reads": True})
    usual_V = reading.next_logits_V
    scale = max(1.0, largest(usual_V) / 2)  # softmax passes on at most half of an error in its logits
    probability_NV = expected(reading, reads)
    yield equal(
        "reading changes a probability by",
        probability_NV,
        usual_V.softmax(-1).expand_as(probability_NV),
        reading.whole_pass,
        scale,
    )
    names = (
        f"the mean of {N_DRAWS:,} draws is off by, in standard deviations",
        "how often the first row is emptied differs from the rate by, in standard deviations",
    )
    if (n_dropped := N_DRAWS * request.rate) < N_DROPPED:
        reason = f"at rate {request.rate:g} a number is dropped about {n_dropped:.2g} times, too seldom for a mean"
        yield from (does_not_apply(name, reason) for name in names)
        return
    found_NTX, is_there_TX = drawn(x_TX, learning, N_DRAWS), x_TX.abs() > torch.finfo(x_TX.dtype).tiny
    deviation_TX = x_TX.abs() * math.sqrt(request.rate / (1 - request.rate) / N_DRAWS)
    beyond_X = ((found_NTX.mean(0) - x_TX).abs() / deviation_TX)[is_there_TX]
    if len(beyond_X):
        yield at_most(N_DEVIATIONS, beyond_X.max().item(), names[0])
    else:
        yield does_not_apply(names[0], "all of these numbers are 0")
    if request.place == "attention weights":
        emptied = (found_NTX[:, 0] == 0).all(-1).double().mean().item()
        deviation = math.sqrt(request.rate * (1 - request.rate) / N_DRAWS)
        yield at_most(N_DEVIATIONS, abs(emptied - request.rate) / deviation, names[1])


LESSON = Lesson(
    system=20,
    title="Dropout",
    posts=(PART_10, chapter("3.5.2")),
    request_type=DropoutRequest,
    result_type=DropoutResult,
    compute=compute,
    checks=checks,
    breaks="do not let what is kept grow",
    code=(
        "model/dropout.py: Dropout",
        "model/attention.py: Heads.forward",
        "model/gpt.py: Block",
        "app/lessons/dropout.py: drawn",
    ),
    needs="learned positions and dropout in its training",
    fits=lambda config: config.positions == "learned",
)
