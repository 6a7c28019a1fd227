"""The application: settings, engine and routes together. Importing this module reads no file but code."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app import middleware, problems
from app.engine import Engine
from app.models import check_settings
from app.openapi import description, document
from app.routes import activations, api, assets, experiments, health, live, pages
from app.settings import Settings
from app.templating import STATIC
from model.weights.catalogue import catalogue
from model.weights.sources import Progress


def create_app(settings: Settings, progress: Progress | None = None) -> FastAPI:
    """The whole application. `progress` is called while a model is fetched.

    Raises:
        WeightsError: if the settings name a model that does not exist.
    """
    sources = catalogue(settings.model)
    check_settings(settings, sources)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Engine.serving(sources, settings, progress) as engine:
            app.state.engine = engine
            yield

    app = FastAPI(
        title="Lookback",
        version=version("lookback"),
        description=description(sources, settings),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    problems.install(app, pages.error_page)
    app.add_middleware(middleware.BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(middleware.HeadAsGet)
    app.add_middleware(middleware.SafeHeaders)
    for routes in (api, activations, live, assets, health, pages, experiments):
        app.include_router(routes.router)
    app.mount("/static", assets.CompressedFiles(directory=STATIC), name="static")
    return app
