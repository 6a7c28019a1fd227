"""What a page transfers: little before it is painted, Plotly's script only afterwards and only where it draws."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, CDPSession

from app.routes import assets
from tests.browser.conftest import Tab, tab
from tests.browser.server import Server

MAX_FIRST_PAINT = 100_000  # bytes
# When Plotly's script was requested, and when the page was first painted.
TIMES = """() => [
  performance.getEntriesByType("resource").find(({ name }) => name.includes("/plotly-")).startTime,
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
]"""


class Transfers:
    """The files that a tab transfers, each with its size in bytes and the time of its request in seconds."""

    def __init__(self, session: CDPSession) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        session.on("Network.requestWillBeSent", self._begin)
        session.on("Network.loadingFinished", self._end)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})

    def _begin(self, event: dict[str, Any]) -> None:
        path = urlsplit(event["request"]["url"]).path
        self.files[event["requestId"]] = {"path": path, "requested": event["timestamp"], "bytes": 0}

    def _end(self, event: dict[str, Any]) -> None:
        self.files[event["requestId"]]["bytes"] = event["encodedDataLength"]

    def paths(self) -> list[str]:
        return [file["path"] for file in self.files.values()]


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        yield opened


def load(opened: Tab, path: str) -> Transfers:
    transfers = Transfers(opened.page.context.new_cdp_session(opened.page))
    opened.page.goto(f"{opened.url}{path}")
    opened.page.wait_for_function("() => document.body.dataset.shown || document.querySelector('[data-drawn]')")
    return transfers


@pytest.mark.parametrize("path", ["/", "/training", "/lessons/softmax", "/lessons/self-attention"])
def test_the_page_with_its_style_and_its_modules_takes_less_than_100_kb(opened: Tab, path: str) -> None:
    transfers = load(opened, path)
    sizes = {file["path"]: file["bytes"] for file in transfers.files.values() if file["path"] != assets.PLOTLY}
    first = {name: size for name, size in sizes.items() if name == path or name.endswith((".js", ".css", ".svg"))}
    assert first.keys() > {path, "/static/app.css", "/static/theme.js"}
    assert 50_000 < sum(first.values()) < MAX_FIRST_PAINT


@pytest.mark.parametrize("path", ["/", "/training", "/lessons/softmax"])
def test_plotlys_script_is_loaded_once_and_after_the_first_paint(opened: Tab, path: str) -> None:
    transfers = load(opened, path)
    opened.page.wait_for_function("() => window.Plotly")
    requested, painted = opened.page.evaluate(TIMES)
    assert requested > painted
    assert sum(path == assets.PLOTLY for path in transfers.paths()) == 1


def test_a_page_that_draws_nothing_with_plotly_does_not_load_it(opened: Tab) -> None:
    transfers = load(opened, "/lessons/input-embedding")
    opened.page.wait_for_load_state("networkidle")
    assert assets.PLOTLY not in transfers.paths()


@pytest.mark.parametrize("path", ["/", "/training", "/lessons/softmax"])
def test_every_module_is_requested_at_once_and_only_once(opened: Tab, path: str) -> None:
    transfers = load(opened, path)
    loaded = [path for path in transfers.paths() if path.endswith(".js") and path != assets.PLOTLY]
    named = opened.page.locator("link[rel=modulepreload]").evaluate_all("(links) => links.map((link) => link.href)")
    assert sorted(loaded) == sorted(urlsplit(address).path for address in named)
