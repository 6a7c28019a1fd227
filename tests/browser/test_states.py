"""What the page says about a text, the chosen token, errors and empty texts, and when each message disappears."""

from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Locator

from tests.browser.conftest import PHONE, Tab, tab
from tests.browser.home import MODEL
from tests.browser.server import Server

TEXT = "the fat cat sat on the mat"
SMALL: dict[str, Any] = {"model": "lookback-gpt", "layer": 3, "head": 3}
LONG = " ".join(["the fat cat sat on the mat and saw a dog"] * 8)  # more than 80 tokens
EMPTY = "Type something, and see which tokens each token attends to."
HALF = "a\ud83d"  # half a surrogate pair, as some keyboards send an emoji

_DRAWN = """() => !document.body.classList.contains("stale")
  && [...document.querySelectorAll("[data-panel] .figure")].every((place) => "drawn" in place.dataset)"""
_TYPE = """(text) => {
  const box = document.getElementById("text");
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  const [notice, { classList }] = [document.getElementById("notice"), document.body];
  return [notice.hidden, classList.contains("stale")];
}"""
# Does every line begin at the left edge, without gaps wider than a space?
_IS_PARAGRAPH = """(paragraph) => {
  const range = document.createRange();
  range.selectNodeContents(paragraph);
  const texts = [...range.getClientRects()].filter(({ width }) => width);
  texts.sort((a, b) => a.top - b.top || a.left - b.left);
  const start = Math.min(...texts.map(({ left }) => left));
  return texts.every(({ left, bottom }, i) => {
    const before = texts[i - 1];
    return before && Math.abs(before.bottom - bottom) < 8 ? left - before.right < 8 : left - start < 2;
  });
}"""
# The left edge of each word or element of a heading.
_LEFTS = """(heading) => [...heading.childNodes].flatMap((node) => {
  const words = node.nodeType === Node.TEXT_NODE ? [...node.data.matchAll(/[^ ]+/g)] : [null];
  return words.map((word) => {
    const range = document.createRange();
    if (word) [range.setStart(node, word.index), range.setEnd(node, word.index + word[0].length)];
    else range.selectNodeContents(node);
    return range.getBoundingClientRect().left;
  });
})"""


def go(home: Tab, server: Server, slug: str, **query: Any) -> None:
    """Open a lesson, and wait until its pictures are drawn."""
    home.page.goto(f"{server.url}/lessons/{slug}?{urlencode({'text': TEXT, 'model': 'lookback-gpt', **query})}")
    home.page.wait_for_function(_DRAWN)


def chosen(home: Tab) -> str:
    return home.page.locator(".token[aria-current]").text_content() or ""


def test_a_click_on_the_chosen_token_keeps_it_and_a_button_follows_the_last_one_again(home: Tab) -> None:
    follow = home.page.get_by_role("button", name="Follow the last token")
    home.switch_to(TEXT, **SMALL)
    assert follow.is_hidden()  # the page already follows it
    home.choose_query(2)
    home.chips.nth(2).click()
    home.type(f"{TEXT} and")
    assert chosen(home) == "·cat"
    follow.click()
    home.wait_until_chosen(7)
    assert follow.is_hidden()
    home.type(f"{TEXT} and ran")
    assert chosen(home) == "·ran"


def test_typing_at_the_end_follows_the_last_token_until_a_token_is_clicked(home: Tab) -> None:
    home.open()
    assert chosen(home) == "·cat"  # the suggested token
    home.text.press("Control+End")
    home.page.keyboard.type(" and")
    home.wait_until_shown(text=f"{TEXT} and")
    assert chosen(home) == "·and"
    home.choose_query(2)
    home.text.press("Control+End")
    home.page.keyboard.type(" a")
    home.wait_until_shown(text=f"{TEXT} and a")
    assert chosen(home) == "·cat"
    home.open()
    home.chips.nth(2).click()  # the suggested token, which is now chosen
    home.text.press("Control+End")
    home.page.keyboard.type(" and")
    home.wait_until_shown(text=f"{TEXT} and")
    assert chosen(home) == "·cat"


def test_an_empty_text_is_not_an_error(home: Tab, server: Server) -> None:
    def check(notice: Locator) -> None:
        home.text.fill("")
        notice.filter(has_text=EMPTY).wait_for()
        faint = "getComputedStyle(document.documentElement).getPropertyValue('--faint')"
        assert (
            notice.evaluate(f"(notice) => [getComputedStyle(notice).backgroundColor, {faint}]")[0] == "rgba(0, 0, 0, 0)"
        )
        home.text.fill("the cat")
        notice.wait_for(state="hidden")

    home.switch_to(TEXT, **SMALL)
    check(home.notice)
    home.wait_until_shown(text="the cat")
    go(home, server, "self-attention")
    check(home.notice)
    for path in ("/", "/training", "/lessons/vectors"):
        reply = httpx.get(server.url + path, params={"text": "", "model": "lookback-gpt"})
        assert reply.status_code == 200
        assert EMPTY in reply.text


def test_an_error_disappears_when_the_next_request_begins(home: Tab, server: Server) -> None:
    home.monitor.allow("status of 422")
    home.switch_to(TEXT, **SMALL)
    home.text.fill(" a" * 300)
    home.notice.filter(has_text="lookback-gpt reads 256").wait_for()
    assert home.page.evaluate(_TYPE, "the cat") == [True, True]  # at once, before there is a reply
    home.wait_until_shown(text="the cat")
    go(home, server, "self-attention")
    home.text.fill(" a" * 300)
    home.notice.wait_for()
    assert home.page.evaluate(_TYPE, "the cat") == [True, True]
    home.page.wait_for_function(_DRAWN)


def test_a_layer_that_does_not_exist_is_the_same_error_on_all_pages(home: Tab, server: Server) -> None:
    home.monitor.allow("status of 422")
    message = "There is no layer 99; lookback-gpt has 4 of them, counted from 0. Choose 0 to 3."
    home.switch_to(TEXT, **SMALL)
    home.page.locator("#layer").fill("99")
    home.notice.filter(has_text=message).wait_for()
    assert home.page.locator("#head-title").text_content() == "Layer 3, head 3"  # the head that is drawn
    go(home, server, "self-attention")
    home.page.get_by_label("Layer", exact=True).fill("99")
    home.notice.filter(has_text=message).wait_for()
    for path in ("/", "/training", "/lessons/self-attention"):
        assert message in httpx.get(server.url + path, params={"model": "lookback-gpt", "layer": 99, "text": "a"}).text


@pytest.mark.parametrize("path", ["/", "/training"])
@pytest.mark.parametrize("transport", ["live", "http"])
def test_half_a_surrogate_pair_is_an_error_and_is_kept(
    browser: Browser, server: Server, path: str, transport: str
) -> None:
    with tab(browser, server.url) as opened:
        opened.monitor.allow("status of 422")
        if transport == "http":
            opened.page.add_init_script("delete window.WebSocket")
        opened.page.goto(f"{server.url}{path}?{urlencode({'model': 'lookback-gpt', 'text': 'a'})}")
        shown = "(text) => JSON.parse(document.body.dataset.shown ?? '[]')[1] === text"
        opened.page.wait_for_function(shown, arg="a")
        opened.page.evaluate(_TYPE, HALF)
        opened.notice.filter(has_text="character 1 of this text is half a surrogate pair").wait_for()
        assert opened.page.evaluate("[...document.getElementById('text').value].length") == 2
        assert opened.page.locator("#reading").is_hidden()
        opened.page.evaluate(_TYPE, "a\U0001f600")
        opened.page.wait_for_function(shown, arg="a\U0001f600")
        assert opened.notice.is_hidden()


def test_a_closed_table_is_empty(home: Tab, server: Server) -> None:
    def cells(part: Locator) -> int:
        return part.locator("tr :is(th, td)").count()

    go(home, server, "self-attention", text=LONG)
    n = home.page.locator("[data-panel=edge_facts] option, [data-control=noun] option").count() - 1
    assert n > 80
    scores, weights = (home.page.locator(f"[data-panel={name}]") for name in ("scores", "weights"))
    assert home.page.evaluate("document.querySelectorAll('*').length") < 5_000
    assert (cells(scores), cells(weights)) == (0, 0)
    scores.locator("summary").click()
    scores.locator("td").first.wait_for()
    assert (cells(scores), cells(weights)) == ((n + 1) ** 2, 0)
    home.text.fill(TEXT)
    home.page.wait_for_function(_DRAWN)
    assert (cells(scores), cells(weights)) == (8 * 8, 0)  # an open table is updated
    scores.locator("summary").click()
    home.text.fill("the cat")
    home.page.wait_for_function(_DRAWN)
    assert cells(scores) == 0

    home.switch_to(TEXT, query=2, **SMALL)
    summary = home.page.locator("#query-details summary")
    before = home.row()
    assert len(before) == 7
    summary.click()
    home.choose_query(3)
    assert home.page.locator("#query-title").text_content() == "What ·sat (3) attends to"
    assert home.page.locator("#query-table tbody tr").count() == 0
    home.choose_query(2)
    summary.click()
    home.page.locator("#query-table tbody tr").first.wait_for()
    assert home.row() == before


def test_a_right_to_left_token_does_not_reorder_the_sentence_around_it(home: Tab) -> None:
    home.switch_to("ש 12", query=0)
    title = home.page.locator("#query-title")
    assert title.text_content() == "What ש (0) attends to"
    lefts = title.evaluate(_LEFTS)
    assert lefts == sorted(lefts)
    assert len(lefts) == 5
    assert home.text.evaluate("(box) => getComputedStyle(box).direction") == "rtl"
    summary = home.page.locator("#next-summary").evaluate(_LEFTS)
    assert summary[:3] == sorted(summary[:3])  # "after", the token, its position
    home.hover_cell(1, 0).first.wait_for()
    assert home.cell.locator("bdi").all_text_contents() == ["·", "ש"]


def test_each_token_names_the_character_that_it_is_a_part_of(home: Tab, browser: Browser, server: Server) -> None:
    home.switch_to("a 猫", query=2, **SMALL)
    labels = home.token_labels()
    split = [title for title in home.chips.evaluate_all("(all) => all.map(({ title }) => title)") if "part of" in title]
    assert len(split) == len([label for label in labels if "‹" in label]) >= 2
    assert all(title.endswith("part of \u2068猫\u2069 (character 2)") for title in split)
    title = home.page.locator("#query-title").text_content() or ""
    with tab(browser, server.url, java_script_enabled=False) as plain:
        plain.go(text="a 猫", query=2, **SMALL)
        assert plain.page.locator("#query-title").text_content() == title
        assert plain.chips.nth(2).get_attribute("title") == home.chips.nth(2).get_attribute("title")
    home.choose_query(0)
    assert (home.page.locator("#query-title").text_content() or "").endswith("(0) attends to")


def test_the_note_about_a_stand_in_model_is_one_paragraph_on_a_phone(home: Tab, server: Server) -> None:
    go(home, server, "position-embedding", model=MODEL)  # which has no position embedding
    home.page.set_viewport_size(PHONE)
    note = home.page.locator(".stand-in")
    assert note.evaluate(_IS_PARAGRAPH)
