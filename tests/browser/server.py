"""A server in its own process, started by `lookback serve`, as users start it."""

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

READY_S = 300  # the first time, the weights are downloaded


class Server:
    """A server that can be stopped and started again at the same address."""

    def __init__(self, *options: str, **environment: str) -> None:
        self._options = options
        self._environment = os.environ | environment
        self._port = 0  # the first time, any free port
        self.start()

    def start(self) -> None:
        """Start the server and wait until it prints its address. Its model may still be loading."""
        command = [str(Path(sys.executable).with_name("lookback")), "serve", "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environment)
        self.url = self._address()
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """Kill the process."""
        with self._process:
            self._process.kill()

    def post(self, call: str, **request: Any) -> Any:
        """The reply of the JSON API."""
        return httpx.post(f"{self.url}/api/v1/{call}", json=request, timeout=60).raise_for_status().json()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return httpx.get(self.url + path).raise_for_status().json()

    def wait_until_ready(self) -> None:
        """Wait until the default model is ready."""
        self._wait(lambda: httpx.get(f"{self.url}/readyz"))

    def wait_for(self, model: str) -> None:
        """Wait until a model is ready, which need not be the default one."""
        request = {"text": "a", "model": model}
        self._wait(lambda: httpx.post(f"{self.url}/api/v1/tokens", json=request, timeout=60))

    def _wait(self, request: Callable[[], httpx.Response]) -> None:
        end = time.monotonic() + READY_S
        while (reply := request()).status_code != 200:
            assert time.monotonic() < end, reply.text
            time.sleep(0.05)

    def _address(self) -> str:
        assert self._process.stderr
        output = []
        for line in self._process.stderr:
            if match := re.search(r"Lookback is at (http://\S+)", line):
                return match[1]
            output.append(line)
        self.stop()
        raise AssertionError(f"The server ended before it printed its address:\n{''.join(output)}")


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server that is ready; it is stopped at the end."""
    server = Server(*options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
