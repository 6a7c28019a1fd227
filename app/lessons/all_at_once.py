"""S15: all tokens look at once: one matrix of scores, one of weights, one product for all context vectors."""

# shapes: T tokens, M features of a token

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.book import BOOK, Source, vectors
from app.lessons.checks import Arithmetic, Check, different, equal, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Heatmap, matrix, numbers
from app.lessons.posts import PART_7, chapter
from app.schemas import Index

N_BARS = 48  # features; more bars cannot be told apart


class AllAtOnceRequest(LessonRequest):
    """Which vectors look at each other."""

    source: Source = Field(
        "model", title="Vectors", description="the model's embedded tokens, or the six of the book's example"
    )
    axis: Literal["rows", "columns"] = Field(
        "rows", title="Shares along", description="rows share out what each token gives, which is attention"
    )

    query: Index | None = Field(
        None,
        title="Row",
        description="a cell that is spelled out; the last if left out",
        json_schema_extra={"kind": "token"},
    )
    key: Index | None = Field(0, title="Column", json_schema_extra={"kind": "token"})
    filled: float = Field(
        1.0,
        title="Cells filled",
        ge=0,
        le=1,
        description="in a loop, cell by cell; one product of matrices gives all of them at once",
        json_schema_extra={"step": 0.02, "playable": True},
    )


class AllAtOnceResult(LessonResult):
    """Scores, weights and what they sum to."""

    scores: Heatmap
    products: Bars = Field(description="what the first features of two tokens add to their score")
    weights: Heatmap
    given: Bars = Field(description="the sum of each row of weights: what a token gives")
    got: Bars = Field(description="the sum of each column of weights: what a token gets")


def weights(x_TM: Tensor, request: AllAtOnceRequest) -> Tensor:
    """The shares of all tokens, (T, T)."""
    return (x_TM @ x_TM.T).softmax(dim=0 if (request.axis == "columns") != request.broken else 1)


def compute(reading: Reading, request: AllAtOnceRequest) -> AllAtOnceResult:
    """Both matrices, and what the rows and columns of the second sum to."""
    x_TM, names = vectors(reading, request.source)
    weight_TT = weights(x_TM, request)
    query, key = (min(reading.position(place), len(names) - 1) for place in (request.query, request.key))
    n_cells = len(names) ** 2
    n_filled = round(request.filled * n_cells)
    score_TT = (x_TM @ x_TM.T).flatten().index_fill(0, torch.arange(n_filled, n_cells), torch.nan).view_as(weight_TT)
    around = {"rows": names, "columns": names}
    return AllAtOnceResult(
        scores=Heatmap(
            title=f"scores X Xᵀ, {n_filled:,} of {n_cells:,} dot products",
            **around,
            values=matrix(score_TT),
            scale="signed",
            selects=("query", "key"),
        ),
        products=Bars(
            title=f"{names[query]} · {names[key]} = {(x_TM[query] @ x_TM[key]).item():.4g}: what each feature adds",
            labels=[str(feature) for feature in range(min(N_BARS, x_TM.shape[1]))],
            values=numbers((x_TM[query] * x_TM[key])[:N_BARS]),
        ),
        weights=Heatmap(title="weights", **around, values=matrix(weight_TT), scale="probability"),
        given=Bars(title="sum of each row", labels=names, values=numbers(weight_TT.sum(1))),
        got=Bars(title="sum of each column", labels=names, values=numbers(weight_TT.sum(0))),
    )


def checks(reading: Reading, request: AllAtOnceRequest) -> Iterator[Check]:
    """Scores are symmetric, weights are not; rows sum to 1; the book's numbers come out."""
    rows = request.model_copy(update={"axis": "rows"})
    x_TM, _ = vectors(reading, request.source)
    score_TT, scale_TT = x_TM @ x_TM.T, product_scales(x_TM, x_TM)
    products = Arithmetic(n_terms=x_TM.shape[1])
    yield equal("scores differ from their mirror image by", score_TT, score_TT.T, products, scale_TT)
    looped_TT = torch.stack([torch.stack([(a * b).sum() for b in x_TM[:16]]) for a in x_TM[:16]])
    yield equal(
        "pair by pair, the scores of the first 16 tokens differ by",
        looped_TT,
        score_TT[:16, :16],
        products,
        scale_TT[:16, :16],
    )
    weight_TT = weights(x_TM, rows)
    sums = Arithmetic(n_terms=len(weight_TT))
    yield equal("rows of weights sum to 1, to within", weight_TT.sum(1), torch.ones(len(weight_TT)), sums)
    book_TT = weights(BOOK, rows)
    printed_T = torch.tensor([0.2098, 0.2006, 0.1981, 0.1242, 0.1220, 0.1452])
    yield printed("the book's first row of weights differs by", book_TT[0], printed_T)
    printed_M = torch.tensor([0.4421, 0.5931, 0.5790])
    yield printed("and its first context vector by", (book_TT @ BOOK)[0], printed_M)
    yield different("the book's weights differ from their mirror image by", book_TT, book_TT.T, Arithmetic(n_terms=6))


LESSON = Lesson(
    system=15,
    title="All tokens at once",
    posts=(PART_7, chapter("3.3.2")),
    request_type=AllAtOnceRequest,
    result_type=AllAtOnceResult,
    compute=compute,
    checks=checks,
    breaks="share along the wrong axis, so that columns sum to 1 and not rows",
    code=("model/attention.py: scores, weights, context", "app/lessons/all_at_once.py: weights"),
)
