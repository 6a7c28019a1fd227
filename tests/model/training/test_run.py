"""A run: it learns, it continues after a stop as if there had been none, and `transformers` can open its checkpoint."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.training.initial import init_model, reset_unused_embeddings
from model.training.recipe import Recipe, TrainingError
from model.training.record import RECORD, RENAMED, Record, read_record
from model.training.run import RESUME, train
from model.training.start import prepare_run
from model.weights.folder import load
from tests.conftest import CPU, FLOAT

SMALL = Recipe(
    n_layers=2,
    n_heads=2,
    d_model=16,
    n_context=16,
    n_vocab=300,
    batch_size=4,
    n_steps=12,
    n_warmup=2,
    learning_rate=1e-2,
)
Go = Callable[..., Path]


class Killed(Exception):
    """Simulates a kill: nothing after it runs."""


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Train with a recipe into a folder; `killed_at` ends it after that step."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The fat cat {i} sat on the mat, and the dog {i * 7} saw it." for i in range(2000)))

    def go(name: str, recipe: Recipe = SMALL, killed_at: int | None = None) -> Path:
        folder = tmp_path / name
        run = prepare_run(folder, [text], recipe)

        def report(step: int, loss: float, speed: float) -> None:
            assert loss > 0
            assert speed > 0
            if step == killed_at:
                raise Killed

        train(folder, run.recipe, run.corpus, CPU, report, save_seconds=0)
        return folder

    return go


def record(folder: Path) -> Record:
    record = read_record(folder)
    assert record
    return record


def parameters(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_it_learns(go: Go) -> None:
    curve = record(go("run", replace(SMALL, n_steps=60))).curve
    assert curve[-1].held_out_loss < curve[0].held_out_loss - 2
    # ln 300 + 0.65² / 2: it knows nothing, and logits vary a little
    assert curve[0].held_out_loss == pytest.approx(5.9, abs=0.1)


def test_a_run_that_was_killed_continues_as_if_it_had_not_been(go: Go) -> None:
    recipe = replace(SMALL, curriculum=0.75)  # nine steps, the first six of them easy
    straight = go("straight", recipe)
    with pytest.raises(Killed):
        go("stopped", recipe, killed_at=7)
    stopped = go("stopped", recipe)
    assert parameters(stopped) == parameters(straight)
    assert record(stopped).curve == record(straight).curve


def without_version(content: str) -> str:
    """A record as it was written before it had a version, with the old names of some fields."""
    raw = json.loads(content)
    old_names = {new: old for old, new in RENAMED.items()}
    recipe = {old_names.get(name, name): value for name, value in raw["recipe"].items()}
    return json.dumps({name: value for name, value in raw.items() if name != "version"} | {"recipe": recipe})


def rewrite_records(folder: Path, change: Callable[[str], str]) -> None:
    """Change the record of a stopped run in both of its files."""
    (folder / RECORD).write_text(change((folder / RECORD).read_text()))
    with safe_open(folder / RESUME, "pt") as file:
        metadata = {"record": change(file.metadata()["record"])}
    save_file(load_file(folder / RESUME), folder / RESUME, metadata)


def test_a_run_with_a_record_from_before_versions_continues_to_the_same_parameters(go: Go) -> None:
    recipe = replace(SMALL, curriculum=0.75, dropout_after=0.5)
    straight = go("straight", recipe)
    with pytest.raises(Killed):
        go("stopped", recipe, killed_at=7)
    stopped = straight.with_name("stopped")
    rewrite_records(stopped, without_version)
    assert {"late", "drills", "n_texts"} <= json.loads((stopped / RECORD).read_text())["recipe"].keys()
    go("stopped", recipe)
    assert parameters(stopped) == parameters(straight)
    assert record(stopped) == record(straight)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version": 2', '"version": 3', "has the version 3; Lookback reads 2 and older"),
        ('"seed"', '"sed"', r"recipe\.sed is an unknown field"),
        ('"dropout_after"', '"late"', r"recipe\.late is an unknown field"),
        ('"step": 12,', '"step": 12, "speed": 1,', "speed is an unknown field"),
        ('"seed": 0', '"repeats": 0.2', r"has no recipe\.seed"),
    ],
)
def test_a_record_that_is_not_understood_is_refused_where_the_run_would_continue(
    go: Go, old: str, new: str, words: str
) -> None:
    run = go("run")
    content = (run / RECORD).read_text()
    assert old in content
    (run / RECORD).write_text(content.replace(old, new))
    before = parameters(run)
    with pytest.raises(TrainingError, match=words):
        go("run")
    assert parameters(run) == before
    assert read_record(run) is None  # the app shows such a run without its curve


def test_a_stopped_run_of_another_version_is_refused(go: Go, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go("run", killed_at=5)
    rewrite_records(tmp_path / "run", lambda content: content.replace('"version": 2', '"version": 3'))
    with pytest.raises(TrainingError, match="has the version 3"):
        go("run")


def test_a_point_of_the_curve_has_the_mean_of_all_losses_since_the_last_one(go: Go) -> None:
    recipe = replace(SMALL, n_steps=120)  # a point at every second step, and at 1
    straight = go("straight", recipe)
    with pytest.raises(Killed):
        go("stopped", recipe, killed_at=100)  # the state of step 99 is saved, between two points
    assert record(go("stopped", recipe)).curve == record(straight).curve


def test_the_seed_fixes_the_run(go: Go) -> None:
    assert parameters(go("first")) == parameters(go("second"))
    assert parameters(go("third", replace(SMALL, seed=1))) != parameters(go("fourth"))


def test_bfloat16_learns_nearly_the_same(go: Go) -> None:
    exact, rounded = go("exact"), go("rounded", replace(SMALL, bfloat16=True))
    assert parameters(exact) != parameters(rounded)
    losses = [record(folder).curve[-1].held_out_loss for folder in (exact, rounded)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_run_is_not_continued_with_another_recipe_and_stays_unchanged(go: Go, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go("run", killed_at=5)
    before = parameters(run := tmp_path / "run"), (run / RESUME).read_bytes()
    with pytest.raises(
        TrainingError, match=r"started with another recipe \(d_model differ\).*same options, or.*another folder"
    ):
        go("run", replace(SMALL, d_model=32))
    assert before == (parameters(run), (run / RESUME).read_bytes())


def test_a_complete_run_is_not_replaced_by_one_with_another_recipe(go: Go) -> None:
    before = parameters(run := go("run"))
    with pytest.raises(TrainingError, match=r"holds a complete run with another recipe \(n_steps differ\)"):
        go("run", replace(SMALL, n_steps=20))
    assert parameters(run) == before


def test_a_run_is_not_continued_with_other_texts(go: Go, tmp_path: Path) -> None:
    run = go("run")
    (text := tmp_path / "other.txt").write_text("Something else. " * 500)
    with pytest.raises(TrainingError, match="holds a run on other texts"):
        prepare_run(run, [text], SMALL)


def test_a_folder_with_other_files_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Anna,")
    with pytest.raises(TrainingError, match="is not empty"):
        prepare_run(tmp_path, [tmp_path / "letter.txt"], SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_steps_0_1_2_4_8_are_saved(go: Go) -> None:
    run = go("run")
    assert sorted(int(path.name) for path in (run / "steps").iterdir()) == [0, 1, 2, 4, 8]
    assert not (run / RESUME).exists()
    assert prepare_run(run, [run.parent / "text.txt"], SMALL).n_steps_done == 12


def test_transformers_computes_the_same_with_the_checkpoint_of_a_run(go: Go) -> None:
    run = go("run")
    model, tokenizer = load(run, device=CPU, dtype=FLOAT)
    ids = tokenizer.encode("the fat cat sat").ids
    assert AutoTokenizer.from_pretrained(run)("the fat cat sat").input_ids == list(ids)
    oracle = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
    assert torch.allclose(oracle(torch.tensor([ids])).logits, model(torch.tensor([ids])), atol=1e-4)


def test_a_tokenizer_can_be_given(go: Go, tmp_path: Path) -> None:
    given = go("first")
    run = prepare_run(tmp_path / "second", [tmp_path / "text.txt"], replace(SMALL, n_vocab=999), given)
    assert run.recipe.n_vocab == 300
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (given / "tokenizer.json").read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(go: Go) -> None:
    with pytest.raises(TrainingError, match=r"The loss of step \d+ is nan.*a smaller --learning-rate helps"):
        go("run", replace(SMALL, learning_rate=1e30, n_warmup=0))


def test_embeddings_that_easy_steps_do_not_use_are_reset_around_the_mean_of_the_others() -> None:
    recipe = Recipe(n_layers=1, n_heads=1, d_model=100, n_context=8, n_vocab=2048)
    model = init_model(recipe)
    embeddings = model.get_parameter("embed.weight").data
    embeddings[:1024] += 2.0
    embeddings[1024:] += 7.0
    used = embeddings[:1024].clone()
    reset_unused_embeddings(model, recipe)
    assert torch.equal(embeddings[:1024], used)
    assert embeddings[1024:].mean() == pytest.approx(2.0, abs=0.01)
    assert embeddings[1024:].std() == pytest.approx(0.065, abs=0.001)  # 0.65 / √100
