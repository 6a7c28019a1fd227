"""Files for the pages that come from Python packages: Plotly's script, the font of the formulas, Swagger UI."""

import gzip
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import fastapi_offline
import plotly
from fastapi import APIRouter, Request
from plotly.offline import get_plotlyjs_version
from starlette.responses import FileResponse, Response

from app.templating import ROOT

STATIC = ROOT / "static"
PLOTLY = f"/static/plotly-{get_plotlyjs_version()}.min.js"
MATH_FONT = "/static/stix-two-math-2.11.ttf"  # static/app.css names it too
SWAGGER = ("/static/swagger-ui-bundle.js", "/static/swagger-ui.css")
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}

router = APIRouter(include_in_schema=False)


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
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(path, media_type=media_type, headers=headers)
    return Response(_gzipped(path), media_type=media_type, headers=headers | {"Content-Encoding": "gzip"})


@cache
def _gzipped(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)
