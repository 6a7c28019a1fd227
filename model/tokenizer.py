"""Tokenizes and decodes text with tiktoken, for any byte-level BPE vocabulary.

tiktoken expects that a token's id is the rank of its merge. The vocabularies of models number their tokens in any
order and may lack bytes. So tiktoken gets ranks that we assign (256 bytes, then the merges in their order, then the
special tokens), and a table maps ranks to the model's ids. A byte that the vocabulary lacks has a rank but no id, so
that tiktoken, which would panic on an unknown byte, never meets one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import regex
import tiktoken
from numpy.typing import NDArray

# The patterns of pre-tokens: a text is split into them before bytes are merged, and no merge crosses a border.
# The possessive quantifiers (++) change no match; they keep long runs of letters from filling the matcher's stack.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Every digit is a pre-token; the text between two digits is split as GPT-2 does. A digit ends a run of white space.
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?![^\s\p{N}])|\s"
# Llama 3's pattern, as in its files.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


CharacterIndices = NDArray[np.int64]  # for each byte of a text, the index of its character
Mask = NDArray[np.bool_]  # for each byte of a text


class TokenizerError(ValueError):
    """A vocabulary that cannot be used, or a text that cannot be tokenized."""


class TooManyTokens(ValueError):
    """A text with more tokens than the limit of the caller."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__(f"{n_tokens} tokens")
        self.n_tokens = n_tokens


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, which covers its characters (Unicode code points) from `start` to before `end`.

    A token that is only part of a character covers the whole character, so neighbours may overlap.
    """

    position: int
    id: int
    bytes: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DroppedCharacter:
    """A character of a text that the model does not get, because one of its bytes has no token."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text, and the characters without a token; hashable."""

    tokens: tuple[Token, ...]
    dropped: tuple[DroppedCharacter, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids, as the model gets them."""
        return tuple(token.id for token in self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


class Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: the id of every token except the special ones, by its bytes.
        merges: pairs of tokens that are merged into one, in order of priority.
        special: the id of every special token, by its name.
        pattern: the regular expression of the pre-tokens.
        prefix_space: whether to add a space at the beginning of a text and after each special token, unless there is
            one, so that a word is the same token there as inside the text (`add_prefix_space` in files).

    Raises:
        TokenizerError: if a merge produces a token that has no id.
    """

    def __init__(
        self,
        *,
        vocab: Mapping[bytes, int],
        merges: Iterable[tuple[bytes, bytes]],
        special: Mapping[str, int],
        pattern: str,
        prefix_space: bool = False,
    ) -> None:
        ranks = {bytes([byte]): byte for byte in range(256)}
        for left, right in merges:
            if left + right not in vocab:
                raise TokenizerError(f"the merge of {left!r} and {right!r} makes a token that has no id")
            ranks.setdefault(left + right, len(ranks))
        n_ordinary = len(ranks)
        self._ranks = ranks
        self.pattern = pattern
        self.prefix_space = prefix_space
        self.special = dict(special)
        self._missing_bytes = frozenset(byte for byte in range(256) if bytes([byte]) not in vocab)
        self._id_of_rank = [vocab.get(token, -1) for token in ranks] + list(special.values())
        self._bytes_of_id = {id: token for token, id in vocab.items()}
        self._bytes_of_id |= {id: name.encode() for name, id in special.items()}
        self._encoding = tiktoken.Encoding(
            "lookback",
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens={name: n_ordinary + i for i, name in enumerate(special)},
        )

    def __len__(self) -> int:
        return len(self._bytes_of_id)

    @property
    def last_id(self) -> int:
        """The largest token id."""
        return max(self._bytes_of_id)

    @property
    def lacks_bytes(self) -> bool:
        """Whether some of the 256 bytes have no token, so that characters may be dropped."""
        return bool(self._missing_bytes)

    def encode(self, text: str, *, special_tokens: bool = False, max_tokens: int | None = None) -> Tokens:
        """The tokens of a text. Names of special tokens are ordinary text unless `special_tokens` is true.

        Raises:
            TokenizerError: if the text holds half a surrogate pair, if it cannot be split, or if the tokens do not
                spell the text.
            TooManyTokens: if there are more than `max_tokens`.
        """
        spaced, indices = self._add_spaces(text, special_tokens) if self.prefix_space else (text, range(len(text)))
        try:
            raw = spaced.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {indices[error.start]} of this text is half a surrogate pair, which encodes no "
                "character. Remove it, or send both halves."
            ) from error
        has_token = self._has_token(raw)
        encode = self._encode if has_token.all() else self._encode_known_bytes
        ranks = encode(spaced, special_tokens)
        if max_tokens is not None and len(ranks) > max_tokens:
            raise TooManyTokens(len(ranks))
        self._check_bytes(ranks, raw, has_token)
        n_bytes = np.fromiter(map(_utf8_length, spaced), dtype=np.int64, count=len(spaced))
        return self._locate(text, ranks, has_token, np.repeat(np.array(indices, dtype=np.int64), n_bytes))

    def locate_ids(self, ids: Sequence[int]) -> tuple[str, Tokens]:
        """The text that these ids spell, and their tokens with the characters that each covers in it.

        Bytes that are no complete character become U+FFFD, as Unicode recommends: one for each longest run of bytes
        that could have begun a character. A special token's characters are its name. Every id has a token.

        Raises:
            TokenizerError: if the vocabulary does not use an id.
        """
        unknown = [id for id in ids if not self.token_bytes(id)]
        if unknown:
            raise TokenizerError(f"the vocabulary has no token {unknown[0]}")
        tokens_bytes = [self.token_bytes(id) for id in ids]
        text, n_bytes = _decode(b"".join(tokens_bytes))
        indices = np.repeat(np.arange(len(text)), n_bytes).tolist()  # for each byte, its character
        tokens, end = [], 0
        for position, (id, token) in enumerate(zip(ids, tokens_bytes, strict=True)):
            start, end = end, end + len(token)
            tokens.append(Token(position, id, token, indices[start], indices[end - 1] + 1))
        return text, Tokens(tuple(tokens))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids. Bytes that are no complete character become U+FFFD."""
        return b"".join(self.token_bytes(id) for id in ids).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; none if the vocabulary does not use the id."""
        return self._bytes_of_id.get(id, b"")

    def label(self, id: int) -> str:
        """A token in visible characters; `(no token 50301)` if the vocabulary does not use the id."""
        return token_label(self._bytes_of_id[id]) if id in self._bytes_of_id else f"(no token {id})"

    @property
    def n_merges(self) -> int:
        """How many tokens are the product of a merge: neither single bytes nor special."""
        return len(self._ranks) - 256

    def merge_steps(self, id: int) -> list[list[bytes]]:
        """How BPE builds a token: its single bytes, then one row per merge, in order of priority.

        A special token has one row. (Sennrich et al. 2016, over bytes as in Radford et al. 2019.)
        """
        token = self.token_bytes(id)
        if token not in self._ranks:
            return [[token]]
        rows = [[bytes([byte]) for byte in token]]
        while len(parts := rows[-1]) > 1:
            candidates = [
                (self._ranks[left + right], i)
                for i, (left, right) in enumerate(pairwise(parts))
                if left + right in self._ranks
            ]
            if not candidates:
                break
            _, i = min(candidates)
            rows.append([*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]])
        return rows

    def _add_spaces(self, text: str, special_tokens: bool) -> tuple[str, list[int]]:
        """The text with its added spaces, and for each of its characters the index in the original text.

        An added space has the index of the character after it.
        """
        spaced, indices = "", list[int]()
        for part in self._split_special(text) if special_tokens else [text]:
            start = indices[-1] + 1 if indices else 0
            if part and not part.startswith(" ") and not (special_tokens and part in self.special):
                spaced += " "
                indices.append(start)
            spaced += part
            indices.extend(range(start, start + len(part)))
        return spaced, indices

    def _encode(self, text: str, special_tokens: bool) -> list[int]:
        """The ranks of a text in which every byte has a token."""
        ranks: list[int] = []
        try:
            for part in self._split_special(text) if special_tokens else [text]:
                is_special = special_tokens and part in self.special
                # not encode_ordinary, which panics if the matcher runs out of stack
                ranks += self._special_rank(part) if is_special else self._encoding.encode(part, disallowed_special=())
        except ValueError as error:  # the matcher ran out of stack: nearly a million spaces
            raise TokenizerError(
                f"this text of {len(text):,} characters cannot be split into words: it has too long a "
                "run of one kind of character. Break the longest run."
            ) from error
        return ranks

    def _special_rank(self, name: str) -> list[int]:
        return [self._encoding.encode_single_token(name)]

    def _check_bytes(self, ranks: Sequence[int], raw: bytes, has_token: Mask) -> None:
        """Stop if the bytes of the tokens are not all bytes of the text that have a token."""
        known = raw if has_token.all() else np.frombuffer(raw, dtype=np.uint8)[has_token].tobytes()
        if b"".join(self._bytes_of_id[self._id_of_rank[rank]] for rank in ranks) != known:
            raise TokenizerError(
                f"the tokens of this text are not the text: the tokenizer's pattern leaves out some of its "
                f"{len(raw):,} bytes. The tokenizer's files are wrong; choose another model."
            )

    def _has_token(self, raw: bytes) -> Mask:
        """Which bytes of a text have a token."""
        has_token_256 = np.array([byte not in self._missing_bytes for byte in range(256)])
        return has_token_256[np.frombuffer(raw, dtype=np.uint8)]

    def _encode_known_bytes(self, text: str, special_tokens: bool) -> list[int]:
        """The ranks of a text in which some bytes have no token. The bytes before and after such a byte may merge.

        The `tokenizers` library does the same, so the models were trained with it.
        """
        ranks: list[int] = []
        for part in self._split_special(text) if special_tokens else [text]:
            if special_tokens and part in self.special:
                ranks += self._special_rank(part)
                continue
            for pre_token in regex.findall(self.pattern, part):
                known = bytes(byte for byte in pre_token.encode() if byte not in self._missing_bytes)
                ranks += self._encoding._encode_single_piece(known) if known else []
        return ranks

    def _split_special(self, text: str) -> list[str]:
        names = "|".join(regex.escape(name) for name in sorted(self.special, key=len, reverse=True))
        return regex.split(f"({names})", text) if names else [text]

    def _locate(self, text: str, ranks: list[int], has_token: Mask, indices: CharacterIndices) -> Tokens:
        """The tokens with the characters that each covers, and the dropped characters."""
        known_indices = indices[has_token].tolist()
        tokens, end = [], 0  # `end` counts known bytes
        for position, rank in enumerate(ranks):
            id = self._id_of_rank[rank]
            token = self._bytes_of_id[id]
            start, end = end, end + len(token)
            tokens.append(Token(position, id, token, known_indices[start], known_indices[end - 1] + 1))
        dropped = np.unique(indices[~has_token]).tolist()
        return Tokens(tuple(tokens), tuple(DroppedCharacter(i, i + 1, text[i]) for i in dropped))


def _decode(raw: bytes) -> tuple[str, list[int]]:
    r"""The text of some bytes, and how many of them each of its characters takes; ill-formed ones become U+FFFD.

    >>> _decode(b"a\xe2\x80b\xff")
    ('a\ufffdb\ufffd', [1, 2, 1, 1])
    """
    view, text, n_bytes, start = memoryview(raw), "", list[int](), 0
    while start < len(raw):
        try:
            valid, ill_formed, end = str(view[start:], "utf-8"), [], len(raw)
        except UnicodeDecodeError as error:
            valid, ill_formed = str(view[start : start + error.start], "utf-8"), [error.end - error.start]
            end = start + error.end
        text += valid + "\ufffd" * len(ill_formed)
        n_bytes += [*map(_utf8_length, valid), *ill_formed]
        start = end
    return text, n_bytes


def _utf8_length(character: str) -> int:
    code_point = ord(character)
    return 1 + (code_point >= 0x80) + (code_point >= 0x800) + (code_point >= 0x10000)


def token_label(token: bytes) -> str:
    r"""A token's bytes in visible characters; no two tokens have the same label.

    >>> [token_label(token) for token in (b" the", b"\n", b"\t", b"\xe2\x80", b"\x04")]
    ['·the', '↵', '⇥', '‹e2 80›', '‹04›']
    >>> token_label("·".encode())  # the character that we use for a space
    '‹c2 b7›'
    """
    try:
        return "".join(_label(character) for character in token.decode())
    except UnicodeDecodeError:
        return f"‹{token.hex(' ')}›"


_SYMBOLS = {" ": "·", "\n": "↵", "\t": "⇥"}
_RESERVED = {*_SYMBOLS.values(), "‹", "›"}  # characters that have a meaning in labels


def _label(character: str) -> str:
    if character.isprintable() and character not in (*_SYMBOLS, *_RESERVED):
        return character
    return _SYMBOLS.get(character, f"‹{character.encode().hex(' ')}›")
