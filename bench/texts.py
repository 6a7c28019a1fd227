"""The texts that every contestant reads: an English passage cut to a number of tokens, and the text after three edits.

The passage is the first chapter of Lewis Carroll's "Alice's Adventures in Wonderland" (1865). Every text begins at a
different place in it, so that no text shares a beginning with an earlier one and no cache can help.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.tokenizer import Token, Tokenizer

PASSAGE = Path(__file__).with_name("passage.txt")
WORDS = (" garden", " winter", " music", " silver", " river", " morning", " kitchen", " village")  # one token each


class TextsError(ValueError):
    """The passage cannot be cut as requested, or the tokenizer reads a cut text as other tokens."""


@dataclass(frozen=True)
class TokenizedText:
    """A text and its ids."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Edits:
    """A text of T tokens and its edits; every version has T tokens except `shorter`, which has T - 1."""

    first: TokenizedText
    shorter: TokenizedText  # without the last token: the text before a word is appended
    appended: TokenizedText  # `shorter` and another word
    changed: TokenizedText  # `appended` with its last two tokens replaced by one word of two tokens
    middle: TokenizedText  # `changed` with another word in the middle

    @property
    def n_tokens(self) -> int:
        """T."""
        return len(self.first.ids)


class Passages:
    """Texts of any length, no two with the same beginning."""

    def __init__(self, tokenizer: Tokenizer, passage: str) -> None:
        self._tokenizer = tokenizer
        tokens = tokenizer.encode(passage).tokens
        starts = [_starts_word(token) for token in tokens]
        self._begins = iter([i for i, starts_word in enumerate(starts) if starts_word])
        self._ids, self._starts = [token.id for token in tokens] * 2, starts * 2  # long texts continue at the beginning
        self._words = [self._one_token(word) for word in WORDS]
        self._long_word = self._two_tokens(" moonbeam", " snowdrop", " teaspoon", " cobweb")

    def edits(self, n_tokens: int) -> Edits:
        """The next text of exactly this many tokens, and its edits.

        Raises:
            TextsError: if the passage has no more of them.
        """
        for begin in self._begins:
            end = begin + n_tokens
            if end < len(self._ids) and self._starts[end] and all(self._starts[end - 2 : end]):
                return self._edits(tuple(self._ids[begin:end]), self._starts[begin:end])
        raise TextsError(f"the passage of {len(self._ids) // 2} tokens has no more texts of {n_tokens} tokens")

    def _edits(self, ids: tuple[int, ...], starts: Sequence[bool]) -> Edits:
        appended = *ids[:-1], self._different_word(ids[-1])
        changed = *ids[:-2], *self._long_word
        at = _nearest_word(starts, len(ids) // 2)
        middle = *changed[:at], self._different_word(changed[at]), *changed[at + 1 :]
        return Edits(*(self._tokenized(version) for version in (ids, ids[:-1], appended, changed, middle)))

    def _tokenized(self, ids: tuple[int, ...]) -> TokenizedText:
        text = self._tokenizer.decode(ids)
        if self._tokenizer.encode(text).ids != ids:
            raise TextsError(f"the tokenizer splits {text[:60]!r}… into other tokens than those it was built from")
        return TokenizedText(text, ids)

    def _different_word(self, id: int) -> int:
        return next(word for word in self._words if word != id)

    def _one_token(self, word: str) -> int:
        (id,) = self._tokenizer.encode(word).ids
        return id

    def _two_tokens(self, *words: str) -> tuple[int, ...]:
        for word in words:
            if len(ids := self._tokenizer.encode(word).ids) == 2:
                return ids
        raise TextsError(f"none of {', '.join(words)} has two tokens")


def _starts_word(token: Token) -> bool:
    """Whether a token begins a word and includes the space before it: the text can be cut there, or a word replaced."""
    return token.bytes.startswith(b" ") and token.bytes[1:].isalpha()


def _nearest_word(starts: Sequence[bool], middle: int) -> int:
    """The position of the single-token word nearest to the middle; the last two tokens are left out."""
    whole = [i for i in range(len(starts) - 2) if starts[i] and starts[i + 1]]
    if not whole:
        raise TextsError("no word in the middle can be replaced: none is a single token")
    return min(whole, key=lambda i: abs(i - middle))
