"""S10: a token's vector is a row of a table; its id says which."""

# shapes: T tokens, V tokens of the vocabulary, M features of a token, N rows of the table around one

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

N_ROWS, N_FEATURES = 32, 64  # that can be told apart in a picture
N_AROUND = 7  # rows of the table that are shown with the chosen one among them
N_CHECKED = 16  # different tokens

Measure = Literal["cosine", "dot product"]


class TokenEmbeddingRequest(LessonRequest):
    """A token to look up, one to lay beside it, and what counts as near."""

    one: Index | None = Field(
        0, title="Token", description="the one that is looked up", json_schema_extra={"kind": "token"}
    )
    other: Index | None = Field(
        None,
        title="Laid beside it",
        description="the next one with the same id, if left out and if there is one",
        json_schema_extra={"kind": "token", "empty_label": "the same token"},
    )
    measure: Measure = Field("cosine", title="Near by", description="what is largest for the nearest token")
    n_near: int = Field(10, title="Neighbours", ge=3, le=24)


class TokenEmbeddingResult(LessonResult):
    """The rows of the text's tokens; one of them among its neighbours in the table, and among those in meaning."""

    ids: Chips
    strips: Heatmap
    lookup: Heatmap = Field(description="rows of the table, each with its entry in the one-hot vector")
    product: Facts
    near: Bars = Field(description="the tokens of the vocabulary that are nearest to the chosen one")
    pair: Heatmap = Field(description="two rows, and the first less the second")
    difference: Facts


def table(reading: Reading) -> Tensor:
    """E, (V, M), float32, where the model is; it must not be changed."""
    return reading.model.network.embed.weight.detach().float()


def row_ids(reading: Reading, request: TokenEmbeddingRequest) -> Tensor:
    """Which rows are read, (T,): the tokens' ids."""
    return (reading.ids_BT[0] + 1) % reading.config.n_vocab if request.broken else reading.ids_BT[0]


def one_hot_product(table_VM: Tensor, ids_X: Tensor) -> Tensor:
    """One-hot vectors times the table, (X, M): every row times 0, but for one."""
    return F.one_hot(ids_X, len(table_VM)).float() @ table_VM


def nearness(table_VM: Tensor, x_M: Tensor, measure: Measure) -> Tensor:
    """Of every token of the vocabulary to a vector, (V,)."""
    dot_V = table_VM @ x_M
    if measure == "dot product":
        return dot_V
    lengths_V: Tensor = torch.linalg.vector_norm(table_VM, dim=1) * x_M.norm()
    return dot_V / lengths_V.clamp_min(1e-12)


def beside(reading: Reading, request: TokenEmbeddingRequest, one: int) -> int | None:
    """The second token; where none is chosen, the next one with the same id, or None if there is none."""
    return reading.next_same_token(one) if request.other is None else reading.position(request.other)


@torch.inference_mode()
def compute(reading: Reading, request: TokenEmbeddingRequest) -> TokenEmbeddingResult:
    """The rows, how one is found, and what lies near it."""
    table_VM, ids_T, names = table(reading), row_ids(reading, request), reading.token_labels
    n_vocab, n_features = table_VM.shape
    x_TM = table_VM[ids_T]
    one = reading.position(request.one)
    other = beside(reading, request, one)
    shown = min(N_FEATURES, n_features)
    columns = [str(feature) for feature in range(shown)]
    some = f"first {shown} of {n_features} features"

    row = int(ids_T[one])
    first = max(0, min(row - N_AROUND // 2, n_vocab - N_AROUND))
    around = range(first, min(first + N_AROUND, n_vocab))
    product_M = one_hot_product(table_VM, ids_T[one : one + 1])[0]
    near = nearness(table_VM, x_TM[one], request.measure).topk(min(request.n_near, n_vocab))
    pair, difference = _beside(names, ids_T, x_TM, one, other, shown)
    return TokenEmbeddingResult(
        ids=Chips(
            title="each token and its row of E",
            rows=[
                ChipRow(
                    name="",
                    chips=[Chip(text=name, about=f"row {id}") for name, id in zip(names, ids_T.tolist(), strict=True)],
                )
            ],
        ),
        strips=signed(
            f"rows of E, ({len(names)} × {n_features}): first {min(N_ROWS, len(names))} tokens, {some}",
            names[:N_ROWS],
            columns,
            x_TM[:N_ROWS, :shown],
        ),
        lookup=signed(
            f"E around row {row}, and the one-hot entry of each row; {some}",
            [f"{float(at == row):.0f} × {at}" for at in around],
            columns,
            table_VM[around.start : around.stop, :shown],
        ),
        product=facts(
            f"one-hot × E for {names[one]}",
            {
                "products to be summed": float(n_vocab * n_features),
                "of them not times 0": float(n_features),
                "numbers read by a lookup": float(x_TM[one].numel()),
                "one-hot × E differs from the row by": (product_M - x_TM[one]).abs().max().item(),
            },
        ),
        near=Bars(
            title=f"nearest to {names[one]} of {n_vocab:,} tokens, by {request.measure}",
            labels=reading.ranked_labels(near.indices),
            values=numbers(near.values),
            chosen=next((rank for rank, id in enumerate(near.indices.tolist()) if id == row), None),
        ),
        pair=pair,
        difference=difference,
    )


def _beside(
    names: list[str], ids_T: Tensor, x_TM: Tensor, one: int, other: int | None, n_shown: int
) -> tuple[Heatmap, Facts]:
    """Two tokens' rows with their difference, and their numbers; one row where there is no second token."""
    n_features = x_TM.shape[1]
    columns, some = [str(feature) for feature in range(n_shown)], f"first {n_shown} of {n_features} features"
    if other is None:
        alone = {"the same token again": "nowhere in this text: choose another one"}
        return signed(f"{names[one]}; {some}", [names[one]], columns, x_TM[one : one + 1, :n_shown]), facts(
            names[one], alone
        )
    pair_3M = torch.stack((x_TM[one], x_TM[other], x_TM[one] - x_TM[other]))
    drawn = signed(
        f"{names[one]}, {names[other]}, and their difference; {some}",
        [names[one], names[other], "difference"],
        columns,
        pair_3M[:, :n_shown],
    )
    return drawn, facts(
        f"{names[one]} and {names[other]}, all {n_features} features",
        {
            "row of the first": float(ids_T[one]),
            "row of the second": float(ids_T[other]),
            "largest difference": largest(pair_3M[2]),
            "cosine": F.cosine_similarity(x_TM[one], x_TM[other], dim=0).item(),
            "length of the first": x_TM[one].norm().item(),
            "length of the second": x_TM[other].norm().item(),
        },
    )


@torch.inference_mode()
def checks(reading: Reading, request: TokenEmbeddingRequest) -> Iterator[Check]:
    """The rows are what the running network looks up, and what one-hot vectors pick; none is nearer than itself."""
    table_VM, ids = table(reading), reading.tokens.ids
    x_TM = table_VM[row_ids(reading, request)]
    captured: list[Tensor] = []
    network = reading.model.network
    with network.embed.register_forward_hook(lambda _, __, found: captured.append(found[0].float())):
        reading.capture(0, network.blocks[0])
    yield at_most(
        0, (x_TM - captured[0]).abs().max().item(), "rows of E differ from what the running network looks up by"
    )
    places = [ids.index(id) for id in dict.fromkeys(ids)][:N_CHECKED]
    product_XM = one_hot_product(table_VM, reading.ids_BT[0, places])
    yield at_most(
        0,
        (product_XM - x_TM[places]).abs().max().item(),
        f"rows of the first {N_CHECKED} different tokens differ from one-hot × E by",
    )
    twins = [(i, ids.index(id)) for i, id in enumerate(ids) if ids.index(id) < i]
    name = "what it looks up for tokens with the same id differs by"
    if twins:
        yield at_most(0, max(largest(captured[0][i] - captured[0][j]) for i, j in twins), name)
    else:
        yield does_not_apply(name, "no two tokens of this text are the same")
    one = reading.position(request.one)
    cosine_V = nearness(table_VM, x_TM[one], "cosine")
    own = cosine_V[ids[one]].item()
    error = Arithmetic(n_terms=x_TM.shape[1]).error()
    yield at_least(1 - error, own, "the cosine of the chosen token's vector with the row of its id is")
    yield at_most(error, cosine_V.max().item() - own, "some other row is nearer to it, in cosine, by")


LESSON = Lesson(
    system=10,
    title="Token vectors",
    posts=(PART_2, PART_3, chapter("2.7")),
    request_type=TokenEmbeddingRequest,
    result_type=TokenEmbeddingResult,
    compute=compute,
    checks=checks,
    breaks="read the row of the next id",
    code=("model/gpt.py: GPT.embed", "app/lessons/token_embedding.py: one_hot_product, nearness"),
)
