"""Text to tokens and back: small vocabularies whose merges can be followed by eye, and laws for all texts."""

from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer

from model.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, Dropped, Tokenizer, TokenizerError, TooManyTokens, show
from model.weights.tokenizer_files import load_tokenizer
from tests.texts import varied

ASCII = {bytes([byte]): 1000 + byte for byte in range(128)}
CAT = Tokenizer(
    vocab=ASCII | {b"at": 7, b"cat": 3, b" cat": 5},
    merges=[(b"a", b"t"), (b"c", b"at"), (b" ", b"cat")],
    special={"<|end|>": 1},
    pattern=GPT2_PATTERN,
)


@pytest.fixture(scope="module")
def tiny(tiny_gpt2: Path) -> Tokenizer:
    return load_tokenizer(tiny_gpt2)


def test_merges_happen_in_their_order_and_ids_are_the_models() -> None:
    assert CAT.encode("cat at cat").ids == (3, 1000 + ord(" "), 7, 5)


def test_the_strongest_pair_merges_first_from_bytes_to_the_token() -> None:
    assert CAT.merges(5) == [[b" ", b"c", b"a", b"t"], [b" ", b"c", b"at"], [b" ", b"cat"], [b" cat"]]
    assert CAT.merges(1) == [[b"<|end|>"]]  # a special token is one piece


@given(st.text(min_size=1, max_size=50))
def test_every_token_of_a_text_is_what_its_merges_lead_to(text: str) -> None:
    for token in CAT.encode(text).tokens:
        first, *_, last = [CAT.merges(token.id)[0], *CAT.merges(token.id)]
        assert (b"".join(first), last) == (token.bytes, [token.bytes])


def test_a_merge_without_an_id_is_refused() -> None:
    with pytest.raises(TokenizerError, match="makes a token that has no id"):
        Tokenizer(vocab=ASCII, merges=[(b"a", b"t")], special={}, pattern=GPT2_PATTERN)


def test_offsets_count_characters_and_a_piece_of_a_character_covers_it(tiny: Tokenizer) -> None:
    whole = tiny.encode("a👍b")
    assert [(t.start, t.end) for t in whole.tokens] == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert b"".join(t.bytes for t in whole.tokens).decode() == "a👍b"


def test_a_character_that_the_vocabulary_cannot_hold_is_dropped_and_said() -> None:
    read = CAT.encode("cé at")
    assert read.dropped == (Dropped(1, 2, "é"),)
    assert [(t.bytes, t.start, t.end) for t in read.tokens] == [(b"c", 0, 1), (b" ", 2, 3), (b"at", 3, 5)]


def test_what_stands_on_either_side_of_a_dropped_character_may_merge() -> None:
    """As the `tokenizers` library does it: é is no letter break in caét, so c and at are neighbours."""
    read = CAT.encode("caét")
    assert [(t.bytes, t.start, t.end) for t in read.tokens] == [(b"cat", 0, 4)]


def test_nothing_is_left_of_a_text_that_the_vocabulary_lacks() -> None:
    assert CAT.encode("ééé").tokens == ()


def test_special_names_are_ordinary_text_unless_asked_for() -> None:
    assert 1 not in CAT.encode("cat<|end|>").ids
    assert CAT.encode("cat<|end|> cat", special_tokens=True).ids == (3, 1, 5)
    assert CAT.encode("cat<|end|>é cat", special_tokens=True).ids == (3, 1, 5)


SPACED = Tokenizer(
    vocab=ASCII | {b"at": 7, b"cat": 3, b" cat": 5},
    merges=[(b"a", b"t"), (b"c", b"at"), (b" ", b"cat")],
    special={"<|end|>": 1},
    pattern=GPT2_PATTERN,
    prefix_space=True,
)


def test_with_a_space_before_it_a_word_is_the_same_token_at_the_beginning_as_inside() -> None:
    read = SPACED.encode("cat cat")
    assert [(t.id, t.start, t.end) for t in read.tokens] == [(5, 0, 3), (5, 3, 7)]
    assert SPACED.encode(" cat cat").ids == read.ids


def test_a_space_is_put_before_what_follows_a_special_token_too() -> None:
    read = SPACED.encode("cat<|end|>cat", special_tokens=True)
    assert [(t.id, t.start, t.end) for t in read.tokens] == [(5, 0, 3), (1, 3, 10), (5, 10, 13)]
    assert SPACED.encode("<|end|>cat").tokens[0].bytes == b" "


@given(st.text())
def test_with_a_space_before_it_every_text_comes_back_behind_that_space(text: str) -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(vocab=vocab, merges=[], special={}, pattern=GPT2_PATTERN, prefix_space=True)
    read = tokenizer.encode(text)
    assert tokenizer.decode(read.ids) == (text if text.startswith(" ") or not text else " " + text)
    assert {i for token in read.tokens for i in range(token.start, token.end)} == set(range(len(text)))


@given(st.binary(min_size=1, max_size=6), st.binary(min_size=1, max_size=6))
def test_no_two_tokens_look_alike(first: bytes, second: bytes) -> None:
    assert (show(first) == show(second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [(b" ", "·".encode()), (b"\n", "↵".encode()), (b"\xff", "‹ff›".encode()), (b" a", "·a".encode())],
)
def test_a_sign_for_a_space_or_a_byte_is_told_from_the_same_sign_in_a_text(first: bytes, second: bytes) -> None:
    assert show(first) != show(second)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_half_a_surrogate_pair_is_refused_with_its_place_in_the_text_as_it_was_typed(prefix_space: bool) -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(vocab=vocab, merges=[], special={}, pattern=GPT2_PATTERN, prefix_space=prefix_space)
    with pytest.raises(TokenizerError, match="character 2 of this text is half a surrogate pair"):
        tokenizer.encode("ca\ud800t")


def test_too_many_tokens_are_counted_and_refused() -> None:
    with pytest.raises(TooManyTokens) as refused:
        CAT.encode("cat cat cat", n_most=2)
    assert refused.value.n_tokens == 3


@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "a" * 1_000_000, "1" * 1_000_000, "\n" * 999_999 + "x", "é" * 500_000]
)
@pytest.mark.parametrize("pattern", [GPT2_PATTERN, DIGITS_PATTERN])
def test_a_million_equal_characters_are_refused_without_harm(text: str, pattern: str) -> None:
    tokenizer = Tokenizer(
        vocab=ASCII | {b"aa": 1, b"  ": 2}, merges=[(b"a", b"a"), (b" ", b" ")], special={}, pattern=pattern
    )
    with pytest.raises((TooManyTokens, TokenizerError), match=r"\d tokens|Break the longest run"):
        tokenizer.encode(text + " a", n_most=1)


def test_ids_are_those_of_gpt2s_own_tokenizer(tiny_gpt2: Path, tiny: Tokenizer) -> None:
    theirs = ByteLevelBPETokenizer(str(tiny_gpt2 / "vocab.json"), str(tiny_gpt2 / "merges.txt"))
    wrong = [text for text in varied() if list(tiny.encode(text).ids) != theirs.encode(text).ids]
    assert wrong == []
    assert GPT2Tokenizer.from_pretrained(tiny_gpt2)("the fat cat").input_ids == list(tiny.encode("the fat cat").ids)


@given(st.text())
def test_every_text_comes_back_from_a_vocabulary_with_all_bytes(tiny: Tokenizer, text: str) -> None:
    read = tiny.encode(text)
    assert tiny.decode(read.ids) == text
    assert not read.dropped


@given(st.text(max_size=40))
def test_tokens_and_dropped_characters_cover_the_text_in_order(text: str) -> None:
    read = CAT.encode(text)
    covered = {i for token in read.tokens for i in range(token.start, token.end)}
    assert covered | {lost.start for lost in read.dropped} == set(range(len(text)))
    assert all(text[lost.start : lost.end] == lost.text for lost in read.dropped)
    starts = [token.start for token in read.tokens]
    assert starts == sorted(starts)
    assert [token.position for token in read.tokens] == list(range(len(read)))


@given(st.text(alphabet=st.sampled_from(" \n\ta1é'🙂s."), max_size=30))
def test_the_possessive_pattern_cuts_where_gpt2s_own_does(text: str) -> None:
    plain = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert regex.findall(GPT2_PATTERN, text) == regex.findall(plain, text)


@given(st.binary(max_size=8))
def test_a_piece_can_always_be_shown_without_white_space(piece: bytes) -> None:
    assert not any(character.isspace() and character != " " for character in show(piece))
