"""Whatever is typed is drawn, and nothing else."""

from typing import Any

import numpy as np

from tests.browser.conftest import Tab
from tests.browser.server import Server

MARKUP = '<b>x</b> & "q" <img src=x onerror=alert(1)>'

# Records at every drawing the text in the box, and the text that `data-shown` and the chips say was drawn.
RECORD_DRAWINGS = """() => {
  window.drawings = [];
  window.observer?.disconnect();
  const chips = () => [...document.querySelectorAll("#tokens .token")].map((chip) => chip.textContent).join("");
  window.observer = new MutationObserver(() =>
    drawings.push([document.getElementById("text").value, JSON.parse(document.body.dataset.shown)[1], chips()]),
  );
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-shown"] });
}"""


def test_typing_redraws_everything(home: Tab) -> None:
    def drawn() -> dict[str, Any]:
        return {
            "chips": home.token_labels(),
            "grid": home.grid_image(),
            "figure": home.z().tolist(),
            "axis": home.labels("x"),
            "table": home.row(),
            "next": home.next_tokens(),
            "norms": home.norm_numbers(),
        }

    home.switch_to("the fat cat", layer=11, head=7)
    before = drawn()
    home.text.press("Control+End")
    home.page.keyboard.type(" slept")
    home.wait_until_shown(text="the fat cat slept")
    after = drawn()
    assert [part for part in before if before[part] == after[part]] == []
    assert home.token_labels() == ["the", "·fat", "·cat", "·slept"]
    assert home.labels("x") == home.labels("y") == ["0 the", "1 ·fat", "2 ·cat", "3 ·slept"]
    assert "3 ·slept" in home.norms.locator(".y3tick text").all_text_contents()
    np.testing.assert_allclose(home.z()[:3, :3], before["figure"], atol=1e-5)  # no earlier row changes


def test_typing_fast_ends_with_the_last_text_and_shows_no_other_on_the_way(home: Tab) -> None:
    home.switch_to("the")
    home.page.evaluate(RECORD_DRAWINGS)
    home.text.press("Control+End")
    home.page.keyboard.type(" keys are on the table", delay=40)  # ms; just slow enough to be more than one request
    home.wait_until_shown(text="the keys are on the table")
    drawings = home.page.evaluate("drawings")
    assert drawings[-1][0] == "the keys are on the table"
    assert [texts for texts in drawings if not texts[0] == texts[1] == texts[2].replace("·", " ")] == []


def test_text_is_never_parsed_as_html(home: Tab) -> None:
    home.switch_to("x")
    n_elements = home.page.locator("main b, main img, main script").count()
    home.type(MARKUP)
    tokens = home.token_labels()
    assert "".join(tokens).replace("·", " ") == MARKUP
    named = [f"{position} {token}" for position, token in enumerate(tokens)]
    assert home.labels("x") == home.labels("y") == named
    assert list(home.row()) == named
    for position in (0, len(tokens) - 1):
        label = home.hover_cell(position, position)
        label.filter(has_text=f"key {named[position]}").wait_for()
        assert f"query {named[position]} → key {named[position]}:" in (home.cell.text_content() or "")
    assert home.page.locator("main b, main img, main script").count() == n_elements == 0


def test_equal_tokens_stay_separate(home: Tab) -> None:
    home.switch_to("the the the")
    assert home.token_labels() == ["the", "·the", "·the"]
    assert home.labels("x") == home.labels("y") == ["0 the", "1 ·the", "2 ·the"]
    assert home.z().shape == (3, 3)
    assert len(home.row()) == 3
    home.type("\n\n\n\n a")
    assert len(set(home.labels("y"))) == len(home.token_labels()) == home.z().shape[0]


def test_characters_that_are_not_in_the_vocabulary_are_listed(home: Tab, server: Server) -> None:
    home.switch_to("ab")
    assert home.page.locator("#dropped").is_hidden()
    home.page.evaluate(
        """() => { const box = document.getElementById("text");
        box.value = "a\\u0004b"; box.dispatchEvent(new InputEvent("input", { bubbles: true })); }"""
    )
    home.wait_until_shown(text="a\u0004b")
    assert home.page.locator("#dropped").is_visible()
    assert "character 1" in (home.page.locator("#dropped").text_content() or "")
    assert home.token_labels() == [token["text"] for token in server.post("tokens", text="a\u0004b")["tokens"]]
    home.type("ab")
    assert home.page.locator("#dropped").is_hidden()


def test_an_error_is_shown_and_what_was_typed_is_kept(home: Tab) -> None:
    text, numbers = " a" * 2_100, ["2,100", "2,048"]
    home.monitor.allow("status of 422")
    home.switch_to("before", layer=3, head=2)
    assert home.notice.is_hidden()
    home.text.fill(text)
    home.notice.wait_for()
    message = home.notice.text_content() or ""
    assert [number for number in numbers if number not in message] == []
    assert home.text.input_value() == text
    home.type("after")
    assert home.notice.is_hidden()
    assert home.shown() == ["small-llama", "after", 3, 2, "weights"]
