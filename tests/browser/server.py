"""A server in a process of its own, as a person starts it: `lookback serve`."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

READY_S = 300  # the first time, the weights are fetched


class Server:
    """A server that can be stopped, and started again at the same address."""

    def __init__(self, *options: str, **environment: str) -> None:
        self._options = options
        self._environment = os.environ | environment
        self._port = 0  # a free one, the first time
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says where it is. Its model may still be loading."""
        command = [str(Path(sys.executable).with_name("lookback")), "serve", "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environment)
        self.url = self._address()
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End the process at once."""
        with self._process:
            self._process.kill()

    def post(self, call: str, **ask: Any) -> Any:
        """The answer of the JSON API."""
        return httpx.post(f"{self.url}/api/v1/{call}", json=ask, timeout=60).raise_for_status().json()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return httpx.get(self.url + path).raise_for_status().json()

    def wait_until_ready(self) -> None:
        """Wait until the default model can answer."""
        self._wait(lambda: httpx.get(f"{self.url}/readyz"))

    def wait_for(self, model: str) -> None:
        """Wait until a model can answer, which need not be the default one."""
        ask = {"text": "a", "model": model}
        self._wait(lambda: httpx.post(f"{self.url}/api/v1/tokens", json=ask, timeout=60))

    def _wait(self, ask: Callable[[], httpx.Response]) -> None:
        end = time.monotonic() + READY_S
        while (reply := ask()).status_code != 200:
            assert time.monotonic() < end, reply.text
            time.sleep(0.05)

    def _address(self) -> str:
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            if found := re.search(r"Lookback is at (http://\S+)", line):
                return found[1]
            said.append(line)
        self.stop()
        raise AssertionError(f"The server ended before it said where it is:\n{''.join(said)}")


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server that is ready, and is stopped at the end."""
    server = Server(*options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
