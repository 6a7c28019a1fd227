"""S13: the toy network, its gradients, its readout and its memory against loops, autograd, NumPy and counting."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from app.lessons.bottleneck import BottleneckWork
from app.lessons.recurrent import Encoder, gradient_norms, make_encoder, readout_accuracy, toy_states
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, lines, named, values


def bottleneck(loaded: LoadedModel, text: str, **controls: object) -> BottleneckWork:
    """The lesson on a text."""
    work = make_work(loaded, "bottleneck", text, **controls)
    assert isinstance(work, BottleneckWork)
    return work


def inputs(loaded: LoadedModel, text: str) -> Tensor:
    """The token vectors with mean square 1, double precision."""
    x_TM = loaded.network.embed.weight.detach()[list(loaded.tokens(text).ids)].double()
    return x_TM / x_TM.square().mean(dim=1, keepdim=True).sqrt()


def looped_states(encoder: Encoder, x_TM: Tensor) -> list[Tensor]:
    """s_t = tanh(U s_{t-1} + W x_t), one step after another, double precision."""
    states, state_H = [], torch.zeros(len(encoder.recurrent_HH), dtype=torch.double)
    for x_M in x_TM:
        state_H = torch.tanh(encoder.recurrent_HH.double() @ state_H + encoder.input_HI.double() @ x_M)
        states.append(state_H)
    return states


def test_a_network_of_one_number_can_be_followed_in_the_head() -> None:
    encoder = Encoder(torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    states_NTH = encoder.states(torch.tensor([[[1.0], [0.0]]]))
    first = math.tanh(1)
    assert_near(states_NTH.flatten(), [first, math.tanh(first / 2)], relative=1e-6, absolute=0)
    # tanh' is 1 − tanh²; the first token acts through one more step, which halves it
    second_slope = 1 - math.tanh(first / 2) ** 2
    norms_T = gradient_norms(encoder, states_NTH[0], torch.tensor([0.0, 1.0]))
    assert_near(norms_T, [(1 - first**2) * 0.5 * second_slope, second_slope], relative=1e-6, absolute=0)


@pytest.mark.parametrize("width", [8, 40])
def test_the_states_are_those_of_a_loop(loaded: LoadedModel, width: int) -> None:
    work = bottleneck(loaded, LONG, width=width)
    expected = looped_states(make_encoder(width, loaded.network.config.d_model), inputs(loaded, LONG))
    assert_near(values(panels_of(work)["states"]), torch.stack(expected)[:32, :32])


def test_the_weights_are_a_softmax_of_one_score_among_zeros(loaded: LoadedModel) -> None:
    panels = panels_of(bottleneck(loaded, SENTENCE, attended_token=2, sharpness=math.log(4)))
    n = len(loaded.tokens(SENTENCE))
    expected = [(4 if position == 2 else 1) / (n + 3) for position in range(n)]
    assert_near(values(panels["weights"]), expected, relative=1e-5)


def test_the_gradients_are_those_of_autograd(loaded: LoadedModel) -> None:
    panels = panels_of(bottleneck(loaded, SENTENCE, width=8, attended_token=1, sharpness=2))
    x_TM = inputs(loaded, SENTENCE).requires_grad_()
    encoder = make_encoder(8, loaded.network.config.d_model)
    last = torch.eye(len(x_TM), dtype=torch.double)[-1]
    for name, weight_T in (("state_gradients", last), ("context_gradients", values(panels["weights"]))):
        mean_H = weight_T @ torch.stack(looped_states(encoder, x_TM))
        by_number = [torch.autograd.grad(number, x_TM, retain_graph=True)[0] for number in mean_H]
        expected_T = torch.stack(by_number).square().sum((0, 2)).sqrt()
        assert_near(values(panels[name]), expected_T, relative=1e-3)


def least_squares_accuracy(x_NH: Tensor, first_N: Tensor) -> float:
    """The accuracy of a ridge regression, which is least squares with one more row per feature."""
    x, labels = np.c_[x_NH.double().numpy(), np.ones(len(x_NH))], np.eye(8)[first_N.numpy()]
    penalty = math.sqrt(1e-3 * 256) * np.eye(x.shape[1])
    readout = np.linalg.lstsq(np.r_[x[:256], penalty], np.r_[labels[:256], 0 * penalty[:, :8]], rcond=None)[0]
    return float(((x[256:] @ readout).argmax(1) == first_N[256:].numpy()).mean())


def test_the_accuracies_are_those_of_a_regression_in_numpy(lookback_gpt: LoadedModel) -> None:
    work = bottleneck(lookback_gpt, SENTENCE, toy_length=5, attended_token=1, sharpness=3)
    curves = lines(panels_of(work)["accuracy"])
    states_NTH, first_N = toy_states(16)
    last, attention = [], []
    for n in (1, 2, 3, 4, 5):
        powers = np.exp([3.0 if position == min(1, n - 1) else 0 for position in range(n)])
        last.append(least_squares_accuracy(states_NTH[:, n - 1], first_N))
        mean_NH = torch.tensor(powers / powers.sum()).float() @ states_NTH[:, :n]
        attention.append(least_squares_accuracy(mean_NH, first_N))
    one_text = 1 / 256  # a guess may be a tie to within rounding
    assert_near(curves["from the last state"], last, absolute=one_text)
    assert_near(curves["from attention to state 1"], attention, absolute=one_text)
    assert curves["by chance"].tolist() == [1 / 8] * 5


def test_a_readout_finds_a_word_that_is_a_feature_and_guesses_if_there_is_none() -> None:
    first_N = torch.arange(512) % 8
    assert readout_accuracy(torch.eye(8)[first_N], first_N) == 1
    assert readout_accuracy(torch.zeros(512, 3), first_N) == 1 / 8


def test_memory_is_counted_per_token_except_that_of_the_last_state(loaded: LoadedModel) -> None:
    work, config = bottleneck(loaded, LONG, width=24), loaded.network.config
    panels, n = panels_of(work), len(loaded.tokens(LONG))
    last, growing, vectors, keys_and_values = lines(panels["memory"]).values()
    lengths = np.linspace(1, n, 12).round()
    assert set(last.tolist()) == {24}
    assert (growing / 24).tolist() == (vectors / config.d_model).tolist() == lengths.tolist()
    n_numbers_per_token = config.n_layers * config.n_kv_heads * 2 * config.d_head
    assert (keys_and_values / n_numbers_per_token).tolist() == lengths.tolist()
    facts = [24, n * 24, n * config.d_model, n * n_numbers_per_token]
    assert list(named(panels["memory_facts"]).values()) == facts


def test_broken_attends_to_the_last_state_only(loaded: LoadedModel) -> None:
    panels = panels_of(bottleneck(loaded, SENTENCE, attended_token=0, broken=True))
    assert values(panels["weights"]).tolist() == [0] * (len(loaded.tokens(SENTENCE)) - 1) + [1]
    assert values(panels["context_gradients"]).tolist() == values(panels["state_gradients"]).tolist()
    curves = lines(panels["accuracy"])
    assert curves["from attention to state 0"].tolist() == curves["from the last state"].tolist()
