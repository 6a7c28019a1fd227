"""S04: the form that programs use, Z = X Wᵀ + b, one row a sample; and one of the model's own projections by it."""

# shapes: T tokens, I inputs, J inputs and one more, O outputs, M features of a token

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, equal, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATRICES_IN_PRACTICE, chapter
from app.schemas import Index
from model.linear import Linear

N_OUTPUTS, N_INPUTS, N_SAMPLES = 4, 6, 8  # of the corner in which the forms are compared
N_TOKENS = 16  # in the picture of the whole projection
N_SEEN = 48  # features; more bars cannot be told apart

Which = Literal["query", "key", "value"]


class RowFormRequest(LessonRequest):
    """A projection of the model, a token that goes through it, and one of its outputs."""

    layer: Index = Field(0, title="Layer")
    which: Which = Field("query", title="Projection", description="of the layer's attention, all its heads together")
    token: Index | None = Field(
        2, title="Token", description="the last if left out", json_schema_extra={"kind": "token"}
    )
    row: int = Field(
        0, ge=0, le=N_SEEN - 1, title="Row of W", description="the output that is computed; the last if there are fewer"
    )


class RowFormResult(LessonResult):
    """Three forms of one corner, the memory behind them, and an output of the whole projection."""

    theory: Heatmap
    baked: Heatmap
    production: Heatmap
    forms: Facts = Field(description="the shapes of each form, and how many numbers its bias takes")
    memory: Facts = Field(description="how far it is in memory to the next row and to the next column")
    weights: Heatmap = Field(description="the beginning of the chosen row of W")
    vector: Heatmap = Field(description="the beginning of the chosen token")
    products: Bars
    sum: Facts
    outputs: Heatmap = Field(description="of the whole projection, as a hook hears them")


def projection(reading: Reading, request: RowFormRequest) -> Linear:
    """The layer that is looked at."""
    attention = reading.block(request.layer).attention
    return {"query": attention.query, "key": attention.key, "value": attention.value}[request.which]


def captured(reading: Reading, request: RowFormRequest) -> tuple[Tensor, Tensor]:
    """What goes into the projection and what comes out, before it is split in heads: (T, I) and (T, O); float32."""
    x_TI, z_TO = reading.capture(request.layer, projection(reading, request))
    return x_TI.float().cpu(), z_TO.float().cpu()


def columns_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> Tensor:
    """W X + B with a column a sample, (O, T)."""
    return w_OI @ x_TI.T + b_O[:, None].expand(-1, len(x_TI))


def baked_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> Tensor:
    """W′ X′, the bias a column of the weights, (O, T)."""
    return torch.cat((w_OI, b_O[:, None]), 1) @ torch.cat((x_TI.T, torch.ones(1, len(x_TI))))


def rows_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor, *, broken: bool) -> Tensor:
    """X Wᵀ + b with a row a sample, (T, O): b is added to every row, and copied for none.

    >>> rows_form(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]), torch.tensor([0.5]), broken=False)
    tensor([[11.5000],
            [17.5000]])
    """
    turned_IO = w_OI.reshape(w_OI.shape[::-1]) if broken else w_OI.T
    return x_TI @ turned_IO + b_O


def row_by_row(w_OI: Tensor, x_I: Tensor, b_O: Tensor) -> Tensor:
    """One token's outputs: each a row of W times the token, number by number, added up in double precision; (O,)."""
    w_OI, x_I, b_O = w_OI.double(), x_I.double(), b_O.double()
    return torch.stack([(row_I * x_I).sum() + bias for row_I, bias in zip(w_OI, b_O, strict=True)])


def corner(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The upper left of W and of X, and the beginning of the bias: small enough to be seen."""
    return w_OI[:N_OUTPUTS, :N_INPUTS], x_TI[:N_SAMPLES, :N_INPUTS], b_O[:N_OUTPUTS]


def _steps(x_XY: Tensor) -> str:
    return f"{x_XY.stride(0)} and {x_XY.stride(1)}"


def compute(reading: Reading, request: RowFormRequest) -> RowFormResult:
    """The three forms of a corner, and one output of the whole projection, product by product."""
    w_OI, b_O = parameters(projection(reading, request))
    x_TI, theirs_TO = captured(reading, request)
    small = corner(w_OI, x_TI, b_O)
    token, row = reading.position(request.token), min(request.row, len(w_OI) - 1)
    n, names, outs = len(small[1]), reading.token_labels[:N_SAMPLES], [f"out {i}" for i in range(N_OUTPUTS)]
    theory_OT, baked_OT = columns_form(*small), baked_form(*small)
    production_TO = rows_form(*small, broken=request.broken)
    products_I = w_OI[row] * x_TI[token]
    ours_O = row_by_row(w_OI, x_TI[token], b_O).float()
    n_bars, n_outs = min(N_SEEN, w_OI.shape[1]), min(N_SEEN, len(w_OI))
    seen = [str(feature) for feature in range(n_bars)]
    o, i = N_OUTPUTS, N_INPUTS
    whole = f"{w_OI.shape[0]} × {w_OI.shape[1]}"
    what = f"{request.which} of layer {request.layer}"
    return RowFormResult(
        theory=signed(f"W X + B, {o} × {n}: a column a token", outs, names, theory_OT),
        baked=signed(f"W′ X′, {o} × {n}: a column a token", outs, names, baked_OT),
        production=signed(f"X Wᵀ + b, {n} × {o}: a row a token", names, outs, production_TO),
        forms=facts(
            "what each form multiplies",
            {
                "W X + B": f"{o} × {i} times {i} × {n}, plus {o} × {n}",
                "W′ X′": f"{o} × {i + 1} times {i + 1} × {n}",
                "X Wᵀ + b": f"{n} × {i} times {i} × {o}, plus {o}",
                "bias, numbers kept for W X + B": float(o * n),
                "for W′ X′, with the ones": float(o + n),
                "for X Wᵀ + b": float(o),
                "first and last differ by": (theory_OT.T - production_TO).abs().max().item(),
            },
        ),
        memory=facts(
            f"{what}: steps in memory to the next row, and to the next column",
            {
                f"W, {whole}": _steps(w_OI),
                f"Wᵀ, {w_OI.shape[1]} × {w_OI.shape[0]}": _steps(w_OI.T),
                f"X, {len(x_TI)} × {x_TI.shape[1]}": _steps(x_TI),
                "Wᵀ lies where W does": "yes" if w_OI.T.data_ptr() == w_OI.data_ptr() else "no",
            },
        ),
        weights=signed(
            f"row {row} of W, the first {n_bars} of {w_OI.shape[1]}", ["weight"], seen, w_OI[row : row + 1, :n_bars]
        ),
        vector=signed(
            f"{reading.token_labels[token]}, the first {n_bars} of {w_OI.shape[1]} features",
            ["feature"],
            seen,
            x_TI[token : token + 1, :n_bars],
        ),
        products=Bars(
            title=f"row {row} of W times {reading.token_labels[token]}: the first {n_bars} of {w_OI.shape[1]} products",
            labels=seen,
            values=numbers(products_I[:n_bars]),
        ),
        sum=facts(
            f"output {row} of the {what}, for {reading.token_labels[token]}",
            {
                f"sum of all {w_OI.shape[1]} products": products_I.sum().item(),
                "bias": b_O[row].item() if projection(reading, request).bias is not None else "the model has none here",
                "together": ours_O[row].item(),
                "what the running model has": theirs_TO[token, row].item(),
                f"largest difference in {len(w_OI)} outputs": (ours_O - theirs_TO[token]).abs().max().item(),
            },
        ),
        outputs=signed(
            f"{what}: X Wᵀ + b in the running model, the first {n_outs} of {len(w_OI)} outputs",
            reading.token_labels[:N_TOKENS],
            [str(output) for output in range(n_outs)],
            theirs_TO[:N_TOKENS, :n_outs],
            selects=("token", "row"),
        ),
    )


def checks(reading: Reading, request: RowFormRequest) -> Iterator[Check]:
    """The forms agree; a projection row by row is what the running model has."""
    w_OI, b_O = parameters(projection(reading, request))
    x_TI, theirs_TO = captured(reading, request)
    w_small_OI, x_small_TI, b_small_O = small = corner(w_OI, x_TI, b_O)
    rows_TO, columns_OT = rows_form(*small, broken=request.broken), columns_form(*small)
    arithmetic, scale_TO = Arithmetic(n_terms=N_INPUTS + 1), product_scales(x_small_TI, w_small_OI, b_small_O)
    yield equal("X Wᵀ + b differs from W X + B, transposed, by", rows_TO, columns_OT.T, arithmetic, scale_TO)
    yield equal("W′ X′ differs from W X + B by", baked_form(*small), columns_OT, arithmetic, scale_TO.T)
    token = reading.position(request.token)
    stored = Arithmetic(n_terms=w_OI.shape[1] + 1, dtype=reading.dtype)
    ours_O, theirs_O = row_by_row(w_OI, x_TI[token], b_O), theirs_TO[token]
    scale_O = product_scales(x_TI[token : token + 1], w_OI, b_O, reading.dtype)[0]
    yield equal("row by row, a token's outputs differ from the running model's by", ours_O, theirs_O, stored, scale_O)
    kept_IO = w_OI.T.contiguous()  # as the book's first class and GPT-2's files have it
    yield equal(
        "X W with W kept (inputs × outputs) differs from X Wᵀ by",
        x_TI @ kept_IO + b_O,
        rows_form(w_OI, x_TI, b_O, broken=request.broken),
        Arithmetic(n_terms=w_OI.shape[1] + 1),
        product_scales(x_TI, w_OI, b_O),
    )


LESSON = Lesson(
    system=4,
    title="The form in production",
    posts=(MATRICES_IN_PRACTICE, chapter("3.4.2")),
    request_type=RowFormRequest,
    result_type=RowFormResult,
    compute=compute,
    checks=checks,
    breaks="reshape W to (inputs × outputs) instead of turning it over",
    code=("model/linear.py: Linear", "model/attention.py: Attention", "app/lessons/row_form.py: rows_form"),
)
