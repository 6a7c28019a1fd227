"""The pages are readable and accessible: light and dark, wide and narrow."""

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize

from tests.browser.conftest import PHONE, WIDE, Tab
from tests.browser.home import MODEL

TEXT = "the fat cat sat on the mat"
Scheme = Literal["light", "dark"]

# Both figures are as wide as their elements, and their text has the colour of the page's text.
_FOLLOWED = """() => ["head-figure", "norms-figure"].every((id) => {
  const figure = document.getElementById(id);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const width = figure.querySelector(".main-svg").width.baseVal.value;
  return figure.layout.template.layout.font.color === ink && Math.abs(width - figure.clientWidth) <= 1;
})"""
_BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
_FILLS = "(texts) => [...new Set(texts.map((text) => getComputedStyle(text).fill))]"


def set_appearance(home: Tab, size: ViewportSize, scheme: Scheme) -> None:
    """Set the size and colour scheme of the open page, and wait until the figures have been redrawn."""
    home.page.set_viewport_size(size)
    home.page.emulate_media(color_scheme=scheme)
    home.page.wait_for_function(_FOLLOWED)


def luminance(colour: str) -> float:
    """The relative luminance after WCAG of a colour in the browser's notation, such as rgb(20, 18, 28)."""
    channels = [int(channel) / 255 for channel in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(foreground: str, background: str) -> float:
    """The contrast ratio after WCAG of two colours, from 1 to 21.

    >>> contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)")
    21.0
    """
    darker, lighter = sorted((luminance(foreground), luminance(background)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(home: Tab, size: ViewportSize, scheme: Scheme, screenshots: Path) -> None:
    home.switch_to(TEXT, query=2)
    set_appearance(home, size, scheme)
    name = "wide" if size is WIDE else "phone"
    home.page.screenshot(path=screenshots / f"{name}-{scheme}.png", full_page=True)
    report = Axe().run(home.page)
    assert report.violations_count == 0, report.generate_report()


def test_the_page_and_its_pictures_follow_the_colour_scheme_of_the_system(home: Tab) -> None:
    home.switch_to(TEXT)
    measured: dict[Scheme, tuple[float, str]] = {}
    for scheme in ("light", "dark"):
        set_appearance(home, WIDE, scheme)
        background = home.page.evaluate(_BACKGROUND)
        fills = home.page.locator(".figure svg text").evaluate_all(_FILLS)
        assert fills
        assert [fill for fill in fills if contrast(fill, background) < 4.5] == []
        measured[scheme] = luminance(background), home.grid_image()
    assert measured["light"][0] > 0.8
    assert measured["dark"][0] < 0.05
    assert measured["light"][1] != measured["dark"][1]


@pytest.mark.parametrize("text", [TEXT, "a" * 400, "one\ntwo " * 20], ids=["short", "unbroken", "long"])
def test_no_text_makes_the_page_scroll_sideways(home: Tab, text: str) -> None:
    home.switch_to(text)
    for size in (WIDE, PHONE):
        set_appearance(home, size, "light")
        assert home.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_pictures_in_a_resized_window_are_those_of_a_window_that_had_that_size_from_the_start(home: Tab) -> None:
    def sizes() -> list[list[float]]:
        script = "(all) => all.map(({ clientWidth, clientHeight }) => [clientWidth, clientHeight])"
        sizes: list[list[float]] = home.page.locator(".figure, #grid").evaluate_all(script)
        return sizes

    home.switch_to(TEXT)
    set_appearance(home, PHONE, "light")
    resized = sizes()
    home.open(text=TEXT)
    assert resized == sizes()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_mode_bar_never_covers_the_title_of_its_picture(home: Tab, size: ViewportSize) -> None:
    home.switch_to(TEXT)
    set_appearance(home, size, "light")
    for figure in (home.figure, home.norms):
        title = figure.locator(".gtitle").bounding_box()
        assert title
        bars = [box for bar in figure.locator(".modebar").all() if (box := bar.bounding_box())]
        beside = [title["x"] + title["width"] <= bar["x"] for bar in bars]
        below = [title["y"] >= bar["y"] + bar["height"] for bar in bars]
        above = [title["y"] + title["height"] <= bar["y"] for bar in bars]
        assert all(map(any, zip(beside, below, above, strict=True)))


def test_plotly_shows_no_logo_and_uploads_nothing(home: Tab) -> None:
    home.switch_to(TEXT)
    titles = home.page.locator(".modebar-btn").evaluate_all("(all) => all.map((button) => button.dataset.title)")
    assert set(titles) == {"Download plot", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
    assert home.page.locator(".modebar-btn--logo, .figure a").count() == 0


def test_a_picture_can_be_downloaded(home: Tab) -> None:
    home.switch_to(TEXT)
    home.figure.hover()
    with home.page.expect_download() as download:
        home.figure.locator("[data-title='Download plot']").click()
    assert download.value.suggested_filename == f"{MODEL}-layer-11-head-7-attention-weights.svg"
    assert "layer 11, head 7" in Path(download.value.path()).read_text()
