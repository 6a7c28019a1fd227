"""Where everything meets: settings, engine, routes. Importing this module reads no file, no setting, no weight."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import api, lesson_routes, live, pages, problems
from app.engine import Engine
from app.models import check_settings
from app.settings import Settings
from model.weights.catalogue import Progress, Source, catalogue

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

## The live channel

`/api/v1/live` is a WebSocket that follows a typist. Send an ask, as JSON text, whenever something changes:

    {"seq": 7, "text": "the fat cat", "layer": 11, "head": 7, "query": null, "stage": "weights", "window": null}

It has the fields of `POST /api/v1/view` but `overview`, and `seq`, a number that counts up. The newest ask wins: an
older one that has not begun is dropped without a reply. Replies are binary frames as `POST /api/v1/view` describes
them. Each changes what the client has, and must be applied in order, whether or not its text is still wanted:

- `same`: the first so many tokens are those that the client has. `tokens` are the others; `n` is how many there are.
- `one`, the chosen head's picture of `one.window`, with `one.step` tokens a side of a cell: its first `one.from` rows
  and columns are as they were. `scores`, `scaled` and `weights` hold the rows from there on, `scores_columns` and
  `scaled_columns` the new columns of the rows before (weights of those are 0). Where `one.step` is more than 1 there
  is `masked` too: on the diagonal the largest masked score is not the largest scaled one. `null`: all is as it was.
- `norms.from`: `mean`, `variance` and `rms` are of the tokens from there on. Absent: as they were.
- `grid`: `grid` holds rows of pixels from `grid.from` on, of the layers `grid.layers[0]` up to before
  `grid.layers[1]`; `first` is of the tokens from `grid.known` on. Where `grid.known` is no multiple of `grid.step`, a
  pixel of the first row is the larger of the one that is sent and the one that is there. A long text's rows come in
  several frames, which hold little else; a new `grid.step` begins anew. Until they come, rows of pixels that reach
  beyond `same` are of another text.
- `done` is in the last frame of an answer.

Other frames say `{"seq", "progress": {"read", "of"}}` (tokens of a long text that are read), `{"seq", "problem",
"retry_after_s"}`, or `{"pong"}` in answer to `{"ping": …}`. A socket is closed with 4000 when it asks for nothing for
15 minutes, with 4008 when it sends over 60 messages a second, with 1009 when a message is over 1 MiB, and with 1003
when a message is not text.
"""


def description(sources: Mapping[str, Source], settings: Settings) -> str:
    """The words at the top of /docs, with what each model is."""
    limit = f"A text is read up to the model's context, and up to LOOKBACK_MAX_TOKENS ({settings.max_tokens:,}) tokens."
    models = (
        f"- `{name}`: {source.about(settings.dtype)}; context of {source.config().n_context:,} tokens"
        for name, source in sources.items()
    )
    return "\n".join((DESCRIPTION, "## The models", "", limit, "", *models, ""))


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
    check_settings(settings, sources)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Engine.serving(sources, settings, progress) as engine:
            app.state.engine = engine
            yield

    created = FastAPI(
        title="Lookback",
        version="1",
        description=description(sources, settings),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(created, pages.error_page)
    created.add_middleware(problems.BodyLimit, max_bytes=settings.max_body_bytes)
    created.add_middleware(problems.HeadAsGet)
    created.add_middleware(SafeHeaders)
    created.include_router(api.router)
    created.include_router(live.router)
    created.include_router(pages.router)
    created.include_router(lesson_routes.router)
    created.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    return created
