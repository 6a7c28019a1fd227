"""The app with its real default model, SmolLM2: it opens on the right head, keeps up with typing, and reads long texts.

Everything else about the page is tested with a small model.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Tab, tab
from tests.browser.server import Server, serving
from tests.browser.test_live import CHECK_EVERY_FRAME, RECORD_PROGRESS, check, sentence, values

FIRST = "the fat cat sat on the mat"


@pytest.fixture(scope="module")
def default_server() -> Iterator[Server]:
    """The app as it is started without options."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def home(browser: Browser, default_server: Server) -> Iterator[Tab]:
    with tab(browser, default_server.url) as opened:
        yield opened


def test_the_page_opens_on_a_head_in_which_cat_attends_to_fat_and_not_to_mat(home: Tab) -> None:
    home.open()
    assert home.shown() == ["smollm2-135m", FIRST, 11, 7, "weights"]
    assert home.text.input_value() == FIRST
    assert home.title() == "smollm2-135m · layer 11, head 7 · attention weights"
    assert home.page.locator(".token[aria-current]").text_content() == "·cat"
    row = home.row()
    assert float(row["1 ·fat"][3]) == pytest.approx(0.8669, abs=0.001)
    assert row["6 ·mat"][2:] == ["−∞", "0.000000"]
    z = home.z()
    assert z[2, 1] == pytest.approx(0.8669, abs=0.001)
    assert np.isnan(z[2, 6])


def test_without_javascript_the_same_numbers_are_there(browser: Browser, default_server: Server) -> None:
    with tab(browser, default_server.url, java_script_enabled=False) as plain:
        plain.go()
        row = plain.row()
        assert row["1 ·fat"][3].startswith("0.8669")
        assert row["6 ·mat"][2:] == ["−∞", "0.000000"]


def test_what_is_typed_is_drawn_with_the_numbers_of_the_api(home: Tab, default_server: Server) -> None:
    home.open(text="the keys")
    home.page.evaluate(CHECK_EVERY_FRAME)
    home.text.press("Control+End")
    home.page.keyboard.type(" to the cabinet are", delay=15)
    for _ in range(9):
        home.page.keyboard.press("Backspace", delay=5)
    home.page.keyboard.type("ndle", delay=15)
    text = "the keys to the candle"
    home.wait_until_shown(text=text)
    for stage in ("scores", "weights"):
        home.choose_stage(stage)
        of_api = values(default_server, text, stage, *home.shown()[2:4])
        if stage == "weights":
            of_api[np.triu_indices(len(of_api), 1)] = np.nan
        np.testing.assert_allclose(home.z(), of_api, rtol=1e-4, atol=1e-4)
    assert home.page.locator("#grid-caption").text_content() == "chosen: layer 11, head 7"
    check(home)


def test_the_last_of_its_thirty_layers_is_drawn(home: Tab) -> None:
    home.open(text=FIRST)
    home.page.locator("#layer").fill("29")
    home.wait_until_shown(layer=29)
    home.page.locator("#head").fill("8")
    home.wait_until_shown(head=8)
    assert home.title() == "smollm2-135m · layer 29, head 8 · attention weights"


def test_a_long_text_is_read_in_chunks_and_can_be_extended(home: Tab, default_server: Server) -> None:
    home.open(text="x")
    home.page.evaluate(RECORD_PROGRESS)
    text = sentence(600, seed=2)
    home.text.fill(text)
    home.page.wait_for_function("() => document.querySelector('body:not(.stale)')", timeout=60_000)
    home.page.locator("#grid-progress:empty").wait_for(state="attached", timeout=60_000)
    assert home.shown()[1] == text
    assert ["read 128 of 600 tokens", 128, 600, True] in home.page.evaluate("progress")
    assert home.chips.count() == 600
    whole = values(default_server, text, "weights", *home.shown()[2:4])
    blocks = np.nanmax(whole.reshape(150, 4, 150, 4), axis=(1, 3))
    np.testing.assert_allclose(home.z()[np.tril_indices(150)], blocks[np.tril_indices(150)], rtol=1e-3, atol=1e-6)
    home.text.press("Control+End")
    home.page.keyboard.insert_text(" bird")
    home.wait_until_shown(text=f"{text} bird")
    assert home.chips.count() == 601
