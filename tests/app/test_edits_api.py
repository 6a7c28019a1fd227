"""Requests with ids and with edits, and the calls for activations and logits, on a tiny random Llama."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app import schemas
from app.edits import describe, parse_edits
from app.live import frame
from app.models import LoadedModel
from app.settings import Settings
from model.edit_text import SYNTAX
from model.edits import Change, Drop, Edit, NoMask, Temperature
from model.gpt import GPT, Block
from model.reading import read
from model.sites import STAGES
from model.tokenizer import Tokenizer
from model.trace import Trace
from model.weights.folder import load
from tests.app.test_live import assert_shows, channel, screen_over_http
from tests.conftest import APP_DTYPE, CPU, ROUNDING, serve

TEXT = "the fat cat sat"
GOLDEN = [0.5 * math.sin(i) for i in range(32)]
DIRECTIONS = {"golden": GOLDEN}
CALLS = ("tokens", "attention", "norms", "predictions", "view", "activations", "logits")
EDITS = [
    "scale:1.2:0",
    "scale:0.*:0.5",
    "cut:2.1:2>1",
    "steer:1:golden:4",
    "steer:0:token-50:-2",
    "temperature:*.*:0.5",
    "nomask:0.1",
    "drop:weights:0.2:7,drop:mlp:0.1:3",
    "cut:1.0:3>0,scale:1.0:2,nomask:2.*,temperature:2.3:3",
]


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> LoadedModel:
    return LoadedModel("tiny-llama", *load(tiny_llama, device=CPU, dtype=APP_DTYPE), max_tokens=64)


def send(client: TestClient, call: str, parameters: str = "", **body: Any) -> Any:
    address = f"/api/v{frame.FRAME_VERSION if call == 'view' else 1}/{call}{parameters}"
    fields = {} if "ids" in body else {"text": TEXT}
    required = {"site": "block"} if call == "activations" else {}
    return client.post(address, json={**fields, **required, **body})


def post(client: TestClient, call: str, **body: Any) -> Any:
    reply = send(client, call, **body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def archive(client: TestClient, call: str, **body: Any) -> dict[str, NDArray[Any]]:
    reply = send(client, call, "?format=npz", **body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-disposition"] == f'attachment; filename="{call}.npz"'
    return dict(np.load(io.BytesIO(reply.content)))


def problem(client: TestClient, call: str, status: int = 422, **body: Any) -> str:
    reply = send(client, call, **body)
    assert reply.status_code == status, reply.text
    return schemas.Problem.model_validate(reply.json()).detail


def edited(model: LoadedModel, edits: str, text: str = TEXT) -> Trace:
    """The trace of a text under edits, read by the model alone."""
    ids = model.tokenizer.encode(text).ids
    return read(model.network, ids, parse_edits(edits, DIRECTIONS, model, len(ids)))


def with_infinity(values: Any) -> NDArray[np.float32]:
    """JSON's values with −∞ for each null."""
    return np.array([-np.inf if value is None else value for value in np.array(values, dtype=object).flat], np.float32)


def without_timings(reply: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in reply.items() if name != "timings"}


# --- ids -------------------------------------------------------------------------------------------------------------


def test_two_ids_are_two_tokens(client: TestClient) -> None:
    reply = post(client, "tokens", ids=[295, 85])
    assert [token["id"] for token in reply["tokens"]] == [295, 85]
    assert "".join(token["bytes"] for token in reply["tokens"]) == reply["text"].encode().hex()


@given(text=st.text("the fat cat 猫é\n", min_size=1, max_size=30), call=st.sampled_from(CALLS[:-1]))
@settings(max_examples=40, deadline=None)
def test_the_ids_of_a_text_get_the_reply_of_the_text(
    client: TestClient, tiny: LoadedModel, text: str, call: str
) -> None:
    ids = tiny.tokenizer.encode(text).ids
    by_text, by_ids = (send(client, call, **body) for body in ({"text": text}, {"ids": ids}))
    if by_text.status_code == 413:
        return
    if call == "view":
        (header, arrays), (expected_header, expected_arrays) = (frame.decode(r.content) for r in (by_ids, by_text))
        for name, array in arrays.items():
            np.testing.assert_allclose(array, expected_arrays[name], atol=1e-5)
        assert (header["tokens"], header["text"]) == (expected_header["tokens"], text)
    else:
        schemas.TokensReply.model_validate({k: by_ids.json()[k] for k in schemas.TokensReply.model_fields})
        assert by_ids.json()["tokens"] == by_text.json()["tokens"]
        assert (by_ids.json()["text"], by_text.json()["text"]) == (text, None)


def test_ids_that_spell_no_whole_character_are_read_and_shown_as_u_fffd(client: TestClient, tiny: LoadedModel) -> None:
    cat, e_acute = tiny.tokenizer.encode("a").ids, tiny.tokenizer.encode("👍").ids
    reply = post(client, "predictions", ids=[*cat, *e_acute[:2], *cat])
    assert reply["text"] == "a\ufffda"
    assert [(token["start"], token["end"]) for token in reply["tokens"]] == [(0, 1), (1, 2), (1, 2), (2, 3)]


@given(st.lists(st.integers(0, 450), min_size=1, max_size=70))
@settings(max_examples=60, deadline=None)
def test_any_ids_are_read_or_refused_in_words_and_their_offsets_fit_the_text(
    client: TestClient, ids: list[int]
) -> None:
    reply = send(client, "norms", ids=ids)
    assert reply.status_code in (200, 422), reply.text
    if reply.status_code == 200:
        text, end = reply.json()["text"], 0
        raw = b"".join(bytes.fromhex(token["bytes"]) for token in reply.json()["tokens"])
        assert text == raw.decode(errors="replace")
        for token in reply.json()["tokens"]:
            characters = text[token["start"] : token["end"]]
            assert "\ufffd" in characters or bytes.fromhex(token["bytes"]) in characters.encode()
            assert end - 1 <= token["start"] <= end <= token["end"] <= len(text)
            end = token["end"]
        assert end == len(text)
    else:
        assert "no token" in reply.json()["detail"] or "tokens; tiny-llama reads 64" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ids": [1, 400]}, "There is no token 400; the ids of tiny-llama are 0 to 399."),
        ({"ids": [-1]}, "ids.0: Input should be greater than or equal to 0"),
        ({"ids": []}, "at least 1 item"),
        ({"ids": [1] * 65}, "This text has 65 tokens; tiny-llama reads 64. Remove 1 tokens"),
        ({"ids": [1], "text": "a"}, "`text` and `ids` are two ways to give a text; leave one of them out"),
    ],
)
def test_ids_that_cannot_be_read_are_refused_with_the_limits(
    client: TestClient, body: dict[str, Any], words: str
) -> None:
    for call in CALLS:
        assert words in problem(client, call, **body)


def test_a_request_needs_a_text_or_ids(client: TestClient) -> None:
    reply = client.post("/api/v1/tokens", json={"model": "tiny-llama"})
    assert (reply.status_code, reply.json()["detail"]) == (422, "there is no text: this request needs `text` or `ids`.")


def test_an_id_of_the_embedding_without_a_token_is_refused_by_name(tiny: LoadedModel) -> None:
    tokenizer = Tokenizer(vocab={b"a": 0, b"b": 2}, merges=[], special={}, pattern=".")
    model = LoadedModel("gaps", tiny.network, tokenizer, max_tokens=64)
    assert model.tokens_of_ids([2, 0])[0] == "ba"
    with pytest.raises(Exception, match="gaps has a row 1 in its embedding, but its vocabulary has no token for it"):
        model.tokens_of_ids([2, 1])


# --- edits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", EDITS)
def test_every_reply_under_edits_is_that_of_the_edited_model(client: TestClient, tiny: LoadedModel, edits: str) -> None:
    trace, body = edited(tiny, edits), {"edits": edits, "directions": DIRECTIONS}
    for stage in STAGES:
        reply = post(client, "attention", stage=stage, **body)
        expected = np.stack([trace.stage(stage, layer, range(4)).numpy() for layer in range(3)])
        np.testing.assert_allclose(with_infinity(reply["values"]), expected.ravel(), atol=ROUNDING, rtol=ROUNDING)
        assert reply["edits"] == str(trace.edits)
    rms = [norm["rms"] for norm in post(client, "norms", **body)["norms"]]
    np.testing.assert_allclose(rms, trace.norms_STK[..., 2].numpy(), rtol=ROUNDING)
    for prediction in post(client, "predictions", positions="all", **body)["predictions"]:
        logits_V = trace.logits([prediction["position"]])[0]
        assert prediction["top"][0]["logit"] == pytest.approx(float(logits_V.max()), abs=10 * ROUNDING)


@pytest.mark.parametrize("edits", EDITS)
def test_a_view_under_edits_holds_the_numbers_of_the_single_calls(client: TestClient, edits: str) -> None:
    body: dict[str, Any] = {"edits": edits, "directions": DIRECTIONS}
    for layer, head in ((0, 1), (2, 1)):
        reply = send(client, "view", layer=layer, head=head, query=1, stage="masked", **body)
        header, arrays = frame.decode(reply.content)
        meta = header["figure"]["data"][0]["meta"]
        for stage in STAGES:
            expected = with_infinity(
                post(client, "attention", stage=stage, layers=[layer], heads=[head], **body)["values"]
            )
            n = header["n_tokens"]
            if stage in arrays:
                np.testing.assert_allclose(arrays[stage].ravel(), expected, atol=1e-5)
                np.testing.assert_allclose(arrays[f"row_{stage}"], expected.reshape(n, n)[1], atol=1e-5)
            else:
                assert (stage, meta["z"], meta["masked_from"]) == ("masked", "scaled", 0)
                shown = np.where(np.tri(n, dtype=bool), arrays["scaled"], -np.inf)
                np.testing.assert_allclose(shown.ravel(), expected, atol=1e-5)
        weights = np.array(post(client, "attention", **body)["values"])
        assert np.abs(arrays["grid"] / 255 - weights.clip(0, 1)).max() <= 0.5 / 255 + 1e-6
        np.testing.assert_allclose(arrays["to_first_token"], weights[..., 0].mean(1), atol=1e-6)
        assert header["edits"] == post(client, "tokens", **body)["edits"]


def test_a_head_without_a_mask_has_no_hatch(client: TestClient) -> None:
    figures = [
        frame.decode(send(client, "view", layer=0, head=head, stage="weights", edits="nomask:0.1").content)[0]["figure"]
        for head in (0, 1)
    ]
    assert [bool(figure["layout"]["shapes"]) for figure in figures] == [True, False]
    assert [figure["data"][0]["meta"]["masked_from"] for figure in figures] == [0, None]


@pytest.mark.parametrize("call", [call for call in CALLS if call != "view"])
def test_empty_edits_are_the_same_as_none(client: TestClient, call: str) -> None:
    body = {"token_ids": [5]} if call == "logits" else {"layers": [1]} if call in ("attention", "activations") else {}
    plain = without_timings(post(client, call, **body))
    assert plain["edits"] == ""
    for edits in ("", " ", "scale:1.2:1,temperature:0.0:1"):  # the last ones change nothing
        assert without_timings(post(client, call, edits=edits, **body)) == plain


def test_a_cut_score_is_null_and_its_weight_is_0(client: TestClient) -> None:
    """Query 1 has two keys; without key 0 all its weight is on itself."""
    chosen = {"layers": [0], "heads": [2], "edits": "cut:0.2:1>0"}
    masked, weights = (post(client, "attention", stage=stage, **chosen) for stage in ("masked", "weights"))
    assert masked["values"][0][0][1][0] is None
    assert weights["values"][0][0][1][:2] == [0, 1]
    assert masked["mask"][1][0] is True  # the mask is the causal one


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ("bend:1.1:0", "edit 'bend:1.1:0': an edit is one of scale:LAYER.HEAD:FACTOR, cut:"),
        ("scale:1.1", "edit 'scale:1.1': write scale:LAYER.HEAD:FACTOR."),
        ("scale:1:0", "edit 'scale:1:0': '1' is no LAYER.HEAD"),
        ("scale:3.0:0", "this model has layers 0 to 2"),
        ("nomask:0.1,cut:1.4:2>1", "edit 'cut:1.4:2>1': cut:1.4:2>1 names head 4; this model has heads 0 to 3"),
        ("cut:1.1:40>1", "cut:1.1:40>1 names position 40; this text has 4 tokens"),
        ("cut:1.1:0>0", "no key left"),
        ("steer:1:silver:2", "there is no direction 'silver'. Give its 32 numbers in the field `directions`, or write"),
        ("steer:1:short:2", "the direction short has 2 numbers; tiny-llama needs 32 (`d_model`)"),
        ("steer:1:token-400:2", "there is no token 400; the ids of tiny-llama are 0 to 399"),
        ("scale:1.1:0,scale:1.1:0", "twice"),
        ("x" * 8_001, "edits: String should have at most 8000 characters"),
        ("a\0b", "NUL"),
    ],
)
def test_edits_that_cannot_be_made_are_repeated_with_what_is_right(client: TestClient, edits: str, words: str) -> None:
    body: dict[str, Any] = {"edits": edits, "directions": {"short": [1, 2]}}
    for call in CALLS:
        assert words in problem(client, call, **body)
    with channel(client) as live:
        header = live.show(TEXT, **body)
        assert words in header["problem"]["detail"]
        assert live.show(TEXT)["done"]


@pytest.mark.parametrize(
    "directions",
    [{"a:b": [1]}, {"": [1]}, {"a,b": [1]}, {"a": []}, {"a": ["x"]}, {"a": 1}, {f"a{i}": [1] for i in range(17)}, [1]],
)
def test_a_direction_has_a_name_that_can_be_written_and_numbers(client: TestClient, directions: Any) -> None:
    assert "directions" in problem(client, "tokens", directions=directions)


def test_a_direction_of_numbers_too_large_for_the_model_is_refused(client: TestClient) -> None:
    for numbers in ([1e300] * 32, [3e38] * 32):
        reply = send(client, "norms", edits="steer:1:huge:9", directions={"huge": numbers})
        assert (reply.status_code, "finite" in reply.json()["detail"]) == (422, True)


def test_edits_so_strong_that_the_pass_overflows_are_named(client: TestClient) -> None:
    detail = problem(client, "norms", edits="steer:0:golden:1e38", directions=DIRECTIONS)
    assert "infinite or NaN" in detail
    assert "It is read under the edits steer:0:golden:1e38: make them weaker." in detail


WRITTEN = st.sampled_from(
    [*EDITS, *SYNTAX.values(), "scale:0.0:nan", "steer:0:token-1:1e99", "drop:mlp:1:0", "cut:*.*:1>0"]
)
SCRAPS = st.text("scaletrmpudnok:.>*,-0123456789 e∞", max_size=12)


@given(st.lists(WRITTEN | SCRAPS, max_size=6).map(",".join) | st.text(max_size=20), st.sampled_from(CALLS))
@settings(max_examples=150, deadline=None)
def test_no_edits_make_the_server_fail(client: TestClient, edits: str, call: str) -> None:
    reply = send(client, call, edits=edits, directions=DIRECTIONS)
    assert reply.status_code in (200, 422), reply.text
    if reply.status_code == 422:
        assert len(schemas.Problem.model_validate(reply.json()).detail) > 20
    elif call != "view":  # the canonical form says the same
        canonical = reply.json()["edits"]
        again = post(client, call, edits=canonical, directions=DIRECTIONS)
        assert without_timings(again) == without_timings(reply.json())


def test_a_direction_of_a_token_is_its_row_of_the_unembedding_with_length_1(
    client: TestClient, tiny: LoadedModel
) -> None:
    row_M = tiny.network.unembed.weight[50].detach().float()
    directions = {"mine": (row_M / row_M.norm()).tolist()}
    named, given = (
        post(client, "norms", edits=edits, directions=directions)["norms"][-1]
        for edits in ("steer:2:token-50:3", "steer:2:mine:3")
    )
    np.testing.assert_allclose(named["rms"], given["rms"], rtol=1e-5)
    before = post(client, "activations", layers=[2])["values"][0]
    after = post(client, "activations", layers=[2], edits="steer:2:token-50:3")["values"][0]
    difference = np.linalg.norm(np.array(after) - before, axis=-1)
    np.testing.assert_allclose(difference, 3, rtol=100 * ROUNDING)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Edit("context", 3, (5,), scale=0.0), "Head 5 of layer 3 is switched off"),
        (Edit("context", 3, None, scale=2.0), "What every head of layer 3 passes on is multiplied by 2"),
        (NoMask(None, (2,)), "Head 2 of every layer also attends to later tokens"),
        (Temperature(1, None, 0.5), "so that its weights are sharper"),
        (Drop("weights", None, 0.25, 7), "Dropout of 25% of the attention weights (seed 7)."),
        (Edit("mlp", 1, scale=0.0, first=2), "edit:mlp:1"),
    ],
)
def test_every_edit_has_words(change: Change, words: str) -> None:
    assert words in describe(change)


# --- the live channel ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.text("abc é\n", min_size=1, max_size=6), st.sampled_from(["", *EDITS[:2], *EDITS[4:8]]))),
    st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_after_any_typing_under_any_edits_the_screen_is_the_same_as_over_http(
    client: TestClient, steps: list[tuple[str, str]], head: int
) -> None:
    with channel(client) as live:
        for text, edits in steps:
            assert live.show(text, edits=edits, head=head)["n_shared"] <= len(text.encode())
            assert_shows(live.screen, screen_over_http(client, text, edits=edits, head=head))


@pytest.mark.parametrize(("edits", "n_shared"), [("scale:1.2:0", 3), ("nomask:1.2", 0)])
def test_an_appended_token_under_the_same_edits_shares_what_is_before_it_unless_a_head_sees_later_tokens(
    client: TestClient, edits: str, n_shared: int
) -> None:
    with channel(client) as live:
        for ids, shared in (([5, 6, 7], 0), ([5, 6, 7, 8], n_shared), ([5, 6, 7, 8], 4)):
            live.seq += 1
            live.socket.send_json({"seq": live.seq, "ids": ids, "edits": edits})
            while not (header := live.receive()).get("done"):
                pass
            assert header["n_shared"] == shared


def test_under_other_edits_nothing_is_shared(client: TestClient) -> None:
    with channel(client) as live:
        for edits, shared in (("", 0), ("scale:1.2:0", 0), ("scale:1.2:0", 4), ("scale:1.2:0.5", 0), ("", 0)):
            header = live.show(TEXT, edits=edits)
            assert (header["n_shared"], header["edits"]) == (shared, edits)


@pytest.fixture(scope="module")
def hasty_client(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app that reads 4 tokens in one pass."""
    cache = tmp_path_factory.mktemp("cache")
    yield from serve(Settings(model=str(tiny_llama), weights_dir=cache, max_batch_tokens=4))


def test_without_a_mask_a_text_longer_than_one_pass_is_refused(hasty_client: TestClient) -> None:
    assert post(hasty_client, "norms", ids=[1, 2, 3, 4], edits="nomask:0.0")["norms"]
    for call in CALLS[1:]:
        detail = problem(hasty_client, call, ids=[1, 2, 3, 4, 5, 6], edits="nomask:0.0")
        assert "one pass, of at most 4 tokens (LOOKBACK_MAX_BATCH_TOKENS); this text has 6. Remove 2 tokens" in detail


def test_a_text_read_in_chunks_under_edits_is_the_text_read_at_once(
    hasty_client: TestClient, client: TestClient
) -> None:
    edits = "scale:0.1:0,cut:1.2:9>3,temperature:2.*:2,drop:weights:0.2:1"
    body = {"text": "the fat cat sat on the mat, 12 cats", "site": "block", "edits": edits}
    chunked, whole = (post(reader, "activations", **body) for reader in (hasty_client, client))
    np.testing.assert_allclose(chunked["values"], whole["values"], atol=20 * ROUNDING)


# --- activations and logits ------------------------------------------------------------------------------------------


def captured(network: GPT, ids: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """The vectors of the sites without heads, by hooks of this test's own."""
    tensors: dict[str, list[torch.Tensor]] = {"embedding": [], "attention": [], "mlp": [], "block": []}
    hooks = [network.dropout.register_forward_hook(lambda *args: tensors["embedding"].append(args[-1]))]
    for block in network.blocks:
        assert isinstance(block, Block)
        for site, module in (("attention", block.attention), ("mlp", block.mlp), ("block", block)):
            hooks.append(module.register_forward_hook(lambda *args, site=site: tensors[site].append(args[-1])))
    with torch.inference_mode():
        network.hidden(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {site: torch.cat(values).float().numpy() for site, values in tensors.items()}


@pytest.mark.parametrize("site", ["embedding", "attention", "mlp", "block"])
def test_activations_are_what_hooks_capture(client: TestClient, tiny: LoadedModel, site: str) -> None:
    expected = captured(tiny.network, tiny.tokenizer.encode(TEXT).ids)[site]
    reply = post(client, "activations", site=site)
    schemas.ActivationsReply.model_validate(reply)
    values = np.array(reply["values"])
    np.testing.assert_allclose(values, expected[0] if site == "embedding" else expected, atol=ROUNDING)
    assert reply["shape"] == list(values.shape)
    axes = ["position", "feature"] if site == "embedding" else ["layer", "position", "feature"]
    assert (reply["axes"], reply["heads"]) == (axes, None)
    assert reply["layers"] == (None if site == "embedding" else [0, 1, 2])


@pytest.mark.parametrize("site", ["queries", "keys", "values", "context"])
def test_activations_of_heads_are_those_with_which_attention_is_computed(
    client: TestClient, tiny: LoadedModel, site: str
) -> None:
    edits = "scale:1.2:0.5,temperature:1.*:2"
    trace, n_heads = edited(tiny, edits), 2 if site in ("keys", "values") else 4
    reply = post(client, "activations", site=site, edits=edits)
    heads = range(0, 4, 4 // n_heads)  # two query heads share a key head
    expected = np.stack([getattr(trace, site)(layer, heads).numpy() for layer in range(3)])
    np.testing.assert_allclose(reply["values"], expected, atol=ROUNDING)
    assert reply["axes"] == ["layer", "key head" if n_heads == 2 else "head", "position", "feature of the head"]
    assert (reply["heads"], reply["shape"]) == (list(range(n_heads)), list(expected.shape))


def test_edited_context_vectors_are_those_before_the_output_projection(client: TestClient) -> None:
    plain, scaled = (
        np.array(post(client, "activations", site="context", layers=[1], edits=edits)["values"])
        for edits in ("", "scale:1.2:0.5")
    )
    np.testing.assert_allclose(scaled[0, 2], plain[0, 2] / 2, atol=ROUNDING)
    np.testing.assert_allclose(scaled[0, [0, 1, 3]], plain[0, [0, 1, 3]], atol=ROUNDING)


def test_layers_heads_and_positions_come_in_the_requested_order(client: TestClient) -> None:
    everything = np.array(post(client, "activations", site="context")["values"])
    chosen = post(client, "activations", site="context", layers=[2, 0], heads=[3, 1], positions=[3, 0, 3])
    expected = everything[[2, 0]][:, [3, 1]][:, :, [3, 0, 3]]
    np.testing.assert_allclose(chosen["values"], expected, atol=ROUNDING)
    assert (chosen["layers"], chosen["heads"], chosen["positions"]) == ([2, 0], [3, 1], [3, 0, 3])


@pytest.mark.parametrize("site", ["embedding", "mlp", "keys"])
def test_an_archive_of_activations_says_what_it_holds(client: TestClient, site: str) -> None:
    body: dict[str, Any] = {"site": site, "positions": [1, 2], "edits": "scale:1.2:0"}
    arrays, reply = archive(client, "activations", **body), post(client, "activations", **body)
    np.testing.assert_allclose(arrays["values"], reply["values"], atol=1e-6)
    assert arrays["values"].dtype == np.float32
    for name in ("layers", "heads", "positions"):
        assert (arrays[name].tolist() if name in arrays else None) == reply[name]
    assert_says_what_was_read(arrays, reply)
    assert arrays["site"] == site


def assert_says_what_was_read(arrays: dict[str, NDArray[Any]], reply: dict[str, Any]) -> None:
    assert arrays["ids"].tolist() == [token["id"] for token in reply["tokens"]]
    assert arrays["tokens"].tolist() == [token["text"] for token in reply["tokens"]]
    assert [arrays[name].item() for name in ("model", "step", "edits")] == ["tiny-llama", -1, reply["edits"]]


def test_an_archive_of_attention_says_what_it_holds(client: TestClient) -> None:
    body = {"stage": "scaled", "layers": [1], "edits": "cut:1.2:3>1"}
    arrays, reply = archive(client, "attention", **body), post(client, "attention", **body)
    assert_says_what_was_read(arrays, reply)
    assert arrays["stage"] == "scaled"


def test_logits_are_those_of_the_predictions(client: TestClient) -> None:
    for edits in ("", "scale:1.2:0"):
        predictions = post(client, "predictions", positions="all", top=20, edits=edits)["predictions"]
        for prediction in predictions:
            ids = [token["id"] for token in prediction["top"]]
            reply = post(client, "logits", token_ids=ids, positions=[prediction["position"]], edits=edits)
            schemas.LogitsReply.model_validate(reply)
            assert reply["values"][0] == pytest.approx([token["logit"] for token in prediction["top"]], abs=ROUNDING)
            assert (reply["token_ids"], reply["shape"]) == (ids, [1, 20])


def test_logits_of_texts_are_those_of_their_tokens(client: TestClient, tiny: LoadedModel) -> None:
    ids = [tiny.tokenizer.encode(text).ids[0] for text in (" cat", "t")]
    by_text, by_id = post(client, "logits", tokens=[" cat", "t"]), post(client, "logits", token_ids=ids)
    assert by_text["token_ids"] == ids
    assert by_text["values"] == by_id["values"]


def test_without_a_choice_of_tokens_the_whole_row_is_sent(client: TestClient, tiny: LoadedModel) -> None:
    trace = edited(tiny, "")
    arrays, reply = archive(client, "logits"), post(client, "logits", positions=[2])
    np.testing.assert_allclose(arrays["values"], trace.logits(range(trace.n_tokens)), atol=10 * ROUNDING)
    np.testing.assert_allclose(reply["values"][0], arrays["values"][2], atol=10 * ROUNDING)
    assert reply["token_ids"] is None
    assert "token_ids" not in arrays
    assert_says_what_was_read(arrays, reply)


@pytest.mark.parametrize(
    ("call", "body", "status", "words"),
    [
        ("activations", {"site": "scores"}, 422, "site: Input should be 'embedding', 'queries'"),
        ("activations", {"site": "mlp", "heads": [0]}, 422, "mlp has no heads; leave `heads` out, or choose queries"),
        ("activations", {"site": "embedding", "layers": [0]}, 422, "the embedding has no layers; leave `layers` out"),
        ("activations", {"site": "keys", "heads": [2]}, 422, "There is no key head 2; tiny-llama has 2"),
        ("activations", {"site": "context", "heads": [4]}, 422, "There is no head 4; tiny-llama has 4"),
        ("activations", {"layers": [3]}, 422, "There is no layer 3; tiny-llama has 3"),
        ("activations", {"positions": [5]}, 422, "There is no position 5; the text has 4 tokens"),
        ("activations", {"positions": []}, 422, "at least 1 item"),
        ("activations", {"positions": [0] * 400}, 413, "the limit is 20,000. Request fewer layers, heads or positions"),
        ("logits", {"positions": [9]}, 422, "There is no position 9"),
        ("logits", {"token_ids": [400]}, 422, "There is no token 400; the ids of tiny-llama are 0 to 399"),
        ("logits", {"tokens": ["the fat"]}, 422, "Choose a text that is exactly one token, or give its id"),
        ("logits", {"tokens": [""]}, 422, "The text is empty"),
        ("logits", {"tokens": ["a"], "token_ids": [1]}, 422, "`token_ids` and `tokens` are two ways"),
        ("logits", {"positions": [0] * 51}, 413, "Request fewer next tokens or positions, or ?format=npz"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_with_what_there_is(
    client: TestClient, call: str, body: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem(client, call, status, **body)


def test_openapi_describes_the_calls_and_the_edits(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    for call in ("activations", "logits"):
        (operation,) = description["paths"][f"/api/v1/{call}"].values()
        assert operation["summary"]
        assert operation["description"]
        assert {"404", "413", "422", "503"} <= set(operation["responses"])
    for syntax in SYNTAX.values():
        assert f"`{syntax}`" in description["info"]["description"]


@pytest.mark.parametrize(
    ("edits", "directions", "message"),
    [
        ("steer:0:token-1:2", {"token-1": [0.0]}, "give yours another name"),
        ("steer:0:token-٢:2", {}, "there is no direction"),
        ("steer:0:token-01:2", {}, "there is no direction"),
    ],
)
def test_the_direction_of_a_token_has_one_name_and_cannot_be_replaced(
    client: TestClient, edits: str, directions: dict[str, list[float]], message: str
) -> None:
    reply = client.post("/api/v1/predictions", json={"text": "a", "edits": edits, "directions": directions})
    assert (reply.status_code, message in reply.json()["detail"]) == (422, True), reply.text
