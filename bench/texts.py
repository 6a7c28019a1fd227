"""The texts that everybody reads: one English passage cut to a number of tokens, and the same text after three edits.

The passage is the first chapter of Lewis Carroll's "Alice's Adventures in Wonderland" (1865). Every text begins at
another place of it, so that none begins as an older one did and nothing that was kept of that one helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.tokenizer import Token, Tokenizer

PASSAGE = Path(__file__).with_name("passage.txt")
WORDS = (" garden", " winter", " music", " silver", " river", " morning", " kitchen", " village")  # a token each


class TextsError(ValueError):
    """The passage cannot be cut, or reads otherwise than it was cut."""


@dataclass(frozen=True)
class Reading:
    """A text, and the ids that the model's tokenizer makes of it."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Edits:
    """A text of T tokens, and what becomes of it; after each edit it has T tokens again, but for `shorter`."""

    first: Reading
    shorter: Reading  # without the last token: the text before a word is appended
    appended: Reading  # `shorter` and another word
    changed: Reading  # `appended` with another last word, of two tokens, in place of the last two
    middle: Reading  # `changed` with another word in the middle

    @property
    def n_tokens(self) -> int:
        return len(self.first.ids)


class Passages:
    """Texts of any length, none of which begins as an older one did."""

    def __init__(self, tokenizer: Tokenizer, passage: str) -> None:
        self._tokenizer = tokenizer
        tokens = tokenizer.encode(passage).tokens
        starts = [_starts_word(token) for token in tokens]
        self._begins = iter([i for i, starts_word in enumerate(starts) if starts_word])
        self._ids, self._starts = [token.id for token in tokens] * 2, starts * 2  # long texts go on at the beginning
        self._words = [self._one(word) for word in WORDS]
        self._long_word = self._two(" moonbeam", " snowdrop", " teaspoon", " cobweb")

    def edits(self, n_tokens: int) -> Edits:
        """The next text of exactly this many tokens, and its edits.

        Raises:
            TextsError: when the passage has no more of them.
        """
        for begin in self._begins:
            end = begin + n_tokens
            if end < len(self._ids) and self._starts[end] and all(self._starts[end - 2 : end]):
                return self._edits(tuple(self._ids[begin:end]), self._starts[begin:end])
        raise TextsError(f"the passage of {len(self._ids) // 2} tokens has no more texts of {n_tokens} tokens")

    def _edits(self, ids: tuple[int, ...], starts: Sequence[bool]) -> Edits:
        appended = *ids[:-1], self._other(ids[-1])
        changed = *ids[:-2], *self._long_word
        at = _nearest_word(starts, len(ids) // 2)
        middle = *changed[:at], self._other(changed[at]), *changed[at + 1 :]
        return Edits(*(self._reading(one) for one in (ids, ids[:-1], appended, changed, middle)))

    def _reading(self, ids: tuple[int, ...]) -> Reading:
        text = self._tokenizer.decode(ids)
        if self._tokenizer.encode(text).ids != ids:
            raise TextsError(f"{text[:60]!r}… is read as other tokens than it was put together from")
        return Reading(text, ids)

    def _other(self, id: int) -> int:
        return next(word for word in self._words if word != id)

    def _one(self, word: str) -> int:
        (id,) = self._tokenizer.encode(word).ids
        return id

    def _two(self, *words: str) -> tuple[int, ...]:
        for word in words:
            if len(ids := self._tokenizer.encode(word).ids) == 2:
                return ids
        raise TextsError(f"none of {', '.join(words)} has two tokens")


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two texts share.

    >>> common([1, 2, 3], [1, 2, 4, 5])
    2
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _starts_word(token: Token) -> bool:
    """It begins a word, with the space before it: there a text can be cut, or a word put."""
    return token.bytes.startswith(b" ") and token.bytes[1:].isalpha()


def _nearest_word(starts: Sequence[bool], middle: int) -> int:
    """The whole word of one token nearest to the middle, but not among the last two tokens."""
    whole = [i for i in range(len(starts) - 2) if starts[i] and starts[i + 1]]
    if not whole:
        raise TextsError("no word in the middle can be put in the place of another")
    return min(whole, key=lambda i: abs(i - middle))
