"""S11: a vector for every place of the context, the same whatever stands there."""

# shapes: B texts, T tokens, C positions of the context, S of them, those that are shown, M features of a token

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_most, equal, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Chip, ChipRow, Chips, Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import PART_3, PART_6B, chapter
from app.schemas import Index
from model.positions import LearnedPositions
from model.tokenizer import token_label

N_FEATURES = 48  # that can be told apart in a picture
N_WORDS = 32  # that are shown when two of them change places


class PositionEmbeddingRequest(LessonRequest):
    """Which part of the table is shown, and two tokens that change places."""

    shown: int = Field(32, title="Positions", ge=4, le=64, description="how many of them are shown, from the first on")
    feature: int = Field(24, ge=0, title="Feature", description="the one whose curve is drawn, counted from 0")
    beside: int = Field(40, ge=0, title="Another feature", description="drawn beside it")
    one: Index | None = Field(
        1, title="This token", description="changes places with the other one", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        2, title="and this one", description="the last if left out", json_schema_extra={"kind": "token"}
    )


class PositionEmbeddingResult(LessonResult):
    """The table of positions from three sides, and what moves when words do."""

    table: Heatmap
    curves: Curves = Field(description="two features of the vectors, over all positions")
    cosines: Heatmap = Field(description="between the vectors of two positions")
    facts: Facts
    order: Chips = Field(description="the text as it is, and with two tokens swapped")
    moved: Heatmap = Field(description="at each place, how far each vector is from what it was before")


def positions(reading: Reading, request: PositionEmbeddingRequest) -> Tensor:
    """P, (C, M), float32: a row for each position."""
    learned = reading.model.network.positions
    assert isinstance(learned, LearnedPositions)
    table_CM = learned.table.weight.detach().float().cpu()
    return table_CM.roll(1, 0) if request.broken else table_CM


def swapped(reading: Reading, request: PositionEmbeddingRequest) -> list[int]:
    """For each place, where the token that comes to stand there stood before."""
    one, other = reading.position(request.one), reading.position(request.other)
    order = list(range(len(reading.tokens)))
    order[one], order[other] = other, one
    return order


@torch.inference_mode()
def placed(reading: Reading, ids_T: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens' vectors, and the same with their positions' added, by the network's own parts; (T, M) each."""
    network = reading.model.network
    token_TM = network.embed(ids_T)
    sum_TM = network.positions.add_positions(token_TM, torch.arange(len(ids_T), device=network.device))
    return token_TM.float().cpu(), sum_TM.float().cpu()


@torch.inference_mode()
def captured(reading: Reading, ids_T: Tensor) -> tuple[Tensor, Tensor]:
    """The same where it runs: what leaves its table of tokens, and what its first block gets; (T, M) each."""
    network, found = reading.model.network, list[Tensor]()
    with (
        network.embed.register_forward_hook(lambda _, __, x_BTM: found.append(x_BTM[0].float().cpu())),
        network.blocks[0].register_forward_pre_hook(lambda _, given: found.append(given[0][0].float().cpu())),
    ):
        network.hidden(ids_T[None])
    return found[0], found[1]


def compute(reading: Reading, request: PositionEmbeddingRequest) -> PositionEmbeddingResult:
    """The table, and the text with two tokens swapped."""
    table_CM = positions(reading, request)
    n_context, n_features = table_CM.shape
    part_SM = table_CM[: request.shown]
    places = [str(place) for place in range(len(part_SM))]
    n_shown = min(N_FEATURES, n_features)
    drawn = [min(feature, n_features - 1) for feature in (request.feature, request.beside)]
    unit_CM = F.normalize(table_CM, dim=1)

    order, token_labels = swapped(reading, request), [token_label(token.bytes) for token in reading.tokens.tokens]
    before, after = (placed(reading, ids_T) for ids_T in (reading.ids_BT[0], reading.ids_BT[0, order]))
    token_TM, sum_TM = (now_TM - then_TM for then_TM, now_TM in zip(before, after, strict=True))
    moved_3T = torch.stack([x_TM.norm(dim=1) for x_TM in (token_TM, sum_TM - token_TM, sum_TM)])
    n_words = min(N_WORDS, len(order))
    return PositionEmbeddingResult(
        table=signed(
            f"P: {len(places)} of {n_context} positions, {n_shown} of {n_features} features",
            places,
            [str(feature) for feature in range(n_shown)],
            part_SM[:, :n_shown],
        ),
        curves=Curves(
            title=f"features {drawn[0]} and {drawn[1]} over all {n_context} positions",
            x_axis="position",
            lines=[
                Line(name=f"feature {feature}", x=list(map(float, range(n_context))), y=numbers(table_CM[:, feature]))
                for feature in drawn
            ],
            marker=float(len(order) - 1),
        ),
        cosines=signed(
            f"cosines of {len(places)} of the {n_context} vectors",
            places,
            places,
            unit_CM[: request.shown] @ unit_CM[: request.shown].T,
        ),
        facts=facts(
            "in numbers",
            {
                "positions, as many as the context has": float(n_context),
                "numbers in P": float(table_CM.numel()),
                "mean length of a position's vector": table_CM.norm(dim=1).mean().item(),
                "mean length of this text's token vectors": before[0].norm(dim=1).mean().item(),
                "mean cosine of two neighbours": _cosine_apart(unit_CM, 1),
                "mean cosine, 8 apart": _cosine_apart(unit_CM, 8),
                "mean cosine, 32 apart": _cosine_apart(unit_CM, 32),
            },
        ),
        order=Chips(
            title="the text, and with two tokens swapped",
            rows=[
                ChipRow(
                    name=name,
                    chips=[
                        Chip(
                            text=token_labels[was], about=f"P[{at}], number {at + 1}" + f", was at {was}" * (was != at)
                        )
                        for at, was in enumerate(come_from[:n_words])
                    ],
                )
                for name, come_from in (("read", list(range(len(order)))), ("swapped", order))
            ],
        ),
        moved=signed(
            f"how far the vectors at each of {n_words} places move",
            ["token", "position", "sum"],
            [str(place) for place in range(n_words)],
            moved_3T[:, :n_words],
        ),
    )


def _cosine_apart(unit_CM: Tensor, apart: int) -> float:
    """The mean cosine of all pairs of positions that are so far apart; not a number where the context has none."""
    return (unit_CM[:-apart] * unit_CM[apart:]).sum(1).mean().item()


def checks(reading: Reading, request: PositionEmbeddingRequest) -> Iterator[Check]:
    """What the running network adds to its tokens is P, row by row, whatever the tokens are."""
    table_CM, ids_T = positions(reading, request), reading.ids_BT[0]
    row_TM = table_CM[: len(ids_T)]
    token_TM, sum_TM = captured(reading, ids_T)
    order = swapped(reading, request)
    other_TM, with_TM = captured(reading, (7 * ids_T + 1 + torch.arange(len(ids_T)).to(ids_T)) % reading.config.n_vocab)
    exchanged_TM, swapped_TM = captured(reading, ids_T[order])
    stored, scale = Arithmetic(dtype=reading.dtype), largest(sum_TM, with_TM, swapped_TM)
    yield equal("what block 0 gets minus the tokens differs from P by", sum_TM - token_TM, row_TM, stored, scale)
    yield equal("in another text of this length it differs by", with_TM - other_TM, sum_TM - token_TM, stored, scale)
    yield at_most(
        0, largest(exchanged_TM - token_TM[order]), "when two tokens are swapped, their own vectors stay behind by"
    )
    yield equal("and the positions' vectors move by", swapped_TM - exchanged_TM, row_TM, stored, scale)
    unlike = abs(len(table_CM) - reading.config.n_context)
    yield at_most(0, float(unlike), "P has as many rows as the context has positions, to within")


LESSON = Lesson(
    system=11,
    title="Position vectors",
    posts=(PART_3, PART_6B, chapter("2.8")),
    request_type=PositionEmbeddingRequest,
    result_type=PositionEmbeddingResult,
    compute=compute,
    checks=checks,
    breaks="give each position the vector of the one before it",
    code=("model/positions.py: LearnedPositions", "app/lessons/position_embedding.py: positions, captured"),
    needs="learned positions",
    fits=lambda config: config.positions == "learned",
)
