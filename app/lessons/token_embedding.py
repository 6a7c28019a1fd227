"""S10: a token's vector is a row of a table; its id is the number of the row."""

# shapes: T tokens, V tokens of the vocabulary, M features of a token, X chosen tokens

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, does_not_apply, largest
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import PART_2, PART_3, chapter
from app.schemas import Index

N_VECTORS_DRAWN, N_VECTOR_FEATURES = 32, 64  # more are hard to distinguish in a picture
N_TABLE_ROWS = 7  # rows of the table that are shown, with the chosen one in the middle
N_ROWS_CHECKED = 16  # different tokens

Similarity = Literal["cosine", "dot product"]


class TokenEmbeddingRequest(LessonRequest):
    """A token to look up, a token to compare it with, and a measure of similarity."""

    token: Index | None = Field(
        0, title="Token", description="its row of the table is looked up", json_schema_extra={"kind": "token"}
    )
    other_token: Index | None = Field(
        None,
        title="Compare with",
        description="its row is shown beside that of the token; at first it is the next token with the same id",
        json_schema_extra={"kind": "token", "empty_label": "the same token"},
    )
    similarity: Similarity = Field("cosine", title="Similarity", description="the neighbours are ranked by it")
    n_neighbours: int = Field(10, title="Neighbours", ge=3, le=24, description="how many of them are shown")


class TokenEmbeddingResult(LessonResult):
    """The rows of the text's tokens, the rows around one of them in the table, and its nearest neighbours."""

    token_ids: Chips
    vectors: Heatmap
    table_rows: Heatmap = Field(description="rows of the table, each with its entry in the one-hot vector")
    one_hot_facts: Facts
    neighbours: Bars = Field(description="the tokens of the vocabulary that are most similar to the chosen one")
    pair: Heatmap = Field(description="two rows, and the first minus the second")
    pair_facts: Facts


def table(reading: Reading) -> Tensor:
    """E, (V, M), float32, on the model's device; the caller must not change it."""
    return reading.model.network.embed.weight.detach().float()


def row_ids(reading: Reading, request: TokenEmbeddingRequest) -> Tensor:
    """The numbers of the rows that are looked up, (T,): the ids of the tokens."""
    return (reading.ids_BT[0] + 1) % reading.config.n_vocab if request.broken else reading.ids_BT[0]


def one_hot_product(table_VM: Tensor, ids_X: Tensor) -> Tensor:
    """One-hot vectors times the table, (X, M): each multiplies every row by 0, except one."""
    return F.one_hot(ids_X, len(table_VM)).float() @ table_VM


def similarities(table_VM: Tensor, x_M: Tensor, similarity: Similarity) -> Tensor:
    """The similarity of each token of the vocabulary to a vector, (V,)."""
    dot_V = table_VM @ x_M
    if similarity == "dot product":
        return dot_V
    lengths_V: Tensor = torch.linalg.vector_norm(table_VM, dim=1) * x_M.norm()
    return dot_V / lengths_V.clamp_min(1e-12)


def second_token(reading: Reading, request: TokenEmbeddingRequest, token: int) -> int | None:
    """The position of the second token; if none is requested, the next token with the same id, or None."""
    return reading.next_same_token(token) if request.other_token is None else reading.position(request.other_token)


@torch.inference_mode()
def compute(reading: Reading, request: TokenEmbeddingRequest) -> TokenEmbeddingResult:
    """The rows of the tokens, how a one-hot vector selects one of them, and its nearest neighbours."""
    table_VM, ids_T, labels = table(reading), row_ids(reading, request), reading.token_labels
    x_TM = table_VM[ids_T]
    token = reading.position(request.token)
    pair, pair_facts = _compare(labels, ids_T, x_TM, token, second_token(reading, request, token))
    chips = [Chip(text=label, about=f"row {id}") for label, id in zip(labels, ids_T.tolist(), strict=True)]
    columns, features = _drawn_features(x_TM)
    n_drawn = min(N_VECTORS_DRAWN, len(labels))
    return TokenEmbeddingResult(
        token_ids=Chips(title="Each token and its row of E", rows=[ChipRow(name="", chips=chips)]),
        vectors=signed(
            f"Rows of E, ({len(labels)} × {x_TM.shape[1]}): first {n_drawn} tokens, {features}",
            labels[:n_drawn],
            columns,
            x_TM[:n_drawn, : len(columns)],
        ),
        table_rows=_table_rows(table_VM, int(ids_T[token])),
        one_hot_facts=_one_hot_facts(f"One-hot vector × E for {labels[token]}", table_VM, ids_T[token : token + 1]),
        neighbours=_neighbours(reading, request, table_VM, int(ids_T[token])),
        pair=pair,
        pair_facts=pair_facts,
    )


def _drawn_features(x_XM: Tensor) -> tuple[list[str], str]:
    """The numbers of the features that are drawn, and words for them."""
    n_features = x_XM.shape[1]
    n_drawn = min(N_VECTOR_FEATURES, n_features)
    return [str(feature) for feature in range(n_drawn)], f"first {n_drawn} of {n_features} features"


def _table_rows(table_VM: Tensor, row: int) -> Heatmap:
    """The rows of the table around a row, each with its entry in the one-hot vector."""
    n_vocab = len(table_VM)
    first = max(0, min(row - N_TABLE_ROWS // 2, n_vocab - N_TABLE_ROWS))
    rows = range(first, min(first + N_TABLE_ROWS, n_vocab))
    columns, features = _drawn_features(table_VM)
    return signed(
        f"Rows of E around row {row}, each times its entry in the one-hot vector; {features}",
        [f"{float(index == row):.0f} × {index}" for index in rows],
        columns,
        table_VM[rows.start : rows.stop, : len(columns)],
    )


def _one_hot_facts(title: str, table_VM: Tensor, ids_X: Tensor) -> Facts:
    """The work of a product with a one-hot vector compared with a lookup, and the difference of their results."""
    x_M, product_M = table_VM[ids_X[0]], one_hot_product(table_VM, ids_X)[0]
    return facts(
        title,
        {
            "multiplications": float(table_VM.numel()),
            "multiplications by 1": float(table_VM.shape[1]),
            "numbers read by a lookup": float(x_M.numel()),
            "largest difference between one-hot × E and the row": (product_M - x_M).abs().max().item(),
        },
    )


def _neighbours(reading: Reading, request: TokenEmbeddingRequest, table_VM: Tensor, row: int) -> Bars:
    """The tokens of the vocabulary that are most similar to that of a row."""
    n_vocab = len(table_VM)
    nearest = similarities(table_VM, table_VM[row], request.similarity).topk(min(request.n_neighbours, n_vocab))
    label = reading.token_labels[reading.position(request.token)]
    return Bars(
        title=f"Nearest neighbours of {label} among {n_vocab:,} tokens, by {request.similarity}",
        labels=reading.ranked_labels(nearest.indices),
        values=numbers(nearest.values),
        chosen=next((rank for rank, id in enumerate(nearest.indices.tolist()) if id == row), None),
    )


def _compare(
    labels: list[str], ids_T: Tensor, x_TM: Tensor, token: int, other_token: int | None
) -> tuple[Heatmap, Facts]:
    """The rows of two tokens with their difference, and its numbers; one row if there is no second token."""
    columns, features = _drawn_features(x_TM)
    if other_token is None:
        return (
            signed(f"{labels[token]}; {features}", [labels[token]], columns, x_TM[token : token + 1, : len(columns)]),
            facts(labels[token], {"the same token again": "nowhere in this text: choose another one"}),
        )
    pair_3M = torch.stack((x_TM[token], x_TM[other_token], x_TM[token] - x_TM[other_token]))
    pair = signed(
        f"{labels[token]}, {labels[other_token]} and their difference; {features}",
        [labels[token], labels[other_token], "difference"],
        columns,
        pair_3M[:, : len(columns)],
    )
    return pair, facts(
        f"{labels[token]} and {labels[other_token]}, all {x_TM.shape[1]} features",
        {
            "row of the first": float(ids_T[token]),
            "row of the second": float(ids_T[other_token]),
            "largest difference": largest(pair_3M[2]),
            "cosine similarity": F.cosine_similarity(x_TM[token], x_TM[other_token], dim=0).item(),
            "length of the first": x_TM[token].norm().item(),
            "length of the second": x_TM[other_token].norm().item(),
        },
    )


@torch.inference_mode()
def checks(reading: Reading, request: TokenEmbeddingRequest) -> Iterator[Check]:
    """The rows are what the model looks up and what one-hot vectors select; each is its own nearest neighbour."""
    table_VM, ids = table(reading), reading.tokens.ids
    x_TM = table_VM[row_ids(reading, request)]
    embedded_TM = _looked_up(reading)
    yield at_most(0, (x_TM - embedded_TM).abs().max().item(), "the rows of E are what the model looks up")
    first_positions = [ids.index(id) for id in dict.fromkeys(ids)][:N_ROWS_CHECKED]
    product_XM = one_hot_product(table_VM, reading.ids_BT[0, first_positions])
    yield at_most(
        0,
        (product_XM - x_TM[first_positions]).abs().max().item(),
        f"the rows of the first {N_ROWS_CHECKED} different tokens are one-hot vectors times E",
    )
    pairs = [(i, ids.index(id)) for i, id in enumerate(ids) if ids.index(id) < i]
    name = "the model looks up equal vectors for tokens with the same id"
    if pairs:
        yield at_most(0, max(largest(embedded_TM[i] - embedded_TM[j]) for i, j in pairs), name)
    else:
        yield does_not_apply(name, "no two tokens of this text are the same")
    token = reading.position(request.token)
    cosine_V = similarities(table_VM, x_TM[token], "cosine")
    own = cosine_V[ids[token]].item()
    error = Arithmetic(n_terms=x_TM.shape[1]).error()
    yield at_least(1 - error, own, "the vector of the chosen token has cosine 1 with the row of its id")
    yield at_most(error, cosine_V.max().item() - own, "no other row has a larger cosine with it")


def _looked_up(reading: Reading) -> Tensor:
    """The token vectors in a run of the model, (T, M)."""
    captured: list[Tensor] = []
    network = reading.model.network
    with network.embed.register_forward_hook(lambda _, __, x_BTM: captured.append(x_BTM[0].float())):
        reading.capture(0, network.blocks[0])
    return captured[0]


LESSON = Lesson(
    number=10,
    title="Token vectors",
    posts=(PART_2, PART_3, chapter("2.7")),
    request_type=TokenEmbeddingRequest,
    result_type=TokenEmbeddingResult,
    compute=compute,
    checks=checks,
    break_description="read the row of the next id",
    code_references=("model/gpt.py: GPT.embed", "app/lessons/token_embedding.py: one_hot_product, similarities"),
)
