"""S11: every position has a vector of its own, whatever token is there."""

# shapes: T tokens, C positions of the context, S shown positions, M features of a token

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from app.engine import Reading
from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_most, equal, largest
from app.experiments.controls import Controls, NumberField, Slider, TokenOf
from app.experiments.panels import Chip, ChipRow, Chips, Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.embeddings import position_table
from app.lessons.geometry import cosines
from app.lessons.posts import PART_3, PART_6B, chapter
from model.tokenizer import token_label

N_POSITION_FEATURES = 48  # more are hard to distinguish in a picture
N_SWAP_TOKENS = 32  # tokens that are shown when two of them are swapped


class PositionEmbeddingControls(Controls):
    """The part of the table that is shown, and two tokens that are swapped."""

    n_positions: Annotated[int, Slider(4, 64, 1, "Positions", "how many are shown, from position 0 on")] = 32
    feature: Annotated[int, NumberField("Feature", "its curve is drawn; features count from 0")] = 24
    other_feature: Annotated[int, NumberField("Another feature", "its curve is drawn in the same picture")] = 40
    token: Annotated[int | None, TokenOf("Swap token", "it moves to the position of the other token")] = 1
    other_token: Annotated[int | None, TokenOf("with token", "it moves to the position of the first token")] = 2


class PositionEmbeddingWork(Work):
    """The table of position vectors, and what changes when two tokens are swapped."""

    controls: PositionEmbeddingControls

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """What the first layer gets for the text, for other tokens, and for the text with two tokens swapped."""
        texts = {"text": self.ids_T, "others": self.other_ids_T, "swapped": self.ids_T[self.order]}
        yield {name: Reading(tuple(ids_T.tolist()), sites=frozenset({"embedding"})) for name, ids_T in texts.items()}

    @property
    def other_ids_T(self) -> Tensor:
        """The ids of another text of the same length."""
        return (7 * self.ids_T + 1 + torch.arange(len(self.ids_T)).to(self.ids_T)) % self.config.n_vocab

    @cached_property
    def table_CM(self) -> Tensor:
        """The vectors of all positions."""
        return position_table(self)

    @property
    def shown_SM(self) -> Tensor:
        """The vectors of the shown positions."""
        return self.table_CM[: self.controls.n_positions]

    @cached_property
    def order(self) -> list[int]:
        """For each position after the swap, the position of its token before."""
        token, other_token = self.position(self.controls.token), self.position(self.controls.other_token)
        order = list(range(len(self.tokens)))
        order[token], order[other_token] = other_token, token
        return order

    def mean_cosine(self, distance: int) -> float:
        """The mean cosine of all pairs of positions at this distance; NaN if the context is too short for any."""
        table_CM = self.table_CM
        return F.cosine_similarity(table_CM[:-distance], table_CM[distance:]).mean().item()

    @panel
    def table(self) -> Heatmap:
        """The vectors of the first positions, one row per position."""
        drawn_SM, (n_context, n_features) = self.shown_SM[:, :N_POSITION_FEATURES], self.table_CM.shape
        rows, columns = ([str(index) for index in range(n)] for n in drawn_SM.shape)
        title = f"P: {len(rows)} of {n_context} positions, {len(columns)} of {n_features} features"
        return signed(title, rows, columns, drawn_SM)

    @panel
    def curves(self) -> Curves:
        """Two features of the vectors, over all positions; the marker is at the end of the text."""
        n_context, n_features = self.table_CM.shape
        features = [min(index, n_features - 1) for index in (self.controls.feature, self.controls.other_feature)]
        x = list(map(float, range(n_context)))
        return Curves(
            title=f"Features {features[0]} and {features[1]} of all {n_context} position vectors",
            x_axis="position",
            lines=[Line(name=f"feature {index}", x=x, y=numbers(self.table_CM[:, index])) for index in features],
            marker=len(self.tokens) - 1,
        )

    @panel
    def cosines(self) -> Heatmap:
        """Cosine similarities of the vectors of two positions."""
        positions = [str(position) for position in range(len(self.shown_SM))]
        title = f"Cosine similarity of {len(positions)} of the {len(self.table_CM)} position vectors"
        return signed(title, positions, positions, cosines(self.shown_SM))

    @panel
    def facts(self) -> Facts:
        """The size of the table, the lengths of its vectors, and the similarity of positions near and far."""
        named = {
            "positions, as many as the context has": len(self.table_CM),
            "parameters in P": self.table_CM.numel(),
            "mean length of a position vector": self.table_CM.norm(dim=1).mean().item(),
            "mean length of this text's token vectors": self.embeddings_TM.norm(dim=1).mean().item(),
            "mean cosine similarity of neighbours": self.mean_cosine(1),
            "mean cosine similarity, 8 positions apart": self.mean_cosine(8),
            "mean cosine similarity, 32 positions apart": self.mean_cosine(32),
        }
        return facts("The table of position vectors", named)

    @panel
    def swap(self) -> Chips:
        """The first tokens of the text as they are, and with two of them swapped."""
        texts = [token_label(token.bytes) for token in self.tokens.tokens]

        def row(name: str, order: Sequence[int]) -> ChipRow:
            places = [f"position {at}" + f", was at {before}" * (at != before) for at, before in enumerate(order)]
            chips = [Chip(text=texts[before], about=place) for before, place in zip(order, places, strict=True)]
            return ChipRow(name=name, chips=chips[:N_SWAP_TOKENS])

        rows = [row("original", range(len(texts))), row("swapped", self.order)]
        return Chips(title="The text, and the text with two tokens swapped", rows=rows)

    @panel
    @torch.inference_mode()
    def changes(self) -> Heatmap:
        """For each position, the distance of each vector from the one before the swap."""
        add_positions, position_T = self.network.positions.add_positions, torch.arange(len(self.tokens)).to(self.ids_T)
        token_TM = self.network.embed(self.ids_T)
        sum_TM, swapped_TM = (add_positions(x_TM, position_T).float() for x_TM in (token_TM, token_TM[self.order]))
        token_change_TM, sum_change_TM = (token_TM[self.order].float() - token_TM.float()), swapped_TM - sum_TM
        changes = token_change_TM, sum_change_TM - token_change_TM, sum_change_TM
        distance_3T = torch.stack([x_TM.norm(dim=1) for x_TM in changes])[:, :N_SWAP_TOKENS]
        positions = [str(position) for position in range(distance_3T.shape[1])]
        title = f"Distance between the vectors before and after the swap, {len(positions)} positions"
        return signed(title, ["token", "position", "sum"], positions, distance_3T)

    @torch.inference_mode()
    def checks(self) -> Iterator[Check]:
        """The model adds row i of P to the token at position i, whatever that token is."""
        token_TM = self.network.embed(self.ids_T).float()
        swapped_TM = self.network.embed(self.ids_T[self.order]).float()
        sums = {name: trace.observed("embedding").float() for name, trace in self.traces.items()}
        row_TM = self.table_CM[: len(self.tokens)].to(token_TM)
        added_TM, stored, scale = sums["text"] - token_TM, Arithmetic(dtype=self.dtype), largest(*sums.values())
        yield equal("the input of the first layer minus the token vectors is P", added_TM, row_TM, stored, scale)
        other_TM = sums["others"] - self.network.embed(self.other_ids_T).float()
        yield equal("it is the same for another text of this length", other_TM, added_TM, stored, scale)
        yield at_most(0, largest(swapped_TM - token_TM[self.order]), "token vectors move with the swapped tokens")
        yield equal("position vectors stay where they are", sums["swapped"] - swapped_TM, row_TM, stored, scale)
        difference = abs(len(self.table_CM) - self.config.n_context)
        yield at_most(0, difference, "P has as many rows as the context has positions")


EXPERIMENT = Lesson(
    number=11,
    title="Position vectors",
    posts=(PART_3, PART_6B, chapter("2.8")),
    work=PositionEmbeddingWork,
    break_description="give each position the vector of the one before it",
    code_references=("model/positions.py: LearnedPositions", "app/lessons/embeddings.py: position_table"),
    requirement="learned positions",
    is_supported_by=lambda config: config.positions == "learned",
)
