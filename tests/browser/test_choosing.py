"""What is chosen, by whatever means, is drawn; and the address restores it."""

from typing import Any

import pytest

from tests.browser.conftest import Tab

TEXT = "the fat cat sat on the mat"
STAGES = ["scores", "scaled", "masked", "weights"]


def test_a_head_is_chosen_by_a_click_by_arrow_keys_and_by_number(home: Tab) -> None:
    home.turn_to(TEXT, layer=11, head=7)
    seen = [(home.picture(), home.z().tolist())]

    def chosen(layer: int, head: int) -> None:
        home.wait_until_shown(layer=layer, head=head)
        assert home.title() == f"small-llama · layer {layer}, head {head} · attention weights"
        assert [home.page.locator(f"#{field}").input_value() for field in ("layer", "head")] == [f"{layer}", f"{head}"]
        assert home.page.locator("#head-title").text_content() == f"Layer {layer}, head {head}"
        assert home.page.locator("#grid-name").text_content() == f"chosen: layer {layer}, head {head}"
        picture = home.picture(), home.z().tolist()
        assert picture not in seen
        seen.append(picture)

    box = home.grid.bounding_box()
    assert box
    n_layers, n_heads = 12, 9
    label = 22  # px; the numbers of layers and heads on the edges
    place = {
        "x": label + (2.5 / n_heads) * (box["width"] - label),
        "y": label + (4.5 / n_layers) * (box["height"] - label),
    }
    home.grid.hover(position={"x": place["x"], "y": place["y"]})
    assert home.page.locator("#grid-name").text_content() == "layer 4, head 2"
    home.grid.click(position={"x": place["x"], "y": place["y"]})
    home.page.mouse.move(0, 0)
    chosen(4, 2)
    home.grid.press("ArrowDown")
    chosen(5, 2)
    home.grid.press("ArrowRight")
    chosen(5, 3)
    home.grid.press("ArrowUp")
    home.grid.press("ArrowLeft")
    home.wait_until_shown(layer=4, head=2)
    home.page.locator("#layer").fill("11")
    chosen(11, 2)
    home.page.locator("#head").fill("8")
    chosen(11, 8)
    home.grid.press("ArrowDown")  # the last row, the last column: there is nothing beyond
    home.grid.press("ArrowRight")
    home.grid.press("ArrowUp")
    chosen(10, 8)


def test_a_layer_that_does_not_exist_is_an_error_with_a_way_out(home: Tab) -> None:
    home.watch.allow("status of 422")
    home.turn_to(TEXT)
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
        return home.page.locator("#row-title").text_content() or ""

    home.turn_to(TEXT, query=2)
    assert heading() == "What ·cat (2) looks at"
    before = home.next_tokens()
    home.choose_query(5)
    assert heading() == "What ·the (5) looks at"
    assert home.next_tokens() != before
    home.hover_cell(3, 1).first.wait_for()
    home.page.mouse.down()
    home.page.mouse.up()
    home.wait_until_chosen(3)
    assert heading() == "What ·sat (3) looks at"


def test_a_chosen_token_stays_chosen_while_what_stands_before_it_is_untouched(home: Tab) -> None:
    home.turn_to("the fat cat", query=1)
    home.type("the fat cat sat")
    assert home.page.locator(".token[aria-current]").text_content() == "·fat"
    home.type("a fat cat sat")
    assert home.page.locator(".token[aria-current]").text_content() == "·sat"


def test_an_example_is_typed_by_a_click_and_back_undoes_it(home: Tab) -> None:
    home.turn_to("x", layer=3, head=2)
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
def test_an_address_of_what_is_not_there_stays_explained(
    home: Tab, state: dict[str, Any], status: int, words: str
) -> None:
    home.watch.allow(f"status of {status}")
    home.go(text="the cat", **state)
    home.page.locator("body.stale").wait_for()  # the script has asked, too
    assert words in (home.notice.text_content() or "")
    assert home.text.input_value() == "the cat"


def test_an_address_opens_exactly_what_it_says(stranger: Tab) -> None:
    text = "a b\n  c + d & e=f #g %20 猫"
    stranger.open(model="small-llama", text=text, layer=3, head=7, stage="scores", query=1)
    assert stranger.shown() == ["small-llama", text, 3, 7, "scores"]
    assert stranger.text.input_value() == text
    assert [stranger.page.locator(f"#{field}").input_value() for field in ("layer", "head")] == ["3", "7"]
    assert stranger.page.locator("[data-stage][aria-current]").text_content() == "scores"
    assert stranger.page.locator(".token[aria-current]").text_content() == "·b"
    stranger.check()


def test_what_was_typed_and_chosen_comes_back_with_the_address(home: Tab, stranger: Tab) -> None:
    home.turn_to(TEXT)
    home.type("two cats & <three> dogs\n+ 1")
    home.page.locator("#layer").fill("8")
    home.grid.press("ArrowLeft")
    home.choose_stage("scaled")
    home.choose_query(3)
    home.page.wait_for_function("() => new URLSearchParams(location.search).get('query') === '3'")
    stranger.page.goto(home.page.url, wait_until="commit")
    stranger.wait_until_shown(text="two cats & <three> dogs\n+ 1")
    assert stranger.shown() == home.shown() == ["small-llama", "two cats & <three> dogs\n+ 1", 8, 6, "scaled"]
    assert stranger.row() == home.row()
    assert stranger.z().tolist() == home.z().tolist()
    stranger.check()


def test_a_keyboard_reaches_everything(home: Tab) -> None:
    home.turn_to(TEXT)
    home.page.locator(".brand").focus()
    reached = ["brand"]
    while reached.count("brand") < 2:  # once around
        home.page.keyboard.press("Tab")
        reached.append(home.focused())
        assert len(reached) < 100, f"no way on from {reached[-1]}"
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
    assert [what for what in reached if what in in_order] == in_order
    home.page.locator("[data-stage=scores]").focus()
    home.page.keyboard.press("Enter")
    home.wait_until_shown(stage="scores")
    home.chips.nth(1).focus()
    home.page.keyboard.press("Enter")
    home.wait_until_chosen(1)
    assert home.page.evaluate("document.activeElement.value") == "1"  # the keyboard stays where it was
