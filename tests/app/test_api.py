"""The JSON API on a tiny random Llama: 3 layers, 4 heads, 64 tokens of context, at most 20,000 numbers per reply."""

import asyncio
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message

from app import schemas
from app.errors import ClientDisconnected
from app.live import frame
from app.service import Client
from model.gpt import GPT
from model.reading import read
from model.sites import STAGES
from model.tokenizer import Tokenizer
from model.weights.folder import load
from tests.conftest import APP_DTYPE, CPU, ROUNDING

TEXT = "the fat cat sat"


def address(call: str) -> str:
    """The address of a call; the one that returns frames has its own version."""
    return f"/api/v{frame.FRAME_VERSION if call == 'view' else 1}/{call}"


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> tuple[GPT, Tokenizer]:
    return load(tiny_llama, device=CPU, dtype=APP_DTYPE)


def post(client: TestClient, call: str, **body: Any) -> Any:
    reply = client.post(address(call), json={"text": TEXT, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_models_are_the_catalogue_with_the_default_first(client: TestClient) -> None:
    models = schemas.ModelsReply.model_validate(client.get("/api/v1/models").json()).models
    assert [model.name for model in models] == [
        "tiny-llama",
        "smollm2-135m",
        "lookback-gpt",
        "gpt2",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
    ]
    tiny, smollm2, shipped, gpt2 = models[:4]
    assert (tiny.state, tiny.default, tiny.device, tiny.dtype) == (
        "ready",
        True,
        "cpu",
        str(APP_DTYPE).removeprefix("torch."),
    )
    assert (shipped.state, shipped.default, shipped.source) == ("ready", False, "comes with Lookback")
    assert (tiny.n_layers, tiny.n_heads, tiny.n_kv_heads, tiny.d_head, tiny.n_context) == (3, 4, 2, 8, 64)
    assert (smollm2.n_parameters, smollm2.n_context, smollm2.norm) == (134_515_008, 8192, "rmsnorm")
    assert (smollm2.max_tokens, smollm2.max_tokens_from) == (2048, "LOOKBACK_MAX_TOKENS")
    assert (tiny.max_tokens, tiny.max_tokens_from) == (64, "n_context")
    assert (gpt2.n_parameters, gpt2.n_vocab, gpt2.positions, gpt2.tied) == (124_439_808, 50_257, "learned", True)


def test_tokens_have_ids_bytes_and_character_ranges(client: TestClient, tiny: tuple[GPT, Tokenizer]) -> None:
    reply = post(client, "tokens", text="a 👍")
    schemas.TokensReply.model_validate(reply)
    assert [token["id"] for token in reply["tokens"]] == list(tiny[1].encode("a 👍").ids)
    assert "".join(token["bytes"] for token in reply["tokens"]) == "a 👍".encode().hex()
    token_a = {"position": 0, "id": tiny[1].encode("a").ids[0], "text": "a", "bytes": "61", "start": 0, "end": 1}
    assert reply["tokens"][0] == token_a
    assert {(token["start"], token["end"]) for token in reply["tokens"][2:]} == {(2, 3)}


@pytest.mark.parametrize("stage", STAGES)
def test_attention_returns_the_numbers_of_the_trace_for_every_head(
    client: TestClient, tiny: tuple[GPT, Tokenizer], stage: Any
) -> None:
    reply = post(client, "attention", stage=stage)
    schemas.AttentionReply.model_validate(reply)
    trace = read(tiny[0], tiny[1].encode(TEXT).ids)
    assert (reply["stage"], reply["layers"], reply["heads"]) == (stage, [0, 1, 2], [0, 1, 2, 3])
    for layer in range(3):
        expected_HTT = trace.stage(stage, layer, range(4)).tolist()
        values_HTT = [[[-math.inf if v is None else v for v in row] for row in head] for head in reply["values"][layer]]
        np.testing.assert_allclose(
            np.array(values_HTT), np.array(expected_HTT), atol=ROUNDING
        )  # a prefix may be cached


def test_a_masked_score_is_null_where_the_mask_is_false(client: TestClient) -> None:
    reply = post(client, "attention", stage="masked", layers=[1], heads=[2])
    for mask, row in zip(reply["mask"], reply["values"][0][0], strict=True):
        assert mask == [value is not None for value in row]
    assert [sum(row) for row in reply["mask"]] == list(range(1, len(reply["tokens"]) + 1))


def test_layers_and_heads_come_in_the_requested_order(client: TestClient) -> None:
    every, chosen = post(client, "attention"), post(client, "attention", layers=[2, 0], heads=[3, 1])
    assert (chosen["layers"], chosen["heads"]) == ([2, 0], [3, 1])
    assert chosen["values"] == [[every["values"][layer][head] for head in (3, 1)] for layer in (2, 0)]


def test_npz_contains_the_same_arrays_as_json(client: TestClient) -> None:
    reply = client.post("/api/v1/attention?format=npz", json={"text": TEXT, "stage": "masked", "layers": [1, 2]})
    assert reply.headers["content-type"] == "application/zip"
    archive, json = np.load(io.BytesIO(reply.content)), post(client, "attention", stage="masked", layers=[1, 2])
    of_the_text = {"ids", "tokens", "model", "step", "edits"}
    assert set(archive) == {"values", "mask", "layers", "heads", "stage"} | of_the_text
    assert archive["values"].dtype == np.float32
    assert archive["values"].shape == (2, 4, len(json["tokens"]), len(json["tokens"]))
    expected = [[[[-np.inf if v is None else v for v in row] for row in h] for h in heads] for heads in json["values"]]
    np.testing.assert_array_equal(archive["values"], np.array(expected, dtype=np.float32))
    assert archive["mask"].tolist() == json["mask"]
    assert archive["ids"].tolist() == [token["id"] for token in json["tokens"]]
    assert (archive["layers"].tolist(), archive["heads"].tolist()) == ([1, 2], [0, 1, 2, 3])


def test_norms_cover_every_site_and_every_token(client: TestClient, tiny: tuple[GPT, Tokenizer]) -> None:
    reply = schemas.NormsReply.model_validate(post(client, "norms"))
    assert [norm.site for norm in reply.norms[:3]] == ["layers.0.norm_1", "layers.0.norm_2", "layers.1.norm_1"]
    assert (len(reply.norms), reply.norms[-1].site, reply.norms[-1].layer) == (7, "norm_final", None)
    embedded_TM = tiny[0].embed.weight[list(tiny[1].encode(TEXT).ids)].float()
    first = reply.norms[0]
    np.testing.assert_allclose(first.mean, embedded_TM.mean(-1), atol=1e-6)
    np.testing.assert_allclose(first.variance, embedded_TM.var(-1, correction=0), atol=1e-6)
    np.testing.assert_allclose(first.rms, embedded_TM.square().mean(-1).sqrt(), atol=1e-6)
    np.testing.assert_allclose(np.array(first.rms) ** 2, np.array(first.mean) ** 2 + first.variance, rtol=1e-5)


def test_predictions_are_over_the_whole_vocabulary(client: TestClient, tiny: tuple[GPT, Tokenizer]) -> None:
    reply = schemas.PredictionsReply.model_validate(post(client, "predictions", positions="all", top=100))
    ids = tiny[1].encode(TEXT).ids
    logits_TV = read(tiny[0], ids).logits(range(len(ids))).double()
    p_TV = logits_TV.softmax(-1)
    assert [prediction.position for prediction in reply.predictions] == list(range(len(ids)))
    for t, prediction in enumerate(reply.predictions):
        assert [token.id for token in prediction.top] == logits_TV[t].topk(100).indices.tolist()
        np.testing.assert_allclose([token.probability for token in prediction.top], p_TV[t].topk(100).values, rtol=1e-4)
        assert prediction.entropy_bits == pytest.approx(float(-(p_TV[t] * p_TV[t].log2()).sum()), rel=1e-4)
        if t + 1 < len(ids):
            assert prediction.surprisal_bits == pytest.approx(float(-p_TV[t, ids[t + 1]].log2()), rel=1e-4)
    assert reply.predictions[-1].surprisal_bits is None


def test_the_last_prediction_is_the_last_of_all_predictions(client: TestClient) -> None:
    last, every = post(client, "predictions"), post(client, "predictions", positions="all")
    assert_same_prediction(last["predictions"][0], every["predictions"][-1])
    assert len(last["predictions"][0]["top"]) == 10


def assert_same_prediction(prediction: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to within rounding: a matrix product may round differently for one row and for many."""
    top, expected_top = prediction["top"], expected["top"]
    assert [token["id"] for token in top] == [token["id"] for token in expected_top]
    for key in ("logit", "probability"):
        assert [token[key] for token in top] == pytest.approx([token[key] for token in expected_top], rel=1e-5)
    assert prediction["entropy_bits"] == pytest.approx(expected["entropy_bits"], rel=1e-5)


def test_a_view_contains_the_numbers_of_the_single_calls(client: TestClient) -> None:
    request = {"text": TEXT, "layer": 2, "head": 1, "query": 1, "stage": "masked"}
    reply = client.post("/api/v2/view", json=request)
    assert reply.headers["content-type"] == frame.FRAME_MEDIA_TYPE
    header, arrays = frame.decode(reply.content)
    for stage in ("scores", "scaled", "weights"):
        expected = post(client, "attention", stage=stage, layers=[2], heads=[1])["values"][0][0]
        np.testing.assert_array_equal(arrays[stage], np.array(expected, dtype=np.float32))
    norms = post(client, "norms")["norms"]
    for name in ("mean", "variance", "rms"):
        np.testing.assert_array_equal(arrays[name].T, np.array([norm[name] for norm in norms], dtype=np.float32))
    assert header["tokens"] == post(client, "tokens")["tokens"]
    assert_same_prediction(header["prediction"], post(client, "predictions", positions="all")["predictions"][1])
    weights = np.array(post(client, "attention")["values"])
    assert np.abs(arrays["grid"] / 255 - weights).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_allclose(arrays["to_first_token"], weights[..., 0].mean(1), atol=1e-6)


def test_a_view_without_the_overview_contains_only_the_chosen_head(client: TestClient) -> None:
    _, arrays = frame.decode(client.post("/api/v2/view", json={"text": TEXT, "overview": False}).content)
    assert set(arrays) == {f"{prefix}{stage}" for prefix in ("", "row_") for stage in ("scores", "scaled", "weights")}


def test_special_tokens_are_read_as_such_only_on_request(client: TestClient) -> None:
    plain, special = (post(client, "tokens", text="<|endoftext|>", special_tokens=flag) for flag in (False, True))
    assert len(plain["tokens"]) > 1
    assert [token["id"] for token in special["tokens"]] == [0]


def test_timings_are_the_time_in_the_queue_and_of_the_computation(client: TestClient) -> None:
    timings = schemas.Timings.model_validate(post(client, "norms")["timings"])
    assert 0 < timings.computed_ms < 60_000
    assert timings.queued_ms >= 0


def problem(client: TestClient, status: int, call: str = "attention", **body: Any) -> str:
    reply = client.post(address(call), json={"text": TEXT, **body})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    parsed = schemas.Problem.model_validate(reply.json())
    assert parsed.status == status
    assert parsed.type.startswith("/problems/")
    return parsed.detail


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": ""}, 422, "The text is empty. Type a word."),
        ({"text": "cat " * 100}, 422, "tokens; tiny-llama reads 64. Remove "),
        ({"stage": "dropped"}, 422, "stage: Input should be 'scores', 'scaled', 'masked' or 'weights'"),
        ({"layers": [0, 3]}, 422, "There is no layer 3; tiny-llama has 3 of them, counted from 0. Choose 0 to 2."),
        ({"heads": [4]}, 422, "There is no head 4; tiny-llama has 4"),
        ({"heads": [-1]}, 422, "heads.0: Input should be greater than or equal to 0"),
        ({"heads": []}, 422, "at least 1 item"),
        ({"layers": [0] * 257}, 422, "at most 256 items"),
        ({"text": "a\0b"}, 422, "character 1 of this text is a NUL"),
        ({"text": None}, 422, "text: Input should be a valid string"),
        ({"text": 5}, 422, "text: Input should be a valid string"),
        ({"txet": "typo"}, 422, "txet: there is no such field (/docs lists the fields"),
        ({"model": "gpt5"}, 404, "There is no model 'gpt5'. Models: tiny-llama, smollm2-135m"),
        ({"model": "x" * 10_000}, 404, "There is no model"),
        ({"text": "cat " * 42}, 413, "numbers; the limit is 20,000. Request fewer layers or heads, or"),
    ],
)  # fmt: skip
def test_invalid_input_gets_an_error_with_the_value_the_limit_and_a_way_out(
    client: TestClient, body: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem(client, status, **body)
    post(client, "attention")  # and the next request works


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\\ud800"}',
        b'{"text": "a\\udfffb"}',
        b'{"\\ud800": 1, "text": "x"}',
        b'{"text": "x", "model": "\\ud800"}',
        b'{"text": NaN}',
        b'{"text": "x", "layers": [1e999]}',
        b'{"text": "x", "layers": [1' + b"0" * 5000 + b"]}",
        b'{"text": "\xff"}',
        b"",
        b"null",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"text": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b"\x00\x01\x02",
    ],
)
def test_an_invalid_body_is_refused_and_the_next_request_works(client: TestClient, body: bytes) -> None:
    for call in ("tokens", "attention", "norms", "predictions", "view"):
        reply = client.post(address(call), content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in (400, 422) or (reply.status_code == 404 and b"model" in body), reply.text
        assert reply.headers["content-type"] == "application/problem+json"
    post(client, "tokens")


@pytest.mark.parametrize("body", [b"{", b'{"text": "a",}', b"[", b"tea"])
def test_malformed_json_is_400_and_the_message_says_where(client: TestClient, body: bytes) -> None:
    reply = client.post("/api/v1/tokens", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert re.match(r"This is not JSON: .*, at character \d+\.$", reply.json()["detail"])


@pytest.mark.parametrize("body", [b'{"text": "\xff"}', b"[" * 100_000, b'{"text": ' + b"9" * 5_000 + b"}"])
def test_unparsable_json_is_400_and_the_message_lists_the_possible_reasons(client: TestClient, body: bytes) -> None:
    reply = client.post("/api/v1/tokens", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert "not UTF-8, is nested too deeply, or has a number with too many digits" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "no Content-Type"),
        ({"Content-Type": "text/plain"}, "the Content-Type text/plain"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "the Content-Type application/x-www-form-urlencoded"),
    ],
)
def test_json_without_its_content_type_is_415_and_the_message_names_the_header(
    client: TestClient, headers: dict[str, str], words: str
) -> None:
    reply = client.post("/api/v1/tokens", content=b'{"text": "cat"}', headers=headers)
    assert reply.status_code == 415
    assert reply.json()["detail"] == f"The request has {words}. Send the header Content-Type: application/json."


def test_at_most_ten_errors_are_created_for_a_request(client: TestClient) -> None:
    """Created, not only reported: an error for each of 90,000 fields kept the event loop busy for seconds."""
    bodies: list[dict[str, Any]] = [
        {"text": "a", **{f"{i:x}": 1 for i in range(90_000)}},
        {"text": "a", "layers": ["x"] * 200_000},
        {"text": 1, "model": 1, "step": "x", "special_tokens": "x", "top": 0, **{str(i): 1 for i in range(10)}},
    ]
    kinds: tuple[type[schemas.TokensRequest], ...] = (
        schemas.TokensRequest,
        schemas.AttentionRequest,
        schemas.PredictionsRequest,
    )
    for body, kind in zip(bodies, kinds, strict=True):
        with pytest.raises(ValidationError) as caught:
            kind.model_validate(body)
        assert caught.value.error_count() <= 15
        call = kind.__name__.removesuffix("Request").lower()
        reply = client.post(address(call), json=body)
        assert reply.status_code == 422
        assert 1 <= len(reply.json()["detail"].split("; ")) <= 10
        assert len(reply.content) < 2_000
    assert "90,000 fields are unknown; the known ones are text, ids, model" in problem(
        client, 422, "tokens", **bodies[0]
    )


def test_a_body_over_a_mebibyte_is_refused_whole_or_in_chunks(client: TestClient) -> None:
    def chunks() -> Any:
        yield b'{"text": "'
        for _ in range(40):
            yield b"a" * 65_536

    for body in (b'{"text": "' + b"a" * 1_048_576 + b'"}', chunks()):
        reply = client.post("/api/v1/tokens", content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code == 413
        assert "over 1,048,576 bytes" in reply.json()["detail"]
    post(client, "tokens")


def test_a_text_of_almost_a_mebibyte_is_refused(client: TestClient) -> None:
    for text in (" " * 1_000_000, "a" * 1_000_000, "é" * 170_000):
        assert problem(client, 422, "tokens", text=text)


@pytest.mark.parametrize("call", ["", "nothing", "attention/x"])
def test_an_unknown_address_gets_a_problem_too(client: TestClient, call: str) -> None:
    reply = client.post(address(call), json={})
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")


def test_a_wrong_method_gets_the_allowed_ones(client: TestClient) -> None:
    reply = client.get("/api/v1/attention")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.headers["content-type"] == "application/problem+json"


def test_a_query_after_the_end_of_the_text_is_refused(client: TestClient) -> None:
    n = len(post(client, "tokens")["tokens"])
    assert f"There is no position 60; the text has {n} tokens" in problem(client, 422, "view", query=60)


@given(text=st.text(max_size=60), call=st.sampled_from(["tokens", "attention", "norms", "predictions", "view"]))
@settings(max_examples=80, deadline=None)
def test_no_text_makes_the_server_fail(client: TestClient, text: str, call: str) -> None:
    reply = client.post(address(call), json={"text": text})
    assert reply.status_code in (200, 413, 422)
    if reply.status_code == 200 and call == "attention":
        values = np.array(reply.json()["values"])
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
        assert (np.triu(values, 1) == 0).all()


def test_openapi_describes_every_call(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    for call in ("models", "tokens", "attention", "norms", "predictions", "view"):
        (operation,) = description["paths"][address(call)].values()
        assert operation["summary"]
        assert operation["description"]
        assert {"404", "413", "422", "503"} <= set(operation["responses"])


def test_work_is_cancelled_when_the_client_disconnects() -> None:
    async def test() -> None:
        disconnected, cancelled = asyncio.Event(), asyncio.Event()

        async def receive() -> Message:
            await disconnected.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        client = Client(Request({"type": "http"}, receive))
        waiting = asyncio.ensure_future(client.cancel_on_disconnect(work()))
        await asyncio.sleep(0.01)
        disconnected.set()
        with pytest.raises(ClientDisconnected):
            await waiting
        await asyncio.wait_for(cancelled.wait(), 1)

    asyncio.run(test())


def test_the_result_is_returned_while_the_client_stays_connected() -> None:
    async def test() -> None:
        async def receive() -> Message:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def work() -> int:
            return 7

        assert await Client(Request({"type": "http"}, receive)).cancel_on_disconnect(work()) == 7

    asyncio.run(test())
