"""Each stage of a head, with numbers that can be checked in the head; the fused kernel gives the same contexts."""

import math

import pytest
import torch
from torch import tensor

from model import attention
from model.attention import Heads


def test_scores_of_ln_1_and_ln_3_give_weights_in_the_ratio_one_to_three() -> None:
    q_HTD, k_HSD = tensor([[[0.0], [1.0]]]), tensor([[[0.0], [math.log(3)]]])
    weights = attention.weights(attention.masked(attention.scaled(attention.scores(q_HTD, k_HSD), d_head=1)))
    assert weights[0, 1].tolist() == [pytest.approx(0.25), pytest.approx(0.75)]
    assert weights[0, 0].tolist() == [1.0, 0.0]


def test_scaling_divides_by_the_square_root_of_d_head() -> None:
    assert attention.scaled(tensor([[[12.0]]]), d_head=16).item() == 3.0


def test_a_masked_score_is_minus_infinity_and_its_weight_is_exactly_zero() -> None:
    masked = attention.masked(torch.zeros(1, 2, 2))
    assert masked.tolist() == [[[0.0, -math.inf], [0.0, 0.0]]]
    assert attention.weights(masked).tolist() == [[[1.0, 0.0], [0.5, 0.5]]]


def test_the_last_query_attends_to_all_keys() -> None:
    assert attention.causal_mask(1, 4).all()


def test_context_is_the_weighted_mean_of_the_values() -> None:
    assert attention.context(tensor([[[0.25, 0.75]]]), tensor([[[4.0], [8.0]]])).item() == 7.0


def test_the_fused_kernel_and_the_stages_give_the_same_context() -> None:
    torch.manual_seed(1)
    q_BHTD, k_BGSD, v_BGSD = torch.randn(1, 6, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    k_HSD, v_HSD = k_BGSD[0].repeat_interleave(3, 0), v_BGSD[0].repeat_interleave(3, 0)
    weights = attention.weights(attention.masked(attention.scaled(attention.scores(q_BHTD[0], k_HSD), 8)))
    torch.testing.assert_close(Heads()(q_BHTD, k_BGSD, v_BGSD)[0], attention.context(weights, v_HSD))


def test_the_mask_and_the_softmax_of_staged_attention_can_be_replaced() -> None:
    q_BHTD, k_BGSD = torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 2, 1)
    v_BGSD = tensor([[[[4.0], [8.0]]]])
    assert attention.staged_attention(q_BHTD, k_BGSD, v_BGSD)[0, 0].tolist() == [[4.0], [6.0]]
    unmasked = attention.staged_attention(q_BHTD, k_BGSD, v_BGSD, mask=lambda scaled: scaled)
    assert unmasked[0, 1].tolist() == [[6.0], [6.0]]
    without_weights = attention.staged_attention(q_BHTD, k_BGSD, v_BGSD, normalise=torch.zeros_like)
    assert without_weights[0, 0].tolist() == [[0.0], [0.0]]
