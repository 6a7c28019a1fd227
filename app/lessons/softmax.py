"""S06: softmax turns logits into probabilities, and a temperature makes them more or less equal."""

# shapes: K logits

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Facts, numbers
from app.lessons.posts import MATHS, PART_15, chapter

N_LARGEST_LOGITS = 20

Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class SoftmaxRequest(LessonRequest):
    """Logits to choose freely, or the model's largest ones, and how the softmax is computed."""

    source: Literal["own", "model"] = Field(
        "own",
        title="Logits",
        description=f"numbers that you set, or the model's {N_LARGEST_LOGITS} largest logits for the next token",
    )
    logits: list[Logit] = Field(
        [2.0, 1.0, 0.5, 0.0, -1.0],
        title="Own logits",
        min_length=2,
        max_length=20,
        json_schema_extra={"kind": "sliders"},
    )
    temperature: float = Field(
        1.0,
        title="Temperature",
        ge=0.1,
        le=5,
        description="divides the logits; above 1 the probabilities become more equal, below 1 less",
        json_schema_extra={"step": 0.1},
    )
    shift: float = Field(
        0.0,
        title="Added to every logit",
        ge=0,
        le=1000,
        description="changes no probability, unless the exponentials overflow",
        json_schema_extra={"step": 10},
    )
    naive: bool = Field(
        False,
        title="Naive softmax",
        description="does not subtract the largest logit, so that exponentials of large logits overflow",
    )


class SoftmaxResult(LessonResult):
    """The steps from logits to probabilities."""

    logits: Bars
    exponentials: Bars = Field(description="the terms of the sum; `null` where they overflow")
    probabilities: Bars
    facts: Facts


def softmax(logits_K: Tensor, *, naive: bool) -> tuple[Tensor, Tensor]:
    """The exponentials, and these divided by their sum, (K,) each; naive: without subtracting the largest logit."""
    powers_K = (logits_K if naive else logits_K - logits_K.max()).exp()
    return powers_K, powers_K / powers_K.sum()


def selected_logits(reading: Reading, request: SoftmaxRequest) -> tuple[Tensor, list[str]]:
    """The logits before they are divided and shifted, (K,), and their labels."""
    if request.source == "own":
        return torch.tensor(request.logits, dtype=torch.double), [f"z{i}" for i in range(len(request.logits))]
    top = reading.next_logits_V.topk(min(N_LARGEST_LOGITS, reading.config.n_vocab))
    return top.values.double(), reading.ranked_labels(top.indices)


def softmax_steps(logits_K: Tensor, request: SoftmaxRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Logits divided by the temperature and shifted, exponentials, and probabilities; (K,) each."""
    shifted_K = logits_K / request.temperature + request.shift
    powers_K, p_K = softmax(shifted_K, naive=request.naive or request.broken)
    return shifted_K, powers_K, p_K


def compute(reading: Reading, request: SoftmaxRequest) -> SoftmaxResult:
    """Every step from the logits to the probabilities."""
    logits_K, labels = selected_logits(reading, request)
    shifted_K, powers_K, p_K = softmax_steps(logits_K, request)
    chosen = int(logits_K.argmax())
    power = "e^z" if request.naive or request.broken else "e^(z − max z)"
    return SoftmaxResult(
        logits=Bars(
            title=f"Logits z / {request.temperature:g} + {request.shift:g}", labels=labels, values=numbers(shifted_K)
        ),
        exponentials=Bars(title=f"Exponentials {power}", labels=labels, values=numbers(powers_K), chosen=chosen),
        probabilities=Bars(
            title=f"Probabilities, {power} / sum", labels=labels, values=numbers(p_K), chosen=chosen, probabilities=True
        ),
        facts=Facts(
            title="Sums and largest probability",
            names=["sum of the exponentials", "sum of the probabilities", "largest probability"],
            values=numbers(torch.stack((powers_K.sum(), p_K.sum(), p_K.max()))),
        ),
    )


def checks(reading: Reading, request: SoftmaxRequest) -> Iterator[Check]:
    """Probabilities sum to 1, do not change if all logits grow by the same number, and keep the order of the logits."""
    logits_K, _ = selected_logits(reading, request)
    shifted_K, _, p_K = softmax_steps(logits_K, request)
    names = "the probabilities sum to 1", "adding 1,000 to every logit changes no probability"
    if request.naive:
        reason = "the naive softmax is chosen, whose exponentials overflow"
        yield from (does_not_apply(name, reason) for name in names)
    else:
        arithmetic = Arithmetic(n_terms=len(p_K), dtype=torch.double)
        yield equal(names[0], p_K.sum()[None], torch.ones(1), arithmetic, 1.0)
        raised_p_K = softmax_steps(logits_K, request.model_copy(update={"shift": request.shift + 1000}))[2]
        yield equal(names[1], raised_p_K, p_K, arithmetic, largest(shifted_K) + 1000)
    top, difference = int(logits_K.argmax()), 0.0
    for temperature in (0.1, 1.0, 5.0):
        p_K = softmax_steps(logits_K, request.model_copy(update={"temperature": temperature, "naive": False}))[2]
        difference = max(difference, (p_K.max() - p_K[top]).item())
    yield at_most(0, difference, "at every temperature, the largest logit has the largest probability")


LESSON = Lesson(
    number=6,
    title="Softmax",
    posts=(MATHS, PART_15, chapter("3.3")),
    request_type=SoftmaxRequest,
    result_type=SoftmaxResult,
    compute=compute,
    checks=checks,
    break_description="take the naive softmax, whose exponentials overflow",
    code_references=("model/attention.py: weights", "app/lessons/softmax.py: softmax"),
)
