"""The live channel: whatever happens to it, the page never shows a picture of another text than the one in the box."""

import random
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, WebSocketRoute

from app.live.frame import decode
from tests.browser.conftest import WIDE, Tab, tab
from tests.browser.home import Matrix
from tests.browser.server import Server, serving

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "two", "dogs", "ran", "to", "see", "one", "red", "bird"]
REFUSED = "WebSocket connection to"  # how the console message begins

# Checks at every animation frame that every part of a page that is not stale shows the text in the box.
CHECK_EVERY_FRAME = """() => {
  window.checked = { times: 0, wrong: [] };
  const plain = (labels) => labels.join("").replaceAll("·", " ").replaceAll("↵", "\\n");
  const check = () => {
    requestAnimationFrame(check);
    if (document.body.classList.contains("stale") || !document.body.dataset.shown) return;
    const box = document.getElementById("text").value;
    const shown = JSON.parse(document.body.dataset.shown)[1];
    const chips = plain([...document.querySelectorAll("#tokens .token")].map((chip) => chip.textContent));
    const { x, meta } = document.getElementById("head-figure").data[0];
    // in a long text, a label has only the first token of its cell
    const axis = meta.x[2] > 1 ? box : plain(x.map((label) => label.replace(/^\\d+ /, "")));
    checked.times++;
    if ([shown, chips, axis].some((text) => text !== box)) checked.wrong.push([box, shown, chips, axis]);
  };
  check();
}"""

# Records each label of the progress bar, with the value, maximum and visibility of the bar.
RECORD_PROGRESS = """() => {
  window.progress = [];
  const [label, bar] = ["progress-label", "progress"].map((id) => document.getElementById(id));
  const record = () => progress.push([label.textContent, bar.value, bar.max, bar.checkVisibility()]);
  new MutationObserver(record).observe(label, { childList: true });
}"""
# As base64, because Playwright takes three seconds for an array of three million numbers.
_PIXELS = """(canvas) => new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1]);
  reader.readAsDataURL(new Blob([canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]));
})"""


def sentence(n_words: int, seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(n_words))


def values(server: Server, text: str, stage: str, layer: int = 11, head: int = 7) -> Matrix:
    """The numbers of one head from the JSON API, one row per query; `null` is NaN."""
    reply = server.post("attention", text=text, layers=[layer], heads=[head], stage=stage)
    return np.array(reply["values"][0][0], dtype=np.float64)


def check(home: Tab) -> None:
    """Check that nothing was shown of another text than the one in the box."""
    checked = home.page.evaluate("checked")
    assert checked["wrong"] == []
    assert checked["times"] > 0


def facts(home: Tab) -> Locator:
    return home.page.locator("#facts")


@pytest.fixture(scope="module")
def long(browser: Browser, server: Server) -> Iterator[tuple[Tab, list[bytes]]]:
    """A tab for long texts, and the frames that arrived over its live channel."""
    with tab(browser, server.url) as opened:
        frames: list[bytes] = []
        opened.page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: frames.append(_bytes(frame))),
        )
        opened.open(text="x", layer=11, head=7)
        yield opened, frames


def _bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def test_fast_typing_deleting_and_pasting_end_with_the_text_in_the_box(home: Tab) -> None:
    home.switch_to("the")
    home.page.evaluate(CHECK_EVERY_FRAME)
    keyboard = home.page.keyboard
    home.text.press("Control+End")
    keyboard.type(" keys to the cabinet are", delay=15)
    for _ in range(9):
        keyboard.press("Backspace", delay=5)
    keyboard.insert_text(" on the table,\nand the cat")
    home.wait_until_shown(text="the keys to the ca on the table,\nand the cat")
    home.text.press("Control+Home")
    keyboard.type("Look: ", delay=15)
    home.page.wait_for_timeout(200)
    keyboard.press("Control+a")
    keyboard.insert_text("something else")
    home.wait_until_shown(text="something else")
    check(home)
    assert "over HTTP" not in (facts(home).text_content() or "")


def test_the_picture_after_many_edits_is_that_of_a_new_page(home: Tab, second_tab: Tab, server: Server) -> None:
    chosen = random.Random(7)
    words = sentence(52, seed=1).split()
    home.switch_to(" ".join(words))
    for _ in range(25):  # around 64 tokens, above which a pixel of a thumbnail covers several tokens
        at = chosen.randrange(len(words) - 1)
        if chosen.random() < 0.45 and len(words) > 40:
            del words[at : at + chosen.randint(1, 6)]
        elif chosen.random() < 0.5:
            words += [chosen.choice(WORDS) for _ in range(chosen.randint(1, 8))]
        else:
            words.insert(at, chosen.choice(WORDS))
        home.text.fill(" ".join(words))
        home.page.wait_for_timeout(chosen.choice([0, 0, 30, 120]))
    text = " ".join(words)
    home.wait_until_shown(text=text)
    second_tab.open(text=text, layer=11, head=7)
    for stage in ("scores", "scaled", "weights"):
        for each in (home, second_tab):
            each.choose_stage(stage)
        of_api = values(server, text, stage)
        if stage == "weights":
            of_api[np.triu_indices(len(of_api), 1)] = np.nan
        np.testing.assert_allclose(home.z(), of_api, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(home.z(), second_tab.z(), rtol=1e-4, atol=1e-4)
    pixels = [np.frombuffer(b64decode(tab.grid.evaluate(_PIXELS)), np.uint8).astype(int) for tab in (home, second_tab)]
    assert pixels[0].max() > 0
    assert np.abs(pixels[0] - pixels[1]).max() <= 8  # one shade: the rounding of a byte
    norms = home.norm_numbers()
    for name, of_tokens in second_tab.norm_numbers().items():
        np.testing.assert_allclose(norms[name], of_tokens, rtol=1e-3, atol=1e-4)
    assert home.token_labels() == second_tab.token_labels()
    assert home.page.locator("#sink").text_content() == second_tab.page.locator("#sink").text_content()
    second_tab.check()


def test_a_late_reply_for_an_older_text_is_applied_but_not_shown(browser: Browser, server: Server) -> None:
    late: list[str | bytes] = []
    is_late = False

    def intercept(socket: WebSocketRoute) -> None:
        to_server = socket.connect_to_server()
        to_server.on_message(lambda message: late.append(message) if is_late else socket.send(message))
        sockets.append(socket)

    sockets: list[WebSocketRoute] = []
    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", intercept)
        home.open(text="first one", layer=11, head=7)
        home.page.evaluate(CHECK_EVERY_FRAME)
        is_late = True
        home.text.fill("first two")
        while not late:
            home.page.wait_for_timeout(10)
        home.text.fill("first two three")
        while len(late) < 2:
            home.page.wait_for_timeout(10)
        sockets[0].send(late[0])
        home.page.wait_for_timeout(100)
        assert home.shown()[1] == "first one"
        assert home.page.locator("body.stale").count() == 1
        sockets[0].send(late[1])
        home.wait_until_shown(text="first two three")  # including what only the first of the two contained
        assert home.z().shape == (3, 3)
        np.testing.assert_allclose(
            home.z()[np.tril_indices(3)],
            values(server, "first two three", "weights")[np.tril_indices(3)],
            rtol=1e-4,
        )
        check(home)


def test_a_lost_connection_is_reopened(browser: Browser, server: Server) -> None:
    sockets: list[WebSocketRoute] = []

    def forward(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", forward)
        home.open(text="the fat cat")
        home.page.evaluate(CHECK_EVERY_FRAME)
        home.text.press("Control+End")
        for code in (1011, 4008):
            home.page.keyboard.type(" sat", delay=15)
            sockets[-1].close(code=code)
            home.page.keyboard.type(" on", delay=15)
            home.wait_until_shown(text=home.text.input_value())
        home.wait_until_shown(text="the fat cat sat on sat on")
        assert len(sockets) == 3
        assert "over HTTP" not in (facts(home).text_content() or "")
        assert home.notice.is_hidden()
        check(home)


def test_a_dead_connection_is_detected_and_replaced(browser: Browser, server: Server) -> None:
    sockets: list[WebSocketRoute] = []
    pings: list[str | bytes] = []

    def without_pongs(socket: WebSocketRoute) -> None:
        to_server = socket.connect_to_server()
        socket.on_message(lambda message: pings.append(message) if "ping" in message else to_server.send(message))
        sockets.append(socket)

    with tab(browser, server.url, viewport=WIDE) as home:  # the clock belongs to a whole browser context
        home.page.route_web_socket("**/api/v2/live", without_pongs)
        home.page.clock.install()
        home.open(text="the fat cat")
        home.page.clock.fast_forward("00:21")
        home.page.wait_for_function("() => true")
        assert pings == ['{"ping": 1}']
        home.page.clock.fast_forward("00:46")
        home.page.clock.fast_forward("00:01")
        home.type("the fat cat sat")
        assert len(sockets) == 2


def test_after_a_restart_of_the_server_the_live_channel_is_used_again(browser: Browser, tiny_llama: Path) -> None:
    with serving("--model", str(tiny_llama)) as server, tab(browser, server.url) as home:
        home.monitor.allow(REFUSED, "Failed to load resource: net::ERR_", "status of 503")
        home.open(text="the fat cat")
        home.page.evaluate(CHECK_EVERY_FRAME)
        server.stop()
        home.text.press("Control+End")
        home.page.keyboard.type(" sat on the", delay=15)
        home.notice.filter(has_text="The server does not answer").wait_for()
        home.page.keyboard.type(" mat", delay=15)
        server.start()
        home.wait_until_shown(text="the fat cat sat on the mat")
        home.page.wait_for_function(
            "() => { const words = document.getElementById('facts').textContent; return !words.includes('over HTTP') }"
        )
        home.type("the dog")
        assert home.notice.is_hidden()
        check(home)


@pytest.mark.parametrize("reason", ["missing", "refused"])
def test_without_a_websocket_the_page_uses_http(browser: Browser, server: Server, reason: str) -> None:
    with tab(browser, server.url) as home:
        if reason == "missing":
            home.page.add_init_script("delete window.WebSocket")
        else:
            home.page.route_web_socket("**/api/v2/live", lambda socket: socket.close(code=1011))
        home.open(text="the fat cat", layer=11, head=7)
        facts(home).filter(has_text="over HTTP, because the live channel is unavailable").wait_for()
        home.page.evaluate(CHECK_EVERY_FRAME)
        home.text.press("Control+End")
        home.page.keyboard.type(" sat on", delay=15)
        home.wait_until_shown(text="the fat cat sat on")
        before = home.grid_image()
        home.page.locator("#layer").fill("3")  # the reply has no thumbnails, because the page has them
        home.wait_until_shown(layer=3)
        of_api = values(server, "the fat cat sat on", "weights", layer=3)
        unmasked = np.tril_indices(len(of_api))
        np.testing.assert_allclose(home.z()[unmasked], of_api[unmasked], rtol=1e-4)
        assert home.grid_image() != before  # the frame around the chosen head
        home.page.locator("#layer").fill("11")
        home.wait_until_shown(layer=11)
        assert home.grid_image() == before
        check(home)


def test_a_long_text_shows_progress_and_then_fills_in(long: tuple[Tab, list[bytes]]) -> None:
    home, _ = long
    home.page.evaluate(RECORD_PROGRESS)
    text = sentence(600, seed=2)
    home.text.fill(text)
    home.page.wait_for_function("() => document.querySelector('body:not(.stale)')", timeout=60_000)
    assert home.shown()[1] == text
    home.page.locator("#reading").wait_for(state="hidden")
    home.page.locator("#grid-progress:empty").wait_for(state="attached", timeout=60_000)
    reported = [line for line in home.page.evaluate("progress") if line[0].startswith("read")]
    assert reported[0] == ["read 128 of 600 tokens", 128, 600, True]
    assert [line[1] for line in reported] == sorted(line[1] for line in reported)
    assert home.title().endswith("each cell is the largest of 4×4")
    assert home.z().shape == (150, 150)
    assert home.page.locator("#query-table tbody tr").count() == 256
    assert "… %" not in (home.page.locator("#sink").text_content() or "")


def test_one_more_token_of_a_long_text_takes_few_bytes(long: tuple[Tab, list[bytes]]) -> None:
    home, frames = long
    text = sentence(600, seed=2)
    home.type(text)
    frames.clear()
    home.page.evaluate("() => { window.first = document.querySelector('.token'); }")
    home.text.press("Control+End")
    home.page.keyboard.insert_text(" bird")
    home.wait_until_shown(text=f"{text} bird")
    home.page.locator("#grid-progress:empty").wait_for(state="attached")
    assert home.chips.count() == 601
    assert 0 < sum(map(len, frames)) < 60_000
    assert home.page.evaluate("window.first === document.querySelector('.token')")  # its chip has been kept


def test_zooming_into_a_long_text_shows_every_number(long: tuple[Tab, list[bytes]], server: Server) -> None:
    home, _ = long
    text = sentence(600, seed=2)
    home.type(text)
    of_api = {stage: values(server, text, stage) for stage in ("scores", "weights")}
    coarse = home.z()
    blocks = np.nanmax(of_api["weights"].reshape(150, 4, 150, 4), axis=(1, 3))
    np.testing.assert_allclose(coarse[np.tril_indices(150)], blocks[np.tril_indices(150)], rtol=1e-3, atol=1e-6)

    home.figure.scroll_into_view_if_needed()
    box = home.figure.locator(".nsewdrag").bounding_box()
    assert box
    corners = [(box["x"] + part * box["width"], box["y"] + (part + 0.1) * box["height"]) for part in (0.3, 0.6)]
    home.page.mouse.move(*corners[0])
    home.page.mouse.down()
    home.page.mouse.move(*corners[1], steps=4)
    home.page.mouse.up()
    home.page.wait_for_function("() => new URLSearchParams(location.search).has('window')")
    home.wait_until_shown(text=text)
    top, bottom, left, right = map(int, home.address()["window"].split("-"))
    assert 170 < bottom - top < 190
    assert 170 < right - left < 190
    expected = np.where(np.tri(600, dtype=bool), of_api["weights"], np.nan)[top:bottom, left:right]
    np.testing.assert_allclose(home.z()[:, : right - left], expected[:, : home.z().shape[1]], rtol=1e-3, atol=1e-7)
    assert "largest" not in home.title()
    assert f"Queries {top} to {bottom - 1}, keys {left} to {right - 1} of 600" in (
        home.page.locator(".zoom-status").text_content() or ""
    )
    home.choose_stage("scores")
    np.testing.assert_allclose(home.z(), of_api["scores"][top:bottom, left:right], rtol=1e-3, atol=1e-3)
    home.choose_stage("weights")
    home.page.locator(".zoom-out").focus()
    home.page.keyboard.press("Enter")
    home.page.wait_for_function("() => document.getElementById('head-figure').dataset.drawn.includes('4×4')")
    assert home.page.locator(".zoom-out").is_hidden()
    assert home.focused() == "zoom-to-token"

    home.choose_query(300)
    home.page.locator(".zoom-to-token").press("Enter")
    home.page.wait_for_function("() => !document.getElementById('head-figure').dataset.drawn.includes('4×4')")
    assert home.labels("y")[0].startswith("172 ")
    expected = np.where(np.tri(600, dtype=bool), of_api["weights"], np.nan)[172:428, 172:428]
    np.testing.assert_allclose(home.z(), expected, rtol=1e-3, atol=1e-7)
    row = [float(line[3]) for line in home.row().values()]
    np.testing.assert_allclose(row, np.sort(of_api["weights"][300])[::-1][:256], atol=1.1e-6)
    home.page.locator(".zoom-out").click()
    home.wait_until_shown(text=text)


def test_an_address_with_a_window_opens_on_it(long: tuple[Tab, list[bytes]]) -> None:
    home, _ = long
    text = sentence(600, seed=2)
    home.open(text=text, layer=3, head=2, window="100-164-50-114")
    assert home.title() == "small-llama · layer 3, head 2 · attention weights"
    assert home.z().shape[0] == 64
    report = Axe().run(home.page)
    assert report.violations_count == 0, report.generate_report()
    assert home.figure.evaluate("({ data: [{ meta }] }) => [meta.x, meta.y]") == [[50, 114, 1], [100, 164, 1]]


def test_a_reading_can_be_cancelled_and_resumed(browser: Browser, server: Server) -> None:
    held: list[tuple[WebSocketRoute, str | bytes]] = []
    is_long = False

    def intercept(socket: WebSocketRoute) -> None:
        """Forward only the progress of a long text, and hold back everything else."""
        to_server = socket.connect_to_server()
        to_server.on_message(
            lambda message: (
                held.append((socket, message))
                if is_long and "progress" not in decode(_bytes(message))[0]
                else socket.send(message)
            )
        )

    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", intercept)
        home.open(text="before")
        home.page.evaluate(CHECK_EVERY_FRAME)
        is_long = True
        cancel_and_resume(home, sentence(1500, seed=3), held)
        is_long = False
        home.type("after")  # without waiting for the rest of the thumbnails of the long text
        check(home)


def cancel_and_resume(home: Tab, text: str, held: list[tuple[WebSocketRoute, str | bytes]]) -> None:
    home.text.fill(text)
    home.page.locator("#reading").wait_for()
    report = Axe().run(home.page, context="#reading")
    assert report.violations_count == 0, report.generate_report()
    home.page.locator("#cancel").click()
    assert "Reading was cancelled" in (home.notice.text_content() or "")
    report = Axe().run(home.page, context="#notice-bar")
    assert report.violations_count == 0, report.generate_report()
    assert home.focused() == "resume"
    home.page.wait_for_timeout(500)
    assert home.text.input_value() == text
    assert home.shown()[1] == "before"
    assert home.page.locator("body.stale").count() == 1
    assert home.page.locator("#reading").is_hidden()
    held.clear()
    home.page.locator("#resume").click()
    home.page.locator("#reading").wait_for()
    while home.page.locator("body.stale").count():
        while held:
            socket, message = held.pop(0)
            socket.send(message)
        home.page.wait_for_timeout(10)
    assert home.shown()[1] == text
    assert home.notice.is_hidden()
    while held:
        socket, message = held.pop(0)
        socket.send(message)


def test_the_newest_of_many_requests_is_answered(long: tuple[Tab, list[bytes]]) -> None:
    home, frames = long
    home.switch_to("the fat cat")
    frames.clear()
    home.grid.focus()
    for key in ["ArrowUp", "ArrowRight"] * 6:
        home.page.keyboard.press(key)
    home.wait_until_shown(layer=5, head=8)
    assert home.page.locator("#grid-caption").text_content() == "chosen: layer 5, head 8"
    replies = [frame for frame in map(decode, frames) if "n_tokens" in frame[0]]
    assert replies[-1][0]["layer"] == 5
    assert all(header["n_shared"] == header["n_tokens"] for header, _ in replies)  # the text is not sent again
