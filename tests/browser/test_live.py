"""The live channel: whatever happens to it, the picture is never one of another text than the one in the box."""

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
REFUSED = "WebSocket connection to"  # the console's words

# Looks at every frame of the screen: what is shown as current must be of the text in the box, in every part.
LOOK = """() => {
  window.looked = { times: 0, wrong: [] };
  const plain = (pieces) => pieces.join("").replaceAll("·", " ").replaceAll("↵", "\\n");
  const look = () => {
    requestAnimationFrame(look);
    if (document.body.classList.contains("stale") || !document.body.dataset.shown) return;
    const box = document.getElementById("text").value;
    const said = JSON.parse(document.body.dataset.shown)[1];
    const chips = plain([...document.querySelectorAll("#tokens .token")].map((chip) => chip.textContent));
    const { x, meta } = document.getElementById("head-figure").data[0];
    // the labels of a long text name only the first token of each cell
    const axis = meta.x[2] > 1 ? box : plain(x.map((label) => label.replace(/^\\d+ /, "")));
    looked.times++;
    if ([said, chips, axis].some((one) => one !== box)) looked.wrong.push([box, said, chips, axis]);
  };
  look();
}"""

# Notes every word of the progress bar, what the bar itself says, and whether it can be seen.
NOTE_PROGRESS = """() => {
  window.progress = [];
  const [words, bar] = ["progress-words", "progress"].map((id) => document.getElementById(id));
  const note = () => progress.push([words.textContent, bar.value, bar.max, bar.checkVisibility()]);
  new MutationObserver(note).observe(words, { childList: true });
}"""
# As base64: Playwright takes three seconds for an array of three million numbers.
_PIXELS = """(canvas) => new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1]);
  reader.readAsDataURL(new Blob([canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]));
})"""


def sentence(n_words: int, seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(n_words))


def values(server: Server, text: str, stage: str, layer: int = 11, head: int = 7) -> Matrix:
    """The JSON API's numbers of one head, queries down; `null` is NaN."""
    reply = server.post("attention", text=text, layers=[layer], heads=[head], stage=stage)
    return np.array(reply["values"][0][0], dtype=np.float64)


def check(home: Tab) -> None:
    """Nothing was shown of another text than the one in the box."""
    looked = home.page.evaluate("looked")
    assert looked["wrong"] == []
    assert looked["times"] > 0


def facts(home: Tab) -> Locator:
    return home.page.locator("#facts")


@pytest.fixture(scope="module")
def long(browser: Browser, server: Server) -> Iterator[tuple[Tab, list[bytes]]]:
    """A tab in which a long text is read, and the frames that came over its live channel."""
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
    home.turn_to("the")
    home.page.evaluate(LOOK)
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


def test_the_picture_after_many_edits_is_that_of_a_page_that_saw_none(home: Tab, stranger: Tab, server: Server) -> None:
    chosen = random.Random(7)
    words = sentence(52, seed=1).split()
    home.turn_to(" ".join(words))
    for _ in range(25):  # over and under 64 tokens, where the thumbnails' pixels begin to cover several
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
    stranger.open(text=text, layer=11, head=7)
    for stage in ("scores", "scaled", "weights"):
        for one in (home, stranger):
            one.choose_stage(stage)
        of_api = values(server, text, stage)
        if stage == "weights":
            of_api[np.triu_indices(len(of_api), 1)] = np.nan
        np.testing.assert_allclose(home.z(), of_api, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(home.z(), stranger.z(), rtol=1e-4, atol=1e-4)
    pixels = [np.frombuffer(b64decode(tab.grid.evaluate(_PIXELS)), np.uint8).astype(int) for tab in (home, stranger)]
    assert pixels[0].max() > 0
    assert np.abs(pixels[0] - pixels[1]).max() <= 8  # a byte's rounding is a shade
    norms = home.norm_numbers()
    for name, of_tokens in stranger.norm_numbers().items():
        np.testing.assert_allclose(norms[name], of_tokens, rtol=1e-3, atol=1e-4)
    assert home.pieces() == stranger.pieces()
    assert home.page.locator("#sink").text_content() == stranger.page.locator("#sink").text_content()
    stranger.check()


def test_a_late_answer_to_an_older_text_is_taken_in_and_not_shown(browser: Browser, server: Server) -> None:
    late: list[str | bytes] = []
    is_late = False

    def hold(socket: WebSocketRoute) -> None:
        to_server = socket.connect_to_server()
        to_server.on_message(lambda message: late.append(message) if is_late else socket.send(message))
        sockets.append(socket)

    sockets: list[WebSocketRoute] = []
    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", hold)
        home.open(text="first one", layer=11, head=7)
        home.page.evaluate(LOOK)
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
        home.wait_until_shown(text="first two three")  # what only the first of the two held is there
        assert home.z().shape == (3, 3)
        np.testing.assert_allclose(
            home.z()[np.tril_indices(3)],
            values(server, "first two three", "weights")[np.tril_indices(3)],
            rtol=1e-4,
        )
        check(home)


def test_a_lost_connection_comes_back_by_itself(browser: Browser, server: Server) -> None:
    sockets: list[WebSocketRoute] = []

    def through(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", through)
        home.open(text="the fat cat")
        home.page.evaluate(LOOK)
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


def test_a_line_that_went_dead_is_noticed_and_replaced(browser: Browser, server: Server) -> None:
    sockets: list[WebSocketRoute] = []
    pings: list[str | bytes] = []

    def without_pongs(socket: WebSocketRoute) -> None:
        to_server = socket.connect_to_server()
        socket.on_message(lambda message: pings.append(message) if "ping" in message else to_server.send(message))
        sockets.append(socket)

    with tab(browser, server.url, viewport=WIDE) as home:  # the clock is that of a whole context
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


def test_a_server_that_goes_and_comes_back_is_followed_again(browser: Browser, tiny_llama: Path) -> None:
    with serving("--model", str(tiny_llama)) as server, tab(browser, server.url) as home:
        home.watch.allow(REFUSED, "Failed to load resource: net::ERR_", "status of 503")
        home.open(text="the fat cat")
        home.page.evaluate(LOOK)
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


@pytest.mark.parametrize("way", ["missing", "refused"])
def test_where_no_socket_can_be_had_the_page_asks_over_http(browser: Browser, server: Server, way: str) -> None:
    with tab(browser, server.url) as home:
        if way == "missing":
            home.page.add_init_script("delete window.WebSocket")
        else:
            home.page.route_web_socket("**/api/v2/live", lambda socket: socket.close(code=1011))
        home.open(text="the fat cat", layer=11, head=7)
        facts(home).filter(has_text="over HTTP, because the live channel cannot be had").wait_for()
        home.page.evaluate(LOOK)
        home.text.press("Control+End")
        home.page.keyboard.type(" sat on", delay=15)
        home.wait_until_shown(text="the fat cat sat on")
        before = home.picture()
        home.page.locator("#layer").fill("3")  # without thumbnails: they are there
        home.wait_until_shown(layer=3)
        of_api = values(server, "the fat cat sat on", "weights", layer=3)
        seen = np.tril_indices(len(of_api))
        np.testing.assert_allclose(home.z()[seen], of_api[seen], rtol=1e-4)
        assert home.picture() != before  # the frame of the chosen head
        home.page.locator("#layer").fill("11")
        home.wait_until_shown(layer=11)
        assert home.picture() == before
        check(home)


def test_a_long_text_tells_how_far_it_is_and_fills_in(long: tuple[Tab, list[bytes]]) -> None:
    home, _ = long
    home.page.evaluate(NOTE_PROGRESS)
    text = sentence(600, seed=2)
    home.text.fill(text)
    home.page.wait_for_function("() => document.querySelector('body:not(.stale)')", timeout=60_000)
    assert home.shown()[1] == text
    home.page.locator("#reading").wait_for(state="hidden")
    home.page.locator("#grid-state:empty").wait_for(state="attached", timeout=60_000)
    told = [line for line in home.page.evaluate("progress") if line[0].startswith("read")]
    assert told[0] == ["read 128 of 600 tokens", 128, 600, True]
    assert [line[1] for line in told] == sorted(line[1] for line in told)
    assert home.title().endswith("a cell is the largest of 4×4")
    assert home.z().shape == (150, 150)
    assert home.page.locator("#row tbody tr").count() == 256
    assert "… %" not in (home.page.locator("#sink").text_content() or "")


def test_a_token_more_of_a_long_text_costs_little(long: tuple[Tab, list[bytes]]) -> None:
    home, frames = long
    text = sentence(600, seed=2)
    home.type(text)
    frames.clear()
    home.page.evaluate("() => { window.first = document.querySelector('.token'); }")
    home.text.press("Control+End")
    home.page.keyboard.insert_text(" bird")
    home.wait_until_shown(text=f"{text} bird")
    home.page.locator("#grid-state:empty").wait_for(state="attached")
    assert home.chips.count() == 601
    assert 0 < sum(map(len, frames)) < 60_000
    assert home.page.evaluate("window.first === document.querySelector('.token')")  # its chip is not made anew


def test_looking_closer_at_a_long_text_shows_every_number(long: tuple[Tab, list[bytes]], server: Server) -> None:
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
    seen = np.where(np.tri(600, dtype=bool), of_api["weights"], np.nan)[top:bottom, left:right]
    np.testing.assert_allclose(home.z()[:, : right - left], seen[:, : home.z().shape[1]], rtol=1e-3, atol=1e-7)
    assert "largest" not in home.title()
    assert f"Queries {top} to {bottom - 1}, keys {left} to {right - 1} of 600" in (
        home.page.locator(".zoom-words").text_content() or ""
    )
    home.choose_stage("scores")
    np.testing.assert_allclose(home.z(), of_api["scores"][top:bottom, left:right], rtol=1e-3, atol=1e-3)
    home.choose_stage("weights")
    home.page.locator(".zoom-whole").focus()
    home.page.keyboard.press("Enter")
    home.page.wait_for_function("() => document.getElementById('head-figure').dataset.drawn.includes('4×4')")
    assert home.page.locator(".zoom-whole").is_hidden()
    assert home.focused() == "zoom-around"

    home.choose_query(300)
    home.page.locator(".zoom-around").press("Enter")
    home.page.wait_for_function("() => !document.getElementById('head-figure').dataset.drawn.includes('4×4')")
    assert home.labels("y")[0].startswith("172 ")
    below = np.where(np.tri(600, dtype=bool), of_api["weights"], np.nan)[172:428, 172:428]
    np.testing.assert_allclose(home.z(), below, rtol=1e-3, atol=1e-7)
    row = [float(line[3]) for line in home.row().values()]
    np.testing.assert_allclose(row, np.sort(of_api["weights"][300])[::-1][:256], atol=1.1e-6)
    home.page.locator(".zoom-whole").click()
    home.wait_until_shown(text=text)


def test_an_address_with_a_window_opens_on_it(long: tuple[Tab, list[bytes]]) -> None:
    home, _ = long
    text = sentence(600, seed=2)
    home.open(text=text, layer=3, head=2, window="100-164-50-114")
    assert home.title() == "small-llama · layer 3, head 2 · attention weights"
    assert home.z().shape[0] == 64
    found = Axe().run(home.page)
    assert found.violations_count == 0, found.generate_report()
    assert home.figure.evaluate("({ data: [{ meta }] }) => [meta.x, meta.y]") == [[50, 114, 1], [100, 164, 1]]


def test_a_reading_can_be_stopped_and_taken_up(browser: Browser, server: Server) -> None:
    held: list[tuple[WebSocketRoute, str | bytes]] = []
    is_long = False

    def hold(socket: WebSocketRoute) -> None:
        """Of a long text, let the page hear how far it is, and nothing else until that is wanted."""
        to_server = socket.connect_to_server()
        to_server.on_message(
            lambda message: (
                held.append((socket, message))
                if is_long and "progress" not in decode(_bytes(message))[0]
                else socket.send(message)
            )
        )

    with tab(browser, server.url) as home:
        home.page.route_web_socket("**/api/v2/live", hold)
        home.open(text="before")
        home.page.evaluate(LOOK)
        is_long = True
        stop_and_take_up(home, sentence(1500, seed=3), held)
        is_long = False
        home.type("after")  # what was not sent yet of the long one's thumbnails is not waited for
        check(home)


def stop_and_take_up(home: Tab, text: str, held: list[tuple[WebSocketRoute, str | bytes]]) -> None:
    home.text.fill(text)
    home.page.locator("#reading").wait_for()
    found = Axe().run(home.page, context="#reading")
    assert found.violations_count == 0, found.generate_report()
    home.page.locator("#cancel").click()
    assert "Reading was stopped" in (home.notice.text_content() or "")
    found = Axe().run(home.page, context="#obstacle")
    assert found.violations_count == 0, found.generate_report()
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


def test_the_newest_of_many_asks_is_answered(long: tuple[Tab, list[bytes]]) -> None:
    home, frames = long
    home.turn_to("the fat cat")
    frames.clear()
    home.grid.focus()
    for key in ["ArrowUp", "ArrowRight"] * 6:
        home.page.keyboard.press(key)
    home.wait_until_shown(layer=5, head=8)
    assert home.page.locator("#grid-name").text_content() == "chosen: layer 5, head 8"
    answers = [frame for frame in map(decode, frames) if "n" in frame[0]]
    assert answers[-1][0]["layer"] == 5
    assert all(header["n_shared"] == header["n_tokens"] for header, _ in answers)  # the text does not travel again
