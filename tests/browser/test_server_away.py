"""The server stops and starts again, and has several models: nothing typed is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Tab, tab
from tests.browser.server import Server, serving


@pytest.fixture(scope="module")
def small(browser: Browser, tiny_llama: Path) -> Iterator[tuple[Server, Tab]]:
    """A server for these tests only, whose default model is a tiny one, and a tab on it."""
    with serving("--model", str(tiny_llama)) as server, tab(browser, server.url) as opened:
        yield server, opened


def test_a_page_survives_a_restart_of_its_server(small: tuple[Server, Tab]) -> None:
    server, home = small
    home.monitor.allow("Failed to load resource: net::ERR_", "status of 503", "WebSocket connection to")
    home.open(text="the fat cat")
    server.stop()
    home.text.press("Control+End")
    home.page.keyboard.type(" sat")
    home.notice.filter(has_text="The server does not answer").wait_for()
    assert home.text.input_value() == "the fat cat sat"
    assert home.token_labels() == ["the", "·fat", "·cat"]
    server.start()
    home.wait_until_shown(text="the fat cat sat")
    assert home.notice.is_hidden()
    assert home.text.input_value() == "the fat cat sat"
    home.check()


def test_choosing_a_model_redraws_with_it(small: tuple[Server, Tab]) -> None:
    server, home = small
    home.monitor.allow("status of 503")  # until the model is loaded
    server.wait_until_ready()
    home.open(text="the fat cat", layer=2, head=3)
    tiny = home.shown()[0]
    infos = server.get("/api/v1/models")["models"]
    models = [model["name"] for model in infos]
    offered = [model["name"] for model in infos if model["state"] != "not here"]
    assert home.page.locator("#model option:not(:disabled)").all_text_contents() == offered
    missing = [f"{name} (not here)" for name in models if name not in offered]
    assert home.page.locator("#model option:disabled").all_text_contents() == missing
    assert home.page.locator("#model").input_value() == models[0] == tiny
    home.page.locator("#model").select_option("lookback-gpt")
    home.wait_until_shown(model="lookback-gpt", layer=2, head=3)
    assert home.notice.is_hidden()
    about = home.page.locator("p.about:visible").all_text_contents()
    assert [description.split(" computed")[0] for description in about] == [
        "lookback-gpt: a GPT-2 of 2.6 million parameters trained for Lookback, float16 weights"
    ]
    assert home.token_labels() == ["·the", "·fat", "·cat"]  # its own tokens
    home.page.locator("#layer").fill("3")
    home.wait_until_shown(layer=3)
    home.page.locator("#model").select_option(tiny)
    home.wait_until_shown(model=tiny, layer=2, head=3)  # its last layer
    home.check()
