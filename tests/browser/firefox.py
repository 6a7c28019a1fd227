"""Find a Firefox for the tests of formulas, and control it over WebDriver BiDi.

Playwright only controls its own build of Firefox, which is not available everywhere. The tests of formulas need no more
than to open a page, run a script and take a screenshot: five commands of the W3C's protocol.

`python -m tests.browser.firefox` also installs the distribution's Firefox if there is none.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.browser.chromium import report, run

NAMES = ("firefox-esr", "firefox")
LISTENING = "WebDriver BiDi listening on "
TIMEOUT_S = 60


def find() -> str | None:
    """The path of a Firefox on this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def find_or_install() -> str | None:
    """The path of a Firefox, which is installed if there is none; None if that fails."""
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        report("No firefox found; as root, installing the distribution's package `firefox-esr` …")
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "firefox-esr"])
    return find()


class Firefox:
    """One page of a headless Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._n_sent = 0
        self._send("session.new", capabilities={})
        self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def resize(self, width: int, height: int, pixel_ratio: float) -> None:
        """Set the size of the page in CSS pixels, and the screenshot pixels per CSS pixel."""
        viewport = {"width": width, "height": height}
        self._send(
            "browsingContext.setViewport", context=self._context, viewport=viewport, devicePixelRatio=pixel_ratio
        )

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """The result of a JavaScript function, which may be asynchronous. Argument and result are JSON."""
        reply = self._send(
            "script.evaluate",
            expression=f"Promise.resolve(({function})({json.dumps(argument)})).then(JSON.stringify)",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert reply["type"] == "success", reply
        return json.loads(reply["result"].get("value", "null"))

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        reply = self._send("browsingContext.captureScreenshot", context=self._context, origin="document")
        return base64.b64decode(reply["data"])

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._n_sent += 1
        self._connection.send(json.dumps({"id": self._n_sent, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(TIMEOUT_S))
            if message.get("id") == self._n_sent:  # other messages are events
                assert message["type"] == "success", message
                result: dict[str, Any] = message["result"]
                return result


@contextmanager
def start() -> Iterator[Firefox]:
    """A headless Firefox with a temporary profile."""
    path = find()
    assert path
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            try:
                lines = (line for line in process.stderr if LISTENING in line)
                address = next(lines).partition(LISTENING)[2].strip()
                with connect(f"{address}/session", max_size=None) as connection:
                    yield Firefox(connection)
            finally:
                process.kill()


if __name__ == "__main__":
    path = find_or_install()
    report(
        f"Formulas are tested in {path}."
        if path
        else "No Firefox could be installed: formulas are tested only in Chromium."
    )
