"""The examples in the docstrings of bench/: pytest itself collects only those of app/ and model/."""

import doctest
from types import ModuleType

import pytest

from bench import keystrokes, report


@pytest.mark.parametrize("module", [keystrokes, report])
def test_examples_hold(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
