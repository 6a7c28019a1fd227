"""What typists do, key by key: scripts with pauses, corrections and pastes, and how answers are counted.

The scripts were written by hand after what logs of typists show: about 5 keys a second with uneven gaps, one key in
twenty a correction, a pause where a sentence or a thought ends, now and then a paste. They are not recordings.
Knows nothing of the network, nor of locust.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

KEYS_PER_S = 5.0  # on average, while a typist types
UNEVEN = 0.45  # the standard deviation of the logarithm of the gap between two keys
PAUSE_S = 1.5

# A script a line. ⌫ takes the last character away, ⏎ begins a new line, ⏸ is a pause, what stands in «» is pasted at
# once; every other character is a key.
SCRIPTS = Path(__file__).with_suffix(".txt").read_text().splitlines()


@dataclass(frozen=True)
class Key:
    """A key, or a paste."""

    at_s: float  # after the first second of its typist
    text: str  # all that is in the box after it


def typing(typist: int, *, keys_per_s: float = KEYS_PER_S) -> Iterator[Key]:
    """All that a typist types, without end; always the same for the same number."""
    chance = random.Random(typist)
    at_s = chance.random()  # they do not begin together
    for turn in count(typist):
        script = f"{typist}. {SCRIPTS[turn % len(SCRIPTS)]}"  # no two of them have the same text
        for key in keys(script, chance, begin_s=at_s, keys_per_s=keys_per_s):
            yield key
            at_s = key.at_s
        at_s += PAUSE_S


def keys(script: str, chance: random.Random, *, begin_s: float = 0.0, keys_per_s: float = KEYS_PER_S) -> Iterator[Key]:
    """The keys of one script.

    >>> [key.text for key in keys("ab⌫⏸«, c»!", random.Random(0))]
    ['a', 'ab', 'a', 'a, c', 'a, c!']
    """
    at_s, text = begin_s, ""
    for step in _steps(script):
        if step == "⏸":
            at_s += PAUSE_S
            continue
        at_s += chance.lognormvariate(-(UNEVEN**2) / 2, UNEVEN) / keys_per_s  # its mean is 1 / keys_per_s
        text = text[:-1] if step == "⌫" else text + step.replace("⏎", "\n")
        yield Key(at_s, text)


def _steps(script: str) -> Iterator[str]:
    """One sign after another, and a paste as one step."""
    for i, part in enumerate(script.replace("»", "«").split("«")):
        if i % 2:
            yield part
        else:
            yield from part


@dataclass
class Waiting:
    """The keys of one typist that have no answer yet.

    A key is answered by the first complete answer to it or to a later key: the server may leave out texts that were
    replaced before it came to them, and what the typist then sees is newer than what was asked for.
    """

    _pressed: dict[int, float] = field(default_factory=dict)  # seq -> when, in seconds

    def __len__(self) -> int:
        return len(self._pressed)

    def press(self, seq: int, at_s: float) -> None:
        """A key that asks for an answer."""
        self._pressed[seq] = at_s

    def answer(self, seq: int, at_s: float) -> list[float]:
        """A complete answer: how many seconds each key waited that it answers."""
        answered = [one for one in self._pressed if one <= seq]
        return [at_s - self._pressed.pop(one) for one in answered]
