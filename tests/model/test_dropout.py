"""Dropout: the right fraction of numbers, the same sum on average, in four places, and only in training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.attention import Heads, fused_attention
from model.config import Config, ConfigError
from model.dropout import Dropout
from model.gpt import GPT
from model.training.initial import init_model
from model.training.recipe import Recipe

N = 40_000
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])


def config(**change: float) -> Config:
    return Recipe(n_layers=2, n_heads=2, d_model=16, n_context=8, n_vocab=300, **change).config  # type: ignore[arg-type]


def test_with_a_rate_of_a_half_every_1_becomes_0_or_2() -> None:
    torch.manual_seed(0)
    assert set(Dropout(0.5).train()(torch.ones(4, 25)).flatten().tolist()) == {0.0, 2.0}


@given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_the_given_fraction_is_dropped_and_the_rest_is_scaled_up(rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    dropped = Dropout(rate).train()(torch.ones(N))
    deviation = math.sqrt(rate * (1 - rate) / N)
    assert abs((dropped == 0).float().mean().item() - rate) < 6 * deviation + 2**-16
    assert torch.allclose(dropped[dropped > 0], torch.tensor(1 / (1 - rate)), rtol=1e-5)


def test_neighbours_are_dropped_independently() -> None:
    """Four decisions come from one draw of 64 bits; they must not be correlated."""
    torch.manual_seed(0)
    survived = (Dropout(0.5).train()(torch.ones(4 * N)) > 0).float().view(-1, 4)
    correlation = torch.corrcoef(survived.T)
    assert (correlation - torch.eye(4)).abs().max() < 6 / math.sqrt(N)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_dropout_accepts_any_number_of_elements(n: int) -> None:
    assert Dropout(0.5).train()(torch.ones(n)).shape == (n,)


def test_the_same_seed_drops_the_same_numbers() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(Dropout(0.3).train()(torch.ones(50)))
    assert torch.equal(*draws)


def test_nothing_is_dropped_in_inference() -> None:
    x = torch.ones(5)
    assert Dropout(0.5).eval()(x) is x


def test_the_staged_attention_of_training_equals_the_fused_attention() -> None:
    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    heads = Heads(dropout=0.5).train()
    heads.dropout.eval()  # the computation of training, without dropping
    assert torch.allclose(heads(q, k, v), fused_attention(q, k, v), atol=1e-6)


@pytest.mark.parametrize("place", ["dropout", "blocks.0.attention.heads.dropout", "blocks.1.dropout"])
def test_dropout_applies_in_every_place_in_training(place: str) -> None:
    """Three modules for four places: what attention and the MLP add share the dropout module of their block."""
    model = GPT(config(dropout=0.5)).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    for name, module in model.named_modules():
        if isinstance(module, Dropout) and name != place:
            module.eval()
    assert not torch.equal(model(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), model(IDS))


def test_the_dropout_of_the_training_does_not_change_inference() -> None:
    plain = init_model(Recipe(n_layers=2, n_heads=2, d_model=16, n_context=8, n_vocab=300, dropout=0.0))
    with_dropout = GPT(config(dropout=0.9)).eval()
    with_dropout.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(IDS), with_dropout(IDS))


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="dropout is"):
        config(dropout=rate)
