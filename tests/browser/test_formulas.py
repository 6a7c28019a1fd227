"""Chromium and Firefox draw every formula of every lesson: radicals are complete, and brackets have the right size."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from app.experiments.base import experiments
from tests.browser import firefox
from tests.browser.conftest import WIDE
from tests.browser.server import Server

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
SCRIPT = (Path(__file__).parent / "formulas.js").read_text()
RATIO = 2  # pixels of the screenshot per CSS pixel
FONT_PX = 20  # no bracket is smaller than in plain text of this size
LINE_PX = 2.0  # the thickness of an antialiased line

Evaluate = Callable[[str, Any], Any]
Screenshot = Callable[[], bytes]


@contextmanager
def in_chromium(browser: Browser, url: str) -> Iterator[tuple[Evaluate, Screenshot]]:
    """A page in Chromium: functions that evaluate a script in it, and take a screenshot of all of it."""
    with browser.new_context(viewport=WIDE, device_scale_factor=RATIO) as context:
        page = context.new_page()
        page.goto(url)
        yield page.evaluate, lambda: page.screenshot(full_page=True)


@contextmanager
def in_firefox(_: Browser, url: str) -> Iterator[tuple[Evaluate, Screenshot]]:
    """The same in Firefox."""
    if firefox.find() is None:
        pytest.skip("no Firefox found; `python -m tests.browser.firefox` installs one")
    with firefox.start() as page:
        page.resize(WIDE["width"], WIDE["height"], RATIO)
        page.goto(url)
        yield page.evaluate, page.screenshot


@pytest.fixture(scope="module", params=[in_chromium, in_firefox])
def drawn(request: pytest.FixtureRequest, browser: Browser, server: Server, screenshots: Path) -> dict[str, Any]:
    """The result of `gather` in formulas.js; each shape also has the result of `ink`, as `measured`."""
    with request.param(browser, f"{server.url}/lessons/symbols") as (evaluate, screenshot):
        page: dict[str, Any] = evaluate(
            f"(pages) => {SCRIPT}.gather(pages)", [experiment.page for experiment in experiments().values()]
        )
        png = screenshot()
        picture = {"png": base64.b64encode(png).decode(), "shapes": page["shapes"], "ratio": RATIO}
        measured = evaluate(f"(picture) => {SCRIPT}.ink(picture)", picture)
    (screenshots / f"formulas-{request.param.__name__}.png").write_bytes(png)
    for shape, ink in zip(page["shapes"], measured, strict=True):
        shape["measured"] = ink
    return page


def shapes(drawn: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The shapes of a kind, at least one: without any, a test would pass without testing anything."""
    chosen = [shape for shape in drawn["shapes"] if shape["kind"] == kind]
    assert chosen
    return chosen


def test_no_formula_is_missing_or_cut_and_the_served_font_draws_them(drawn: dict[str, Any]) -> None:
    written = [path.read_text().count("| mathml") for path in TEMPLATES.rglob("*.html")]
    assert len(drawn["formulas"]) == sum(written)
    assert not drawn["cut"], drawn["cut"]
    assert "STIX Two Math" in drawn["fonts"]


def test_a_radical_is_as_high_as_its_content_and_its_bar_covers_all_of_it(drawn: dict[str, Any]) -> None:
    radicals = shapes(drawn, "radical")
    assert len(radicals) == sum(len(re.findall(r"\\sqrt", path.read_text())) for path in TEMPLATES.rglob("*.html"))
    for shape in radicals:
        measured = shape["measured"]
        assert measured["bar"] > 0.95, json.dumps(shape)
        (top, bottom), (content_top, content_bottom) = measured["ink"], measured["content"]
        assert top < content_top, json.dumps(shape)
        assert bottom > content_bottom - LINE_PX, json.dumps(shape)


def test_a_bracket_is_as_high_as_its_content_and_not_much_higher(drawn: dict[str, Any]) -> None:
    for shape in shapes(drawn, "bracket"):
        (top, bottom), (content_top, content_bottom) = shape["measured"]["ink"], shape["measured"]["content"]
        assert top <= content_top + LINE_PX, json.dumps(shape)
        assert bottom >= content_bottom - LINE_PX, json.dumps(shape)
        _, box_top, _, box_bottom = shape["content"]
        assert bottom - top < 1.5 * max(box_bottom - box_top, FONT_PX), json.dumps(shape)


def test_a_brace_is_as_wide_as_its_content(drawn: dict[str, Any]) -> None:
    for shape in shapes(drawn, "brace"):
        (left, right), (content_left, content_right) = shape["measured"]["ink"], shape["measured"]["content"]
        assert right - left > 0.85 * (content_right - content_left), json.dumps(shape)
