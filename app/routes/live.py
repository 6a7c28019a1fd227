"""The WebSocket of the live channel."""

import asyncio
import contextlib
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.live.frame import FRAME_VERSION
from app.live.session import Session

FOREIGN = 1008  # the code that closes the socket of a page of another site

router = APIRouter()


@router.websocket(f"/api/v{FRAME_VERSION}/live")
async def live(socket: WebSocket) -> None:
    """Serve one client until its socket is closed, idle for too long, or too fast."""
    if not _is_same_origin(socket):
        await socket.close(FOREIGN, "pages of other sites may not use this channel")
        return
    await socket.accept()
    session = Session(socket, socket.app.state.engine)
    replies = asyncio.create_task(session.send_replies())
    try:
        await session.receive()
    except WebSocketDisconnect:
        pass
    finally:
        session.cancel()
        replies.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await replies


def _is_same_origin(socket: WebSocket) -> bool:
    """Any page of any site can open a socket here. Browsers name the site of the page; programs send no origin."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
