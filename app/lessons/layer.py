"""S02: a layer of a network computes Z = W X + B: a matrix product and a bias, with one column per sample."""

# shapes: T tokens, I inputs, O outputs

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, equal, product_scales
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATHS, MATRICES
from app.schemas import Index


class LayerRequest(LessonRequest):
    """A layer of the model, the size of the corner that is shown, and a cell of its output."""

    layer: Index = Field(0, title="Layer", description="shows the feed-forward network of this layer")
    n_outputs: int = Field(4, ge=2, le=8, title="Outputs", description="shows this many rows of W")
    n_inputs: int = Field(6, ge=2, le=8, title="Inputs", description="shows this many columns of W and rows of X")
    row: int = Field(0, ge=0, le=7, title="Row of Z", description="chooses an output; the last if there are fewer")
    token: Index | None = Field(
        2,
        title="Column of Z",
        description=f"chooses a sample, one of the first {N_SAMPLES} tokens",
        json_schema_extra={"kind": "token"},
    )


class LayerResult(LessonResult):
    """The matrices W, X, B and Z, and the sum that gives one cell of Z."""

    weights: Heatmap
    samples: Heatmap
    bias: Heatmap = Field(description="the same column for every sample")
    outputs: Heatmap
    cell_products: Bars = Field(description="the terms of the chosen cell: one product per input, and the bias")
    cell_facts: Facts = Field(description="the same terms in numbers: each weight times its input")
    layer_facts: Facts = Field(description="the size of the whole layer")


def captured_columns(reading: Reading, layer: int) -> tuple[Tensor, Tensor]:
    """Input, (I, T), and output, (O, T), of a layer's first map: one column per sample, as in the formula; float32."""
    x_TI, z_TO = reading.capture(layer, reading.up(layer), N_SAMPLES)
    return x_TI.T.float().cpu(), z_TO.T.float().cpu()


def bias_matrix(b_O: Tensor, n_samples: int) -> Tensor:
    """B, (O, T): the bias, repeated for each sample.

    >>> bias_matrix(Tensor([1.0, 2.0]), 3).tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    return b_O[:, None].expand(-1, n_samples)


def apply_layer(w_OI: Tensor, x_IT: Tensor, b_O: Tensor, *, broken: bool) -> Tensor:
    """Z = W X + B, (O, T)."""
    return (w_OI.roll(1, 1) if broken else w_OI) @ x_IT + bias_matrix(b_O, x_IT.shape[1])


def layer_corner(reading: Reading, request: LayerRequest) -> tuple[Tensor, Tensor, Tensor]:
    """A corner of the layer: W, (O, I), the input X, (I, T), and the bias, (O,); float32."""
    (w_OI, b_O), (x_IT, _) = parameters(reading.up(request.layer)), captured_columns(reading, request.layer)
    n_outputs, n_inputs = request.n_outputs, request.n_inputs
    return w_OI[:n_outputs, :n_inputs], x_IT[:n_inputs], b_O[:n_outputs]


def compute(reading: Reading, request: LayerRequest) -> LayerResult:
    """A corner of one of the model's layers: its matrices, and the sum that gives one cell of its output."""
    w_OI, x_IT, b_O = layer_corner(reading, request)
    z_OT = apply_layer(w_OI, x_IT, b_O, broken=request.broken)
    n_outputs, n_samples = z_OT.shape
    row, column = min(request.row, n_outputs - 1), min(reading.position(request.token), n_samples - 1)
    labels = reading.token_labels[:n_samples]
    inputs, outputs = [f"in {i}" for i in range(len(x_IT))], [f"out {i}" for i in range(n_outputs)]
    marked_outputs, marked_labels = _marked(outputs, row), _marked(labels, column)
    size, cell = f"{n_outputs} × {n_samples}", f"Output {row} of {labels[column]}"
    terms_I = w_OI[row] * x_IT[:, column]
    return LayerResult(
        weights=signed(f"Weights W, {n_outputs} × {len(x_IT)}, one row per output", marked_outputs, inputs, w_OI),
        samples=signed(f"Inputs X, {len(x_IT)} × {n_samples}, one column per token", inputs, marked_labels, x_IT),
        bias=signed(f"Bias B, {size}, one column repeated", outputs, labels, bias_matrix(b_O, n_samples)),
        outputs=signed(f"Outputs Z = W X + B, {size}", marked_outputs, marked_labels, z_OT, selects=("row", "token")),
        cell_products=Bars(
            title=f"{cell}: one product per input, and the bias",
            labels=[*inputs, "bias"],
            values=[*numbers(terms_I), b_O[row].item()],
            chosen=len(x_IT),
        ),
        cell_facts=facts(
            cell,
            {
                **dict(zip(_products(inputs, w_OI[row], x_IT[:, column]), terms_I.tolist(), strict=True)),
                "bias": b_O[row].item(),
                "sum": (terms_I.sum() + b_O[row]).item(),
                "cell of Z": z_OT[row, column].item(),
            },
        ),
        layer_facts=_layer_facts(reading, request.layer),
    )


def _marked(labels: Sequence[str], chosen: int) -> list[str]:
    return [f"▸ {label}" if i == chosen else label for i, label in enumerate(labels)]


def _products(inputs: Sequence[str], w_I: Tensor, x_I: Tensor) -> list[str]:
    factors = zip(inputs, w_I.tolist(), x_I.tolist(), strict=True)
    return [f"{name}: {w:.3g} · {x:.3g}".replace("-", "−") for name, w, x in factors]


def _layer_facts(reading: Reading, layer: int) -> Facts:
    linear = reading.up(layer)
    return facts(
        f"Whole feed-forward map, layer {layer}",
        {
            "W": f"{linear.out_features} × {linear.in_features}",
            "bias": "none, shown as zeros" if linear.bias is None else f"{linear.out_features} numbers",
        },
    )


def checks(reading: Reading, request: LayerRequest) -> Iterator[Check]:
    """Every cell is the sum of its products; the whole layer gives the same outputs as in the running model."""
    w_OI, x_IT, b_O = layer_corner(reading, request)
    z_OT = apply_layer(w_OI, x_IT, b_O, broken=request.broken)
    arithmetic, scale_OT = Arithmetic(n_terms=len(x_IT) + 1), product_scales(x_IT.T, w_OI, b_O).T
    name = "every cell is the sum of its products and its bias"
    yield equal(name, z_OT, _summed_in_loops(w_OI, x_IT, b_O), arithmetic, scale_OT)
    numpy_OT = np.tensordot(w_OI.numpy(), x_IT.numpy(), axes=1) + b_O.numpy()[:, np.newaxis]
    yield equal("numpy computes the same cells", z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
    (w_OI, b_O), (x_IT, running_OT) = parameters(reading.up(request.layer)), captured_columns(reading, request.layer)
    yield equal(
        "with all its inputs, the layer gives the outputs of the running model",
        apply_layer(w_OI, x_IT, b_O, broken=request.broken),
        running_OT,
        Arithmetic(n_terms=len(x_IT) + 1, dtype=reading.dtype),
        product_scales(x_IT.T, w_OI, b_O, reading.dtype).T,
    )


def _summed_in_loops(w_OI: Tensor, x_IT: Tensor, b_O: Tensor) -> Tensor:
    columns = x_IT.T.tolist()
    return torch.tensor(
        [
            [sum(weight * x for weight, x in zip(row, column, strict=True)) + bias for column in columns]
            for row, bias in zip(w_OI.tolist(), b_O.tolist(), strict=True)
        ],
        dtype=torch.double,
    )


LESSON = Lesson(
    number=2,
    title="A layer of a network",
    posts=(MATRICES, MATHS),
    request_type=LayerRequest,
    result_type=LayerResult,
    compute=compute,
    checks=checks,
    break_description="multiply each input by the weight of the input before it",
    code_references=(
        "model/linear.py: Linear",
        "model/mlp.py: GeluMLP, SwigluMLP",
        "app/lessons/layer.py: apply_layer",
    ),
)
