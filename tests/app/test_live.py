"""The live channel: what comes over it, that the newest wins, and that nothing a visitor sends can break it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from app.live import frame
from app.live.session import IDLE, TOO_FAST
from app.routes.live import FOREIGN
from app.settings import Settings
from tests.app.screen import Screen, tensors, thumbnails
from tests.conftest import serve

ADDRESS = "/api/v2/live"
JSON = {"Content-Type": "application/json"}


class Channel:
    """A client of the live channel, and its screen."""

    def __init__(self, socket: WebSocketTestSession) -> None:
        self.socket = socket
        self.seq = 0
        self.screen = Screen()

    def ask(self, text: str, **more: Any) -> int:
        self.seq += 1
        self.socket.send_text(json.dumps({"seq": self.seq, "text": text, **more}))
        return self.seq

    def hear(self) -> dict[str, Any]:
        """The next frame's header; what it holds is on the screen."""
        sent = self.socket.receive_bytes()
        header, _ = frame.decode(sent)
        if "done" in header:
            self.screen.take(sent)
        return header

    def show(self, text: str, **more: Any) -> dict[str, Any]:
        """Ask, and hear all of the answer. The first header of it."""
        seq = self.ask(text, **more)
        first = header = self.hear()
        while "progress" in header:
            first = header = self.hear()
        while not header.get("done") and "problem" not in header:
            header = self.hear()
        assert header["seq"] == seq
        return first


@contextmanager
def channel(client: TestClient) -> Iterator[Channel]:
    with client.websocket_connect(ADDRESS) as socket:
        yield Channel(socket)


def whole(client: TestClient, text: str, **more: Any) -> Screen:
    """The same over HTTP, in one answer."""
    reply = client.post("/api/v2/view", json={"text": text, **more})
    assert reply.status_code == 200, reply.text
    screen = Screen()
    screen.take(reply.content)
    return screen


def assert_shows(screen: Screen, expected_screen: Screen) -> None:
    shown, expected = screen.picture, expected_screen.picture
    assert shown["tokens"] == expected["tokens"]
    for name, values in tensors(shown["head"]).items():
        np.testing.assert_allclose(values, tensors(expected["head"])[name], atol=1e-5, err_msg=name)
    for name, values in tensors(shown["norms"]["arrays"]).items():
        np.testing.assert_allclose(values, tensors(expected["norms"]["arrays"])[name], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(thumbnails(shown), thumbnails(expected))


@given(st.lists(st.text("abc é\n", max_size=6), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_after_any_typing_the_screen_is_what_http_gives(client: TestClient, texts: list[str]) -> None:
    with channel(client) as live:
        for text in texts:
            header = live.show(text)
            assert ("problem" in header) == (text == "")
        if text:
            assert_shows(live.screen, whole(client, text))


def test_an_appended_token_brings_itself_alone(client: TestClient) -> None:
    with channel(client) as live:
        live.show("the fat cat")
        n = live.screen.picture["header"]["n_tokens"]
        header = live.show("the fat cat sat")
        assert header["n_shared"] == n == header["n_tokens"] - len(header["tokens"])
        assert header["grid"]["from"] == n


def test_a_new_connection_begins_anew(client: TestClient) -> None:
    for _ in range(2):
        with channel(client) as live:
            assert live.show("the fat cat")["n_shared"] == 0


def test_each_typist_has_a_screen_of_their_own(client: TestClient) -> None:
    with channel(client) as one, channel(client) as other:
        one.show("the cat")
        assert other.show("the cat sat")["n_shared"] == 0
        assert_shows(one.screen, whole(client, "the cat"))


def test_an_error_names_its_ask_and_the_next_one_is_answered(client: TestClient) -> None:
    with channel(client) as live:
        live.show("cat")
        for ask, words in (
            ({"text": ""}, "The text is empty"),
            ({"text": "cat", "layer": 9}, "There is no layer 9"),
            ({"text": "cat", "query": 9}, "There is no position 9"),
            ({"text": "cat", "model": "gpt5"}, "There is no model 'gpt5'"),
            ({"text": "cat " * 100}, "tiny-llama reads 64"),
            ({"text": "cat", "window": [1, 2]}, "window"),
            ({"text": 5}, "text: Input should be a valid string"),
        ):
            header = live.show(**ask)
            assert words in header["problem"]["detail"]
            assert header["problem"]["type"].startswith("/problems/")
            assert live.show("cat")["n_shared"] == 1


def test_half_a_surrogate_pair_is_answered_with_its_number_and_the_words_of_the_other_calls(client: TestClient) -> None:
    """A browser sends it when a character outside the basic plane is deleted by halves."""
    words = client.post("/api/v1/tokens", content=b'{"text": "a\\ud800"}', headers=JSON).json()["detail"]
    assert "half a surrogate pair" in words
    with channel(client) as live:
        live.socket.send_text('{"seq": 7, "text": "a\\ud800"}')
        header = live.hear()
        assert (header["seq"], header["problem"]["detail"]) == (7, words)


@pytest.mark.parametrize("ping", ['"\\ud800"', "1e400", "[1]", "9" * 30])
def test_only_a_number_comes_back_from_a_ping(client: TestClient, ping: str) -> None:
    with channel(client) as live:
        for sent, pong in ((ping, None), ("5", 5)):
            live.socket.send_text(f'{{"ping": {sent}}}')
            assert live.hear()["pong"] == pong


@pytest.mark.parametrize(
    ("sent", "status"),
    [(sent, 400) for sent in ("", "{", "[" * 9_000, "[" * 200_000, "9" * 5_000)]
    + [(sent, 422) for sent in ("null", "[]", "5", '{"seq": 1}', '{"seq": -1, "text": "x"}')]
    + [('{"seq": "\\ud800", "text": "x"}', 422), ('{"seq": 1e400, "text": "x"}', 422)],
)
def test_what_is_no_ask_is_refused_and_the_channel_goes_on(client: TestClient, sent: str, status: int) -> None:
    with channel(client) as live:
        live.socket.send_text(sent)
        assert live.hear()["problem"]["status"] == status
        assert live.show("cat")["done"]


def test_a_ping_is_answered(client: TestClient) -> None:
    with channel(client) as live:
        live.socket.send_text('{"ping": 7}')
        assert live.hear() == {"pong": 7}


def test_bytes_close_the_channel(client: TestClient) -> None:
    with channel(client) as live:
        live.socket.send_bytes(b"{}")
        assert closed(live) == 1003


def closed(live: Channel) -> int:
    """The code with which the server closed."""
    with pytest.raises(WebSocketDisconnect) as found:
        while True:
            live.hear()
    return found.value.code


def test_another_sites_page_may_not_listen(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as found,
        client.websocket_connect(ADDRESS, headers={"Origin": "http://elsewhere.example"}),
    ):
        pass
    assert found.value.code == FOREIGN
    with client.websocket_connect(ADDRESS, headers={"Origin": "http://testserver"}) as socket:
        assert Channel(socket).show("cat")["done"]


@pytest.fixture(scope="module")
def strict(tiny_llama: Path) -> Iterator[TestClient]:
    """A server that takes 5 messages a second, closes after a second, and reads 2 tokens at a time."""
    yield from serve(Settings(model=str(tiny_llama), live_per_second=5, live_idle_s=1, max_batch_tokens=2))


def test_who_asks_for_nothing_is_let_go(strict: TestClient) -> None:
    with channel(strict) as live:
        assert live.show("cat")["done"]
        assert closed(live) == IDLE


def test_who_asks_too_fast_is_let_go_and_may_come_back(strict: TestClient) -> None:
    with channel(strict) as live:
        for _ in range(30):
            live.ask("cat")
        assert closed(live) == TOO_FAST
    with channel(strict) as live:
        assert live.show("cat")["done"]


def test_a_long_text_says_how_far_it_is(strict: TestClient) -> None:
    with channel(strict) as live:
        live.ask("zebra yak xylophone")
        heard = [live.hear()]
        while "progress" in heard[-1]:
            heard.append(live.hear())
        n = heard[-1]["n_tokens"]
        assert n > 4
        assert [one["progress"] for one in heard[:-1]] == [{"n_read": read, "n_tokens": n} for read in range(2, n, 2)]


def test_the_newest_wins(client: TestClient) -> None:
    """Of asks that come at once, the last is answered, and none after it; each answer is of its own text."""
    texts = ["the fat cat"[:n] for n in range(1, 12)]
    with channel(client) as live:
        for text in texts:
            live.ask(text)
        answered: list[int] = []
        while not answered or answered[-1] < len(texts):
            header = live.hear()
            if "n_shared" in header:
                answered.append(header["seq"])
                assert "".join(token["text"] for token in live.screen.picture["tokens"]) == texts[
                    header["seq"] - 1
                ].replace(" ", "·")
        assert answered == sorted(set(answered))
        assert_shows(live.screen, whole(client, "the fat cat"))


def test_a_typist_who_leaves_in_the_middle_harms_nobody(strict: TestClient) -> None:
    with channel(strict) as live:
        live.ask("hippopotamus and rhinoceros")
        live.hear()
    engine = strict.app.state.engine  # type: ignore[attr-defined]
    end = time.monotonic() + 10
    while engine._waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
    with channel(strict) as live:
        assert live.show("cat")["done"]
