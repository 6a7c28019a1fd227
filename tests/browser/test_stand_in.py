"""While the default model is unavailable, the one that comes with the app is shown, with a link to the default one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Tab, tab
from tests.browser.server import Server


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose default model would have to be fetched, but cannot be."""
    server = Server("--model", "gpt2", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path_factory.mktemp("hub")))
    server.wait_for("lookback-gpt")  # on a busy machine the import of the hub's client can delay it
    yield server
    server.stop()


@pytest.fixture
def waiting_tab(browser: Browser, away: Server) -> Iterator[Tab]:
    with tab(browser, away.url) as opened:
        opened.monitor.allow("503")  # the status of /readyz until the default model is ready
        opened.page.goto(away.url)
        opened.page.wait_for_function("() => document.body.dataset.shown")
        yield opened


def ready(page: Page) -> None:
    """Make the server say from now on that the default model is ready."""
    page.route("**/readyz", lambda route: route.fulfill(body="ready"))


def test_the_page_works_and_names_the_model_that_it_waits_for(waiting_tab: Tab) -> None:
    banner = waiting_tab.page.locator("#stand-in")
    expect(banner).to_contain_text("gpt2 is not ready: ")
    expect(banner).to_contain_text("could not be fetched from the Hugging Face hub")
    expect(banner).to_contain_text("you see lookback-gpt, which comes with Lookback")
    waiting_tab.page.fill("#text", "the dog saw the cat")
    expect(waiting_tab.page.locator("#tokens")).to_have_text("·the·dog·saw·the·cat")
    assert Path(waiting_tab.page.locator("#facts").inner_text().split(" · ")[0]).name == "lookback-gpt"


def test_without_interaction_the_page_switches_to_the_default_model_when_it_is_ready(waiting_tab: Tab) -> None:
    ready(waiting_tab.page)
    waiting_tab.page.wait_for_url("**/?model=gpt2&text=the+fat+cat+sat+on+the+mat")


def test_after_typing_a_link_is_offered_and_the_text_is_kept(waiting_tab: Tab) -> None:
    page = waiting_tab.page
    page.fill("#text", "a & b")
    ready(page)
    expect(page.locator("#stand-in")).to_contain_text("gpt2 is ready.")
    assert page.input_value("#text") == "a & b"
    page.get_by_role("link", name="Use gpt2").click()
    page.wait_for_url("**/?model=gpt2&text=a+%26+b")
    assert page.input_value("#text") == "a & b"
