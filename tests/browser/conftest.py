"""A real Chromium on a real server with a small model, and an eye on what no page may ever do.

What only the real default model can show is in test_smollm2.py.
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
    "--js-flags=--no-enable-lazy-source-positions",  # else Plotly's script is parsed four times while one debugs
)


class Watch:
    """What a page did that none may: ask another origin, log an error, throw, open a dialog or another page."""

    def __init__(self, page: Page, origin: str) -> None:
        self.found: list[str] = []
        self._allowed: list[str] = []
        self._origin = origin
        page.on("request", lambda request: self._request(request.url))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.found.append(f"thrown: {error}"))
        page.on("dialog", self._dialog)
        page.on("popup", lambda popup: self.found.append(f"opened: {popup.url}"))

    def allow(self, *words: str) -> None:
        """Let the console hold errors with these words in them: this test provokes them."""
        self._allowed += words

    def check(self) -> None:
        """Nothing was found; begin anew."""
        found = [one for one in self.found if not any(words in one for words in self._allowed)]
        self.found, self._allowed = [], []
        assert not found

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self._origin}/", "data:", "blob:")):
            self.found.append(f"request: {url}")

    def _dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.found.append(f"console: {text}")


class Tab(Home):
    """A page that is watched."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        page = context.new_page()
        # The first page of a server costs 3.5 s of processor time: Chromium compiles Plotly, the server compresses it.
        # Where six processes share a core, that is more than 20 s.
        page.set_default_timeout(60_000)
        self.watch = Watch(page, url)
        super().__init__(page, url)

    def check(self) -> None:
        """It did nothing that no page may do."""
        self.page.title()  # by the time this is answered, everything older has been heard
        self.watch.check()


AnyTab = TypeVar("AnyTab", bound=Tab)


def pytest_runtest_setup() -> None:
    if chromium.find() is None:
        pytest.skip("no Chromium here; `python -m tests.browser.chromium` gets one where it can")


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium with a profile on disk, where it keeps what it compiled of Plotly's 5 MB: each tab after the second
    opens in 0.9 s of processor time, without a profile in 2.3 s."""
    with sync_playwright() as playwright:
        profile = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=chromium.find(), args=list(FLAGS), viewport=WIDE
        )
        assert profile.browser
        yield profile.browser
        kept = profile.storage_state()
        profile.close()
    assert kept == {"cookies": [], "origins": []}  # so the tabs of one profile are strangers to each other


@pytest.fixture(scope="package")
def server(small_llama: Path) -> Iterator[Server]:
    """The app around a small model."""
    with serving("--model", str(small_llama)) as server:
        yield server


@pytest.fixture(scope="package")
def shared(browser: Browser, server: Server) -> Iterator[Tab]:
    with tab(browser, server.url) as opened:
        yield opened


@pytest.fixture
def home(shared: Tab, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab, wide and light. All tests have the same one: to open another takes a second."""
    shared.page.bring_to_front()  # Chromium draws a tab behind another one once a second
    shared.page.set_viewport_size(WIDE)
    shared.page.emulate_media(color_scheme="light")
    shared.page.mouse.move(0, 0)
    n_failed = request.session.testsfailed
    yield shared
    if request.session.testsfailed > n_failed:
        shared.page.goto("about:blank")  # nobody knows in what state this test left it
    shared.check()


@pytest.fixture(scope="package")
def stranger(browser: Browser, server: Server) -> Iterator[Tab]:
    """A tab of somebody else, who has nothing of what `home` has but an address."""
    with tab(browser, server.url) as opened:
        yield opened


def tab(browser: Browser, url: str, **options: Any) -> AbstractContextManager[Tab]:
    """A watched tab of a visitor who was never here before, wide if nothing else is said.

    With options it has a browser context of its own.
    """
    return tab_of(Tab, browser, url, **options)


@contextmanager
def tab_of(kind: type[AnyTab], browser: Browser, url: str, **options: Any) -> Iterator[AnyTab]:
    """The same, of another page."""
    context = browser.new_context(**{"viewport": WIDE, **options}) if options else browser.contexts[0]
    opened = kind(context, url)
    try:
        yield opened
        opened.check()
    finally:
        opened.page.close()
        if options:
            context.close()


@pytest.fixture(scope="package")
def screenshots() -> Path:
    """A folder that git ignores."""
    folder = Path(__file__).resolve().parents[2] / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
