"""How long a computation takes on this machine."""

# shapes: B texts, T tokens

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from app.lessons.cost import operations
from model.config import Config
from model.gpt import GPT

PASS_BUDGET_S = 0.15  # for measuring one forward pass
TIMED_LENGTHS = (8, 16, 32, 64, 128, 256)  # tokens
LENGTHS_BUDGET_MS = 1000.0  # when this is spent, longer texts are not timed

_length_ms: WeakKeyDictionary[GPT, list[float | None]] = WeakKeyDictionary()  # measured once per network


def milliseconds(function: Callable[[], object], n_rounds: int = 5, budget_s: float = math.inf) -> float:
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


def forward_milliseconds(network: GPT, ids_BT: Tensor) -> float:
    """The median time of one forward pass without the logits, in ms."""
    return milliseconds(partial(_forward, network, ids_BT), budget_s=PASS_BUDGET_S)


@torch.inference_mode()
def _forward(network: GPT, ids_BT: Tensor) -> None:
    network.hidden(ids_BT).cpu()


def length_milliseconds(network: GPT) -> list[float | None]:
    """The time of one forward pass over a random text of each of TIMED_LENGTHS, in ms; measured once.

    No longer text is timed after LENGTHS_BUDGET_MS in all.
    """
    if network not in _length_ms:
        times: list[float | None] = []
        start = time.perf_counter()
        for n in TIMED_LENGTHS:
            is_over = 1000 * (time.perf_counter() - start) > LENGTHS_BUDGET_MS or n > network.config.n_context
            times.append(None if is_over else forward_milliseconds(network, random_ids(network, 1, n)))
        _length_ms[network] = times
    return _length_ms[network]


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
