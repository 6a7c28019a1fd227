"""S15: all tokens attend at once: one matrix of scores, one of weights, one product for all context vectors."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.book import BOOK, VectorSource, vectors
from app.lessons.checks import Arithmetic, Check, different, equal, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Heatmap, numbers, probabilities, signed
from app.lessons.posts import PART_7, chapter
from app.schemas import Index

N_PRODUCTS = 48  # features; more bars are hard to distinguish


class AllAtOnceRequest(LessonRequest):
    """The vectors that attend to each other, the axis of softmax, and a cell of the scores."""

    source: VectorSource = Field(
        "model", title="Vectors", description="the model's embedded tokens, or the six of the book's example"
    )
    axis: Literal["rows", "columns"] = Field(
        "rows", title="Softmax over", description="attention takes the softmax of each row, so that each row sums to 1"
    )

    query: Index | None = Field(
        None,
        title="Row",
        description="the cell in this row and the chosen column is shown feature by feature",
        json_schema_extra={"kind": "token"},
    )
    key: Index | None = Field(
        0, title="Column", description="the column of that cell", json_schema_extra={"kind": "token"}
    )
    fraction_filled: float = Field(
        1.0,
        title="Cells filled",
        ge=0,
        le=1,
        description="a loop fills the scores cell by cell; one matrix product computes all of them at once",
        json_schema_extra={"step": 0.02, "playable": True},
    )


class AllAtOnceResult(LessonResult):
    """Scores, weights, and the sums of the rows and columns of the weights."""

    scores: Heatmap
    products: Bars = Field(description="what the first features of two tokens contribute to their score")
    weights: Heatmap
    row_sums: Bars = Field(description="the sum of each row of weights: all that a token gives")
    column_sums: Bars = Field(description="the sum of each column of weights: all that a token receives")


def weight_matrix(x_TM: Tensor, request: AllAtOnceRequest) -> Tensor:
    """The weights of all tokens, (T, T)."""
    return (x_TM @ x_TM.T).softmax(dim=0 if (request.axis == "columns") != request.broken else 1)


def compute(reading: Reading, request: AllAtOnceRequest) -> AllAtOnceResult:
    """Scores and weights of all tokens, and the sums of the rows and columns of the weights."""
    x_TM, labels = vectors(reading, request.source)
    weight_TT = weight_matrix(x_TM, request)
    query, key = (min(reading.position(position), len(labels) - 1) for position in (request.query, request.key))
    n_cells = len(labels) ** 2
    n_filled = round(request.fraction_filled * n_cells)
    score_TT = (x_TM @ x_TM.T).flatten().index_fill(0, torch.arange(n_filled, n_cells), torch.nan).view_as(weight_TT)
    score = (x_TM[query] @ x_TM[key]).item()
    return AllAtOnceResult(
        scores=signed(
            f"Scores X Xᵀ, {n_filled:,} of {n_cells:,} dot products", labels, labels, score_TT, selects=("query", "key")
        ),
        products=Bars(
            title=f"Products of the features of {labels[query]} and {labels[key]}; their sum is the score {score:.4g}",
            labels=[str(feature) for feature in range(min(N_PRODUCTS, x_TM.shape[1]))],
            values=numbers((x_TM[query] * x_TM[key])[:N_PRODUCTS]),
        ),
        weights=probabilities("Attention weights", labels, labels, weight_TT),
        row_sums=Bars(title="Sum of each row of weights", labels=labels, values=numbers(weight_TT.sum(1))),
        column_sums=Bars(title="Sum of each column of weights", labels=labels, values=numbers(weight_TT.sum(0))),
    )


def checks(reading: Reading, request: AllAtOnceRequest) -> Iterator[Check]:
    """Scores are symmetric, weights are not; each row sums to 1; the book's numbers come out."""
    over_rows = request.model_copy(update={"axis": "rows"})
    x_TM, _ = vectors(reading, request.source)
    score_TT, scale_TT = x_TM @ x_TM.T, product_scales(x_TM, x_TM)
    products = Arithmetic(n_terms=x_TM.shape[1])
    yield equal("the scores are symmetric", score_TT, score_TT.T, products, scale_TT)
    looped_TT = torch.stack([torch.stack([(a * b).sum() for b in x_TM[:16]]) for a in x_TM[:16]])
    yield equal(
        "a loop over the pairs of the first 16 tokens gives the same scores",
        looped_TT,
        score_TT[:16, :16],
        products,
        scale_TT[:16, :16],
    )
    weight_TT = weight_matrix(x_TM, over_rows)
    sums = Arithmetic(n_terms=len(weight_TT))
    yield equal("each row of weights sums to 1", weight_TT.sum(1), torch.ones(len(weight_TT)), sums)
    book_TT = weight_matrix(BOOK, over_rows)
    printed_T = torch.tensor([0.2098, 0.2006, 0.1981, 0.1242, 0.1220, 0.1452])
    yield printed("the weights of the first word are those in the book", book_TT[0], printed_T)
    printed_M = torch.tensor([0.4421, 0.5931, 0.5790])
    yield printed("the context vector of the first word is that in the book", (book_TT @ BOOK)[0], printed_M)
    yield different("the weights of the book's example are not symmetric", book_TT, book_TT.T, Arithmetic(n_terms=6))


LESSON = Lesson(
    number=15,
    title="All tokens at once",
    posts=(PART_7, chapter("3.3.2")),
    request_type=AllAtOnceRequest,
    result_type=AllAtOnceResult,
    compute=compute,
    checks=checks,
    break_description="normalise over the wrong axis, so that columns sum to 1 and not rows",
    code_references=("model/attention.py: scores, weights, context", "app/lessons/all_at_once.py: weight_matrix"),
)
