"""S07: two maps without an activation are one, and the curves are those of torch's functions and of autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from app.experiments.base import N_SAMPLES
from app.experiments.panels import Curves
from app.lessons.activation import ActivationName, ActivationWork, activate, apply_both, apply_merged
from app.models import LoadedModel
from model.linear import Linear
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, lines, named, number, values

TORCH: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "ReLU": torch.relu,
    "GELU": F.gelu,
    "GELU, tanh form": lambda x: F.gelu(x, approximate="tanh"),
}


def linear_of(module: nn.Module, name: str) -> Linear:
    linear = module.get_submodule(name)
    assert isinstance(linear, Linear)
    return linear


def test_two_maps_of_one_neuron_can_be_checked_in_the_head() -> None:
    maps = tuple(torch.tensor(numbers) for numbers in ([[2.0]], [1.0], [[-3.0]], [10.0]))
    x_TM = torch.tensor([[1.0], [-4.0]])  # hidden: 3 and −7
    assert apply_merged(maps, x_TM).tolist() == [[1.0], [31.0]]  # type: ignore[arg-type]
    assert apply_both(maps, "none", x_TM, broken=False).tolist() == [[1.0], [31.0]]  # type: ignore[arg-type]
    assert apply_both(maps, "ReLU", x_TM, broken=False).tolist() == [[1.0], [10.0]]  # type: ignore[arg-type]
    assert apply_both(maps, "none", x_TM, broken=True).tolist() == [[1.0], [10.0]]  # type: ignore[arg-type]


def test_the_curves_are_those_of_torch_and_their_slopes_those_of_autograd(lookback_gpt: LoadedModel) -> None:
    panels = panels_of(make_work(lookback_gpt, "activation", SENTENCE, u=1.5))
    curves, slopes = panels["curves"], lines(panels["slopes"])
    assert isinstance(curves, Curves)
    assert curves.marker == 1.5
    u_P = torch.tensor(curves.lines[0].x, dtype=torch.double)
    assert u_P[[0, -1]].tolist() == [-6, 6]
    for name, function in TORCH.items():
        assert_close(lines(curves)[name], function(u_P))
        away_P = u_P[u_P.abs() > 1e-3].requires_grad_()  # ReLU has no slope at 0
        (slope_P,) = torch.autograd.grad(function(away_P).sum(), away_P)
        assert_close(slopes[name][u_P.abs() > 1e-3], slope_P, rtol=1e-6, atol=1e-6)
    (error_P,) = lines(panels["tanh_error"]).values()
    assert_close(error_P, F.gelu(u_P, approximate="tanh") - F.gelu(u_P), rtol=0, atol=1e-12)


@pytest.mark.parametrize("u", [-0.75, 0.0, 2.0])
def test_the_facts_of_a_point_are_those_of_the_normal_distribution(lookback_gpt: LoadedModel, u: float) -> None:
    facts = panels_of(make_work(lookback_gpt, "activation", SENTENCE, u=u))["point_facts"]
    below, density = math.erfc(-u / math.sqrt(2)) / 2, math.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    assert number(facts, "GELU") == pytest.approx(u * below)
    assert number(facts, "slope of GELU") == pytest.approx(below + u * density, rel=1e-6)
    assert number(facts, "ReLU") == max(u, 0)
    assert number(facts, "slope of ReLU") == pytest.approx((math.copysign(1, u) + 1) / 2 if u else 0.5)


@pytest.mark.parametrize("name", TORCH)
def test_the_two_maps_are_torch_modules_in_a_row(loaded: LoadedModel, name: ActivationName) -> None:
    work = make_work(loaded, "activation", LONG, activation=name, layer=1)
    panels, mlp = panels_of(work), work.block(1).mlp
    x_TM = captured(loaded, LONG, mlp)[0][:N_SAMPLES]
    up, down = (linear_of(mlp, part) for part in ("up", "down"))

    def apply(linear: Linear, x: Tensor) -> Tensor:
        return F.linear(x, linear.weight.double(), None if linear.bias is None else linear.bias.double())

    hidden_TX = apply(up, x_TM)
    expected_TO, linear_TO = apply(down, TORCH[name](hidden_TX))[:, :8], apply(down, hidden_TX)[:, :8]
    assert_near(values(panels["two_maps"]), expected_TO)
    assert_near(values(panels["merged_map"]), linear_TO)
    assert_near(values(panels["difference"]), expected_TO - linear_TO)
    facts, difference = panels["merge_facts"], (expected_TO - linear_TO).abs().max().item()
    assert number(facts, "largest difference") == pytest.approx(difference, rel=1e-3, abs=1e-5)
    assert number(facts, "largest output of the one map") == pytest.approx(linear_TO.abs().max().item(), rel=1e-4)
    n_below = number(facts, "fraction of hidden numbers below 0") * hidden_TX.numel()
    assert n_below == pytest.approx((hidden_TX < 0).sum().item())
    assert named(facts)["W₁"] == f"{up.out_features} × {up.in_features}"
    assert named(facts)["W₂ W₁"] == f"{up.in_features} × {up.in_features}"


def test_the_formula_gives_what_a_hook_sees_in_the_model(loaded: LoadedModel) -> None:
    work = make_work(loaded, "activation", LONG)
    assert isinstance(work, ActivationWork)
    _, output_TM = captured(loaded, LONG, work.block(0).mlp)
    assert_near(work.by_formula()[0], output_TM[:N_SAMPLES])


def test_one_map_per_layer_has_an_activation(loaded: LoadedModel) -> None:
    facts = named(panels_of(make_work(loaded, "activation", SENTENCE))["linear_maps"])
    config = loaded.network.config
    followed = {name.split(",")[0]: value for name, value in facts.items() if isinstance(value, str)}
    gated = config.mlp == "swiglu"
    assert {name for name, value in followed.items() if value != "none"} == {"mlp.gate" if gated else "mlp.up"}
    n_per_layer = 4 + (3 if gated else 2)  # query, key, value, output; the feed-forward network's
    assert len(followed) == n_per_layer + 1
    assert [*facts.values()][-1] == (n_per_layer - 1) * config.n_layers + 1  # and the unembedding


def test_gelu_of_large_numbers_is_relu() -> None:
    u_P = torch.tensor([-30.0, 30.0], dtype=torch.double)
    assert_close(activate("GELU", u_P), activate("ReLU", u_P))
