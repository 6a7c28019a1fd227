"""The model that comes with Lookback is trained, not just shaped: its own weights, read here, on text it never saw.

`held.txt` is the held-out part of its texts; `yardstick.json` what a 5-gram model reached on it, learning from the same
tokens (model/training/yardstick.py).
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from model.gpt import GPT
from model.heads import PROBE_PATTERNS, probe_scores, repetition_gain, trace_scores
from model.reading import read
from model.tokenizer import Tokenizer
from model.training.corpus import END, Corpus, parted
from model.training.recipe import Recipe
from model.training.record import Record, read_record
from model.training.run import held_out_loss
from model.training.ship import CARD, STEPS
from model.weights.catalogue import SHIPPED
from model.weights.folder import load, load_step, steps_of
from tests.conftest import CPU, FLOAT
from tests.texts import varied

HERE = Path(__file__).parent
FOLDER = SHIPPED.folder


@pytest.fixture(scope="module")
def ours() -> tuple[GPT, Tokenizer]:
    return load(FOLDER, device=CPU, dtype=FLOAT)


@pytest.fixture(scope="module")
def record() -> Record:
    found = read_record(FOLDER)
    assert found
    return found


@pytest.fixture(scope="module")
def yardstick() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "yardstick.json").read_text())
    return found


@pytest.fixture(scope="module")
def held(ours: tuple[GPT, Tokenizer]) -> Corpus:
    """The held-out texts, tokenised as training tokenised them."""
    texts = parted((HERE / "held.txt").read_text(encoding="utf-8"))
    tokenizer = ours[1]
    ids = [id for text in texts for id in (tokenizer.special[END], *tokenizer.encode(text).ids)]
    array = torch.tensor(ids).numpy().astype("uint32")
    return Corpus(array[:0], array, sum(len(text.encode()) for text in texts))


def test_it_foresees_held_out_text_better_than_counting_does(
    ours: tuple[GPT, Tokenizer], record: Record, held: Corpus, yardstick: dict[str, Any]
) -> None:
    recipe = Recipe(**{**record.recipe, "bfloat16": False})
    _, bits_per_byte = held_out_loss(ours[0], held, recipe)
    assert yardstick["n_tokens"] == len(held.held)  # both were asked for the same tokens
    assert bits_per_byte < yardstick["bits_per_byte"] < yardstick["xz_bits_per_byte"]
    assert bits_per_byte == pytest.approx(record.curve[-1].bits_per_byte, abs=0.005)  # as its record and its card say


def test_a_head_looks_at_the_token_before(ours: tuple[GPT, Tokenizer], held: Corpus) -> None:
    text = held.held[:256].tolist()
    assert trace_scores(read(ours[0], text))[PROBE_PATTERNS.index("previous")].max() >= 0.5
    assert probe_scores(ours[0])[PROBE_PATTERNS.index("previous")].max() >= 0.5


def test_a_head_finds_what_came_next_the_last_time(ours: tuple[GPT, Tokenizer]) -> None:
    assert probe_scores(ours[0])[PROBE_PATTERNS.index("induction")].max() >= 0.3


def test_what_is_said_again_surprises_it_less(ours: tuple[GPT, Tokenizer]) -> None:
    assert repetition_gain(ours[0]) >= 1


def test_before_its_training_it_could_none_of_that() -> None:
    fresh = load_step(FOLDER, 0, device=CPU, dtype=FLOAT)
    assert probe_scores(fresh).max() < 0.1
    assert abs(repetition_gain(fresh)) < 0.1


def test_the_words_of_the_first_text_are_one_token_each_and_both_the_are_the_same(
    ours: tuple[GPT, Tokenizer],
) -> None:
    tokens = ours[1].encode("the fat cat sat on the mat").tokens
    assert [token.bytes for token in tokens] == [b" the", b" fat", b" cat", b" sat", b" on", b" the", b" mat"]
    assert tokens[0].id == tokens[5].id
    assert (tokens[0].start, tokens[0].end) == (0, 3)


def test_transformers_opens_it_and_finds_the_same(ours: tuple[GPT, Tokenizer]) -> None:
    model, tokenizer = ours
    theirs = AutoTokenizer.from_pretrained(FOLDER)
    assert [text for text in varied() if theirs(text).input_ids != list(tokenizer.encode(text).ids)] == []
    oracle = GPT2LMHeadModel.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer.encode("The fat cat sat on the mat, and the dog looked at it.").ids
    found = oracle(torch.tensor([ids]), output_attentions=True)
    assert torch.allclose(found.logits, model(torch.tensor([ids])), atol=1e-4)
    trace = read(model, ids)
    for layer, weights in enumerate(found.attentions):
        assert torch.allclose(weights[0], trace.stage("weights", layer, range(model.config.n_heads)), atol=1e-5)


def test_it_is_small_enough_to_travel(record: Record) -> None:
    last = sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file())
    steps = sum(path.stat().st_size for path in FOLDER.glob("steps/*/*"))
    assert last <= 24_000_000
    assert steps <= 40_000_000
    assert steps_of(FOLDER) == STEPS
    assert record.step == record.recipe["n_steps"]


def test_its_card_says_what_is_true_of_it(
    ours: tuple[GPT, Tokenizer], record: Record, yardstick: dict[str, Any]
) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for figure in (
        f"{ours[0].n_parameters:,} parameters",
        f"{record.curve[-1].bits_per_byte:.3f} bits a byte",
        f"{yardstick['bits_per_byte']:.3f} bits a byte",
        f"{record.curve[-1].n_tokens:,} tokens",
        f"--steps {record.step} ",
        f"--drills {record.recipe['drills']} --repeats {record.recipe['repeats']} --late {record.recipe['late']}",
    ):
        assert figure in card
    assert len(re.findall("greedy:", card)) == 10
    assert not re.search(r"\{\w*\}", card)
    assert (FOLDER / "loss.svg").is_file()
    assert CARD.is_file()
