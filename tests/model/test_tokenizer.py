"""The tokenizer: small vocabularies whose merges can be followed by hand, and laws for all texts."""

from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer

from model.tokenizer import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    DroppedCharacter,
    Tokenizer,
    TokenizerError,
    TooManyTokens,
    token_label,
)
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


def test_merges_are_applied_in_order_and_ids_are_those_of_the_vocabulary() -> None:
    assert CAT.encode("cat at cat").ids == (3, 1000 + ord(" "), 7, 5)


def test_merge_steps_lead_from_single_bytes_to_the_token_in_order_of_priority() -> None:
    assert CAT.merge_steps(5) == [[b" ", b"c", b"a", b"t"], [b" ", b"c", b"at"], [b" ", b"cat"], [b" cat"]]
    assert CAT.merge_steps(1) == [[b"<|end|>"]]  # a special token has one row


@given(st.text(min_size=1, max_size=50))
def test_every_token_of_a_text_is_the_result_of_its_merge_steps(text: str) -> None:
    for token in CAT.encode(text).tokens:
        first, *_, last = [CAT.merge_steps(token.id)[0], *CAT.merge_steps(token.id)]
        assert (b"".join(first), last) == (token.bytes, [token.bytes])


def test_a_merge_without_an_id_is_refused() -> None:
    with pytest.raises(TokenizerError, match="makes a token that has no id"):
        Tokenizer(vocab=ASCII, merges=[(b"a", b"t")], special={}, pattern=GPT2_PATTERN)


def test_ids_spell_their_text_and_cover_its_characters() -> None:
    text, tokens = CAT.locate_ids([5, 7, 1])
    assert text == " catat<|end|>"
    assert [(token.bytes, token.start, token.end) for token in tokens.tokens] == [
        (b" cat", 0, 4),
        (b"at", 4, 6),
        (b"<|end|>", 6, 13),
    ]
    assert tokens.dropped == ()


@given(st.text(min_size=1, max_size=30))
def test_the_ids_of_a_text_spell_the_text_at_the_same_places(tiny: Tokenizer, text: str) -> None:
    tokens = tiny.encode(text)
    assert tiny.locate_ids(tokens.ids) == (text, tokens)


@given(st.lists(st.sampled_from([b"a", *(bytes([byte]) for byte in "é👍".encode()), b"\xff"]), min_size=1))
def test_ids_of_any_bytes_become_one_character_for_each_ill_formed_run(tiny: Tokenizer, letters: list[bytes]) -> None:
    raw = b"".join(letters)
    ids = [next(id for id in range(400) if tiny.token_bytes(id) == letter) for letter in letters]
    text, tokens = tiny.locate_ids(ids)
    assert text == raw.decode(errors="replace") == tiny.decode(ids)
    end = 0
    for token in tokens.tokens:  # neighbours may overlap in a character, and leave out none
        assert end - 1 <= token.start <= end <= token.end
        end = token.end
    assert end == len(text)


def test_an_id_without_a_token_is_refused() -> None:
    with pytest.raises(TokenizerError, match="the vocabulary has no token 4"):
        CAT.locate_ids([5, 4])


def test_offsets_count_characters_and_a_part_of_a_character_covers_all_of_it(tiny: Tokenizer) -> None:
    whole = tiny.encode("a👍b")
    assert [(t.start, t.end) for t in whole.tokens] == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert b"".join(t.bytes for t in whole.tokens).decode() == "a👍b"


def test_a_character_without_a_token_is_dropped_and_reported() -> None:
    tokens = CAT.encode("cé at")
    assert tokens.dropped == (DroppedCharacter(1, 2, "é"),)
    assert [(t.bytes, t.start, t.end) for t in tokens.tokens] == [(b"c", 0, 1), (b" ", 2, 3), (b"at", 3, 5)]


def test_the_characters_before_and_after_a_dropped_one_may_merge() -> None:
    """As in the `tokenizers` library: without é, c and at are neighbours in caét."""
    tokens = CAT.encode("caét")
    assert [(t.bytes, t.start, t.end) for t in tokens.tokens] == [(b"cat", 0, 4)]


def test_a_text_of_unknown_characters_has_no_tokens() -> None:
    assert CAT.encode("ééé").tokens == ()


def test_names_of_special_tokens_are_ordinary_text_unless_requested() -> None:
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


def test_with_a_prefix_space_the_first_word_is_the_same_token_as_inside_the_text() -> None:
    tokens = SPACED.encode("cat cat")
    assert [(t.id, t.start, t.end) for t in tokens.tokens] == [(5, 0, 3), (5, 3, 7)]
    assert SPACED.encode(" cat cat").ids == tokens.ids


def test_a_prefix_space_is_added_after_a_special_token_too() -> None:
    tokens = SPACED.encode("cat<|end|>cat", special_tokens=True)
    assert [(t.id, t.start, t.end) for t in tokens.tokens] == [(5, 0, 3), (1, 3, 10), (5, 10, 13)]
    assert SPACED.encode("<|end|>cat").tokens[0].bytes == b" "


@given(st.text())
def test_with_a_prefix_space_every_text_is_decoded_to_itself_after_a_space(text: str) -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(vocab=vocab, merges=[], special={}, pattern=GPT2_PATTERN, prefix_space=True)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens.ids) == (text if text.startswith(" ") or not text else " " + text)
    assert {i for token in tokens.tokens for i in range(token.start, token.end)} == set(range(len(text)))


@given(st.binary(min_size=1, max_size=6), st.binary(min_size=1, max_size=6))
def test_no_two_tokens_have_the_same_label(first: bytes, second: bytes) -> None:
    assert (token_label(first) == token_label(second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [(b" ", "·".encode()), (b"\n", "↵".encode()), (b"\xff", "‹ff›".encode()), (b" a", "·a".encode())],
)
def test_a_symbol_for_a_space_or_a_byte_differs_from_the_same_character_in_a_text(first: bytes, second: bytes) -> None:
    assert token_label(first) != token_label(second)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_half_a_surrogate_pair_is_refused_with_its_index_in_the_original_text(prefix_space: bool) -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(vocab=vocab, merges=[], special={}, pattern=GPT2_PATTERN, prefix_space=prefix_space)
    with pytest.raises(TokenizerError, match="character 2 of this text is half a surrogate pair"):
        tokenizer.encode("ca\ud800t")


def test_too_many_tokens_are_counted_and_refused() -> None:
    with pytest.raises(TooManyTokens) as refused:
        CAT.encode("cat cat cat", max_tokens=2)
    assert refused.value.n_tokens == 3


@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "a" * 1_000_000, "1" * 1_000_000, "\n" * 999_999 + "x", "é" * 500_000]
)
@pytest.mark.parametrize("pattern", [GPT2_PATTERN, DIGITS_PATTERN])
def test_a_million_equal_characters_are_refused_without_a_crash(text: str, pattern: str) -> None:
    tokenizer = Tokenizer(
        vocab=ASCII | {b"aa": 1, b"  ": 2}, merges=[(b"a", b"a"), (b" ", b" ")], special={}, pattern=pattern
    )
    with pytest.raises((TooManyTokens, TokenizerError), match=r"\d tokens|Break the longest run"):
        tokenizer.encode(text + " a", max_tokens=1)


def test_ids_are_those_of_gpt2s_own_tokenizer(tiny_gpt2: Path, tiny: Tokenizer) -> None:
    oracle = ByteLevelBPETokenizer(str(tiny_gpt2 / "vocab.json"), str(tiny_gpt2 / "merges.txt"))
    wrong = [text for text in varied() if list(tiny.encode(text).ids) != oracle.encode(text).ids]
    assert wrong == []
    assert GPT2Tokenizer.from_pretrained(tiny_gpt2)("the fat cat").input_ids == list(tiny.encode("the fat cat").ids)


@given(st.text())
def test_with_a_vocabulary_of_all_bytes_every_text_is_decoded_to_itself(tiny: Tokenizer, text: str) -> None:
    tokens = tiny.encode(text)
    assert tiny.decode(tokens.ids) == text
    assert not tokens.dropped


@given(st.text(max_size=40))
def test_tokens_and_dropped_characters_cover_the_text_in_order(text: str) -> None:
    tokens = CAT.encode(text)
    covered = {i for token in tokens.tokens for i in range(token.start, token.end)}
    assert covered | {dropped.start for dropped in tokens.dropped} == set(range(len(text)))
    assert all(text[dropped.start : dropped.end] == dropped.text for dropped in tokens.dropped)
    starts = [token.start for token in tokens.tokens]
    assert starts == sorted(starts)
    assert [token.position for token in tokens.tokens] == list(range(len(tokens)))


@given(st.text(alphabet=st.sampled_from(" \n\ta1é'🙂s."), max_size=30))
def test_the_possessive_pattern_splits_texts_as_gpt2s_own_does(text: str) -> None:
    plain = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert regex.findall(GPT2_PATTERN, text) == regex.findall(plain, text)


@given(st.binary(max_size=8))
def test_a_label_has_no_white_space(token: bytes) -> None:
    assert not any(character.isspace() and character != " " for character in token_label(token))
