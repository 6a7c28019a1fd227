"""Rendering: what a template may use, and the functions that every template has."""

from dataclasses import dataclass

import pytest
from jinja2 import DictLoader, UndefinedError
from starlette.requests import Request

from app import templating


@dataclass
class GreetingPage:
    """The context of a small template."""

    name: str


@pytest.fixture
def request_of_page(monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request for a page, while the templates are two small ones."""
    templates = {"right.html": "{{ name }}: {{ address({'text': name}) }}", "wrong.html": "{{ nmae }}"}
    monkeypatch.setattr(templating.templates().env, "loader", DictLoader(templates))
    return Request({"type": "http", "method": "GET", "path": "/", "headers": []})


def test_a_page_is_rendered_from_the_fields_of_its_dataclass(request_of_page: Request) -> None:
    response = templating.render(request_of_page, "right.html", GreetingPage("<b>"), status=404)
    assert (response.status_code, response.media_type) == (404, "text/html")
    assert response.body == b"&lt;b&gt;: /?text=%3Cb%3E"


def test_a_name_that_the_page_does_not_have_is_an_error(request_of_page: Request) -> None:
    with pytest.raises(UndefinedError, match="nmae"):
        templating.render(request_of_page, "wrong.html", GreetingPage("x"))


def test_a_formula_becomes_a_mathml_block_that_is_not_escaped() -> None:
    assert templating.mathml(r"\sqrt{d}").startswith("<math ")
    assert 'display="block"' in templating.mathml(r"\sqrt{d}")
    template = templating.templates().env.from_string(r"{{ '\\sqrt{d}' | mathml }}")
    assert "<msqrt>" in template.render()
