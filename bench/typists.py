"""Typists at work: locust in a process of its own, for a number of typists and a number of seconds."""

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from bench.process import environment
from bench.results import Load

ROOT = Path(__file__).resolve().parents[1]
GRACE_S = 4  # for the answers to the last keys


def typists(url: str, n_typists: int, seconds: float) -> Load:
    """So many typists at one server, each on a live channel of its own.

    Raises:
        RuntimeError: when the load generator fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "typists.json"
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log"]
        command += ["--locustfile", "bench/locustfile.py", "--host", url, "--said", str(said)]
        command += ["--users", str(n_typists), "--spawn-rate", str(n_typists)]
        command += [
            "--typing-s",
            str(seconds),
            "--run-time",
            f"{round(seconds + GRACE_S)}s",
            "--exit-code-on-error",
            "0",
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode or not said.exists():
            raise RuntimeError(f"locust failed:\n{done.stderr[-2_000:]}")
        return Load(n_typists=n_typists, seconds=seconds, **orjson.loads(said.read_bytes()))
