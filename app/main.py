"""Where everything meets: settings, engine, routes. Importing this module reads no file, no setting, no weight."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import api, live, pages, problems
from app.engine import Engine
from app.settings import Settings
from model.weights.catalogue import Progress, catalogue

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly writes a style element
        "img-src 'self' data: blob:",  # Plotly draws pictures for download
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

DESCRIPTION = """
What a GPT attends to, in the model's own numbers: scores, scaled and masked scores and weights of every head,
the statistics of every layer norm, and next-token predictions.

Layers, heads and positions count from 0; rows are queries (the token that looks), columns are keys (the token looked
at). An error is `application/problem+json` (RFC 9457), and its `detail` says what to do.
"""


class SafeHeaders:
    """Every reply says that nothing may come from elsewhere, nothing be guessed, and nothing be old."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"  # an address holds what was typed
                headers.setdefault("Cache-Control", "no-cache")  # a page and its scripts are of one version
            await send(message)

        await self.app(scope, receive, with_headers)


def create_app(settings: Settings, progress: Progress | None = None) -> FastAPI:
    """The whole application. `progress` hears how far the fetching of a model is.

    Raises:
        WeightsError: when the settings name a model that does not exist.
    """
    sources = catalogue(settings.model)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Engine.serving(sources, settings, progress) as engine:
            app.state.engine = engine
            yield

    created = FastAPI(
        title="Lookback", version="1", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    created.add_middleware(problems.BodyLimit, max_bytes=settings.max_body_bytes)
    created.add_middleware(SafeHeaders)
    problems.install(created)
    created.include_router(api.router)
    created.include_router(live.router)
    created.include_router(pages.router)
    created.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    return created
