"""The benchmark's texts have the requested number of tokens, and their edits change the right tokens."""

import random

import pytest

from bench import texts
from bench.texts import Passages, TextsError
from model.cache import shared_prefix_length
from model.tokenizer import GPT2_PATTERN, Tokenizer

ALPHABET = {bytes([byte]): byte for byte in range(256)}
WORDS = (*(word.strip() for word in texts.WORDS), "the", "cat", "sat", "on", "a", "mat", "and", "it", "was", "late")


def tokenizer(*words: str) -> Tokenizer:
    """A tokenizer in which each of these words, with the space before it, is one token."""
    merges, vocab = [], dict(ALPHABET)
    for word in words:
        for n in range(1, len(word) + 1):
            left, right = f" {word}"[:n].encode(), f" {word}"[n : n + 1].encode()
            if left + right not in vocab:
                merges.append((left, right))
                vocab[left + right] = len(vocab)
    return Tokenizer(vocab=vocab, merges=merges, special={}, pattern=GPT2_PATTERN)


@pytest.fixture
def passages() -> Passages:
    rng = random.Random(0)
    passage = "".join(f" {rng.choice(WORDS)}" for _ in range(100))
    return Passages(tokenizer(*WORDS, "moonbea"), passage)  # moonbeam: moonbea and m


@pytest.mark.parametrize("n_tokens", [8, 32, 150])
def test_a_text_keeps_its_number_of_tokens_after_every_edit(passages: Passages, n_tokens: int) -> None:
    edits = passages.edits(n_tokens)
    lengths = [
        len(version.ids) for version in (edits.first, edits.shorter, edits.appended, edits.changed, edits.middle)
    ]
    assert lengths == [n_tokens, n_tokens - 1, n_tokens, n_tokens, n_tokens]
    assert edits.n_tokens == n_tokens


@pytest.mark.parametrize("n_tokens", [8, 32])
def test_each_edit_keeps_the_tokens_before_it(passages: Passages, n_tokens: int) -> None:
    edits = passages.edits(n_tokens)
    assert shared_prefix_length(edits.first.ids, edits.appended.ids) == n_tokens - 1
    assert shared_prefix_length(edits.appended.ids, edits.changed.ids) == n_tokens - 2
    assert abs(shared_prefix_length(edits.changed.ids, edits.middle.ids) - n_tokens // 2) <= 1
    assert edits.changed.text.endswith(" moonbeam")


def test_no_two_texts_begin_at_the_same_place(passages: Passages) -> None:
    assert len({passages.edits(16).first.text for _ in range(20)}) == 20


def test_a_passage_runs_out_of_texts(passages: Passages) -> None:
    with pytest.raises(TextsError, match="no more texts of 8 tokens"):
        for _ in range(101):
            passages.edits(8)
