"""S03: the bias as one more column of the weights, for one more input that is always 1."""

# shapes: T tokens, M features of a token, I inputs, J inputs and one more, O outputs

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, equal, largest, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import MATRICES
from app.schemas import Index

N_OUTPUTS, N_INPUTS = 4, 6  # of the corner of the layer that is shown
N_SAMPLES = 16  # tokens; what comes later in a longer text is not read, and changes nothing before it


class BakedBiasRequest(LessonRequest):
    """A layer of the model, a change of its bias, and how far the bias is baked in."""

    layer: Index = Field(0, title="Layer", description="whose feed-forward network it is")
    bias: float = Field(
        0.5,
        ge=-2,
        le=2,
        title="Added to the bias",
        description="of every output: 0 leaves the model's own, or none where it has none",
        json_schema_extra={"step": 0.1},
    )
    joined: float = Field(
        1.0,
        ge=0,
        le=1,
        title="The last row of X′",
        description="what stands in it: at 0 the bias counts for nothing, at 1 for all of it",
        json_schema_extra={"step": 0.05, "playable": True},
    )
    token: Index | None = Field(
        2,
        title="Token",
        description=f"whose sum is taken apart, one of the first {N_SAMPLES}",
        json_schema_extra={"kind": "token"},
    )


class BakedBiasResult(LessonResult):
    """The extended matrices, their product, and how far it is from W X + B."""

    weights: Heatmap
    samples: Heatmap
    result: Heatmap
    difference: Heatmap = Field(description="the product less W X + B")
    products: Bars = Field(description="what each input adds to the first output of a token; the bias is one of them")
    facts: Facts


def corner(reading: Reading, request: BakedBiasRequest) -> tuple[Tensor, Tensor, Tensor]:
    """The first rows and columns: W, (O, I), X as it comes to the layer, (I, T), and the edited bias, (O,); float32."""
    linear = reading.up(request.layer)
    w_OI, own_O = parameters(linear)
    x_TI, _ = reading.capture(request.layer, linear, N_SAMPLES)
    return w_OI[:N_OUTPUTS, :N_INPUTS], x_TI.T[:N_INPUTS].float().cpu(), own_O[:N_OUTPUTS] + request.bias


def extended(w_OI: Tensor, b_O: Tensor) -> Tensor:
    """W′ = [W b], (O, J).

    >>> extended(torch.tensor([[1.0, 2.0]]), torch.tensor([5.0])).tolist()
    [[1.0, 2.0, 5.0]]
    """
    return torch.cat((w_OI, b_O[:, None]), dim=1)


def with_ones(x_IT: Tensor, joined: float, *, broken: bool) -> Tensor:
    """X′: X above a row of ones, (J, T), or of what stands for them on the way there.

    >>> with_ones(torch.tensor([[3.0, 4.0]]), 1.0, broken=False).tolist()
    [[3.0, 4.0], [1.0, 1.0]]
    """
    row_1T = torch.full((1, x_IT.shape[1]), joined)
    return torch.cat((row_1T, x_IT) if broken else (x_IT, row_1T))


def compute(reading: Reading, request: BakedBiasRequest) -> BakedBiasResult:
    """The corner of the layer with its bias baked in."""
    w_OI, x_IT, b_O = corner(reading, request)
    w_OJ, x_JT = extended(w_OI, b_O), with_ones(x_IT, request.joined, broken=request.broken)
    z_OT, plain_OT = w_OJ @ x_JT, w_OI @ x_IT + b_O[:, None]
    column = min(reading.position(request.token), x_IT.shape[1] - 1)
    names = reading.token_labels[: x_IT.shape[1]]
    outputs = [f"out {i}" for i in range(N_OUTPUTS)]
    inputs = [f"in {i}" for i in range(N_INPUTS)]
    rows = ["ones", *inputs] if request.broken else [*inputs, "ones"]
    n_j, n_t = x_JT.shape
    products_J = w_OJ[0] * x_JT[:, column]
    own = reading.up(request.layer)
    return BakedBiasResult(
        weights=signed(f"W′ = [W b], {N_OUTPUTS} × {n_j}: b is the last column", outputs, [*inputs, "b"], w_OJ),
        samples=signed(f"X′, {n_j} × {n_t}: X, and a row of {request.joined:g}", rows, names, x_JT),
        result=signed(f"Z = W′ X′, {N_OUTPUTS} × {n_t}", outputs, names, z_OT),
        difference=signed(
            f"W′ X′ less W X + B, {N_OUTPUTS} × {n_t}",
            outputs,
            names,
            z_OT - plain_OT,
            limit=plain_OT.abs().max().item(),
        ),
        products=Bars(
            title=f"out 0 of {names[column]}: what each of {n_j} inputs adds",
            labels=rows,
            values=numbers(products_J),
            chosen=rows.index("ones"),
        ),
        facts=facts(
            f"layer {request.layer}, a corner",
            {
                "the model's own bias of out 0": "none" if own.bias is None else own.bias[0].item(),
                "with what is added": b_O[0].item(),
                "largest difference from W X + B": (z_OT - plain_OT).abs().max().item(),
                f"out 0 of {names[column]}, all of it": products_J.sum().item(),
            },
        ),
    )


def checks(reading: Reading, request: BakedBiasRequest) -> Iterator[Check]:
    """With ones in the last row it is W X + B, however computed; the bias is in the last column, and nowhere else."""
    w_OI, x_IT, b_O = corner(reading, request)
    w_OJ = extended(w_OI, b_O)
    z_OT = w_OJ @ with_ones(x_IT, 1.0, broken=request.broken)
    plain_OT = torch.stack([w_OI @ x_I + b_O for x_I in x_IT.T], dim=1)
    arithmetic, scale_OT = Arithmetic(n_terms=w_OJ.shape[1]), product_scales(x_IT.T, w_OI, b_O).T
    yield equal("W′ X′ differs from W X + B, token by token, by", z_OT, plain_OT, arithmetic, scale_OT)
    numpy_OT = np.hstack((w_OI, b_O[:, None])) @ np.vstack((x_IT, np.ones((1, x_IT.shape[1]), np.float32)))
    yield equal("numpy's W′ X′ differs by", z_OT, torch.from_numpy(numpy_OT), arithmetic, scale_OT)
    half_OT = w_OJ @ with_ones(x_IT, 0.5, broken=request.broken)
    yield equal(
        "with halves for ones, half of the bias is missing, to within",
        half_OT,
        plain_OT - b_O[:, None] / 2,
        arithmetic,
        scale_OT,
    )
    moved_OJ = (extended(w_OI, b_O + 1) - w_OJ).abs()
    yield at_most(0, largest(moved_OJ[:, :-1]), "another bias changes the other columns of W′ by")
    yield equal(
        "a bias that is 1 larger makes the last column 1 larger, to within",
        moved_OJ[:, -1],
        torch.ones(len(b_O)),
        Arithmetic(),
        largest(b_O) + 1,
    )


LESSON = Lesson(
    system=3,
    title="The bias baked in",
    posts=(MATRICES,),
    request_type=BakedBiasRequest,
    result_type=BakedBiasResult,
    compute=compute,
    checks=checks,
    breaks="put the row of ones on top of X, while the bias stays the last column of W",
    code=("app/lessons/baked_bias.py: extended, with_ones", "model/linear.py: Linear"),
)
