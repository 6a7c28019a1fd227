"""S12: the first layer gets each token's vector plus its position's vector, so two equal tokens differ."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from app.experiments.base import Lesson, panel
from app.experiments.checks import Arithmetic, Check, at_most, equal, largest
from app.experiments.controls import Slider
from app.experiments.panels import Facts, Heatmap, facts, probabilities, signed
from app.lessons.embeddings import PairControls, PairWork, one_hot_product, position_table
from app.lessons.geometry import cosines
from app.lessons.posts import PART_3, PART_6B, chapter


class InputEmbeddingControls(PairControls):
    """Two tokens, and the factor of the position vectors."""

    position_scale: Annotated[
        float, Slider(0, 2, 0.05, "Position factor", "0 leaves position vectors out, 1 is what the model does")
    ] = 1.0


class InputEmbeddingWork(PairWork):
    """The vectors of both tokens, and how similar all tokens are."""

    controls: InputEmbeddingControls

    @cached_property
    def position_TM(self) -> Tensor:
        """The position vectors, not scaled."""
        return position_table(self)[: len(self.tokens)]

    @cached_property
    def sum_TM(self) -> Tensor:
        """The token vectors plus the scaled position vectors."""
        return self.embeddings_TM + self.controls.position_scale * self.position_TM

    @property
    def sum_name(self) -> str:
        """The sum in words."""
        return f"token + {self.controls.position_scale:g} · position"

    def cosine_map(self, title: str, x_TM: Tensor) -> Heatmap:
        """The cosine similarities of all pairs of tokens."""
        title, labels = f"Cosine similarity of the {title}", self.token_labels
        return signed(title, labels, labels, cosines(x_TM), selects=("token", "other_token"))

    @panel
    def vectors(self) -> Heatmap:
        """Token vector, position vector and their sum, for both tokens."""
        chosen = {self.token_labels[self.token]: self.token}
        if self.other_token is not None:
            again = " again" * (self.token == self.other_token)
            chosen[self.token_labels[self.other_token] + again] = self.other_token
        kinds = {
            "token": self.embeddings_TM,
            "position": self.controls.position_scale * self.position_TM,
            "sum": self.sum_TM,
        }
        rows = {f"{label}: {kind}": kinds[kind][position] for label, position in chosen.items() for kind in kinds}
        features = [str(feature) for feature in range(self.config.d_model)]
        title = f"Vectors of {' and '.join(chosen)}, {len(features)} features"
        return signed(title, [*rows], features, torch.stack([*rows.values()]))

    @panel
    def token_cosines(self) -> Heatmap:
        """Cosine similarities of the token vectors alone."""
        return self.cosine_map("token vectors", self.embeddings_TM)

    @panel
    def sum_cosines(self) -> Heatmap:
        """Cosine similarities of the sums."""
        return self.cosine_map(f"sums, {self.sum_name}", self.sum_TM)

    @panel
    def weights(self) -> Heatmap:
        """The weights of attention without trainable weights, computed from the sums."""
        title, labels = f"Attention weights softmax(x · x), where x is {self.sum_name}", self.token_labels
        weight_TT = (self.sum_TM @ self.sum_TM.T).softmax(-1)
        return probabilities(title, labels, labels, weight_TT, selects=("token", "other_token"))

    @panel
    def facts(self) -> Facts:
        """Cosine similarity and dot product of the two tokens, without positions and with them."""
        token, other_token = self.token, self.other_token
        if other_token is None:
            return self.only_once()
        named = {}
        for kind, x_TM in (("token vectors", self.embeddings_TM), ("sums", self.sum_TM)):
            named[f"cosine similarity, {kind}"] = cosines(x_TM)[token, other_token].item()
            named[f"dot product, {kind}"] = (x_TM[token] @ x_TM[other_token]).item()
        return facts(f"{self.token_labels[token]} and {self.token_labels[other_token]}", named)

    def checks(self) -> Iterator[Check]:
        """The sums are the input of the first layer; equal tokens differ only by their positions."""
        token_TM, sum_TM = self.embeddings_TM, self.embeddings_TM + self.position_TM
        stored = Arithmetic(dtype=self.dtype)
        yield equal("token + position is the input of the first layer", sum_TM, self.observed_TM, stored)
        product_TM = one_hot_product(self.network.embed.weight.detach().float(), self.ids_T)
        yield at_most(0, largest(product_TM.cpu() - token_TM), "the token vectors are one-hot vectors times the table")
        name = "without positions, equal tokens have equal vectors"
        yield self.equal_token_check(0, name, lambda i, j: (token_TM[i] - token_TM[j]).abs())
        name = "with positions, the cosine of equal tokens is below 1"
        limit = 1 - Arithmetic(n_terms=self.config.d_model).error()
        yield self.equal_token_check(limit, name, lambda i, j: cosines(sum_TM)[i, j])


EXPERIMENT = Lesson(
    number=12,
    title="Token + position",
    posts=(PART_6B, PART_3, chapter("2.8")),
    work=InputEmbeddingWork,
    break_description="add the vector of the previous position to each token",
    code_references=("model/positions.py: LearnedPositions", "app/lessons/input_embedding.py: InputEmbeddingWork"),
    requirement="learned positions",
    is_supported_by=lambda config: config.positions == "learned",
)
