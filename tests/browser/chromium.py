"""Finds a Chromium for the browser tests: the system's, else Playwright's own, else the distribution's package.

`python -m tests.browser.chromium` also gets one where it can, and says what it does.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The path of a Chromium on this machine, or None."""
    if on_path := next(filter(None, map(shutil.which, NAMES)), None):
        return on_path
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    return next((str(path) for path in sorted(cache.glob("chromium-*/chrome-linux*/chrome"))), None)


def get() -> str | None:
    """Find a Chromium, or get one."""
    if found := find():
        return found
    say("There is no chromium or google-chrome here; asking Playwright for its own …")
    run([sys.executable, "-m", "playwright", "install", "chromium"])
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        say("… which could not be had; as root, installing the distribution's package `chromium` …")
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    return find()


def run(command: list[str]) -> None:
    """Run a command that may fail, for five minutes at most."""
    try:
        subprocess.run(command, check=False, capture_output=True, timeout=300)
    except subprocess.TimeoutExpired:
        say(f"{command[0]} took more than five minutes and was stopped.")


def say(words: str) -> None:
    """Write a line for whoever runs the tests."""
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    say(
        f"Browser tests run in {found}." if (found := get()) else "No Chromium could be had: browser tests are skipped."
    )
