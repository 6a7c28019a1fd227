"""S09: the chips are the tokenizer's tokens, and merging them by hand gives the same rows."""

import pytest

from app.experiments.panels import AnyPanel, Chips
from app.lessons.tokens import TokensControls, TokensWork
from app.models import LoadedModel
from model.tokenizer import GPT2_PATTERN, Tokenizer, token_label
from tests.app.experiments import checks_of, make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, named

MERGES = [(b"a", b"b"), (b"ab", b"c"), (b" ", b"abc")]


@pytest.fixture
def small_vocabulary(lookback_gpt: LoadedModel) -> LoadedModel:
    """A model whose tokenizer knows the bytes, `ab` as 256, `abc` as 257 and ` abc` as 258."""
    tokens = [*(bytes([byte]) for byte in range(256)), *(left + right for left, right in MERGES)]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(vocab=vocabulary, merges=MERGES, special={}, pattern=GPT2_PATTERN)
    return LoadedModel("small", lookback_gpt.network, tokenizer, max_tokens=64)


def rows(panel: AnyPanel) -> list[list[str]]:
    """The texts of the chips."""
    assert isinstance(panel, Chips)
    return [[chip.text for chip in row.chips] for row in panel.rows]


def abouts(panel: AnyPanel) -> list[str]:
    """What is said about the chips of the first row."""
    assert isinstance(panel, Chips)
    return [chip.about for chip in panel.rows[0].chips]


def test_merges_that_can_be_followed_in_the_head(small_vocabulary: LoadedModel) -> None:
    panels = panels_of(make_work(small_vocabulary, "tokens", "abcab abc", token=2))
    assert rows(panels["token_chips"]) == [["abc", "ab", "·abc"]]
    assert abouts(panels["token_chips"])[2] == "position 2, id 258, bytes 20 61 62 63"
    assert rows(panels["merges"]) == [["·", "a", "b", "c"], ["·", "ab", "c"], ["·", "abc"], ["·abc"]]
    facts = named(panels["facts"])
    assert (facts["characters"], facts["bytes"], facts["tokens"], facts["bytes per token"]) == (9, 9, 3, 3)
    assert (facts["merges of the chosen token"], facts["merges that the tokenizer has learned"]) == (3, 3)
    assert facts["decoded text"] == "abcab abc"


@pytest.mark.parametrize(("merged", "n_rows"), [(0, 1), (0.3, 2), (0.7, 3), (1, 4)])
def test_the_slider_shows_the_bytes_and_that_part_of_the_merges(
    small_vocabulary: LoadedModel, merged: float, n_rows: int
) -> None:
    panels = panels_of(make_work(small_vocabulary, "tokens", "abcab abc", token=None, merged=merged))
    assert len(rows(panels["merges"])) == n_rows  # of the last token


def test_with_a_leading_space_the_first_word_is_the_token_that_it_is_inside_a_text(
    small_vocabulary: LoadedModel,
) -> None:
    first, spaced = (
        panels_of(make_work(small_vocabulary, "tokens", "abc abc", leading_space=on)) for on in (False, True)
    )
    assert rows(first["token_chips"]) == [["abc", "·abc"]]
    assert rows(spaced["token_chips"]) == [["·abc", "·abc"]]
    assert [named(panels["facts"])["different tokens"] for panels in (first, spaced)] == [2, 1]


@pytest.mark.parametrize("text", [SENTENCE, "👍 naïve 猫", "abc  \n 12"])
def test_the_chips_are_the_tokens_of_the_text_and_their_bytes_spell_it(loaded: LoadedModel, text: str) -> None:
    panels = panels_of(make_work(loaded, "tokens", text))
    parts = [about.rpartition("bytes ")[2] for about in abouts(panels["token_chips"])]
    tokens = [bytes.fromhex(part) for part in parts]
    spelled = b"".join(tokens).decode()
    assert spelled.removeprefix(" " * loaded.tokenizer.prefix_space) == text
    assert rows(panels["token_chips"]) == [[token_label(token) for token in tokens]]
    facts = named(panels["facts"])
    assert facts["decoded text"] == spelled
    assert (facts["tokens"], facts["different tokens"]) == (len(tokens), len(set(tokens)))
    assert (facts["characters"], facts["bytes"]) == (len(text), len(text.encode()))


def test_ids_are_shown_as_they_are_even_if_their_text_would_be_cut_otherwise(small_vocabulary: LoadedModel) -> None:
    _, tokens = small_vocabulary.tokens_of_ids([97, 98, 99])  # a, b, c, which the tokenizer would merge
    work = TokensWork(small_vocabulary, tokens, TokensControls(ids=[97, 98, 99]))
    assert rows(work.token_chips()) == [["a", "b", "c"]]
    assert named(work.facts())["decoded text"] == "abc"
    assert all(check.passed for check in checks_of(work))
