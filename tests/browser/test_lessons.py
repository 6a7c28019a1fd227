"""Every lesson in a real browser: each of its controls changes numbers, its checks turn red when it is broken."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page

from app.lessons.lesson import lessons
from tests.browser.conftest import PHONE, WIDE, Tab, tab
from tests.browser.server import Server

SLUGS = tuple(lessons())
FIRST = "the fat cat sat on the mat"
CALM = "() => !document.body.classList.contains('stale')"
DRAWN = f"{CALM} && [...document.querySelectorAll('[data-part] .figure')].every((place) => 'drawn' in place.dataset)"
CHANGED = (
    "(before) => [...document.querySelectorAll('[data-part] :is(table, .chips)')]"
    ".map((place) => place.textContent).join() !== before"
)
WRITTEN = (
    "() => location.search.slice(1) === String(new URLSearchParams("
    "[...new FormData(document.getElementById('lesson'))].filter(([, value]) => value !== '')))"
)
FOLLOWED = (
    "() => [...document.querySelectorAll('[data-part] .figure svg')].every((svg) => svg.clientWidth <= innerWidth)"
)


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        yield opened


@pytest.fixture
def page(shared_tab: Tab) -> Iterator[Page]:
    shared_tab.page.set_viewport_size(WIDE)
    shared_tab.page.emulate_media(color_scheme="light")
    yield shared_tab.page
    shared_tab.check()


def go(page: Page, server: Server, slug: str, **query: Any) -> None:
    page.goto(f"{server.url}/lessons/{slug}?{urlencode({'text': FIRST, 'model': 'lookback-gpt', **query})}")
    page.wait_for_function(DRAWN)


def numbers(page: Page) -> str:
    return ",".join(page.locator("[data-part] :is(table, .chips)").all_text_contents())


def change(control: Locator) -> None:
    """Another value, as a visitor gives it."""
    field = control.locator("[name]").first
    kind = control.get_attribute("data-kind")
    if kind == "text":
        field.fill("a dog ran")
    elif kind in ("choice", "token"):
        n, chosen = field.locator("option").count(), field.evaluate("(select) => select.selectedIndex")
        field.select_option(index=(chosen + (2 if n > 2 else 1)) % n)
    elif kind in ("switch", "heads"):
        field.check()
    elif kind == "number":
        field.fill("1" if field.input_value() == "0" else "0")
    else:
        field.focus()
        is_at_end = field.evaluate("(slider) => slider.value === slider.max")
        for key in ["Home"] if is_at_end else ["ArrowRight"] * 3:
            field.press(key)


def restore(control: Locator) -> None:
    """What makes other controls do nothing is taken back."""
    field = control.locator("[name]").first
    if control.get_attribute("data-kind") == "choice":
        field.select_option(index=0)
    elif control.get_attribute("data-kind") in ("switch", "heads"):
        field.uncheck()


@pytest.mark.parametrize("slug", SLUGS)
def test_every_control_changes_numbers_and_the_address_brings_them_back(page: Page, server: Server, slug: str) -> None:
    go(page, server, slug)
    controls = page.locator("[data-control]").all()
    assert controls
    for control in controls:
        before = numbers(page)
        change(control)
        page.wait_for_function(CHANGED, arg=before)
        restore(control)
        page.wait_for_function(CALM)
    page.wait_for_function(WRITTEN)
    after = numbers(page)
    page.reload()
    page.wait_for_function(DRAWN)
    assert numbers(page) == after


@pytest.mark.parametrize("slug", SLUGS)
def test_its_checks_hold_one_fails_when_it_is_broken_and_axe_finds_nothing(
    page: Page, server: Server, slug: str
) -> None:
    go(page, server, slug)
    page.get_by_role("button", name="Prove it").click()
    page.locator("#checks li").first.wait_for()
    assert set(page.locator("#checks li b").all_text_contents()) == {"holds"}
    page.get_by_label("Break it").check()
    page.locator("#checks [data-passed=false]").first.wait_for()
    assert violations(page) == ""
    page.get_by_label("Break it").uncheck()
    page.locator("#checks [data-passed=false]").first.wait_for(state="detached")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(FOLLOWED)
    assert violations(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def violations(page: Page) -> str:
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


def test_what_is_typed_is_read_goes_along_to_other_lessons_and_stays_where_it_cannot_be_read(
    page: Page, shared_tab: Tab, server: Server
) -> None:
    shared_tab.watch.allow("status of 422")
    go(page, server, SLUGS[0])
    page.locator("#text").fill("")
    page.locator("#notice", has_text="0 characters").wait_for()
    page.locator("#text").fill("one two <b>x</b>")
    page.locator("#notice").wait_for(state="hidden")
    page.wait_for_function("() => document.querySelector('[data-keeps]').search.includes('one+two')")
    page.get_by_role("link", name="All lessons").click()
    page.wait_for_url("**/lessons?*")
    assert violations(page) == ""
    page.locator(f"a[href*='/lessons/{SLUGS[1]}?']").click()
    page.wait_for_function(DRAWN)
    assert page.locator("#text").input_value() == "one two <b>x</b>"


@pytest.mark.parametrize("slug", SLUGS)
def test_without_scripts_the_form_asks_and_the_numbers_are_there(browser: Browser, server: Server, slug: str) -> None:
    with tab(browser, server.url, java_script_enabled=False) as plain:
        plain.page.goto(f"{server.url}/lessons/{slug}?{urlencode({'text': FIRST, 'model': 'lookback-gpt'})}")
        before = numbers(plain.page)
        control = plain.page.locator("[data-control]").first
        change(control)
        plain.page.locator("#prove").click()
        plain.page.wait_for_url("**prove=1*")
        assert numbers(plain.page) != before
        assert set(plain.page.locator("#checks li b").all_text_contents()) == {"holds"}
