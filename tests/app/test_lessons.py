"""What holds for every lesson: its checks pass on any text, and one of them fails when the lesson is broken."""

import html
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fastapi.testclient import TestClient
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from torch import Tensor

from app.experiments import checks
from app.experiments.base import lessons, panel_infos
from app.experiments.controls import control_fields
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Cube, Curves, Facts, Heatmap, Line, Panel, Point, Points
from app.models import LoadedModel
from app.routes.experiments import ChecksReply
from app.settings import Settings
from app.templating import format_value
from model.gpt import GPT
from model.tokenizer import Tokenizer
from model.weights.catalogue import SHIPPED
from model.weights.folder import load
from tests.app.experiments import checks_of, make_work
from tests.checkpoints import N_VOCAB, write_gpt2
from tests.conftest import CPU, FLOAT, serve

SENTENCE = "the fat cat sat on the mat"
TEXTS = (
    SENTENCE,
    f" {SENTENCE}",
    f"{SENTENCE} and slept",
    "Your journey starts with one step",
    "the the the the",
    "the",
    "👍 naïve 猫",
    "<b>x</b>",
)
SLUGS = tuple(lessons())
MEASURED = {"parallel": {"times", "times_per_product", "facts"}}  # panels with times, which differ from call to call
PANEL: TypeAdapter[Panel] = TypeAdapter(Panel)


def lesson_module(slug: str) -> ModuleType:
    return sys.modules[f"app.lessons.{slug.replace('-', '_')}"]


def escaped(text: str) -> str:
    """A text as templates escape it."""
    return html.escape(text).replace("&#x27;", "&#39;")


@pytest.fixture(scope="module")
def lesson_client(tiny_llama: Path, settings: Settings) -> Iterator[TestClient]:
    """The app with two models: a tiny Llama, which some lessons cannot use, and lookback-gpt."""
    yield from serve(Settings(model=str(tiny_llama), weights_dir=settings.weights_dir))


@pytest.fixture(params=["tiny-llama", "lookback-gpt"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded_models(tiny_gpt2: Path, tiny_llama: Path, settings: Settings) -> dict[tuple[str, torch.dtype], LoadedModel]:
    """Small models of both families in both dtypes."""
    folders = {
        "tiny-gpt2": tiny_gpt2,
        "tiny-llama": tiny_llama,
        SHIPPED.name: SHIPPED.fetch(settings.weights_dir, lambda *_: None),
    }
    return {
        (name, dtype): LoadedModel(name, *load(folder, device=CPU, dtype=dtype), max_tokens=64)
        for name, folder in folders.items()
        for dtype in (FLOAT, torch.bfloat16)
    }


def run_checks(loaded: LoadedModel, slug: str, text: str, *, broken: bool = False) -> list[checks.Check]:
    """The checks of a lesson on a text, without an app."""
    return checks_of(make_work(loaded, slug, text, broken=broken))


def fitting_model(client: TestClient, slug: str, model: str) -> str:
    """This model if the lesson can use it, else lookback-gpt."""
    fits = lessons()[slug].is_supported_by(client.app.state.engine.models.shape(model)[0])  # type: ignore[attr-defined]
    return model if fits else SHIPPED.name


def post(client: TestClient, path: str, fields: dict[str, object]) -> dict[str, object]:
    """The reply to a call of a lesson, by default on lookback-gpt and the sentence."""
    response = client.post(f"/api/v1/experiments/{path}", json={"text": SENTENCE, "model": SHIPPED.name, **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, object] = response.json()
    return reply


def post_panels(client: TestClient, slug: str, **fields: object) -> dict[str, Panel]:
    """The panels of a lesson's result."""
    panels = post(client, slug, fields)["panels"]
    assert isinstance(panels, dict)
    return {name: PANEL.validate_python(panel) for name, panel in panels.items()}


def post_facts(client: TestClient, slug: str, panel: str, **fields: object) -> Facts:
    """One panel of a lesson's result, which has facts."""
    facts = post_panels(client, slug, **fields)[panel]
    assert isinstance(facts, Facts)
    return facts


def post_checks(client: TestClient, slug: str, **fields: object) -> list[checks.Check]:
    """The checks of a lesson."""
    return ChecksReply.model_validate(post(client, f"{slug}/checks", fields)).checks


def n_context(client: TestClient, model: str) -> int:
    max_tokens = {info["name"]: info["max_tokens"] for info in client.get("/api/v1/models").json()["models"]}
    return min(256, int(max_tokens[model]))


def default_model(client: TestClient) -> str:
    return str(client.get("/api/v1/models").json()["models"][0]["name"])


@pytest.mark.parametrize("dtype", [FLOAT, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("slug", SLUGS)
def test_all_checks_pass_on_every_text_in_both_dtypes_and_one_fails_when_the_lesson_is_broken(
    loaded_models: dict[tuple[str, torch.dtype], LoadedModel], slug: str, dtype: torch.dtype
) -> None:
    for loaded in (loaded for (_, own_dtype), loaded in loaded_models.items() if own_dtype == dtype):
        if not lessons()[slug].is_supported_by(loaded.network.config):
            continue
        for text in (*TEXTS, "the" + " the" * (loaded.max_tokens - 1)):
            failed = [check for check in run_checks(loaded, slug, text) if check.passed is False]
            assert failed == [], (loaded.name, text)
        assert any(check.passed is False for check in run_checks(loaded, slug, SENTENCE, broken=True))


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if not lessons()[slug].requirement])
def test_all_checks_pass_for_smollm2_and_one_fails_when_the_lesson_is_broken(
    smollm2: tuple[GPT, Tokenizer], slug: str
) -> None:
    loaded = _loaded_smollm2(*smollm2)
    for text in (SENTENCE, "the"):
        failed = [check for check in run_checks(loaded, slug, text) if check.passed is False]
        assert failed == [], text
    assert any(check.passed is False for check in run_checks(loaded, slug, SENTENCE, broken=True))


@lru_cache(maxsize=1)
def _loaded_smollm2(network: GPT, tokenizer: Tokenizer) -> LoadedModel:
    return LoadedModel("smollm2-135m", network, tokenizer, max_tokens=64)


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if hasattr(lesson_module(slug), "equal")])
def test_no_check_passes_if_a_number_is_off_by_a_thousandth(
    loaded_models: dict[tuple[str, torch.dtype], LoadedModel], slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed: dict[str, bool] = {}

    def equal(
        name: str,
        actual: Tensor,
        expected: Tensor,
        arithmetic: checks.Arithmetic,
        scale: Tensor | float | None = None,
    ) -> checks.Check:
        assert checks.equal(name, actual, expected, arithmetic, scale).passed
        check = checks.equal(name, actual * 1.001, expected, arithmetic, scale)
        has_failed[name] = not check.passed
        return check

    monkeypatch.setattr(lesson_module(slug), "equal", equal)
    run_checks(loaded_models[SHIPPED.name, FLOAT], slug, SENTENCE)
    assert set(has_failed.values()) == {True}, has_failed


@pytest.mark.parametrize("slug", SLUGS)
def test_breaking_a_lesson_changes_a_picture(lesson_client: TestClient, model: str, slug: str) -> None:
    model = fitting_model(lesson_client, slug, model)
    correct, wrong = (post_panels(lesson_client, slug, model=model, broken=broken) for broken in (False, True))
    pictures = {
        name for name, panel in correct.items() if not isinstance(panel, Facts) and name not in MEASURED.get(slug, ())
    }
    assert any(_without_title(correct[name]) != _without_title(wrong[name]) for name in pictures)


def _without_title(panel: Panel) -> dict[str, object]:
    return panel.model_dump(exclude={"title"})


def other_values(schema: JsonSchemaValue, default: object) -> list[object]:
    """Values other than the default that a control can have."""
    match schema["kind"]:
        case "choice":
            return [name for name in schema["enum"] if name != default]
        case "switch":
            return [not default]
        case "sliders":
            assert isinstance(default, list)
            return [[value + 0.5 for value in default]]
        case "heads":
            return [[0]]
        case "text":
            return ["a dog ran"]
        case "range":
            return [value for value in (schema["maximum"], schema["minimum"]) if value != default]
    return [number for number in (0, 1, 2, 3) if number != default]


CONTROLS = [(slug, name) for slug, lesson in lessons().items() for name in control_fields(lesson.controls)]
REQUIRED = {("batches", "text_index"): {"third_text": "a"}}  # fields without which the control has no effect


@pytest.mark.parametrize(("slug", "name"), CONTROLS)
def test_every_control_changes_a_number(lesson_client: TestClient, slug: str, name: str) -> None:
    fields = REQUIRED.get((slug, name), {})
    schema = lessons()[slug].controls.model_json_schema()["properties"][name]
    before = post_panels(lesson_client, slug, **fields)
    default = lessons()[slug].controls.model_fields[name].default
    assert any(
        post_panels(lesson_client, slug, **fields, **{name: value}) != before for value in other_values(schema, default)
    )


@pytest.mark.parametrize("slug", SLUGS)
def test_an_empty_or_too_long_text_is_refused_with_a_reason(lesson_client: TestClient, slug: str) -> None:
    n, model = n_context(lesson_client, SHIPPED.name), SHIPPED.name
    for text, message in (("", "The text is empty"), ("the" + " the" * n, f"{n + 1} tokens")):
        reply = lesson_client.post(f"/api/v1/experiments/{slug}", json={"text": text, "model": model})
        assert reply.status_code == 422
        assert message in reply.json()["detail"]
        page = lesson_client.get(f"/lessons/{slug}", params={"text": text or " ", "model": "none"})
        assert page.status_code == 404
        assert "none" in page.text


def markup(panel: Panel) -> str:
    """The markup of one of a panel's values in the page."""
    number: float | str | None
    match panel:
        case Heatmap(values=[*_, [number, *_]]) | Cube(values=[*_, [*_, [number, *_]]]):
            pass
        case Curves(lines=[Line(y=[*_, number]), *_]) | Points(points=[*_, Point(y=number)]):
            pass
        case Chips(rows=[*_, ChipRow(chips=[*_, Chip(text=text)])]):
            return f">{text}"
        case Bars(values=[*_, number]) | Facts(values=[*_, number]):
            pass
        case _:
            raise AssertionError(panel)
    return f"<td>{format_value(number)}</td>"


@pytest.mark.parametrize("slug", SLUGS)
def test_the_page_has_the_numbers_of_the_api_without_any_script(lesson_client: TestClient, slug: str) -> None:
    query: dict[str, str | list[str]] = {
        "text": SENTENCE,
        "model": SHIPPED.name,
        "layer": "0",
        "head": "0",
        "prove": "1",
    }
    query["open"] = [info.name for info in panel_infos(lessons()[slug].work)]
    page = lesson_client.get(f"/lessons/{slug}", params=query)
    assert page.status_code == 200
    for panel in post_panels(lesson_client, slug).values():
        assert markup(panel) in html.unescape(page.text)
    for check in post_checks(lesson_client, slug):
        assert check.name.replace("'", "&#39;") in page.text


@pytest.mark.parametrize("slug", [slug for slug, lesson in lessons().items() if lesson.requirement])
def test_a_lesson_that_cannot_use_the_model_shows_lookback_gpt_and_says_so(
    lesson_client: TestClient, slug: str
) -> None:
    requested = default_model(lesson_client)
    reply = lesson_client.post(f"/api/v1/experiments/{slug}", json={"text": SENTENCE, "model": requested})
    page = lesson_client.get(f"/lessons/{slug}", params={"text": SENTENCE, "model": requested})
    assert page.status_code == 200
    assert reply.status_code == 422
    assert "Choose lookback-gpt" in reply.json()["detail"]
    reply_without_model = lesson_client.post(f"/api/v1/experiments/{slug}", json={"text": SENTENCE})
    assert reply_without_model.json()["model"] == "lookback-gpt"
    assert f"<b>{requested}</b> does not have; you see <b>lookback-gpt</b>" in page.text
    fitting_page = lesson_client.get(f"/lessons/{slug}", params={"text": SENTENCE, "model": "lookback-gpt"})
    assert "does not have" not in fitting_page.text


def test_the_list_of_lessons_is_in_order_and_its_links_keep_text_and_model(lesson_client: TestClient) -> None:
    page = lesson_client.get("/lessons", params={"text": "a b", "model": "m"}).text
    positions = [page.index(f'href="/lessons/{slug}?text=a+b&amp;model=m"') for slug in SLUGS]
    assert positions == sorted(positions)
    for slug, next_slug in pairwise(SLUGS):
        assert f"/lessons/{next_slug}?text=" in lesson_client.get(f"/lessons/{slug}", params={"text": "a b"}).text


def test_every_lesson_describes_itself(lesson_client: TestClient) -> None:
    for lesson in lesson_client.get("/api/v1/experiments").json():
        described = lesson_client.get(lesson["call"]).json()
        assert described["summary"]
        assert described["broken"] or not lesson["number"]
        assert all(panel["description"] for panel in described["panels"])
        reply = lesson_client.post(lesson["call"], json={"text": "a b"}).json()
        assert list(reply["panels"]) == [panel["name"] for panel in described["panels"]]


def test_the_old_addresses_of_lessons_lead_to_the_new_ones(lesson_client: TestClient) -> None:
    for path in ("softmax", "softmax/checks"):
        reply = lesson_client.post(f"/api/v2/lessons/{path}", json={"text": "a"}, follow_redirects=False)
        assert (reply.status_code, reply.headers["location"]) == (308, f"/api/v1/experiments/{path}")


def test_every_lesson_links_to_the_symbols_and_to_its_sources(lesson_client: TestClient) -> None:
    assert lesson_client.get("/lessons/symbols").status_code == 200
    for slug, lesson in lessons().items():
        page = lesson_client.get(f"/lessons/{slug}", params={"text": "a b"}).text
        assert 'href="/lessons/symbols"' in page
        for reference in lesson.posts:
            assert f'<a href="{reference.address}" rel="external">{escaped(reference.title)}</a>' in page


def test_a_position_beyond_the_end_of_the_text_means_its_last_token(lesson_client: TestClient) -> None:
    beyond, last = (
        post_panels(lesson_client, "vectors", text="the", first_token=position)["token_facts"] for position in (5, 0)
    )
    assert beyond == last


def test_a_second_text_of_the_batch_that_is_too_long_is_refused_with_a_reason(lesson_client: TestClient) -> None:
    fields = {"text": "a", "model": default_model(lesson_client), "second_text": "the" + " the" * 256}
    reply = lesson_client.post("/api/v1/experiments/batches", json=fields)
    assert reply.status_code == 422
    assert "257 tokens" in reply.json()["detail"]


def impossible_fields(slug: str) -> tuple[dict[str, object], str]:
    """Fields with a layer or head that no model has, and the message that refuses them."""
    properties = lessons()[slug].controls.model_json_schema()["properties"]
    fields: dict[str, object] = {"layer": 99}
    for name, schema in properties.items():
        if name == "head" or schema.get("kind") in ("heads", "head"):
            fields = {name: [99] if schema.get("kind") == "heads" else 99}
        if name == "source":
            fields |= {"source": "book"}
    return fields, "There is no layer 99" if "layer" in fields else "There is no head 99"


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if "layer" in lessons()[slug].controls.model_fields])
def test_a_layer_or_head_that_the_model_does_not_have_is_refused_with_the_same_message_everywhere(
    lesson_client: TestClient, slug: str
) -> None:
    fields, message = impossible_fields(slug)
    for path in (slug, f"{slug}/checks"):
        reply = lesson_client.post(
            f"/api/v1/experiments/{path}", json={"text": SENTENCE, "model": SHIPPED.name, **fields}
        )
        assert (reply.status_code, message in reply.json()["detail"]) == (422, True)
    query = {name: "99" if value == [99] else str(value) for name, value in fields.items()}
    page = lesson_client.get(f"/lessons/{slug}", params={"text": SENTENCE, "model": SHIPPED.name, **query})
    assert (page.status_code, message in page.text) == (422, True)


@pytest.mark.parametrize(
    ("slug", "fields", "reason"),
    [
        ("dropout", {"rate": 0.0}, "at rate 0 a number is dropped about 0 times"),
        ("dropout", {"rate": 0.001}, "at rate 0.001 a number is dropped about 2 times"),
        ("causal-mask", {"replacement": "mat"}, "the replacement is the same token"),
        ("causal-mask", {"changed_token": 0}, "no token comes before it"),
        ("input-embedding", {"text": "the fat cat"}, "no two tokens of this text are the same"),
        ("token-embedding", {"text": "the fat cat"}, "no two tokens of this text are the same"),
        ("complexity", {"text": "the"}, "the only token of this text is inside the window"),
        ("projections", {"matrix": "the book's query"}, "the book's matrix is in no model"),
        ("softmax", {"naive": True}, "the naive softmax is chosen"),
    ],
)
def test_a_check_that_does_not_apply_says_why_in_the_api_and_on_the_page(
    lesson_client: TestClient, slug: str, fields: dict[str, str | float], reason: str
) -> None:
    listed = post_checks(lesson_client, slug, **fields)
    assert [check for check in listed if check.passed is False] == []
    assert any(check.passed is None and reason in check.reason for check in listed)
    query: dict[str, str | float] = {"text": SENTENCE, "model": SHIPPED.name, **fields, "prove": "1"}
    page = lesson_client.get(f"/lessons/{slug}", params=query).text
    assert '<li data-passed="null"><b>does not apply</b>' in page
    assert escaped(reason) in page


def test_an_address_with_one_wrong_field_keeps_the_other_fields(lesson_client: TestClient) -> None:
    page = lesson_client.get(
        "/lessons/dropout", params={"text": SENTENCE, "rate": "2", "seed": "7", "inference": "false"}
    )
    assert page.status_code == 422
    assert "rate: Input should be less than or equal to 0.9" in page.text
    assert 'name="seed" min="0" max="100" step="1" value="7"' in page.text
    assert 'name="inference" value="true" >' in page.text  # not ticked


@pytest.mark.parametrize(("slug", "panel"), [("input-embedding", "facts"), ("token-embedding", "pair_facts")])
def test_a_token_that_occurs_only_once_is_not_compared(lesson_client: TestClient, slug: str, panel: str) -> None:
    once, twice = (
        post_facts(lesson_client, slug, panel, token=position)
        for position in (1, 5)  # fat; the second "the"
    )
    assert once.values == ["nowhere in this text: choose another one"]
    assert twice.title.startswith("5 ·the and 0 ·the")


def test_the_number_of_merges_is_that_of_the_tokenizer(
    smollm2: tuple[GPT, Tokenizer], lesson_client: TestClient
) -> None:
    assert smollm2[1].n_merges == 48_900
    facts = post_facts(lesson_client, "tokens", "facts")
    n_merges = facts.values[facts.names.index("merges that the tokenizer has learned")]
    assert isinstance(n_merges, float)
    assert 256 < n_merges < 3_900


def test_an_id_without_a_token_has_a_label(tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "wide", vocab_size=N_VOCAB + 40)
    loaded = LoadedModel("wide", *load(folder, device=CPU, dtype=FLOAT), max_tokens=64)
    assert make_work(loaded, "softmax", SENTENCE).ranked_labels(torch.tensor([N_VOCAB])) == [f"0 (no token {N_VOCAB})"]


def test_before_an_edge_is_cut_no_change_is_shown_not_even_0(client: TestClient) -> None:
    """A 0 would read as "cutting fat changes nothing"."""
    name = "largest change of a probability after the text"
    for cut in (False, True):
        panels = post_panels(client, "self-attention", cut=cut)
        facts = next(panel for panel in panels.values() if isinstance(panel, Facts) and name in panel.names)
        value, changes = facts.values[facts.names.index(name)], panels["probability_changes"]
        assert isinstance(changes, Bars)
        if cut:
            assert isinstance(value, float)
            assert value > 0
            assert any(changes.values)
        else:
            assert value == "not cut yet"
            assert set(changes.values) == {None}
