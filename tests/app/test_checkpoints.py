"""A model through its training, over the API: every request that names a model may name a step of it."""

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
from tests.conftest import CPU, ROUNDING, SERVED, serve

TEXT = "the fat cat sat"


@pytest.fixture(scope="module")
def client(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The app around a tiny run of 12 steps; 0, 1, 2, 4 and 8 were kept."""
    yield from serve(Settings(model=str(tiny_run), cache=tmp_path_factory.mktemp("cache")))


def post(client: TestClient, path: str, **ask: Any) -> Any:
    reply = client.post(f"/api/v1/{path}", json={"text": TEXT, **ask})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_checkpoints_come_in_the_order_of_training_with_the_end_last(client: TestClient) -> None:
    reply = schemas.CheckpointsReply.model_validate(client.get("/api/v1/models/tiny-run/checkpoints").json())
    assert [one.step for one in reply.checkpoints] == [0, 1, 2, 4, 8, 12]
    assert [point.step for point in reply.curve] == list(range(13))
    assert reply.curve[-1].held_out_loss < reply.curve[0].held_out_loss
    assert reply.n_drills == 0


def test_of_a_model_with_drills_it_is_said_how_many_steps_read_no_text(client: TestClient) -> None:
    shipped = client.get("/api/v1/models/lookback-gpt/checkpoints").json()
    assert (shipped["n_drills"], shipped["curve"][-1]["step"]) == (1500, 6000)
    before, after = ([p for p in shipped["curve"] if of(p["step"])] for of in ((1500).__ge__, (1500).__lt__))
    assert min(p["held_out_loss"] for p in before) > 7  # of 8.3 for who knows nothing
    assert max(p["held_out_loss"] for p in after[3:]) < 5


def test_their_patterns_are_what_the_heads_of_that_step_do(client: TestClient, tiny_run: Path) -> None:
    found = client.get("/api/v1/models/tiny-run/checkpoints").json()["checkpoints"]
    for place, step in ((0, 0), (4, 8)):
        network = load_step(tiny_run, step, device=CPU, dtype=SERVED)
        for pattern, scores_LH in zip(PROBE_PATTERNS, probe_scores(network), strict=True):
            assert np.allclose(found[place]["patterns"][pattern], scores_LH, atol=ROUNDING / 10)


@pytest.mark.parametrize("step", [0, 8, 12, None])
def test_a_step_answers_with_the_numbers_it_had(client: TestClient, tiny_run: Path, step: int | None) -> None:
    end, tokenizer = load(tiny_run, device=CPU, dtype=SERVED)
    network = load_step(tiny_run, step, device=CPU, dtype=SERVED) if step in (0, 8) else end
    reply = post(client, "attention", step=step, layers=[1], heads=[0, 1])
    weights = read(network, tokenizer.encode(TEXT).ids).stage("weights", 1, [0, 1])
    assert torch.allclose(torch.tensor(reply["values"][0]), weights, atol=ROUNDING)
    assert reply["step"] == (step if step in (0, 8) else None)  # the end needs no number


@pytest.mark.parametrize("path", ["tokens", "attention", "norms", "predictions"])
def test_every_request_takes_a_step_and_every_reply_names_it(client: TestClient, path: str) -> None:
    assert post(client, path, step=4)["step"] == 4
    assert post(client, path)["step"] is None


@pytest.mark.parametrize(("step", "words"), [(3, "Saved steps: 0, 1, 2, 4, 8"), (10**12, "no parameters of step")])
def test_a_step_that_was_not_kept_is_refused_with_those_that_were(client: TestClient, step: int, words: str) -> None:
    reply = client.post("/api/v1/tokens", json={"text": TEXT, "step": step})
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/no-such-step"
    assert words in reply.json()["detail"]


def test_a_model_without_its_training_has_one_step_that_has_no_number(tiny_llama: Path, tmp_path: Path) -> None:
    for client in serve(Settings(model=str(tiny_llama), cache=tmp_path)):
        reply = client.get("/api/v1/models/tiny-llama/checkpoints").json()
        assert [one["step"] for one in reply["checkpoints"]] == [None]
        assert reply["curve"] == []
        refused = client.post("/api/v1/tokens", json={"text": TEXT, "step": 0})
        assert "came without training steps; leave the step out" in refused.json()["detail"]


def test_checkpoints_of_an_unknown_model_are_refused(client: TestClient) -> None:
    assert client.get("/api/v1/models/gpt5/checkpoints").status_code == 404


def test_few_steps_are_in_memory_and_the_others_are_read_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MAX_STEPS", 2)
    first = post(client, "predictions", step=1)
    for step in (2, 4, 8):
        post(client, "predictions", step=step)
    entry = client.app.state.engine.models.entries["tiny-run"]  # type: ignore[attr-defined]
    assert list(entry.steps) == [4, 8]
    assert post(client, "predictions", step=1)["predictions"] == first["predictions"]


def test_a_live_socket_gets_another_step_as_another_model(client: TestClient) -> None:
    """Nothing of one step's picture may stay in another's, though the tokens are the same."""
    with client.websocket_connect("/api/v2/live") as socket:
        for seq, step in enumerate((0, 8, None)):
            socket.send_json({"seq": seq, "text": TEXT, "step": step})
            frame = socket.receive_bytes()
            assert b'"n_shared":0' in frame
            title = "tiny-run" if step is None else f"tiny-run at step {step}"
            assert title.encode() in frame
