"""S07: without a non-linear function between them, two linear layers are no more than one."""

# shapes: T tokens, M features of a token, X hidden features, O outputs that are shown, P points of a curve

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from app.experiments.base import N_SAMPLES, RESIDUAL, Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, at_most, different, equal, largest, printed, product_scales
from app.experiments.controls import Choice, Controls, Layer, Slider
from app.experiments.panels import Curves, Facts, Heatmap, Line, facts, numbers, shape_label, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter
from model.linear import Linear

ActivationName = Literal["none", "ReLU", "GELU", "GELU, tanh form"]
ACTIVATION_NAMES: tuple[ActivationName, ...] = get_args(ActivationName)
U_LIMIT = 6.0
U_P = torch.linspace(-U_LIMIT, U_LIMIT, 121, dtype=torch.double)  # where the curves are drawn
N_MLP_OUTPUTS = 8
TANH_FORM_ERROR = 4.8e-4  # the largest difference between the tanh form of GELU and the exact one, rounded up
ACTIVATED_MAPS = {  # by Config.mlp: the linear map that an activation follows, and which one
    "gelu": ("mlp.up", "GELU, tanh form"),
    "swiglu": ("mlp.gate", "SiLU"),
}

MlpMaps = tuple[Tensor, Tensor, Tensor, Tensor]  # W₁, (X, M), b₁, (X,), W₂, (O, X), b₂, (O,)


class ActivationControls(Controls):
    """A layer, the activation between its two linear maps, and a point of the curves."""

    layer: Annotated[int, Layer(help="shows the feed-forward network of this layer")] = 0
    activation: Annotated[ActivationName, Choice("Between the two maps")] = "none"
    u: Annotated[
        float, Slider(-U_LIMIT, U_LIMIT, 0.05, "u", "an output of the first map; moves the marked point", playable=True)
    ] = -0.75


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


def apply_both(maps: MlpMaps, name: ActivationName, x_TM: Tensor, *, broken: bool) -> Tensor:
    """W₂ f(W₁ x + b₁) + b₂ for every token, (T, O)."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return activate(name, x_TM @ w1_XM.T + b1_X, broken=broken) @ w2_OX.T + b2_O


def apply_merged(maps: MlpMaps, x_TM: Tensor) -> Tensor:
    """(W₂ W₁) x + (W₂ b₁ + b₂) for every token, (T, O): one map, without hidden features."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return x_TM @ (w2_OX @ w1_XM).T + (w2_OX @ b1_X + b2_O)


class ActivationWork(Work):
    """The two maps of a layer, the one map that is their product, and the curves of the activations."""

    sites = RESIDUAL | {"attention", "mlp"}
    controls: ActivationControls

    @cached_property
    def x_TM(self) -> Tensor:
        """The input of the feed-forward network for the first tokens, in double precision."""
        return self.mlp_input(self.controls.layer)[:N_SAMPLES].cpu().double()

    @cached_property
    def maps(self) -> MlpMaps:
        """The first linear map of the feed-forward network, and the first outputs of the second."""
        mlp = self.block(self.controls.layer).mlp
        (w1_XM, b1_X), (w2_MX, b2_M) = double_parameters(mlp.up), double_parameters(mlp.down)
        return w1_XM, b1_X, w2_MX[:N_MLP_OUTPUTS], b2_M[:N_MLP_OUTPUTS]

    @cached_property
    def two_TO(self) -> Tensor:
        """The outputs of both maps with the chosen activation between them."""
        return apply_both(self.maps, self.controls.activation, self.x_TM, broken=self.controls.broken)

    @cached_property
    def merged_TO(self) -> Tensor:
        """The outputs of the one map."""
        return apply_merged(self.maps, self.x_TM)

    def picture(self, title: str, values_TO: Tensor, limit: float = 1e-6) -> Heatmap:
        """Outputs of the first tokens."""
        outputs = [f"out {i}" for i in range(N_MLP_OUTPUTS)]
        title = f"{title}, {shape_label(values_TO.shape)}"
        return signed(title, self.token_labels[:N_SAMPLES], outputs, values_TO, limit=limit)

    @panel
    def two_maps(self) -> Heatmap:
        """The outputs of both maps, with the chosen activation between them."""
        return self.picture(f"Two maps, W₂ f(W₁ x + b₁) + b₂, f: {self.controls.activation}", self.two_TO)

    @panel
    def merged_map(self) -> Heatmap:
        """The outputs of the one map that is their product."""
        return self.picture("One map, (W₂ W₁) x + (W₂ b₁ + b₂)", self.merged_TO)

    @panel
    def difference(self) -> Heatmap:
        """The outputs of the two maps minus those of the one map."""
        title = "Difference between two maps and one"
        return self.picture(title, self.two_TO - self.merged_TO, largest(self.merged_TO))

    @panel
    def merge_facts(self) -> Facts:
        """The shapes of the matrices, and how far the two maps are from the one."""
        w1_XM, b1_X, _, _ = self.maps
        d_mlp, d_model = w1_XM.shape
        named: dict[str, float | str] = {
            "W₁": f"{d_mlp} × {d_model}",
            "W₂": f"{d_model} × {d_mlp}",
            "W₂ W₁": f"{d_model} × {d_model}",
            "largest difference": largest(self.two_TO - self.merged_TO),
            "largest output of the one map": largest(self.merged_TO),
            "fraction of hidden numbers below 0": (self.x_TM @ w1_XM.T + b1_X < 0).double().mean().item(),
        }
        return facts(f"Two maps and one, layer {self.controls.layer}", named)

    def drawn(self, title: str, names: Sequence[str], curves: Sequence[Tensor]) -> Curves:
        """Curves over u, (P,) each."""
        lines = [Line(name=name, x=U_P.tolist(), y=numbers(y_P)) for name, y_P in zip(names, curves, strict=True)]
        return Curves(title=title, x_axis="u", lines=lines, marker=self.controls.u)

    @panel
    def curves(self) -> Curves:
        """The activations as functions of u."""
        return self.drawn("Activations f(u)", ACTIVATION_NAMES, [activate(name, U_P) for name in ACTIVATION_NAMES])

    @panel
    def slopes(self) -> Curves:
        """How fast each activation rises."""
        slopes = [slope(name, U_P) for name in ACTIVATION_NAMES]
        return self.drawn("Slopes of the activations", ACTIVATION_NAMES, slopes)

    @panel
    def tanh_error(self) -> Curves:
        """The tanh form of GELU minus the exact one."""
        error_P = activate("GELU, tanh form", U_P) - activate("GELU", U_P)
        return self.drawn("Difference of the tanh form of GELU to the exact GELU", ["GELU, tanh form"], [error_P])

    @panel
    def point_facts(self) -> Facts:
        """The activations and their slopes at the chosen u."""
        u, names = torch.tensor(self.controls.u, dtype=torch.double), ACTIVATION_NAMES[1:]
        named = {str(name): activate(name, u).item() for name in names}
        slopes = {f"slope of {name}": slope(name, u).item() for name in names}
        return facts(f"Activations at u = {u:g}", named | slopes)

    @panel
    def linear_maps(self) -> Facts:
        """The linear maps of the layer and the unembedding, each with the activation that follows it."""
        layer, network = self.controls.layer, self.network
        activated_map, activation = ACTIVATED_MAPS[self.config.mlp]
        linears = {name: module for name, module in self.block(layer).named_modules() if isinstance(module, Linear)}
        named: dict[str, float | str] = {
            f"{name}, {linear.in_features} → {linear.out_features}": activation if name == activated_map else "none"
            for name, linear in {**linears, "unembed": network.unembed}.items()
        }
        n_linears = sum(isinstance(module, Linear) for module in network.modules())
        n_without = float(n_linears - self.config.n_layers)
        named[f"maps without an activation, of all {n_linears} in the model"] = n_without
        return facts(f"Activation after each linear map, layer {layer}", named)

    def by_formula(self) -> tuple[Tensor, Tensor]:
        """Outputs of the network from its parameters and formula, and the scale of their errors; (T, M) each."""
        mlp, x_TM = self.block(self.controls.layer).mlp, self.x_TM
        up, down = double_parameters(mlp.up), double_parameters(mlp.down)
        hidden_TX = x_TM @ up[0].T + up[1]
        if self.config.mlp == "gelu":
            hidden_TX = activate("GELU, tanh form", hidden_TX)
        else:
            gate_w_XM, gate_b_X = double_parameters(mlp.gate)
            gate_TX = x_TM @ gate_w_XM.T + gate_b_X
            hidden_TX = gate_TX / (1 + torch.exp(-gate_TX)) * hidden_TX
        return hidden_TX @ down[0].T + down[1], product_scales(hidden_TX, *down, dtype=self.dtype)

    def checks(self) -> Iterator[Check]:
        """Two maps are one without an activation, and not with GELU; the formulas give the model's own outputs."""
        w1_XM, b1_X, w2_OX, b2_O = self.maps
        linear_TO, gelu_TO = (
            apply_both(self.maps, name, self.x_TM, broken=self.controls.broken) for name in ("none", "GELU")
        )
        arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=torch.double)
        scale_TO = product_scales(product_scales(self.x_TM, w1_XM, b1_X), w2_OX, b2_O)
        name = "without an activation, two maps equal their product"
        yield equal(name, linear_TO, self.merged_TO, arithmetic, scale_TO)
        yield different("with GELU between them, they differ from it", gelu_TO, self.merged_TO, arithmetic, scale_TO)
        lowest = activate("GELU", torch.tensor(-0.7525, dtype=torch.double))
        yield printed("GELU(−0.7525) is −0.1700", lowest, -0.1700)
        u_P = torch.linspace(-U_LIMIT, U_LIMIT, 12_001, dtype=torch.double)
        tanh_error = largest(activate("GELU, tanh form", u_P) - activate("GELU", u_P))
        yield at_most(TANH_FORM_ERROR, tanh_error, "between −6 and 6, the tanh form of GELU is close to the exact GELU")
        (formula_TM, scale_TM), running_TM = self.by_formula(), self.trace.observed("mlp", self.controls.layer)
        arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=self.dtype, n_roundings=4)
        name = "these formulas give the outputs of the model's own network"
        yield equal(name, formula_TM, running_TM[:N_SAMPLES], arithmetic, scale_TM)


EXPERIMENT = Lesson(
    number=7,
    title="Why activations",
    posts=(MATHS_ADDENDUM, MATHS, chapter("4.3")),
    work=ActivationWork,
    break_description="use a ReLU between the two maps where there should be no activation",
    code_references=("model/mlp.py: GeluMLP, SwigluMLP", "app/lessons/activation.py: activate, apply_merged"),
)
