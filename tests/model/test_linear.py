"""Both roads of a linear layer lead to the same numbers, and where one is missing the other is taken."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import linear
from model.linear import Linear, first_won, pack


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90), st.booleans())
@settings(max_examples=40, deadline=None)
def test_packed_numbers_are_those_of_nn_linear(rows: int, n_in: int, n_out: int, bias: bool) -> None:
    layer = Linear(n_in, n_out, bias=bias)
    x = torch.randn(1, rows, n_in)
    with torch.inference_mode():
        plain = nn.functional.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer(x), plain)
        layer.pack()
        torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)


def test_fewer_rows_than_pay_take_the_plain_road() -> None:
    layer = Linear(8, 8, bias=False)
    with torch.inference_mode():
        layer.pack(packed_from=4)
        layer.weight.zero_()  # the packed copy still has the old numbers
        assert not layer(torch.ones(3, 8)).any()
        assert layer(torch.ones(4, 8)).any()


def network(n: int = 3) -> nn.Sequential:
    return nn.Sequential(*(Linear(64, 64) for _ in range(n)))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network counts as large."""
    monkeypatch.setattr(linear, "WORTH_BYTES", 0)
    monkeypatch.setattr(linear, "PROBE_BYTES", 20_000)


def raced(monkeypatch: pytest.MonkeyPatch, packed_s: float) -> None:
    monkeypatch.setattr(linear, "_race", lambda _, rows: (1.0, packed_s if rows > 1 else 2.0))


@pytest.mark.usefixtures("large")
def test_where_packing_wins_every_layer_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    raced(monkeypatch, packed_s=0.5)
    made = network()
    assert pack(made) == 4
    assert all(isinstance(layer, Linear) and layer.packed is not None and layer.packed_from == 4 for layer in made)


@pytest.mark.usefixtures("large")
def test_where_packing_loses_no_layer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    raced(monkeypatch, packed_s=1.5)
    made = network()
    assert pack(made) is None
    assert all(isinstance(layer, Linear) and layer.packed is None for layer in made)


@pytest.mark.usefixtures("large")
def test_a_torch_without_the_operators_stays_on_the_plain_road(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    monkeypatch.setattr(Linear, "pack", missing)
    made, x = network(), torch.randn(5, 64)
    expected = made(x)
    assert pack(made) is None
    assert torch.equal(made(x), expected)


def test_bfloat16_and_small_networks_are_left_alone() -> None:
    assert pack(network()) is None
    assert pack(network().bfloat16()) is None


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_the_packed_road_is_taken_where_it_wins_from_there_on(wins: list[bool]) -> None:
    races = [(10 * (i + 1), 2.0 if won else 1.0, 1.0) for i, won in enumerate(wins)]
    found = first_won(races)
    if found is None:
        assert not wins[-1]
    else:
        assert all(wins[found // 10 - 1 :])
        assert found == 10 or not wins[found // 10 - 2]
