"""S02: a layer of a network computes Z = W X + B: a matrix product and a bias, with one column per sample."""

# shapes: T tokens, I inputs, O outputs

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from app.experiments.base import N_SAMPLES, RESIDUAL, Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, equal, product_scales
from app.experiments.controls import Controls, Layer, Slider, TokenOf
from app.experiments.panels import Bars, Facts, Heatmap, facts, numbers, shape_label, signed
from app.lessons.posts import MATHS, MATRICES


class LayerControls(Controls):
    """A layer of the model, the size of the corner that is shown, and a cell of its output."""

    layer: Annotated[int, Layer(help="shows the feed-forward network of this layer")] = 0
    n_outputs: Annotated[int, Slider(2, 8, 1, "Outputs", "shows this many rows of W")] = 4
    n_inputs: Annotated[int, Slider(2, 8, 1, "Inputs", "shows this many columns of W and rows of X")] = 6
    row: Annotated[int, Slider(0, 7, 1, "Row of Z", "chooses an output; the last if there are fewer")] = 0
    token: Annotated[int | None, TokenOf("Column of Z", f"chooses a sample, one of the first {N_SAMPLES} tokens")] = 2


def bias_matrix(b_O: Tensor, n_samples: int) -> Tensor:
    """B, (O, T): the bias, repeated for each sample.

    >>> bias_matrix(Tensor([1.0, 2.0]), 3).tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    return b_O[:, None].expand(-1, n_samples)


def apply_layer(w_OI: Tensor, x_IT: Tensor, b_O: Tensor, *, broken: bool) -> Tensor:
    """Z = W X + B, (O, T)."""
    return (w_OI.roll(1, 1) if broken else w_OI) @ x_IT + bias_matrix(b_O, x_IT.shape[1])


class LayerWork(Work):
    """The upper left corner of a layer: its matrices, and the sum that gives one cell of its output."""

    sites = RESIDUAL | {"attention"}
    controls: LayerControls

    @cached_property
    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, (O, I), the input X, (I, T), with one column per sample, and the bias, (O,); float32."""
        w_OI, b_O = parameters(self.up(self.controls.layer))
        return w_OI, self.mlp_input(self.controls.layer)[:N_SAMPLES].T.float().cpu(), b_O

    @cached_property
    def corner(self) -> tuple[Tensor, Tensor, Tensor]:
        """The upper left corners of W and X, and the beginning of the bias."""
        (w_OI, x_IT, b_O), n_outputs, n_inputs = self.whole, self.controls.n_outputs, self.controls.n_inputs
        return w_OI[:n_outputs, :n_inputs], x_IT[:n_inputs], b_O[:n_outputs]

    @cached_property
    def z_OT(self) -> Tensor:
        """The output of the corner."""
        return apply_layer(*self.corner, broken=self.controls.broken)

    @cached_property
    def cell(self) -> tuple[int, int]:
        """The row and the column of the chosen cell of Z."""
        n_outputs, n_samples = self.z_OT.shape
        return min(self.controls.row, n_outputs - 1), min(self.position(self.controls.token), n_samples - 1)

    @cached_property
    def labels(self) -> tuple[list[str], list[str], list[str]]:
        """The labels of inputs, outputs and samples; the output and the sample of the chosen cell are marked."""
        (w_OI, _, _), (row, column) = self.corner, self.cell
        inputs, outputs = [f"in {i}" for i in range(w_OI.shape[1])], [f"out {i}" for i in range(len(w_OI))]
        return inputs, _marked(outputs, row), _marked(self.token_labels[:N_SAMPLES], column)

    @cached_property
    def terms_I(self) -> Tensor:
        """The products in the sum of the chosen cell, (I,)."""
        (w_OI, x_IT, _), (row, column) = self.corner, self.cell
        return w_OI[row] * x_IT[:, column]

    @property
    def cell_title(self) -> str:
        """The chosen cell in words."""
        return f"Output {self.cell[0]} of {self.token_labels[self.cell[1]]}"

    @panel
    def weights(self) -> Heatmap:
        """A corner of W; the row of the chosen cell is marked."""
        (w_OI, _, _), (inputs, outputs, _) = self.corner, self.labels
        return signed(f"Weights W, {shape_label(w_OI.shape)}, one row per output", outputs, inputs, w_OI)

    @panel
    def samples(self) -> Heatmap:
        """The inputs of the corner; the column of the chosen cell is marked."""
        (_, x_IT, _), (inputs, _, samples) = self.corner, self.labels
        return signed(f"Inputs X, {shape_label(x_IT.shape)}, one column per token", inputs, samples, x_IT)

    @panel
    def bias(self) -> Heatmap:
        """The same column for every sample."""
        _, outputs, samples = self.labels
        b_OT = bias_matrix(self.corner[2], len(samples))
        return signed(f"Bias B, {shape_label(b_OT.shape)}, one column repeated", outputs, samples, b_OT)

    @panel
    def outputs(self) -> Heatmap:
        """The product of the corners, plus the bias."""
        _, outputs, samples = self.labels
        title = f"Outputs Z = W X + B, {shape_label(self.z_OT.shape)}"
        return signed(title, outputs, samples, self.z_OT, selects=("row", "token"))

    @panel
    def cell_products(self) -> Bars:
        """The terms of the chosen cell: one product per input, and the bias."""
        labels, values = [*self.labels[0], "bias"], [*numbers(self.terms_I), self.corner[2][self.cell[0]].item()]
        title = f"{self.cell_title}: one product per input, and the bias"
        return Bars(title=title, labels=labels, values=values, chosen=len(self.terms_I))

    @panel
    def cell_facts(self) -> Facts:
        """The same terms in numbers: each weight times its input."""
        (w_OI, x_IT, b_O), (row, column) = self.corner, self.cell
        factors = zip(self.labels[0], w_OI[row].tolist(), x_IT[:, column].tolist(), strict=True)
        products = [f"{name}: {w:.3g} · {x:.3g}".replace("-", "−") for name, w, x in factors]
        sums = {
            "bias": b_O[row].item(),
            "sum": (self.terms_I.sum() + b_O[row]).item(),
            "cell of Z": self.z_OT[row, column].item(),
        }
        return facts(self.cell_title, dict(zip(products, self.terms_I.tolist(), strict=True)) | sums)

    @panel
    def layer_facts(self) -> Facts:
        """The size of the whole layer."""
        linear = self.up(self.controls.layer)
        bias = "none, shown as zeros" if linear.bias is None else f"{linear.out_features} numbers"
        named = {"W": shape_label(linear.weight.shape), "bias": bias}
        return facts(f"Whole feed-forward map, layer {self.controls.layer}", named)

    def checks(self) -> Iterator[Check]:
        """Every cell is the sum of its products; the whole layer gives the same outputs as in the running model."""
        w_OI, x_IT, b_O = self.corner
        arithmetic, scale_OT = Arithmetic(n_terms=len(x_IT) + 1), product_scales(x_IT.T, w_OI, b_O).T
        cells = [
            [sum(w * x for w, x in zip(row, column, strict=True)) + bias for column in x_IT.T.tolist()]
            for row, bias in zip(w_OI.tolist(), b_O.tolist(), strict=True)
        ]
        name = "every cell is the sum of its products and its bias"
        yield equal(name, self.z_OT, torch.tensor(cells, dtype=torch.double), arithmetic, scale_OT)
        numpy_OT = np.tensordot(w_OI.numpy(), x_IT.numpy(), axes=1) + b_O.numpy()[:, np.newaxis]
        yield equal("numpy computes the same cells", self.z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
        w_OI, x_IT, b_O = self.whole
        running_TO = self.up(self.controls.layer)(self.mlp_input(self.controls.layer)[:N_SAMPLES])
        yield equal(
            "with all its inputs, the layer gives the outputs of the running model",
            apply_layer(w_OI, x_IT, b_O, broken=self.controls.broken),
            running_TO.T,
            Arithmetic(n_terms=len(x_IT) + 1, dtype=self.dtype),
            product_scales(x_IT.T, w_OI, b_O, self.dtype).T,
        )


def _marked(labels: Sequence[str], chosen: int) -> list[str]:
    return [f"▸ {label}" if i == chosen else label for i, label in enumerate(labels)]


EXPERIMENT = Lesson(
    number=2,
    title="A layer of a network",
    posts=(MATRICES, MATHS),
    work=LayerWork,
    break_description="multiply each input by the weight of the input before it",
    code_references=(
        "model/linear.py: Linear",
        "model/mlp.py: GeluMLP, SwigluMLP",
        "app/lessons/layer.py: apply_layer",
    ),
)
