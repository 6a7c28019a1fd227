"""The live channel, /api/v1/live: a WebSocket that follows one typist.

The client sends what it wants to see with every key, the server answers with frames that hold only what is new (see
picture.py; the API's description has the format). Newest wins: an ask that has not begun to run when a newer one
arrives is dropped, and so is the rest of a long text. What has been computed is sent, so that server and client always
agree on what the client has.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app import api, frame, problems
from app.engine import Engine, ReadingProgress, ResultStream
from app.errors import AppError
from app.picture import Part, Shown
from app.schemas import LiveRequest, Problem

log = logging.getLogger("lookback")
router = APIRouter()

TOO_FAST, IDLE, FOREIGN = 4008, 4000, 1008  # codes with which a socket is closed


@router.websocket("/api/v1/live")
async def live(socket: WebSocket) -> None:
    """Follow a typist until the socket is closed, idle for too long, or too fast."""
    if not _is_ours(socket):
        await socket.close(FOREIGN, "another site's page may not listen here")
        return
    await socket.accept()
    typist = Typist(socket, socket.app.state.engine)
    answering = asyncio.create_task(typist.answer())
    try:
        await typist.hear()
    except WebSocketDisconnect:
        pass
    finally:
        typist.leave()
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await answering


class Typist:
    """One socket: what was asked last, and what has been sent."""

    def __init__(self, socket: WebSocket, engine: Engine) -> None:
        self._socket = socket
        self._engine = engine
        self._shown = Shown()
        self._newest: LiveRequest | None = None
        self._asked = asyncio.Event()
        self._watch: ResultStream[Part] | None = None
        self._pace = Pace(engine.settings.live_per_second)

    async def hear(self) -> None:
        """Take every message; the newest ask replaces the one before it."""
        settings = self._engine.settings
        while True:
            try:
                text = await asyncio.wait_for(self._socket.receive_text(), settings.live_idle_s)
            except TimeoutError:
                return await self._socket.close(IDLE, f"nothing was asked for {settings.live_idle_s} s")
            except KeyError:  # a message of bytes
                return await self._socket.close(1003, "an ask is JSON, as text")
            if not self._pace.allows(time.monotonic()):
                return await self._socket.close(TOO_FAST, f"over {settings.live_per_second} messages a second")
            await self._take(text)

    def leave(self) -> None:
        """Nobody waits any more for what is under way."""
        if self._watch:
            self._watch.cancel()

    async def answer(self) -> None:
        """Answer the newest ask, and then the one that has become the newest, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if ask := self._newest:
                await self._answer(ask)

    async def _take(self, text: str) -> None:
        message: Any = None
        try:
            message = json.loads(text)  # unlike orjson it takes half a surrogate pair, of which the tokenizer tells
            if isinstance(message, dict) and "ping" in message:
                await self._send({"pong": _number(message["ping"])})
            else:
                self._newest = LiveRequest.model_validate(message)
                self._asked.set()
                self.leave()
        except (json.JSONDecodeError, ValidationError) as error:
            seq = _number(message.get("seq")) if isinstance(message, dict) else None
            await self._say(seq, problems.of_validation(error))
        except (ValueError, RecursionError):
            await self._say(None, problems.of_validation(ValueError(problems.UNREADABLE)))

    async def _answer(self, ask: LiveRequest) -> None:
        try:
            model, tokens = await api.read(self._engine, ask)
            self._watch = api.watch_page(self._engine, model, tokens, ask, self._shown)
            if self._asked.is_set():  # while the tokens were counted, a newer ask came
                self._watch.cancel()
            async for said in self._watch:
                if isinstance(said, ReadingProgress):
                    await self._send({"seq": ask.seq, "progress": {"read": said.n_read, "of": said.n_tokens}})
                else:
                    (header, arrays), timings = said
                    await self._send({"seq": ask.seq, **header, "timings": timings.model_dump()}, arrays)
        except AppError as error:
            await self._say(ask.seq, problems.of_error(error), error.retry_after_s)
        except (WebSocketDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("an ask over the live channel failed")
            self._shown = Shown()  # nobody knows how much of it was sent
            await self._say(ask.seq, problems.of_bug(error))
        finally:
            self._watch = None

    async def _say(self, seq: int | None, problem: Problem, retry_after_s: int | None = None) -> None:
        await self._send({"seq": seq, "problem": problem.model_dump(), "retry_after_s": retry_after_s})

    async def _send(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        await self._socket.send_bytes(frame.encode(header, arrays or {}))


class Pace:
    """So many messages a second, and twice as many at once."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._left = 2.0 * per_second
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """May there be another message at this time, in seconds?

        >>> pace = Pace(1)
        >>> [pace.allows(now) for now in (0.0, 0.1, 0.2, 5.0)]
        [True, True, False, True]
        """
        elapsed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._left = min(2.0 * self.per_second, self._left + elapsed * self.per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _number(given: Any) -> int | None:
    """A number of the client's that can be sent back; whatever else it sent has no place in a frame."""
    return given if isinstance(given, int) and abs(given) <= 2**53 else None


def _is_ours(socket: WebSocket) -> bool:
    """Any page of any site can open a socket here; browsers say which it was, and programs say nothing."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
