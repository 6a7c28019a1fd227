"""Errors -> replies: RFC 9457 for programs, a page for people. And the bound on a request's length."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError, BodyTooLarge
from app.schemas import Problem

log = logging.getLogger("lookback")

MEDIA_TYPE = "application/problem+json"
UNREADABLE = "it is not UTF-8, is nested too deeply, or has a number of too many digits"
N_ERRORS = 10  # of one request are told; nobody reads more
# By the end of a problem's `type`, where it is no error of ours: its title, what it means, its status.
MEANINGS = {
    "invalid-request": (
        "The request cannot be read",
        "The body is no JSON, or no request of this call.",
        "400, 415 or 422",
    ),
    "http-error": ("HTTP error", "There is nothing at this address, or it takes another method.", "404 or 405"),
    "internal-error": ("The server made a mistake", "An error that nobody foresaw; the server has noted it.", "500"),
}
ErrorPage = Callable[[Request, Problem], Response]  # what a person sees of a problem

DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, description in {
        400: "The request is no JSON.",
        404: "No model has this name, or it is not on this machine.",
        413: "The request is over 1 MiB, or the answer would hold too many numbers.",
        415: "The request does not say `Content-Type: application/json`.",
        422: "The text, a layer, a head or a field cannot be read.",
        503: "The server is busy or the model is loading; `Retry-After` says when to come back.",
    }.items()
}


def of_error(error: AppError) -> Problem:
    """What to say of an error of ours; its `type` is an address of a page about it."""
    return Problem(type=f"/problems/{error.slug()}", title=error.title, status=error.status, detail=str(error))


def of_validation(error: RequestValidationError | ValidationError | ValueError, content_type: str = "json") -> Problem:
    """What to say of a request that is none. What was sent is not repeated: it may be long, and not even be JSON.

    Only the first ten of its errors are told: there may be as many as the request has letters.
    """
    errors = error.errors() if isinstance(error, RequestValidationError | ValidationError) else ()
    if not errors:
        return _invalid(400, f"This is no JSON: {error}")
    first = errors[0]
    if first["type"] == "json_invalid":
        reason, place = first.get("ctx", {}).get("error", "it cannot be read"), first["loc"][-1]
        return _invalid(400, f"This is no JSON: {reason}, at character {place}")
    if "json" not in content_type and tuple(first["loc"]) == ("body",):
        stated = f"the Content-Type {content_type[:100]}" if content_type else "no Content-Type"
        return _invalid(415, f"The request has {stated}. Send the header Content-Type: application/json")
    messages = [_message(one) for one in islice(errors, N_ERRORS)]
    return _invalid(422, "; ".join(messages))


def _invalid(status: int, detail: str) -> Problem:
    detail = detail.encode(errors="replace").decode()
    return Problem(
        type="/problems/invalid-request",
        title=MEANINGS["invalid-request"][0],
        status=status,
        detail=detail if detail.endswith(".") else f"{detail}.",
    )


def _message(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"] if part != "body")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where[:100]}: {message}" if where else message


def of_bug(error: BaseException) -> Problem:
    """What to say of an error that nobody foresaw."""
    detail = f"{type(error).__name__}: this is a fault of the server, which has noted it. Other requests go on."
    title, *_ = MEANINGS["internal-error"]
    return Problem(type="/problems/internal-error", title=title, status=500, detail=detail)


def reply(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a reply of its status."""
    return Response(orjson.dumps(problem.model_dump()), problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI, page: ErrorPage) -> None:
    """Give every error one shape: for programs that of RFC 9457, for browsers a `page`."""

    def answer(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
        response = page(request, problem) if _is_browser(request) else reply(problem)
        response.headers.update(headers or {})
        response.headers.append("Vary", "Accept")
        return response

    def answer_error(request: Request, error: AppError) -> Response:
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
        return answer(request, of_error(error), headers)

    @app.exception_handler(AppError)
    async def app_error(request: Request, error: AppError) -> Response:
        return answer_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, of_validation(error, request.headers.get("content-type", "")))

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> Response:
        if isinstance(error, TooLong):
            return answer_error(request, error.why)
        if error.status_code == 400:  # what FastAPI says of a body whose JSON is not merely malformed
            return answer(request, of_validation(ValueError(UNREADABLE)))
        detail = {
            404: f"There is nothing at {request.url.path[:200]}. /docs lists what there is.",
            405: f"{request.method} is not a way to ask for {request.url.path[:200]}. /docs lists the ways.",
        }.get(error.status_code, str(error.detail))
        kind, title = "/problems/http-error", str(error.detail)
        problem = Problem(type=kind, title=title, status=error.status_code, detail=detail)
        return answer(request, problem, error.headers)

    app.add_middleware(CatchErrors, answer=lambda request, error: answer(request, of_bug(error)))


def _is_browser(request: Request) -> bool:
    """Does a person wait for a page? Browsers ask for HTML by name; programs, and scripts of a page, do not."""
    return "text/html" in request.headers.get("accept", "")


class CatchErrors:
    """Answers an error that nothing further in foresaw, so that the reply gets the headers of every reply.

    A library's panic is no Exception; it too is answered.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Request, BaseException], Response]) -> None:
        self.app = app
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = scope["type"] != "http"  # then nothing can be answered

        async def note(message: Message) -> None:
            nonlocal is_begun
            is_begun = is_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, note)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if is_begun:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            await self.answer(Request(scope), error)(scope, receive, send)


class HeadAsGet:
    """Answers HEAD wherever GET is answered, with the same headers and no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self.app({**scope, "method": "GET"}, receive, without_body)
        else:
            await self.app(scope, receive, send)


class TooLong(HTTPException):
    """BodyTooLarge in the shape that FastAPI lets through while it reads a body."""

    def __init__(self, why: BodyTooLarge) -> None:
        super().__init__(why.status, str(why))
        self.why = why


class BodyLimit:
    """Stops to take a request in once it is longer than `max_bytes`, whatever its Content-Length says."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                raise TooLong(BodyTooLarge(self.max_bytes))
            return message

        await self.app(scope, counted, send)
