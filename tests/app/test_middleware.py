"""Each middleware around a small ASGI app."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import BodyTooLarge
from app.middleware import BodyLimit, CatchErrors, HeadAsGet, HTTPBodyTooLarge, SafeHeaders


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with the method and the body of the request."""
    request = Request(scope, receive)
    await PlainTextResponse(f"{request.method} {(await request.body()).decode()}")(scope, receive, send)


def reply(_: Request, error: BaseException) -> Response:
    return PlainTextResponse(f"caught {type(error).__name__}", 500)


def failing(error: BaseException, *, after_start: bool = False) -> ASGIApp:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


@pytest.mark.parametrize("error", [ZeroDivisionError(), BaseException("a panic")])
def test_an_unexpected_error_gets_a_reply(error: BaseException) -> None:
    response = TestClient(CatchErrors(failing(error), reply)).get("/")
    assert (response.status_code, response.text) == (500, f"caught {type(error).__name__}")


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (failing(ZeroDivisionError(), after_start=True), ZeroDivisionError),  # a second reply is impossible
        (failing(asyncio.CancelledError()), asyncio.CancelledError),
        (failing(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_an_error_after_the_start_of_a_reply_and_a_cancellation_are_passed_on(
    app: ASGIApp, error: type[BaseException]
) -> None:
    async def run() -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.request"}

        async def send(_: object) -> None:
            pass

        with pytest.raises(error):
            await CatchErrors(app, reply)({"type": "http", "method": "GET", "path": "/"}, receive, send)

    asyncio.run(run())


def test_head_is_handled_as_get_and_its_body_is_left_out() -> None:
    client = TestClient(HeadAsGet(echo))
    assert (client.get("/").text, client.head("/").text) == ("GET ", "")
    assert client.head("/").headers["content-length"] == "4"
    assert client.post("/", content="x").text == "POST x"


def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_over_it_is_refused() -> None:
    client = TestClient(BodyLimit(echo, max_bytes=10))
    assert client.post("/", content="a" * 10).text == "POST " + "a" * 10
    with pytest.raises(HTTPBodyTooLarge) as error:
        client.post("/", content="a" * 11)
    assert (error.value.status_code, error.value.detail) == (413, str(BodyTooLarge(10)))


def test_headers_are_added_and_a_cache_control_of_the_app_is_not_replaced() -> None:
    by_default = TestClient(SafeHeaders(PlainTextResponse("x"))).get("/").headers
    immutable = TestClient(SafeHeaders(PlainTextResponse("x", headers={"Cache-Control": "immutable"}))).get("/").headers
    assert (by_default["cache-control"], immutable["cache-control"]) == ("no-cache", "immutable")
    assert by_default["x-content-type-options"] == immutable["x-content-type-options"] == "nosniff"
