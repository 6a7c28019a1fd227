"""What typists type, key by key: scripts with pauses, corrections and pastes; and which keys still wait for a reply.

The scripts were written by hand after statistics of logged typists: about 5 keys per second with uneven gaps, one
correction in twenty keys, a pause at the end of a sentence or thought, and a paste now and then. They are not
recordings. Knows nothing of the network or of locust.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

KEYS_PER_S = 5.0  # on average, while a typist types
GAP_SIGMA = 0.45  # standard deviation of the logarithm of the gap between two keys
PAUSE_S = 1.5

# One script per line. ⌫ deletes the last character, ⏎ begins a new line, ⏸ is a pause, and text in «» is pasted at
# once; every other character is one key.
SCRIPTS = Path(__file__).with_suffix(".txt").read_text().splitlines()


@dataclass(frozen=True)
class Key:
    """A key or a paste."""

    at_s: float  # since the typist's start
    text: str  # the whole text in the box after it


def type_scripts(typist: int, *, keys_per_s: float = KEYS_PER_S) -> Iterator[Key]:
    """The endless keys of one typist, the same on every call for the same typist."""
    rng = random.Random(typist)
    at_s = rng.random()  # typists do not begin at the same moment
    for number in count(typist):
        script = f"{typist}. {SCRIPTS[number % len(SCRIPTS)]}"  # so that no two typists have the same text
        for key in keys(script, rng, begin_s=at_s, keys_per_s=keys_per_s):
            yield key
            at_s = key.at_s
        at_s += PAUSE_S


def keys(script: str, rng: random.Random, *, begin_s: float = 0.0, keys_per_s: float = KEYS_PER_S) -> Iterator[Key]:
    """The keys of one script.

    >>> [key.text for key in keys("ab⌫⏸«, c»!", random.Random(0))]
    ['a', 'ab', 'a', 'a, c', 'a, c!']
    """
    at_s, text = begin_s, ""
    for step in _steps(script):
        if step == "⏸":
            at_s += PAUSE_S
            continue
        at_s += rng.lognormvariate(-(GAP_SIGMA**2) / 2, GAP_SIGMA) / keys_per_s  # its mean is 1 / keys_per_s
        text = text[:-1] if step == "⌫" else text + step.replace("⏎", "\n")
        yield Key(at_s, text)


def _steps(script: str) -> Iterator[str]:
    """The characters of a script one by one, and each paste as one step."""
    for i, segment in enumerate(script.replace("»", "«").split("«")):
        if i % 2:
            yield segment
        else:
            yield from segment


@dataclass
class PendingKeys:
    """The keys of one typist that have no reply yet.

    The first complete reply to a key or to a later key resolves it: the server may skip texts that were replaced
    before it read them, and then the typist sees something newer than what the key requested.
    """

    _pressed: dict[int, float] = field(default_factory=dict)  # seq -> time in seconds

    def __len__(self) -> int:
        return len(self._pressed)

    def press(self, seq: int, at_s: float) -> None:
        """Add a key that was pressed."""
        self._pressed[seq] = at_s

    def resolve(self, seq: int, at_s: float) -> list[float]:
        """Remove the keys that a complete reply resolves; how many seconds each of them waited."""
        resolved = [pressed for pressed in self._pressed if pressed <= seq]
        return [at_s - self._pressed.pop(pressed) for pressed in resolved]
