"""Builds a Tokenizer from a byte-level BPE as files write it: with one printable character per byte."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.models import BPE

from model.tokenizer import Tokenizer, TokenizerError


def byte_level_tokenizer(
    vocab: Mapping[str, int],
    merges: Sequence[str] | Sequence[tuple[str, str]],
    *,
    special: Mapping[str, int],
    pattern: str,
    prefix_space: bool = False,
) -> Tokenizer:
    """A Tokenizer from the vocabulary and merges of a file. A merge is a pair of tokens, or both in one string.

    Raises:
        TokenizerError: if this is no byte-level BPE, or its merges do not produce the tokens that they name.

    >>> from model.tokenizer import GPT2_PATTERN
    >>> tokenizer = byte_level_tokenizer({"a": 0, "Ġ": 1, "Ġa": 2}, ["Ġ a"], special={}, pattern=GPT2_PATTERN)
    >>> tokenizer.encode("a a").ids
    (0, 2)
    """
    try:
        pairs = [_pair(merge) for merge in merges]
        tokenizer = Tokenizer(
            # special tokens are no byte sequences, except names in ASCII, which merges may produce, too
            vocab={_bytes(token): id for token, id in vocab.items() if token not in special or _is_ascii(token)},
            merges=[(_bytes(left), _bytes(right)) for left, right in pairs],
            special=special,
            pattern=pattern,
            prefix_space=prefix_space,
        )
        _refuse_unreachable_tokens(vocab, pairs)
    except TokenizerError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"its vocabulary is not a byte-level BPE ({error})") from error
    return tokenizer


def _pair(merge: str | tuple[str, str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _refuse_unreachable_tokens(vocab: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> None:
    """Stop at a token that the merges do not produce from its own bytes.

    tiktoken and the `tokenizers` library merge differently. tiktoken needs no merge for a whole pre-token that is in
    the vocabulary, and joins any two neighbours whose bytes together are a token; the library applies the listed
    merges only. They always agree if the merges lead from the bytes of every token to that token, and all merges that
    produce the same token follow one another.
    """
    if len(set(vocab.values())) < len(vocab):
        raise TokenizerError("its vocabulary gives one id to several tokens")
    products = [product for product, _ in groupby("".join(pair) for pair in pairs)]
    unique = dict.fromkeys(products)
    if len(products) > len(unique):
        repeated = next(product for product, count in Counter(products).items() if count > 1)
        raise TokenizerError(f"its merges make the token {repeated!r} at two places of their order")
    library = LibraryTokenizer(BPE(vocab=dict(vocab), merges=pairs))
    for token, encoded in zip(unique, library.encode_batch_fast(list(unique)), strict=True):
        if encoded.ids != [vocab[token]]:
            raise TokenizerError(f"its merges never lead to the token {token!r}, which one of them makes")


def _byte_of_character() -> dict[str, int]:
    """The byte of each character: printable ones stand for themselves, U+0100 and on for the other bytes in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(unprintable)}


_BYTES = _byte_of_character()


def _bytes(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token)


def _is_ascii(name: str) -> bool:
    """Whether every character stands for its own byte, below 0x80."""
    return all(_BYTES.get(character, -1) == ord(character) < 0x80 for character in name)
