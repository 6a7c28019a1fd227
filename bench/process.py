"""The measured processes: workers on a pipe, and the server; two torch threads each, and their peak memory.

Peak memory is Linux's VmHWM. It includes the weights that are mapped from their file.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import orjson

from bench.results import Reading

N_THREADS = 2
STOP_S = 10


class Worker:
    """A process that reads texts on request, and otherwise waits on its pipe.

    Args:
        program: module and function, as `bench.worker` takes them.
        folder: the model.
    """

    def __init__(self, program: str, folder: Path) -> None:
        command = [sys.executable, "-m", "bench.worker", program, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        self._program = program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process if it is still running."""
        stop(self._process)

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded."""
        self._next_line()

    def read(self, texts: Sequence[Sequence[int]], n_shared: int) -> Reading:
        """Have the process read texts that share their first tokens with the previous ones.

        Raises:
            RuntimeError: if the process ended.
        """
        assert self._process.stdin
        self._process.stdin.write(orjson.dumps({"texts": texts, "n_shared": n_shared}) + b"\n")
        self._process.stdin.flush()
        reading: Reading = orjson.loads(self._next_line())
        return reading

    @property
    def peak_mb(self) -> float | None:
        """The process's peak memory in MB."""
        return peak_mb(self._process.pid)

    def _next_line(self) -> bytes:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._program} ended; `python -m bench.worker {self._program} FOLDER` shows why")
        return line


class Server:
    """`lookback serve` at a free port, with settings such as cache_mb=2_000."""

    def __init__(self, **settings: object) -> None:
        command = [str(Path(sys.executable).with_name("lookback")), "serve", "--port", "0"]
        variables = {f"LOOKBACK_{name.upper()}": str(value) for name, value in settings.items()}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment() | variables)

    def __enter__(self) -> Self:
        self.url = self._read_url()
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            RuntimeError: if the server ended.
        """
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while client.get("/readyz").status_code != 200:
                if self._process.poll() is not None:
                    raise RuntimeError("the server ended while it was loading its model")
                time.sleep(0.1)

    @property
    def peak_mb(self) -> float | None:
        """The server's peak memory in MB."""
        return peak_mb(self._process.pid)

    def _read_url(self) -> str:
        assert self._process.stderr
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if match := re.search(r"Lookback is at (http://\S+)", line):
                return match[1]
        raise RuntimeError(f"the server ended before it printed its address:\n{''.join(lines)}")


@contextmanager
def running(**settings: object) -> Iterator[Server]:
    """A server that is ready."""
    with Server(**settings) as server:
        server.wait_until_ready()
        yield server


def environment() -> dict[str, str]:
    """The environment of every measured process: the same number of threads, and no requests to the hub."""
    return {**os.environ, "OMP_NUM_THREADS": str(N_THREADS), "HF_HUB_OFFLINE": "1"}


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
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
    """A process's peak memory in MB of 10⁶ bytes; None if the system does not record it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 / 1e6 if match else None
