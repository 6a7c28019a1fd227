"""S18: why scores are divided by the square root of a head's width."""

# shapes: N draws, T queries and keys, D features of a head, X rows of weights

import math
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_least, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Curves, Facts, Heatmap, Line, facts, numbers, probabilities
from app.lessons.posts import PART_8, chapter
from app.schemas import Index
from model import attention

EXPONENTS = tuple(step / 20 for step in range(21))
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768)
N_RANDOM_KEYS, N_RANDOM_DRAWS = 7, 400
N_BINS = 24


class ScalingRequest(LessonRequest):
    """A head, and the number that its scores are divided by."""

    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    query: Index | None = Field(
        None,
        title="Query",
        description="shows the entropy of this token's row of weights",
        json_schema_extra={"kind": "token"},
    )
    exponent: float = Field(
        0.5,
        title="Exponent",
        ge=0,
        le=1,
        description="divides the scores by the width of a head to this power: 0 changes nothing, the model uses 0.5",
        json_schema_extra={"step": 0.05},
    )


class ScalingResult(LessonResult):
    """What scaling does to the scores of one head, and to those of random vectors."""

    weights: Heatmap = Field(description="of the head, with the chosen exponent")
    entropy: Curves = Field(description="of the chosen query's weights, over the exponent")
    spread: Facts
    histogram: Curves = Field(description="of the scores before and after scaling")
    random_vectors: Curves = Field(description="the largest of 7 weights of random vectors, over their width")


def scores_and_width(reading: Reading, request: ScalingRequest) -> tuple[Tensor, int]:
    """The scores of the head, (T, T), and the width whose power divides them."""
    width = reading.config.d_model if request.broken else reading.config.d_head
    return reading.trace.stage("scores", request.layer, [request.head])[0].cpu(), width


def weights_at(score_TT: Tensor, width: int, exponent: float) -> Tensor:
    """The weights of a head whose scores are divided by width^exponent, (T, T)."""
    return attention.weights(attention.masked(score_TT / width**exponent))


def entropy_bits(weight_XT: Tensor) -> Tensor:
    """The entropy of each row of weights, (X,), in bits."""
    bits_X: Tensor = torch.special.entr(weight_XT).sum(-1) / math.log(2)
    return bits_X


@cache
def random_vector_means() -> tuple[list[float], list[float]]:
    """The mean largest weight of a random query over N_RANDOM_KEYS random keys, for each of WIDTHS.

    First without scaling, then with scores divided by √width.
    """
    generator = torch.Generator().manual_seed(0)
    unscaled, scaled = list[float](), list[float]()
    for width in WIDTHS:
        q_ND1 = torch.randn(N_RANDOM_DRAWS, width, 1, generator=generator)
        k_NTD = torch.randn(N_RANDOM_DRAWS, N_RANDOM_KEYS, width, generator=generator)
        score_NT = (k_NTD @ q_ND1)[..., 0]
        for means, divisor in ((unscaled, 1.0), (scaled, math.sqrt(width))):
            means.append(attention.weights(score_NT / divisor).amax(-1).mean().item())
    return unscaled, scaled


def score_histogram(scores: Mapping[str, Tensor]) -> Curves:
    """How many scores fall into each of N_BINS bins; one line per set of scores."""
    lowest, highest = (edge(torch.cat([*scores.values()])).item() for edge in (torch.min, torch.max))
    centres = [lowest + (bin + 0.5) * (highest - lowest) / N_BINS for bin in range(N_BINS)]
    return Curves(
        title="Histogram of the scores that are not masked",
        x_axis="score",
        lines=[
            Line(name=name, x=centres, y=numbers(values.histc(N_BINS, min=lowest, max=highest)))
            for name, values in scores.items()
        ],
    )


def _entropy_curves(reading: Reading, request: ScalingRequest, score_TT: Tensor, width: int) -> Curves:
    """Entropy and largest weight of the chosen query's row, for each of EXPONENTS."""
    query = reading.position(request.query)
    rows = [weights_at(score_TT, width, exponent)[query] for exponent in EXPONENTS]
    return Curves(
        title=f"Entropy and largest weight of row {reading.token_labels[query]}",
        x_axis="exponent",
        marker=request.exponent,
        lines=[
            Line(name="entropy, bits", x=list(EXPONENTS), y=[entropy_bits(row).item() for row in rows]),
            Line(name="largest weight", x=list(EXPONENTS), y=[row.max().item() for row in rows]),
        ],
    )


def _random_vector_curves(d_head: int) -> Curves:
    """The mean largest weight of random vectors over their width; the width of a head is marked."""
    unscaled, scaled = random_vector_means()
    widths = list(map(float, WIDTHS))
    return Curves(
        title=f"Largest of {N_RANDOM_KEYS} weights of random vectors, mean of {N_RANDOM_DRAWS:,} draws",
        x_axis="width d",
        marker=float(d_head),
        lines=[
            Line(name="softmax(q·k)", x=widths, y=list(unscaled)),
            Line(name="softmax(q·k / √d)", x=widths, y=list(scaled)),
        ],
    )


def compute(reading: Reading, request: ScalingRequest) -> ScalingResult:
    """The weights of a head with the chosen exponent, and the effect of every exponent on one row of them."""
    score_TT, divisor_width = scores_and_width(reading, request)
    layer, head, labels = request.layer, request.head, reading.token_labels
    allowed_TT = attention.causal_mask(len(labels), len(labels))
    score_X = score_TT[allowed_TT]
    scaled_X = reading.trace.stage("scaled", layer, [head])[0].cpu()[allowed_TT]
    width = reading.config.d_head
    return ScalingResult(
        weights=probabilities(
            f"Attention weights, layer {layer}, head {head}, scores divided by {divisor_width}^{request.exponent:g}",
            labels,
            labels,
            weights_at(score_TT, divisor_width, request.exponent),
            selects=("query", ""),
        ),
        entropy=_entropy_curves(reading, request, score_TT, divisor_width),
        spread=facts(
            "Spread of the scores that are not masked",
            {
                "standard deviation of q·k": score_X.std(correction=0).item(),
                f"standard deviation of q·k / √{width}": scaled_X.std(correction=0).item(),
                f"√{width}": math.sqrt(width),
            },
        ),
        histogram=score_histogram({"q·k": score_X, f"q·k / √{width}": scaled_X}),
        random_vectors=_random_vector_curves(width),
    )


def checks(reading: Reading, request: ScalingRequest) -> Iterator[Check]:
    """The exponent 0.5 gives the model's weights, and a larger exponent never makes a row sharper."""
    score_TT, width = scores_and_width(reading, request)
    weight_TT = weights_at(score_TT, width, 0.5)
    trace_weight_TT = reading.trace.stage("weights", request.layer, [request.head])[0].cpu()
    n = len(score_TT)
    sums, scale = Arithmetic(n_terms=n), reading.weight_error_scale(request.layer)
    yield equal("the exponent 0.5 gives the model's weights", weight_TT, trace_weight_TT, sums, scale)
    yield equal("each row of weights sums to 1", weight_TT.sum(-1), torch.ones(n), sums)
    scaled_TT = reading.trace.stage("scaled", request.layer, [request.head])[0].cpu() * math.sqrt(reading.config.d_head)
    yield equal(
        "the scores are √d_head times the model's scaled scores", score_TT, scaled_TT, Arithmetic(), score_TT.abs()
    )
    entropies = torch.stack([entropy_bits(weights_at(score_TT, width, exponent)) for exponent in EXPONENTS])
    allowed_X = score_TT[attention.causal_mask(n, n)]
    yield at_least(
        -sums.error((1 + largest(allowed_X)) * math.log2(n + 1)),
        entropies.diff(dim=0).min().item(),
        "a larger exponent lowers the entropy of no row (smallest change, in bits)",
    )


LESSON = Lesson(
    number=18,
    title="Scaling by √d",
    posts=(PART_8, chapter("3.4")),
    request_type=ScalingRequest,
    result_type=ScalingResult,
    compute=compute,
    checks=checks,
    break_description="divide by the width of the whole model, not of a head",
    code_references=("model/attention.py: scaled", "app/lessons/scaling.py: weights_at"),
)
