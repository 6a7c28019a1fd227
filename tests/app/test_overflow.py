"""A forward pass that overflows is an error that names the place, in every kind of reply; it is never a `null`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from app import views
from app.live import frame
from app.settings import Settings
from model.reading import read, read_batch
from model.trace import NonFiniteNumber, Trace
from model.weights.folder import load
from tests.checkpoints import write_llama
from tests.conftest import CPU, FLOAT, serve

TEXT = "the fat cat sat"
# The tensor that is made too large, and the first place where numbers are then no longer finite.
PLACES = {
    "model.layers.1.mlp.down_proj.weight": "layers.2.norm_1",
    "model.layers.1.self_attn.k_proj.weight": "layers.1.attention.key",
    "model.layers.2.mlp.down_proj.weight": "norm_final",
    "model.layers.2.self_attn.o_proj.weight": "layers.2.norm_2",
    "model.norm.weight": "norm_final",
}


def overflowing(folder: Path, name: str, factor: float = 3e38) -> Path:
    """A tiny Llama with finite parameters, one tensor of which is so large that every forward pass overflows."""
    write_llama(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name].sign() * factor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = overflowing(tmp_path_factory.mktemp("overflow") / "huge", "model.layers.1.mlp.down_proj.weight")
    yield from serve(Settings(model=str(folder), weights_dir=tmp_path_factory.mktemp("cache"), dtype="float32"))


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_the_error_names_the_first_place_that_overflowed(tmp_path: Path, name: str, place: str) -> None:
    network, _ = load(overflowing(tmp_path / "huge", name), device=CPU, dtype=FLOAT)
    trace = read(network, [5, 9, 200])
    for compute in (
        trace.check_finite,
        lambda: trace.norms_STK,
        lambda: trace.logits([2]),
        lambda: trace.stage("weights", 0, [0]),
    ):
        with pytest.raises(NonFiniteNumber) as error:
            compute()
        assert error.value.place == place


def test_a_pass_without_overflow_has_no_non_finite_place(tiny_llama: Path) -> None:
    trace = read(load(tiny_llama, device=CPU, dtype=FLOAT)[0], [5, 9, 200])
    assert [chunk.non_finite for chunk in trace.chunks] == [None]


def with_key(trace: Trace, number: float) -> Trace:
    """The same trace with one number of a key of layer 1 replaced."""
    keys_LGTD = trace.chunks[0].keys_LGTD.clone()
    keys_LGTD[1, 0, 1, 0] = number
    return replace(trace, chunks=(replace(trace.chunks[0], keys_LGTD=keys_LGTD),))


@pytest.mark.parametrize("number", [3e38, -3e38])
def test_scores_that_overflow_although_queries_and_keys_do_not_are_refused(tiny_llama: Path, number: float) -> None:
    """A score of -inf would become a weight of 0, which looks right, and a `null` where the mask is true."""
    trace = read(load(tiny_llama, device=CPU, dtype=FLOAT)[0], [5, 9, 200])
    queries_LHTD = trace.chunks[0].queries_LHTD * 100
    overflowing_trace = with_key(replace(trace, chunks=(replace(trace.chunks[0], queries_LHTD=queries_LHTD),)), number)
    overflowing_trace.check_finite()
    with pytest.raises(NonFiniteNumber, match=r"layers\.1\.attention\.scores"):
        overflowing_trace.stage("masked", 1, [0])
    assert overflowing_trace.stage("weights", 0, [0]).isfinite().all()


def test_thumbnails_of_scores_that_overflow_are_refused(tiny_llama: Path) -> None:
    trace = read(load(tiny_llama, device=CPU, dtype=FLOAT)[0], [5, 9, 200])
    overflowing_trace = replace(trace.chunks[0], queries_LHTD=trace.chunks[0].queries_LHTD.sign() * 100)
    with pytest.raises(NonFiniteNumber, match=r"layers\.1\.attention\.scores"):
        views.thumbnails(with_key(replace(trace, chunks=(overflowing_trace,)), 3e38), range(3))


def test_a_text_that_overflows_does_not_change_the_other_texts_of_its_batch(tiny_llama: Path) -> None:
    network, _ = load(tiny_llama, device=CPU, dtype=FLOAT)
    with torch.no_grad():
        network.embed.weight[7] = 3e38  # the squares of this token overflow in the first norm
    alone = read(network, [5, 9])
    finite, overflowed = read_batch(network, [(Trace(network, ()), [5, 9]), (Trace(network, ()), [5, 7])])
    torch.testing.assert_close(finite.norms_STK, alone.norms_STK)
    with pytest.raises(NonFiniteNumber, match=r"layers\.0\.norm_1"):
        overflowed.check_finite()


@pytest.mark.parametrize("path", ["v1/attention", "v1/norms", "v1/predictions", "v2/view"])
def test_every_call_gets_an_error_with_the_model_the_place_and_what_to_do(client: TestClient, path: str) -> None:
    reply = client.post(f"/api/{path}", json={"text": TEXT})
    assert reply.status_code == 422
    problem = reply.json()
    assert problem["type"] == "/problems/non-finite-numbers"
    assert problem["detail"].startswith("huge overflows on this text: at layers.2.norm_1 some of its numbers are")
    assert "Try another text" in problem["detail"]
    assert client.get(problem["type"]).status_code == 200


@pytest.mark.parametrize("path", ["/", "/training"])
def test_a_page_shows_the_error_and_keeps_the_text(client: TestClient, path: str) -> None:
    page = client.get(path, params={"text": TEXT, "model": "huge"})
    assert page.status_code == 422
    assert "at layers.2.norm_1 some of its numbers are infinite" in page.text
    assert TEXT in page.text


def test_the_live_channel_sends_the_error_and_stays_open(client: TestClient) -> None:
    with client.websocket_connect("/api/v2/live") as socket:
        for seq in (1, 2):
            socket.send_json({"seq": seq, "text": TEXT})
            header, _ = frame.decode(socket.receive_bytes())
            assert header["seq"] == seq
            assert header["problem"]["status"] == 422


def test_patterns_of_a_model_that_overflows_are_refused_with_the_same_error(client: TestClient) -> None:
    reply = client.get("/api/v2/models/huge/checkpoints")
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/non-finite-numbers"


def test_values_are_null_exactly_where_the_mask_is_false(tiny_llama: Path, tmp_path: Path) -> None:
    for client in serve(Settings(model=str(tiny_llama), weights_dir=tmp_path)):
        reply = client.post("/api/v1/attention", json={"text": TEXT, "stage": "masked"}).json()
    for layer in reply["values"]:
        for head in layer:
            assert [[value is not None for value in row] for row in head] == reply["mask"]
