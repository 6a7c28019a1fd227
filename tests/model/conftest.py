"""Copies of the tiny checkpoints that a test may change."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def gpt2(tiny_gpt2: Path, tmp_path: Path) -> Path:
    """A copy of the tiny GPT-2."""
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "gpt2"))


@pytest.fixture
def llama(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "llama"))
