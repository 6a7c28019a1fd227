"""Text -> tokens and back, through tiktoken, for every byte-level BPE vocabulary.

tiktoken takes a token's number for the rank of its merge. The vocabularies that come with models number their tokens
as they like and may lack bytes, so tiktoken gets ranks of its own (256 bytes, then the merges in their order, then
the special tokens) and a table leads from those to the model's ids. A byte that the vocabulary lacks has a rank
without an id; tiktoken, which would panic on an unknown byte, never meets one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import regex
import tiktoken

# What may stand in one piece before bytes are merged. The possessive quantifiers (++) change no match; they keep
# long runs of letters and signs from filling the matcher's stack.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Every digit alone first, then GPT-2's split of what lies between them: a digit ends a run of white space.
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?![^\s\p{N}])|\s"
# Llama 3's, as its files have it.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


Characters = np.ndarray[tuple[int], np.dtype[np.int64]]  # the number of a character, for each of some bytes


class TokenizerError(ValueError):
    """A vocabulary that tiktoken cannot be built from, or a text that it cannot read."""


class TooManyTokens(ValueError):
    """A text with more tokens than were asked for; it was counted, and not looked at any further."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__(f"{n_tokens} tokens")
        self.n_tokens = n_tokens


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text. `start` and `end` count characters (Unicode code points) of the text.

    A piece that is only part of a character covers that character, so neighbours may overlap.
    """

    position: int
    id: int
    bytes: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A character of the text that the vocabulary cannot hold, because one of its bytes has no token."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the model gets it; frozen and hashable."""

    tokens: tuple[Token, ...]
    dropped: tuple[Dropped, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


class Tokenizer:
    """A byte-level BPE vocabulary: its merges, its ids, and the pattern that cuts a text in pieces first.

    Args:
        vocab: id of every token, by its bytes; without the special tokens.
        merges: pairs of tokens that become one, the strongest first.
        special: id of every special token, by its name.
        pattern: the regular expression of the pieces.
        prefix_space: put a space before a text that does not begin with one, and before what follows a special token,
            so that a word is the same token at the beginning of a text and inside it (`add_prefix_space` in files).

    Raises:
        TokenizerError: when a merge makes a token that has no id.
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
        self._missing = frozenset(byte for byte in range(256) if bytes([byte]) not in vocab)
        self._id_of_rank = [vocab.get(piece, -1) for piece in ranks] + list(special.values())
        self._bytes_of_id = {token: piece for piece, token in vocab.items()}
        self._bytes_of_id |= {token: name.encode() for name, token in special.items()}
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
        """The largest id of a token."""
        return max(self._bytes_of_id)

    @property
    def lacks_bytes(self) -> bool:
        """Some of the 256 bytes have no token, so some characters are dropped."""
        return bool(self._missing)

    def encode(self, text: str, *, special_tokens: bool = False, n_most: int | None = None) -> Tokens:
        """The tokens of a text. Names of special tokens are ordinary text unless `special_tokens` is set.

        Raises:
            TokenizerError: when the text holds half a surrogate pair, or cannot be cut into pieces, or when the tokens
                are not the text.
            TooManyTokens: when there are more than `n_most`.
        """
        opened, origin = self._open(text, special_tokens) if self.prefix_space else (text, range(len(text)))
        try:
            raw = opened.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {origin[error.start]} of this text is half a surrogate pair, which stands for no "
                "character. Take it away, or send both halves."
            ) from error
        held = self._held(raw)
        encode = self._encode if held.all() else self._encode_what_is_held
        ranks = encode(opened, special_tokens)
        if n_most is not None and len(ranks) > n_most:
            raise TooManyTokens(len(ranks))
        self._refuse_lost_bytes(ranks, raw, held)
        n_bytes = np.fromiter(map(_utf8_length, opened), dtype=np.int64, count=len(opened))
        return self._locate(text, ranks, held, np.repeat(np.array(origin, dtype=np.int64), n_bytes))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; bytes that are no whole character become U+FFFD."""
        return b"".join(self.piece(id) for id in ids).decode(errors="replace")

    def piece(self, id: int) -> bytes:
        """The bytes of one token; none for an id that the vocabulary leaves empty."""
        return self._bytes_of_id.get(id, b"")

    def label(self, id: int) -> str:
        """A token as a reader can see it; `(no token 50301)` for an id that the vocabulary leaves empty."""
        return show(self._bytes_of_id[id]) if id in self._bytes_of_id else f"(no token {id})"

    @property
    def n_merges(self) -> int:
        """How many merges the vocabulary has learned: its tokens that are neither single bytes nor special."""
        return len(self._ranks) - 256

    def merges(self, id: int) -> list[list[bytes]]:
        """How a token comes about: its bytes, then a row for every merge, the strongest pair first.

        A special token is one piece from the beginning. (Sennrich et al. 2016, over bytes as in Radford et al. 2019.)
        """
        piece = self.piece(id)
        if piece not in self._ranks:
            return [[piece]]
        rows = [[bytes([byte]) for byte in piece]]
        while len(parts := rows[-1]) > 1:
            made = [
                (self._ranks[left + right], i)
                for i, (left, right) in enumerate(pairwise(parts))
                if left + right in self._ranks
            ]
            if not made:
                break
            _, at = min(made)
            rows.append([*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]])
        return rows

    def _open(self, text: str, special_tokens: bool) -> tuple[str, list[int]]:
        """The text with its added spaces, and where each character of that stands in the text as it was.

        An added space stands where the character after it does.
        """
        opened, origin = "", list[int]()
        for part in self._split_special(text) if special_tokens else [text]:
            at = origin[-1] + 1 if origin else 0
            if part and not part.startswith(" ") and not (special_tokens and part in self.special):
                opened += " "
                origin.append(at)
            opened += part
            origin.extend(range(at, at + len(part)))
        return opened, origin

    def _encode(self, text: str, special_tokens: bool) -> list[int]:
        """Ranks of a text of which every byte has a token."""
        ranks: list[int] = []
        try:
            for part in self._split_special(text) if special_tokens else [text]:
                is_special = special_tokens and part in self.special
                # not encode_ordinary, in which a matcher out of stack ends in a panic
                ranks += self._special_rank(part) if is_special else self._encoding.encode(part, disallowed_special=())
        except ValueError as error:  # the matcher's stack: a run of nearly a million spaces
            raise TokenizerError(
                f"this text of {len(text):,} characters cannot be cut into pieces: one kind of "
                "character goes on for too long in it. Break the longest run."
            ) from error
        return ranks

    def _special_rank(self, name: str) -> list[int]:
        return [self._encoding.encode_single_token(name)]

    def _refuse_lost_bytes(
        self, ranks: Sequence[int], raw: bytes, held: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> None:
        """Stop where the bytes of the tokens, with those that were dropped, are not the bytes of the text."""
        kept = raw if held.all() else np.frombuffer(raw, dtype=np.uint8)[held].tobytes()
        if b"".join(self._bytes_of_id[self._id_of_rank[rank]] for rank in ranks) != kept:
            raise TokenizerError(
                f"the tokens of this text are not the text: its pattern leaves out some of the {len(raw):,} bytes. "
                "That is a fault of the tokenizer's files; choose another model."
            )

    def _held(self, raw: bytes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which bytes of a text have a token."""
        has_token = np.array([byte not in self._missing for byte in range(256)])
        return has_token[np.frombuffer(raw, dtype=np.uint8)]

    def _encode_what_is_held(self, text: str, special_tokens: bool) -> list[int]:
        """Ranks of a text with bytes that have no token. What stands on either side of such a byte may merge.

        That is what the `tokenizers` library does, and so what the models were trained with.
        """
        ranks: list[int] = []
        for part in self._split_special(text) if special_tokens else [text]:
            if special_tokens and part in self.special:
                ranks += self._special_rank(part)
                continue
            for piece in regex.findall(self.pattern, part):
                held = bytes(byte for byte in piece.encode() if byte not in self._missing)
                ranks += self._encoding._encode_single_piece(held) if held else []
        return ranks

    def _split_special(self, text: str) -> list[str]:
        names = "|".join(regex.escape(name) for name in sorted(self.special, key=len, reverse=True))
        return regex.split(f"({names})", text) if names else [text]

    def _locate(
        self, text: str, ranks: list[int], held: np.ndarray[tuple[int], np.dtype[np.bool_]], character: Characters
    ) -> Tokens:
        """Walk the held bytes token by token, and say which characters of the text each covers."""
        character_of_held = character[held].tolist()
        tokens, end = [], 0
        for position, rank in enumerate(ranks):
            id = self._id_of_rank[rank]
            piece = self._bytes_of_id[id]
            start, end = end, end + len(piece)
            covers = character_of_held[start], character_of_held[end - 1] + 1
            tokens.append(Token(position, id, piece, *covers))
        lost = np.unique(character[~held]).tolist()
        return Tokens(tuple(tokens), tuple(Dropped(i, i + 1, text[i]) for i in lost))


def _utf8_length(character: str) -> int:
    point = ord(character)
    return 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)


def show(piece: bytes) -> str:
    r"""A token's bytes as a reader can see them; no two tokens look alike.

    >>> [show(piece) for piece in (b" the", b"\n", b"\t", b"\xe2\x80", b"\x04")]
    ['·the', '↵', '⇥', '‹e2 80›', '‹04›']
    >>> show("·".encode())  # the sign itself, which stands for a space
    '‹c2 b7›'
    """
    try:
        return "".join(_show(character) for character in piece.decode())
    except UnicodeDecodeError:
        return f"‹{piece.hex(' ')}›"


_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥"}
_TAKEN = {*_SIGNS.values(), "‹", "›"}  # these stand for something else


def _show(character: str) -> str:
    if character.isprintable() and character not in (*_SIGNS, *_TAKEN):
        return character
    return _SIGNS.get(character, f"‹{character.encode().hex(' ')}›")
