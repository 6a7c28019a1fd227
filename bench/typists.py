"""Typists at one server: locust in a process of its own, for a number of typists and a number of seconds."""

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from bench.process import environment
from bench.results import Load

ROOT = Path(__file__).resolve().parents[1]
GRACE_S = 4  # for the replies to the last keys


def run_typists(url: str, n_typists: int, seconds: float, *, first: int = 0) -> Load:
    """Let typists type, each on a live channel of its own; a server that knows a typist's texts replies sooner.

    Args:
        first: the number of the first typist. Every number has texts of its own.

    Raises:
        RuntimeError: if the load generator fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "typists.json"
        options = {
            "--locustfile": "bench/locustfile.py",
            "--host": url,
            "--out": out,
            "--users": n_typists,
            "--spawn-rate": n_typists,
            "--typing-s": seconds,
            "--first-typist": first,
            "--run-time": f"{round(seconds + GRACE_S)}s",
            "--exit-code-on-error": 0,
        }
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log"]
        command += [str(word) for option in options.items() for word in option]
        process = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if process.returncode or not out.exists():
            raise RuntimeError(f"locust failed:\n{process.stderr[-2_000:]}")
        return Load(n_typists=n_typists, seconds=seconds, **orjson.loads(out.read_bytes()))
