"""The scripts that made the shipped model: their examples hold, and they import nothing of the `bench` extra."""

import doctest
import re
import struct
import zlib
from importlib import import_module
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bench.lookback_gpt import debian_texts
from bench.lookback_gpt.baselines import read_texts, xz_bits_per_byte
from bench.lookback_gpt.instructions import KINDS, draw_instruction
from bench.lookback_gpt.synthetic_texts import select_texts, write_texts
from model.training.corpus import join_texts
from model.training.recipe import TrainingError
from model.weights.folder import load
from tests.conftest import CPU, FLOAT

FOLDER = Path(debian_texts.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    assert not doctest.testmod(import_module(f"bench.lookback_gpt.{name}")).failed


def test_only_the_picture_of_the_loss_needs_a_package_of_the_bench_extra() -> None:
    imports = [
        line for name in MODULES for line in re.findall(r"^.*import .*$", (FOLDER / f"{name}.py").read_text(), re.M)
    ]
    assert [line for line in imports if re.search("matplotlib|bertviz|locust|transformer_lens", line)] == [
        "    import matplotlib.pyplot as plt  # needed only here"
    ]


# --- synthetic texts ---


def test_a_seed_gives_the_same_instructions_and_no_placeholder_is_left() -> None:
    instructions = [draw_instruction(Random(seed)) for seed in range(500)]
    assert instructions == [draw_instruction(Random(seed)) for seed in range(500)]
    assert len(set(instructions)) > 450
    assert not [instruction for instruction in instructions if re.search(r"[{}]", instruction.prompt)]
    assert sum(KINDS.values()) == 100


def test_an_instruction_is_a_dialogue_that_the_model_completes() -> None:
    instruction = draw_instruction(Random(0))
    assert instruction.prompt.endswith(f"<|im_start|>assistant\n{instruction.opening}")
    assert f"<|im_start|>user\n{instruction.text}<|im_end|>\n" in instruction.prompt


def test_texts_begin_with_their_openings_and_come_again_with_the_same_seed(small_llama: Path) -> None:
    model, tokenizer = load(small_llama, device=CPU, dtype=FLOAT)
    texts, repeated = (write_texts(model, tokenizer, Random(1), n_texts=3, n_tokens=5) for _ in range(2))
    random = Random(1)
    openings = [draw_instruction(random).opening for _ in range(3)]
    assert texts == repeated
    assert all(text.startswith(opening) and text != opening for text, opening in zip(texts, openings, strict=True))


def test_texts_that_repeat_themselves_or_earlier_ones_are_not_selected() -> None:
    text = "The old cat sat on the mat and looked at a small bird."
    echo = "It was a blue day. " * 6
    assert list(select_texts([text, echo, text + " Then it slept.", "Too short.", "no end of a sentence at all"])) == [
        text
    ]


# --- texts from Debian ---


def test_strings_of_an_r_database_are_read() -> None:
    strings = [b"It was", b"caf\xc3\xa9"]
    vector = struct.pack(">ii", 16, 3) + b"".join(struct.pack(">ii", 9, len(text)) + text for text in strings)
    vector += struct.pack(">ii", 9, -1)  # a missing string
    entry = b"X\n\0\0\0\3" + bytes(8) + struct.pack(">i", 5) + b"UTF-8" + vector
    integers = b"X\n\0\0\0\3" + bytes(8) + struct.pack(">i", 5) + b"UTF-8" + struct.pack(">ii", 13, 0)
    database = b"".join(len(data).to_bytes(4, "big") + zlib.compress(data) for data in (integers, entry))
    assert list(debian_texts.read_r_strings(database)) == [["It was", "café", ""]]


def test_wordnet_entries_with_examples_become_sentences(tmp_path: Path) -> None:
    line = (
        '00001740 03 v 01 look_up 0 001 @ 01 v 0000 | seek information from a written source; "look up the word"; "x"'
    )
    (path := tmp_path / "data.verb").write_text("  1 a licence line | nothing\n" + line + "\n")
    assert list(debian_texts.read_wordnet(path)) == []  # its first example is too short
    path.write_text(line.replace('"look up the word"', '"you should look up the word in a dictionary"') + "\n")
    assert list(debian_texts.read_wordnet(path)) == [
        [
            "Look up: seek information from a written source. "
            'For example: "you should look up the word in a dictionary" "x"'
        ]
    ]


# --- baselines ---


def test_texts_of_a_run_are_split_where_they_begin(tiny_run: Path) -> None:
    texts = read_texts(tiny_run)
    learn = np.load(tiny_run / "corpus" / "learn.npy")
    assert sum(len(ids) + 1 for ids in texts.learn) == len(learn)  # one END per text
    assert texts.n_held_out_bytes > 0
    assert 0 < xz_bits_per_byte(texts) < 8


def test_tokens_that_do_not_belong_to_the_texts_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    for path in tiny_run.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "corpus").mkdir()
    for name in ("learn.npy", "held.npy"):
        (tmp_path / "corpus" / name).write_bytes((tiny_run / "corpus" / name).read_bytes())
    (tmp_path / "corpus" / "held.txt").write_text(join_texts(["a text"] * 1000))
    with pytest.raises(TrainingError, match=r"has 1,000 held-out texts, but the tokens of \d+"):
        read_texts(tmp_path)
    np.save(tmp_path / "corpus" / "learn.npy", np.array([7, 8, 9], dtype=np.uint32))
    with pytest.raises(TrainingError, match="do not begin with"):
        read_texts(tmp_path)
