"""Find a Chromium for the browser tests: the system's, or else the one that Playwright installed.

`python -m tests.browser.chromium` also installs one if there is none: Playwright's, or else the distribution's package.
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


def find_or_install() -> str | None:
    """The path of a Chromium, which is installed if there is none; None if that fails."""
    if path := find():
        return path
    report("No chromium or google-chrome found; installing Playwright's …")
    run([sys.executable, "-m", "playwright", "install", "chromium"])
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        report("… which failed; as root, installing the distribution's package `chromium` …")
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    return find()


def run(command: list[str]) -> None:
    """Run a command that may fail, for at most five minutes."""
    try:
        subprocess.run(command, check=False, capture_output=True, timeout=300)
    except subprocess.TimeoutExpired:
        report(f"{command[0]} took more than five minutes and was stopped.")


def report(message: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    path = find_or_install()
    report(f"Browser tests run in {path}." if path else "No Chromium could be installed: browser tests are skipped.")
