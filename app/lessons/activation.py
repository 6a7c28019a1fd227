"""S07: without something bent between them, two linear layers are one."""

# shapes: T tokens, M features of a token, X hidden features, O outputs that are shown, P points of a curve

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, different, equal, largest, printed, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import MATHS, MATHS_ADDENDUM, chapter
from app.schemas import Index
from model.linear import Linear

Kind = Literal["none", "ReLU", "GELU", "GELU, tanh form"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LIMIT = 6.0
N_OUTPUTS, N_TOKENS = 8, 16
TANH_FORM_OFF = 4.8e-4  # the largest distance of the tanh form of GELU from the exact one, rounded up
FOLLOWED = {"gelu": ("mlp.up", "GELU, tanh form"), "swiglu": ("mlp.gate", "SiLU")}  # a layer's activation, and where


Maps = tuple[Tensor, Tensor, Tensor, Tensor]  # W₁, (X, M), b₁, (X,), W₂, (O, X), b₂, (O,)


class ActivationRequest(LessonRequest):
    """A layer's two linear maps, what is put between them, and a number to follow through the curves."""

    layer: Index = Field(0, title="Layer", description="whose feed-forward network is taken")
    kind: Kind = Field("none", title="Between the two maps")
    x: float = Field(
        -0.75,
        ge=-LIMIT,
        le=LIMIT,
        title="u",
        description="a number that comes out of the first map",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class ActivationResult(LessonResult):
    """Two maps against one, the curves, and where the model has an activation and where not."""

    stacked: Heatmap = Field(description="through both maps, with what was chosen between them")
    merged: Heatmap = Field(description="through the one map that is their product")
    difference: Heatmap
    collapse: Facts
    curves: Curves
    slopes: Curves
    gap: Curves = Field(description="the tanh form of GELU less the exact one")
    here: Facts = Field(description="all of it at the chosen number")
    maps: Facts = Field(description="the linear maps of the layer, and what follows each")


def activation(kind: Kind, x: Tensor, *, broken: bool = False) -> Tensor:
    """What stands between two layers, of every number.

    >>> activation("ReLU", torch.tensor([-2.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    if kind == "ReLU" or (kind == "none" and broken):
        return x.clamp_min(0)
    if kind == "GELU":  # x Φ(x), Φ(x) being the share of a normal distribution below x
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    if kind == "GELU, tanh form":
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x


def slope(kind: Kind, x: Tensor) -> Tensor:
    """Of an activation: how much it rises over a very short way to either side."""
    step = 1e-5
    return (activation(kind, x + step) - activation(kind, x - step)) / (2 * step)


def precise(linear: Any) -> tuple[Tensor, Tensor]:
    """Weights and bias of a linear map, in double precision."""
    weight_OI, bias_O = parameters(linear)
    return weight_OI.double(), bias_O.double()


def captured(reading: Reading, layer: int) -> tuple[Tensor, Tensor]:
    """What goes into a feed-forward network and what comes out, (T, M) each, for the first tokens; double precision."""
    x_TM, y_TM = reading.capture(layer, reading.block(layer).mlp, N_TOKENS)
    return x_TM.cpu().double(), y_TM.cpu().double()


def two_maps(reading: Reading, layer: int) -> Maps:
    """The first map of a feed-forward network, and the first rows of the second."""
    mlp = reading.block(layer).mlp
    (w1_XM, b1_X), (w2_MX, b2_M) = precise(mlp.up), precise(mlp.down)
    return w1_XM, b1_X, w2_MX[:N_OUTPUTS], b2_M[:N_OUTPUTS]


def stacked(maps: Maps, kind: Kind, x_TM: Tensor, *, broken: bool) -> Tensor:
    """W₂ f(W₁ x + b₁) + b₂ of every token, (T, O)."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return activation(kind, x_TM @ w1_XM.T + b1_X, broken=broken) @ w2_OX.T + b2_O


def merged(maps: Maps, x_TM: Tensor) -> Tensor:
    """(W₂ W₁) x + (W₂ b₁ + b₂) of every token, (T, O): one map, without hidden features."""
    w1_XM, b1_X, w2_OX, b2_O = maps
    return x_TM @ (w2_OX @ w1_XM).T + (w2_OX @ b1_X + b2_O)


def own(reading: Reading, layer: int, x_TM: Tensor) -> tuple[Tensor, Tensor]:
    """The feed-forward network as this model has it, from its parameters and formulas alone, and the scale
    of its rounding errors; (T, M) each."""
    mlp = reading.block(layer).mlp
    up, down = precise(mlp.up), precise(mlp.down)
    hidden_TX = x_TM @ up[0].T + up[1]
    if reading.config.mlp == "gelu":
        hidden_TX = activation("GELU, tanh form", hidden_TX)
    else:
        gate_w_XM, gate_b_X = precise(mlp.gate)
        gate_TX = x_TM @ gate_w_XM.T + gate_b_X
        hidden_TX = gate_TX / (1 + torch.exp(-gate_TX)) * hidden_TX
    return hidden_TX @ down[0].T + down[1], product_scales(hidden_TX, *down, dtype=reading.dtype)


def linear_maps(reading: Reading, layer: int) -> Facts:
    """Those of a layer, and the unembedding: what follows each."""
    behind, what = FOLLOWED[reading.config.mlp]
    network = reading.model.network
    found = {name: part for name, part in reading.block(layer).named_modules() if isinstance(part, Linear)}
    follows = {
        f"{name}, {part.in_features} → {part.out_features}": what if name == behind else "none"
        for name, part in {**found, "unembed": network.unembed}.items()
    }
    n_maps = sum(isinstance(part, Linear) for part in network.modules())
    return facts(
        f"the linear maps of layer {layer}, and the activation that follows",
        {**follows, f"without any, of {n_maps} in the whole model": float(n_maps - reading.config.n_layers)},
    )


def _curves(title: str, of: Mapping[Kind, Tensor], x_P: Tensor, here: float) -> Curves:
    lines = [Line(name=name, x=x_P.tolist(), y=numbers(y_P)) for name, y_P in of.items()]
    return Curves(title=title, x_axis="u", lines=lines, marker=here)


def compute(reading: Reading, request: ActivationRequest) -> ActivationResult:
    """Two maps of a layer against the one they would be, and the curves that prevent it."""
    x_TM, _ = captured(reading, request.layer)
    maps = two_maps(reading, request.layer)
    two_TO, one_TO = stacked(maps, request.kind, x_TM, broken=request.broken), merged(maps, x_TM)
    w1_XM, b1_X, _, _ = maps
    names, outs = reading.token_labels[:N_TOKENS], [f"out {i}" for i in range(N_OUTPUTS)]
    x_P, at = torch.linspace(-LIMIT, LIMIT, 121, dtype=torch.float64), torch.tensor(request.x, dtype=torch.float64)
    bent_P = {kind: activation(kind, x_P) for kind in KINDS}
    gap_P = bent_P["GELU, tanh form"] - bent_P["GELU"]
    size = f"{len(names)} × {N_OUTPUTS}"
    d, d_hidden = w1_XM.shape[1], len(w1_XM)
    return ActivationResult(
        stacked=signed(f"W₂ f(W₁ x + b₁) + b₂, f: {request.kind}, {size}", names, outs, two_TO),
        merged=signed(f"one map, W₂ W₁, {size}", names, outs, one_TO),
        difference=signed(
            f"the first less the second, {size}", names, outs, two_TO - one_TO, limit=one_TO.abs().max().item()
        ),
        collapse=facts(
            f"layer {request.layer}, two maps and one",
            {
                "W₁": f"{d_hidden} × {d}",
                "W₂": f"{d} × {d_hidden}",
                "W₂ W₁": f"{d} × {d}",
                "largest difference": (two_TO - one_TO).abs().max().item(),
                "largest number of the one map": one_TO.abs().max().item(),
                "hidden numbers below 0, share": (x_TM @ w1_XM.T + b1_X < 0).double().mean().item(),
            },
        ),
        curves=_curves("what comes out, over what goes in", bent_P, x_P, request.x),
        slopes=_curves("slopes", {kind: slope(kind, x_P) for kind in KINDS}, x_P, request.x),
        gap=_curves("the tanh form of GELU less the exact one", {"GELU, tanh form": gap_P}, x_P, request.x),
        here=facts(
            f"at u = {request.x:g}",
            {kind: activation(kind, at).item() for kind in KINDS[1:]}
            | {f"slope of {kind}": slope(kind, at).item() for kind in KINDS[1:]},
        ),
        maps=linear_maps(reading, request.layer),
    )


def checks(reading: Reading, request: ActivationRequest) -> Iterator[Check]:
    """Nothing in between, and two maps are one; GELU, and they are not; the curves, and the model's own network."""
    x_TM, theirs_TM = captured(reading, request.layer)
    maps = w1_XM, b1_X, w2_OX, b2_O = two_maps(reading, request.layer)
    one_TO = merged(maps, x_TM)
    bare_TO, bent_TO = (stacked(maps, kind, x_TM, broken=request.broken) for kind in ("none", "GELU"))
    arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=torch.double)
    scale_TO = product_scales(product_scales(x_TM, w1_XM, b1_X), w2_OX, b2_O)
    yield equal("nothing in between, two maps differ from their product by", bare_TO, one_TO, arithmetic, scale_TO)
    yield different("with GELU in between they differ by", bent_TO, one_TO, arithmetic, scale_TO)
    lowest = activation("GELU", torch.tensor(-0.7525, dtype=torch.float64))
    yield printed("GELU(−0.7525) differs from −0.1700 by", lowest, -0.1700)
    x_P = torch.linspace(-LIMIT, LIMIT, 12_001, dtype=torch.float64)
    off = largest(activation("GELU, tanh form", x_P) - activation("GELU", x_P))
    yield at_most(TANH_FORM_OFF, off, "from −6 to 6 the tanh form of GELU differs from the exact one by")
    ours_TM, scale_TM = own(reading, request.layer, x_TM)
    arithmetic = Arithmetic(n_terms=sum(w1_XM.shape), dtype=reading.dtype, n_roundings=4)
    yield equal("the model's own network differs from these formulas by", ours_TM, theirs_TM, arithmetic, scale_TM)


LESSON = Lesson(
    system=7,
    title="Why activations",
    posts=(MATHS_ADDENDUM, MATHS, chapter("4.3")),
    request_type=ActivationRequest,
    result_type=ActivationResult,
    compute=compute,
    checks=checks,
    breaks="leave a ReLU between the two maps where nothing should be",
    code=("model/mlp.py: GeluMLP, SwigluMLP", "app/lessons/activation.py: activation, merged"),
)
