"""How long a computation takes on this machine.

Whoever measures holds the worker. So a measurement of the network is a generator that yields `PanelProgress` often;
what runs in between is not measured.
"""

# shapes: B texts, T tokens, M features of a token

import math
import time
from collections.abc import Callable, Generator, Sequence
from statistics import median
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from app.experiments.base import PanelProgress
from app.lessons.cost import operations
from model.attention import fused_attention
from model.config import Config
from model.gpt import GPT

N_PASS_ROUNDS = 5  # of a measurement, after a first one
STEP_S = 0.05  # about the longest time until a measurement yields
PASS_BUDGET_S = 0.15  # for measuring one forward pass
TIMED_LENGTHS = (8, 16, 32, 64, 128, 256)  # tokens
LENGTHS_BUDGET_S = 1.0  # when this is spent, longer texts are not timed

PassShape = tuple[int, int]  # texts and tokens of each

_passes_ms: WeakKeyDictionary[GPT, dict[tuple[PassShape, ...], list[float | None]]] = WeakKeyDictionary()


def milliseconds(function: Callable[[], object], n_rounds: int = N_PASS_ROUNDS, budget_s: float = math.inf) -> float:
    """The median time of a function over `n_rounds` calls after a first one, in ms.

    No call begins after `budget_s` seconds in all, because other requests are waiting. The first call has cold caches,
    so it counts only if there is no other.
    """
    rounds: list[float] = []
    while len(rounds) <= n_rounds and sum(rounds) < budget_s:
        start = time.perf_counter()
        function()
        rounds.append(time.perf_counter() - start)
    return 1000 * median(rounds[1:] or rounds)


def random_ids(network: GPT, n_texts: int, n_tokens: int) -> Tensor:
    """Random token ids to measure a network with, (B, T); the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(network.config.n_vocab, (n_texts, n_tokens), generator=generator).to(network.device)


@torch.inference_mode()
def hidden_in_steps(network: GPT, ids_BT: Tensor) -> Generator[None, None, Tensor]:
    """What `GPT.hidden` returns for whole texts, (B, T, M), on the CPU; yields before a layer if STEP_S are over."""
    positions_T = torch.arange(ids_BT.shape[1], device=network.device)
    rotate = network.positions.rotation(positions_T)
    x_BTM = network.positions.add_positions(network.embed(ids_BT), positions_T)
    start = time.perf_counter()
    for block in network.blocks:
        if time.perf_counter() - start > STEP_S:
            x_BTM[-1, -1, -1].item()  # waits for a GPU, which would else go on unmeasured
            yield
            start = time.perf_counter()
        x_BTM = block(x_BTM, rotate, fused_attention)
    hidden_BTM: Tensor = network.norm_final(x_BTM)
    return hidden_BTM.cpu()


def forward_milliseconds(
    network: GPT, ids_BT: Tensor, progress: PanelProgress
) -> Generator[PanelProgress, None, float]:
    """The median time of one forward pass without the logits, in ms; yields `progress` after each step and round."""
    rounds: list[float] = []
    while len(rounds) <= N_PASS_ROUNDS and sum(rounds) < PASS_BUDGET_S:
        rounds.append(0.0)
        start = time.perf_counter()
        for _ in hidden_in_steps(network, ids_BT):
            rounds[-1] += time.perf_counter() - start
            yield progress
            start = time.perf_counter()
        rounds[-1] += time.perf_counter() - start
        yield progress
    return 1000 * median(rounds[1:] or rounds)


def passes_milliseconds(
    network: GPT, shapes: tuple[PassShape, ...], budget_s: float = math.inf
) -> Generator[PanelProgress, None, list[float | None]]:
    """The time of a forward pass over random texts for each of some shapes, in ms; measured once per network.

    None for texts that the network cannot read, and for all shapes after `budget_s` seconds in all.
    """
    measured = _passes_ms.setdefault(network, {})
    if shapes not in measured:
        times: list[float | None] = []
        start = time.perf_counter()
        for number, (n_texts, n_tokens) in enumerate(shapes):
            if time.perf_counter() - start > budget_s or n_tokens > network.config.n_context:
                times.append(None)
            else:
                ids_BT, progress = random_ids(network, n_texts, n_tokens), PanelProgress(number, len(shapes))
                times.append((yield from forward_milliseconds(network, ids_BT, progress)))
        measured[shapes] = times
    return measured[shapes]


def length_milliseconds(network: GPT) -> Generator[PanelProgress, None, list[float | None]]:
    """The time of a forward pass over a random text of each of TIMED_LENGTHS, in ms; measured once per network.

    No longer text is timed after LENGTHS_BUDGET_S in all.
    """
    return passes_milliseconds(network, tuple((1, n) for n in TIMED_LENGTHS), LENGTHS_BUDGET_S)


def growth_exponent(times: Sequence[float | None]) -> float:
    """The power of the length that the time grows with, over the three longest timed texts; NaN if there are none."""
    logs = [(math.log(n), math.log(ms)) for n, ms in _timed(times)][-3:]
    if len(logs) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return float(sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs))


def _timed(times: Sequence[float | None]) -> list[tuple[int, float]]:
    """The lengths that were timed, each with its time."""
    return [(n, ms) for n, ms in zip(TIMED_LENGTHS, times, strict=True) if ms]


def extrapolated_ms(config: Config, times: Sequence[float | None], n: int) -> float:
    """The time of n tokens in ms, if it is proportional to the operations, from the longest timed text; else NaN."""
    timed = _timed(times)
    if not timed:
        return math.nan
    longest, ms = timed[-1]
    return ms / operations(config, longest) * operations(config, n)
