"""S04: programs use the form Z = X Wᵀ + b, with one row per sample; here for one of the model's own projections."""

# shapes: T tokens, I inputs, O outputs

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, equal, product_scales
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import N_BARS, Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATRICES_IN_PRACTICE, chapter
from app.schemas import Index
from model.linear import Linear

N_CORNER_OUTPUTS, N_CORNER_INPUTS, N_CORNER_SAMPLES = 4, 6, 8  # the corner in which the forms are compared

RowFormProjection = Literal["query", "key", "value"]


class RowFormRequest(LessonRequest):
    """A projection of the model, a token, and one of its outputs."""

    layer: Index = Field(0, title="Layer", description="shows the attention of this layer")
    projection: RowFormProjection = Field(
        "query", title="Projection", description="shows this projection, for all heads of the layer together"
    )
    token: Index | None = Field(
        2,
        title="Token",
        description="shows how an output of this token is computed",
        json_schema_extra={"kind": "token"},
    )
    row: int = Field(
        0, ge=0, le=N_BARS - 1, title="Row of W", description="chooses the output; the last if there are fewer"
    )


class RowFormResult(LessonResult):
    """Three forms of one corner, the memory layout of the matrices, and an output of the whole projection."""

    column_form: Heatmap
    baked_form: Heatmap
    row_form: Heatmap
    form_facts: Facts = Field(description="the shapes in each form, and how many numbers its bias takes")
    memory_facts: Facts = Field(description="the strides of the matrices: steps to the next row and the next column")
    weight_row: Heatmap = Field(description="the beginning of the chosen row of W")
    token_vector: Heatmap = Field(description="the beginning of the chosen token's vector")
    products: Bars
    output_facts: Facts
    outputs: Heatmap = Field(description="the outputs of the whole projection, captured in the running model")


def selected_projection(reading: Reading, request: RowFormRequest) -> Linear:
    """The projection that the request names."""
    attention = reading.block(request.layer).attention
    return {"query": attention.query, "key": attention.key, "value": attention.value}[request.projection]


def captured_projection(reading: Reading, request: RowFormRequest) -> tuple[Tensor, Tensor]:
    """Input, (T, I), and output, (T, O), of the projection, before it is split into heads; float32."""
    x_TI, z_TO = reading.capture(request.layer, selected_projection(reading, request))
    return x_TI.float().cpu(), z_TO.float().cpu()


def column_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> Tensor:
    """W X + B, (O, T), with one column per sample."""
    return w_OI @ x_TI.T + b_O[:, None].expand(-1, len(x_TI))


def baked_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> Tensor:
    """W′ X′, (O, T), with the bias as a column of the weights."""
    return torch.cat((w_OI, b_O[:, None]), 1) @ torch.cat((x_TI.T, torch.ones(1, len(x_TI))))


def row_form(w_OI: Tensor, x_TI: Tensor, b_O: Tensor, *, broken: bool) -> Tensor:
    """X Wᵀ + b, (T, O), with one row per sample; b is broadcast, not copied.

    >>> row_form(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]), torch.tensor([0.5]), broken=False)
    tensor([[11.5000],
            [17.5000]])
    """
    transposed_IO = w_OI.reshape(w_OI.shape[::-1]) if broken else w_OI.T
    return x_TI @ transposed_IO + b_O


def outputs_one_by_one(w_OI: Tensor, x_I: Tensor, b_O: Tensor) -> Tensor:
    """The outputs of one token, (O,): each the dot product of a row of W and the token, in double precision."""
    w_OI, x_I, b_O = w_OI.double(), x_I.double(), b_O.double()
    return torch.stack([(row_I * x_I).sum() + bias for row_I, bias in zip(w_OI, b_O, strict=True)])


def projection_corner(w_OI: Tensor, x_TI: Tensor, b_O: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The upper left corners of W and X and the beginning of the bias, small enough to show whole."""
    return (
        w_OI[:N_CORNER_OUTPUTS, :N_CORNER_INPUTS],
        x_TI[:N_CORNER_SAMPLES, :N_CORNER_INPUTS],
        b_O[:N_CORNER_OUTPUTS],
    )


def compute(reading: Reading, request: RowFormRequest) -> RowFormResult:
    """The three forms of a corner, and the products that give one output of the whole projection."""
    linear = selected_projection(reading, request)
    w_OI, b_O = parameters(linear)
    x_TI, running_TO = captured_projection(reading, request)
    corner = projection_corner(w_OI, x_TI, b_O)
    column_form_OT, row_form_TO = column_form(*corner), row_form(*corner, broken=request.broken)
    token, row = reading.position(request.token), min(request.row, len(w_OI) - 1)
    n_samples, label = len(corner[1]), reading.token_labels[token]
    labels, outputs = reading.token_labels[:N_CORNER_SAMPLES], [f"out {i}" for i in range(N_CORNER_OUTPUTS)]
    n_outputs, n_inputs = w_OI.shape
    n_bars, n_columns = min(N_BARS, n_inputs), min(N_BARS, n_outputs)
    features = [str(feature) for feature in range(n_bars)]
    column_size = f"{N_CORNER_OUTPUTS} × {n_samples}, one column per token"
    return RowFormResult(
        column_form=signed(f"W X + B, {column_size}", outputs, labels, column_form_OT),
        baked_form=signed(f"W′ X′, {column_size}", outputs, labels, baked_form(*corner)),
        row_form=signed(f"X Wᵀ + b, {n_samples} × {N_CORNER_OUTPUTS}, one row per token", labels, outputs, row_form_TO),
        form_facts=_form_facts(n_samples, (column_form_OT.T - row_form_TO).abs().max().item()),
        memory_facts=_memory_facts(w_OI, x_TI, request),
        weight_row=signed(
            f"Row {row} of W, the first {n_bars} of {n_inputs} weights",
            ["weight"],
            features,
            w_OI[row : row + 1, :n_bars],
        ),
        token_vector=signed(
            f"Vector of {label}, the first {n_bars} of {n_inputs} features",
            ["feature"],
            features,
            x_TI[token : token + 1, :n_bars],
        ),
        products=Bars(
            title=f"Row {row} of W times {label}, the first {n_bars} of {n_inputs} products",
            labels=features,
            values=numbers((w_OI[row] * x_TI[token])[:n_bars]),
        ),
        output_facts=_output_facts(
            f"Output {row} for {label}, {request.projection} of layer {request.layer}",
            linear,
            row,
            x_TI[token],
            running_TO[token],
        ),
        outputs=signed(
            f"X Wᵀ + b, {request.projection} of layer {request.layer}, the first {n_columns} of {n_outputs} outputs",
            reading.token_labels[:N_SAMPLES],
            [str(output) for output in range(n_columns)],
            running_TO[:N_SAMPLES, :n_columns],
            selects=("token", "row"),
        ),
    )


def _form_facts(n_samples: int, difference: float) -> Facts:
    n, o, i = n_samples, N_CORNER_OUTPUTS, N_CORNER_INPUTS
    return facts(
        "Shapes in each form",
        {
            "W X + B": f"{o} × {i} times {i} × {n}, plus {o} × {n}",
            "W′ X′": f"{o} × {i + 1} times {i + 1} × {n}",
            "X Wᵀ + b": f"{n} × {i} times {i} × {o}, plus {o}",
            "numbers stored for the bias in W X + B": float(o * n),
            "in W′ X′, with the row of ones": float(o + n),
            "in X Wᵀ + b": float(o),
            "largest difference between X Wᵀ + b and W X + B": difference,
        },
    )


def _memory_facts(w_OI: Tensor, x_TI: Tensor, request: RowFormRequest) -> Facts:
    n_outputs, n_inputs = w_OI.shape
    return facts(
        f"Steps in memory to the next row and to the next column, {request.projection} of layer {request.layer}",
        {
            f"W, {n_outputs} × {n_inputs}": _strides(w_OI),
            f"Wᵀ, {n_inputs} × {n_outputs}": _strides(w_OI.T),
            f"X, {len(x_TI)} × {n_inputs}": _strides(x_TI),
            "W and Wᵀ use the same memory": "yes" if w_OI.T.data_ptr() == w_OI.data_ptr() else "no",
        },
    )


def _strides(x_XY: Tensor) -> str:
    return f"{x_XY.stride(0)} and {x_XY.stride(1)}"


def _output_facts(title: str, linear: Linear, row: int, x_I: Tensor, running_O: Tensor) -> Facts:
    w_OI, b_O = parameters(linear)
    z_O = outputs_one_by_one(w_OI, x_I, b_O).float()
    return facts(
        title,
        {
            f"sum of all {w_OI.shape[1]} products": (w_OI[row] * x_I).sum().item(),
            "bias": "none in this model" if linear.bias is None else b_O[row].item(),
            "sum with the bias": z_O[row].item(),
            "output in the running model": running_O[row].item(),
            f"largest difference in {len(w_OI)} outputs": (z_O - running_O).abs().max().item(),
        },
    )


def checks(reading: Reading, request: RowFormRequest) -> Iterator[Check]:
    """The forms agree, and a projection computed row by row gives the outputs of the running model."""
    w_OI, b_O = parameters(selected_projection(reading, request))
    x_TI, running_TO = captured_projection(reading, request)
    corner = corner_w_OI, corner_x_TI, corner_b_O = projection_corner(w_OI, x_TI, b_O)
    row_form_TO, column_form_OT = row_form(*corner, broken=request.broken), column_form(*corner)
    arithmetic = Arithmetic(n_terms=N_CORNER_INPUTS + 1)
    scale_TO = product_scales(corner_x_TI, corner_w_OI, corner_b_O)
    yield equal("X Wᵀ + b equals W X + B, transposed", row_form_TO, column_form_OT.T, arithmetic, scale_TO)
    yield equal("W′ X′ equals W X + B", baked_form(*corner), column_form_OT, arithmetic, scale_TO.T)
    token = reading.position(request.token)
    yield equal(
        "row by row, a token's outputs equal those of the running model",
        outputs_one_by_one(w_OI, x_TI[token], b_O),
        running_TO[token],
        Arithmetic(n_terms=w_OI.shape[1] + 1, dtype=reading.dtype),
        product_scales(x_TI[token : token + 1], w_OI, b_O, reading.dtype)[0],
    )
    stored_IO = w_OI.T.contiguous()  # the layout of the book's first class and of GPT-2's files
    yield equal(
        "X W, with W stored as (inputs × outputs), equals X Wᵀ",
        x_TI @ stored_IO + b_O,
        row_form(w_OI, x_TI, b_O, broken=request.broken),
        Arithmetic(n_terms=w_OI.shape[1] + 1),
        product_scales(x_TI, w_OI, b_O),
    )


LESSON = Lesson(
    number=4,
    title="The form in production",
    posts=(MATRICES_IN_PRACTICE, chapter("3.4.2")),
    request_type=RowFormRequest,
    result_type=RowFormResult,
    compute=compute,
    checks=checks,
    break_description="reshape W to (inputs × outputs) instead of transposing it",
    code_references=("model/linear.py: Linear", "model/attention.py: Attention", "app/lessons/row_form.py: row_form"),
)
