"""Small models of both families, and lookback-gpt, for tests of the lessons' numbers."""

from pathlib import Path

import pytest
import torch

from app.models import LoadedModel
from app.settings import Settings
from model.weights.catalogue import SHIPPED
from model.weights.folder import load
from tests.conftest import CPU, FLOAT

NAMES = ("tiny-gpt2", "tiny-llama", SHIPPED.name)


@pytest.fixture(scope="session")
def loaded_models(tiny_gpt2: Path, tiny_llama: Path, settings: Settings) -> dict[tuple[str, torch.dtype], LoadedModel]:
    """Small models of both families in both dtypes, by name and dtype."""
    shipped = SHIPPED.fetch(settings.weights_dir, lambda *_: None)
    folders = dict(zip(NAMES, (tiny_gpt2, tiny_llama, shipped), strict=True))
    return {
        (name, dtype): LoadedModel(name, *load(folder, device=CPU, dtype=dtype), max_tokens=64)
        for name, folder in folders.items()
        for dtype in (FLOAT, torch.bfloat16)
    }


@pytest.fixture(params=NAMES)
def loaded(request: pytest.FixtureRequest, loaded_models: dict[tuple[str, torch.dtype], LoadedModel]) -> LoadedModel:
    """Each small model in float32."""
    return loaded_models[request.param, FLOAT]


@pytest.fixture
def lookback_gpt(loaded_models: dict[tuple[str, torch.dtype], LoadedModel]) -> LoadedModel:
    """The shipped model in float32: LayerNorm, learned positions, trained weights."""
    return loaded_models[SHIPPED.name, FLOAT]


@pytest.fixture
def tiny_llama_model(loaded_models: dict[tuple[str, torch.dtype], LoadedModel]) -> LoadedModel:
    """A tiny Llama in float32: RMSNorm, rotary positions, grouped heads."""
    return loaded_models["tiny-llama", FLOAT]
