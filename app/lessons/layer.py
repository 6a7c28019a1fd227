"""S02: a layer of a network is a product of matrices and a bias, Z = W X + B, with one column a sample."""

# shapes: T tokens, I inputs, O outputs

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, equal, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATHS, MATRICES
from app.schemas import Index

N_SAMPLES = 16  # tokens; what comes later in a longer text is not read, and changes nothing before it


class LayerRequest(LessonRequest):
    """A layer of the model, how much of it, and a cell of its output."""

    layer: Index = Field(0, title="Layer", description="whose feed-forward network it is")
    outputs: int = Field(4, ge=2, le=8, title="Outputs", description="the first rows of W")
    inputs: int = Field(6, ge=2, le=8, title="Inputs", description="the first columns of W, and rows of X")
    row: int = Field(0, ge=0, le=7, title="Row of Z", description="the output that is spelled out")
    token: Index | None = Field(
        2,
        title="Column of Z",
        description=f"the sample it is spelled out for, one of the first {N_SAMPLES} tokens",
        json_schema_extra={"kind": "token"},
    )


class LayerResult(LessonResult):
    """The four matrices, and one cell of the last."""

    weights: Heatmap
    samples: Heatmap
    bias: Heatmap = Field(description="the same column for every sample")
    result: Heatmap
    products: Bars = Field(description="what each input adds to the chosen cell, and the bias")
    cell: Facts = Field(description="the same in numbers: each weight times its input")
    whole: Facts = Field(description="the size of the layer that was cut")


def captured(reading: Reading, layer: int) -> tuple[Tensor, Tensor]:
    """What goes into it and what comes out, a column a sample as in the formula: (I, T) and (O, T); float32."""
    x_TI, z_TO = reading.capture(layer, reading.up(layer), N_SAMPLES)
    return x_TI.T.float().cpu(), z_TO.T.float().cpu()


def repeated(b_O: Tensor, n_samples: int) -> Tensor:
    """B: the bias, once for each sample, (O, T).

    >>> repeated(Tensor([1.0, 2.0]), 3).tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    return b_O[:, None].expand(-1, n_samples)


def through(w_OI: Tensor, x_IT: Tensor, b_O: Tensor, *, broken: bool) -> Tensor:
    """Z = W X + B, (O, T)."""
    return (w_OI.roll(1, 1) if broken else w_OI) @ x_IT + repeated(b_O, x_IT.shape[1])


def cut(reading: Reading, request: LayerRequest) -> tuple[Tensor, Tensor, Tensor]:
    """The first rows and columns of the layer: W, (O, I), X, (I, T), and the bias, (O,)."""
    (w_OI, b_O), (x_IT, _) = parameters(reading.up(request.layer)), captured(reading, request.layer)
    return w_OI[: request.outputs, : request.inputs], x_IT[: request.inputs], b_O[: request.outputs]


def compute(reading: Reading, request: LayerRequest) -> LayerResult:
    """A piece of the model's layer, multiplied out."""
    w_OI, x_IT, b_O = cut(reading, request)
    z_OT = through(w_OI, x_IT, b_O, broken=request.broken)
    n_outputs, n_samples = z_OT.shape
    row, column = min(request.row, n_outputs - 1), min(reading.position(request.token), n_samples - 1)
    names = reading.token_labels[:n_samples]
    inputs = [f"in {i}" for i in range(request.inputs)]
    outputs = [f"out {i}" for i in range(n_outputs)]
    marked_outputs = [f"▸ {name}" if i == row else name for i, name in enumerate(outputs)]
    marked_names = [f"▸ {name}" if i == column else name for i, name in enumerate(names)]
    products_I = w_OI[row] * x_IT[:, column]
    factors = zip(inputs, w_OI[row].tolist(), x_IT[:, column].tolist(), strict=True)
    spelled = [f"{name}: {w:.3g} · {x:.3g}".replace("-", "−") for name, w, x in factors]
    sizes = f"{n_outputs} × {n_samples}"
    own = reading.up(request.layer)
    return LayerResult(
        weights=signed(f"W, {n_outputs} × {request.inputs}: a row an output", marked_outputs, inputs, w_OI),
        samples=signed(f"X, {request.inputs} × {n_samples}: a column a token", inputs, marked_names, x_IT),
        bias=signed(f"B, {sizes}: one column, repeated", outputs, names, repeated(b_O, n_samples)),
        result=signed(f"Z = W X + B, {sizes}", marked_outputs, marked_names, z_OT, selects=("row", "token")),
        products=Bars(
            title=f"out {row} of {names[column]}: what each input adds, and the bias",
            labels=[*inputs, "bias"],
            values=[*numbers(products_I), b_O[row].item()],
            chosen=request.inputs,
        ),
        cell=facts(
            f"out {row} of {names[column]}",
            {
                **dict(zip(spelled, products_I.tolist(), strict=True)),
                "bias": b_O[row].item(),
                "all of it": (products_I.sum() + b_O[row]).item(),
                "the cell of Z": z_OT[row, column].item(),
            },
        ),
        whole=facts(
            f"the layer that this is a corner of, layer {request.layer}",
            {
                "its W": f"{own.out_features} × {own.in_features}",
                "its bias": "none, so zeros stand in" if own.bias is None else f"{own.out_features} numbers",
            },
        ),
    )


def checks(reading: Reading, request: LayerRequest) -> Iterator[Check]:
    """Every cell is the sum it stands for; whole, the layer gives what the running model's gives."""
    w_OI, x_IT, b_O = cut(reading, request)
    z_OT = through(w_OI, x_IT, b_O, broken=request.broken)
    w, columns, b = w_OI.tolist(), x_IT.T.tolist(), b_O.tolist()
    spelled_OT = torch.tensor(
        [
            [sum(weight * number for weight, number in zip(row, column, strict=True)) + bias for column in columns]
            for row, bias in zip(w, b, strict=True)
        ],
        dtype=torch.double,
    )
    arithmetic, scale_OT = Arithmetic(n_terms=len(x_IT) + 1), product_scales(x_IT.T, w_OI, b_O).T
    yield equal("cells differ from their spelled-out sums by", z_OT, spelled_OT, arithmetic, scale_OT)
    numpy_OT = np.tensordot(w_OI.numpy(), x_IT.numpy(), axes=1) + b_O.numpy()[:, np.newaxis]
    yield equal("numpy's cells differ by", z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
    (w_OI, b_O), (x_IT, theirs_OT) = parameters(reading.up(request.layer)), captured(reading, request.layer)
    yield equal(
        "with all inputs it differs from the running layer by",
        through(w_OI, x_IT, b_O, broken=request.broken),
        theirs_OT,
        Arithmetic(n_terms=len(x_IT) + 1, dtype=reading.dtype),
        product_scales(x_IT.T, w_OI, b_O, reading.dtype).T,
    )


LESSON = Lesson(
    system=2,
    title="A layer of a network",
    posts=(MATRICES, MATHS),
    request_type=LayerRequest,
    result_type=LayerResult,
    compute=compute,
    checks=checks,
    breaks="multiply each input with the weight of the one before it",
    code=("model/linear.py: Linear", "model/mlp.py: GeluMLP, SwigluMLP", "app/lessons/layer.py: through"),
)
