"""Pattern scores: shares of attention that can be computed in the head where attention is spread evenly."""

import pytest
import torch

from model.gpt import GPT
from model.trace import read
from model.training.probes import PATTERNS, pattern_scores, random_twice, repetition_gain, scores_of
from model.training.recipe import Recipe

SMALL = Recipe(n_layers=2, n_heads=3, d_model=12, n_context=128, n_vocab=300).config


def even() -> GPT:
    """Every parameter 0: each token spreads its attention evenly over itself and all before it."""
    model = GPT(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def test_of_three_tokens_spread_evenly_a_half_and_a_third_go_to_the_one_before() -> None:
    scores_PLH = scores_of(read(even(), [5, 6, 7]))
    assert scores_PLH.shape == (3, 2, 3)
    expected = torch.tensor([(1 / 2 + 1 / 3) / 2, (1 / 2 + 1 / 3) / 2, 0.0])
    assert torch.allclose(scores_PLH, expected[:, None, None].expand(3, 2, 3))


def test_induction_is_measured_from_the_second_time_to_what_followed_the_first() -> None:
    """Two tokens said twice: position 2 looks back over three tokens, position 3 over four."""
    scores_PLH = scores_of(read(even(), [5, 6, 5, 6]), n_random=2)
    assert scores_PLH[PATTERNS.index("induction"), 0, 0].item() == pytest.approx((1 / 3 + 1 / 4) / 2)


def test_a_head_that_looks_at_the_token_before_scores_1() -> None:
    """Positions are all it knows: key p has its number on a circle, query p turns to that of p - 1."""
    model = even()
    state = model.state_dict()
    angle_T, step = torch.arange(SMALL.n_context) * 0.7, torch.tensor(0.7)
    circle_T2 = torch.stack((angle_T.cos(), angle_T.sin()), dim=1)
    state["positions.table.weight"][:, :4] = torch.cat((circle_T2, -circle_T2), dim=1)  # of mean 0, as the norm wants
    state["blocks.0.norm_1.gain"].fill_(1.0)
    turn_back = torch.tensor([[step.cos(), step.sin()], [-step.sin(), step.cos()]])
    state["blocks.0.attention.query.weight"][:2, :2] = 20 * turn_back
    state["blocks.0.attention.key.weight"][:2, :2] = 20 * torch.eye(2)
    previous_LH = scores_of(read(model, [5, 6, 7, 8, 9]))[PATTERNS.index("previous")]
    assert previous_LH[0, 0] > 0.999
    assert previous_LH[0, 1] < 0.5


def test_all_scores_are_shares() -> None:
    torch.manual_seed(0)
    model = GPT(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scores_PLH = pattern_scores(model)
    assert scores_PLH.shape == (3, 2, 3)
    assert (scores_PLH >= 0).all()
    assert (scores_PLH <= 1).all()


def test_random_texts_say_the_same_twice_without_the_token_between_texts() -> None:
    texts_BT = random_twice(300)
    assert torch.equal(texts_BT[:, :50], texts_BT[:, 50:])
    assert texts_BT.min() >= 1
    assert torch.equal(texts_BT, random_twice(300))


def test_who_knows_nothing_gains_nothing_by_repetition() -> None:
    assert repetition_gain(even()) == pytest.approx(0.0, abs=1e-5)
