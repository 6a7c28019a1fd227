"""The measured programs, one process each: a function loads the model and returns a function that reads texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """What reading the texts produced."""

    n_bytes: int  # what would be sent to a page; 0 if nothing is serialised
    top_logit: float  # of the likeliest token after the first text: every program must find the same


# Arguments: the ids of each text (peers get one text), and how many first tokens each shares with the previous text.
Work = Callable[[Sequence[Sequence[int]], int], Output]
