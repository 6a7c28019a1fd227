"""The shipped model is a trained one: its own weights, evaluated here on text that training never used.

`held_out.txt` is the held-out part of its texts; `baselines.json` is what a 5-gram model reaches on it after training
on the same tokens (bench/lookback_gpt/baselines.py).
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from bench.lookback_gpt import publish
from bench.lookback_gpt.baselines import Baselines, read_baselines
from model.gpt import GPT
from model.heads import PROBE_PATTERNS, probe_scores, repetition_gain, trace_scores
from model.reading import read
from model.tokenizer import Tokenizer
from model.training.corpus import END_OF_TEXT, Corpus, split_texts
from model.training.record import Record, read_record
from model.training.run import held_out_loss
from model.weights.catalogue import SHIPPED
from model.weights.folder import load, load_step, saved_steps
from tests.conftest import CPU, FLOAT
from tests.texts import varied

HERE = Path(__file__).parent
FOLDER = SHIPPED.folder
N_LEARN = 1_135_654  # tokens of its training texts
N_BATCHES = 25  # files of synthetic texts among them


@pytest.fixture(scope="module")
def shipped() -> tuple[GPT, Tokenizer]:
    return load(FOLDER, device=CPU, dtype=FLOAT)


@pytest.fixture(scope="module")
def record() -> Record:
    record = read_record(FOLDER)
    assert record
    return record


@pytest.fixture(scope="module")
def baselines() -> Baselines:
    return read_baselines(HERE / "baselines.json")


@pytest.fixture(scope="module")
def held_out(shipped: tuple[GPT, Tokenizer]) -> Corpus:
    """The held-out texts, tokenised as in training."""
    texts = split_texts((HERE / "held_out.txt").read_text(encoding="utf-8"))
    tokenizer = shipped[1]
    ids = [id for text in texts for id in (tokenizer.special[END_OF_TEXT], *tokenizer.encode(text).ids)]
    array = torch.tensor(ids).numpy().astype("uint32")
    return Corpus(array[:0], array, sum(len(text.encode()) for text in texts))


def test_it_predicts_held_out_text_better_than_the_baselines(
    shipped: tuple[GPT, Tokenizer], record: Record, held_out: Corpus, baselines: Baselines
) -> None:
    recipe = replace(record.recipe, bfloat16=False)
    _, bits_per_byte = held_out_loss(shipped[0], held_out, recipe)
    assert baselines["n_tokens"] == len(held_out.held_out)  # all predict the same tokens
    assert baselines["n_held_out_bytes"] == held_out.n_held_out_bytes
    assert bits_per_byte < baselines["bits_per_byte"] < baselines["xz_bits_per_byte"]
    assert bits_per_byte == pytest.approx(record.curve[-1].bits_per_byte, abs=0.005)  # as in its record and its card


def test_a_head_attends_to_the_previous_token(shipped: tuple[GPT, Tokenizer], held_out: Corpus) -> None:
    text = held_out.held_out[:256].tolist()
    assert trace_scores(read(shipped[0], text))[PROBE_PATTERNS.index("previous")].max() >= 0.5
    assert probe_scores(shipped[0])[PROBE_PATTERNS.index("previous")].max() >= 0.5


def test_a_head_attends_to_what_followed_the_same_token_before(shipped: tuple[GPT, Tokenizer]) -> None:
    assert probe_scores(shipped[0])[PROBE_PATTERNS.index("induction")].max() >= 0.3


def test_repetition_lowers_its_loss(shipped: tuple[GPT, Tokenizer]) -> None:
    assert repetition_gain(shipped[0]) >= 1


def test_before_training_it_has_none_of_these_heads() -> None:
    untrained = load_step(FOLDER, 0, device=CPU, dtype=FLOAT)
    assert probe_scores(untrained).max() < 0.1
    assert abs(repetition_gain(untrained)) < 0.1


def test_each_word_of_the_first_text_is_one_token_and_the_word_the_is_the_same_twice(
    shipped: tuple[GPT, Tokenizer],
) -> None:
    tokens = shipped[1].encode("the fat cat sat on the mat").tokens
    assert [token.bytes for token in tokens] == [b" the", b" fat", b" cat", b" sat", b" on", b" the", b" mat"]
    assert tokens[0].id == tokens[5].id
    assert (tokens[0].start, tokens[0].end) == (0, 3)


def test_transformers_computes_the_same_with_it(shipped: tuple[GPT, Tokenizer]) -> None:
    model, tokenizer = shipped
    oracle_tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert [text for text in varied() if oracle_tokenizer(text).input_ids != list(tokenizer.encode(text).ids)] == []
    oracle = GPT2LMHeadModel.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer.encode("The fat cat sat on the mat, and the dog looked at it.").ids
    expected = oracle(torch.tensor([ids]), output_attentions=True)
    assert torch.allclose(expected.logits, model(torch.tensor([ids])), atol=1e-4)
    trace = read(model, ids)
    for layer, weights in enumerate(expected.attentions):
        assert torch.allclose(weights[0], trace.stage("weights", layer, range(model.config.n_heads)), atol=1e-5)


def test_it_is_small_enough_to_ship(record: Record) -> None:
    final = sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file())
    steps = sum(path.stat().st_size for path in FOLDER.glob("steps/*/*"))
    assert final <= 24_000_000
    assert steps <= 40_000_000
    assert saved_steps(FOLDER) == publish.STEPS
    assert record.step == record.recipe.n_steps


def test_its_card_is_what_publish_renders(
    record: Record, held_out: Corpus, baselines: Baselines, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    samples = "\n".join(re.findall(r"^(?:- \*\*|  - greedy:|  - sampled:).*", card, re.M))
    corpus = replace(held_out, training=np.zeros(N_LEARN, np.uint32))
    monkeypatch.setattr(publish, "open_corpus", lambda *_: corpus)  # the training texts are not shipped
    monkeypatch.setattr(publish, "render_samples", lambda *_: samples)  # another processor may round differently
    rendered = publish.render_card(FOLDER, record, baselines)
    assert rendered.replace("--batches 0 ", f"--batches {N_BATCHES} ") == card
    assert samples.count("greedy:") == len(publish.OPENINGS)
    assert (FOLDER / "loss.svg").is_file()


def test_its_card_names_its_results_and_the_command_that_trains_it(record: Record, baselines: Baselines) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for figure in (
        f"{record.curve[-1].bits_per_byte:.3f} bits per byte",
        f"{baselines['bits_per_byte']:.3f} bits per byte",
        f"{record.curve[-1].n_tokens:,} tokens",
        f"--steps {record.step} ",
        f"--curriculum {record.recipe.curriculum} --repeats {record.recipe.repeats} "
        f"--dropout-after {record.recipe.dropout_after}\n",
    ):
        assert figure in card
