"""What a browser asks of the server and hears, over the live channel and over HTTP; bytes as they cross the wire."""

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect

from app.live import frame

LIVE = "/api/v2/live"
VIEW = "/api/v2/view"
LOOK = {"layer": 11, "head": 7, "query": None, "stage": "weights"}  # what the page opens with
TIMEOUT_S = 300


class Refused(RuntimeError):
    """The server answered with a problem."""


@dataclass
class Heard:
    """One complete answer."""

    ms: float = 0.0
    first_ms: float = 0.0  # to the first frame
    n_bytes: int = 0
    header: dict[str, Any] = field(default_factory=dict)  # of all frames, later ones over earlier ones

    @property
    def top_logit(self) -> float:
        return float(self.header["prediction"]["top"][0]["logit"])

    @property
    def computed_ms(self) -> float:
        return float(self.header["timings"]["computed_ms"])


class Counting(socket.socket):
    """A socket that counts what comes in."""

    n_received = 0

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self.n_received += len(data)
        return data


class Live:
    """The live channel of one page."""

    def __init__(self, url: str) -> None:
        self._connection, self._socket = open_channel(url)
        self._seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, text: str) -> Heard:
        """Ask, and wait for the last frame of the answer.

        Raises:
            Refused: when the server answers with a problem.
        """
        self._seq += 1
        heard, before = Heard(), self._socket.n_received
        started = time.perf_counter()
        self._connection.send(ask(text, self._seq))
        while not heard.header.get("done"):
            message = self._connection.recv(TIMEOUT_S)
            assert isinstance(message, bytes)
            header, _ = frame.decode(message)
            if header.get("problem"):
                raise Refused(header["problem"]["detail"])
            if header.get("seq") == self._seq and "progress" not in header:
                heard.first_ms = heard.first_ms or (time.perf_counter() - started) * 1e3
                heard.header |= header
        heard.ms = (time.perf_counter() - started) * 1e3
        heard.n_bytes = self._socket.n_received - before
        return heard


class Http:
    """The same over HTTP: every answer is whole, and one frame."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, text: str) -> Heard:
        """Ask, and wait for the answer.

        Raises:
            Refused: when the server answers with a problem.
        """
        started = time.perf_counter()
        reply = self._client.post(VIEW, json={"text": text, **LOOK})
        if reply.is_error:
            raise Refused(reply.text)
        header, _ = frame.decode(reply.content)
        ms = (time.perf_counter() - started) * 1e3
        return Heard(ms, ms, reply.num_bytes_downloaded, header)


def open_channel(url: str) -> tuple[ClientConnection, Counting]:
    """A live channel, compressed where the server agrees, as a browser asks it to be; and its socket."""
    place = urlsplit(url)
    plain = socket.create_connection((place.hostname, place.port))
    counting = Counting(plain.family, plain.type, plain.proto, plain.detach())
    address = f"ws://{place.netloc}{LIVE}"
    return connect(address, sock=counting, max_size=None, proxy=None, ping_interval=None), counting


def ask(text: str, seq: int) -> str:
    """An ask of the live channel."""
    return json.dumps({"seq": seq, "text": text, **LOOK, "window": None})
