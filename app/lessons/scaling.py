"""S18: why scores are divided by the square root of a head's width."""

# shapes: N draws, T queries and keys, D features of a head, X rows of weights

import math
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Annotated

import torch
from torch import Tensor

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, equal, largest
from app.experiments.controls import Controls, HeadOf, Layer, Slider, TokenOf
from app.experiments.panels import Curves, Facts, Heatmap, Line, facts, numbers, probabilities
from app.lessons.posts import PART_8, chapter
from model import attention

EXPONENTS = tuple(step / 20 for step in range(21))
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768)
N_RANDOM_KEYS, N_RANDOM_DRAWS = 7, 400
N_BINS = 24


class ScalingControls(Controls):
    """A head, and the number that its scores are divided by."""

    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    query: Annotated[int | None, TokenOf("Query", "shows the entropy of this token's row of weights")] = None
    exponent: Annotated[
        float,
        Slider(0, 1, 0.05, "Exponent", "divides scores by the head's width to this power; the model uses 0.5"),
    ] = 0.5


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


class ScalingWork(Work):
    """What scaling does to the scores of one head, and to those of random vectors."""

    controls: ScalingControls

    @cached_property
    def score_TT(self) -> Tensor:
        """The scores of the head."""
        return self.trace.stage("scores", self.controls.layer, [self.controls.head])[0].cpu()

    @property
    def width(self) -> int:
        """The width whose power divides the scores."""
        return self.config.d_model if self.controls.broken else self.config.d_head

    @cached_property
    def allowed_scores(self) -> dict[str, Tensor]:
        """The scores that are not masked, before and after scaling, by name."""
        allowed_TT = attention.causal_mask(*self.score_TT.shape)
        scaled_TT = self.trace.stage("scaled", self.controls.layer, [self.controls.head])[0].cpu()
        return {"q·k": self.score_TT[allowed_TT], f"q·k / √{self.config.d_head}": scaled_TT[allowed_TT]}

    @panel
    def weights(self) -> Heatmap:
        """The weights of the head, with the chosen exponent."""
        controls, labels = self.controls, self.token_labels
        place = f"layer {controls.layer}, head {controls.head}"
        title = f"Attention weights, {place}, scores divided by {self.width}^{controls.exponent:g}"
        weight_TT = weights_at(self.score_TT, self.width, controls.exponent)
        return probabilities(title, labels, labels, weight_TT, selects=("query", ""))

    @panel
    def entropy(self) -> Curves:
        """Entropy and largest weight of the chosen query's weights, over the exponent."""
        query = self.position(self.controls.query)
        rows = [weights_at(self.score_TT, self.width, exponent)[query] for exponent in EXPONENTS]
        lines = {
            "entropy, bits": [entropy_bits(row).item() for row in rows],
            "largest weight": [row.max().item() for row in rows],
        }
        return Curves(
            title=f"Entropy and largest weight of row {self.token_labels[query]}",
            x_axis="exponent",
            marker=self.controls.exponent,
            lines=[Line(name=name, x=list(EXPONENTS), y=[*values]) for name, values in lines.items()],
        )

    @panel
    def spread(self) -> Facts:
        """How far the scores spread, and the number that divides them."""
        deviations = {
            f"standard deviation of {name}": score_X.std(correction=0).item()
            for name, score_X in self.allowed_scores.items()
        }
        root = {f"√{self.config.d_head}": math.sqrt(self.config.d_head)}
        return facts("Spread of the scores that are not masked", deviations | root)

    @panel
    def histogram(self) -> Curves:
        """How many scores fall into each of 24 bins, before and after scaling."""
        scores = self.allowed_scores
        lowest, highest = (edge(torch.cat([*scores.values()])).item() for edge in (torch.min, torch.max))
        centres = [lowest + (bin + 0.5) * (highest - lowest) / N_BINS for bin in range(N_BINS)]
        lines = [
            Line(name=name, x=centres, y=numbers(values.histc(N_BINS, min=lowest, max=highest)))
            for name, values in scores.items()
        ]
        return Curves(title="Histogram of the scores that are not masked", x_axis="score", lines=lines)

    @panel
    def random_vectors(self) -> Curves:
        """The largest of 7 weights of random vectors, over their width; the width of a head is marked."""
        widths = list(map(float, WIDTHS))
        names = "softmax(q·k)", "softmax(q·k / √d)"
        return Curves(
            title=f"Largest of {N_RANDOM_KEYS} weights of random vectors, mean of {N_RANDOM_DRAWS:,} draws",
            x_axis="width d",
            marker=float(self.config.d_head),
            lines=[
                Line(name=name, x=widths, y=[*means]) for name, means in zip(names, random_vector_means(), strict=True)
            ],
        )

    def checks(self) -> Iterator[Check]:
        """The exponent 0.5 gives the model's weights, and a larger exponent never makes a row sharper."""
        layer, head, score_TT, n = self.controls.layer, [self.controls.head], self.score_TT, len(self.score_TT)
        weight_TT = weights_at(score_TT, self.width, 0.5)
        trace_weight_TT = self.trace.stage("weights", layer, head)[0].cpu()
        sums = Arithmetic(n_terms=n)
        name = "the exponent 0.5 gives the model's weights"
        yield equal(name, weight_TT, trace_weight_TT, sums, self.weight_error_scale(layer))
        yield equal("each row of weights sums to 1", weight_TT.sum(-1), torch.ones(n), sums)
        scaled_TT = self.trace.stage("scaled", layer, head)[0].cpu() * math.sqrt(self.config.d_head)
        name = "the scores are √d_head times the model's scaled scores"
        yield equal(name, score_TT, scaled_TT, Arithmetic(), score_TT.abs())
        entropies = torch.stack([entropy_bits(weights_at(score_TT, self.width, exponent)) for exponent in EXPONENTS])
        allowed_X = score_TT[attention.causal_mask(n, n)]
        yield at_least(
            -sums.error((1 + largest(allowed_X)) * math.log2(n + 1)),
            entropies.diff(dim=0).min().item(),
            "a larger exponent lowers the entropy of no row (smallest change, in bits)",
        )


EXPERIMENT = Lesson(
    number=18,
    title="Scaling by √d",
    posts=(PART_8, chapter("3.4")),
    work=ScalingWork,
    break_description="divide by the width of the whole model, not of a head",
    code_references=("model/attention.py: scaled", "app/lessons/scaling.py: weights_at"),
)
