"""A run: it learns, it goes on after a stop as if there had been none, and what it leaves can be opened by others."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.training.recipe import Recipe, TrainingError
from model.training.run import RESUME, begin_anew, fresh, train
from model.training.start import start
from model.weights.folder import load
from tests.conftest import CPU, FLOAT

SMALL = Recipe(
    n_layers=2, n_heads=2, d_model=16, n_context=16, n_vocab=300, n_texts=4, n_steps=12, n_warmup=2, learning_rate=1e-2
)
Go = Callable[..., Path]


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Train by a recipe into a folder; `killed_at` ends it after so many steps."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The fat cat {i} sat on the mat, and the dog {i * 7} saw it." for i in range(2000)))

    def go(name: str, recipe: Recipe = SMALL, killed_at: int | None = None) -> Path:
        folder = tmp_path / name
        begun = start(folder, [text], recipe)

        def report(step: int, loss: float, speed: float) -> None:
            assert loss > 0
            assert speed > 0
            if step == killed_at:
                raise Killed

        train(folder, begun.recipe, begun.corpus, CPU, report, save_seconds=0)
        return folder

    return go


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def parameters(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_it_learns(go: Go) -> None:
    curve = record(go("run", Recipe(**SMALL.as_dict() | {"n_steps": 60})))["curve"]
    assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"] - 2
    # ln 300 and 0.65² / 2: it knows nothing, and logits vary a little
    assert curve[0]["held_out_loss"] == pytest.approx(5.9, abs=0.1)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(go: Go) -> None:
    recipe = replace(SMALL, drills=0.75)  # nine drills; the first six are easy ones
    straight = go("straight", recipe)
    with pytest.raises(Killed):
        go("stopped", recipe, killed_at=7)
    stopped = go("stopped", recipe)
    assert parameters(stopped) == parameters(straight)
    assert record(stopped)["curve"] == record(straight)["curve"]


def test_a_point_of_the_curve_has_the_mean_of_all_losses_since_the_last_one(go: Go) -> None:
    recipe = Recipe(**SMALL.as_dict() | {"n_steps": 120})  # a point at every second step, and at 1
    straight = go("straight", recipe)
    with pytest.raises(Killed):
        go("stopped", recipe, killed_at=100)  # the state of step 99 is saved, half-way to a point
    assert record(go("stopped", recipe))["curve"] == record(straight)["curve"]


def test_the_seed_fixes_the_run(go: Go) -> None:
    assert parameters(go("one")) == parameters(go("two"))
    assert parameters(go("three", Recipe(**SMALL.as_dict() | {"seed": 1}))) != parameters(go("one again"))


def test_bfloat16_learns_nearly_the_same(go: Go) -> None:
    exact, rounded = go("exact"), go("rounded", Recipe(**SMALL.as_dict() | {"bfloat16": True}))
    assert parameters(exact) != parameters(rounded)
    losses = [record(folder)["curve"][-1]["held_out_loss"] for folder in (exact, rounded)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_another_recipe_does_not_go_on_with_a_run_and_harms_nothing(go: Go, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go("run", killed_at=5)
    before = parameters(run := tmp_path / "run"), (run / RESUME).read_bytes()
    with pytest.raises(
        TrainingError, match=r"another recipe began \(d_model differ\).*same options, or.*another folder"
    ):
        go("run", Recipe(**SMALL.as_dict() | {"d_model": 32}))
    assert before == (parameters(run), (run / RESUME).read_bytes())


def test_a_finished_run_is_not_begun_anew_by_another_recipe(go: Go) -> None:
    before = parameters(run := go("run"))
    with pytest.raises(TrainingError, match=r"holds a finished run by another recipe \(n_steps differ\)"):
        go("run", Recipe(**SMALL.as_dict() | {"n_steps": 20}))
    assert parameters(run) == before


def test_other_texts_do_not_go_on_with_a_run(go: Go, tmp_path: Path) -> None:
    run = go("run")
    (other := tmp_path / "other.txt").write_text("Something else. " * 500)
    with pytest.raises(TrainingError, match="holds a run on other texts"):
        start(run, [other], SMALL)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Anna,")
    with pytest.raises(TrainingError, match="is not empty"):
        start(tmp_path, [tmp_path / "letter.txt"], SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_steps_0_1_2_4_8_are_kept_in_half_the_room(go: Go) -> None:
    run = go("run")
    assert sorted(int(path.name) for path in (run / "steps").iterdir()) == [0, 1, 2, 4, 8]
    assert not (run / RESUME).exists()
    assert start(run, [run.parent / "text.txt"], SMALL).n_done == 12


def test_what_a_run_leaves_transformers_opens_with_the_same_numbers(go: Go) -> None:
    run = go("run")
    model, tokenizer = load(run, device=CPU, dtype=FLOAT)
    ids = tokenizer.encode("the fat cat sat").ids
    assert AutoTokenizer.from_pretrained(run)("the fat cat sat").input_ids == list(ids)
    oracle = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
    assert torch.allclose(oracle(torch.tensor([ids])).logits, model(torch.tensor([ids])), atol=1e-4)


def test_a_tokenizer_can_be_given(go: Go, tmp_path: Path) -> None:
    given = go("first")
    begun = start(tmp_path / "second", [tmp_path / "text.txt"], Recipe(**SMALL.as_dict() | {"n_vocab": 999}), given)
    assert begun.recipe.n_vocab == 300
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (given / "tokenizer.json").read_bytes()


def test_a_loss_that_is_no_number_stops_the_run_with_a_way_out(go: Go) -> None:
    with pytest.raises(TrainingError, match=r"The loss of step \d+ is nan.*a smaller --rate helps"):
        go("run", Recipe(**SMALL.as_dict() | {"learning_rate": 1e30, "n_warmup": 0}))


def test_tokens_that_no_first_drill_drew_begin_anew_around_the_mean_of_the_others() -> None:
    recipe = Recipe(n_layers=1, n_heads=1, d_model=100, n_context=8, n_vocab=2048)
    model = fresh(recipe)
    embeddings = model.get_parameter("embed.weight").data
    embeddings[:1024] += 2.0
    embeddings[1024:] += 7.0
    drawn = embeddings[:1024].clone()
    begin_anew(model, recipe)
    assert torch.equal(embeddings[:1024], drawn)
    assert embeddings[1024:].mean() == pytest.approx(2.0, abs=0.01)
    assert embeddings[1024:].std() == pytest.approx(0.065, abs=0.001)  # 0.65 / √100
