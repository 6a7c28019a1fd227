"""LayerNorm and RMSNorm, compared with their formulas and with numbers that can be checked in the head."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from model.norm import LayerNorm, Norm, RMSNorm
from model.reading import norm_statistics
from model.sites import STATISTICS


def statistics(norm: Norm, x_M: Tensor) -> dict[str, float]:
    row = norm_statistics(norm, x_M[None], norm(x_M)[None])[0]
    return dict(zip(STATISTICS, row.tolist(), strict=True))


def test_layernorm_of_one_and_three_is_minus_one_and_one() -> None:
    assert LayerNorm(2, eps=1e-9)(tensor([1.0, 3.0])).tolist() == [pytest.approx(-1.0), pytest.approx(1.0)]


def test_rmsnorm_of_one_and_seven_divides_by_five_and_keeps_the_mean() -> None:
    assert RMSNorm(2, eps=1e-9)(tensor([1.0, 7.0])).tolist() == [pytest.approx(0.2), pytest.approx(1.4)]


def test_the_statistics_of_one_and_seven() -> None:
    norm = RMSNorm(2, eps=1e-9)
    norm.gain.data = tensor([10.0, 20.0])
    values = statistics(norm, tensor([1.0, 7.0]))
    assert values == {
        "mean": 4.0,
        "variance": pytest.approx(9.0),  # biased: over 2, not over 1
        "rms": pytest.approx(5.0),
        "normalised_mean": pytest.approx(0.8),
        "normalised_variance": pytest.approx(0.36),
        "output_mean": pytest.approx(15.0),  # 2 and 28
        "output_variance": pytest.approx(169.0),
    }


@given(st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=8).filter(lambda x: max(x) - min(x) > 0.1))
def test_layernorm_makes_the_mean_zero_and_the_variance_slightly_less_than_one(features: list[float]) -> None:
    values = statistics(LayerNorm(8, eps=1e-5), tensor(features))
    assert values["normalised_mean"] == pytest.approx(0, abs=1e-5)
    assert values["normalised_variance"] == pytest.approx(values["variance"] / (values["variance"] + 1e-5), abs=1e-4)


def test_layernorm_is_invariant_to_shift_and_scale() -> None:
    x_M = torch.randn(64, generator=torch.Generator().manual_seed(0))
    norm = LayerNorm(64, eps=1e-5)
    torch.testing.assert_close(norm(5 * x_M + 11), norm(x_M), atol=1e-3, rtol=0)
