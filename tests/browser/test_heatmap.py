"""The heatmap on a canvas: read by pointer and by keyboard, zoomed, and legible on every screen and on paper."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FloatRect, Locator, Page

from tests.browser.conftest import PHONE, WIDE, Tab, tab
from tests.browser.server import Server
from tests.browser.test_pictures import box_of, go, resolution

# Draws a matrix in an element of its own. A page without pictures has nothing else that could change.
_CREATE = """async ({ nRows, nColumns, width }) => {
  const { Heatmap } = await import("/static/heatmap.js");
  document.getElementById("test-heatmap")?.remove();
  const element = document.createElement("div");
  element.id = "test-heatmap";
  element.style.width = width;
  document.querySelector("main").prepend(element);
  const range = (n, name) => Array.from({ length: n }, (_, i) => `${name}${i}`);
  const value = (i, j) => (j > i + nColumns - nRows ? null : (i - j) / 7);
  const values = range(nRows, "").map((_, i) => range(nColumns, "").map((_, j) => value(i, j)));
  const matrix = { title: "Test", rows: range(nRows, "row "), columns: range(nColumns, "column "), values,
    scale: "signed", limit: 1 };
  element.selected = [];
  element.heatmap = new Heatmap(element, { onSelect: (cell) => element.selected.push([cell.row, cell.column]) });
  element.heatmap.draw(matrix);
}"""
_SCALED = """([element, scale]) => [...element.querySelectorAll("canvas")].every(({ width, style }) =>
  devicePixelRatio === scale && width === Math.round(parseFloat(style.width) * scale))"""
# What is said to a screen reader, without the characters that isolate the direction of a text.
_SPOKEN = "() => document.getElementById('announcement').textContent.replace(/[\\u2066-\\u2069]/g, '')"
_PIXELS = "(element) => element.querySelector('.heatmap-cells').toDataURL()"
_COLOURS = """(element) => {
  const canvas = element.querySelector(".heatmap-cells");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) {
    const channels = data.slice(i, i + 3);
    n += Math.max(...channels) - Math.min(...channels) > 8; // it is not grey
  }
  return n;
}"""


class HeatmapOnPage:
    """A heatmap and what a person does with it."""

    def __init__(self, page: Page, element: Locator) -> None:
        self.page = page
        self.element = element
        self.frame = element.locator(".heatmap-frame")
        self.canvas = element.locator(".heatmap-cells")
        self.value = element.locator(".heatmap-value")

    def layout(self) -> dict[str, Any]:
        layout: dict[str, Any] = self.element.evaluate("({ heatmap }) => heatmap.layout")
        return layout

    def point(self, row: int, column: int) -> tuple[float, float]:
        """The middle of a cell, on the screen."""
        layout, box = self.layout(), box_of(self.canvas)
        left, top = self.element.evaluate("({ heatmap }) => [heatmap.offset.left, heatmap.offset.top]")
        width, height = layout["cell"]
        x = box["x"] + layout["left"] + (column + 0.5) * width - left
        return x, box["y"] + layout["top"] + (row + 0.5) * height - top

    def spoken(self) -> str:
        text: str = self.page.evaluate(_SPOKEN)
        return text

    def selected(self) -> list[list[int]]:
        cells: list[list[int]] = self.element.evaluate("({ selected }) => selected")
        return cells

    def pixels(self) -> str:
        image: str = self.element.evaluate(_PIXELS)
        return image


@pytest.fixture(scope="module")
def opened(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        opened.page.goto(f"{server.url}/lessons/symbols")
        yield opened


@pytest.fixture
def page(opened: Tab) -> Iterator[Page]:
    opened.page.bring_to_front()  # Chromium draws a tab in the background only once a second
    opened.page.set_viewport_size(WIDE)
    opened.page.emulate_media(color_scheme="light", forced_colors="none")
    opened.page.mouse.move(0, 0)
    yield opened.page
    opened.check()


def create(page: Page, n_rows: int, n_columns: int, width: str = "30rem") -> HeatmapOnPage:
    page.evaluate(_CREATE, {"nRows": n_rows, "nColumns": n_columns, "width": width})
    return HeatmapOnPage(page, page.locator("#test-heatmap"))


def test_the_cursor_moves_by_keys_and_says_row_column_and_value(page: Page) -> None:
    heatmap = create(page, 8, 8)
    heatmap.frame.focus()
    assert heatmap.spoken() == ""  # only what a key does is said
    page.keyboard.press("ArrowDown")
    assert heatmap.spoken() == "row 1, column 0, 0.1429"
    page.keyboard.press("End")
    assert heatmap.spoken() == "row 1, column 7, no value"
    page.keyboard.press("Control+End")
    page.keyboard.press("Home")
    assert heatmap.spoken() == "row 7, column 0, 1"
    assert heatmap.value.text_content() == "row 7 → column 0: 1"
    page.mouse.move(*heatmap.point(2, 1))
    assert heatmap.value.text_content() == "row 2 → column 1: 0.1429"
    assert heatmap.spoken() == "row 7, column 0, 1"  # a pointer says nothing
    page.keyboard.press("Enter")
    assert heatmap.selected() == [[7, 0]]


def test_the_cell_of_the_cursor_is_outlined_while_the_heatmap_has_the_focus(page: Page) -> None:
    heatmap = create(page, 8, 8)
    without = heatmap.pixels()
    heatmap.frame.focus()
    page.keyboard.press("ArrowDown")
    outlined = heatmap.pixels()
    assert outlined != without
    page.keyboard.press("ArrowRight")
    assert heatmap.pixels() not in (without, outlined)
    heatmap.frame.blur()
    assert heatmap.pixels() == without


def test_a_click_selects_the_cell_under_the_pointer(page: Page) -> None:
    heatmap = create(page, 8, 8)
    page.mouse.click(*heatmap.point(3, 2))
    page.mouse.click(*heatmap.point(7, 7))
    assert heatmap.selected() == [[3, 2], [7, 7]]


def test_a_matrix_that_is_too_wide_scrolls_and_the_cursor_stays_in_sight(page: Page) -> None:
    heatmap = create(page, 4, 300)
    assert "of 300 columns are in view" in (heatmap.value.text_content() or "")
    assert heatmap.layout()["cell"][0] == 6
    heatmap.frame.focus()
    page.keyboard.press("End")
    assert heatmap.frame.evaluate("(frame) => frame.scrollLeft + frame.clientWidth === frame.scrollWidth")
    x, y = heatmap.point(0, 299)
    box = box_of(heatmap.canvas)
    assert box["x"] < x < box["x"] + box["width"]
    page.mouse.move(x, y)
    assert heatmap.value.text_content() == "row 0 → column 299: no value"


@pytest.mark.parametrize("way", ["Whole matrix", "Escape", "0", "double click"])
def test_dragging_a_rectangle_zooms_and_there_is_a_way_back(page: Page, way: str) -> None:
    heatmap = create(page, 60, 60)
    before, cell = heatmap.pixels(), heatmap.layout()["cell"]
    page.mouse.move(*heatmap.point(20, 30))
    page.mouse.down()
    page.mouse.move(*heatmap.point(35, 45), steps=4)
    page.mouse.up()
    zoomed = heatmap.layout()
    assert zoomed["cell"][0] > 2 * cell[0]
    assert zoomed["columnStride"] < 5  # more labels have room
    assert heatmap.selected() == []  # a drag is no click
    page.mouse.move(*heatmap.point(20, 30))
    assert heatmap.value.text_content() == "row 20 → column 30: no value"
    if way == "double click":
        page.mouse.dblclick(*heatmap.point(25, 35))
    elif way == "Whole matrix":
        heatmap.element.get_by_role("button", name=way).click()
    else:
        heatmap.frame.focus()
        page.keyboard.press(way)
    page.mouse.move(0, 0)
    heatmap.frame.blur()
    assert heatmap.layout()["cell"] == cell
    assert heatmap.pixels() == before


def test_buttons_keys_and_the_wheel_with_ctrl_zoom(page: Page) -> None:
    heatmap = create(page, 60, 60)
    cells = [heatmap.layout()["cell"][0]]
    heatmap.element.get_by_role("button", name="Zoom in").click()
    cells.append(heatmap.layout()["cell"][0])
    heatmap.frame.focus()
    page.keyboard.press("+")
    cells.append(heatmap.layout()["cell"][0])
    page.mouse.move(*heatmap.point(5, 5))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    larger = "([element, cell]) => element.heatmap.layout.cell[0] > cell"
    page.wait_for_function(larger, arg=[heatmap.element.element_handle(), cells[-1]], timeout=5000)
    assert heatmap.value.text_content() == "row 5 → column 5: 0"  # still the cell under the pointer
    assert cells == sorted(set(cells))
    heatmap.frame.focus()
    page.keyboard.press("0")
    assert heatmap.layout()["cell"][0] == cells[0]


def test_it_adapts_to_a_new_resolution_width_and_colour_scheme(page: Page) -> None:
    heatmap = create(page, 8, 30, "100%")
    handle = heatmap.element.element_handle()
    page.wait_for_function(_SCALED, arg=[handle, 1])
    with resolution(page, 2):
        page.wait_for_function(_SCALED, arg=[handle, 2])
    page.wait_for_function(_SCALED, arg=[handle, 1])
    light = heatmap.pixels()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"([element, light]) => ({_PIXELS})(element) !== light", arg=[handle, light])
    page.set_viewport_size(PHONE)
    page.wait_for_function(
        "(element) => element.heatmap.width === element.clientWidth && element.clientWidth < innerWidth", arg=handle
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_with_forced_colours_values_differ_by_more_than_their_hue(page: Page) -> None:
    heatmap = create(page, 8, 30)
    assert heatmap.element.evaluate(_COLOURS) > 1000
    page.emulate_media(forced_colors="active")
    page.wait_for_function(f"(element) => ({_COLOURS})(element) === 0", arg=heatmap.element.element_handle())
    inked = """(element, [row, column]) => {
      const { heatmap: { layout, canvas, scale } } = element;
      const [width, height] = layout.cell;
      const box = [layout.left + column * width, layout.top + row * height, width, height];
      const at = box.map((px) => Math.round(px * scale));
      const { data } = canvas.getContext("2d").getImageData(...at);
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += 255 - data[i];
      return sum / (data.length / 4) / 255;
    }"""
    small, large = (heatmap.element.evaluate(inked, [7, column]) for column in (6, 0))  # 1/7 and 1
    negative = heatmap.element.evaluate(inked, [0, 7])  # -1: an outline as large as the square of 1
    assert small < negative < large


def test_on_paper_a_dark_page_is_light_and_complete(page: Page) -> None:
    heatmap = create(page, 4, 300)
    page.emulate_media(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    try:
        layout = heatmap.layout()
        assert layout["view"] == layout["extent"]
        corner = (
            "({ heatmap: { canvas } }) => [...canvas.getContext('2d').getImageData(0, canvas.height - 1, 1, 1).data]"
        )
        assert min(heatmap.element.evaluate(corner)) > 240
        assert not heatmap.element.get_by_role("button", name="Save picture").is_visible()
    finally:
        page.emulate_media(media="screen", color_scheme="light")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert heatmap.layout()["view"] != heatmap.layout()["extent"]


def test_the_whole_matrix_is_saved_as_a_picture_named_after_it(page: Page) -> None:
    heatmap = create(page, 4, 300)
    with page.expect_download() as download:
        heatmap.element.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "Test.png"
    data = download.value.path().read_bytes()
    assert data.startswith(b"\x89PNG")
    width = int.from_bytes(data[16:20], "big")
    assert width > 300 * 8 * 2  # all columns, 8 px each, with two pixels per px


def test_a_finger_selects_a_cell_and_reads_its_value(browser: Browser, server: Server) -> None:
    with tab(browser, server.url, has_touch=True, viewport=PHONE) as phone:
        phone.page.goto(f"{server.url}/lessons/symbols")
        heatmap = create(phone.page, 8, 8, "100%")
        phone.page.touchscreen.tap(*heatmap.point(5, 4))
        assert heatmap.value.text_content() == "row 5 → column 4: 0.1429"
        assert heatmap.selected() == [[5, 4]]


def test_axe_finds_nothing(page: Page) -> None:
    create(page, 4, 300)
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()


def test_in_a_lesson_the_value_is_the_reply_s_and_a_click_sets_the_controls(home: Tab, server: Server) -> None:
    with home.page.expect_response(lambda response: response.request.method == "POST") as response:
        go(home, server, "self-attention", layer=3, head=3)
    lines = map(json.loads, response.value.text().splitlines())
    scores = next(line["panel"] for line in lines if line.get("name") == "scores")
    element = home.page.locator("[data-panel=scores] .figure")
    element.scroll_into_view_if_needed()
    canvas = box_of(element.locator(".heatmap-cells"))
    for row, column in ((2, 1), (6, 3)):
        home.page.mouse.move(*cell_in(canvas, len(scores["rows"]), row, column))
        labels = f"{scores['rows'][row]} → {scores['columns'][column]}"
        text = element.locator(".heatmap-value", has_text=labels).text_content() or ""
        number = float(text.rpartition(": ")[2].replace("−", "-"))
        assert number == pytest.approx(scores["values"][row][column], rel=1e-3)
    home.page.mouse.click(*cell_in(canvas, len(scores["rows"]), 6, 3))
    assert home.page.locator("[data-control=noun] [name]").input_value() == "6"
    assert home.page.locator("[data-control=modifier] [name]").input_value() == "3"


def cell_in(canvas: FloatRect, n_rows: int, row: int, column: int) -> tuple[float, float]:
    """The middle of a cell of a square matrix whose cells fill its canvas to the right of the row labels."""
    side = (canvas["height"] - 19) / n_rows  # below the cells, 19 px for the column labels
    left = canvas["x"] + canvas["width"] - side * n_rows
    return left + (column + 0.5) * side, canvas["y"] + (row + 0.5) * side


def test_the_grid_previews_the_head_under_the_pointer_or_the_keyboard(home: Tab) -> None:
    home.switch_to("the fat cat sat on the mat", model="lookback-gpt", layer=0, head=0)
    preview = home.page.locator(".head-preview")
    assert preview.is_hidden()
    home.grid.scroll_into_view_if_needed()
    box = box_of(home.grid)
    side = (box["width"] - 22) / 4
    home.page.mouse.move(box["x"] + 22 + 2.5 * side, box["y"] + 22 + 1.5 * side)
    preview.get_by_text("Layer 1, head 2").wait_for()
    preview_box = box_of(preview)
    assert preview_box["x"] >= box["x"] + box["width"]  # it covers no head
    home.page.mouse.move(0, 0)
    preview.wait_for(state="hidden")
    home.grid.focus()
    home.page.keyboard.press("ArrowDown")
    preview.get_by_text("Layer 1, head 0").wait_for()
    home.page.keyboard.press("Escape")
    preview.wait_for(state="hidden")
