"""From texts to batches: nothing is lost, held-out texts are never trained on, and every step has its own batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from model.training.corpus import (
    END_OF_TEXT,
    Batch,
    Corpus,
    _passages,
    make_batch,
    open_corpus,
    read_texts,
    split_held_out,
    train_tokenizer,
    write_corpus,
)
from model.training.recipe import Recipe, TrainingError

SMALL = Recipe(n_layers=1, n_heads=1, d_model=8, n_context=16, n_vocab=300, batch_size=4)
TEXTS = [f"The fat cat {i} sat on the mat, and the dog {i * 7} saw the cat." for i in range(200)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, TEXTS, train_tokenizer(folder, TEXTS, SMALL.n_vocab))
    return open_corpus(folder, SMALL)


def test_a_file_is_split_at_its_end_lines_and_no_text_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one\n{END_OF_TEXT}\ntwo\n\nlines\n{END_OF_TEXT}\none\n")
    (tmp_path / "b.txt").write_text(f"two\n\nlines\n{END_OF_TEXT}\nthree")
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.txt"]) == ["one", "two\n\nlines", "three"]


@given(st.text(alphabet=st.sampled_from("ab \n"), max_size=9000))
def test_passages_are_the_text(content: str) -> None:
    assert "".join(_passages(content)) == content


def test_a_file_that_is_not_text_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="picture cannot be read: it is not UTF-8 text"):
        read_texts([tmp_path / "picture"])
    with pytest.raises(TrainingError, match="nowhere cannot be read: No such file"):
        read_texts([tmp_path / "nowhere"])


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_a_text_is_either_for_training_or_held_out(texts: list[str]) -> None:
    training, held_out = split_held_out(texts)
    assert sorted(training + held_out) == sorted(texts)
    assert held_out


def test_the_held_out_texts_do_not_depend_on_the_order_of_all_texts() -> None:
    assert set(split_held_out(TEXTS)[1]) == set(split_held_out(TEXTS[::-1])[1])


def test_the_first_word_of_a_text_is_the_same_token_as_inside_it(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path, TEXTS, 300)
    first, *_, inside = tokenizer.encode("the cat and the").ids
    assert first == inside
    oracle = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat and the", " the", "\n\nthe cat", "the  cat's mat — 123", "猫 sat"):
        assert oracle(text).input_ids == list(tokenizer.encode(text).ids), text


def test_a_vocabulary_too_large_for_the_texts_is_refused_with_the_possible_size(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"A vocabulary of 4,096 tokens was requested.*--vocab \d+"):
        train_tokenizer(tmp_path, TEXTS, 4096)


def test_all_tokens_are_there_with_an_end_before_each_text(corpus: Corpus) -> None:
    assert int((corpus.training == 0).sum()) + int((corpus.held_out == 0).sum()) == len(TEXTS)
    assert corpus.training[0] == 0
    assert corpus.n_held_out_bytes == sum(len(text.encode()) for text in split_held_out(TEXTS)[1])


def test_a_text_shorter_than_one_context_is_refused_with_its_length(tmp_path: Path) -> None:
    write_corpus(tmp_path, TEXTS, train_tokenizer(tmp_path, TEXTS, 300))
    with pytest.raises(
        TrainingError, match=r"too short: [\d,]+ tokens are held out.*one context takes 1,025.*--context"
    ):
        open_corpus(tmp_path, Recipe(n_context=1024))


@given(step=st.integers(0, 10_000), seed=st.integers(0, 2**31))
def test_the_batch_of_a_step_depends_on_seed_and_step_alone(corpus: Corpus, step: int, seed: int) -> None:
    recipe = replace(SMALL, seed=seed)
    assert np.array_equal(make_batch(corpus, recipe, step), make_batch(corpus, recipe, step))
    assert not np.array_equal(make_batch(corpus, recipe, step), make_batch(corpus, recipe, step + 1))


def period(row: Batch, n_max: int) -> int | None:
    """The period of a repeated sequence, up to `n_max` tokens; None if it does not repeat."""
    return next((n for n in range(1, n_max + 1) if np.array_equal(row[n:], row[:-n])), None)


def has_pairs(row: Batch) -> bool:
    """Whether a sequence is a b a b c d c d …, from one of its first four tokens on."""
    groups = (row[first : first + (len(row) - first) // 4 * 4].reshape(-1, 4) for first in range(4))
    return any(bool((fours[:, :2] == fours[:, 2:]).all()) for fours in groups)


@given(step=st.integers(0, 1000))
def test_without_curriculum_and_repeats_every_sequence_is_part_of_the_texts(corpus: Corpus, step: int) -> None:
    training = corpus.training.astype(np.int64).tobytes()
    assert all(
        row.tobytes() in training for row in make_batch(corpus, replace(SMALL, curriculum=0.0, repeats=0.0), step)
    )


@given(step=st.integers(0, 1000), n_context=st.integers(8, 100))
def test_a_repeated_sequence_has_a_period_of_at_most_half_its_length(corpus: Corpus, step: int, n_context: int) -> None:
    for row in make_batch(corpus, replace(SMALL, repeats=1.0, n_context=n_context), step):
        assert period(row, len(row) // 2)


def test_easy_steps_have_as_many_tokens_in_short_sequences_of_common_tokens() -> None:
    recipe = Recipe(n_steps=100, curriculum=0.5, repeats=0.0, batch_size=200)  # curriculum until 50, easy until 32
    tokens = np.arange(5000, dtype=np.uint32)
    easy, hard, text = (make_batch(Corpus(tokens, tokens, 1), recipe, step) for step in (31, 32, 50))
    assert (easy.shape, hard.shape, text.shape) == ((800, 65), (200, 257), (200, 257))
    assert easy.max() == 1023
    assert hard.max() > 4000
    assert all(period(row, 32) or has_pairs(row) for row in easy)
    assert sum(map(has_pairs, easy)) / len(easy) == pytest.approx(0.2, abs=0.05)
    assert all(period(row, 128) for row in hard)
    assert not any(period(row, 128) or has_pairs(row) for row in text)


def test_has_pairs_and_period_on_examples() -> None:
    assert has_pairs(np.array([8, 1, 2, 1, 2, 3, 4, 3, 4, 5]))
    assert not has_pairs(np.array([8, 1, 2, 3, 8, 1, 2, 3, 8, 1]))
    assert period(np.array([1, 2, 3, 1, 2, 3]), 3) == 3
