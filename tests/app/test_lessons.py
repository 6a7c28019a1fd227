"""Every lesson, by laws that hold for all of them: its checks hold on any text, and break when it is broken."""

import html
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.lesson_routes import words
from app.lessons.lesson import lessons
from app.settings import Settings
from tests.conftest import serve

FIRST = "the fat cat sat on the mat"
TEXTS = (
    FIRST,
    f" {FIRST}",
    f"{FIRST} and slept",
    "Your journey starts with one step",
    "the the the the",
    "the",
    "👍 naïve 猫",
    "<b>x</b>",
)
SLUGS = tuple(lessons())


@pytest.fixture(scope="module", params=["smollm2-135m", "lookback-gpt", "tiny-gpt2"])
def client(request: pytest.FixtureRequest, tiny_gpt2: Path, settings: Settings) -> Iterator[TestClient]:
    """The app around each of three models."""
    model = str(tiny_gpt2) if request.param == "tiny-gpt2" else request.param
    yield from serve(Settings(model=model, cache=settings.cache))


def model_for(client: TestClient, slug: str) -> str:
    """The client's own model, or the one that came with the app where a lesson needs what the other lacks."""
    known = client.get("/api/v1/models").json()["models"]
    fits = lessons()[slug].fits(client.app.state.engine.models.shape(known[0]["name"])[0])  # type: ignore[attr-defined]
    return str(known[0]["name"]) if fits else "lookback-gpt"


def post(client: TestClient, path: str, text: str, **ask: Any) -> Any:
    model = model_for(client, path.partition("/")[0])
    reply = client.post(f"/api/v1/lessons/{path}", json={"text": text, "model": model, **ask})
    assert reply.status_code == 200, reply.text
    return reply.json()


def n_context(client: TestClient, slug: str) -> int:
    known = {one["name"]: one["n_context"] for one in client.get("/api/v1/models").json()["models"]}
    return min(256, int(known[model_for(client, slug)]))


@pytest.mark.parametrize("slug", SLUGS)
def test_all_checks_hold_on_every_text(client: TestClient, slug: str) -> None:
    for text in (*TEXTS, "the" + " the" * (n_context(client, slug) - 1)):
        failed = [check for check in post(client, f"{slug}/checks", text)["checks"] if not check["passed"]]
        assert failed == [], text


@pytest.mark.parametrize("slug", SLUGS)
def test_broken_at_least_one_of_them_fails(client: TestClient, slug: str) -> None:
    checks = post(client, f"{slug}/checks", FIRST, broken=True)["checks"]
    assert not all(check["passed"] for check in checks)


@pytest.mark.parametrize("slug", SLUGS)
def test_what_cannot_be_read_is_refused_in_words(client: TestClient, slug: str) -> None:
    n, model = n_context(client, slug), model_for(client, slug)
    for text, said in (("", "0 characters"), ("the" + " the" * n, f"{n + 1} tokens")):
        reply = client.post(f"/api/v1/lessons/{slug}", json={"text": text, "model": model})
        assert reply.status_code == 422
        assert said in reply.json()["detail"]
        page = client.get(f"/lessons/{slug}", params={"text": text or " ", "model": "none"})
        assert page.status_code == 404
        assert "none" in page.text


def shown(part: dict[str, Any]) -> str:
    """Something of a part as its page has it."""
    match part:
        case {"kind": "heatmap", "values": [*_, [number, *_]]} | {"kind": "cube", "values": [*_, [*_, [number, *_]]]}:
            pass
        case {"kind": "curves", "lines": [{"y": [*_, number]}, *_]} | {"kind": "points", "points": [*_, {"y": number}]}:
            pass
        case {"kind": "chips", "rows": [*_, {"chips": [*_, {"text": text}]}]}:
            return f">{text}"
        case {"values": [*_, number]}:
            pass
    return f"<td>{words(number)}</td>"


@pytest.mark.parametrize("slug", SLUGS)
def test_the_page_has_the_calls_numbers_before_any_script(client: TestClient, slug: str) -> None:
    answer = post(client, slug, FIRST)
    page = client.get(f"/lessons/{slug}", params={"text": FIRST, "layer": 0, "head": 0, "prove": "1"})
    assert page.status_code == 200
    for part in (value for value in answer.values() if isinstance(value, dict) and "kind" in value):
        assert shown(part) in html.unescape(page.text)
    for check in post(client, f"{slug}/checks", FIRST)["checks"]:
        assert check["name"].replace("'", "&#39;") in page.text


@pytest.mark.parametrize("slug", [slug for slug, lesson in lessons().items() if lesson.needs])
def test_a_lesson_on_what_the_model_lacks_shows_another_and_says_so(client: TestClient, slug: str) -> None:
    own = client.get("/api/v1/models").json()["models"][0]["name"]
    reply = client.post(f"/api/v1/lessons/{slug}", json={"text": FIRST, "model": own})
    page = client.get(f"/lessons/{slug}", params={"text": FIRST, "model": own})
    assert page.status_code == 200
    if model_for(client, slug) == own:
        assert reply.status_code == 200
        assert "does not have" not in page.text
    else:
        assert reply.status_code == 422
        assert "Choose lookback-gpt" in reply.json()["detail"]
        unnamed = client.post(f"/api/v1/lessons/{slug}", json={"text": FIRST})
        assert unnamed.json()["model"] == "lookback-gpt"
        assert f"<b>{own}</b> does not have; you see <b>lookback-gpt</b>" in page.text


def test_the_map_leads_through_all_lessons_in_order_and_keeps_text_and_model(client: TestClient) -> None:
    page = client.get("/lessons", params={"text": "a b", "model": "m"}).text
    places = [page.index(f'href="/lessons/{slug}?text=a+b&amp;model=m"') for slug in SLUGS]
    assert places == sorted(places)
    for before, after in pairwise(SLUGS):
        assert f"/lessons/{after}?text=" in client.get(f"/lessons/{before}", params={"text": "a b"}).text


def test_every_call_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for one in client.get("/api/v1/lessons").json():
        described = paths[one["call"]]["post"]
        assert described["description"]
        assert "broken" in described["description"]
        assert f"{one['call']}/checks" in paths


def test_every_lesson_leads_to_the_symbols_and_to_what_it_builds_on(client: TestClient) -> None:
    assert client.get("/lessons/symbols").status_code == 200
    for slug, lesson in lessons().items():
        page = client.get(f"/lessons/{slug}", params={"text": "a b"}).text
        assert 'href="/lessons/symbols"' in page
        for one in lesson.posts:
            assert (
                f'<a href="{one.address}" rel="external">{html.escape(one.title).replace("&#x27;", "&#39;")}</a>'
                in page
            )


def test_what_is_chosen_behind_the_end_of_a_shorter_text_is_its_last_token(client: TestClient) -> None:
    assert post(client, "vectors", "the", one=5)["space"] == post(client, "vectors", "the", one=0)["space"]


def test_another_text_of_the_batch_that_cannot_be_read_is_refused_in_words(client: TestClient) -> None:
    known = client.get("/api/v1/models").json()["models"][0]["name"]
    ask = {"text": "a", "model": known, "second": "the" + " the" * 256}
    reply = client.post("/api/v1/lessons/batches", json=ask)
    assert reply.status_code == 422
    assert "257 tokens" in reply.json()["detail"]
