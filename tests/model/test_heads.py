"""Head scores; with uniform attention they can be checked in the head."""

import pytest
import torch

from model.gpt import GPT
from model.heads import PROBE_PATTERNS, probe_scores, repeated_random_tokens, repetition_gain, trace_scores
from model.reading import read
from model.training.recipe import Recipe

SMALL = Recipe(n_layers=2, n_heads=3, d_model=12, n_context=128, n_vocab=300).config


def uniform() -> GPT:
    """A model with all parameters 0: each token attends equally to itself and all earlier tokens."""
    model = GPT(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def test_uniform_attention_over_three_tokens_gives_the_previous_one_a_half_and_a_third() -> None:
    scores_PLH = trace_scores(read(uniform(), [5, 6, 7]))
    assert scores_PLH.shape == (3, 2, 3)
    expected = torch.tensor([(1 / 2 + 1 / 3) / 2, (1 / 2 + 1 / 3) / 2, 0.0])
    assert torch.allclose(scores_PLH, expected[:, None, None].expand(3, 2, 3))


def test_induction_is_the_weight_from_a_repeated_token_to_the_one_after_its_first_occurrence() -> None:
    """Two tokens, twice: position 2 attends to three tokens, position 3 to four."""
    scores_PLH = trace_scores(read(uniform(), [5, 6, 5, 6]), n_random=2)
    assert scores_PLH[PROBE_PATTERNS.index("induction"), 0, 0].item() == pytest.approx((1 / 3 + 1 / 4) / 2)


def test_a_head_that_attends_to_the_previous_token_scores_1() -> None:
    """Only positions matter: key p is a point on a circle, query p is rotated to the point of p - 1."""
    model = uniform()
    state = model.state_dict()
    angle_T, step = torch.arange(SMALL.n_context) * 0.7, torch.tensor(0.7)
    circle_T2 = torch.stack((angle_T.cos(), angle_T.sin()), dim=1)
    state["positions.table.weight"][:, :4] = torch.cat(
        (circle_T2, -circle_T2), dim=1
    )  # mean 0, so that the norm keeps it
    state["blocks.0.norm_1.gain"].fill_(1.0)
    rotate_back = torch.tensor([[step.cos(), step.sin()], [-step.sin(), step.cos()]])
    state["blocks.0.attention.query.weight"][:2, :2] = 20 * rotate_back
    state["blocks.0.attention.key.weight"][:2, :2] = 20 * torch.eye(2)
    previous_LH = trace_scores(read(model, [5, 6, 7, 8, 9]))[PROBE_PATTERNS.index("previous")]
    assert previous_LH[0, 0] > 0.999
    assert previous_LH[0, 1] < 0.5


def test_all_scores_lie_between_0_and_1() -> None:
    torch.manual_seed(0)
    model = GPT(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scores_PLH = probe_scores(model)
    assert scores_PLH.shape == (3, 2, 3)
    assert (scores_PLH >= 0).all()
    assert (scores_PLH <= 1).all()


def test_random_texts_repeat_themselves_without_the_separator_token() -> None:
    texts_BT = repeated_random_tokens(300)
    assert torch.equal(texts_BT[:, :50], texts_BT[:, 50:])
    assert texts_BT.min() >= 1
    assert torch.equal(texts_BT, repeated_random_tokens(300))


def test_a_model_that_predicts_nothing_gains_nothing_from_repetition() -> None:
    assert repetition_gain(uniform()) == pytest.approx(0.0, abs=1e-5)
