"""Who is measured, each in a process of its own: a function loads the model and returns the work of one reading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What one reading made."""

    n_bytes: int  # what it would send to a page; 0 where nothing is serialised
    top_logit: float  # of the token that is likeliest after the (first) text: all must agree on it


# Ids of the texts (peers get one), and how many first tokens each shares with the text that was read before it.
Work = Callable[[Sequence[Sequence[int]], int], Done]
