"""`lookback train` as a user runs it: it is killed and continued, the disk is full, the text is too short."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import main
from model.weights.folder import load, saved_steps
from tests.conftest import CPU, FLOAT

SMALL = ["--layers", "2", "--heads", "2", "--width", "32", "--context", "32", "--vocab", "400", "--batch", "4"]
SMALL += ["--steps", "40", "--save", "0"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"The fat cat {i} sat on the mat, and the dog {i * 7} saw it." for i in range(3000)))
    return path


def command(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).with_name("lookback")), "train", *map(str, arguments)]


def run_on_full_disk(*arguments: object, n_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run a command whose files may not grow beyond `n_bytes`, which fails as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return subprocess.run(command(*arguments), capture_output=True, text=True, preexec_fn=limit)


def run_here(*arguments: object) -> Result:
    """Run a command in this process, which has imported torch already."""
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_a_run_that_was_killed_continues_to_the_parameters_of_an_undisturbed_one(text: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run_here(text, "--out", straight, *SMALL).exit_code == 0
    first = subprocess.Popen(command(text, "--out", killed, *SMALL), stderr=subprocess.PIPE)
    while not (killed / "steps" / "8").is_dir():
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (killed / "resume.safetensors").exists()
    last = run_here(text, "--out", killed, *SMALL)
    assert "lookback serve --model" in last.stderr
    assert (killed / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert saved_steps(killed) == (0, 1, 2, 4, 8, 16, 32)
    assert json.loads((killed / "training.json").read_text())["step"] == 40


def test_on_a_full_disk_the_error_says_so_and_the_last_checkpoint_is_intact(text: Path, tmp_path: Path) -> None:
    """The parameters fit (60 kB); the state for continuing, six times as large, does not."""
    full = run_on_full_disk(text, "--out", tmp_path / "run", *SMALL, n_bytes=250_000)
    assert full.returncode == 2
    assert "File too large" in full.stderr
    assert "continues from there" in full.stderr
    model, tokenizer = load(tmp_path / "run", device=CPU, dtype=FLOAT)
    assert model.config.n_layers == 2
    assert tokenizer.encode("the fat cat")
    assert not list((tmp_path / "run").rglob("*.part"))
    assert run_here(text, "--out", tmp_path / "run", *SMALL).exit_code == 0


def test_if_nothing_can_be_written_the_error_says_so(text: Path) -> None:
    refused = run_here(text, "--out", text / "run", *SMALL)
    assert refused.exit_code == 2
    assert "Not a directory" in refused.stderr


def test_a_text_that_is_too_short_is_refused_with_advice(tmp_path: Path) -> None:
    (short := tmp_path / "short.txt").write_text("The fat cat sat on the mat. " * 20)
    refused = run_here(short, "--out", tmp_path / "run", *SMALL[:-4])
    assert refused.exit_code == 2
    assert "--vocab" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--heads", "3"], "32 features cannot be shared evenly by 3 heads"),
        (["--dropout", "1"], "dropout is 1.0; it must be at least 0 and less than 1"),
        (["--learning-rate", "0"], "learning_rate is 0.0; it must be positive and finite"),
        (["--repeats", "2"], "repeats is 2.0; it is a fraction"),
        (["--curriculum", "-1"], "curriculum is -1.0; it is a fraction"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(text: Path, tmp_path: Path, wrong: list[str], words: str) -> None:
    refused = run_here(text, "--out", tmp_path / "run", *SMALL, *wrong)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("--rate", "--learning-rate"), ("--late", "--dropout-after"), ("--drills", "--curriculum")]
)
def test_an_option_that_was_renamed_is_refused_with_its_new_name(
    text: Path, tmp_path: Path, old: str, new: str
) -> None:
    refused = run_here(text, "--out", tmp_path / "run", *SMALL, old, "0.5")
    assert refused.exit_code == 2
    assert f"{old} is now {new}" in refused.stderr
    assert not (tmp_path / "run").exists()
