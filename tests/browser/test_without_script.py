"""Without JavaScript, the page works with a form, a table and links."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Tab, tab
from tests.browser.server import Server

TEXT = "the fat cat sat on the mat"


@pytest.fixture
def plain(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url, java_script_enabled=False) as opened:
        yield opened


def test_the_text_and_numbers_are_there(plain: Tab, server: Server) -> None:
    plain.go()
    assert plain.text.input_value() == TEXT
    assert plain.token_labels() == ["the", "·fat", "·cat", "·sat", "·on", "·the", "·mat"]
    row = plain.row()
    cat = server.post("attention", text=TEXT, layers=[0], heads=[0])["values"][0][0][2]
    assert [float(line[3]) for line in row.values()] == pytest.approx(cat, abs=1.1e-6)  # six decimals
    assert row["6 ·mat"][2:] == ["−∞", "0.000000"]
    assert len(plain.next_tokens()) == 10
    assert plain.notice.is_hidden()


def test_chips_stages_and_examples_are_links(plain: Tab) -> None:
    plain.go(text=TEXT, layer=3, head=2)
    plain.chips.nth(4).click()
    plain.page.locator(".token[aria-current]", has_text="·on").wait_for()
    assert plain.page.locator("#query-title").text_content() == "What ·on (4) attends to"
    plain.page.locator("[data-stage=scores]").click()
    plain.page.locator("[data-stage=scores][aria-current]").wait_for()
    expected = {"model": "small-llama", "text": TEXT, "layer": "3", "head": "2", "query": "4", "stage": "scores"}
    assert plain.address() == expected
    example = plain.page.locator(".examples a").nth(1)
    text = example.get_attribute("data-text")
    example.click()
    plain.page.wait_for_url("**/?text=The+keys*")
    assert plain.text.input_value() == text
    assert plain.token_labels()[-1] == "·table"


def test_the_form_reads_what_is_typed(plain: Tab) -> None:
    plain.go(text=TEXT, stage="masked")
    text = "one\n  two\n\nthree"
    plain.text.fill(text)
    plain.page.locator("#layer").fill("5")
    plain.page.locator("#text-form button").click()
    plain.page.wait_for_url("**/?text=one*")
    assert plain.text.input_value() == text
    assert "".join(plain.token_labels()).replace("·", " ").replace("↵", "\n") == text
    assert plain.address()["stage"] == "masked"
    assert plain.address()["layer"] == "5"


def test_text_is_never_parsed_as_html(plain: Tab) -> None:
    text = '</textarea><b>x</b> & "q" <img src=x onerror=alert(1)>'
    plain.go(text=text)
    assert plain.text.input_value() == text
    assert "".join(plain.token_labels()).replace("·", " ") == text
    assert plain.page.locator("main b, main img").count() == 0


def test_an_error_keeps_what_was_typed(plain: Tab) -> None:
    plain.monitor.allow("status of 422")
    text = " a" * 2_100
    plain.go(text=text, layer=4)
    assert "2,100 tokens; small-llama reads 2,048" in (plain.notice.text_content() or "")
    assert plain.text.input_value() == text
    assert plain.page.locator("#layer").input_value() == "4"
