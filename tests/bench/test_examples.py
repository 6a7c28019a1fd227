"""The examples in the docstrings of the benchmark; pytest looks for them in app/ and model/ only."""

import doctest
from types import ModuleType

import pytest

from bench import keystrokes, report, texts


@pytest.mark.parametrize("module", [keystrokes, report, texts])
def test_examples_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
