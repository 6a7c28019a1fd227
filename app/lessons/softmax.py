"""S06: from scores to shares: logits, softmax, temperature."""

# shapes: K logits

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, does_not_apply, equal, largest
from app.lessons.lesson import Lesson, LessonAnswer, LessonRequest, Reading
from app.lessons.parts import Bars, Facts, numbers
from app.lessons.posts import MATHS, PART_15, chapter

N_TOP = 20

Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class SoftmaxRequest(LessonRequest):
    """Five numbers of one's own, or the model's largest logits."""

    source: Literal["own", "model"] = Field(
        "own", title="Logits", description="five of one's own, or the model's 20 largest"
    )
    logits: list[Logit] = Field(
        [2.0, 1.0, 0.5, 0.0, -1.0], title="Own logits", min_length=2, max_length=20, json_schema_extra={"is": "sliders"}
    )
    temperature: float = Field(
        1.0,
        title="Temperature",
        ge=0.1,
        le=5,
        description="logits are divided by it before the softmax",
        json_schema_extra={"by": 0.1},
    )
    shift: float = Field(
        0.0,
        title="Added to all",
        ge=0,
        le=1000,
        description="a number that is added to every logit",
        json_schema_extra={"by": 10},
    )
    naive: bool = Field(
        False, title="Naive", description="take e to the power of the logits as they are, and not less the largest one"
    )


class SoftmaxReply(LessonAnswer):
    """The steps from logits to probabilities."""

    logits: Bars
    exponentials: Bars = Field(description="what is summed; `null` where it overflows")
    probabilities: Bars
    facts: Facts


def softmax(logits_K: Tensor, *, naive: bool) -> tuple[Tensor, Tensor]:
    """The exponentials, and what share each is of their sum; (K,) twice."""
    powers_K = (logits_K if naive else logits_K - logits_K.max()).exp()
    return powers_K, powers_K / powers_K.sum()


def asked_for(reading: Reading, ask: SoftmaxRequest) -> tuple[Tensor, list[str]]:
    """The logits before anything is done to them, and what each stands for."""
    if ask.source == "own":
        return torch.tensor(ask.logits, dtype=torch.double), [f"z{i}" for i in range(len(ask.logits))]
    top = reading.next_V.topk(min(N_TOP, reading.config.n_vocab))
    return top.values.double(), reading.ranked(top.indices)


def steps(logits_K: Tensor, ask: SoftmaxRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Divided and shifted logits, exponentials, probabilities; (K,) each."""
    given_K = logits_K / ask.temperature + ask.shift
    powers_K, share_K = softmax(given_K, naive=ask.naive or ask.broken)
    return given_K, powers_K, share_K


def answer(reading: Reading, ask: SoftmaxRequest) -> SoftmaxReply:
    """Every step, with names."""
    logits_K, names = asked_for(reading, ask)
    given_K, powers_K, share_K = steps(logits_K, ask)
    largest = int(logits_K.argmax())
    power = "e^z" if ask.naive or ask.broken else "e^(z − max z)"
    return SoftmaxReply(
        logits=Bars(title=f"logits / {ask.temperature:g} + {ask.shift:g}", labels=names, values=numbers(given_K)),
        exponentials=Bars(title=power, labels=names, values=numbers(powers_K), chosen=largest),
        probabilities=Bars(
            title=f"{power} / their sum", labels=names, values=numbers(share_K), chosen=largest, share=True
        ),
        facts=Facts(
            title="in numbers",
            names=["sum of the exponentials", "sum of the probabilities", "largest probability"],
            values=numbers(torch.stack((powers_K.sum(), share_K.sum(), share_K.max()))),
        ),
    )


def checks(reading: Reading, ask: SoftmaxRequest) -> Iterator[Check]:
    """Shares of one whole, whatever is added to all; the order stays."""
    logits_K, _ = asked_for(reading, ask)
    given_K, _, share_K = steps(logits_K, ask)
    names = "the probabilities sum to 1, to within", "1,000 more for every logit changes a probability by"
    if ask.naive:
        reason = "the naive way is chosen, whose exponentials overflow"
        yield from (does_not_apply(name, reason) for name in names)
    else:
        sums = Arithmetic(n_terms=len(share_K), dtype=torch.double)
        yield equal(names[0], share_K.sum()[None], torch.ones(1), sums, 1.0)
        lifted_K = steps(logits_K, ask.model_copy(update={"shift": ask.shift + 1000}))[2]
        yield equal(names[1], lifted_K, share_K, sums, largest(given_K) + 1000)
    best, off = int(logits_K.argmax()), 0.0
    for temperature in (0.1, 1.0, 5.0):
        share_K = steps(logits_K, ask.model_copy(update={"temperature": temperature, "naive": False}))[2]
        off = max(off, (share_K.max() - share_K[best]).item())
    yield at_most(0, off, "at other temperatures another token is likelier than this one, by")


LESSON = Lesson(
    system=6,
    title="Softmax",
    posts=(MATHS, PART_15, chapter("3.3")),
    request=SoftmaxRequest,
    reply=SoftmaxReply,
    answer=answer,
    checks=checks,
    breaks="take the naive softmax, whose exponentials overflow",
    code=("model/attention.py: weights", "app/lessons/softmax.py: softmax"),
)
