"""S10: a token's vector is a row of a table; its id is the number of the row."""

# shapes: T tokens, V tokens of the vocabulary, M features of a token, X chosen tokens

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from app.experiments.base import Lesson, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, largest
from app.experiments.controls import Choice, Slider
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Facts, Heatmap, facts, numbers, signed
from app.lessons.embeddings import PairControls, PairWork, one_hot_product
from app.lessons.posts import PART_2, PART_3, chapter

N_VECTORS_DRAWN, N_VECTOR_FEATURES = 32, 64  # more are hard to distinguish in a picture
N_TABLE_ROWS = 7  # rows of the table that are shown, with the chosen one in the middle
N_ROWS_CHECKED = 16  # different tokens

Similarity = Literal["cosine", "dot product"]


class TokenEmbeddingControls(PairControls):
    """A token to look up, a token to compare it with, and a measure of similarity."""

    similarity: Annotated[Similarity, Choice("Similarity", "the neighbours are ranked by it")] = "cosine"
    n_neighbours: Annotated[int, Slider(3, 24, 1, "Neighbours", "how many of them are shown")] = 10


def similarities(table_VM: Tensor, x_M: Tensor, similarity: Similarity) -> Tensor:
    """The similarity of each token of the vocabulary to a vector, (V,)."""
    dot_V = table_VM @ x_M
    if similarity == "dot product":
        return dot_V
    lengths_V: Tensor = torch.linalg.vector_norm(table_VM, dim=1) * x_M.norm()
    return dot_V / lengths_V.clamp_min(1e-12)


class TokenEmbeddingWork(PairWork):
    """The rows of the text's tokens, the rows around one of them in the table, and its nearest neighbours."""

    controls: TokenEmbeddingControls

    @cached_property
    def table_VM(self) -> Tensor:
        """E, float32, on the model's device."""
        return self.network.embed.weight.detach().float()

    @cached_property
    def row_T(self) -> Tensor:
        """The rows of the table that are looked up: the ids of the tokens."""
        return (self.ids_T + self.controls.broken) % len(self.table_VM)

    @cached_property
    def x_TM(self) -> Tensor:
        """The vectors of the tokens."""
        return self.table_VM[self.row_T]

    @property
    def row(self) -> int:
        """The row of the chosen token."""
        return int(self.row_T[self.token])

    def heatmap(self, title: str, labels: Sequence[str], x_XM: Tensor) -> Heatmap:
        """The first features of some vectors."""
        drawn_XM, n_features = x_XM[:, :N_VECTOR_FEATURES], x_XM.shape[1]
        columns = [str(feature) for feature in range(drawn_XM.shape[1])]
        return signed(f"{title} first {len(columns)} of {n_features} features", labels, columns, drawn_XM)

    @panel
    def token_ids(self) -> Chips:
        """The number of each token's row."""
        named = zip(self.token_labels, self.row_T.tolist(), strict=True)
        chips = [Chip(text=label, about=f"row {row}") for label, row in named]
        return Chips(title="Each token and its row of E", rows=[ChipRow(name="", chips=chips)])

    @panel
    def vectors(self) -> Heatmap:
        """The rows of the text's first tokens."""
        labels, shape = self.token_labels[:N_VECTORS_DRAWN], f"({len(self.x_TM)} × {self.x_TM.shape[1]})"
        title = f"Rows of E, {shape}: first {len(labels)} tokens,"
        return self.heatmap(title, labels, self.x_TM[:N_VECTORS_DRAWN])

    @panel
    def table_rows(self) -> Heatmap:
        """Rows of the table, each with its entry in the one-hot vector."""
        row, n_vocab = self.row, len(self.table_VM)
        first = max(0, min(row - N_TABLE_ROWS // 2, n_vocab - N_TABLE_ROWS))
        rows = range(first, min(first + N_TABLE_ROWS, n_vocab))
        title = f"Rows of E around row {row}, each times its entry in the one-hot vector;"
        labels = [f"{index == row:d} × {index}" for index in rows]
        return self.heatmap(title, labels, self.table_VM[rows.start : rows.stop])

    @panel
    def one_hot_facts(self) -> Facts:
        """The work of a product with a one-hot vector compared with a lookup, and the difference of their results."""
        x_M, product_M = self.x_TM[self.token], one_hot_product(self.table_VM, self.row_T[self.token][None])[0]
        named = {
            "multiplications": self.table_VM.numel(),
            "multiplications by 1": len(x_M),
            "numbers read by a lookup": len(x_M),
            "largest difference between one-hot × E and the row": largest(product_M - x_M),
        }
        return facts(f"One-hot vector × E for {self.token_labels[self.token]}", named)

    @panel
    def neighbours(self) -> Bars:
        """The tokens of the vocabulary that are most similar to the chosen one."""
        similarity, n_vocab = self.controls.similarity, len(self.table_VM)
        similarity_V = similarities(self.table_VM, self.x_TM[self.token], similarity)
        nearest = similarity_V.topk(min(self.controls.n_neighbours, n_vocab))
        ids, label = nearest.indices.tolist(), self.token_labels[self.token]
        return Bars(
            title=f"Nearest neighbours of {label} among {n_vocab:,} tokens, by {similarity}",
            labels=self.ranked_labels(nearest.indices),
            values=numbers(nearest.values),
            chosen=ids.index(self.row) if self.row in ids else None,
        )

    @panel
    def pair(self) -> Heatmap:
        """Two rows, and the first minus the second; one row if there is no second token."""
        label, x_M = self.token_labels[self.token], self.x_TM[self.token]
        if self.other_token is None:
            return self.heatmap(f"{label};", [label], x_M[None])
        other_label, y_M = self.token_labels[self.other_token], self.x_TM[self.other_token]
        labels = [label, other_label, "difference"]
        return self.heatmap(f"{label}, {other_label} and their difference;", labels, torch.stack((x_M, y_M, x_M - y_M)))

    @panel
    def pair_facts(self) -> Facts:
        """The rows of both tokens, and how similar they are."""
        if self.other_token is None:
            return self.only_once()
        pair = [self.token, self.other_token]
        x_M, y_M = self.x_TM[pair]
        row, other_row = self.row_T[pair].tolist()
        named = {
            "row of the first": row,
            "row of the second": other_row,
            "largest difference": largest(x_M - y_M),
            "cosine similarity": F.cosine_similarity(x_M, y_M, dim=0).item(),
            "length of the first": x_M.norm().item(),
            "length of the second": y_M.norm().item(),
        }
        first, second = (self.token_labels[position] for position in pair)
        return facts(f"{first} and {second}, all {len(x_M)} features", named)

    @torch.inference_mode()
    def checks(self) -> Iterator[Check]:
        """The rows are what the model looks up and what one-hot vectors select; each is its own nearest neighbour."""
        x_TM, ids, position_T = self.x_TM, self.tokens.ids, torch.arange(len(self.tokens)).to(self.ids_T)
        input_TM = self.network.positions.add_positions(x_TM.to(self.dtype), position_T)
        yield at_most(0, largest(input_TM - self.observed_TM), "the rows of E are what the model looks up")
        first_X = [ids.index(id) for id in dict.fromkeys(ids)][:N_ROWS_CHECKED]
        product_XM = one_hot_product(self.table_VM, self.ids_T[first_X])
        name = f"the rows of the first {N_ROWS_CHECKED} different tokens are one-hot vectors times E"
        yield at_most(0, largest(product_XM - x_TM[first_X]), name)
        name = "the model looks up equal vectors for tokens with the same id"
        embedded_TM = self.network.embed(self.ids_T)
        yield self.equal_token_check(0, name, lambda i, j: (embedded_TM[i] - embedded_TM[j]).abs())
        cosine_V = similarities(self.table_VM, x_TM[self.token], "cosine")
        own, error = cosine_V[ids[self.token]].item(), Arithmetic(n_terms=x_TM.shape[1]).error()
        yield at_least(1 - error, own, "the vector of the chosen token has cosine 1 with the row of its id")
        yield at_most(error, cosine_V.max().item() - own, "no other row has a larger cosine with it")


EXPERIMENT = Lesson(
    number=10,
    title="Token vectors",
    posts=(PART_2, PART_3, chapter("2.7")),
    work=TokenEmbeddingWork,
    break_description="read the row of the next id",
    code_references=("model/gpt.py: GPT.embed", "app/lessons/token_embedding.py: similarities"),
)
