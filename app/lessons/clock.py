"""How long something takes on this machine."""

# shapes: B texts, T tokens

import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from model.gpt import GPT


def milliseconds(do: Callable[[], object], n_rounds: int = 5, enough_s: float = math.inf) -> float:
    """The median of some rounds; none begins when they took `enough_s` together: others wait in the meantime.

    The first round finds cold caches and counts only where it is the only one.
    """
    rounds: list[float] = []
    while len(rounds) <= n_rounds and sum(rounds) < enough_s:
        begun = time.perf_counter()
        do()
        rounds.append(time.perf_counter() - begun)
    return 1000 * median(rounds[1:] or rounds)


def reading_milliseconds(network: GPT, ids_BT: Tensor, enough_s: float) -> float:
    """The same of one pass through the network, but for the logits."""
    return milliseconds(partial(_read, network, ids_BT), enough_s=enough_s)


@torch.inference_mode()
def _read(network: GPT, ids_BT: Tensor) -> None:
    network.hidden(ids_BT).cpu()
