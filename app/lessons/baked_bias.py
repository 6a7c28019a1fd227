"""S03: a bias is one more column of weights, for one more input that is always 1."""

# shapes: T tokens, I inputs, J inputs and one more, O outputs

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, equal, largest, product_scales
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATRICES
from app.schemas import Index

N_SHOWN_OUTPUTS, N_SHOWN_INPUTS = 4, 6  # the corner of the layer that is shown


class BakedBiasRequest(LessonRequest):
    """A layer of the model, a change of its bias, and the number in the last row of X′."""

    layer: Index = Field(0, title="Layer", description="shows the feed-forward network of this layer")
    added_bias: float = Field(
        0.5,
        ge=-2,
        le=2,
        title="Added to the bias",
        description="changes the bias of every output; 0 shows the model's own bias, if it has one",
        json_schema_extra={"step": 0.1},
    )
    last_row: float = Field(
        1.0,
        ge=0,
        le=1,
        title="Last row of X′",
        description="0 leaves the bias out, 1 adds all of it",
        json_schema_extra={"step": 0.05, "playable": True},
    )
    token: Index | None = Field(
        2,
        title="Token",
        description=f"shows the products of this token, one of the first {N_SAMPLES}",
        json_schema_extra={"kind": "token"},
    )


class BakedBiasResult(LessonResult):
    """The extended matrices, their product, and its difference to W X + B."""

    weights: Heatmap
    samples: Heatmap
    outputs: Heatmap
    difference: Heatmap = Field(description="W′ X′ minus (W X + B)")
    products: Bars = Field(description="the terms of a token's first output; the bias is one of them")
    facts: Facts


def biased_corner(reading: Reading, request: BakedBiasRequest) -> tuple[Tensor, Tensor, Tensor]:
    """A corner of the layer: W, (O, I), the input X, (I, T), and the changed bias, (O,); float32."""
    linear = reading.up(request.layer)
    w_OI, b_O = parameters(linear)
    x_TI, _ = reading.capture(request.layer, linear, N_SAMPLES)
    return (
        w_OI[:N_SHOWN_OUTPUTS, :N_SHOWN_INPUTS],
        x_TI.T[:N_SHOWN_INPUTS].float().cpu(),
        b_O[:N_SHOWN_OUTPUTS] + request.added_bias,
    )


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


def compute(reading: Reading, request: BakedBiasRequest) -> BakedBiasResult:
    """A corner of a layer, with its bias as the last column of its weights."""
    w_OI, x_IT, b_O = biased_corner(reading, request)
    w_OJ, x_JT = append_bias(w_OI, b_O), append_ones(x_IT, request.last_row, broken=request.broken)
    z_OT, plain_OT = w_OJ @ x_JT, w_OI @ x_IT + b_O[:, None]
    n_inputs, n_samples = x_JT.shape
    column = min(reading.position(request.token), n_samples - 1)
    labels = reading.token_labels[:n_samples]
    outputs, inputs = [f"out {i}" for i in range(N_SHOWN_OUTPUTS)], [f"in {i}" for i in range(N_SHOWN_INPUTS)]
    rows = ["ones", *inputs] if request.broken else [*inputs, "ones"]
    products_J = w_OJ[0] * x_JT[:, column]
    bias = reading.up(request.layer).bias
    size = f"{N_SHOWN_OUTPUTS} × {n_samples}"
    return BakedBiasResult(
        weights=signed(
            f"Weights W′ = [W b], {N_SHOWN_OUTPUTS} × {n_inputs}, b in the last column", outputs, [*inputs, "b"], w_OJ
        ),
        samples=signed(f"Inputs X′, {n_inputs} × {n_samples}: X and a row of {request.last_row:g}", rows, labels, x_JT),
        outputs=signed(f"Outputs Z = W′ X′, {size}", outputs, labels, z_OT),
        difference=signed(
            f"Difference to W X + B, {size}",
            outputs,
            labels,
            z_OT - plain_OT,
            limit=plain_OT.abs().max().item(),
        ),
        products=Bars(
            title=f"Output 0 of {labels[column]}: one product per input",
            labels=rows,
            values=numbers(products_J),
            chosen=rows.index("ones"),
        ),
        facts=facts(
            f"Corner of layer {request.layer}",
            {
                "the model's own bias of output 0": "none" if bias is None else bias[0].item(),
                "bias after the change": b_O[0].item(),
                "largest difference to W X + B": (z_OT - plain_OT).abs().max().item(),
                f"sum for output 0 of {labels[column]}": products_J.sum().item(),
            },
        ),
    )


def checks(reading: Reading, request: BakedBiasRequest) -> Iterator[Check]:
    """With ones in the last row, W′ X′ is W X + B; the bias changes the last column of W′ and no other."""
    w_OI, x_IT, b_O = biased_corner(reading, request)
    w_OJ = append_bias(w_OI, b_O)
    z_OT = w_OJ @ append_ones(x_IT, 1.0, broken=request.broken)
    plain_OT = torch.stack([w_OI @ x_I + b_O for x_I in x_IT.T], dim=1)
    arithmetic, scale_OT = Arithmetic(n_terms=w_OJ.shape[1]), product_scales(x_IT.T, w_OI, b_O).T
    yield equal("W′ X′ equals W X + B, computed token by token", z_OT, plain_OT, arithmetic, scale_OT)
    numpy_OT = np.hstack((w_OI, b_O[:, None])) @ np.vstack((x_IT, np.ones((1, x_IT.shape[1]), np.float32)))
    yield equal("numpy computes the same W′ X′", z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
    half_OT = w_OJ @ append_ones(x_IT, 0.5, broken=request.broken)
    yield equal(
        "if the last row has 0.5 instead of 1, half of the bias is missing",
        half_OT,
        plain_OT - b_O[:, None] / 2,
        arithmetic,
        scale_OT,
    )
    change_OJ = (append_bias(w_OI, b_O + 1) - w_OJ).abs()
    yield at_most(0, largest(change_OJ[:, :-1]), "another bias does not change the other columns of W′")
    yield equal(
        "a bias that is larger by 1 makes the last column larger by 1",
        change_OJ[:, -1],
        torch.ones(len(b_O)),
        Arithmetic(),
        largest(b_O) + 1,
    )


LESSON = Lesson(
    number=3,
    title="The bias baked in",
    posts=(MATRICES,),
    request_type=BakedBiasRequest,
    result_type=BakedBiasResult,
    compute=compute,
    checks=checks,
    break_description="put the row of ones above X, while the bias stays the last column of W′",
    code_references=("app/lessons/baked_bias.py: append_bias, append_ones", "model/linear.py: Linear"),
)
