"""Errors -> replies: RFC 9457 for programs, a page for people."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from app.errors import AppError, field_message
from app.middleware import CatchErrors, HTTPBodyTooLarge
from app.schemas import Problem

PROBLEM_MEDIA_TYPE = "application/problem+json"
UNREADABLE = "it is not UTF-8, is nested too deeply, or has a number with too many digits"
N_ERRORS = 10  # of one request that are reported
# By the last part of a problem's `type`, where it is no AppError: its title, what it means, its status.
MEANINGS = {
    "invalid-request": (
        "The request cannot be read",
        "The body is not JSON, or not a request of this call.",
        "400, 415 or 422",
    ),
    "http-error": ("HTTP error", "There is nothing at this address, or it takes another method.", "404 or 405"),
    "internal-error": ("The server made a mistake", "An unexpected error; the server has logged it.", "500"),
}
RenderError = Callable[[Request, Problem], Response]  # what a person sees of a problem

# The error replies of every call, for its OpenAPI description. FastAPI's own type of it has Any. The schema is one
# component of the whole document (openapi.py), not a copy in every reply.
PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}
DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {PROBLEM_MEDIA_TYPE: {"schema": PROBLEM_REFERENCE}}}
    for status, description in {
        400: "The request is not JSON.",
        404: "There is no model of this name, or it is not on this machine.",
        413: "The request is over 1 MiB, or the reply would contain too many numbers.",
        415: "The request lacks `Content-Type: application/json`.",
        422: "The text, a layer, a head or a field is invalid.",
        503: "The server is busy or the model is loading; `Retry-After` says when to try again.",
    }.items()
}


def of_error(error: AppError) -> Problem:
    """The problem that describes an AppError; its `type` is the address of a page about it."""
    return Problem(type=f"/problems/{error.slug()}", title=error.title, status=error.status, detail=str(error))


def of_validation(error: RequestValidationError | ValidationError | ValueError, content_type: str = "json") -> Problem:
    """The problem that describes an invalid request. It does not repeat the request, which may be long.

    Only the first N_ERRORS errors are reported: there may be one for each letter of the request.
    """
    errors = error.errors() if isinstance(error, RequestValidationError | ValidationError) else ()
    if not errors:
        return _invalid(400, f"This is not JSON: {error}")
    first = errors[0]
    if first["type"] == "json_invalid":
        reason, place = first.get("ctx", {}).get("error", "it cannot be read"), first["loc"][-1]
        return _invalid(400, f"This is not JSON: {reason}, at character {place}")
    if "json" not in content_type and tuple(first["loc"]) == ("body",):
        stated = f"the Content-Type {content_type[:100]}" if content_type else "no Content-Type"
        return _invalid(415, f"The request has {stated}. Send the header Content-Type: application/json")
    return _invalid(422, "; ".join(field_message(detail) for detail in islice(errors, N_ERRORS)))


def _invalid(status: int, detail: str) -> Problem:
    detail = detail.encode(errors="replace").decode()
    return Problem(
        type="/problems/invalid-request",
        title=MEANINGS["invalid-request"][0],
        status=status,
        detail=detail if detail.endswith(".") else f"{detail}.",
    )


def of_bug(error: BaseException) -> Problem:
    """The problem that describes an unexpected error."""
    detail = f"{type(error).__name__}: this is a fault of the server, which has logged it. Other requests still work."
    title, *_ = MEANINGS["internal-error"]
    return Problem(type="/problems/internal-error", title=title, status=500, detail=detail)


def to_reply(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a reply with its status."""
    return Response(orjson.dumps(problem.model_dump()), problem.status, headers, PROBLEM_MEDIA_TYPE)


def install(app: FastAPI, page: RenderError) -> None:
    """Give every error one form: RFC 9457 for programs, `page` for browsers."""

    def reply(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
        response = page(request, problem) if _is_browser(request) else to_reply(problem)
        response.headers.update(headers or {})
        response.headers.append("Vary", "Accept")
        return response

    def reply_to_error(request: Request, error: AppError) -> Response:
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
        return reply(request, of_error(error), headers)

    @app.exception_handler(AppError)
    async def app_error(request: Request, error: AppError) -> Response:
        return reply_to_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return reply(request, of_validation(error, request.headers.get("content-type", "")))

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> Response:
        if isinstance(error, HTTPBodyTooLarge):
            return reply_to_error(request, error.error)
        if error.status_code == 400:  # FastAPI's error for a body whose JSON is not merely malformed
            return reply(request, of_validation(ValueError(UNREADABLE)))
        detail = {
            404: f"There is nothing at {request.url.path[:200]}. See /docs for all addresses. "
            "Some calls have moved from /api/v1 to /api/v2; reload a page that was open while the server was updated.",
            405: f"{request.url.path[:200]} does not accept {request.method}. See /docs for its methods.",
        }.get(error.status_code, str(error.detail))
        kind, title = "/problems/http-error", str(error.detail)
        problem = Problem(type=kind, title=title, status=error.status_code, detail=detail)
        return reply(request, problem, error.headers)

    app.add_middleware(CatchErrors, reply=lambda request, error: reply(request, of_bug(error)))


def _is_browser(request: Request) -> bool:
    """Whether the client is a person's browser: it accepts HTML by name; programs and scripts of a page do not."""
    return "text/html" in request.headers.get("accept", "")
