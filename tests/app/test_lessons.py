"""Every lesson, by laws that hold for all of them: its checks hold on any text, and one fails when it is broken."""

import html
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from app.lessons import checks
from app.lessons.lesson import Reading, lessons
from app.models import LoadedModel
from app.settings import Settings
from app.templating import format_value
from model.gpt import GPT
from model.reading import read
from model.tokenizer import Tokenizer
from model.weights.catalogue import SHIPPED
from model.weights.folder import load
from tests.checkpoints import N_VOCAB, write_gpt2
from tests.conftest import CPU, FLOAT, serve

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
MEASURED = {"parallel": {"times", "times_per_product", "facts"}}  # panels with measured times, which differ from call to call


def module_of(slug: str) -> ModuleType:
    return sys.modules[f"app.lessons.{slug.replace('-', '_')}"]


@pytest.fixture(scope="module")
def served(tiny_llama: Path, settings: Settings) -> Iterator[TestClient]:
    """The app with a tiny Llama, which lacks what some lessons need, and the model that comes with the app."""
    yield from serve(Settings(model=str(tiny_llama), cache=settings.cache))


@pytest.fixture(params=["tiny-llama", "lookback-gpt"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def networks(tiny_gpt2: Path, tiny_llama: Path, settings: Settings) -> dict[tuple[str, torch.dtype], LoadedModel]:
    """Small models of both families in both dtypes."""
    folders = {
        "tiny-gpt2": tiny_gpt2,
        "tiny-llama": tiny_llama,
        SHIPPED.name: SHIPPED.fetch(settings.cache, lambda *_: None),
    }
    return {
        (name, dtype): LoadedModel(name, *load(folder, device=CPU, dtype=dtype), n_context=64)
        for name, folder in folders.items()
        for dtype in (FLOAT, torch.bfloat16)
    }


@lru_cache(maxsize=200)
def reading(loaded: LoadedModel, text: str) -> Reading:
    """A text as a model reads it, without an app."""
    tokens = loaded.tokens(text)
    return Reading(loaded, tokens, read(loaded.network, tokens.ids))


def checked(reading: Reading, slug: str, text: str, **fields: Any) -> list[checks.Check]:
    lesson = lessons()[slug]
    return list(lesson.checks(reading, lesson.request_type(text=text, **fields)))


def model_for(client: TestClient, slug: str, model: str) -> str:
    """A model, or the one that comes with the app if the lesson needs what the first one lacks."""
    fits = lessons()[slug].fits(client.app.state.engine.models.shape(model)[0])  # type: ignore[attr-defined]
    return model if fits else SHIPPED.name


def post(client: TestClient, path: str, text: str, *, model: str = SHIPPED.name, **fields: Any) -> Any:
    reply = client.post(f"/api/v1/lessons/{path}", json={"text": text, "model": model, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def n_context(client: TestClient, model: str) -> int:
    max_tokens = {known["name"]: known["max_tokens"] for known in client.get("/api/v1/models").json()["models"]}
    return min(256, int(max_tokens[model]))


@pytest.mark.parametrize("dtype", [FLOAT, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("slug", SLUGS)
def test_all_checks_hold_on_every_text_in_either_dtype_and_one_fails_when_it_is_broken(
    networks: dict[tuple[str, torch.dtype], LoadedModel], slug: str, dtype: torch.dtype
) -> None:
    for loaded in (loaded for (_, own_dtype), loaded in networks.items() if own_dtype == dtype):
        if not lessons()[slug].fits(loaded.network.config):
            continue
        for text in (*TEXTS, "the" + " the" * (loaded.n_context - 1)):
            failed = [check for check in checked(reading(loaded, text), slug, text) if check.passed is False]
            assert failed == [], (loaded.name, text)
        assert any(check.passed is False for check in checked(reading(loaded, FIRST), slug, FIRST, broken=True))


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if not lessons()[slug].needs])
def test_all_checks_hold_for_smollm2_and_one_fails_when_it_is_broken(smollm2: tuple[GPT, Tokenizer], slug: str) -> None:
    loaded = _loaded(*smollm2)
    for text in (FIRST, "the"):
        failed = [check for check in checked(reading(loaded, text), slug, text) if check.passed is False]
        assert failed == [], text
    assert any(check.passed is False for check in checked(reading(loaded, FIRST), slug, FIRST, broken=True))


@lru_cache(maxsize=1)
def _loaded(network: GPT, tokenizer: Tokenizer) -> LoadedModel:
    return LoadedModel("smollm2-135m", network, tokenizer, n_context=64)


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if hasattr(module_of(slug), "equal")])
def test_no_check_accepts_a_number_that_is_off_by_a_thousandth(
    networks: dict[tuple[str, torch.dtype], LoadedModel], slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: dict[str, bool] = {}

    def equal(name: str, actual: Tensor, expected: Tensor, *rest: Any) -> checks.Check:
        assert checks.equal(name, actual, expected, *rest).passed
        off = checks.equal(name, actual * 1.001, expected, *rest)
        refused[name] = not off.passed
        return off

    monkeypatch.setattr(module_of(slug), "equal", equal)
    checked(reading(networks[SHIPPED.name, FLOAT], FIRST), slug, FIRST)
    assert set(refused.values()) == {True}, refused


@pytest.mark.parametrize("slug", SLUGS)
def test_breaking_a_lesson_changes_a_picture(served: TestClient, model: str, slug: str) -> None:
    model = model_for(served, slug, model)
    right, wrong = (post(served, slug, FIRST, model=model, broken=broken) for broken in (False, True))
    drawn = {
        name for name, panel in panels(right).items() if panel["kind"] != "facts" and name not in MEASURED.get(slug, ())
    }
    assert any(_without_title(right[name]) != _without_title(wrong[name]) for name in drawn)


def _without_title(panel: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in panel.items() if name != "title"}


def other_values(schema: dict[str, Any], default: Any) -> list[Any]:
    """Other values that a visitor can give to a control."""
    match schema:
        case {"enum": [*names]}:
            return [name for name in names if name != default]
        case {"type": "boolean"}:
            return [not default]
        case {"kind": "sliders"}:
            return [[value + 0.5 for value in default]]
        case {"kind": "heads"}:
            return [[0]]
        case {"type": "string"}:
            return ["a dog ran"]
        case {"minimum": least, "maximum": most} if most < 1_000_000:
            return [value for value in (most, least) if value != default]
    return [number for number in (0, 1, 2, 3) if number != default]


CONTROLS = [
    (slug, name)
    for slug, lesson in lessons().items()
    for name in lesson.request_type.model_fields
    if name not in ("text", "model", "step", "special_tokens", "broken")
]
ONLY_WITH = {("batches", "sheet"): {"third": "a"}}  # what must be chosen first for the control to have an effect


@pytest.mark.parametrize(("slug", "name"), CONTROLS)
def test_every_control_changes_a_number(served: TestClient, slug: str, name: str) -> None:
    fields = ONLY_WITH.get((slug, name), {})
    schema = lessons()[slug].request_type.model_json_schema()["properties"][name]
    before = panels(post(served, slug, FIRST, **fields))
    default = lessons()[slug].request_type.model_fields[name].default
    assert any(
        panels(post(served, slug, FIRST, **fields, **{name: value})) != before
        for value in other_values(schema, default)
    )


def panels(reply: dict[str, Any]) -> dict[str, Any]:
    """The panels of a reply."""
    return {name: panel for name, panel in reply.items() if isinstance(panel, dict) and "kind" in panel}


@pytest.mark.parametrize("slug", SLUGS)
def test_a_text_that_is_empty_or_too_long_is_refused_with_a_reason(served: TestClient, slug: str) -> None:
    n, model = n_context(served, SHIPPED.name), SHIPPED.name
    for text, message in (("", "The text is empty"), ("the" + " the" * n, f"{n + 1} tokens")):
        reply = served.post(f"/api/v1/lessons/{slug}", json={"text": text, "model": model})
        assert reply.status_code == 422
        assert message in reply.json()["detail"]
        page = served.get(f"/lessons/{slug}", params={"text": text or " ", "model": "none"})
        assert page.status_code == 404
        assert "none" in page.text


def shown(panel: dict[str, Any]) -> str:
    """A value of a panel as its page shows it."""
    match panel:
        case {"kind": "heatmap", "values": [*_, [number, *_]]} | {"kind": "cube", "values": [*_, [*_, [number, *_]]]}:
            pass
        case {"kind": "curves", "lines": [{"y": [*_, number]}, *_]} | {"kind": "points", "points": [*_, {"y": number}]}:
            pass
        case {"kind": "chips", "rows": [*_, {"chips": [*_, {"text": text}]}]}:
            return f">{text}"
        case {"values": [*_, number]}:
            pass
    return f"<td>{format_value(number)}</td>"


@pytest.mark.parametrize("slug", SLUGS)
def test_the_page_has_the_numbers_of_the_api_without_any_script(served: TestClient, slug: str) -> None:
    reply = post(served, slug, FIRST)
    page = served.get(
        f"/lessons/{slug}", params={"text": FIRST, "model": SHIPPED.name, "layer": 0, "head": 0, "prove": "1"}
    )
    assert page.status_code == 200
    for panel in panels(reply).values():
        assert shown(panel) in html.unescape(page.text)
    for check in post(served, f"{slug}/checks", FIRST)["checks"]:
        assert check["name"].replace("'", "&#39;") in page.text


@pytest.mark.parametrize("slug", [slug for slug, lesson in lessons().items() if lesson.needs])
def test_a_lesson_that_needs_what_the_model_lacks_shows_another_one_and_says_so(served: TestClient, slug: str) -> None:
    own = served.get("/api/v1/models").json()["models"][0]["name"]
    reply = served.post(f"/api/v1/lessons/{slug}", json={"text": FIRST, "model": own})
    page = served.get(f"/lessons/{slug}", params={"text": FIRST, "model": own})
    assert page.status_code == 200
    assert reply.status_code == 422
    assert "Choose lookback-gpt" in reply.json()["detail"]
    unnamed = served.post(f"/api/v1/lessons/{slug}", json={"text": FIRST})
    assert unnamed.json()["model"] == "lookback-gpt"
    assert f"<b>{own}</b> does not have; you see <b>lookback-gpt</b>" in page.text
    fits = served.get(f"/lessons/{slug}", params={"text": FIRST, "model": "lookback-gpt"})
    assert "does not have" not in fits.text


def test_the_list_of_lessons_is_in_order_and_its_links_keep_text_and_model(served: TestClient) -> None:
    page = served.get("/lessons", params={"text": "a b", "model": "m"}).text
    places = [page.index(f'href="/lessons/{slug}?text=a+b&amp;model=m"') for slug in SLUGS]
    assert places == sorted(places)
    for before, after in pairwise(SLUGS):
        assert f"/lessons/{after}?text=" in served.get(f"/lessons/{before}", params={"text": "a b"}).text


def test_every_call_is_described(served: TestClient) -> None:
    paths = served.get("/openapi.json").json()["paths"]
    for lesson in served.get("/api/v1/lessons").json():
        described = paths[lesson["call"]]["post"]
        assert described["description"]
        assert "broken" in described["description"]
        assert f"{lesson['call']}/checks" in paths


def test_every_lesson_links_to_the_symbols_and_to_what_it_builds_on(served: TestClient) -> None:
    assert served.get("/lessons/symbols").status_code == 200
    for slug, lesson in lessons().items():
        page = served.get(f"/lessons/{slug}", params={"text": "a b"}).text
        assert 'href="/lessons/symbols"' in page
        for reference in lesson.posts:
            title = html.escape(reference.title).replace("&#x27;", "&#39;")
            assert f'<a href="{reference.address}" rel="external">{title}</a>' in page


def test_a_chosen_position_beyond_the_end_of_a_text_means_its_last_token(served: TestClient) -> None:
    beyond, last = (panels(post(served, "vectors", "the", first_token=position)) for position in (5, 0))
    assert beyond["token_facts"] == last["token_facts"]


def test_a_second_text_of_the_batch_that_is_too_long_is_refused_with_a_reason(served: TestClient) -> None:
    known = served.get("/api/v1/models").json()["models"][0]["name"]
    fields = {"text": "a", "model": known, "second": "the" + " the" * 256}
    reply = served.post("/api/v1/lessons/batches", json=fields)
    assert reply.status_code == 422
    assert "257 tokens" in reply.json()["detail"]


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if "layer" in lessons()[slug].request_type.model_fields])
def test_a_layer_or_head_that_the_model_lacks_is_refused_with_the_same_message_everywhere(
    served: TestClient, slug: str
) -> None:
    n_heads = {"heads", "head"}
    wrong: dict[str, Any] = {"layer": 99}
    for name, schema in lessons()[slug].request_type.model_json_schema()["properties"].items():
        if name == "head" or schema.get("kind") in n_heads:
            wrong = {name: [99] if schema.get("kind") == "heads" else 99}
        if name == "source":
            wrong |= {"source": "book"}
    message = "There is no layer 99" if "layer" in wrong else "There is no head 99"
    for path in (slug, f"{slug}/checks"):
        reply = served.post(f"/api/v1/lessons/{path}", json={"text": FIRST, "model": SHIPPED.name, **wrong})
        assert (reply.status_code, message in reply.json()["detail"]) == (422, True)
    address = {name: "99" if value == [99] else value for name, value in wrong.items()}
    page = served.get(f"/lessons/{slug}", params={"text": FIRST, "model": SHIPPED.name, **address})
    assert (page.status_code, message in page.text) == (422, True)


@pytest.mark.parametrize(
    ("slug", "fields", "reason"),
    [
        ("dropout", {"rate": 0.0}, "at rate 0 a number is dropped about 0 times"),
        ("dropout", {"rate": 0.001}, "at rate 0.001 a number is dropped about 2 times"),
        ("causal-mask", {"instead": "mat"}, "the same token is put in its own place"),
        ("causal-mask", {"changed": 0}, "there is none before it"),
        ("input-embedding", {"text": "the fat cat"}, "no two tokens of this text are the same"),
        ("token-embedding", {"text": "the fat cat"}, "no two tokens of this text are the same"),
        ("complexity", {"text": "the"}, "a text of one token is all inside"),
        ("projections", {"which": "the book's query"}, "the book's matrix runs in no model"),
        ("softmax", {"naive": True}, "the naive softmax is chosen"),
    ],
)
def test_a_check_that_does_not_apply_says_why_on_the_page_too(
    served: TestClient, slug: str, fields: dict[str, Any], reason: str
) -> None:
    fields = {"text": FIRST, "model": SHIPPED.name, **fields}
    listed = served.post(f"/api/v1/lessons/{slug}/checks", json=fields).json()["checks"]
    assert [check for check in listed if check["passed"] is False] == []
    assert any(check["passed"] is None and reason in check["reason"] for check in listed)
    page = served.get(f"/lessons/{slug}", params={**fields, "prove": "1"}).text
    assert '<li data-passed="null"><b>does not apply</b>' in page
    assert html.escape(reason).replace("&#x27;", "&#39;") in page


def test_an_address_with_one_wrong_field_keeps_the_others(served: TestClient) -> None:
    page = served.get("/lessons/dropout", params={"text": FIRST, "rate": "2", "seed": "7", "reads": "false"})
    assert page.status_code == 422
    assert "rate: Input should be less than or equal to 0.9" in page.text
    assert 'name="seed" min="0" max="100" step="1" value="7"' in page.text
    assert 'name="reads" value="true" >' in page.text  # not ticked


@pytest.mark.parametrize("slug", ["input-embedding", "token-embedding"])
def test_a_token_that_occurs_only_once_is_not_compared_with_another_one(served: TestClient, slug: str) -> None:
    once, twice = (post(served, slug, FIRST, one=place) for place in (1, 5))  # fat; the second "the"
    facts = once["facts" if slug == "input-embedding" else "difference"]
    assert facts["values"] == ["nowhere in this text: choose another one"]
    assert twice["facts" if slug == "input-embedding" else "difference"]["title"].startswith("5 ·the and 0 ·the")


def test_the_number_of_merges_is_that_of_the_tokenizer(smollm2: tuple[GPT, Tokenizer], served: TestClient) -> None:
    assert smollm2[1].n_merges == 48_900
    facts = post(served, "tokens", FIRST)["facts"]
    n_merges = dict(zip(facts["names"], facts["values"], strict=True))["merges that the tokenizer has learned"]
    assert 256 < n_merges < 3_900


def test_an_id_without_a_token_has_a_label(tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "wide", vocab_size=N_VOCAB + 40)
    wide = LoadedModel("wide", *load(folder, device=CPU, dtype=FLOAT), n_context=64)
    assert reading(wide, FIRST).ranked_labels(torch.tensor([N_VOCAB])) == [f"0 (no token {N_VOCAB})"]


def test_before_an_edge_is_cut_no_change_is_shown_not_even_0(client: TestClient) -> None:
    """A newcomer read the 0 as "cutting fat changes nothing"."""
    name = "and a probability after the text by at most"
    for cut in (False, True):
        reply = post(client, "self-attention", FIRST, cut=cut)
        fact = next(panel for panel in panels(reply).values() if name in panel.get("names", []))
        value = fact["values"][fact["names"].index(name)]
        if cut:
            assert value > 0
            assert any(reply["moved"]["values"])
        else:
            assert value == "not cut yet"
            assert set(reply["moved"]["values"]) == {None}
