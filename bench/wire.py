"""Clients that request views as a browser does, over the live channel and over HTTP, and count the bytes received."""

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Self, TypedDict, cast
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect

from app.live import frame

LIVE_PATH = "/api/v2/live"
VIEW_PATH = "/api/v2/view"
SELECTION = {"layer": 11, "head": 7, "query": None, "stage": "weights"}  # what the page opens with
TIMEOUT_S = 300


class RequestRefused(RuntimeError):
    """The server replied with a problem."""


class Problem(TypedDict):
    """RFC 9457; the fields that are used here."""

    detail: str


class TopToken(TypedDict):
    """One of the likeliest next tokens; the field that is used here."""

    logit: float


class Prediction(TypedDict):
    """The next tokens, the likeliest first."""

    top: list[TopToken]


class Timings(TypedDict):
    """What the server reports of its work."""

    computed_ms: float


class Header(TypedDict, total=False):
    """The header of a message from the server; the fields that are used here."""

    seq: int
    done: bool
    n_tokens: int
    progress: object
    problem: Problem | None
    prediction: Prediction
    timings: Timings


@dataclass
class Reply:
    """One complete reply."""

    ms: float = 0.0
    first_ms: float = 0.0  # to the first frame
    n_bytes: int = 0
    header: Header = field(default_factory=Header)  # of all frames; a later frame's fields replace earlier ones

    @property
    def top_logit(self) -> float:
        """The logit of the likeliest next token."""
        return self.header["prediction"]["top"][0]["logit"]

    @property
    def computed_ms(self) -> float:
        """Time in torch's thread, as the server reports it."""
        return self.header["timings"]["computed_ms"]


class CountingSocket(socket.socket):
    """A socket that counts the bytes it receives."""

    n_received = 0

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive, and add to `n_received`."""
        data = super().recv(bufsize, flags)
        self.n_received += len(data)
        return data


class LiveClient:
    """The live channel of one page."""

    def __init__(self, url: str) -> None:
        self._connection, self._socket = open_channel(url)
        self._seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(self, text: str) -> Reply:
        """Request the view of a text, and wait for the last frame.

        Raises:
            RequestRefused: if the server replies with a problem.
        """
        self._seq += 1
        reply, n_before = Reply(), self._socket.n_received
        started = time.perf_counter()
        self._connection.send(encode_request(text, self._seq))
        while not reply.header.get("done"):
            header = decode_header(self._connection.recv(TIMEOUT_S))
            if problem := header.get("problem"):
                raise RequestRefused(problem["detail"])
            if header.get("seq") == self._seq and "progress" not in header:
                reply.first_ms = reply.first_ms or (time.perf_counter() - started) * 1e3
                reply.header.update(header)
        reply.ms = (time.perf_counter() - started) * 1e3
        reply.n_bytes = self._socket.n_received - n_before
        return reply


class HttpClient:
    """The same requests over HTTP: every reply has everything, in one frame."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def request(self, text: str) -> Reply:
        """Request the view of a text, and wait for the reply.

        Raises:
            RequestRefused: if the server replies with a problem.
        """
        started = time.perf_counter()
        response = self._client.post(VIEW_PATH, json={"text": text, **SELECTION})
        if response.is_error:
            raise RequestRefused(response.text)
        header = decode_header(response.content)
        ms = (time.perf_counter() - started) * 1e3
        return Reply(ms, ms, response.num_bytes_downloaded, header)


def open_channel(url: str) -> tuple[ClientConnection, CountingSocket]:
    """A live channel and its socket; compressed if the server agrees, as in a browser."""
    address = urlsplit(url)
    plain = socket.create_connection((address.hostname, address.port))
    counting = CountingSocket(plain.family, plain.type, plain.proto, plain.detach())
    live_url = f"ws://{address.netloc}{LIVE_PATH}"
    return connect(live_url, sock=counting, max_size=None, proxy=None, ping_interval=None), counting


def encode_request(text: str, seq: int) -> str:
    """A request for the live channel."""
    return json.dumps({"seq": seq, "text": text, **SELECTION, "window": None})


def decode_header(message: bytes | str) -> Header:
    """The header of a message from the server, which is always binary."""
    assert isinstance(message, bytes)
    header, _ = frame.decode(message)
    return cast(Header, header)
