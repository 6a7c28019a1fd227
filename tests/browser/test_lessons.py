"""Every lesson in a real browser: its checks turn red when it is broken, and axe finds nothing.

tests/app/test_lessons.py tests over HTTP that each control of each lesson changes its numbers; here each kind of
control is tested, in a few lessons that together have all kinds of controls and panels.
"""

import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints
from urllib.parse import urlencode

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page

from app.experiments.base import lessons, panel_infos
from app.experiments.controls import Control
from app.experiments.panels import AnyPanel
from tests.browser.conftest import PHONE, WIDE, Tab, tab
from tests.browser.server import Server
from tests.browser.test_heatmap import cell_in
from tests.browser.test_pictures import box_of

SLUGS = tuple(lessons())
VARIED = ("vectors", "tokens", "position-embedding", "batches", "multi-head")  # together: all controls and panels
FIRST = "the fat cat sat on the mat"
SETTLED = "() => !document.body.classList.contains('stale')"
DRAWN = (
    f"{SETTLED} && [...document.querySelectorAll('[data-panel] .figure')].every((figure) => 'drawn' in figure.dataset)"
)
NUMBERS_CHANGED = (
    "(before) => [...document.querySelectorAll('[data-panel] :is(table, .chips)')]"
    ".map((element) => element.textContent).join() !== before"
)
ADDRESS_IS_CURRENT = (
    "() => location.search.slice(1) === String(new URLSearchParams("
    "[...new FormData(document.getElementById('experiment'))].filter(([, value]) => value !== '')))"
)
# A table is filled when it is opened; tests that compare numbers need all of them.
OPEN_TABLES = """addEventListener("DOMContentLoaded", () => {
  for (const details of document.querySelectorAll("[data-panel] details")) details.open = true;
})"""
RESIZED = (
    "() => [...document.querySelectorAll('[data-panel] .figure :is(svg, canvas)')]"
    ".every((picture) => picture.clientWidth <= innerWidth)"
)


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def tab_with_open_tables(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        opened.page.add_init_script(OPEN_TABLES)
        yield opened


def front_page(opened: Tab) -> Page:
    """The page of a tab, in front, wide and light."""
    opened.page.bring_to_front()  # Chromium draws a hidden tab only once a second
    opened.page.set_viewport_size(WIDE)
    opened.page.emulate_media(color_scheme="light")
    return opened.page


@pytest.fixture
def page(shared_tab: Tab) -> Iterator[Page]:
    yield front_page(shared_tab)
    shared_tab.check()


def go(page: Page, server: Server, slug: str, **query: Any) -> None:
    page.goto(f"{server.url}/lessons/{slug}?{urlencode({'text': FIRST, 'model': 'lookback-gpt', **query})}")
    page.wait_for_function(DRAWN)


def numbers(page: Page) -> str:
    return ",".join(page.locator("[data-panel] :is(table, .chips)").all_text_contents())


def change(control: Locator) -> None:
    """Give a control another value, as a user does."""
    field = control.locator("[name]").first
    kind = control.get_attribute("data-kind")
    if kind == "text":
        field.fill("a dog ran")
    elif kind in ("choice", "token"):
        n, chosen = field.locator("option").count(), field.evaluate("(select) => select.selectedIndex")
        field.select_option(index=(chosen + (2 if n > 2 else 1)) % n)
    elif kind in ("switch", "heads"):
        field.check()
    elif kind in ("number", "layer", "head"):
        field.fill("1" if field.input_value() == "0" else "0")
    else:
        field.focus()
        is_at_end = field.evaluate("(slider) => slider.value === slider.max")
        for key in ["Home"] if is_at_end else ["ArrowRight"] * 3:
            field.press(key)


def restore(control: Locator) -> None:
    """Reset a control whose value can disable others."""
    field = control.locator("[name]").first
    if control.get_attribute("data-kind") == "choice":
        field.select_option(index=0)
    elif control.get_attribute("data-kind") in ("switch", "heads"):
        field.uncheck()


def test_the_chosen_lessons_have_all_kinds_of_controls_and_panels(server: Server) -> None:
    pages = "".join(httpx.get(f"{server.url}/lessons/{slug}").text for slug in VARIED)
    assert set(re.findall(r'data-control="\w+" data-kind="(\w+)"', pages)) == set(
        get_args(get_type_hints(Control)["kind"])
    )
    kinds = {info.kind for slug in VARIED for info in panel_infos(lessons()[slug].work)}
    assert kinds == {panel.model_fields["kind"].default for panel in get_args(AnyPanel)}


@pytest.mark.parametrize("slug", VARIED)
def test_every_control_changes_numbers_and_the_address_restores_them(
    tab_with_open_tables: Tab, server: Server, slug: str
) -> None:
    page = front_page(tab_with_open_tables)
    go(page, server, slug)
    controls = page.locator("[data-control]").all()
    assert controls
    for control in controls:
        before = numbers(page)
        change(control)
        page.wait_for_function(NUMBERS_CHANGED, arg=before)
        restore(control)
        page.wait_for_function(SETTLED)
    page.wait_for_function(ADDRESS_IS_CURRENT)
    after = numbers(page)
    page.reload()
    page.wait_for_function(DRAWN)
    assert numbers(page) == after
    tab_with_open_tables.check()


@pytest.mark.parametrize("slug", SLUGS)
def test_its_checks_hold_one_fails_when_it_is_broken_and_axe_finds_nothing(
    page: Page, server: Server, slug: str
) -> None:
    go(page, server, slug)
    if slug in VARIED:  # the tables of all lessons would take axe minutes
        for details in page.locator("[data-panel] details").all():
            details.evaluate("(details) => (details.open = true)")
    page.get_by_role("button", name="Prove it").click()
    page.locator("#checks li").first.wait_for()
    assert set(page.locator("#checks li b").all_text_contents()) == {"✓ holds"}
    page.get_by_label("Break it").check()
    page.locator("#checks [data-passed=false]").first.wait_for()
    assert violations(page) == ""
    page.get_by_label("Break it").uncheck()
    page.locator("#checks [data-passed=false]").first.wait_for(state="detached")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(RESIZED)
    assert violations(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def violations(page: Page) -> str:
    report = Axe().run(page)
    return report.generate_report() if report.violations_count else ""


def test_a_text_is_kept_in_other_lessons_and_when_it_is_refused(page: Page, shared_tab: Tab, server: Server) -> None:
    shared_tab.monitor.allow("status of 422")
    go(page, server, SLUGS[0])
    page.locator("#text").fill("")
    page.locator("#notice", has_text="Type something").wait_for()
    page.locator("#text").fill("one two <b>x</b>")
    page.locator("#notice").wait_for(state="hidden")
    page.wait_for_function("() => document.querySelector('[data-keeps-text]').search.includes('one+two')")
    page.get_by_role("link", name="All lessons").click()
    page.wait_for_url("**/lessons?*")
    assert violations(page) == ""
    page.get_by_role("link", name="list of symbols").click()
    page.wait_for_url("**/lessons/symbols")
    assert violations(page) == ""
    page.go_back()
    page.locator(f"a[href*='/lessons/{SLUGS[1]}?']").click()
    page.wait_for_function(DRAWN)
    assert page.locator("#text").input_value() == "one two <b>x</b>"


def test_the_tip_of_an_arrow_can_be_dragged_and_a_click_on_a_cell_selects_tokens(page: Page, server: Server) -> None:
    go(page, server, "vectors")
    arrows = page.locator("[data-panel=arrows] .figure")
    arrows.scroll_into_view_if_needed()
    tip = arrows.locator(".scatterlayer .point").nth(1).bounding_box()
    assert tip
    page.mouse.move(tip["x"] + tip["width"] / 2, tip["y"] + tip["height"] / 2)
    page.mouse.down()
    page.mouse.move(tip["x"] - 100, tip["y"] + 60, steps=4)
    page.mouse.up()
    slider = page.locator("[data-control=b] [name]").first
    page.wait_for_function("(input) => input.valueAsNumber < 0", arg=slider.element_handle())
    page.locator("[data-panel=arrow_facts] td", has_text="-").first.wait_for()  # the angle is obtuse
    assert page.locator("[data-control=a] [name]").first.input_value() == "3"

    cells = page.locator("[data-panel=pairs] .figure .heatmap-cells")
    cells.scroll_into_view_if_needed()
    page.mouse.click(*cell_in(box_of(cells), n_rows=7, row=3, column=6))
    page.locator("[data-panel=token_facts] figcaption", has_text="3 ·sat and 6 ·mat").wait_for()


def test_play_runs_a_slider_to_its_maximum(page: Page, server: Server) -> None:
    go(page, server, "tokens", merged=0.9)
    slider = page.get_by_label("Merges applied")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("(slider) => slider.value === slider.max", arg=slider.element_handle())
    page.get_by_role("button", name="Play").wait_for()  # it has stopped
    page.locator("[data-panel=merges] p").nth(3).wait_for()


def test_another_model_gets_a_page_with_its_own_layers_and_heads(page: Page, server: Server) -> None:
    go(page, server, "self-attention", model="small-llama", layer=11, head=7, vector_kind="keys")
    page.get_by_label("Model").select_option("lookback-gpt")
    page.wait_for_url("**model=lookback-gpt*")
    page.wait_for_function(DRAWN)
    assert page.locator("#notice").is_hidden()
    assert page.get_by_label("Layer", exact=True).input_value() == "3"
    assert page.get_by_label("Vectors shown").input_value() == "keys"


@pytest.mark.parametrize(
    "slug", ["vectors", "softmax", "tokens", "batches", "multi-head"]
)  # together they have all kinds of controls
def test_without_scripts_the_form_updates_the_numbers(browser: Browser, server: Server, slug: str) -> None:
    with tab(browser, server.url, java_script_enabled=False) as plain:
        query = {
            "text": FIRST,
            "model": "lookback-gpt",
            "open": [info.name for info in panel_infos(lessons()[slug].work)],
        }
        plain.page.goto(f"{server.url}/lessons/{slug}?{urlencode(query, doseq=True)}")
        before = numbers(plain.page)
        control = plain.page.locator("[data-control]").first
        change(control)
        plain.page.locator("#prove").click()
        plain.page.wait_for_url("**prove=1*")
        assert numbers(plain.page) != before
        assert set(plain.page.locator("#checks li b").all_text_contents()) == {"✓ holds"}
