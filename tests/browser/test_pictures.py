"""Figures are complete and legible on every screen, on paper, and in downloaded files."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import FloatRect, Locator, Page

from tests.browser.conftest import PHONE, WIDE, Tab
from tests.browser.server import Server
from tests.browser.test_appearance import contrast

TEXT = "the fat cat sat on the mat"
SMALL: dict[str, Any] = {"model": "lookback-gpt", "layer": 3, "head": 3}

_DRAWN = """() => !document.body.classList.contains("stale")
  && [...document.querySelectorAll("[data-panel] .figure")].every((figure) => "drawn" in figure.dataset)"""
_IS_WHOLE = "([figure, n]) => String(figure.layout.yaxis.range) === String([n - 0.5, -0.5])"
_IS_ZOOMED = "([figure, n]) => figure.layout.yaxis.range[0] < n - 0.6"
_OVERFLOWS = """(boxes) => boxes.filter((box) => box.clientWidth && box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.ariaLabel ?? box.id ?? box.textContent.slice(0, 40))"""
# The pixels of a head's thumbnail, in device pixels.
_THUMBNAIL = """(canvas, [layer, head, nHeads]) => {
  const [label, gap, scale] = [22, 2, devicePixelRatio];
  const side = (parseFloat(canvas.style.width) - label) / nHeads - gap;
  const [left, top] = [head, layer].map((index) => Math.round((label + index * (side + gap)) * scale));
  const n = Math.round(side * scale);
  return [...canvas.getContext("2d").getImageData(left, top, n, n).data].join();
}"""
_INKED = """(ink) => [...document.querySelectorAll(".figure")].every(({ layout, clientWidth }) =>
  layout.template.layout.font.color === ink && layout.width === clientWidth)"""
_SCALED = "(scale) => { const { width, style } = document.getElementById('grid');"
_SCALED += " return devicePixelRatio === scale && width === Math.round(parseFloat(style.width) * scale); }"


def go(home: Tab, server: Server, slug: str, **query: Any) -> None:
    """Open a lesson, and wait until its figures are drawn."""
    address = urlencode({"text": TEXT, "model": "lookback-gpt", **query}, doseq=True)
    home.page.goto(f"{server.url}/lessons/{slug}?{address}")
    home.page.wait_for_function(_DRAWN)


@contextmanager
def resolution(page: Page, scale: float) -> Iterator[None]:
    """Emulate a screen with `scale` device pixels per CSS pixel, and restore the resolution afterwards.

    Chromium notifies a page of a new resolution only if its size changes too, so the page gets one pixel wider. That
    moves no figure.
    """
    session = page.context.new_cdp_session(page)
    size = {"width": WIDE["width"] + 1, "height": WIDE["height"], "deviceScaleFactor": scale, "mobile": False}
    session.send("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        session.send("Emulation.setDeviceMetricsOverride", size | {"width": WIDE["width"], "deviceScaleFactor": 1})
        session.detach()


def box_of(locator: Locator) -> FloatRect:
    box = locator.bounding_box()
    assert box
    return box


@pytest.mark.parametrize("method", ["button", "double click"])
def test_axes_are_reset_to_all_tokens_of_the_current_text(home: Tab, method: str) -> None:
    def zoom(figure: Locator) -> None:
        box = box_of(figure.locator(".nsewdrag").first)
        home.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
        home.page.mouse.down()
        home.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=3)
        home.page.mouse.up()
        home.page.wait_for_function(_IS_ZOOMED, arg=[figure.element_handle(), 7])

    def reset(figure: Locator) -> None:
        if method == "button":
            figure.hover()
            figure.locator("[data-title='Reset axes']").click()
        else:
            figure.locator(".nsewdrag").first.dblclick()
        home.page.wait_for_function(_IS_WHOLE, arg=[figure.element_handle(), 7])

    home.open(text="the fat cat", **SMALL)  # the first text that Plotly draws
    home.type(TEXT)
    for figure in (home.figure, home.norms):
        figure.scroll_into_view_if_needed()
        zoom(figure)
        reset(figure)


def test_a_figure_downloaded_in_dark_mode_is_legible_and_named_after_its_content(home: Tab, server: Server) -> None:
    def downloaded(figure: Locator) -> tuple[str, str]:
        figure.scroll_into_view_if_needed()
        figure.hover()
        with home.page.expect_download() as download:
            figure.locator("[data-title='Download plot']").click()
        return download.value.suggested_filename, download.value.path().read_text()

    home.switch_to(TEXT, **SMALL)
    home.page.emulate_media(color_scheme="dark")
    home.choose_stage("scaled")
    name, svg = downloaded(home.figure)
    assert name == "lookback-gpt-layer-3-head-3-scaled-scores-q-k-d.svg"
    background = re.search(r'<rect x="0" y="0" [^>]*fill: (rgb\([^)]*\)); fill-opacity: 1;', svg)
    assert background, svg[:500]
    colours = set(re.findall(r"<text [^>]*fill: (rgb\([^)]*\))", svg))
    assert colours
    assert min(contrast(colour, background[1]) for colour in colours) >= 4.5
    home.choose_stage("weights")
    assert downloaded(home.figure)[0] == "lookback-gpt-layer-3-head-3-attention-weights.svg"
    go(home, server, "vectors")
    name = downloaded(home.page.locator("[data-panel=arrows] .figure"))[0]
    title = home.page.locator("[data-panel=arrows] figcaption").text_content() or ""
    words = re.findall(r"[^\W_]+", title)
    assert name == f"vectors-lookback-gpt-{'-'.join(words)}.svg"
    pairs = home.page.locator("[data-panel=pairs] .figure")
    with home.page.expect_download() as download:
        pairs.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "vectors-lookback-gpt-Dot-product-of-every-pair-of-tokens.png"


def test_the_canvas_adapts_to_a_new_resolution_at_once(home: Tab) -> None:
    home.switch_to(TEXT, **SMALL)
    home.page.wait_for_function(_SCALED, arg=1)
    with resolution(home.page, 2):
        home.page.wait_for_function(_SCALED, arg=2)
    home.page.wait_for_function(_SCALED, arg=1)


@pytest.mark.parametrize("scale", [1, 1.25, 1.5])
def test_the_frame_of_the_chosen_head_hides_no_pixel_of_a_thumbnail(home: Tab, scale: float) -> None:
    home.switch_to(TEXT, **SMALL)
    with resolution(home.page, scale):
        home.page.wait_for_function(_SCALED, arg=scale)
        heads = [(layer, head, 4) for layer in range(4) for head in range(4)]
        framed = [home.grid.evaluate(_THUMBNAIL, head) for head in heads]
        home.switch_to(TEXT, model="lookback-gpt", layer=1, head=1)
        assert [home.grid.evaluate(_THUMBNAIL, head) for head in heads] == framed
        assert len(set(framed)) > 10  # the thumbnails are not empty


def test_the_buttons_of_a_figure_cover_no_cell(home: Tab, server: Server) -> None:
    for slug in ("vectors", "batches", "softmax"):
        go(home, server, slug)
        for figure in home.page.locator("[data-panel] .figure:has(.nsewdrag)").all():
            figure.hover()
            buttons, cells = box_of(figure.locator(".modebar")), box_of(figure.locator(".nsewdrag").first)
            assert buttons["y"] + buttons["height"] <= cells["y"] + 1, slug


def test_no_table_truncates_its_values(home: Tab, server: Server) -> None:
    home.switch_to(TEXT, **SMALL)
    tables = home.page.locator(".scroll")
    for size in (WIDE, PHONE):
        home.page.set_viewport_size(size)
        assert tables.evaluate_all(_OVERFLOWS) == []
    for slug, names in (("self-attention", ["edge_facts", "heads"]), ("projections", ["inputs", "facts"])):
        go(home, server, slug)
        for size in (WIDE, PHONE):
            home.page.set_viewport_size(size)
            panels = [
                panel for panel in home.page.locator("[data-panel]").all() if panel.get_attribute("data-panel") in names
            ]
            assert len(panels) == len(names), slug
            for panel in panels:
                if not panel.locator("details[open]").count():
                    panel.locator("summary").click()
                panel.locator("td").first.wait_for()
                assert panel.locator(".scroll").evaluate_all(_OVERFLOWS) == []


def test_vectors_with_dot_product_0_are_drawn_at_a_right_angle_and_a_tip_follows_the_pointer(
    home: Tab, server: Server
) -> None:
    def tips(figure: Locator) -> list[tuple[float, float]]:
        boxes = [box_of(tip) for tip in figure.locator(".scatterlayer .point").all()]
        return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]

    go(home, server, "vectors", a=[4, 2], b=[-2, 4])  # 4 · -2 + 2 · 4 = 0
    arrows = home.page.locator("[data-panel=arrows] .figure")
    arrows.scroll_into_view_if_needed()
    plane = box_of(arrows.locator(".nsewdrag"))
    assert plane["width"] == pytest.approx(plane["height"], abs=1)
    middle = plane["x"] + plane["width"] / 2, plane["y"] + plane["height"] / 2
    (ax, ay), (bx, by) = [(x - middle[0], middle[1] - y) for x, y in tips(arrows)]
    angle = math.degrees(math.atan2(by, bx) - math.atan2(ay, ax))
    assert angle == pytest.approx(90, abs=1.5)  # one pixel at either tip is half a degree
    assert math.hypot(ax, ay) == pytest.approx(math.hypot(bx, by), abs=2)
    home.page.mouse.move(*tips(arrows)[0])
    home.page.mouse.down()
    home.page.mouse.move(middle[0] + 40, middle[1] + 55, steps=4)
    home.page.mouse.up()
    slider = home.page.locator("[data-control=a] [name]").nth(1).element_handle()
    home.page.wait_for_function("(input) => input.valueAsNumber < 0", arg=slider)
    home.page.wait_for_function(_DRAWN)
    home.page.wait_for_function("(figure) => figure.data[0].y[0] < 0", arg=arrows.element_handle())
    x, y = tips(arrows)[0]
    assert math.hypot(x - middle[0] - 40, y - middle[1] - 55) <= 3


def test_a_dark_page_is_printed_light_narrow_and_complete(home: Tab) -> None:
    home.switch_to(f"{TEXT} and " * 6, **SMALL)
    home.page.emulate_media(color_scheme="dark")
    home.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    home.page.emulate_media(media="print", color_scheme="dark")
    try:
        home.page.wait_for_function(_INKED, arg="#1b1730")
        colours = home.page.locator(".figure svg text").evaluate_all(
            "(texts) => texts.map((text) => getComputedStyle(text).fill)"
        )
        assert min(contrast(colour, "rgb(255, 255, 255)") for colour in set(colours)) >= 4.5
        widths = home.page.locator(".figure .main-svg").evaluate_all(
            "(figures) => figures.map((svg) => svg.clientWidth)"
        )
        assert max(widths) <= 680  # px; the narrower of A4 and Letter has room for 720
        style = "(chip) => { const { backgroundColor, color, printColorAdjust } = getComputedStyle(chip);"
        background, colour, adjust = home.page.locator(".token[aria-current]").evaluate(
            f"{style} return [backgroundColor, color, printColorAdjust]; }}"
        )
        assert (contrast(background, colour) >= 4.5, adjust) == (True, "exact")  # no white text on white paper
        assert home.page.locator(".tokens, .scroll").evaluate_all(
            "(boxes) => boxes.every((box) => box.scrollHeight <= box.clientHeight + 1)"
        )
        assert home.page.locator(".examples, .top nav").evaluate_all(
            "(elements) => elements.every((element) => !element.clientHeight)"
        )
    finally:
        home.page.emulate_media(media="screen", color_scheme="light")
        home.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert home.page.locator("html.printing").count() == 0


def test_with_forced_colours_the_chosen_elements_differ_in_more_than_colour(home: Tab) -> None:
    home.switch_to(TEXT, query=2, **SMALL)
    decoration = "(elements) => elements.map((element) => getComputedStyle(element).textDecorationLine)"
    home.page.emulate_media(forced_colors="active")
    try:
        assert home.chips.evaluate_all(decoration) == ["none", "none", "underline", "none", "none", "none", "none"]
        stages = home.page.locator(".stages a").evaluate_all(decoration)
        assert stages == ["none", "none", "none", "underline"]
        fills = home.figure.locator("text").evaluate_all("(texts) => texts.map((text) => getComputedStyle(text).fill)")
        background = home.figure.evaluate("(figure) => getComputedStyle(figure).backgroundColor")
        assert min(contrast(fill, background) for fill in set(fills)) >= 4.5
    finally:
        home.page.emulate_media(forced_colors="none")
