"""Everything that can be chosen, by every means; and that the address restores it."""

from typing import Any

import pytest

from tests.browser.conftest import Tab

TEXT = "the fat cat sat on the mat"
STAGES = ["scores", "scaled", "masked", "weights"]


def test_a_head_is_chosen_by_a_click_by_arrow_keys_and_by_number(home: Tab) -> None:
    home.switch_to(TEXT, layer=11, head=7)
    drawn = [(home.grid_image(), home.z().tolist())]

    def check(layer: int, head: int) -> None:
        home.wait_until_shown(layer=layer, head=head)
        assert home.title() == f"small-llama · layer {layer}, head {head} · attention weights"
        assert [home.page.locator(f"#{field}").input_value() for field in ("layer", "head")] == [f"{layer}", f"{head}"]
        assert home.page.locator("#head-title").text_content() == f"Layer {layer}, head {head}"
        assert home.page.locator("#grid-caption").text_content() == f"chosen: layer {layer}, head {head}"
        images = home.grid_image(), home.z().tolist()
        assert images not in drawn
        drawn.append(images)

    box = home.grid.bounding_box()
    assert box
    n_layers, n_heads = 12, 9
    label = 22  # px; the numbers of layers and heads at the edges
    position = {
        "x": label + (2.5 / n_heads) * (box["width"] - label),
        "y": label + (4.5 / n_layers) * (box["height"] - label),
    }
    home.grid.hover(position={"x": position["x"], "y": position["y"]})
    assert home.page.locator("#grid-caption").text_content() == "layer 4, head 2"
    home.grid.click(position={"x": position["x"], "y": position["y"]})
    home.page.mouse.move(0, 0)
    check(4, 2)
    home.grid.press("ArrowDown")
    check(5, 2)
    home.grid.press("ArrowRight")
    check(5, 3)
    home.grid.press("ArrowUp")
    home.grid.press("ArrowLeft")
    home.wait_until_shown(layer=4, head=2)
    home.page.locator("#layer").fill("11")
    check(11, 2)
    home.page.locator("#head").fill("8")
    check(11, 8)
    home.grid.press("ArrowDown")  # already in the last row and column
    home.grid.press("ArrowRight")
    home.grid.press("ArrowUp")
    check(10, 8)


def test_a_layer_that_does_not_exist_is_an_error_that_names_the_valid_ones(home: Tab) -> None:
    home.monitor.allow("status of 422")
    home.switch_to(TEXT)
    home.page.locator("#layer").fill("12")
    home.notice.wait_for()
    assert (
        home.notice.text_content()
        == "There is no layer 12; small-llama has 12 of them, counted from 0. Choose 0 to 11."
    )
    home.page.locator("#layer").fill("11")
    home.wait_until_shown(layer=11)
    assert home.notice.is_hidden()


def test_a_token_is_chosen_by_its_chip_and_by_its_row(home: Tab) -> None:
    def heading() -> str:
        return home.page.locator("#query-title").text_content() or ""

    home.switch_to(TEXT, query=2)
    assert heading() == "What ·cat (2) attends to"
    before = home.next_tokens()
    home.choose_query(5)
    assert heading() == "What ·the (5) attends to"
    assert home.next_tokens() != before
    home.hover_cell(3, 1).first.wait_for()
    home.page.mouse.down()
    home.page.mouse.up()
    home.wait_until_chosen(3)
    assert heading() == "What ·sat (3) attends to"


def test_a_chosen_token_stays_chosen_while_the_text_before_it_is_unchanged(home: Tab) -> None:
    home.switch_to("the fat cat", query=1)
    home.type("the fat cat sat")
    assert home.page.locator(".token[aria-current]").text_content() == "·fat"
    home.type("a fat cat sat")
    assert home.page.locator(".token[aria-current]").text_content() == "·sat"


def test_an_example_replaces_the_text_and_back_restores_it(home: Tab) -> None:
    home.switch_to("x", layer=3, head=2)
    example = home.page.locator(".examples a").last
    text = example.get_attribute("data-text") or ""
    assert "\n" in text
    example.click()
    home.wait_until_shown(text=text, layer=3, head=2)
    assert home.text.input_value() == text
    home.page.go_back()
    home.wait_until_shown(text="x", layer=3, head=2)
    assert home.text.input_value() == "x"


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        ({"model": "nope"}, 404, "There is no model 'nope'"),
        ({"layer": 12}, 422, "There is no layer 12; small-llama has 12"),
        ({"head": "x"}, 422, "head: Input should be a valid integer"),
        ({"stage": "soup"}, 422, "stage: Input should be"),
    ],
)
def test_an_invalid_address_is_explained_and_the_text_is_kept(
    home: Tab, state: dict[str, Any], status: int, words: str
) -> None:
    home.monitor.allow(f"status of {status}")
    home.go(text="the cat", **state)
    home.page.locator("body.stale").wait_for()  # the script has requested it, too
    assert words in (home.notice.text_content() or "")
    assert home.text.input_value() == "the cat"


def test_an_address_opens_exactly_its_state(second_tab: Tab) -> None:
    text = "a b\n  c + d & e=f #g %20 猫"
    second_tab.open(model="small-llama", text=text, layer=3, head=7, stage="scores", query=1)
    assert second_tab.shown() == ["small-llama", text, 3, 7, "scores"]
    assert second_tab.text.input_value() == text
    assert [second_tab.page.locator(f"#{field}").input_value() for field in ("layer", "head")] == ["3", "7"]
    assert second_tab.page.locator("[data-stage][aria-current]").text_content() == "scores"
    assert second_tab.page.locator(".token[aria-current]").text_content() == "·b"
    second_tab.check()


def test_an_address_restores_what_was_typed_and_chosen(home: Tab, second_tab: Tab) -> None:
    home.switch_to(TEXT)
    home.type("two cats & <three> dogs\n+ 1")
    home.page.locator("#layer").fill("8")
    home.grid.press("ArrowLeft")
    home.choose_stage("scaled")
    home.choose_query(3)
    home.page.wait_for_function("() => new URLSearchParams(location.search).get('query') === '3'")
    second_tab.page.goto(home.page.url, wait_until="commit")
    second_tab.wait_until_shown(text="two cats & <three> dogs\n+ 1")
    assert second_tab.shown() == home.shown() == ["small-llama", "two cats & <three> dogs\n+ 1", 8, 6, "scaled"]
    assert second_tab.row() == home.row()
    assert second_tab.z().tolist() == home.z().tolist()
    second_tab.check()


def test_everything_can_be_reached_by_keyboard(home: Tab) -> None:
    home.switch_to(TEXT)
    home.page.locator(".brand").focus()
    reached = ["brand"]
    while reached.count("brand") < 2:  # a full round
        home.page.keyboard.press("Tab")
        reached.append(home.focused())
        assert len(reached) < 100, f"Tab is stuck at {reached[-1]}"
    in_order = [
        "text",
        "model",
        "layer",
        "head",
        *["token"] * 7,
        "grid",
        "scores",
        "scaled",
        "masked",
        "weights",
        "scroll",
    ]
    assert [name for name in reached if name in in_order] == in_order
    home.page.locator("[data-stage=scores]").focus()
    home.page.keyboard.press("Enter")
    home.wait_until_shown(stage="scores")
    home.chips.nth(1).focus()
    home.page.keyboard.press("Enter")
    home.wait_until_chosen(1)
    assert home.page.evaluate("document.activeElement.value") == "1"  # the focus stays on the chip
