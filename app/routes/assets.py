"""Files for the pages: our own scripts and styles, and what comes from Python packages (Plotly, a font, Swagger UI)."""

import os
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import fastapi_offline
import plotly
from fastapi import APIRouter, Request
from plotly.offline import get_plotlyjs_version
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from app.compression import accepts_gzip, gzipped

PLOTLY = f"/static/plotly-{get_plotlyjs_version()}.min.js"
MATH_FONT = "/static/stix-two-math-2.11.ttf"  # static/app.css names it too
SWAGGER = ("/static/swagger-ui-bundle.js", "/static/swagger-ui.css")
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
TEXTS = (".css", ".js", ".svg")  # what is smaller when it is compressed

router = APIRouter(include_in_schema=False)


class CompressedFiles(StaticFiles):
    """A folder whose texts are compressed once, for the browsers that accept it."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, or that the browser has it already."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        path = Path(full_path)
        if path.suffix not in TEXTS:
            return response
        response.headers["Vary"] = "Accept-Encoding"
        if isinstance(response, NotModifiedResponse) or not accepts_gzip(Headers(scope=scope)):
            return response
        headers = {name: response.headers[name] for name in ("content-type", "last-modified", "vary")}
        etag = f"W/{response.headers['etag']}"  # W/: the same content, in other bytes
        headers |= {"ETag": etag, "Content-Encoding": "gzip"}
        return Response(_gzipped_file(path, stat_result.st_mtime_ns), headers=headers)


@router.get(PLOTLY)
def plotly_script(request: Request) -> Response:  # not async: the first request compresses the file, which takes long
    """Plotly's script, from the `plotly` wheel."""
    return _immutable(request, Path(plotly.__file__).parent / "package_data" / "plotly.min.js", "text/javascript")


@router.get(MATH_FONT)
def math_font(request: Request) -> Response:
    """The font of the formulas, STIX Two Math, from the `ziamath` wheel; its MATH table is needed to draw radicals."""
    path = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
    return _immutable(request, Path(str(path)), "font/ttf")


@router.get(SWAGGER[0])
@router.get(SWAGGER[1])
async def swagger(request: Request) -> Response:
    """Swagger UI's files, from the `fastapi-offline` wheel."""
    return FileResponse(Path(fastapi_offline.__file__).parent / "static" / Path(request.url.path).name)


def _immutable(request: Request, path: Path, media_type: str) -> Response:
    """A large file whose address contains its version: compressed once, and cached by browsers for a year."""
    headers = IMMUTABLE | {"Vary": "Accept-Encoding"}
    if not accepts_gzip(request.headers):
        return FileResponse(path, media_type=media_type, headers=headers)
    content = _gzipped_file(path, path.stat().st_mtime_ns)
    return Response(content, media_type=media_type, headers=headers | {"Content-Encoding": "gzip"})


@cache
def _gzipped_file(path: Path, _changed_ns: int) -> bytes:
    """A file in its version of this time."""
    return gzipped(path.read_bytes())
