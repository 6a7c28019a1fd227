"""S07: without a non-linear function between them, two linear layers are no more than one."""

# shapes: T tokens, M features of a token, X hidden features, O outputs that are shown, P points of a curve

import math
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, different, equal, largest, printed, product_scales
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter
from app.schemas import Index
from model.linear import Linear

ActivationName = Literal["none", "ReLU", "GELU", "GELU, tanh form"]
ACTIVATION_NAMES: tuple[ActivationName, ...] = get_args(ActivationName)
U_LIMIT = 6.0
N_MLP_OUTPUTS = 8
TANH_FORM_ERROR = 4.8e-4  # the largest difference between the tanh form of GELU and the exact one, rounded up
ACTIVATED_MAPS = {  # by Config.mlp: the linear map that an activation follows, and which one
    "gelu": ("mlp.up", "GELU, tanh form"),
    "swiglu": ("mlp.gate", "SiLU"),
}

MlpMaps = tuple[Tensor, Tensor, Tensor, Tensor]  # W₁, (X, M), b₁, (X,), W₂, (O, X), b₂, (O,)


class ActivationRequest(LessonRequest):
    """A layer, the activation between its two linear maps, and a point of the curves."""

    layer: Index = Field(0, title="Layer", description="shows the feed-forward network of this layer")
    activation: ActivationName = Field("none", title="Between the two maps")
    u: float = Field(
        -0.75,
        ge=-U_LIMIT,
        le=U_LIMIT,
        title="u",
        description="moves the marked point of the curves; u is an output of the first map",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class ActivationResult(LessonResult):
    """Two maps and the one map that is their product, the curves, and which maps of the model have an activation."""

    two_maps: Heatmap = Field(description="the outputs of both maps, with the chosen activation between them")
    merged_map: Heatmap = Field(description="the outputs of the one map that is their product")
    difference: Heatmap
    merge_facts: Facts
    curves: Curves
    slopes: Curves
    tanh_error: Curves = Field(description="the tanh form of GELU minus the exact one")
    point_facts: Facts = Field(description="the activations and their slopes at the chosen u")
    linear_maps: Facts = Field(description="the linear maps of the layer, and the activation that follows each")


def activate(name: ActivationName, x: Tensor, *, broken: bool = False) -> Tensor:
    """An activation, applied to every number; broken: ReLU instead of none.

    >>> activate("ReLU", torch.tensor([-2.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    if name == "ReLU" or (name == "none" and broken):
        return x.clamp_min(0)
    if name == "GELU":  # x Φ(x), where Φ is the cumulative distribution function of the standard normal distribution
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    if name == "GELU, tanh form":
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x


def slope(name: ActivationName, x: Tensor) -> Tensor:
    """The slope of an activation, as a central difference."""
    step = 1e-5
    return (activate(name, x + step) - activate(name, x - step)) / (2 * step)


def double_parameters(linear: object) -> tuple[Tensor, Tensor]:
    """Weights and bias of a linear map, in double precision."""
    assert isinstance(linear, Linear)
    weight_OI, bias_O = parameters(linear)
    return weight_OI.double(), bias_O.double()


def captured_mlp(reading: Reading, layer: int) -> tuple[Tensor, Tensor]:
    """Input and output of a feed-forward network for the first tokens, (T, M) each; double precision."""
    x_TM, y_TM = reading.capture(layer, reading.block(layer).mlp, N_SAMPLES)
    return x_TM.cpu().double(), y_TM.cpu().double()


def mlp_maps(reading: Reading, layer: int) -> MlpMaps:
    """The first linear map of a feed-forward network, and the first outputs of the second."""
    mlp = reading.block(layer).mlp
    (w1_XM, b1_X), (w2_MX, b2_M) = double_parameters(mlp.up), double_parameters(mlp.down)
    return w1_XM, b1_X, w2_MX[:N_MLP_OUTPUTS], b2_M[:N_MLP_OUTPUTS]


def apply_both(maps: MlpMaps, name: ActivationName, x_TM: Tensor, *, broken: bool) -> Tensor:
    """W₂ f(W₁ x + b₁) + b₂ for every token, (T, O)."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return activate(name, x_TM @ w1_XM.T + b1_X, broken=broken) @ w2_OX.T + b2_O


def apply_merged(maps: MlpMaps, x_TM: Tensor) -> Tensor:
    """(W₂ W₁) x + (W₂ b₁ + b₂) for every token, (T, O): one map, without hidden features."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return x_TM @ (w2_OX @ w1_XM).T + (w2_OX @ b1_X + b2_O)


def mlp_by_formula(reading: Reading, layer: int, x_TM: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of a feed-forward network from its parameters and formula, and the scale of their rounding errors.

    Both are (T, M).
    """
    mlp = reading.block(layer).mlp
    up, down = double_parameters(mlp.up), double_parameters(mlp.down)
    hidden_TX = x_TM @ up[0].T + up[1]
    if reading.config.mlp == "gelu":
        hidden_TX = activate("GELU, tanh form", hidden_TX)
    else:
        gate_w_XM, gate_b_X = double_parameters(mlp.gate)
        gate_TX = x_TM @ gate_w_XM.T + gate_b_X
        hidden_TX = gate_TX / (1 + torch.exp(-gate_TX)) * hidden_TX
    return hidden_TX @ down[0].T + down[1], product_scales(hidden_TX, *down, dtype=reading.dtype)


def linear_map_facts(reading: Reading, layer: int) -> Facts:
    """The linear maps of a layer and the unembedding, each with the activation that follows it."""
    activated_map, activation = ACTIVATED_MAPS[reading.config.mlp]
    network = reading.model.network
    linears = {name: module for name, module in reading.block(layer).named_modules() if isinstance(module, Linear)}
    activations = {
        f"{name}, {linear.in_features} → {linear.out_features}": activation if name == activated_map else "none"
        for name, linear in {**linears, "unembed": network.unembed}.items()
    }
    n_linears = sum(isinstance(module, Linear) for module in network.modules())
    return facts(
        f"Activation after each linear map, layer {layer}",
        {
            **activations,
            f"maps without an activation, of all {n_linears} in the model": float(n_linears - reading.config.n_layers),
        },
    )


def _curves(title: str, curves: Mapping[ActivationName, Tensor], u_P: Tensor, marker: float) -> Curves:
    lines = [Line(name=name, x=u_P.tolist(), y=numbers(y_P)) for name, y_P in curves.items()]
    return Curves(title=title, x_axis="u", lines=lines, marker=marker)


def compute(reading: Reading, request: ActivationRequest) -> ActivationResult:
    """The two maps of a layer, the one map that is their product, and the curves of the activations."""
    x_TM, _ = captured_mlp(reading, request.layer)
    maps = mlp_maps(reading, request.layer)
    two_TO, merged_TO = apply_both(maps, request.activation, x_TM, broken=request.broken), apply_merged(maps, x_TM)
    labels, outputs = reading.token_labels[:N_SAMPLES], [f"out {i}" for i in range(N_MLP_OUTPUTS)]
    u_P = torch.linspace(-U_LIMIT, U_LIMIT, 121, dtype=torch.float64)
    curves = {name: activate(name, u_P) for name in ACTIVATION_NAMES}
    slopes = {name: slope(name, u_P) for name in ACTIVATION_NAMES}
    errors: dict[ActivationName, Tensor] = {"GELU, tanh form": curves["GELU, tanh form"] - curves["GELU"]}
    size = f"{len(labels)} × {N_MLP_OUTPUTS}"
    return ActivationResult(
        two_maps=signed(f"Two maps, W₂ f(W₁ x + b₁) + b₂, f: {request.activation}, {size}", labels, outputs, two_TO),
        merged_map=signed(f"One map, (W₂ W₁) x + (W₂ b₁ + b₂), {size}", labels, outputs, merged_TO),
        difference=signed(
            f"Difference between two maps and one, {size}",
            labels,
            outputs,
            two_TO - merged_TO,
            limit=merged_TO.abs().max().item(),
        ),
        merge_facts=_merge_facts(request.layer, maps, x_TM, two_TO, merged_TO),
        curves=_curves("Activations f(u)", curves, u_P, request.u),
        slopes=_curves("Slopes of the activations", slopes, u_P, request.u),
        tanh_error=_curves("Difference of the tanh form of GELU to the exact GELU", errors, u_P, request.u),
        point_facts=_point_facts(request.u),
        linear_maps=linear_map_facts(reading, request.layer),
    )


def _merge_facts(layer: int, maps: MlpMaps, x_TM: Tensor, two_TO: Tensor, merged_TO: Tensor) -> Facts:
    w1_XM, b1_X, _, _ = maps
    d_mlp, d_model = w1_XM.shape
    return facts(
        f"Two maps and one, layer {layer}",
        {
            "W₁": f"{d_mlp} × {d_model}",
            "W₂": f"{d_model} × {d_mlp}",
            "W₂ W₁": f"{d_model} × {d_model}",
            "largest difference": (two_TO - merged_TO).abs().max().item(),
            "largest output of the one map": merged_TO.abs().max().item(),
            "fraction of hidden numbers below 0": (x_TM @ w1_XM.T + b1_X < 0).double().mean().item(),
        },
    )


def _point_facts(u: float) -> Facts:
    point = torch.tensor(u, dtype=torch.float64)
    names = ACTIVATION_NAMES[1:]
    return facts(
        f"Activations at u = {u:g}",
        {name: activate(name, point).item() for name in names}
        | {f"slope of {name}": slope(name, point).item() for name in names},
    )


def checks(reading: Reading, request: ActivationRequest) -> Iterator[Check]:
    """Two maps are one without an activation, and not with GELU; the formulas give the model's own outputs."""
    x_TM, running_TM = captured_mlp(reading, request.layer)
    maps = w1_XM, b1_X, w2_OX, b2_O = mlp_maps(reading, request.layer)
    merged_TO = apply_merged(maps, x_TM)
    linear_TO, gelu_TO = (apply_both(maps, name, x_TM, broken=request.broken) for name in ("none", "GELU"))
    arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=torch.double)
    scale_TO = product_scales(product_scales(x_TM, w1_XM, b1_X), w2_OX, b2_O)
    yield equal("without an activation, two maps equal their product", linear_TO, merged_TO, arithmetic, scale_TO)
    yield different("with GELU between them, they differ from it", gelu_TO, merged_TO, arithmetic, scale_TO)
    lowest = activate("GELU", torch.tensor(-0.7525, dtype=torch.float64))
    yield printed("GELU(−0.7525) is −0.1700", lowest, -0.1700)
    u_P = torch.linspace(-U_LIMIT, U_LIMIT, 12_001, dtype=torch.float64)
    tanh_error = largest(activate("GELU, tanh form", u_P) - activate("GELU", u_P))
    yield at_most(TANH_FORM_ERROR, tanh_error, "between −6 and 6, the tanh form of GELU is close to the exact GELU")
    formula_TM, scale_TM = mlp_by_formula(reading, request.layer, x_TM)
    arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=reading.dtype, n_roundings=4)
    name = "these formulas give the outputs of the model's own network"
    yield equal(name, formula_TM, running_TM, arithmetic, scale_TM)


LESSON = Lesson(
    number=7,
    title="Why activations",
    posts=(MATHS_ADDENDUM, MATHS, chapter("4.3")),
    request_type=ActivationRequest,
    result_type=ActivationResult,
    compute=compute,
    checks=checks,
    break_description="use a ReLU between the two maps where there should be no activation",
    code_references=("model/mlp.py: GeluMLP, SwigluMLP", "app/lessons/activation.py: activate, apply_merged"),
)
