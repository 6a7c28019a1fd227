"""Light and dark, wide and narrow: everything can be read, and reached, by everybody."""

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize

from tests.browser.conftest import PHONE, WIDE, Tab
from tests.browser.home import MODEL

TEXT = "the fat cat sat on the mat"
Scheme = Literal["light", "dark"]

# Both figures are as wide as their place, and in the colour of the page's words.
_FOLLOWED = """() => ["head-figure", "norms-figure"].every((id) => {
  const figure = document.getElementById(id);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const width = figure.querySelector(".main-svg").width.baseVal.value;
  return figure.layout.template.layout.font.color === ink && Math.abs(width - figure.clientWidth) <= 1;
})"""
_BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
_FILLS = "(texts) => [...new Set(texts.map((text) => getComputedStyle(text).fill))]"


def dress(home: Tab, size: ViewportSize, scheme: Scheme) -> None:
    """Turn the open page wide or narrow, light or dark, and wait until Plotly has followed."""
    home.page.set_viewport_size(size)
    home.page.emulate_media(color_scheme=scheme)
    home.page.wait_for_function(_FOLLOWED)


def luminance(colour: str) -> float:
    """The relative luminance that WCAG defines, of a colour as the browser names it: rgb(20, 18, 28)."""
    channels = [int(channel) / 255 for channel in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours, 1 to 21.

    >>> contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)")
    21.0
    """
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(home: Tab, size: ViewportSize, scheme: Scheme, screenshots: Path) -> None:
    home.turn_to(TEXT, query=2)
    dress(home, size, scheme)
    name = "wide" if size is WIDE else "phone"
    home.page.screenshot(path=screenshots / f"{name}-{scheme}.png", full_page=True)
    found = Axe().run(home.page)
    assert found.violations_count == 0, found.generate_report()


def test_the_page_and_its_pictures_follow_the_system_from_light_to_dark(home: Tab) -> None:
    home.turn_to(TEXT)
    seen: dict[Scheme, tuple[float, str]] = {}
    for scheme in ("light", "dark"):
        dress(home, WIDE, scheme)
        background = home.page.evaluate(_BACKGROUND)
        fills = home.page.locator(".figure svg text").evaluate_all(_FILLS)
        assert fills
        assert [fill for fill in fills if contrast(fill, background) < 4.5] == []
        seen[scheme] = luminance(background), home.picture()
    assert seen["light"][0] > 0.8
    assert seen["dark"][0] < 0.05
    assert seen["light"][1] != seen["dark"][1]


@pytest.mark.parametrize("text", [TEXT, "a" * 400, "one\ntwo " * 20], ids=["short", "unbroken", "long"])
def test_no_text_makes_the_page_scroll_sideways(home: Tab, text: str) -> None:
    home.turn_to(text)
    for size in (WIDE, PHONE):
        dress(home, size, "light")
        assert home.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_pictures_in_a_turned_window_are_those_of_one_that_was_so_from_the_first(home: Tab) -> None:
    def sizes() -> list[list[float]]:
        find = "(all) => all.map(({ clientWidth, clientHeight }) => [clientWidth, clientHeight])"
        found: list[list[float]] = home.page.locator(".figure, #grid").evaluate_all(find)
        return found

    home.turn_to(TEXT)
    dress(home, PHONE, "light")
    turned = sizes()
    home.open(text=TEXT)
    assert turned == sizes()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_mode_bar_never_covers_the_title_of_its_picture(home: Tab, size: ViewportSize) -> None:
    home.turn_to(TEXT)
    dress(home, size, "light")
    for figure in (home.figure, home.norms):
        title = figure.locator(".gtitle").bounding_box()
        assert title
        bars = [bar for found in figure.locator(".modebar").all() if (bar := found.bounding_box())]
        beside = [title["x"] + title["width"] <= bar["x"] for bar in bars]
        below = [title["y"] >= bar["y"] + bar["height"] for bar in bars]
        above = [title["y"] + title["height"] <= bar["y"] for bar in bars]
        assert all(map(any, zip(beside, below, above, strict=True)))


def test_plotly_shows_no_logo_and_uploads_nothing(home: Tab) -> None:
    home.turn_to(TEXT)
    titles = home.page.locator(".modebar-btn").evaluate_all("(all) => all.map((one) => one.dataset.title)")
    assert set(titles) == {"Download plot", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
    assert home.page.locator(".modebar-btn--logo, .figure a").count() == 0


def test_a_picture_can_be_taken_away(home: Tab) -> None:
    home.turn_to(TEXT)
    home.figure.hover()
    with home.page.expect_download() as download:
        home.figure.locator("[data-title='Download plot']").click()
    assert download.value.suggested_filename == f"{MODEL}-layer-11-head-7-attention-weights.svg"
    assert "layer 11, head 7" in Path(download.value.path()).read_text()
