"""What was computed for a text, kept for texts that begin the same.

A causal model never changes an earlier row, so the trace of a text is the beginning of the trace of every text that
goes on from it: appending a word, deleting at the end, changing the last word compute only what follows the common
tokens. One store serves all visitors. Nobody sees what it holds, only that an answer came sooner.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock

from model.gpt import GPT
from model.trace import Stretch, Trace

Ids = tuple[int, ...]


class Kept:
    """Traces of the texts that were read last, up to a number of bytes; the one longest unused leaves first.

    Stretches that several traces share are counted once. Threads may use it side by side.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._traces: OrderedDict[tuple[GPT, Ids], Trace] = OrderedDict()
        self._own_bytes: dict[tuple[GPT, Ids], int] = {}
        self._users: Counter[Stretch] = Counter()  # how many of the traces hold a stretch
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._traces)

    def longest(self, model: GPT, ids: Ids) -> Trace:
        """The trace of as many of the first tokens of this text as are kept; an empty one if none is."""
        with self._lock:
            best, n_best, wanted = None, 0, ids[:1]
            for key in reversed(self._traces):  # the newest first: mostly it is the text one key ago
                if key[0] is model and key[1][: n_best + 1] == wanted:  # it has more in common than the best so far
                    best, n_best = key, n_common(key[1], ids)
                    if n_best == len(ids):
                        break
                    wanted = ids[: n_best + 1]
            if best is None:
                return Trace(model, ())
            self._traces.move_to_end(best)
            found = self._traces[best]
        return found if n_best == len(best[1]) else found.start(n_best)

    def keep(self, ids: Ids, trace: Trace) -> None:
        """Keep the trace of these tokens, and let go of others where there is no room."""
        with self._lock:
            key = trace.model, ids
            if key in self._traces:
                self._drop(key)
            self._traces[key] = trace
            self._own_bytes[key] = trace.own_bytes
            self.n_bytes += trace.own_bytes
            for stretch in trace.stretches:
                if not self._users[stretch]:
                    self.n_bytes += stretch.n_bytes
                self._users[stretch] += 1
            while self.n_bytes > self.max_bytes:
                self._drop(next(iter(self._traces)))

    def forget(self, model: GPT) -> None:
        """Drop what was kept of one model; its traces hold its parameters."""
        with self._lock:
            for key in [key for key in self._traces if key[0] is model]:
                self._drop(key)

    def _drop(self, key: tuple[GPT, Ids]) -> None:
        self.n_bytes -= self._own_bytes.pop(key)
        for stretch in self._traces.pop(key).stretches:
            self._users[stretch] -= 1
            if not self._users[stretch]:
                del self._users[stretch]
                self.n_bytes -= stretch.n_bytes


def n_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning.

    >>> n_common((1, 2, 3), (1, 2, 4, 5))
    2
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
