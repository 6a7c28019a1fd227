"""S20: while a model learns, some of its weights are set to 0 at random, and the others grow."""

# shapes: N draws, T tokens

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.lesson import Check, Lesson, LessonAnswer, LessonRequest, Reading, at_most
from app.lessons.parts import Bars, Facts, Heatmap, matrix, numbers
from app.lessons.posts import PART_10, chapter
from app.schemas import Index

N_CELLS = 4_000_000  # numbers of all draws together; a long text gets fewer draws
N_CHECKED = 32  # tokens; the statistics of more rows would need more draws than anybody waits for


class DropoutRequest(LessonRequest):
    """A head, how much is dropped, and which draw."""

    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    rate: float = Field(
        0.5,
        title="Share dropped",
        ge=0,
        le=0.9,
        description="the chance of each weight to be 0",
        json_schema_extra={"by": 0.05},
    )
    seed: int = Field(
        0, title="Draw", ge=0, le=100, description="another number, another draw; the same one, the same draw"
    )
    draws: int = Field(100, title="Draws in the mean", ge=1, le=1000, description="of how many draws the mean is taken")
    reads: bool = Field(False, title="Read, not learn", description="a model that reads drops nothing")


class DropoutReply(LessonAnswer):
    """One draw, the mean of many, and what rows sum to."""

    weights: Heatmap
    dropped: Heatmap = Field(description="the same weights after one draw")
    mean: Heatmap = Field(description="the mean over many draws")
    sums: Bars = Field(description="of each row after the draw; 1 before")
    facts: Facts


def drawn(weight_TT: Tensor, ask: DropoutRequest, n_draws: int) -> Tensor:
    """The weights after each of some draws, (N, T, T)."""
    if ask.reads:
        return weight_TT.expand(n_draws, -1, -1)
    generator = torch.Generator().manual_seed(ask.seed)
    kept_NTT = torch.rand(n_draws, *weight_TT.shape, generator=generator) >= ask.rate
    return weight_TT * kept_NTT / (1 if ask.broken else 1 - ask.rate)


def _weights(reading: Reading, ask: DropoutRequest) -> Tensor:
    reading.check_head(ask.layer, ask.head)
    return reading.trace.stage("weights", ask.layer, [ask.head])[0].cpu()


def answer(reading: Reading, ask: DropoutRequest) -> DropoutReply:
    """What the draws make of one head."""
    weight_TT = _weights(reading, ask)
    n_draws = max(1, min(ask.draws, N_CELLS // weight_TT.numel()))
    found_NTT = drawn(weight_TT, ask, n_draws)
    seen_TT = weight_TT > 0
    around = {"rows": reading.pieces, "columns": reading.pieces}
    where = f"layer {ask.layer}, head {ask.head}"
    return DropoutReply(
        weights=Heatmap(title=f"weights of {where}", **around, values=matrix(weight_TT), scale="share"),
        dropped=Heatmap(title=f"after draw {ask.seed}", **around, values=matrix(found_NTT[0]), scale="signed"),
        mean=Heatmap(title=f"mean of {n_draws:,} draws", **around, values=matrix(found_NTT.mean(0)), scale="share"),
        sums=Bars(title="sum of each row after the draw", labels=reading.pieces, values=numbers(found_NTT[0].sum(-1))),
        facts=Facts(
            title="in numbers",
            names=[
                "cells that are 0, the masked ones among them",
                "rows that are all 0",
                "mean difference from the weights",
            ],
            values=[
                (found_NTT[0] == 0).float().mean().item(),
                float((found_NTT[0] == 0).all(-1).sum()),
                (found_NTT.mean(0) - weight_TT)[seen_TT].abs().mean().item(),
            ],
        ),
    )


def checks(reading: Reading, ask: DropoutRequest) -> Iterator[Check]:
    """What is kept grows so that the mean stays; reading drops nothing; a draw can be had again."""
    weight_TT = _weights(reading, ask)[:N_CHECKED, :N_CHECKED]
    learning = ask.model_copy(update={"reads": False})
    once_TT = drawn(weight_TT, learning, 1)[0]
    grown_TT = torch.where(once_TT > 0, weight_TT / (1 - ask.rate), 0)
    yield at_most(1e-6, (once_TT - grown_TT).abs().max().item(), "what is kept differs from weight / (1 - rate) by")
    yield at_most(
        0, (once_TT - drawn(weight_TT, learning, 1)[0]).abs().max().item(), "the same draw differs from itself by"
    )
    reads = ask.model_copy(update={"reads": True})
    yield at_most(0, (drawn(weight_TT, reads, 1)[0] - weight_TT).abs().max().item(), "reading changes a weight by")
    n_draws = 2000
    found_NTT = drawn(weight_TT, learning, n_draws)
    deviation_TT = weight_TT * math.sqrt(ask.rate / (1 - ask.rate) / n_draws)
    beyond = ((found_NTT.mean(0) - weight_TT).abs() / deviation_TT.clamp_min(1e-9))[weight_TT > 1e-6].max().item()
    yield at_most(5.5, beyond, f"the mean of {n_draws:,} draws is off by, in standard deviations")
    empty = (found_NTT[:, 0] == 0).all(-1).float().mean().item()
    yield at_most(0.06, abs(empty - ask.rate), "the first row is emptied as often as the rate says, but for")


LESSON = Lesson(
    system=20,
    title="Dropout",
    posts=(PART_10, chapter("3.5.2")),
    request=DropoutRequest,
    reply=DropoutReply,
    answer=answer,
    checks=checks,
    breaks="do not let what is kept grow",
    code=("model/dropout.py: Dropout", "model/attention.py: Heads.forward", "app/lessons/dropout.py: drawn"),
    needs="learned positions and dropout in its training",
    fits=lambda config: config.positions == "learned",
)
