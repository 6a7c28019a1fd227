"""The calls that lessons and tools share: streams, fragments, edits, and what an experiment may read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.experiments.base import experiments, panel_infos
from app.settings import Settings
from model.weights.catalogue import SHIPPED
from tests.conftest import serve

TEXT = "the fat cat sat on the mat"
SLUGS = tuple(experiments())


@pytest.fixture(scope="module")
def shipped(settings: Settings) -> Iterator[TestClient]:
    """The app with lookback-gpt, on which every experiment runs."""
    yield from serve(Settings(model=SHIPPED.name, weights_dir=settings.weights_dir))


def lines(client: TestClient, slug: str, **fields: object) -> list[dict[str, object]]:
    """The lines of a streamed run."""
    headers = {"Accept": "application/x-ndjson"}
    reply = client.post(f"/api/v1/experiments/{slug}", json={"text": TEXT, **fields}, headers=headers)
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in reply.text.splitlines()]


@pytest.mark.parametrize("slug", SLUGS)
def test_a_stream_has_the_panels_of_the_whole_reply_in_their_order(shipped: TestClient, slug: str) -> None:
    first, *rest = lines(shipped, slug)
    whole = shipped.post(f"/api/v1/experiments/{slug}", json={"text": TEXT}).json()
    assert first == {name: whole[name] for name in ("model", "step", "tokens")}
    assert [line["name"] for line in rest if "name" in line] == [
        info.name for info in panel_infos(experiments()[slug].work)
    ]
    assert list(rest[-1]) == ["timings"]
    if slug != "parallel":  # its panels are times
        assert {line["name"]: line["panel"] for line in rest if "panel" in line} == whole["panels"]


def test_a_slow_panel_says_how_far_it_is(shipped: TestClient) -> None:
    progress = [line["progress"] for line in lines(shipped, "ablation") if "progress" in line]
    assert progress
    assert all(0 < step["done"] <= step["total"] for step in progress)  # type: ignore[index]


def test_an_error_while_a_run_is_streamed_is_its_last_line(shipped: TestClient) -> None:
    *_, last = lines(shipped, "ablation", text="the" + " the" * 70, where="at every token")
    assert "71 tokens" in str(last["problem"])


@pytest.mark.parametrize("slug", SLUGS)
def test_the_table_of_a_panel_is_the_same_in_the_page_and_as_a_fragment(shipped: TestClient, slug: str) -> None:
    info = next(info for info in panel_infos(experiments()[slug].work) if info.kind != "chips")
    fragment = shipped.post(f"/fragments/{slug}/table", params={"panel": info.name}, json={"text": TEXT}).text
    page = shipped.get(experiments()[slug].page, params={"text": TEXT, "open": info.name, "layer": 0, "head": 0}).text
    assert fragment.strip().startswith("<table")
    if slug != "parallel":
        assert fragment.strip() in page


def test_a_table_is_in_the_page_only_if_somebody_opened_it(shipped: TestClient) -> None:
    closed, opened = (shipped.get("/lessons/self-attention", params=query).text for query in ({}, {"open": "weights"}))
    assert closed.count("<table") == 1  # the facts, which are a table
    assert opened.count("<table") == 2


def test_the_fragments_of_a_page_escape_the_text(shipped: TestClient) -> None:
    for path in ("fragments/tokens/table?panel=facts", "fragments/softmax/curl", "fragments/softmax/checks"):
        assert "<script>" not in shipped.post(f"/{path}", json={"text": "<script>alert(1)</script>"}).text


@pytest.mark.parametrize(
    "path", ["api/v1/experiments/none", "fragments/none/curl", "fragments/softmax/table?panel=none"]
)
def test_what_does_not_exist_is_not_found(shipped: TestClient, path: str) -> None:
    assert shipped.post(f"/{path}", json={"text": TEXT}).status_code == 404


def test_a_lesson_is_no_tool_and_a_tool_is_no_lesson(shipped: TestClient) -> None:
    assert shipped.get("/tools/softmax").status_code == shipped.get("/lessons/ablation").status_code == 404


def test_an_experiment_reads_ids_like_the_text_that_they_spell(shipped: TestClient) -> None:
    reply = shipped.post("/api/v1/experiments/softmax", json={"text": TEXT, "source": "model"}).json()
    ids = [token["id"] for token in reply["tokens"]]
    by_ids = shipped.post("/api/v1/experiments/softmax", json={"ids": ids, "source": "model"}).json()
    assert by_ids["panels"] == reply["panels"]


def test_an_experiment_that_makes_its_own_edits_takes_no_others(shipped: TestClient) -> None:
    for path in ("", "/checks"):
        reply = shipped.post(f"/api/v1/experiments/softmax{path}", json={"text": TEXT, "edits": "scale:0.1:0"})
        assert (reply.status_code, "scale:0.1:0" in reply.json()["detail"]) == (422, True)


def test_an_unknown_control_is_refused_by_name(shipped: TestClient) -> None:
    reply = shipped.post("/api/v1/experiments/softmax", json={"text": TEXT, "temprature": 2})
    assert (reply.status_code, "temprature" in reply.json()["detail"]) == (422, True)


def test_the_schema_of_the_controls_has_their_bounds(shipped: TestClient) -> None:
    controls = shipped.get("/api/v1/experiments/softmax").json()["controls"]["properties"]
    assert (controls["temperature"]["minimum"], controls["temperature"]["maximum"]) == (0.1, 5)


def test_no_module_of_an_experiment_runs_the_network_or_hooks_it() -> None:
    root = Path(__file__).parents[2] / "app"
    sources = {path.name: path.read_text() for folder in ("lessons", "tools") for path in (root / folder).glob("*.py")}
    banned = ("register_forward", "network.hidden(", "network(", "read_batch(", "read(self.network", "read(network")
    assert [(name, call) for name, source in sources.items() for call in banned if call in source] == []
