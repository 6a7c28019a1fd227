"""How long a computation takes on this machine."""

# shapes: B texts, T tokens

import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from model.gpt import GPT


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


def forward_milliseconds(network: GPT, ids_BT: Tensor, budget_s: float) -> float:
    """The median time of one forward pass without the logits, in ms."""
    return milliseconds(partial(_forward, network, ids_BT), budget_s=budget_s)


@torch.inference_mode()
def _forward(network: GPT, ids_BT: Tensor) -> None:
    network.hidden(ids_BT).cpu()
