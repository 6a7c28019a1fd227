"""An untrained recurrent network, and how much of a text its states retain."""

# shapes: N toy texts, T tokens, H features of a state, I features of an input, K toy words

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

N_TOY_WORDS, D_TOY_WORD = 8, 16
N_FITTED, N_TESTED = 256, 256  # toy texts that the readout is fitted to, and toy texts that it is tested on
MAX_TOY_TOKENS = 64
RETENTION = 0.9  # factor of the previous state in the next one, while both are small
RIDGE = 1e-3


@dataclass(frozen=True)
class Encoder:
    """An untrained recurrent network: s_t = tanh(U s_{t-1} + W x_t)."""

    recurrent_HH: Tensor  # U: an orthogonal matrix times RETENTION
    input_HI: Tensor  # W

    def states(self, x_NTI: Tensor) -> Tensor:
        """The state after each token, (N, T, H); the initial state is zero."""
        projected_NTH, state_NH = x_NTI @ self.input_HI.T, x_NTI.new_zeros(len(x_NTI), len(self.recurrent_HH))
        states = []
        for projected_NH in projected_NTH.unbind(1):
            state_NH = torch.tanh(state_NH @ self.recurrent_HH.T + projected_NH)
            states.append(state_NH)
        return torch.stack(states, dim=1)


def make_encoder(width: int, n_inputs: int) -> Encoder:
    """An encoder with random weights, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    orthogonal_HH: Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return Encoder(RETENTION * orthogonal_HH, torch.randn(width, n_inputs, generator=generator) / math.sqrt(n_inputs))


def gradient_norms(encoder: Encoder, states_TH: Tensor, weight_T: Tensor) -> Tensor:
    """How strongly a weighted mean of the states depends on each token, (T,): the norm of its derivative by x_i.

    The chain rule, from the last state to the first: a token influences the mean through its own state and all later
    ones.
    """
    by_state_HH, norms = torch.zeros_like(encoder.recurrent_HH), []
    for state_H, weight in zip(states_TH.flip(0), weight_T.flip(0), strict=True):
        by_sum_HH = (by_state_HH + weight * torch.eye(len(state_H))) * (1 - state_H.square())
        norms.append((by_sum_HH @ encoder.input_HI).norm())
        by_state_HH = by_sum_HH @ encoder.recurrent_HH
    return torch.stack(norms[::-1])


@lru_cache(maxsize=4)
def toy_states(width: int) -> tuple[Tensor, Tensor]:
    """States of texts of random words, (N, T, H), and the first word of each text, (N,)."""
    generator = torch.Generator().manual_seed(0)
    words_KI = torch.randn(N_TOY_WORDS, D_TOY_WORD, generator=generator)
    text_NT = torch.randint(N_TOY_WORDS, (N_FITTED + N_TESTED, MAX_TOY_TOKENS), generator=generator)
    return make_encoder(width, D_TOY_WORD).states(words_KI[text_NT]), text_NT[:, 0]


def readout_accuracy(x_NH: Tensor, first_N: Tensor) -> float:
    """How often a linear readout, fitted to other texts, guesses the first word correctly; from 0 to 1."""
    x_NH = F.pad(x_NH, (0, 1), value=1.0)
    fitted_NH, tested_NH = x_NH[:N_FITTED], x_NH[N_FITTED:]
    squares_HH = fitted_NH.T @ fitted_NH + RIDGE * N_FITTED * torch.eye(x_NH.shape[1])
    readout_HK = torch.linalg.solve(squares_HH, fitted_NH.T @ F.one_hot(first_N[:N_FITTED], N_TOY_WORDS).float())
    guessed_N = (tested_NH @ readout_HK).argmax(1)
    return float((guessed_N == first_N[N_FITTED:]).float().mean())


@cache
def accuracy_from_last(width: int, n: int) -> float:
    """How often the first of n words is guessed correctly from the last state."""
    states_NTH, first_N = toy_states(width)
    return readout_accuracy(states_NTH[:, n - 1], first_N)
