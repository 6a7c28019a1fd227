"""ASGI middleware: a limit on the length of a request, HEAD, headers of every reply, and a reply to every failure."""

import asyncio
import logging
from collections.abc import Callable

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge

log = logging.getLogger("lookback")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly writes a style element
        "img-src 'self' data: blob:",  # Plotly draws images for download
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class CatchErrors:
    """Replies to an unexpected error, inside the other middleware, so that the reply gets the usual headers.

    The panic of a library is no Exception; it gets a reply too.
    """

    def __init__(self, app: ASGIApp, reply: Callable[[Request, BaseException], Response]) -> None:
        self.app = app
        self.reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        has_started = scope["type"] != "http"  # then there can be no other reply

        async def watch(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if has_started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            await self.reply(Request(scope), error)(scope, receive, send)


class HeadAsGet:
    """Replies to HEAD wherever there is a reply to GET, with the same headers and no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as GET."""

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self.app({**scope, "method": "GET"}, receive, without_body)
        else:
            await self.app(scope, receive, send)


class HTTPBodyTooLarge(HTTPException):
    """BodyTooLarge as an HTTPException: the only kind of error that FastAPI passes on while it reads a body."""

    def __init__(self, error: BodyTooLarge) -> None:
        super().__init__(error.status, str(error))
        self.error = error


class BodyLimit:
    """Stops receiving a request once it is longer than `max_bytes`, whatever its Content-Length is."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count its bytes."""
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                raise HTTPBodyTooLarge(BodyTooLarge(self.max_bytes))
            return message

        await self.app(scope, counted, send)


class SafeHeaders:
    """Adds headers to every reply: load nothing from elsewhere, guess no content type, do not use an old copy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"  # the address contains the text
                headers.setdefault("Cache-Control", "no-cache")  # a page and its scripts must be of one version
            await send(message)

        await self.app(scope, receive, with_headers)
