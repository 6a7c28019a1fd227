"""What replies and pages say about each model: names of its tokens, what it is, what limits its texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from app.cli import main
from app.settings import Settings
from model.weights.catalogue import NAMED
from tests.checkpoints import N_VOCAB, write_gpt2
from tests.conftest import APP_DTYPE, serve

TEXT = "the fat cat sat"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app with a tiny GPT-2 with an embedding of 440 rows for 400 tokens, whose file has an unembedding
    of its own although config.json says that it is tied."""
    folder = write_gpt2(tmp_path_factory.mktemp("facts") / "padded", vocab_size=N_VOCAB + 40)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(N_VOCAB + 40, 32, generator=torch.Generator().manual_seed(3))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    yield from serve(Settings(model=str(folder), weights_dir=tmp_path_factory.mktemp("cache"), max_tokens=8))


def post(client: TestClient, call: str, **body: Any) -> Any:
    reply = client.post(f"/api/v1/{call}", json={"text": TEXT, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_row_of_the_embedding_without_a_token_has_a_name_and_no_bytes(client: TestClient) -> None:
    predictions = post(client, "predictions", positions="all", top=100)["predictions"]
    top = [token for prediction in predictions for token in prediction["top"]]
    padding = [token for token in top if token["id"] >= N_VOCAB]
    assert padding
    assert all(token["text"] == f"(no token {token['id']})" and token["bytes"] == "" for token in padding)


def test_predictions_have_the_bytes_of_their_tokens(client: TestClient) -> None:
    """·cat means a space and cat; U+00B7 followed by cat would look the same."""
    bytes_by_id = {token["id"]: token["bytes"] for token in post(client, "tokens", text="the cat · cat")["tokens"]}
    for token in post(client, "predictions", top=100)["predictions"][0]["top"]:
        if token["id"] in bytes_by_id:
            assert token["bytes"] == bytes_by_id[token["id"]]


def test_a_model_whose_file_has_its_own_unembedding_is_not_tied(client: TestClient) -> None:
    model = client.get("/api/v1/models").json()["models"][0]
    assert (model["name"], model["tied"]) == ("padded", False)


def test_a_text_that_only_the_setting_forbids_gets_an_error_that_names_the_setting(client: TestClient) -> None:
    reply = client.post("/api/v1/tokens", json={"text": "cat " * 20})
    assert "padded reads 64, but LOOKBACK_MAX_TOKENS limits texts to 8 here" in reply.json()["detail"]
    assert "or start Lookback with a larger LOOKBACK_MAX_TOKENS" in reply.json()["detail"]


def test_every_list_and_page_describes_the_model(client: TestClient) -> None:
    computed = str(APP_DTYPE).removeprefix("torch.")
    words = f"SmolLM2-135M-Instruct, used without its chat format, 4-bit weights (Q4_1) computed in {computed}"
    smollm2 = {model["name"]: model for model in client.get("/api/v1/models").json()["models"]}["smollm2-135m"]
    assert (smollm2["about"], smollm2["n_context"], smollm2["max_tokens"]) == (words, 8192, 8)
    assert words in client.get("/openapi.json").json()["info"]["description"]
    for path in ("/", "/training", "/lessons/softmax"):
        page = client.get(path, params={"text": TEXT}).text
        assert f"{words}. It reads 8,192 tokens; here texts have at most 8 (LOOKBACK_MAX_TOKENS)." in page
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for source in NAMED:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{source.name}`"))
        assert row.endswith(f"| {source.about('float32')} | {source.config().n_context:,} |")
    listed = CliRunner().invoke(main, ["models"], env={"COLUMNS": "400"}).output
    assert words in listed
    assert "8,192 (LOOKBACK_MAX_TOKENS: 2,048)" in listed
