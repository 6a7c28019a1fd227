"""Training steps of a model over the API: every request that names a model may name one of its steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from app import models, schemas
from app.settings import Settings
from model.heads import PROBE_PATTERNS, probe_scores
from model.reading import read
from model.weights.folder import load, load_step
from tests.conftest import APP_DTYPE, CPU, ROUNDING, serve

TEXT = "the fat cat sat"


@pytest.fixture(scope="module")
def client(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app that serves a tiny run of 12 steps, of which 0, 1, 2, 4 and 8 are saved."""
    yield from serve(Settings(model=str(tiny_run), weights_dir=tmp_path_factory.mktemp("cache")))


def post(client: TestClient, path: str, **fields: Any) -> Any:
    reply = client.post(f"/api/v1/{path}", json={"text": TEXT, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_checkpoints_come_in_the_order_of_training(client: TestClient) -> None:
    reply = schemas.CheckpointsReply.model_validate(client.get("/api/v2/models/tiny-run/checkpoints").json())
    assert [checkpoint.step for checkpoint in reply.checkpoints] == [0, 1, 2, 4, 8, 12]
    assert [point.step for point in reply.curve] == list(range(13))
    assert reply.curve[-1].held_out_loss < reply.curve[0].held_out_loss
    assert reply.n_curriculum_steps == 0


def test_a_model_with_a_curriculum_has_its_number_of_steps_without_text(client: TestClient) -> None:
    shipped = client.get("/api/v2/models/lookback-gpt/checkpoints").json()
    assert (shipped["n_curriculum_steps"], shipped["curve"][-1]["step"]) == (1500, 6000)
    before, after = ([p for p in shipped["curve"] if (p["step"] > 1500) == is_after] for is_after in (False, True))
    assert min(p["held_out_loss"] for p in before) > 7  # a uniform prediction has 8.3
    assert max(p["held_out_loss"] for p in after[3:]) < 5


def test_the_patterns_of_a_checkpoint_are_the_scores_of_its_heads(client: TestClient, tiny_run: Path) -> None:
    checkpoints = client.get("/api/v2/models/tiny-run/checkpoints").json()["checkpoints"]
    for index, step in ((0, 0), (4, 8)):
        network = load_step(tiny_run, step, device=CPU, dtype=APP_DTYPE)
        for pattern, scores_LH in zip(PROBE_PATTERNS, probe_scores(network), strict=True):
            assert np.allclose(checkpoints[index]["patterns"][pattern], scores_LH, atol=ROUNDING / 10)


@pytest.mark.parametrize("step", [0, 8, 12, None])
def test_a_request_for_a_step_gets_the_numbers_of_that_step(
    client: TestClient, tiny_run: Path, step: int | None
) -> None:
    final, tokenizer = load(tiny_run, device=CPU, dtype=APP_DTYPE)
    network = load_step(tiny_run, step, device=CPU, dtype=APP_DTYPE) if step in (0, 8) else final
    reply = post(client, "attention", step=step, layers=[1], heads=[0, 1])
    weights = read(network, tokenizer.encode(TEXT).ids).stage("weights", 1, [0, 1])
    assert torch.allclose(torch.tensor(reply["values"][0]), weights, atol=ROUNDING)
    assert reply["step"] == (step if step in (0, 8) else None)  # null is the finished model


@pytest.mark.parametrize("path", ["tokens", "attention", "norms", "predictions"])
def test_every_request_takes_a_step_and_every_reply_names_it(client: TestClient, path: str) -> None:
    assert post(client, path, step=4)["step"] == 4
    assert post(client, path)["step"] is None


@pytest.mark.parametrize(("step", "words"), [(3, "Saved steps: 0, 1, 2, 4, 8"), (10**12, "no parameters of step")])
def test_a_step_that_is_not_saved_is_refused_with_the_list_of_saved_steps(
    client: TestClient, step: int, words: str
) -> None:
    reply = client.post("/api/v1/tokens", json={"text": TEXT, "step": step})
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/no-such-step"
    assert words in reply.json()["detail"]


def test_a_model_without_saved_steps_has_one_checkpoint_without_a_number(tiny_llama: Path, tmp_path: Path) -> None:
    for client in serve(Settings(model=str(tiny_llama), weights_dir=tmp_path)):
        reply = client.get("/api/v2/models/tiny-llama/checkpoints").json()
        assert [checkpoint["step"] for checkpoint in reply["checkpoints"]] == [None]
        assert reply["curve"] == []
        refused = client.post("/api/v1/tokens", json={"text": TEXT, "step": 0})
        assert "came without training steps; leave the step out" in refused.json()["detail"]


def test_checkpoints_of_an_unknown_model_are_refused(client: TestClient) -> None:
    assert client.get("/api/v2/models/gpt5/checkpoints").status_code == 404


def test_a_few_steps_stay_in_memory_and_others_are_loaded_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MAX_STEPS", 2)
    first = post(client, "predictions", step=1)
    for step in (2, 4, 8):
        post(client, "predictions", step=step)
    entry = client.app.state.engine.models.entries["tiny-run"]  # type: ignore[attr-defined]
    assert list(entry.steps) == [4, 8]
    assert post(client, "predictions", step=1)["predictions"] == first["predictions"]


def test_over_the_live_channel_another_step_is_another_model(client: TestClient) -> None:
    """Nothing that was sent for one step may be reused for another, though the tokens are the same."""
    with client.websocket_connect("/api/v2/live") as socket:
        for seq, step in enumerate((0, 8, None)):
            socket.send_json({"seq": seq, "text": TEXT, "step": step})
            frame = socket.receive_bytes()
            assert b'"n_shared":0' in frame
            title = "tiny-run" if step is None else f"tiny-run at step {step}"
            assert title.encode() in frame
