"""The prefix cache: traces of the latest texts, reused for texts that begin with the same tokens.

In a causal model later tokens never change earlier rows, so the trace of a text is also the beginning of the trace of
every text that continues it: appending a word, deleting at the end or changing the last word computes only what
follows the shared tokens. All clients share one cache. No client can see what is in it; a hit only makes the
reply faster.

A trace is found again under the same edits only. A text that is new under edits begins with the unedited trace, up to
the first position that an edit changes.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock

from model.edits import NO_EDITS, Edits
from model.gpt import GPT
from model.sites import ObservedSite
from model.trace import Chunk, Trace, UneditedText

Ids = tuple[int, ...]
Key = tuple[GPT, Edits, Ids]


class PrefixCache:
    """A least-recently-used cache of traces, bounded in bytes; thread-safe.

    Chunks that several traces share are counted once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._traces: OrderedDict[Key, Trace] = OrderedDict()
        self._own_bytes: dict[Key, int] = {}
        self._n_users: Counter[Chunk] = Counter()  # how many traces hold each chunk
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._traces)

    def longest_prefix(
        self, model: GPT, ids: Ids, edits: Edits = NO_EDITS, sites: frozenset[ObservedSite] = frozenset()
    ) -> Trace:
        """The trace of as many of the first tokens of `ids` as are cached; an empty trace if none are.

        It was read under these edits, or is the beginning that they do not change, and holds at least these sites.
        """
        with self._lock:
            edited = self._longest(model, ids, edits, sites)
            if not edits:
                return edited
            plain = self._longest(model, ids[: edits.first_position], NO_EDITS, sites)
            unedited = None
            if edits.first_layer and edited.n_tokens < len(ids):
                trace = self._longest(model, ids, NO_EDITS, sites | {"block"})
                unedited = UneditedText(ids, trace) if trace.n_tokens else None
            best = plain if plain.n_tokens > edited.n_tokens else edited
            return best.under(edits, unedited)

    def _longest(self, model: GPT, ids: Ids, edits: Edits, sites: frozenset[ObservedSite]) -> Trace:
        """The longest beginning of a text that was read under exactly these edits."""
        best, n_best, wanted = None, 0, ids[:1]
        for key in reversed(self._traces):  # the newest first: usually it is the text before the last keystroke
            # it shares more tokens than the best so far
            if key[0] is model and key[2][: n_best + 1] == wanted and key[1] == edits:
                if (sites and not sites <= self._traces[key].sites) or not (edits.is_causal or key[2] == ids):
                    continue
                best, n_best = key, shared_prefix_length(key[2], ids)
                if n_best == len(ids):
                    break
                wanted = ids[: n_best + 1]
        if best is None or not ids:
            return Trace(model, (), edits)
        self._traces.move_to_end(best)
        trace = self._traces[best]
        return trace if n_best == len(best[2]) else trace.prefix(n_best)

    def put(self, ids: Ids, trace: Trace) -> None:
        """Store the trace of these tokens, and evict the least recently used traces if there is no room.

        A trace of the same tokens with more sites is not replaced.
        """
        trace = trace.under(trace.edits)  # without the unedited text, which has a place of its own
        with self._lock:
            key = trace.model, trace.edits, ids
            if key in self._traces and self._traces[key].sites > trace.sites:
                self._traces.move_to_end(key)
                return
            if key in self._traces:
                self._evict(key)
            self._traces[key] = trace
            self._own_bytes[key] = trace.own_bytes
            self.n_bytes += trace.own_bytes
            for chunk in trace.chunks:
                if not self._n_users[chunk]:
                    self.n_bytes += chunk.n_bytes
                self._n_users[chunk] += 1
            while self.n_bytes > self.max_bytes:
                self._evict(next(iter(self._traces)))

    def evict_model(self, model: GPT) -> None:
        """Evict all traces of one model, because they hold its parameters."""
        with self._lock:
            for key in [key for key in self._traces if key[0] is model]:
                self._evict(key)

    def _evict(self, key: Key) -> None:
        self.n_bytes -= self._own_bytes.pop(key)
        for chunk in self._traces.pop(key).chunks:
            self._n_users[chunk] -= 1
            if not self._n_users[chunk]:
                del self._n_users[chunk]
                self.n_bytes -= chunk.n_bytes


def shared_prefix_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning.

    >>> shared_prefix_length((1, 2, 3), (1, 2, 4, 5))
    2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # invariant: the first `low` tokens are equal, the first `high` are not
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
