"""Every package that an installation brings is pinned, in one of the files of constraints."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CUDA = ("cuda-", "nvidia-", "triton")  # only torch's CUDA build needs them, and it pins them itself


def _pins(file: str) -> set[str]:
    return {canonicalize_name(name) for name in re.findall(r"^([^#\s]\S*)==", (ROOT / file).read_text(), re.M)}


def _requirements(package: str, extra: str) -> set[tuple[str, str]]:
    """(package, extra) for all that an installed package requires on this machine; nothing if it is not installed."""
    try:
        required = [Requirement(line) for line in requires(package) or []]
    except PackageNotFoundError:
        return set()
    applies = [item for item in required if item.marker is None or item.marker.evaluate({"extra": extra})]
    return {(canonicalize_name(item.name), name) for item in applies for name in item.extras | {""}}


def _installed_with(extra: str) -> set[str]:
    """The names of all packages that `pip install 'lookback[extra]'` brings."""
    known: set[tuple[str, str]] = set()
    new = {("lookback", ""), ("lookback", extra)}
    while new:
        known |= new
        new = {requirement for package in new for requirement in _requirements(*package)} - known
    return {name for name, _ in known if not name.startswith(CUDA)} - {"lookback"}


def test_every_package_of_make_run_is_pinned() -> None:
    assert _installed_with("") - _pins("constraints.txt") == set()


def test_every_package_of_make_test_is_pinned() -> None:
    assert _installed_with("test") - _pins("constraints.txt") - _pins("constraints-test.txt") == set()


def test_every_package_is_pinned_in_only_one_file() -> None:
    run, test, bench = (_pins(f"constraints{suffix}.txt") for suffix in ("", "-test", "-bench"))
    assert run & test == run & bench == test & bench == set()
