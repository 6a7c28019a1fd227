"""S18: why scores are divided by the root of a head's width."""

# shapes: N draws, T queries and keys, D features of a head

import math
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_least, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Curves, Facts, Heatmap, Line, matrix, numbers
from app.lessons.posts import PART_8, chapter
from app.schemas import Index
from model import attention

EXPONENTS = tuple(step / 20 for step in range(21))
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768)
N_KEYS, N_DRAWS = 7, 400
N_BINS = 24


class ScalingRequest(LessonRequest):
    """A head, and by what its scores are divided."""

    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    query: Index | None = Field(
        None,
        title="Query",
        description="the token that attends; by default the last",
        json_schema_extra={"kind": "token"},
    )
    exponent: float = Field(
        0.5,
        title="Exponent",
        ge=0,
        le=1,
        description="scores are divided by the width of a head to this power: 0 changes nothing, 0.5 is the model",
        json_schema_extra={"step": 0.05},
    )


class ScalingResult(LessonResult):
    """What dividing does to one head, and to random vectors."""

    weights: Heatmap = Field(description="of the head, with its scores divided so")
    entropy: Curves = Field(description="of the chosen query's weights, over the exponent")
    spread: Facts
    histogram: Curves = Field(description="how many scores fall where, before and after dividing")
    random: Curves = Field(description="the largest of 7 weights, between random vectors of growing width")


def scores_and_width(reading: Reading, request: ScalingRequest) -> tuple[Tensor, int]:
    """The scores of the head, (T, T), and the width to whose power they are divided."""
    width = reading.config.d_model if request.broken else reading.config.d_head
    return reading.trace.stage("scores", request.layer, [request.head])[0].cpu(), width


def weights_at(score_TT: Tensor, width: int, exponent: float) -> Tensor:
    """The weights of a head whose scores are divided by a width to some power, (T, T)."""
    return attention.weights(attention.masked(score_TT / width**exponent))


def entropy_bits(weight_XT: Tensor) -> Tensor:
    """Of every row, (X,)."""
    bits_X: Tensor = torch.special.entr(weight_XT).sum(-1) / math.log(2)
    return bits_X


@cache
def random_experiment() -> tuple[list[float], list[float]]:
    """The mean largest weight of a random query over N_KEYS random keys, for each of WIDTHS: unscaled, and scaled."""
    generator = torch.Generator().manual_seed(0)
    found: tuple[list[float], list[float]] = ([], [])
    for width in WIDTHS:
        q_ND1 = torch.randn(N_DRAWS, width, 1, generator=generator)
        k_NTD = torch.randn(N_DRAWS, N_KEYS, width, generator=generator)
        score_NT = (k_NTD @ q_ND1)[..., 0]
        for means, divisor in zip(found, (1.0, math.sqrt(width)), strict=True):
            means.append(attention.weights(score_NT / divisor).amax(-1).mean().item())
    return found


def histogram(values: Mapping[str, Tensor]) -> Curves:
    """How many of some numbers fall into each of N_BINS, line by line."""
    least, most = (edge(torch.cat([*values.values()])).item() for edge in (torch.min, torch.max))
    centres = [least + (bin + 0.5) * (most - least) / N_BINS for bin in range(N_BINS)]
    return Curves(
        title="scores that may be looked at, and how many of them there are",
        x_axis="score",
        lines=[
            Line(name=name, x=centres, y=numbers(some.histc(N_BINS, min=least, max=most)))
            for name, some in values.items()
        ],
    )


def compute(reading: Reading, request: ScalingRequest) -> ScalingResult:
    """The head at this exponent, and what another one would do."""
    score_TT, divided_by = scores_and_width(reading, request)
    query = reading.position(request.query)
    rows = [weights_at(score_TT, divided_by, exponent)[query] for exponent in EXPONENTS]
    seen_TT = attention.causal_mask(len(reading.tokens), len(reading.tokens))
    raw = score_TT[seen_TT]
    scaled = reading.trace.stage("scaled", request.layer, [request.head])[0].cpu()[seen_TT]
    unscaled, divided = random_experiment()
    width = reading.config.d_head
    return ScalingResult(
        weights=Heatmap(
            title=f"weights of layer {request.layer}, head {request.head}, scores / {divided_by}^{request.exponent:g}",
            rows=reading.token_labels,
            columns=reading.token_labels,
            values=matrix(weights_at(score_TT, divided_by, request.exponent)),
            scale="probability",
            selects=("query", ""),
        ),
        entropy=Curves(
            title=f"row {reading.token_labels[query]}",
            x_axis="exponent",
            marker=request.exponent,
            lines=[
                Line(name="entropy, bits", x=list(EXPONENTS), y=[entropy_bits(row).item() for row in rows]),
                Line(name="largest weight", x=list(EXPONENTS), y=[row.max().item() for row in rows]),
            ],
        ),
        spread=Facts(
            title="spread of the scores that may be looked at",
            names=["deviation of q·k", f"deviation of q·k / √{width}", f"√{width}"],
            values=[raw.std(correction=0).item(), scaled.std(correction=0).item(), math.sqrt(width)],
        ),
        histogram=histogram({"q·k": raw, f"q·k / √{width}": scaled}),
        random=Curves(
            title=f"largest of {N_KEYS} weights, random q and k, mean of {N_DRAWS:,} draws",
            x_axis="width d",
            marker=float(width),
            lines=[
                Line(name="softmax(q·k)", x=list(map(float, WIDTHS)), y=list(unscaled)),
                Line(name="softmax(q·k / √d)", x=list(map(float, WIDTHS)), y=list(divided)),
            ],
        ),
    )


def checks(reading: Reading, request: ScalingRequest) -> Iterator[Check]:
    """The exponent 0.5 is the model; dividing by more never makes a row sharper."""
    score_TT, width = scores_and_width(reading, request)
    theirs_TT = reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    ours_TT = weights_at(score_TT, width, 0.5)
    n = len(score_TT)
    sums, scale = Arithmetic(n_terms=n), reading.weight_scale(request.layer)
    yield equal("at exponent 0.5 the weights differ from the model's by", ours_TT, theirs_TT, sums, scale)
    yield equal("rows sum to 1, to within", ours_TT.sum(-1), torch.ones(n), sums)
    scaled_TT = reading.trace.stage("scaled", request.layer, [request.head])[0].cpu() * math.sqrt(reading.config.d_head)
    yield equal(
        "scores differ from the scaled ones times √d_head by", score_TT, scaled_TT, Arithmetic(), score_TT.abs()
    )
    entropies = torch.stack([entropy_bits(weights_at(score_TT, width, exponent)) for exponent in EXPONENTS])
    seen = score_TT[attention.causal_mask(n, n)]
    yield at_least(
        -sums.error((1 + largest(seen)) * math.log2(n + 1)),
        entropies.diff(dim=0).min().item(),
        "dividing by more raises the entropy of every row, in bits by at least",
    )


LESSON = Lesson(
    system=18,
    title="Scaling by √d",
    posts=(PART_8, chapter("3.4")),
    request_type=ScalingRequest,
    result_type=ScalingResult,
    compute=compute,
    checks=checks,
    breaks="divide by the width of the whole model, not of the head",
    code=("model/attention.py: scaled", "app/lessons/scaling.py: weights_at"),
)
