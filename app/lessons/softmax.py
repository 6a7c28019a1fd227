"""S06: softmax turns logits into probabilities, and a temperature makes them more or less equal."""

# shapes: K logits

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from app.experiments.base import Lesson, Try, Unit, Work, panel
from app.experiments.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.experiments.controls import Choice, Controls, Slider, Sliders, Switch
from app.experiments.panels import Bars, Facts, facts, numbers
from app.lessons.posts import MATHS, PART_15, chapter

N_LARGEST_LOGITS = 20

Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class SoftmaxControls(Controls):
    """Logits to choose freely, or the model's largest ones, and how the softmax is computed."""

    source: Annotated[
        Literal["own", "model"],
        Choice("Logits", f"numbers that you set, or the model's {N_LARGEST_LOGITS} largest logits for the next token"),
    ] = "own"
    logits: Annotated[list[Logit], Sliders(10, "Own logits")] = [2.0, 1.0, 0.5, 0.0, -1.0]
    temperature: Annotated[
        float, Slider(0.1, 5, 0.1, "Temperature", "divides the logits; above 1 the probabilities become more equal")
    ] = 1.0
    shift: Annotated[
        float, Slider(0, 1000, 10, "Added to every logit", "changes no probability, unless exponentials overflow")
    ] = 0.0
    naive: Annotated[bool, Switch("Naive softmax", "does not subtract the largest logit before the exponentials")] = (
        False
    )


def softmax(logits_K: Tensor, *, naive: bool) -> tuple[Tensor, Tensor]:
    """The exponentials, and these divided by their sum, (K,) each; naive: without subtracting the largest logit.

    >>> softmax(Tensor([0.0, 0.0]), naive=True)[1].tolist()
    [0.5, 0.5]
    """
    powers_K = (logits_K if naive else logits_K - logits_K.max()).exp()
    return powers_K, powers_K / powers_K.sum()


class SoftmaxWork(Work):
    """The steps from logits to probabilities."""

    controls: SoftmaxControls

    @cached_property
    def labelled_logits(self) -> tuple[Tensor, list[str]]:
        """The logits before they are divided and shifted, (K,), and their labels."""
        if self.controls.source == "own":
            own = self.controls.logits
            return torch.tensor(own, dtype=torch.double), [f"z{i}" for i in range(len(own))]
        top = self.next_logits_V.topk(min(N_LARGEST_LOGITS, self.config.n_vocab))
        return top.values.double(), self.ranked_labels(top.indices)

    def steps(self, controls: SoftmaxControls) -> tuple[Tensor, Tensor, Tensor]:
        """Logits divided by the temperature and shifted, exponentials, and probabilities; (K,) each."""
        shifted_K = self.labelled_logits[0] / controls.temperature + controls.shift
        powers_K, p_K = softmax(shifted_K, naive=controls.naive or controls.broken)
        return shifted_K, powers_K, p_K

    def bars(self, title: str, values_K: Tensor, *, mark_largest: bool = True, probabilities: bool = False) -> Bars:
        """One number per logit."""
        logits_K, labels = self.labelled_logits
        chosen = int(logits_K.argmax()) if mark_largest else None
        return Bars(title=title, labels=labels, values=numbers(values_K), chosen=chosen, probabilities=probabilities)

    @property
    def power(self) -> str:
        """The formula of the exponentials."""
        return "e^z" if self.controls.naive or self.controls.broken else "e^(z − max z)"

    @panel
    def logits(self) -> Bars:
        """The logits, divided by the temperature and shifted."""
        title = f"Logits z / {self.controls.temperature:g} + {self.controls.shift:g}"
        return self.bars(title, self.steps(self.controls)[0], mark_largest=False)

    @panel
    def exponentials(self) -> Bars:
        """The terms of the sum; `null` where they overflow."""
        return self.bars(f"Exponentials {self.power}", self.steps(self.controls)[1])

    @panel
    def probabilities(self) -> Bars:
        """Each exponential divided by their sum."""
        return self.bars(f"Probabilities, {self.power} / sum", self.steps(self.controls)[2], probabilities=True)

    @panel
    def facts(self) -> Facts:
        """What the exponentials and the probabilities sum to, and the largest probability."""
        _, powers_K, p_K = self.steps(self.controls)
        named = {
            "sum of the exponentials": powers_K.sum().item(),
            "sum of the probabilities": p_K.sum().item(),
            "largest probability": p_K.max().item(),
        }
        return facts("Sums and largest probability", named)

    def checks(self) -> Iterator[Check]:
        """Probabilities sum to 1, do not change if all logits grow by one number, and keep the order of the logits."""
        logits_K, controls = self.labelled_logits[0], self.controls
        shifted_K, _, p_K = self.steps(controls)
        names = "the probabilities sum to 1", "adding 1,000 to every logit changes no probability"
        if controls.naive:
            reason = "the naive softmax is chosen, whose exponentials overflow"
            yield from (does_not_apply(name, reason) for name in names)
        else:
            arithmetic = Arithmetic(n_terms=len(p_K), dtype=torch.double)
            yield equal(names[0], p_K.sum()[None], torch.ones(1), arithmetic, 1.0)
            raised_p_K = self.steps(controls.model_copy(update={"shift": controls.shift + 1000}))[2]
            yield equal(names[1], raised_p_K, p_K, arithmetic, largest(shifted_K) + 1000)
        top, difference = int(logits_K.argmax()), 0.0
        for temperature in (0.1, 1.0, 5.0):
            p_K = self.steps(controls.model_copy(update={"temperature": temperature, "naive": False}))[2]
            difference = max(difference, (p_K.max() - p_K[top]).item())
        yield at_most(0, difference, "at every temperature, the largest logit has the largest probability")


EXPERIMENT = Lesson(
    number=6,
    title="Softmax",
    posts=(MATHS, PART_15, chapter("3.3")),
    work=SoftmaxWork,
    break_description="take the naive softmax, whose exponentials overflow",
    unit=Unit(
        guess="Five logits are 2, 1, 0.5, 0 and −1. Which share of the probability does the largest get?",
        tries=(
            Try("Halve the temperature: the largest logit gets more", {"temperature": 0.5}),
            Try("Double the temperature: the probabilities become more equal", {"temperature": 2.0}),
            Try("Add 1,000 to every logit: nothing changes", {"shift": 1000}),
            Try("The same with the naive softmax: the exponentials overflow", {"shift": 1000, "naive": True}),
        ),
        question="Two logits differ by 1. How many times as probable is the larger one?",
        hints=(
            "Divide one probability by the other: the sum in the denominator cancels.",
            "What remains is e to the power of the difference of the logits.",
            "e¹, about 2.72 times, whatever the other logits are.",
        ),
    ),
    code_references=("model/attention.py: weights", "app/lessons/softmax.py: softmax"),
)
