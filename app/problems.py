"""Errors -> replies: RFC 9457 for programs, a page for people. And the bound on a request's length."""

from collections.abc import Mapping
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

MEDIA_TYPE = "application/problem+json"

DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, description in {
        400: "The request is no JSON.",
        404: "No model has this name.",
        413: "The request is over 1 MiB, or the answer would hold too many numbers.",
        422: "The text, a layer, a head or a field cannot be read.",
        503: "The server is busy or the model is loading; `Retry-After` says when to come back.",
    }.items()
}


def of_error(error: AppError) -> Problem:
    """What to say of an error of ours; its `type` is an address of a page about it."""
    return Problem(type=f"/problems/{error.slug()}", title=error.title, status=error.status, detail=str(error))


def of_validation(error: RequestValidationError | ValidationError | ValueError) -> Problem:
    """What to say of a request that is none. What was sent is not repeated: it may be long, and not even be JSON."""
    found = []
    for one in error.errors() if isinstance(error, RequestValidationError | ValidationError) else ():
        where = ".".join(str(part) for part in one["loc"] if part != "body")
        message = str(one["msg"]).removeprefix("Value error, ").encode(errors="replace").decode()
        found.append(f"{where[:100]}: {message}" if where else message)
    detail = "; ".join(found[:10]).encode(errors="replace").decode() or f"This is no JSON: {error}."
    return Problem(type="/problems/invalid-request", title="The request cannot be read", status=422, detail=detail)


def of_bug(error: Exception) -> Problem:
    """What to say of an error that nobody foresaw."""
    detail = f"{type(error).__name__}: this is a fault of the server, which has noted it. Other requests go on."
    return Problem(type="/problems/internal-error", title="The server made a mistake", status=500, detail=detail)


def reply(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a reply of its status."""
    return Response(orjson.dumps(problem.model_dump()), problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the JSON API have one shape."""

    @app.exception_handler(AppError)
    async def app_error(_: Request, error: AppError) -> Response:
        return _reply_to(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return reply(of_validation(error))

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> Response:
        if isinstance(error, TooLong):
            return _reply_to(error.why)
        detail = {
            404: f"There is nothing at {request.url.path[:200]}. /docs lists what there is.",
            405: f"{request.method} is not a way to ask for {request.url.path[:200]}. /docs lists the ways.",
        }.get(error.status_code, str(error.detail))
        told = Problem(type="/problems/http-error", title=str(error.detail), status=error.status_code, detail=detail)
        return reply(told, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return reply(of_bug(error))


def _reply_to(error: AppError) -> Response:
    return reply(of_error(error), {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None)


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
