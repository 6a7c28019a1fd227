"""What a screen reader gets: a real grid of heads, and one live region that says only what is new."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.browser.conftest import Tab, tab
from tests.browser.home import MODEL
from tests.browser.server import Server

TEXT = "the fat cat sat on the mat"
N_LAYERS, N_HEADS = 12, 9
LIVE = "[aria-live], [role=status], [role=alert], [role=log]"
# Records everything that the live region says.
RECORD = """() => {
  window.announcements = [];
  const region = document.getElementById("announcement");
  new MutationObserver(() => announcements.push(region.textContent)).observe(region, { childList: true });
}"""


@pytest.fixture(scope="module")
def own(browser: Browser, server: Server) -> Iterator[Tab]:
    """A tab whose announcements are recorded from its first view on."""
    with tab(browser, server.url) as opened:
        opened.open(text=TEXT, layer=3, head=5, model=MODEL)
        opened.page.evaluate(RECORD)
        yield opened


def tree(opened: Tab) -> list[dict[str, Any]]:
    """The accessibility tree of Chromium, as a list of nodes."""
    session = opened.page.context.new_cdp_session(opened.page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [node for node in nodes if not node["ignored"]]


def role(node: dict[str, Any]) -> str:
    name: str = node["role"]["value"]
    return name


def active_cell(opened: Tab) -> tuple[str, str]:
    """The cell that the focused grid names: its name in the accessibility tree, and the id of its element."""
    nodes = tree(opened)
    (grid,) = (node for node in nodes if role(node) == "grid")
    (active,) = (item for item in grid["properties"] if item["name"] == "activedescendant")
    (related,) = active["value"]["relatedNodes"]
    (cell,) = (node for node in nodes if node.get("backendDOMNodeId") == related["backendDOMNodeId"])
    return cell["name"]["value"], related["idref"]


def test_the_grid_has_a_row_per_layer_and_a_cell_per_head(own: Tab) -> None:
    nodes = tree(own)
    (grid,) = (node for node in nodes if role(node) == "grid")
    assert grid["name"]["value"] == "All heads"
    rows = [node for node in nodes if role(node) == "row" and node["parentId"] == grid["nodeId"]]
    cells = [node["name"]["value"] for node in nodes if role(node) == "gridcell"]
    assert len(rows) == N_LAYERS
    assert sorted(cells) == sorted(
        f"layer {layer}, head {head}" for layer in range(N_LAYERS) for head in range(N_HEADS)
    )
    report = Axe().run(own.page, context="#grid")
    assert report.violations_count == 0, report.generate_report()


def test_keys_move_the_active_cell_and_choose_its_head(own: Tab) -> None:
    own.grid.focus()
    assert active_cell(own) == ("layer 3, head 5", "head-3-5")
    for key, layer, head in (
        *(("ArrowDown", 4, 5), ("ArrowRight", 4, 6), ("Home", 4, 0), ("PageDown", 9, 0), ("PageDown", 11, 0)),
        *(("End", 11, 8), ("Control+Home", 0, 0), ("Control+End", 11, 8), ("PageUp", 6, 8)),
    ):
        own.page.keyboard.press(key)
        own.wait_until_shown(layer=layer, head=head)
        assert active_cell(own) == (f"layer {layer}, head {head}", f"head-{layer}-{head}")
        assert own.page.locator("#grid [aria-selected=true]").text_content() == f"layer {layer}, head {head}"


def test_the_live_region_says_nothing_while_a_pointer_moves_or_a_person_types(own: Tab) -> None:
    own.page.evaluate("() => { announcements.length = 0; }")
    box = own.grid.bounding_box()
    assert box
    for part in (0.2, 0.4, 0.6, 0.8):
        own.page.mouse.move(box["x"] + part * box["width"], box["y"] + part * box["height"])
    own.hover_cell(3, 1).first.wait_for()
    own.type(f"{TEXT} and")
    assert own.page.evaluate("announcements") == []
    own.monitor.allow("status of 422")
    own.page.locator("#layer").fill("99")
    own.notice.wait_for()
    own.page.locator("#layer").fill("3")
    own.wait_until_shown(layer=3)
    assert own.page.evaluate("announcements") == [
        f"There is no layer 99; {MODEL} has 12 of them, counted from 0. Choose 0 to 11.",
        "",
    ]


@pytest.mark.parametrize("path", ["/", "/training", "/lessons/self-attention", "/tools/ablation"])
def test_every_page_has_one_live_region(own: Tab, path: str) -> None:
    own.page.goto(f"{own.url}{path}?model=lookback-gpt")
    own.page.locator("body:not(.stale)").wait_for()
    assert own.page.locator(LIVE).evaluate_all("(regions) => regions.map(({ id }) => id)") == ["announcement"]


def test_back_takes_back_one_choice_after_the_other(own: Tab) -> None:
    own.open(text=TEXT, layer=3, head=5, model=MODEL)
    box = own.grid.bounding_box()
    assert box
    own.choose_query(2)
    own.choose_stage("scores")
    own.grid.click(position={"x": box["width"] - 4, "y": box["height"] - 4})
    own.wait_until_shown(layer=11, head=8, stage="scores")
    own.choose_stage("scores")  # it is chosen already: no entry
    own.page.go_back()
    own.wait_until_shown(layer=3, head=5, stage="scores")
    own.page.go_back()
    own.wait_until_shown(layer=3, head=5, stage="weights")
    own.wait_until_chosen(2)
    own.page.go_back()
    own.wait_until_chosen(None)
    own.page.go_forward()
    own.wait_until_chosen(2)
