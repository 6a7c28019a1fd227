"""The pages before any script runs: what they show, and that an error keeps what was typed."""

import dataclasses
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jinja2 import meta

from app.main import create_app
from app.middleware import CONTENT_SECURITY_POLICY
from app.models import Entry, Models
from app.routes import assets, pages
from app.settings import Settings
from app.templating import ROOT, STATIC, modules, templates
from tests.conftest import serve


def get(client: TestClient, path: str = "/", **query: Any) -> tuple[int, str]:
    reply = client.get(path, params=query)
    return reply.status_code, reply.text


def notice(html: str) -> str:
    match = re.search(r'<p id="notice"[^>]*>(.*?)</p>', html, re.DOTALL)
    assert match
    return unescape(match[1])


def typed(html: str) -> str:
    match = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", html, re.DOTALL)
    assert match
    return unescape(match[1])


def test_the_page_shows_tokens_numbers_and_predictions_without_scripts(client: TestClient) -> None:
    status, html = get(client, text="the fat cat", layer=2, head=3, stage="scores", query=1)
    reply = client.post("/api/v1/attention", json={"text": "the fat cat", "layers": [2], "heads": [3]}).json()
    assert status == 200
    assert notice(html) == ""
    assert typed(html) == "the fat cat"
    for token, weight in zip(reply["tokens"], reply["values"][0][0][1], strict=True):
        assert f"{token['position']} <bdi>{token['text']}</bdi></th>" in html
        assert f"{weight:.6f}<meter" in html
    top = client.post("/api/v1/predictions", json={"text": "the fat cat", "positions": "all"}).json()["predictions"][1]
    assert f"{100 * top['top'][0]['probability']:.2f} %" in html
    assert re.search(r'data-stage="scores" aria-current="true"', html)
    assert len(re.findall(r'aria-current="true"', html)) == 2  # one token, one stage


@pytest.mark.parametrize("text", ["<b>x</b>", "</textarea><script>alert(1)</script>", '"&amp;', "\n\nx", " x "])
def test_text_is_escaped_and_kept_exactly(client: TestClient, text: str) -> None:
    status, html = get(client, text=text)
    assert status in (200, 422)
    assert typed(html) == text
    assert "<b>x" not in html
    assert "<script>alert" not in html


def test_line_ends_of_a_form_become_those_of_its_text_box(client: TestClient) -> None:
    assert typed(get(client, text="a\r\nb")[1]) == "a\nb"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"text": "cat " * 99}, "tiny-llama reads 64"),
        ({"text": "cat", "layer": 3}, "There is no layer 3; tiny-llama has 3"),
        ({"text": "cat", "head": "x"}, "head: Input should be a valid integer"),
        ({"text": "cat", "head": "9" * 500}, "head: Input should be"),
        ({"text": "cat", "query": 50}, "There is no position 50"),
        ({"text": "cat", "stage": "soup"}, "stage: Input should be 'scores'"),
        ({"text": "a\0b"}, "NUL"),
    ],
)
def test_an_invalid_address_is_explained_and_keeps_what_was_typed(
    client: TestClient, query: dict[str, Any], words: str
) -> None:
    status, html = get(client, **query)
    assert status == 422
    assert words in notice(html)
    assert typed(html) == query["text"]


@pytest.mark.parametrize("path", ["/", "/training"])
def test_the_page_says_what_is_changed_and_has_a_link_that_removes_each_edit(client: TestClient, path: str) -> None:
    status, html = get(client, path, text="the fat cat", edits="cut:1.2:2>1,scale:0.1:0", layer=1, head=2, query=2)
    assert (status, notice(html)) == (200, "")
    assert 'data-edits="cut:1.2:2&gt;1,scale:0.1:0"' in html
    assert '<input type="hidden" id="edits" name="edits" value="cut:1.2:2&gt;1,scale:0.1:0">' in html
    assert "Head 2 of layer 1: token 2 does not attend to token 1." in html
    assert "Head 1 of layer 0 is switched off" in html
    links = [unescape(link) for link in re.findall(r'<a href="([^"]+)" aria-label="Remove', html)]
    assert ["edits=cut%3A1.2%3A2%3E1" in link for link in links] == [True, False]
    assert ["edits=scale%3A0.1%3A0" in link for link in links] == [False, True]
    (unchanged,) = re.findall(r'<a href="([^"]+)">show it unchanged</a>', html)
    assert "edits" not in unchanged
    assert client.get(unescape(unchanged)).status_code == 200
    assert "edits=cut%3A1.2%3A2%3E1%2Cscale%3A0.1%3A0" in unescape(html)  # the other links keep the edits
    assert re.search(r'<tr class="masked">\s*<th scope="row">1 <bdi>', html)  # the cut cell


def test_without_edits_the_page_speaks_of_none(client: TestClient) -> None:
    html = get(client, text="the fat cat")[1]
    assert 'data-edits=""' in html
    assert re.search(r'<section id="edits-list"[^>]*hidden>', html)
    assert "edits=" not in "".join(re.findall(r'href="([^"]+)"', html))


def test_edits_that_cannot_be_made_are_explained_and_the_text_and_the_edits_are_kept(client: TestClient) -> None:
    status, html = get(client, text="the fat cat", edits="scale:9.1:0<b>")
    assert (status, typed(html)) == (422, "the fat cat")
    assert "edit 'scale:9.1:0<b>': '0<b>' is no number" in notice(html)
    assert "<code>scale:9.1:0&lt;b&gt;</code>" in html
    assert re.search(r'<a href="[^"]+">show it unchanged</a>', html)


def test_a_query_attends_to_later_tokens_where_the_mask_is_removed(client: TestClient) -> None:
    html = get(client, text="the fat cat", edits="nomask:1.2", layer=1, head=2, query=0)[1]
    assert "masked" not in re.findall(r"<tr class=\"(\w*)\">", html)
    assert "Head 2 of layer 1 also attends to later tokens." in html


def test_an_unknown_model_is_explained(client: TestClient) -> None:
    status, html = get(client, text="cat", model="<gpt5>")
    assert (status, typed(html)) == (404, "cat")
    assert "There is no model '<gpt5>'" in notice(html)


@pytest.fixture
def loading_client(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of an app whose model never becomes ready."""
    monkeypatch.setattr("app.models.Models._start_load", lambda _, entry: setattr(entry, "loading", True))
    with TestClient(create_app(Settings(model=str(tiny_llama)))) as client:
        yield client


def test_while_the_model_loads_the_pages_say_so(loading_client: TestClient) -> None:
    status, html = get(loading_client, text="cat")
    assert (status, typed(html)) == (200, "cat")
    assert "tiny-llama is not ready yet" in notice(html)
    assert loading_client.get("/healthz").status_code == 200
    ready = loading_client.get("/readyz")
    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    call = loading_client.post("/api/v1/attention", json={"text": "cat"})
    assert (call.status_code, call.headers["retry-after"]) == (503, "1")
    assert call.json()["type"] == "/problems/model-loading"
    assert loading_client.get("/api/v1/models").json()["models"][0]["state"] == "loading"


@pytest.fixture
def fallback_client(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of an app whose fallback model is ready, while the default model never becomes ready."""
    start = Models._start_load

    def start_fallback(models: Models, entry: Entry) -> None:
        if entry.source.name == "lookback-gpt":
            start(models, entry)
        else:
            entry.loading, entry.doing = True, "fetching <weights>, 34 of 93 MB."

    monkeypatch.setattr(Models, "_start_load", start_fallback)
    with TestClient(create_app(Settings(model=str(tiny_llama)))) as client:
        while client.get("/api/v2/models/lookback-gpt/checkpoints").status_code != 200:
            pass
        yield client


def test_until_the_default_model_is_ready_the_fallback_is_shown(fallback_client: TestClient) -> None:
    status, html = get(fallback_client, text="the fat cat")
    assert (status, notice(html), typed(html)) == (200, "", "the fat cat")
    assert re.search(r'<option value="lookback-gpt" selected', html)
    assert "<b>tiny-llama</b> is not ready" in html
    assert "fetching &lt;weights&gt;, 34 of 93 MB</span>. Until it is" in html
    assert 'href="/?model=tiny-llama&amp;text=the+fat+cat"' in html
    fallback_client.app.state.engine.models.entries["tiny-llama"].failure = "The index is out of reach."  # type: ignore[attr-defined]
    assert "The index is out of reach</span>" in get(fallback_client)[1]


def test_the_fallback_never_replaces_a_model_that_was_named_nor_any_model_for_programs(
    fallback_client: TestClient,
) -> None:
    """A program that names no model would not notice that today's reply comes from a different model."""
    assert "tiny-llama is not ready yet" in notice(get(fallback_client, model="tiny-llama", text="cat")[1])
    assert 'id="stand-in"' not in get(fallback_client, model="tiny-llama", text="cat")[1]
    assert fallback_client.post("/api/v1/attention", json={"text": "cat"}).status_code == 503
    assert fallback_client.get("/readyz").status_code == 503


def test_when_the_default_model_is_ready_there_is_no_fallback(client: TestClient) -> None:
    assert 'id="stand-in"' not in get(client)[1]


def test_the_server_is_ready_and_healthy(client: TestClient) -> None:
    assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200


def test_readiness_distinguishes_loading_failed_and_a_stopped_worker(
    loading_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loading_client.app.state.engine  # type: ignore[attr-defined]
    assert loading_client.get("/readyz").json()["state"] == "loading"
    entry = engine.models.entries["tiny-llama"]
    entry.loading, entry.failure = False, "config.json has no n_layer."
    assert loading_client.get("/readyz").json() == {
        "ready": False,
        "state": "failed",
        "model": "tiny-llama",
        "doing": "config.json has no n_layer",
    }
    assert loading_client.get("/healthz").status_code == 200
    monkeypatch.setattr(engine, "is_alive", False)
    assert loading_client.get("/readyz").json()["state"] == "stopped"
    assert loading_client.get("/healthz").status_code == 503


def test_a_page_of_a_model_that_is_not_here_does_not_fetch_it(client: TestClient) -> None:
    status, html = get(client, text="cat", model="gpt2-xl")
    assert (status, typed(html)) == (404, "cat")
    assert "`lookback fetch gpt2-xl`" in notice(html)
    entry = client.app.state.engine.models.entries["gpt2-xl"]  # type: ignore[attr-defined]
    assert not entry.loading
    models = {model["name"]: model for model in client.get("/api/v1/models").json()["models"]}
    assert (models["gpt2-xl"]["state"], models["gpt2-xl"]["command"]) == ("not here", "lookback fetch gpt2-xl")
    assert (models["tiny-llama"]["state"], models["tiny-llama"]["command"]) == ("ready", None)


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/training", "/docs", "/lessons", "/lessons/softmax", "/healthz", "/api/v1/models", "/openapi.json"),
        *("/static/app.css", assets.PLOTLY, "/problems/busy", "/nothing"),
    ],
)
def test_head_has_the_headers_of_get_and_no_body(client: TestClient, path: str) -> None:
    head, full = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (full.status_code, b"")
    unequal = {name for name in full.headers if name != "date" and head.headers.get(name) != full.headers[name]}
    assert unequal <= {"content-length"}  # of a page that contains a time
    assert full.content


def test_head_is_refused_where_only_post_is_allowed(client: TestClient) -> None:
    reply = client.head("/api/v1/attention")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/lessons/nothing", 404), ("POST", "/", 405), ("GET", "/api/v1/tokens", 405)],
)
def test_an_error_is_a_page_for_people_and_problem_json_for_programs(
    client: TestClient, method: str, path: str, status: int
) -> None:
    page = client.request(method, path, headers=BROWSER)
    problem = client.request(method, path)
    assert page.status_code == problem.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["detail"] in unescape(page.text)
    assert '<a href="/">' in page.text
    assert "Accept" in page.headers["vary"]


class Panic(BaseException):
    """What a library written in Rust raises when it panics: it is no Exception."""


@pytest.mark.parametrize("kind", [ZeroDivisionError, Panic])
def test_an_unexpected_error_is_a_page_that_keeps_what_was_typed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr("app.service.compute_page", fail)
        page = client.get("/", params={"text": "a <b> cat"}, headers=BROWSER)
        program = client.post("/api/v2/view", json={"text": "cat"})
    assert (page.status_code, typed(page.text)) == (500, "a <b> cat")
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert f"{kind.__name__}: this is a fault of the server" in page.text
    assert (program.status_code, program.json()["title"]) == (500, "The server made a mistake")
    assert program.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert client.get("/", params={"text": "a cat"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/training", "/docs", "/static/home.js", "/api/v1/models", "/nothing", "/healthz"]
)
def test_every_reply_forbids_content_of_other_origins(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_no_page_and_no_file_in_static_names_another_origin(client: TestClient) -> None:
    sources = [client.get(path).text for path in ("/", "/training", "/docs", "/problems/busy")]
    sources += [path.read_text() for path in STATIC.iterdir() if path.suffix != ".png"]
    for source in sources:
        assert re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.[a-z]{2,}", source) == []


def test_the_font_of_formulas_is_complete_free_and_cached_under_its_version(client: TestClient) -> None:
    sheet = client.get("/static/app.css").text
    (address,) = re.findall(r'url\("([^"]+)"\)', sheet)
    reply = client.get(f"/static/{address}")
    assert reply.headers["content-type"] == "font/ttf"
    assert "immutable" in reply.headers["cache-control"]
    assert int(reply.headers["content-length"]) < 800_000 < len(reply.content)
    (version,) = re.findall(r"-(\d+\.\d+)\.ttf", address)
    for words in ("STIX Two Math", f"Version {version}", "SIL Open Font License, Version 1.1"):
        assert words.encode("utf-16-be") in reply.content  # its table of names
    assert b"MATH" in reply.content[:512]  # the directory of its tables


def test_a_page_names_every_module_that_it_loads(client: TestClient) -> None:
    for path in ("/", "/training", "/lessons/softmax"):
        html = client.get(path).text
        (script,) = re.findall(r'<script type="module" src="/static/([\w.]+)"', html)
        preloaded = re.findall(r'<link rel="modulepreload" href="/static/([\w.]+)">', html)
        assert preloaded == modules(script)
        sources = "".join((STATIC / name).read_text() for name in preloaded)
        assert set(re.findall(r'from "\./([\w.]+)"', sources)) == set(preloaded[1:])
    assert "modulepreload" not in client.get("/lessons").text


@pytest.mark.parametrize("path", ["/", "/static/app.css", "/static/home.js", "/static/icon.svg"])
def test_texts_are_compressed_for_those_who_accept_it(client: TestClient, path: str) -> None:
    packed = client.get(path)
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert (packed.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["content-type"] == plain.headers["content-type"]
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert path == "/" or packed.content == plain.content  # the page contains a time


def test_a_file_that_a_browser_has_is_not_sent_again(client: TestClient) -> None:
    for encoding in ("gzip", "identity"):
        headers = {"Accept-Encoding": encoding}
        tag = client.get("/static/home.js", headers=headers).headers["etag"]
        again = client.get("/static/home.js", headers=headers | {"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


def test_plotlys_script_is_compressed_and_cached(client: TestClient) -> None:
    html = client.get("/").text
    match = re.search(r'<meta name="plotly" content="([^"]+)">', html)
    assert match
    compressed = client.get(match[1])
    assert compressed.headers["content-encoding"] == "gzip"
    assert int(compressed.headers["content-length"]) < 1_600_000
    assert "immutable" in compressed.headers["cache-control"]
    plain = client.get(match[1], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == compressed.text


def test_docs_work_without_a_network(client: TestClient) -> None:
    html = client.get("/docs").text
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', html):
        assert client.get(address).status_code == 200, address
    assert "<script>" not in html  # the policy would refuse it
    assert client.get("/openapi.json").json()["info"]["title"] == "Lookback"


def test_the_type_of_every_error_is_the_address_of_a_page_about_it(client: TestClient) -> None:
    problem = client.post("/api/v1/tokens", json={"text": ""}).json()
    page = client.get(problem["type"])
    assert page.status_code == 200
    assert problem["title"] in page.text
    for path, body in (("/api/v1/tokens", b"{"), ("/api/v1/nothing", b"{}")):
        problem = client.post(path, content=body, headers={"Content-Type": "application/json"}).json()
        assert client.get(problem["type"]).status_code == 200
    assert client.get("/problems/internal-error").status_code == 200
    assert client.get("/problems/nothing").status_code == 404


@pytest.mark.parametrize(("template", "page"), [("home", pages.HomePage), ("training", pages.TrainingPage)])
def test_the_context_of_a_page_is_what_its_template_uses(template: str, page: type[pages.Page]) -> None:
    environment = templates().env
    assert environment.loader
    source, _, _ = environment.loader.get_source(environment, f"{template}.html")
    used = meta.find_undeclared_variables(environment.parse(source)) - set(environment.globals)
    assert used == {field.name for field in dataclasses.fields(page)}


@pytest.fixture(scope="module")
def trained_client(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app with a tiny GPT-2 whose training steps are saved."""
    yield from serve(Settings(model=str(tiny_run), weights_dir=tmp_path_factory.mktemp("cache")))


def test_the_training_page_shows_the_model_at_a_step(trained_client: TestClient) -> None:
    query = {"text": "the fat cat", "model": "tiny-run", "step": 4}
    status, html = get(trained_client, "/training", **query, layer=1, head=1, query=1)
    assert (status, notice(html), typed(html)) == (200, "", "the fat cat")
    reply = trained_client.post("/api/v1/attention", json={**query, "layers": [1], "heads": [1]}).json()
    for weight in reply["values"][0][0][1]:
        assert f"{weight:.6f}<meter" in html
    assert re.search(r'name="step" value="4"', html)
    for step in (0, 1, 2, 8):
        state = f"text=the+fat+cat&amp;step={step}&amp;layer=1&amp;head=1&amp;query=1&amp;stage=weights"
        assert f'href="/training?model=tiny-run&amp;{state}"' in html
    assert re.findall(r'aria-current="true">([^<]*)</a></th>', html) == ["4"]


def test_the_training_page_opens_on_the_default_model_if_its_steps_are_saved(trained_client: TestClient) -> None:
    assert re.search(r'<option value="tiny-run" selected', get(trained_client, "/training")[1])


def test_otherwise_the_training_page_opens_on_the_shipped_model(loading_client: TestClient) -> None:
    status, html = get(loading_client, "/training")
    assert status == 200
    assert "lookback-gpt is not ready yet" in notice(html)
    assert typed(html) == pages.FIRST_TEXT_OF_TRAINING


def test_the_training_page_says_that_a_model_has_no_steps(client: TestClient) -> None:
    status, html = get(client, "/training", model="tiny-llama", text="cat")
    assert (status, notice(html)) == (200, "")
    assert re.search(r'id="no-steps" class="no-steps" >\s*<b>tiny-llama</b> came without training steps', html)
    assert 'href="/training?model=lookback-gpt&amp;text=cat"' in html
    assert not re.search(r'id="no-steps"[^>]* >', get(client, "/training", model="gpt5")[1])


@pytest.mark.parametrize("path", ["/", "/training"])
@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"step": 3}, 422, "no parameters of step 3. Saved steps: 0, 1, 2, 4, 8"),
        ({"step": "x"}, 422, "step: Input should be a valid integer"),
        ({"model": "gpt5"}, 404, "There is no model 'gpt5'"),
        ({"text": "cat " * 99}, 422, "tiny-run reads 64"),
    ],
)
def test_an_invalid_address_of_a_model_with_steps_is_explained_too(
    trained_client: TestClient, path: str, query: dict[str, Any], status: int, words: str
) -> None:
    actual_status, html = get(trained_client, path, **{"model": "tiny-run", "text": "cat", **query})
    assert (actual_status, typed(html)) == (status, query.get("text", "cat"))
    assert words in notice(html)


def test_the_installed_package_contains_templates_and_static_files() -> None:
    """Both are beside `app`; pyproject.toml packages all four folders."""
    pyproject = Path(ROOT / "pyproject.toml").read_text()
    assert json.loads(re.search(r"\npackages = (\[.*\])", pyproject)[1]) == ["app", "model", "templates", "static"]  # type: ignore[index]
