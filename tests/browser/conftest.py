"""Chromium tabs on a real server with a small model, monitored for what no page may do.

Tests that need the real default model are in test_smollm2.py.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, ViewportSize, sync_playwright

from tests.browser import chromium
from tests.browser.home import Home
from tests.browser.server import Server, serving

WIDE: ViewportSize = {"width": 1360, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--no-enable-lazy-source-positions",  # otherwise Plotly's script is parsed four times under the debugger
)


class PageMonitor:
    """Records what no page may do: request another origin, log an error, throw, open a dialog or another page."""

    def __init__(self, page: Page, origin: str) -> None:
        self.violations: list[str] = []
        self._allowed: list[str] = []
        self._origin = origin
        page.on("request", lambda request: self._request(request.url))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.violations.append(f"thrown: {error}"))
        page.on("dialog", self._dialog)
        page.on("popup", lambda popup: self.violations.append(f"opened: {popup.url}"))

    def allow(self, *substrings: str) -> None:
        """Allow violations that contain one of these substrings, because the test provokes them."""
        self._allowed += substrings

    def check(self) -> None:
        """Check that there are no violations, and reset."""
        violations = [line for line in self.violations if not any(allowed in line for allowed in self._allowed)]
        self.violations, self._allowed = [], []
        assert not violations

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self._origin}/", "data:", "blob:")):
            self.violations.append(f"request: {url}")

    def _dialog(self, dialog: Dialog) -> None:
        self.violations.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.violations.append(f"console: {text}")


class Tab(Home):
    """A tab whose page is monitored."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        page = context.new_page()
        # The first page of a server takes 3.5 s of processor time, because Chromium compiles Plotly and the server
        # compresses it. If six processes share a core, that is more than 20 s.
        page.set_default_timeout(60_000)
        self.monitor = PageMonitor(page, url)
        super().__init__(page, url)

    def check(self) -> None:
        """Check that the page did nothing that no page may do."""
        self.page.title()  # when this returns, all earlier events have been handled
        self.monitor.check()


AnyTab = TypeVar("AnyTab", bound=Tab)


def pytest_runtest_setup() -> None:
    if chromium.find() is None:
        pytest.skip("no Chromium found; `python -m tests.browser.chromium` installs one")


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium with a profile on disk, in which it caches the compiled code of Plotly (5 MB).

    With the profile, each tab after the second takes 0.9 s of processor time to open; without it, 2.3 s.
    """
    with sync_playwright() as playwright:
        profile = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=chromium.find(), args=list(FLAGS), viewport=WIDE
        )
        assert profile.browser
        yield profile.browser
        state = profile.storage_state()
        profile.close()
    assert state == {"cookies": [], "origins": []}  # so that tabs of the same profile share no state


@pytest.fixture(scope="package")
def server(small_llama: Path) -> Iterator[Server]:
    """The app around a small model."""
    with serving("--model", str(small_llama)) as server:
        yield server


@pytest.fixture(scope="package")
def shared(browser: Browser, server: Server) -> Iterator[Tab]:
    """The tab of `home`."""
    with tab(browser, server.url) as opened:
        yield opened


@pytest.fixture
def home(shared: Tab, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A wide tab in light colours. All tests use the same one, because opening a tab takes a second."""
    shared.page.bring_to_front()  # Chromium draws a tab in the background only once a second
    shared.page.set_viewport_size(WIDE)
    shared.page.emulate_media(color_scheme="light")
    shared.page.mouse.move(0, 0)
    n_failed = request.session.testsfailed
    yield shared
    if request.session.testsfailed > n_failed:
        shared.page.goto("about:blank")  # the failed test left it in an unknown state
    shared.check()


@pytest.fixture(scope="package")
def second_tab(browser: Browser, server: Server) -> Iterator[Tab]:
    """Another tab, which can have the state of `home` only from an address."""
    with tab(browser, server.url) as opened:
        yield opened


def tab(browser: Browser, url: str, **options: Any) -> AbstractContextManager[Tab]:
    """A new tab, wide by default.

    With options, it gets its own browser context.
    """
    return tab_of(Tab, browser, url, **options)


@contextmanager
def tab_of(cls: type[AnyTab], browser: Browser, url: str, **options: Any) -> Iterator[AnyTab]:
    """The same for another subclass of Tab."""
    context = browser.new_context(**{"viewport": WIDE, **options}) if options else browser.contexts[0]
    opened = cls(context, url)
    try:
        yield opened
        opened.check()
    finally:
        opened.page.close()
        if options:
            context.close()


@pytest.fixture(scope="package")
def screenshots() -> Path:
    """The folder for screenshots, which git ignores."""
    folder = Path(__file__).resolve().parents[2] / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
