"""S20: during training, random numbers are set to 0 and the others are scaled up, so that their mean stays the same."""

# shapes: N draws, T tokens, D features of a head, M features of a token, V tokens of the vocabulary, X any of these

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.experiments.controls import Choice, Controls, HeadOf, Layer, Slider, Switch
from app.experiments.panels import Bars, Facts, Heatmap, facts, numbers, probabilities, signed
from app.lessons.posts import PART_10, chapter
from model.edits import Drop, DropTarget
from model.sites import ObservedSite

MAX_NUMBERS = 4_000_000  # of all draws together; for a long text, fewer draws are averaged
MAX_COLUMNS = 64  # of a heatmap
N_PASSES = 8  # readings with dropout
N_PREDICTIONS = 6
N_CHECKED_ROWS = 32  # statistics of more rows would need too many draws
N_CHECKED_DRAWS = 2000
MIN_DROPS = 50  # of a number in these draws, on average; with fewer, its mean is not normally distributed
MAX_DEVIATIONS = 5.5  # with a thousand means per text, chance exceeds this for one text in ten thousand

DroppedNumbers = Literal["attention weights", "embedded tokens", "attention outputs", "feed-forward outputs"]
TARGETS: dict[DroppedNumbers, DropTarget] = {
    "attention weights": "weights",
    "embedded tokens": "embedding",
    "attention outputs": "attention",
    "feed-forward outputs": "mlp",
}


class DropoutControls(Controls):
    """The numbers that dropout is applied to, its rate, and the draw."""

    target: Annotated[DroppedNumbers, Choice("Dropout on", "sets some of these to 0")] = "attention weights"
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    rate: Annotated[float, Slider(0, 0.9, 0.05, "Rate", "drops each number with this probability")] = 0.5
    seed: Annotated[int, Slider(0, 100, 1, "Seed", "draws other numbers to drop; each seed repeats its draw")] = 0
    n_draws: Annotated[int, Slider(1, 1000, 1, "Draws in the mean", "averages this many draws")] = 100
    inference: Annotated[bool, Switch("Inference", "drops nothing, as when a trained model is used")] = False


class DropoutWork(Work):
    """One draw, the mean of many, and the model's predictions with dropout."""

    sites = frozenset[ObservedSite]({"embedding", "attention", "mlp"})
    controls: DropoutControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text with dropout in all layers, once for each draw."""
        controls, target = self.controls, TARGETS[self.controls.target]
        if not controls.inference and controls.rate:
            seeds = range(N_PASSES * controls.seed, N_PASSES * (controls.seed + 1))
            yield {f"draw {i}": self.under(Drop(target, None, controls.rate, seed)) for i, seed in enumerate(seeds)}

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text without dropout, read from its beginning."""
        yield {"inference": Reading(self.tokens.ids, is_fresh=True)}

    def apply_dropout(self, x: Tensor, n_draws: int, *, inference: bool = False) -> Tensor:
        """Numbers after each of some draws, (N, …)."""
        if inference:
            return x.expand(n_draws, *x.shape)
        rate, generator = self.controls.rate, torch.Generator().manual_seed(self.controls.seed)
        mask = torch.rand(n_draws, *x.shape, generator=generator) >= rate
        return x * mask / (1 if self.controls.broken else 1 - rate)

    @cached_property
    def original_TX(self) -> Tensor:
        """The numbers that dropout is applied to, one row per token: (T, T) or (T, M)."""
        layer, target = self.controls.layer, self.controls.target
        if target == "attention weights":
            return self.trace.stage("weights", layer, [self.controls.head])[0].cpu()
        if target == "embedded tokens":
            return self.trace.observed("embedding").float().cpu()
        return self.trace.observed("attention" if target == "attention outputs" else "mlp", layer).float().cpu()

    @cached_property
    def draws_NTX(self) -> Tensor:
        """These numbers after each draw."""
        n_draws = max(1, min(self.controls.n_draws, MAX_NUMBERS // self.original_TX.numel()))
        return self.apply_dropout(self.original_TX, n_draws, inference=self.controls.inference)

    @property
    def columns(self) -> list[str]:
        """The labels of the columns that are shown."""
        if self.controls.target == "attention weights":
            return self.token_labels
        return list(map(str, range(min(MAX_COLUMNS, self.original_TX.shape[1]))))

    def heatmap(self, title: str, values_TX: Tensor, *, may_exceed_1: bool = False) -> Heatmap:
        """The first columns of the numbers."""
        shown_TX = values_TX[:, : len(self.columns)]
        is_probability = self.controls.target == "attention weights" and not may_exceed_1
        draw = probabilities if is_probability else signed
        return draw(title, self.token_labels, self.columns, shown_TX)

    @panel
    def original(self) -> Heatmap:
        """The chosen numbers without dropout."""
        controls, (n_rows, n_columns) = self.controls, self.original_TX.shape
        place = "" if controls.target == "embedded tokens" else f", layer {controls.layer}"
        place += f", head {controls.head}" if controls.target == "attention weights" else ""
        return self.heatmap(f"{controls.target.capitalize()}{place}: {n_rows} × {n_columns}", self.original_TX)

    @panel
    def dropped(self) -> Heatmap:
        """The same numbers after one draw."""
        return self.heatmap(f"After the draw with seed {self.controls.seed}", self.draws_NTX[0], may_exceed_1=True)

    @panel
    def mean(self) -> Heatmap:
        """The mean of many draws."""
        return self.heatmap(f"Mean of {len(self.draws_NTX):,} draws", self.draws_NTX.mean(0))

    @panel
    def row_sums(self) -> Bars:
        """The sum of each row after the draw."""
        sum_T = self.draws_NTX[0].sum(-1)
        return Bars(title="Sum of each row after the draw", labels=self.token_labels, values=numbers(sum_T))

    @panel
    def draw_facts(self) -> Facts:
        """How many numbers are dropped, and how near the mean of the draws is."""
        x_TX, first_TX = self.original_TX, self.draws_NTX[0]
        distance_X = (self.draws_NTX.mean(0) - x_TX)[x_TX != 0].abs()
        named = {
            "fraction of the numbers that are 0": (first_TX == 0).float().mean().item(),
            "rows of only zeros": float((first_TX == 0).all(-1).sum()),
            "mean distance of the averaged draws from the numbers": distance_X.mean().item(),
        }
        return facts("Effect on these numbers", named)

    @cached_property
    def probability_NV(self) -> Tensor:
        """Next-token probabilities after the text, for each draw with dropout in all layers."""
        last = [len(self.tokens) - 1]
        traces = [self.traces.get(f"draw {draw}", self.trace) for draw in range(N_PASSES)]
        return torch.cat([trace.logits(last).cpu() for trace in traces]).softmax(-1)

    @panel
    def predictions(self) -> Heatmap:
        """Next-token probabilities with dropout in all layers, one column per draw."""
        usual_V = self.next_logits_V.softmax(-1)
        top = usual_V.topk(min(N_PREDICTIONS, len(usual_V))).indices
        columns = ["inference", *(f"draw {draw}" for draw in range(N_PASSES))]
        shown = torch.cat((usual_V[None], self.probability_NV))[:, top].T
        title = f"Next-token probabilities: inference, and {N_PASSES} draws with dropout in all layers"
        return probabilities(title, self.ranked_labels(top), columns, shown)

    @panel
    def prediction_facts(self) -> Facts:
        """How much the draws differ."""
        usual_V, best = self.next_logits_V.softmax(-1), int(self.next_logits_V.argmax())
        of_best_N = self.probability_NV[:, best]
        named = {
            "probability of the most probable token": usual_V.max().item(),
            "its mean over the draws": of_best_N.mean().item(),
            "its standard deviation": of_best_N.std(correction=0).item(),
            "draws with another most probable token": float((self.probability_NV.argmax(-1) != best).sum()),
        }
        return facts("How much the draws differ", named)

    def checks(self) -> Iterator[Check]:
        """Scaling keeps the mean, inference drops nothing, and each seed repeats its draw."""
        x_TX = self.original_TX[:N_CHECKED_ROWS, :N_CHECKED_ROWS]
        dropped_TX = self.apply_dropout(x_TX, 1)[0]
        scaled_TX = torch.where(dropped_TX != 0, x_TX / (1 - self.controls.rate), 0)
        name = "each number that is not dropped is divided by 1 − rate"
        yield equal(name, dropped_TX, scaled_TX, Arithmetic(), scaled_TX.abs())
        difference = largest(dropped_TX - self.apply_dropout(x_TX, 1)[0])
        yield at_most(0, difference, "the same seed gives the same draw")
        usual_V = self.next_logits_V
        fresh_V = self.traces["inference"].logits([len(self.tokens) - 1])[0].cpu()
        scale = max(1.0, largest(usual_V) / 2)  # softmax passes on at most half of an error in its logits
        name = "inference gives the model's probabilities"
        yield equal(name, fresh_V.softmax(-1), usual_V.softmax(-1), self.whole_pass, scale)
        yield from self._statistics(x_TX)

    def _statistics(self, x_TX: Tensor) -> Iterator[Check]:
        """The mean of many draws is the number itself, and rows are emptied as often as the rate predicts."""
        rate, in_deviations = self.controls.rate, "in standard deviations"
        names = (
            f"the mean of {N_CHECKED_DRAWS:,} draws is the number itself (largest difference, {in_deviations})",
            f"the first row is emptied as often as the rate predicts (difference {in_deviations})",
        )
        if (n_drops := N_CHECKED_DRAWS * rate) < MIN_DROPS:
            reason = f"at rate {rate:g} a number is dropped about {n_drops:.2g} times, too seldom for a mean"
            yield from (does_not_apply(name, reason) for name in names)
            return
        dropped_NTX = self.apply_dropout(x_TX, N_CHECKED_DRAWS)
        is_nonzero_TX = x_TX.abs() > torch.finfo(x_TX.dtype).tiny
        deviation_TX = x_TX.abs() * math.sqrt(rate / (1 - rate) / N_CHECKED_DRAWS)
        deviations_X = ((dropped_NTX.mean(0) - x_TX).abs() / deviation_TX)[is_nonzero_TX]
        if len(deviations_X):
            yield at_most(MAX_DEVIATIONS, deviations_X.max().item(), names[0])
        else:
            yield does_not_apply(names[0], "all of these numbers are 0")
        if self.controls.target == "attention weights":
            emptied = (dropped_NTX[:, 0] == 0).all(-1).double().mean().item()
            deviation = math.sqrt(rate * (1 - rate) / N_CHECKED_DRAWS)
            yield at_most(MAX_DEVIATIONS, abs(emptied - rate) / deviation, names[1])


EXPERIMENT = Lesson(
    number=20,
    title="Dropout",
    posts=(PART_10, chapter("3.5.2")),
    work=DropoutWork,
    break_description="do not scale up the numbers that are not dropped",
    code_references=(
        "model/dropout.py: Dropout",
        "model/attention.py: Heads.forward",
        "model/edited.py: drop_vectors",
        "app/lessons/dropout.py: DropoutWork.apply_dropout",
    ),
    requirement="learned positions and dropout in its training",
    is_supported_by=lambda config: config.positions == "learned",
)
