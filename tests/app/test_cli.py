"""The command line and its settings."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from app.cli import main
from app.settings import Settings

LOOKBACK = Path(sys.executable).with_name("lookback")


def test_every_option_of_serve_is_also_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    help_text = CliRunner().invoke(main, ["serve", "--help"], env={"COLUMNS": "200"}).output
    options = set(re.findall(r"--([\w-]+)", re.sub(r"\x1b\[[\d;]*m", "", help_text))) - {"help"}
    assert options == {"host", "port", "model", "device", "dtype", "weights-dir"}
    assert {option.replace("-", "_") for option in options} <= set(Settings.model_fields)
    monkeypatch.setenv("LOOKBACK_PORT", "9000")
    monkeypatch.setenv("LOOKBACK_DTYPE", "bfloat16")
    assert (Settings().port, Settings().dtype) == (9000, "bfloat16")


def test_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 65535"):
        Settings(port=70_000)


def test_a_removed_setting_is_refused_with_its_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKBACK_MAX_LOADED", "3")
    with pytest.raises(ValidationError, match=r"LOOKBACK_MAX_LOADED is no setting any more.*LOOKBACK_MODELS_MB"):
        Settings()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LOOKBACK_MODELS": "gpt5,gpt2"}, "LOOKBACK_MODELS names gpt5. Models: lookback-gpt, smollm2-135m, gpt2"),
        ({"LOOKBACK_DEVICE": "cuda"}, "The device is cuda, but PyTorch finds no CUDA here."),
        ({"LOOKBACK_MAX_LOADED": "3"}, "Error: LOOKBACK_MAX_LOADED is no setting any more"),
        (
            {"LOOKBACK_KEPT_MB": "3"},
            "Error: LOOKBACK_KEPT_MB is no setting any more. Remove it, and set LOOKBACK_CACHE_MB instead",
        ),
    ],
)
def test_a_setting_with_which_nothing_can_be_served_is_refused_at_the_start(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(main, ["serve", "--model", "lookback-gpt"], env={"COLUMNS": "200", **environment})
    assert result.exit_code == 2
    assert words in result.output


def test_names_of_models_in_a_setting_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKBACK_MODELS", "gpt2, gpt2-medium,")
    assert Settings().models == ("gpt2", "gpt2-medium")


def test_models_lists_every_model(tmp_path: Path) -> None:
    output = CliRunner().invoke(main, ["models", "--weights-dir", str(tmp_path)], env={"COLUMNS": "200"}).output
    for words in ("smollm2-135m", "30 × 9", "8,192", "2,048", "lookback fetch gpt2-xl", "gpt2-xl", "48 × 25"):
        assert words in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--model", "gpt5"], "There is no model 'gpt5'"),
        (["serve", "--device", "tpu"], "device: Input should be 'auto', 'cpu' or 'cuda'"),
        (["serve", "--port", "70000"], "port: Input should be less than or equal to 65535"),
        (["fetch", "gpt5"], "There is no model 'gpt5'"),
        (["fetch", "."], "has no config.json"),
        (["models", "--model", "gpt5"], "There is no model 'gpt5'"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_message(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


# Runs each command in one new process. Prints its exit code, and whether torch has been imported.
IMPORTED = """
import json, sys
from typer.testing import CliRunner
from app.cli import main
for arguments in json.load(sys.stdin):
    code = CliRunner().invoke(main, arguments).exit_code
    print(json.dumps([arguments, code, "torch" in sys.modules]))
"""


def test_help_and_refused_arguments_do_not_import_torch() -> None:
    helps = [["--help"], *([name, "--help"] for name in ("serve", "models", "fetch", "train"))]
    refusals = [
        ["serve", "--port", "70000"],
        ["serve", "--device", "tpu"],
        ["models", "--layers"],
        ["fetch"],
        ["train", "a.txt", "--out", "run", "--width", "32", "--heads", "3"],
    ]
    completed = subprocess.run(
        [sys.executable, "-c", IMPORTED], input=json.dumps(helps + refusals), capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in completed.stdout.splitlines()] == [
        *([arguments, 0, False] for arguments in helps),
        *([arguments, 2, False] for arguments in refusals),
    ]


def test_serve_prints_its_address_and_serves_there(tiny_gpt2: Path) -> None:
    command = [str(LOOKBACK), "serve", "--port", "0", "--model", str(tiny_gpt2)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}) as server:
        try:
            assert server.stderr
            address = next(m[1] for line in server.stderr if (m := re.search(r"Lookback is at (http://\S+)", line)))
            with urllib.request.urlopen(f"{address}/healthz") as reply:
                assert reply.status == 200
            with urllib.request.urlopen(f"{address}/?text=cat") as reply:  # even while the model is loading
                assert b"tiny-gpt2" in reply.read()
        finally:
            server.terminate()
            server.communicate(timeout=20)
    assert server.returncode in (0, -15)
