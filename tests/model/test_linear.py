"""All roads of a linear layer lead to the same numbers, and where one is missing the others are taken."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import linear
from model.linear import Linear, Road, choose_roads, fastest


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90), st.booleans())
@settings(max_examples=40, deadline=None)
def test_all_roads_lead_to_the_numbers_of_nn_linear(rows: int, n_in: int, n_out: int, bias: bool) -> None:
    layer = Linear(n_in, n_out, bias=bias)
    x = torch.randn(1, rows, n_in)
    with torch.inference_mode():
        layer.pack()
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        for road in get_args(Road):
            found = layer.by(road, x)
            assert found.shape == expected.shape
            assert found.is_contiguous()
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_road_is_that_of_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Road] = []

    def by(_: Linear, road: Road, x: torch.Tensor) -> torch.Tensor:
        taken.append(road)
        return x

    monkeypatch.setattr(Linear, "by", by)
    layer = Linear(8, 8)
    layer.roads = {1: "plain", 4: "turned", 64: "packed"}
    for rows in (1, 3, 4, 63, 64, 500):
        layer(torch.ones(1, rows, 8))
    assert taken == ["plain", "plain", "turned", "turned", "packed", "packed"]


def test_a_layer_that_was_never_measured_is_plain() -> None:
    layer, x = Linear(8, 4), torch.randn(3, 8)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """Three small layers that count as many large ones."""
    monkeypatch.setattr(linear, "WORTH_BYTES", 0)
    monkeypatch.setattr(linear, "PROBE_BYTES", 20_000)
    return nn.Sequential(*(Linear(64, 64) for _ in range(3)))


def raced(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    def race(_: object, __: int, *, with_packed: bool) -> dict[str, float]:
        return {road: s for road, s in seconds.items() if with_packed or road != "packed"}

    monkeypatch.setattr(linear, "_race", race)


def layers(network: nn.Sequential) -> list[Linear]:
    return [layer for layer in network if isinstance(layer, Linear)]


def test_where_packing_wins_clearly_every_layer_is_packed(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced(monkeypatch, plain=1.0, turned=1.1, packed=0.5)
    assert set(choose_roads(network).values()) == {"packed"}
    assert all(layer.packed is not None for layer in layers(network))


def test_where_packing_wins_by_little_no_memory_is_spent_on_it(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced(monkeypatch, plain=1.0, turned=1.1, packed=0.9)
    assert set(choose_roads(network).values()) == {"plain"}
    assert all(layer.packed is None for layer in layers(network))


def test_a_torch_without_the_operators_has_the_other_roads(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    monkeypatch.setattr(Linear, "pack", missing)
    raced(monkeypatch, plain=1.0, turned=0.5, packed=0.1)
    x = torch.randn(5, 64)
    with torch.inference_mode():
        expected = network(x)
        assert set(choose_roads(network).values()) == {"turned"}
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_a_real_race_has_a_winner_for_every_number_of_rows(network: nn.Sequential) -> None:
    x = torch.randn(30, 64)
    with torch.inference_mode():
        expected = network(x)
        assert list(choose_roads(network)) == list(linear.ROWS)
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_and_small_networks_are_left_alone() -> None:
    small = nn.Sequential(Linear(64, 64))
    assert choose_roads(small) == choose_roads(small.bfloat16()) == {}


@given(st.lists(st.tuples(*[st.floats(0.1, 10)] * 3), min_size=1, max_size=5))
def test_the_fastest_road_is_taken_but_for_small_gains(times: list[tuple[float, float, float]]) -> None:
    races: dict[int, dict[Road, float]] = {
        i: {"plain": plain, "turned": turned, "packed": packed} for i, (plain, turned, packed) in enumerate(times)
    }
    roads = fastest(races)
    taking_part: tuple[Road, ...] = ("plain", "turned", "packed") if "packed" in roads.values() else ("plain", "turned")
    for rows, road in roads.items():
        assert races[rows][road] <= min(races[rows][other] for other in taking_part) * linear.TURNED_GAIN
