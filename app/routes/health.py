"""Liveness and readiness, for a supervisor or a load balancer."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.service import EngineDep

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz(engine: EngineDep) -> Response:
    """200 while the process is alive and its worker accepts texts, else 503."""
    if not engine.is_alive:
        return PlainTextResponse("the worker has stopped\n", 503)
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(engine: EngineDep) -> Response:
    """200 when the default model is ready, else 503 and why: it is loading, it failed, or the worker stopped."""
    models = engine.models
    if engine.is_alive and models.ready:
        return PlainTextResponse("ready\n")
    state = models.state(models.default) if engine.is_alive else "stopped"
    content = {"ready": False, "state": state, "model": models.default, "doing": models.waiting_for}
    return JSONResponse(content, 503, {"Retry-After": "1"})
