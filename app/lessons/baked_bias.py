"""S03: a bias is one more column of weights, for one more input that is always 1."""

# shapes: T tokens, I inputs, J inputs and one more, O outputs

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from app.experiments.base import N_SAMPLES, RESIDUAL, Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, at_most, equal, largest, product_scales
from app.experiments.controls import Controls, Layer, Slider, TokenOf
from app.experiments.panels import Bars, Facts, Heatmap, facts, numbers, shape_label, signed
from app.lessons.posts import MATRICES

N_SHOWN_OUTPUTS, N_SHOWN_INPUTS = 4, 6  # the corner of the layer that is shown


class BakedBiasControls(Controls):
    """A layer of the model, a change of its bias, and the number in the last row of X′."""

    layer: Annotated[int, Layer(help="shows the feed-forward network of this layer")] = 0
    added_bias: Annotated[
        float, Slider(-2, 2, 0.1, "Added to the bias", "of every output; 0 shows the model's own bias, if it has one")
    ] = 0.5
    last_row: Annotated[
        float, Slider(0, 1, 0.05, "Last row of X′", "0 leaves the bias out, 1 adds all of it", playable=True)
    ] = 1.0
    token: Annotated[
        int | None, TokenOf("Token", f"shows the products of this token, one of the first {N_SAMPLES}")
    ] = 2


def append_bias(w_OI: Tensor, b_O: Tensor) -> Tensor:
    """W′ = [W b], (O, J).

    >>> append_bias(torch.tensor([[1.0, 2.0]]), torch.tensor([5.0])).tolist()
    [[1.0, 2.0, 5.0]]
    """
    return torch.cat((w_OI, b_O[:, None]), dim=1)


def append_ones(x_IT: Tensor, value: float, *, broken: bool) -> Tensor:
    """X′, (J, T): X with a row below it that has `value` in every column; broken: above it.

    >>> append_ones(torch.tensor([[3.0, 4.0]]), 1.0, broken=False).tolist()
    [[3.0, 4.0], [1.0, 1.0]]
    """
    row_1T = torch.full((1, x_IT.shape[1]), value)
    return torch.cat((row_1T, x_IT) if broken else (x_IT, row_1T))


class BakedBiasWork(Work):
    """A corner of a layer, with its bias as the last column of its weights."""

    sites = RESIDUAL | {"attention"}
    controls: BakedBiasControls

    @cached_property
    def corner(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, (O, I), the input X, (I, T), and the changed bias, (O,); float32."""
        w_OI, b_O = parameters(self.up(self.controls.layer))
        x_IT = self.mlp_input(self.controls.layer)[:N_SAMPLES, :N_SHOWN_INPUTS].T.float().cpu()
        return w_OI[:N_SHOWN_OUTPUTS, :N_SHOWN_INPUTS], x_IT, b_O[:N_SHOWN_OUTPUTS] + self.controls.added_bias

    @cached_property
    def extended(self) -> tuple[Tensor, Tensor]:
        """W′, (O, J), and X′, (J, T)."""
        w_OI, x_IT, b_O = self.corner
        return append_bias(w_OI, b_O), append_ones(x_IT, self.controls.last_row, broken=self.controls.broken)

    @cached_property
    def z_OT(self) -> Tensor:
        """Z = W′ X′."""
        w_OJ, x_JT = self.extended
        return w_OJ @ x_JT

    @cached_property
    def plain_OT(self) -> Tensor:
        """W X + B."""
        w_OI, x_IT, b_O = self.corner
        return w_OI @ x_IT + b_O[:, None]

    @property
    def column(self) -> int:
        """The column of the chosen token."""
        return min(self.position(self.controls.token), self.z_OT.shape[1] - 1)

    @property
    def products_J(self) -> Tensor:
        """The terms of the chosen token's first output, (J,)."""
        w_OJ, x_JT = self.extended
        return w_OJ[0] * x_JT[:, self.column]

    @property
    def labels(self) -> tuple[list[str], list[str], list[str]]:
        """The labels of the outputs, of the columns of W and of the tokens."""
        outputs, inputs = [f"out {i}" for i in range(N_SHOWN_OUTPUTS)], [f"in {i}" for i in range(N_SHOWN_INPUTS)]
        return outputs, inputs, self.token_labels[:N_SAMPLES]

    @property
    def row_labels(self) -> list[str]:
        """The labels of the rows of X′."""
        return ["ones", *self.labels[1]] if self.controls.broken else [*self.labels[1], "ones"]

    @panel
    def weights(self) -> Heatmap:
        """A corner of W, with the bias as its last column."""
        (w_OJ, _), (outputs, inputs, _) = self.extended, self.labels
        title = f"Weights W′ = [W b], {shape_label(w_OJ.shape)}, b in the last column"
        return signed(title, outputs, [*inputs, "b"], w_OJ)

    @panel
    def samples(self) -> Heatmap:
        """The inputs of the corner, with one more row below them."""
        x_JT = self.extended[1]
        title = f"Inputs X′, {shape_label(x_JT.shape)}: X and a row of {self.controls.last_row:g}"
        return signed(title, self.row_labels, self.labels[2], x_JT)

    @panel
    def outputs(self) -> Heatmap:
        """The product of the extended matrices."""
        outputs, _, tokens = self.labels
        return signed(f"Outputs Z = W′ X′, {shape_label(self.z_OT.shape)}", outputs, tokens, self.z_OT)

    @panel
    def difference(self) -> Heatmap:
        """W′ X′ minus (W X + B)."""
        (outputs, _, tokens), difference_OT = self.labels, self.z_OT - self.plain_OT
        title = f"Difference to W X + B, {shape_label(difference_OT.shape)}"
        return signed(title, outputs, tokens, difference_OT, limit=largest(self.plain_OT))

    @panel
    def products(self) -> Bars:
        """The terms of a token's first output; the bias is one of them."""
        labels, title = self.row_labels, f"Output 0 of {self.token_labels[self.column]}: one product per input"
        return Bars(title=title, labels=labels, values=numbers(self.products_J), chosen=labels.index("ones"))

    @panel
    def facts(self) -> Facts:
        """The bias of the first output, and how far W′ X′ is from W X + B."""
        bias = self.up(self.controls.layer).bias
        named = {
            "the model's own bias of output 0": "none" if bias is None else bias[0].item(),
            "bias after the change": self.corner[2][0].item(),
            "largest difference to W X + B": largest(self.z_OT - self.plain_OT),
            f"sum for output 0 of {self.token_labels[self.column]}": self.products_J.sum().item(),
        }
        return facts(f"Corner of layer {self.controls.layer}", named)

    def checks(self) -> Iterator[Check]:
        """With ones in the last row, W′ X′ is W X + B; the bias changes the last column of W′ and no other."""
        (w_OI, x_IT, b_O), w_OJ, broken = self.corner, self.extended[0], self.controls.broken
        z_OT, half_OT = (w_OJ @ append_ones(x_IT, value, broken=broken) for value in (1.0, 0.5))
        plain_OT = torch.stack([w_OI @ x_I + b_O for x_I in x_IT.T], dim=1)
        arithmetic, scale_OT = Arithmetic(n_terms=w_OJ.shape[1]), product_scales(x_IT.T, w_OI, b_O).T
        yield equal("W′ X′ equals W X + B, computed token by token", z_OT, plain_OT, arithmetic, scale_OT)
        numpy_OT = np.hstack((w_OI, b_O[:, None])) @ np.vstack((x_IT, np.ones((1, x_IT.shape[1]), np.float32)))
        yield equal("numpy computes the same W′ X′", z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
        name = "if the last row has 0.5 instead of 1, half of the bias is missing"
        yield equal(name, half_OT, plain_OT - b_O[:, None] / 2, arithmetic, scale_OT)
        change_OJ = (append_bias(w_OI, b_O + 1) - w_OJ).abs()
        yield at_most(0, largest(change_OJ[:, :-1]), "another bias does not change the other columns of W′")
        name = "a bias that is larger by 1 makes the last column larger by 1"
        yield equal(name, change_OJ[:, -1], torch.ones(len(b_O)), Arithmetic(), largest(b_O) + 1)


EXPERIMENT = Lesson(
    number=3,
    title="The bias baked in",
    posts=(MATRICES,),
    work=BakedBiasWork,
    break_description="put the row of ones above X, while the bias stays the last column of W′",
    code_references=("app/lessons/baked_bias.py: append_bias, append_ones", "model/linear.py: Linear"),
)
