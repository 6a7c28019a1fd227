"""Texts to stretches: nothing is lost, what is held out is never learned from, and a step's stretches are its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from model.training.corpus import (
    END,
    Batch,
    Corpus,
    _passages,
    batch,
    held_out,
    make_vocabulary,
    open_corpus,
    texts_of,
    write_corpus,
)
from model.training.recipe import Recipe, TrainingError

SMALL = Recipe(n_layers=1, n_heads=1, d_model=8, n_context=16, n_vocab=300, n_texts=4)
TEXTS = [f"The fat cat {i} sat on the mat, and the dog {i * 7} saw the cat." for i in range(200)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, TEXTS, make_vocabulary(folder, TEXTS, SMALL.n_vocab))
    return open_corpus(folder, SMALL)


def test_a_file_is_cut_at_its_end_lines_and_no_text_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one\n{END}\ntwo\n\nlines\n{END}\none\n")
    (tmp_path / "b.txt").write_text(f"two\n\nlines\n{END}\nthree")
    assert texts_of([tmp_path / "a.txt", tmp_path / "b.txt"]) == ["one", "two\n\nlines", "three"]


@given(st.text(alphabet=st.sampled_from("ab \n"), max_size=9000))
def test_passages_are_the_text(content: str) -> None:
    assert "".join(_passages(content)) == content


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="picture cannot be read: it is not UTF-8 text"):
        texts_of([tmp_path / "picture"])
    with pytest.raises(TrainingError, match="nowhere cannot be read: No such file"):
        texts_of([tmp_path / "nowhere"])


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_a_text_is_either_learned_from_or_held_out(texts: list[str]) -> None:
    learn, held = held_out(texts)
    assert sorted(learn + held) == sorted(texts)
    assert held


def test_what_is_held_out_depends_on_the_texts_and_not_on_their_order() -> None:
    assert set(held_out(TEXTS)[1]) == set(held_out(TEXTS[::-1])[1])


def test_the_first_word_of_a_text_is_the_same_token_as_inside_it(tmp_path: Path) -> None:
    tokenizer = make_vocabulary(tmp_path, TEXTS, 300)
    first, *_, inside = tokenizer.encode("the cat and the").ids
    assert first == inside
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat and the", " the", "\n\nthe cat", "the  cat's mat — 123", "猫 sat"):
        assert theirs(text).input_ids == list(tokenizer.encode(text).ids), text


def test_a_vocabulary_larger_than_its_texts_is_refused_with_the_size_that_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"4,096 were asked for.*--vocab \d+"):
        make_vocabulary(tmp_path, TEXTS, 4096)


def test_all_tokens_are_there_with_an_end_before_each_text(corpus: Corpus) -> None:
    assert int((corpus.learn == 0).sum()) + int((corpus.held == 0).sum()) == len(TEXTS)
    assert corpus.learn[0] == 0
    assert corpus.n_held_bytes == sum(len(text.encode()) for text in held_out(TEXTS)[1])


def test_a_text_shorter_than_one_context_is_refused_with_its_length(tmp_path: Path) -> None:
    write_corpus(tmp_path, TEXTS, make_vocabulary(tmp_path, TEXTS, 300))
    with pytest.raises(
        TrainingError, match=r"too short: [\d,]+ tokens are held out.*one context takes 1,025.*--context"
    ):
        open_corpus(tmp_path, Recipe(n_context=1024))


@given(step=st.integers(0, 10_000), seed=st.integers(0, 2**31))
def test_a_steps_stretches_depend_on_seed_and_step_alone(corpus: Corpus, step: int, seed: int) -> None:
    recipe = replace(SMALL, seed=seed)
    assert np.array_equal(batch(corpus, recipe, step), batch(corpus, recipe, step))
    assert not np.array_equal(batch(corpus, recipe, step), batch(corpus, recipe, step + 1))


def repeating(row: Batch, n_most: int) -> int | None:
    """After how many tokens a stretch begins again."""
    return next((n for n in range(1, n_most + 1) if np.array_equal(row[n:], row[:-n])), None)


def is_of_pairs(row: Batch) -> bool:
    """Is it a b a b c d c d …, from one of its first four tokens on?"""
    whole = (row[first : first + (len(row) - first) // 4 * 4].reshape(-1, 4) for first in range(4))
    return any(bool((fours[:, :2] == fours[:, 2:]).all()) for fours in whole)


@given(step=st.integers(0, 1000))
def test_without_drills_and_repeats_every_stretch_stands_in_the_texts(corpus: Corpus, step: int) -> None:
    told = corpus.learn.astype(np.int64).tobytes()
    assert all(row.tobytes() in told for row in batch(corpus, replace(SMALL, drills=0.0, repeats=0.0), step))


@given(step=st.integers(0, 1000), n_context=st.integers(8, 100))
def test_a_stretch_that_repeats_itself_does_so_within_half_of_it(corpus: Corpus, step: int, n_context: int) -> None:
    for row in batch(corpus, replace(SMALL, repeats=1.0, n_context=n_context), step):
        assert repeating(row, len(row) // 2)


def test_a_drill_reads_as_many_tokens_in_stretches_that_are_short_and_of_common_tokens_at_first() -> None:
    recipe = Recipe(n_steps=100, drills=0.5, repeats=0.0, n_texts=200)  # drills until 50, the first ones until 32
    tokens = np.arange(5000, dtype=np.uint32)
    first, other, text = (batch(Corpus(tokens, tokens, 1), recipe, step) for step in (31, 32, 50))
    assert (first.shape, other.shape, text.shape) == ((800, 65), (200, 257), (200, 257))
    assert first.max() == 1023
    assert other.max() > 4000
    assert all(repeating(row, 32) or is_of_pairs(row) for row in first)
    assert sum(map(is_of_pairs, first)) / len(first) == pytest.approx(0.2, abs=0.05)
    assert all(repeating(row, 128) for row in other)
    assert not any(repeating(row, 128) or is_of_pairs(row) for row in text)


def test_the_pictures_of_repetition_that_these_laws_use() -> None:
    assert is_of_pairs(np.array([8, 1, 2, 1, 2, 3, 4, 3, 4, 5]))
    assert not is_of_pairs(np.array([8, 1, 2, 3, 8, 1, 2, 3, 8, 1]))
    assert repeating(np.array([1, 2, 3, 1, 2, 3]), 3) == 3
