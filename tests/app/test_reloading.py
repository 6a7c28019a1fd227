"""A server that is started during a training run loads the parameters of each new step."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app import models
from app.live import frame
from app.settings import Settings
from model.reading import read
from model.weights.folder import load
from tests.conftest import APP_DTYPE, CPU, ROUNDING, serve

TEXT = "the fat cat sat"


def write_step(folder: Path, run: Path, step: int) -> None:
    """Bring the folder into the state of the run after `step`: parameters first, then the record, each file at once."""
    source = run / "steps" / str(step) if step < 12 else run
    shutil.copy(source / "model.safetensors", folder / ".new")
    (folder / ".new").replace(folder / "model.safetensors")
    record = (run / "training.json").read_text().replace('"step": 12,\n  "curve"', f'"step": {step},\n  "curve"')
    assert f'"step": {step},\n  "curve"' in record
    (folder / ".new").write_text(record)
    (folder / ".new").replace(folder / "training.json")


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run as it was after 2 of its 12 steps."""
    folder = tmp_path / "running"
    shutil.copytree(tiny_run, folder)
    write_step(folder, tiny_run, 2)
    return folder


@pytest.fixture
def client(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(models, "CHECK_EVERY_S", 0.0)
    yield from serve(Settings(model=str(folder), weights_dir=tmp_path / "cache"))


def weights(client: TestClient, **fields: Any) -> Any:
    reply = client.post("/api/v1/attention", json={"text": TEXT, **fields})
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["values"])


def weights_of_a_fresh_load(folder: Path) -> Any:
    network, tokenizer = load(folder, device=CPU, dtype=APP_DTYPE)
    trace = read(network, tokenizer.encode(TEXT).ids)
    return np.stack([trace.stage("weights", layer, [0, 1]) for layer in range(2)])


def test_after_each_new_step_the_numbers_are_those_of_a_fresh_load(
    client: TestClient, folder: Path, tiny_run: Path
) -> None:
    first = weights(client)
    np.testing.assert_allclose(first, weights_of_a_fresh_load(folder), atol=ROUNDING / 10)
    for step in (4, 12):
        write_step(folder, tiny_run, step)
        fresh = weights_of_a_fresh_load(folder)
        assert np.abs(first - fresh).max() > 1e-3  # the steps differ
        for fields in ({}, {"step": step}):  # the cache has this text, read with older parameters
            np.testing.assert_allclose(weights(client, **fields), fresh, atol=ROUNDING / 10)


def test_a_request_for_a_step_that_the_run_has_just_reached_loads_it_at_once(
    client: TestClient, folder: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CHECK_EVERY_S", 3600.0)
    before = weights(client)
    write_step(folder, tiny_run, 12)
    np.testing.assert_array_equal(weights(client), before)
    np.testing.assert_allclose(weights(client, step=12), weights_of_a_fresh_load(folder), atol=ROUNDING / 10)


def test_after_a_reload_the_live_channel_sends_everything_again(
    client: TestClient, folder: Path, tiny_run: Path
) -> None:
    """The tokens are the same, so the old numbers could be reused by mistake."""
    with client.websocket_connect("/api/v2/live") as socket:
        for seq, step in ((1, 2), (2, 12)):
            write_step(folder, tiny_run, step)
            socket.send_json({"seq": seq, "text": TEXT, "layer": 1, "head": 1})
            header, arrays = frame.decode(socket.receive_bytes())
            assert header["n_shared"] == 0
            np.testing.assert_allclose(arrays["weights"], weights_of_a_fresh_load(folder)[1, 1], atol=ROUNDING / 10)


def test_the_training_page_shows_the_step_of_the_run_and_the_time_of_the_last_reload(
    client: TestClient, folder: Path, tiny_run: Path
) -> None:
    page = client.get("/training", params={"text": TEXT}).text
    assert "Step 2 of 12 of a run that is not finished." in page
    assert "were loaded at" not in page
    write_step(folder, tiny_run, 4)
    page = client.get("/training", params={"text": TEXT}).text
    assert "Step 4 of 12 of a run that is not finished. Newer parameters were loaded at " in page
    write_step(folder, tiny_run, 12)
    page = client.get("/training", params={"text": TEXT}).text
    assert "not finished" not in page


def test_if_newer_parameters_cannot_be_loaded_the_page_says_so_and_the_old_ones_stay(
    client: TestClient, folder: Path
) -> None:
    before = weights(client)
    (folder / "model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(weights(client), before)
    page = client.get("/training", params={"text": TEXT}).text
    assert "Newer parameters could not be loaded: " in page
    assert "model.safetensors is empty" in page


def test_a_reload_evicts_what_was_read_with_the_old_parameters(
    client: TestClient, folder: Path, tiny_run: Path
) -> None:
    engine = client.app.state.engine  # type: ignore[attr-defined]
    weights(client)
    weights(client, step=1)
    write_step(folder, tiny_run, 12)
    weights(client)
    entry = engine.models.entries["running"]
    assert (entry.steps, entry.loaded.version) == ({}, 1)
    assert {key[0] for key in engine._cache._traces} == {entry.loaded.network}
