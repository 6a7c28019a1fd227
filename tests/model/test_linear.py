"""All kernels of a linear layer compute the same numbers, and a missing kernel is not used."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import linear
from model.linear import Kernel, Linear, choose_kernels, fastest


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_kernel_computes_the_numbers_of_nn_linear(n_rows: int, n_in: int, n_out: int, bias: bool) -> None:
    layer = Linear(n_in, n_out, bias=bias)
    x = torch.randn(1, n_rows, n_in)
    with torch.inference_mode():
        layer.prepack()
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        for kernel in get_args(Kernel):
            y = layer.multiply(x, kernel)
            assert y.shape == expected.shape
            assert y.is_contiguous()
            torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_the_kernel_is_chosen_by_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Kernel] = []

    def multiply(_: Linear, x: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        used.append(kernel)
        return x

    monkeypatch.setattr(Linear, "multiply", multiply)
    layer = Linear(8, 8)
    layer.kernels = {1: "plain", 4: "transposed", 64: "prepacked"}
    for rows in (1, 3, 4, 63, 64, 500):
        layer(torch.ones(1, rows, 8))
    assert used == ["plain", "plain", "transposed", "transposed", "prepacked", "prepacked"]


def test_a_layer_uses_the_plain_kernel_before_the_benchmark() -> None:
    layer, x = Linear(8, 4), torch.randn(3, 8)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """Three small layers that are treated as if they were large."""
    monkeypatch.setattr(linear, "MIN_BYTES", 0)
    monkeypatch.setattr(linear, "BENCHMARK_BYTES", 20_000)
    return nn.Sequential(*(Linear(64, 64) for _ in range(3)))


def set_seconds(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    def benchmark(_: object, __: int, *, with_prepacked: bool) -> dict[str, float]:
        return {kernel: s for kernel, s in seconds.items() if with_prepacked or kernel != "prepacked"}

    monkeypatch.setattr(linear, "_benchmark", benchmark)


def layers(network: nn.Sequential) -> list[Linear]:
    return [layer for layer in network if isinstance(layer, Linear)]


def test_every_layer_is_prepacked_if_that_is_much_faster(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_seconds(monkeypatch, plain=1.0, transposed=1.1, prepacked=0.5)
    assert set(choose_kernels(network).values()) == {"prepacked"}
    assert all(layer.prepacked is not None for layer in layers(network))


def test_no_layer_is_prepacked_if_that_is_only_slightly_faster(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_seconds(monkeypatch, plain=1.0, transposed=1.1, prepacked=0.9)
    assert set(choose_kernels(network).values()) == {"plain"}
    assert all(layer.prepacked is None for layer in layers(network))


def test_if_torch_cannot_prepack_the_other_kernels_are_used(
    network: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    monkeypatch.setattr(Linear, "prepack", missing)
    set_seconds(monkeypatch, plain=1.0, transposed=0.5, prepacked=0.1)
    x = torch.randn(5, 64)
    with torch.inference_mode():
        expected = network(x)
        assert set(choose_kernels(network).values()) == {"transposed"}
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_a_real_benchmark_chooses_a_kernel_for_every_number_of_rows(network: nn.Sequential) -> None:
    x = torch.randn(30, 64)
    with torch.inference_mode():
        expected = network(x)
        assert list(choose_kernels(network)) == list(linear.ROWS)
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_and_small_networks_keep_the_plain_kernel() -> None:
    small = nn.Sequential(Linear(64, 64))
    assert choose_kernels(small) == choose_kernels(small.bfloat16()) == {}


@given(st.lists(st.tuples(*[st.floats(0.1, 10)] * 3), min_size=1, max_size=5))
def test_the_fastest_kernel_is_used_except_for_small_gains(times: list[tuple[float, float, float]]) -> None:
    seconds_of: dict[int, dict[Kernel, float]] = {
        i: {"plain": plain, "transposed": transposed, "prepacked": prepacked}
        for i, (plain, transposed, prepacked) in enumerate(times)
    }
    kernels = fastest(seconds_of)
    candidates: tuple[Kernel, ...] = (
        ("plain", "transposed", "prepacked") if "prepacked" in kernels.values() else ("plain", "transposed")
    )
    for n_rows, kernel in kernels.items():
        seconds = seconds_of[n_rows]
        assert seconds[kernel] <= min(seconds[candidate] for candidate in candidates) * linear.TRANSPOSED_GAIN
