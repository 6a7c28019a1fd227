"""Processes that are measured: workers on a pipe, and the server; two torch threads each, and their peak memory.

Peak memory is Linux's own count (VmHWM), with the weights that are mapped from the file.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import orjson

N_THREADS = 2
STOP_S = 10


class Worker:
    """One contestant that works when it is asked to, and otherwise waits on its pipe."""

    def __init__(self, where: str, folder: Path) -> None:
        command = [sys.executable, "-m", "bench.worker", where, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, if it has not ended yet."""
        stop(self._process)

    def wait_until_ready(self) -> None:
        """Wait until its model is loaded."""
        self._answer()

    def ask(self, texts: Sequence[Sequence[int]], same: int) -> dict[str, Any]:
        """What one reading took: ms, n_bytes, top_logit."""
        assert self._process.stdin
        self._process.stdin.write(orjson.dumps({"texts": texts, "same": same}) + b"\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def peak_mb(self) -> float | None:
        return peak_mb(self._process.pid)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._where} ended; run `python -m bench.worker {self._where} FOLDER` to see why")
        answer: dict[str, Any] = orjson.loads(line)
        return answer


class Server:
    """`lookback serve` at a free port, as a person starts it."""

    def __init__(self, **settings: object) -> None:
        command = [str(Path(sys.executable).with_name("lookback")), "serve", "--port", "0"]
        more = {f"LOOKBACK_{name.upper()}": str(value) for name, value in settings.items()}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment() | more)

    def __enter__(self) -> Self:
        self.url = self._address()
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)

    def wait_until_ready(self) -> None:
        """Wait until its model is loaded."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while client.get("/readyz").status_code != 200:
                if self._process.poll() is not None:
                    raise RuntimeError("the server ended while it was loading its model")
                time.sleep(0.1)

    @property
    def peak_mb(self) -> float | None:
        return peak_mb(self._process.pid)

    def _address(self) -> str:
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"Lookback is at (http://\S+)", line):
                return found[1]
        raise RuntimeError(f"the server ended before it said where it is:\n{''.join(said)}")


@contextmanager
def running(**settings: object) -> Iterator[Server]:
    """A server that is ready."""
    with Server(**settings) as server:
        server.wait_until_ready()
        yield server


def environment() -> dict[str, str]:
    """The same for everybody: as many threads, and no look at the hub."""
    return {**os.environ, "OMP_NUM_THREADS": str(N_THREADS), "HF_HUB_OFFLINE": "1"}


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process and wait for it."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def peak_mb(pid: int) -> float | None:
    """The most memory a process has had, in MB of 10⁶ bytes; None where the system does not count it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else None
