"""S11: every position has a vector of its own, whatever token is there."""

# shapes: B texts, T tokens, C positions of the context, S shown positions, M features of a token

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

N_POSITION_FEATURES = 48  # more are hard to distinguish in a picture
N_SWAP_TOKENS = 32  # tokens that are shown when two of them are swapped


class PositionEmbeddingRequest(LessonRequest):
    """The part of the table that is shown, and two tokens that are swapped."""

    n_positions: int = Field(32, title="Positions", ge=4, le=64, description="how many are shown, from position 0 on")
    feature: int = Field(24, ge=0, title="Feature", description="its curve is drawn; features count from 0")
    other_feature: int = Field(40, ge=0, title="Another feature", description="its curve is drawn in the same picture")
    token: Index | None = Field(
        1,
        title="Swap token",
        description="it moves to the position of the other token",
        json_schema_extra={"kind": "token"},
    )
    other_token: Index | None = Field(
        2,
        title="with token",
        description="it moves to the position of the first token",
        json_schema_extra={"kind": "token"},
    )


class PositionEmbeddingResult(LessonResult):
    """The table of position vectors, and what changes when two tokens are swapped."""

    table: Heatmap
    curves: Curves = Field(description="two features of the vectors, over all positions")
    cosines: Heatmap = Field(description="cosine similarities of the vectors of two positions")
    facts: Facts
    swap: Chips = Field(description="the text as it is, and with two tokens swapped")
    changes: Heatmap = Field(description="for each position, the distance of each vector from the one before the swap")


def position_table(reading: Reading, request: PositionEmbeddingRequest) -> Tensor:
    """P, (C, M), float32: one row per position."""
    learned = reading.model.network.positions
    assert isinstance(learned, LearnedPositions)
    table_CM = learned.table.weight.detach().float().cpu()
    return table_CM.roll(1, 0) if request.broken else table_CM


def swapped_order(reading: Reading, request: PositionEmbeddingRequest) -> list[int]:
    """For each position after the swap, the position of its token before."""
    token, other_token = reading.position(request.token), reading.position(request.other_token)
    order = list(range(len(reading.tokens)))
    order[token], order[other_token] = other_token, token
    return order


@torch.inference_mode()
def embed(reading: Reading, ids_T: Tensor) -> tuple[Tensor, Tensor]:
    """The token vectors, and their sums with the position vectors, by the model's own modules; (T, M) each."""
    network = reading.model.network
    token_TM = network.embed(ids_T)
    sum_TM = network.positions.add_positions(token_TM, torch.arange(len(ids_T), device=network.device))
    return token_TM.float().cpu(), sum_TM.float().cpu()


@torch.inference_mode()
def captured_embeddings(reading: Reading, ids_T: Tensor) -> tuple[Tensor, Tensor]:
    """The token vectors, and the input of the first layer, captured in a run of the model; (T, M) each."""
    network, captured = reading.model.network, list[Tensor]()
    with (
        network.embed.register_forward_hook(lambda _, __, x_BTM: captured.append(x_BTM[0].float().cpu())),
        network.blocks[0].register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0][0].float().cpu())),
    ):
        network.hidden(ids_T[None])
    return captured[0], captured[1]


def compute(reading: Reading, request: PositionEmbeddingRequest) -> PositionEmbeddingResult:
    """The table of position vectors, and the text with two tokens swapped."""
    table_CM, order = position_table(reading, request), swapped_order(reading, request)
    (n_context, n_features), n_tokens = table_CM.shape, len(order)
    shown_SM = table_CM[: request.n_positions]
    positions = [str(position) for position in range(len(shown_SM))]
    n_drawn = min(N_POSITION_FEATURES, n_features)
    unit_CM = F.normalize(table_CM, dim=1)
    token_TM, sum_TM = embed(reading, reading.ids_BT[0])
    return PositionEmbeddingResult(
        table=signed(
            f"P: {len(positions)} of {n_context} positions, {n_drawn} of {n_features} features",
            positions,
            [str(feature) for feature in range(n_drawn)],
            shown_SM[:, :n_drawn],
        ),
        curves=_feature_curves(table_CM, (request.feature, request.other_feature), n_tokens),
        cosines=signed(
            f"Cosine similarity of {len(positions)} of the {n_context} position vectors",
            positions,
            positions,
            unit_CM[: request.n_positions] @ unit_CM[: request.n_positions].T,
        ),
        facts=facts(
            "The table of position vectors",
            {
                "positions, as many as the context has": float(n_context),
                "parameters in P": float(table_CM.numel()),
                "mean length of a position vector": table_CM.norm(dim=1).mean().item(),
                "mean length of this text's token vectors": token_TM.norm(dim=1).mean().item(),
                "mean cosine similarity of neighbours": _mean_cosine(unit_CM, 1),
                "mean cosine similarity, 8 positions apart": _mean_cosine(unit_CM, 8),
                "mean cosine similarity, 32 positions apart": _mean_cosine(unit_CM, 32),
            },
        ),
        swap=_swap_chips([token_label(token.bytes) for token in reading.tokens.tokens], order),
        changes=_changes(token_TM, sum_TM, *embed(reading, reading.ids_BT[0, order])),
    )


def _feature_curves(table_CM: Tensor, features: tuple[int, int], n_tokens: int) -> Curves:
    """Two columns of the table, with a marker at the end of the text."""
    n_context, n_features = table_CM.shape
    drawn = [min(feature, n_features - 1) for feature in features]
    return Curves(
        title=f"Features {drawn[0]} and {drawn[1]} of all {n_context} position vectors",
        x_axis="position",
        lines=[
            Line(name=f"feature {feature}", x=list(map(float, range(n_context))), y=numbers(table_CM[:, feature]))
            for feature in drawn
        ],
        marker=float(n_tokens - 1),
    )


def _swap_chips(texts: list[str], order: list[int]) -> Chips:
    """The first tokens as they are, and in another order, each with its position."""

    def chips(order: list[int]) -> list[Chip]:
        return [
            Chip(text=texts[before], about=f"position {position}" + f", was at {before}" * (before != position))
            for position, before in enumerate(order[:N_SWAP_TOKENS])
        ]

    return Chips(
        title="The text, and the text with two tokens swapped",
        rows=[
            ChipRow(name="original", chips=chips(list(range(len(order))))),
            ChipRow(name="swapped", chips=chips(order)),
        ],
    )


def _changes(token_TM: Tensor, sum_TM: Tensor, swapped_token_TM: Tensor, swapped_sum_TM: Tensor) -> Heatmap:
    """How far the token vector, the position vector and the sum move at each position."""
    token_change_TM, sum_change_TM = swapped_token_TM - token_TM, swapped_sum_TM - sum_TM
    changes_3T = torch.stack(
        [x_TM.norm(dim=1) for x_TM in (token_change_TM, sum_change_TM - token_change_TM, sum_change_TM)]
    )
    n_tokens = min(N_SWAP_TOKENS, len(token_TM))
    return signed(
        f"Distance between the vectors before and after the swap, {n_tokens} positions",
        ["token", "position", "sum"],
        [str(position) for position in range(n_tokens)],
        changes_3T[:, :n_tokens],
    )


def _mean_cosine(unit_CM: Tensor, distance: int) -> float:
    """The mean cosine of all pairs of positions at this distance; NaN if the context is too short for any."""
    return (unit_CM[:-distance] * unit_CM[distance:]).sum(1).mean().item()


def checks(reading: Reading, request: PositionEmbeddingRequest) -> Iterator[Check]:
    """The model adds row i of P to the token at position i, whatever that token is."""
    table_CM, ids_T = position_table(reading, request), reading.ids_BT[0]
    row_TM = table_CM[: len(ids_T)]
    token_TM, sum_TM = captured_embeddings(reading, ids_T)
    order = swapped_order(reading, request)
    other_ids_T = (7 * ids_T + 1 + torch.arange(len(ids_T)).to(ids_T)) % reading.config.n_vocab
    other_token_TM, other_sum_TM = captured_embeddings(reading, other_ids_T)
    swapped_token_TM, swapped_sum_TM = captured_embeddings(reading, ids_T[order])
    stored, scale = Arithmetic(dtype=reading.dtype), largest(sum_TM, other_sum_TM, swapped_sum_TM)
    yield equal("the input of the first layer minus the token vectors is P", sum_TM - token_TM, row_TM, stored, scale)
    yield equal(
        "it is the same for another text of this length",
        other_sum_TM - other_token_TM,
        sum_TM - token_TM,
        stored,
        scale,
    )
    yield at_most(0, largest(swapped_token_TM - token_TM[order]), "token vectors move with the swapped tokens")
    yield equal("position vectors stay where they are", swapped_sum_TM - swapped_token_TM, row_TM, stored, scale)
    difference = abs(len(table_CM) - reading.config.n_context)
    yield at_most(0, float(difference), "P has as many rows as the context has positions")


LESSON = Lesson(
    number=11,
    title="Position vectors",
    posts=(PART_3, PART_6B, chapter("2.8")),
    request_type=PositionEmbeddingRequest,
    result_type=PositionEmbeddingResult,
    compute=compute,
    checks=checks,
    break_description="give each position the vector of the one before it",
    code_references=(
        "model/positions.py: LearnedPositions",
        "app/lessons/position_embedding.py: position_table, captured_embeddings",
    ),
    requirement="learned positions",
    is_supported_by=lambda config: config.positions == "learned",
)
