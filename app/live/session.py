"""One client of the live channel: it sends a request on every keystroke, and gets frames with only what is new.

The newest request wins: an older one that has not begun to run is dropped, and so is the rest of a long text. What has
been computed is always sent, so that server and client agree on what the client has.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Never

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app import problems, service
from app.engine import Engine, ReadingProgress, ResultStream
from app.errors import AppError
from app.live import frame
from app.live.delta import ClientState, Frame
from app.schemas import LiveRequest, Problem

log = logging.getLogger("lookback")

TOO_FAST, IDLE, NOT_TEXT = 4008, 4000, 1003  # codes that close a socket


class Session:
    """One socket: its newest request, and what its client has been sent."""

    def __init__(self, socket: WebSocket, engine: Engine) -> None:
        self._socket = socket
        self._engine = engine
        self._client = ClientState()
        self._newest: LiveRequest | None = None
        self._has_new = asyncio.Event()
        self._stream: ResultStream[Frame] | None = None
        self._rate = RateLimit(engine.settings.live_per_second)

    async def receive(self) -> None:
        """Receive every message until the socket is closed; the newest request replaces the one before it."""
        settings = self._engine.settings
        while True:
            try:
                text = await asyncio.wait_for(self._socket.receive_text(), settings.live_idle_s)
            except TimeoutError:
                return await self._socket.close(IDLE, f"no request for {settings.live_idle_s} s")
            except KeyError:  # a message of bytes
                return await self._socket.close(NOT_TEXT, "a request is JSON, as text")
            if not self._rate.allows(time.monotonic()):
                return await self._socket.close(TOO_FAST, f"over {settings.live_per_second} messages per second")
            await self._handle(text)

    def cancel(self) -> None:
        """Compute nothing more for the request that runs."""
        if self._stream:
            self._stream.cancel()

    async def send_replies(self) -> Never:
        """Reply to the newest request, again and again; runs until it is cancelled."""
        while True:
            await self._has_new.wait()
            self._has_new.clear()
            if request := self._newest:
                await self._reply(request)

    async def _handle(self, text: str) -> None:
        message: object = None
        try:
            message = json.loads(text)  # unlike orjson it accepts half a surrogate pair, which the tokenizer reports
            if isinstance(message, dict) and "ping" in message:
                await self._send({"pong": _echoed_number(message["ping"])})
            else:
                self._newest = LiveRequest.model_validate(message)
                self._has_new.set()
                self.cancel()
        except (json.JSONDecodeError, ValidationError) as error:
            seq = _echoed_number(message.get("seq")) if isinstance(message, dict) else None
            await self._send_problem(seq, problems.of_validation(error))
        except (ValueError, RecursionError):
            await self._send_problem(None, problems.of_validation(ValueError(problems.UNREADABLE)))

    async def _reply(self, request: LiveRequest) -> None:
        try:
            given = await service.model_input(self._engine, request)
            self._stream = service.submit_page(self._engine, given, request, self._client)
            if self._has_new.is_set():  # a newer request came during tokenization
                self._stream.cancel()
            async for event in self._stream:
                if isinstance(event, ReadingProgress):
                    progress = {"n_read": event.n_read, "n_tokens": event.n_tokens}
                    await self._send({"seq": request.seq, "progress": progress})
                else:
                    (header, arrays), timings = event
                    await self._send({"seq": request.seq, **header, "timings": timings.model_dump()}, arrays)
        except AppError as error:
            await self._send_problem(request.seq, problems.of_error(error), error.retry_after_s)
        except (WebSocketDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("a request over the live channel failed")
            self._client = ClientState()  # it is unknown how much was sent
            await self._send_problem(request.seq, problems.of_bug(error))
        finally:
            self._stream = None

    async def _send_problem(self, seq: int | None, problem: Problem, retry_after_s: int | None = None) -> None:
        await self._send({"seq": seq, "problem": problem.model_dump(), "retry_after_s": retry_after_s})

    async def _send(self, header: Mapping[str, object], arrays: Mapping[str, frame.Array] | None = None) -> None:
        await self._socket.send_bytes(frame.encode(header, arrays or {}))


class RateLimit:
    """A token bucket: `per_second` messages per second, and twice as many at once."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._left = 2.0 * per_second
        self._last: float | None = None

    def allows(self, now: float) -> bool:
        """Whether a message is allowed at this time, in seconds; if so, it is counted.

        >>> limit = RateLimit(1)
        >>> [limit.allows(now) for now in (0.0, 0.1, 0.2, 5.0)]
        [True, True, False, True]
        """
        elapsed = 0.0 if self._last is None else now - self._last
        self._last = now
        self._left = min(2.0 * self.per_second, self._left + elapsed * self.per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _echoed_number(value: object) -> int | None:
    """A number from the client that can be sent back; None for anything else."""
    return value if isinstance(value, int) and abs(value) <= 2**53 else None
