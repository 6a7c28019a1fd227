"""S04: programs use the form Z = X Wᵀ + b, with one row per sample; here for one of the model's own projections."""

# shapes: T tokens, I inputs, O outputs

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.experiments.base import N_SAMPLES, RESIDUAL, Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, equal, largest, product_scales
from app.experiments.controls import Choice, Controls, Layer, Slider, TokenOf
from app.experiments.panels import N_BARS, Bars, Facts, Heatmap, facts, numbers, shape_label, signed
from app.lessons.posts import MATRICES_IN_PRACTICE, chapter
from model.linear import Linear

N_CORNER_OUTPUTS, N_CORNER_INPUTS, N_CORNER_SAMPLES = 4, 6, 8  # the corner in which the forms are compared


class RowFormControls(Controls):
    """A projection of the model, a token, and one of its outputs."""

    layer: Annotated[int, Layer(help="shows the attention of this layer")] = 0
    projection: Annotated[
        Literal["query", "key", "value"],
        Choice("Projection", "shows this projection, for all heads of the layer together"),
    ] = "query"
    token: Annotated[int | None, TokenOf("Token", "shows how an output of this token is computed")] = 2
    row: Annotated[int, Slider(0, N_BARS - 1, 1, "Row of W", "chooses the output; the last if there are fewer")] = 0


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


class RowFormWork(Work):
    """The three forms of a corner, and the products that give one output of the whole projection."""

    sites = RESIDUAL
    controls: RowFormControls

    @property
    def linear(self) -> Linear:
        """The chosen projection."""
        attention = self.block(self.controls.layer).attention
        return {"query": attention.query, "key": attention.key, "value": attention.value}[self.controls.projection]

    @cached_property
    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, (O, I), the input X, (T, I), with one row per token, and the bias, (O,); float32."""
        w_OI, b_O = parameters(self.linear)
        return w_OI, self.attention_input(self.controls.layer).float().cpu(), b_O

    @cached_property
    def running_TO(self) -> Tensor:
        """The output of the projection in the model, before it is split into heads; float32."""
        outputs_TO: Tensor = self.linear(self.attention_input(self.controls.layer))
        return outputs_TO.float().cpu()

    @cached_property
    def corner(self) -> tuple[Tensor, Tensor, Tensor]:
        """The upper left corners of W and X and the beginning of the bias, small enough to show whole."""
        (w_OI, x_TI, b_O), n = self.whole, N_CORNER_OUTPUTS
        return w_OI[:n, :N_CORNER_INPUTS], x_TI[:N_CORNER_SAMPLES, :N_CORNER_INPUTS], b_O[:n]

    @property
    def token(self) -> int:
        """The position of the chosen token."""
        return self.position(self.controls.token)

    @property
    def row(self) -> int:
        """The chosen row of W."""
        return min(self.controls.row, len(self.whole[0]) - 1)

    @property
    def chosen(self) -> tuple[Tensor, Tensor]:
        """The chosen row of W and the vector of the chosen token, (I,) each."""
        w_OI, x_TI, _ = self.whole
        return w_OI[self.row], x_TI[self.token]

    @property
    def one_by_one_O(self) -> Tensor:
        """The outputs of the chosen token: each the dot product of a row of W and the token, in double precision."""
        w_OI, x_TI, b_O = (values.double() for values in self.whole)
        return (w_OI * x_TI[self.token]).sum(1) + b_O

    @property
    def name(self) -> str:
        """The chosen projection in words."""
        return f"{self.controls.projection} of layer {self.controls.layer}"

    def picture(self, form: str, values: Tensor, *, token_rows: bool) -> Heatmap:
        """The product of the corners in one of the forms, with tokens as rows or as columns."""
        labels = [f"out {i}" for i in range(N_CORNER_OUTPUTS)], self.token_labels[:N_CORNER_SAMPLES]
        rows, columns = labels[::-1] if token_rows else labels
        title = f"{form}, {shape_label(values.shape)}, one {'row' if token_rows else 'column'} per token"
        return signed(title, rows, columns, values)

    @panel
    def column_form(self) -> Heatmap:
        """The form on paper, with one column per token."""
        return self.picture("W X + B", column_form(*self.corner), token_rows=False)

    @panel
    def baked_form(self) -> Heatmap:
        """The form with the bias as one more column of the weights."""
        return self.picture("W′ X′", baked_form(*self.corner), token_rows=False)

    @panel
    def row_form(self) -> Heatmap:
        """The form in programs, with one row per token."""
        return self.picture("X Wᵀ + b", row_form(*self.corner, broken=self.controls.broken), token_rows=True)

    @panel
    def form_facts(self) -> Facts:
        """The shapes in each form, and how many numbers its bias takes."""
        n, o, i = len(self.corner[1]), N_CORNER_OUTPUTS, N_CORNER_INPUTS
        difference_TO = row_form(*self.corner, broken=self.controls.broken) - column_form(*self.corner).T
        named: dict[str, float | str] = {
            "W X + B": f"{o} × {i} times {i} × {n}, plus {o} × {n}",
            "W′ X′": f"{o} × {i + 1} times {i + 1} × {n}",
            "X Wᵀ + b": f"{n} × {i} times {i} × {o}, plus {o}",
            "numbers stored for the bias in W X + B": float(o * n),
            "in W′ X′, with the row of ones": float(o + n),
            "in X Wᵀ + b": float(o),
            "largest difference between X Wᵀ + b and W X + B": largest(difference_TO),
        }
        return facts("Shapes in each form", named)

    @panel
    def memory_facts(self) -> Facts:
        """The strides of the matrices: steps to the next row and the next column."""
        w_OI, x_TI, _ = self.whole
        matrices = {"W": w_OI, "Wᵀ": w_OI.T, "X": x_TI}
        strides = {
            f"{name}, {shape_label(matrix.shape)}": f"{matrix.stride(0)} and {matrix.stride(1)}"
            for name, matrix in matrices.items()
        }
        is_shared = "yes" if w_OI.T.data_ptr() == w_OI.data_ptr() else "no"
        title = f"Steps in memory to the next row and to the next column, {self.name}"
        return facts(title, strides | {"W and Wᵀ use the same memory": is_shared})

    @panel
    def weight_row(self) -> Heatmap:
        """The beginning of the chosen row of W."""
        row_I, _ = self.chosen
        title = f"Row {self.row} of W, the first {len(row_I[:N_BARS])} of {len(row_I)} weights"
        return signed(title, ["weight"], list(map(str, range(len(row_I[:N_BARS])))), row_I[None, :N_BARS])

    @panel
    def token_vector(self) -> Heatmap:
        """The beginning of the chosen token's vector."""
        _, x_I = self.chosen
        title = f"Vector of {self.token_labels[self.token]}, the first {len(x_I[:N_BARS])} of {len(x_I)} features"
        return signed(title, ["feature"], list(map(str, range(len(x_I[:N_BARS])))), x_I[None, :N_BARS])

    @panel
    def products(self) -> Bars:
        """The beginning of the chosen row of W times the token's vector, number by number."""
        row_I, x_I = self.chosen
        values, label = numbers((row_I * x_I)[:N_BARS]), self.token_labels[self.token]
        title = f"Row {self.row} of W times {label}, the first {len(values)} of {len(row_I)} products"
        return Bars(title=title, labels=list(map(str, range(len(values)))), values=values)

    @panel
    def output_facts(self) -> Facts:
        """The chosen output of the whole projection, computed by itself and by the model."""
        (row_I, x_I), row, z_O, running_O = self.chosen, self.row, self.one_by_one_O, self.running_TO[self.token]
        named = {
            f"sum of all {len(row_I)} products": (row_I * x_I).sum().item(),
            "bias": "none in this model" if self.linear.bias is None else self.whole[2][row].item(),
            "sum with the bias": z_O[row].item(),
            "output in the running model": running_O[row].item(),
            f"largest difference in {len(z_O)} outputs": largest(z_O - running_O),
        }
        return facts(f"Output {row} for {self.token_labels[self.token]}, {self.name}", named)

    @panel
    def outputs(self) -> Heatmap:
        """The outputs of the whole projection in the running model."""
        shown_TO, n_outputs = self.running_TO[:N_SAMPLES, :N_BARS], self.running_TO.shape[1]
        columns = list(map(str, range(shown_TO.shape[1])))
        title = f"X Wᵀ + b, {self.name}, the first {len(columns)} of {n_outputs} outputs"
        return signed(title, self.token_labels[:N_SAMPLES], columns, shown_TO, selects=("token", "row"))

    def checks(self) -> Iterator[Check]:
        """The forms agree, and a projection computed row by row gives the outputs of the running model."""
        (w_OI, x_TI, b_O), broken = self.corner, self.controls.broken
        row_form_TO, column_form_OT = row_form(*self.corner, broken=broken), column_form(*self.corner)
        arithmetic, scale_TO = Arithmetic(n_terms=N_CORNER_INPUTS + 1), product_scales(x_TI, w_OI, b_O)
        yield equal("X Wᵀ + b equals W X + B, transposed", row_form_TO, column_form_OT.T, arithmetic, scale_TO)
        yield equal("W′ X′ equals W X + B", baked_form(*self.corner), column_form_OT, arithmetic, scale_TO.T)
        w_OI, x_TI, b_O = self.whole
        yield equal(
            "row by row, a token's outputs equal those of the running model",
            self.one_by_one_O,
            self.running_TO[self.token],
            Arithmetic(n_terms=w_OI.shape[1] + 1, dtype=self.dtype),
            product_scales(x_TI[self.token][None], w_OI, b_O, self.dtype)[0],
        )
        stored_IO = w_OI.T.contiguous()  # the layout of the book's first class and of GPT-2's files
        yield equal(
            "X W, with W stored as (inputs × outputs), equals X Wᵀ",
            x_TI @ stored_IO + b_O,
            row_form(w_OI, x_TI, b_O, broken=broken),
            Arithmetic(n_terms=w_OI.shape[1] + 1),
            product_scales(x_TI, w_OI, b_O),
        )


EXPERIMENT = Lesson(
    number=4,
    title="The form in production",
    posts=(MATRICES_IN_PRACTICE, chapter("3.4.2")),
    work=RowFormWork,
    break_description="reshape W to (inputs × outputs) instead of transposing it",
    code_references=("model/linear.py: Linear", "model/attention.py: Attention", "app/lessons/row_form.py: row_form"),
)
