"""The live channel: its frames, that the newest request wins, and that nothing a client sends can break it."""

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
    """A client of the live channel, with its screen."""

    def __init__(self, socket: WebSocketTestSession) -> None:
        self.socket = socket
        self.seq = 0
        self.screen = Screen()

    def send(self, text: str, **fields: Any) -> int:
        """Send a request; its number."""
        self.seq += 1
        self.socket.send_text(json.dumps({"seq": self.seq, "text": text, **fields}))
        return self.seq

    def receive(self) -> dict[str, Any]:
        """The header of the next frame, which is applied to the screen."""
        encoded = self.socket.receive_bytes()
        header, _ = frame.decode(encoded)
        if "done" in header:
            self.screen.receive(encoded)
        return header

    def show(self, text: str, **fields: Any) -> dict[str, Any]:
        """Send a request and receive the whole reply; the header of its first frame, progress left out."""
        seq = self.send(text, **fields)
        first = header = self.receive()
        while "progress" in header:
            first = header = self.receive()
        while not header.get("done") and "problem" not in header:
            header = self.receive()
        assert header["seq"] == seq
        return first


@contextmanager
def channel(client: TestClient) -> Iterator[Channel]:
    with client.websocket_connect(ADDRESS) as socket:
        yield Channel(socket)


def screen_over_http(client: TestClient, text: str, **fields: Any) -> Screen:
    """The screen after one reply over HTTP."""
    reply = client.post("/api/v2/view", json={"text": text, **fields})
    assert reply.status_code == 200, reply.text
    screen = Screen()
    screen.receive(reply.content)
    return screen


def assert_shows(screen: Screen, expected_screen: Screen) -> None:
    shown, expected = screen.client_state, expected_screen.client_state
    assert shown["tokens"] == expected["tokens"]
    for name, values in tensors(shown["head"]).items():
        np.testing.assert_allclose(values, tensors(expected["head"])[name], atol=1e-5, err_msg=name)
    for name, values in tensors(shown["norms"]["arrays"]).items():
        np.testing.assert_allclose(values, tensors(expected["norms"]["arrays"])[name], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(thumbnails(shown), thumbnails(expected))


@given(st.lists(st.text("abc é\n", max_size=6), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_after_any_typing_the_screen_is_the_same_as_over_http(client: TestClient, texts: list[str]) -> None:
    with channel(client) as live:
        for text in texts:
            header = live.show(text)
            assert ("problem" in header) == (text == "")
        if text:
            assert_shows(live.screen, screen_over_http(client, text))


def test_for_an_appended_token_only_that_token_is_sent(client: TestClient) -> None:
    with channel(client) as live:
        live.show("the fat cat")
        n = live.screen.client_state["header"]["n_tokens"]
        header = live.show("the fat cat sat")
        assert header["n_shared"] == n == header["n_tokens"] - len(header["tokens"])
        assert header["grid"]["from"] == n


def test_a_new_connection_starts_with_an_empty_screen(client: TestClient) -> None:
    for _ in range(2):
        with channel(client) as live:
            assert live.show("the fat cat")["n_shared"] == 0


def test_each_client_has_its_own_screen(client: TestClient) -> None:
    with channel(client) as first, channel(client) as second:
        first.show("the cat")
        assert second.show("the cat sat")["n_shared"] == 0
        assert_shows(first.screen, screen_over_http(client, "the cat"))


def test_an_error_has_the_number_of_its_request_and_the_next_request_works(client: TestClient) -> None:
    with channel(client) as live:
        live.show("cat")
        for fields, words in (
            ({"text": ""}, "The text is empty"),
            ({"text": "cat", "layer": 9}, "There is no layer 9"),
            ({"text": "cat", "query": 9}, "There is no position 9"),
            ({"text": "cat", "model": "gpt5"}, "There is no model 'gpt5'"),
            ({"text": "cat " * 100}, "tiny-llama reads 64"),
            ({"text": "cat", "window": [1, 2]}, "window"),
            ({"text": 5}, "text: Input should be a valid string"),
        ):
            header = live.show(**fields)
            assert words in header["problem"]["detail"]
            assert header["problem"]["type"].startswith("/problems/")
            assert live.show("cat")["n_shared"] == 1


def test_half_a_surrogate_pair_gets_its_number_and_the_same_message_as_over_http(client: TestClient) -> None:
    """Browsers send it while a character outside the basic plane is deleted half by half."""
    words = client.post("/api/v1/tokens", content=b'{"text": "a\\ud800"}', headers=JSON).json()["detail"]
    assert "half a surrogate pair" in words
    with channel(client) as live:
        live.socket.send_text('{"seq": 7, "text": "a\\ud800"}')
        header = live.receive()
        assert (header["seq"], header["problem"]["detail"]) == (7, words)


@pytest.mark.parametrize("ping", ['"\\ud800"', "1e400", "[1]", "9" * 30])
def test_only_a_number_is_sent_back_in_reply_to_a_ping(client: TestClient, ping: str) -> None:
    with channel(client) as live:
        for sent, pong in ((ping, None), ("5", 5)):
            live.socket.send_text(f'{{"ping": {sent}}}')
            assert live.receive()["pong"] == pong


@pytest.mark.parametrize(
    ("sent", "status"),
    [(sent, 400) for sent in ("", "{", "[" * 9_000, "[" * 200_000, "9" * 5_000)]
    + [(sent, 422) for sent in ("null", "[]", "5", '{"seq": 1}', '{"seq": -1, "text": "x"}')]
    + [('{"seq": "\\ud800", "text": "x"}', 422), ('{"seq": 1e400, "text": "x"}', 422)],
)
def test_an_invalid_message_is_refused_and_the_channel_stays_open(client: TestClient, sent: str, status: int) -> None:
    with channel(client) as live:
        live.socket.send_text(sent)
        assert live.receive()["problem"]["status"] == status
        assert live.show("cat")["done"]


def test_a_ping_gets_a_pong(client: TestClient) -> None:
    with channel(client) as live:
        live.socket.send_text('{"ping": 7}')
        assert live.receive() == {"pong": 7}


def test_a_binary_message_closes_the_channel(client: TestClient) -> None:
    with channel(client) as live:
        live.socket.send_bytes(b"{}")
        assert closed(live) == 1003


def closed(live: Channel) -> int:
    """The code with which the server closes the socket."""
    with pytest.raises(WebSocketDisconnect) as closing:
        while True:
            live.receive()
    return closing.value.code


def test_a_page_of_another_site_cannot_connect(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as closing,
        client.websocket_connect(ADDRESS, headers={"Origin": "http://elsewhere.example"}),
    ):
        pass
    assert closing.value.code == FOREIGN
    with client.websocket_connect(ADDRESS, headers={"Origin": "http://testserver"}) as socket:
        assert Channel(socket).show("cat")["done"]


@pytest.fixture(scope="module")
def strict_client(tiny_llama: Path) -> Iterator[TestClient]:
    """A server that allows 5 messages per second, closes idle sockets after a second, and reads 2 tokens at a time."""
    yield from serve(Settings(model=str(tiny_llama), live_per_second=5, live_idle_s=1, max_batch_tokens=2))


def test_an_idle_client_is_disconnected(strict_client: TestClient) -> None:
    with channel(strict_client) as live:
        assert live.show("cat")["done"]
        assert closed(live) == IDLE


def test_a_client_that_sends_too_fast_is_disconnected_and_may_reconnect(strict_client: TestClient) -> None:
    with channel(strict_client) as live:
        for _ in range(30):
            live.send("cat")
        assert closed(live) == TOO_FAST
    with channel(strict_client) as live:
        assert live.show("cat")["done"]


def test_progress_is_sent_while_a_long_text_is_read(strict_client: TestClient) -> None:
    with channel(strict_client) as live:
        live.send("zebra yak xylophone")
        headers = [live.receive()]
        while "progress" in headers[-1]:
            headers.append(live.receive())
        n = headers[-1]["n_tokens"]
        assert n > 4
        assert [header["progress"] for header in headers[:-1]] == [
            {"n_read": read, "n_tokens": n} for read in range(2, n, 2)
        ]


def test_the_newest_request_wins(client: TestClient) -> None:
    """Of requests sent at once, the last gets a reply; replies come in order, and each is about its own text."""
    texts = ["the fat cat"[:n] for n in range(1, 12)]
    with channel(client) as live:
        for text in texts:
            live.send(text)
        replied: list[int] = []
        while not replied or replied[-1] < len(texts):
            header = live.receive()
            if "n_shared" in header:
                replied.append(header["seq"])
                assert "".join(token["text"] for token in live.screen.client_state["tokens"]) == texts[
                    header["seq"] - 1
                ].replace(" ", "·")
        assert replied == sorted(set(replied))
        assert_shows(live.screen, screen_over_http(client, "the fat cat"))


def test_a_client_that_disconnects_during_a_reply_does_not_affect_later_clients(strict_client: TestClient) -> None:
    with channel(strict_client) as live:
        live.send("hippopotamus and rhinoceros")
        live.receive()
    engine = strict_client.app.state.engine  # type: ignore[attr-defined]
    end = time.monotonic() + 10
    while engine._waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
    with channel(strict_client) as live:
        assert live.show("cat")["done"]
