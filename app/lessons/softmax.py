"""S06: from scores to shares: logits, softmax, temperature."""

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

N_TOP = 20

Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class SoftmaxRequest(LessonRequest):
    """Five numbers of one's own, or the model's largest logits."""

    source: Literal["own", "model"] = Field(
        "own", title="Logits", description="five of one's own, or the model's 20 largest"
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
        description="logits are divided by it before the softmax",
        json_schema_extra={"step": 0.1},
    )
    shift: float = Field(
        0.0,
        title="Added to all",
        ge=0,
        le=1000,
        description="a number that is added to every logit",
        json_schema_extra={"step": 10},
    )
    naive: bool = Field(
        False, title="Naive", description="take e to the power of the logits as they are, and not less the largest one"
    )


class SoftmaxResult(LessonResult):
    """The steps from logits to probabilities."""

    logits: Bars
    exponentials: Bars = Field(description="what is summed; `null` where it overflows")
    probabilities: Bars
    facts: Facts


def softmax(logits_K: Tensor, *, naive: bool) -> tuple[Tensor, Tensor]:
    """The exponentials, and what share each is of their sum; (K,) twice."""
    powers_K = (logits_K if naive else logits_K - logits_K.max()).exp()
    return powers_K, powers_K / powers_K.sum()


def asked_for(reading: Reading, request: SoftmaxRequest) -> tuple[Tensor, list[str]]:
    """The logits before anything is done to them, and what each stands for."""
    if request.source == "own":
        return torch.tensor(request.logits, dtype=torch.double), [f"z{i}" for i in range(len(request.logits))]
    top = reading.next_logits_V.topk(min(N_TOP, reading.config.n_vocab))
    return top.values.double(), reading.ranked_labels(top.indices)


def steps(logits_K: Tensor, request: SoftmaxRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Divided and shifted logits, exponentials, probabilities; (K,) each."""
    given_K = logits_K / request.temperature + request.shift
    powers_K, share_K = softmax(given_K, naive=request.naive or request.broken)
    return given_K, powers_K, share_K


def compute(reading: Reading, request: SoftmaxRequest) -> SoftmaxResult:
    """Every step, with names."""
    logits_K, names = asked_for(reading, request)
    given_K, powers_K, share_K = steps(logits_K, request)
    largest = int(logits_K.argmax())
    power = "e^z" if request.naive or request.broken else "e^(z − max z)"
    return SoftmaxResult(
        logits=Bars(
            title=f"logits / {request.temperature:g} + {request.shift:g}", labels=names, values=numbers(given_K)
        ),
        exponentials=Bars(title=power, labels=names, values=numbers(powers_K), chosen=largest),
        probabilities=Bars(
            title=f"{power} / their sum", labels=names, values=numbers(share_K), chosen=largest, probabilities=True
        ),
        facts=Facts(
            title="in numbers",
            names=["sum of the exponentials", "sum of the probabilities", "largest probability"],
            values=numbers(torch.stack((powers_K.sum(), share_K.sum(), share_K.max()))),
        ),
    )


def checks(reading: Reading, request: SoftmaxRequest) -> Iterator[Check]:
    """Shares of one whole, whatever is added to all; the order stays."""
    logits_K, _ = asked_for(reading, request)
    given_K, _, share_K = steps(logits_K, request)
    names = "the probabilities sum to 1, to within", "1,000 more for every logit changes a probability by"
    if request.naive:
        reason = "the naive way is chosen, whose exponentials overflow"
        yield from (does_not_apply(name, reason) for name in names)
    else:
        sums = Arithmetic(n_terms=len(share_K), dtype=torch.double)
        yield equal(names[0], share_K.sum()[None], torch.ones(1), sums, 1.0)
        lifted_K = steps(logits_K, request.model_copy(update={"shift": request.shift + 1000}))[2]
        yield equal(names[1], lifted_K, share_K, sums, largest(given_K) + 1000)
    best, off = int(logits_K.argmax()), 0.0
    for temperature in (0.1, 1.0, 5.0):
        share_K = steps(logits_K, request.model_copy(update={"temperature": temperature, "naive": False}))[2]
        off = max(off, (share_K.max() - share_K[best]).item())
    yield at_most(0, off, "at other temperatures another token is likelier than this one, by")


LESSON = Lesson(
    system=6,
    title="Softmax",
    posts=(MATHS, PART_15, chapter("3.3")),
    request_type=SoftmaxRequest,
    result_type=SoftmaxResult,
    compute=compute,
    checks=checks,
    breaks="take the naive softmax, whose exponentials overflow",
    code=("model/attention.py: weights", "app/lessons/softmax.py: softmax"),
)
