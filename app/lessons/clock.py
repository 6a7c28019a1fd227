"""How long something takes on this machine."""

import math
import time
from collections.abc import Callable
from statistics import median


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
