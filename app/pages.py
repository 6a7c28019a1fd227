"""The pages for people, and the context that each template may use."""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import fastapi_offline
import plotly
from fastapi import APIRouter, Depends, Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs_version
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from app import api, problems
from app.api import EngineHere
from app.engine import Engine
from app.errors import AppError, ModelLoading
from app.schemas import CurvePoint, ModelInfo, PageRequest, Problem
from model.trace import STAGES

ROOT = Path(__file__).resolve().parents[1]  # templates and static stand beside app, here as in the installed package
STATIC = ROOT / "static"
FIRST_TEXT = "the fat cat sat on the mat"
FIRST_HEAD = {"smollm2-135m": (11, 7), "lookback-gpt": (3, 3)}  # a head in which cat looks at fat, and mat does not
FIRST_QUERY = 2  # cat
FIRST_TEXT_OF_TRAINING = "the fat cat sat on the mat, and the fat cat"  # what comes next can be known by looking back
FIRST_HEAD_OF_TRAINING = {"lookback-gpt": (1, 1)}  # a head that learns to do so
PLOTLY = f"plotly-{get_plotlyjs_version()}.min.js"
MATH_FONT = "stix-two-math-2.11.ttf"  # static/app.css names it too
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}

EMPTY = "Type something, and see what each token looks at."
EXAMPLES = (
    FIRST_TEXT,
    "The keys to the cabinet are on the table",
    "When Mary and John went to the store, John gave a drink to",
    "one two three four one two three",
    "def add(a, b):\n    return a + b",
)

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(
    env=Environment(loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=True)
)


@dataclass(frozen=True)
class Row:
    """One key of the chosen query: the numbers of a cell, stage by stage."""

    position: int
    text: str
    score: float
    scaled: float
    masked: float | None
    weight: float


@dataclass(frozen=True)
class Seen:
    """What the page shows of a reading before any script runs."""

    tokens: list[dict[str, Any]]  # as replies have them, and of each what `split_characters` says, as `split`
    dropped: list[str]  # characters that the vocabulary cannot hold, in words
    query: int
    rows: list[Row]
    prediction: dict[str, Any]
    computed_ms: float


@dataclass(frozen=True)
class Page:
    """What the pages have in common on which a text is read: their address as a state, and what came of it."""

    models: list[ModelInfo]
    model: str  # the chosen one's name; it may be one that does not exist
    text: str
    step: int | None  # of the model's training; None is its end
    layer: int
    head: int
    query: int | None  # None follows the last token
    stage: str
    stages: tuple[str, ...]
    examples: tuple[str, ...]
    plotly: str  # address of Plotly's script
    seen: Seen | None  # None while there is nothing to show
    notice: str  # an error, or that the model is loading; empty if all is well


@dataclass(frozen=True)
class HomePage(Page):
    """The context of home.html."""

    stands_in_for: str  # the default model, where another one is shown until it is ready; empty otherwise
    waiting: str  # what that is waiting for


@dataclass(frozen=True)
class TrainingPage(Page):
    """The context of training.html."""

    steps: list[tuple[int | None, CurvePoint | None]]  # of the training, each with what is known of it
    shipped: str  # a model that has such steps
    run: str  # what is known of a run that goes on; empty where none does


@dataclass(frozen=True)
class Asked:
    """What an address asks for, in its own words; a page says what it means where it says nothing."""

    text: str | None = None
    model: str | None = None
    step: str = ""
    layer: str = ""
    head: str = ""
    query: str = ""
    stage: str = "weights"

    def state(
        self, *, text: str, model: str, query: int | None, heads: Mapping[str, tuple[int, int]]
    ) -> dict[str, Any]:
        """All of what is to be shown. `query` is the token to begin with, where the text is the one to begin with, and
        `heads` names the head to begin with in some models."""
        first_layer, first_head = heads.get(model, (0, 0))
        return {
            # a form without a script sends \r\n for each line end of its text box, which itself holds \n
            "text": text if self.text is None else self.text.replace("\r\n", "\n"),
            "model": model,
            "step": _number(self.step, None),
            "layer": _number(self.layer, first_layer),
            "head": _number(self.head, first_head),
            "query": _number(self.query, query if self.text is None else None),
            "stage": self.stage,
        }


AskedHere = Annotated[Asked, Depends()]


@router.get("/")
async def home(request: Request, engine: EngineHere, asked: AskedHere) -> Response:
    """The page: its address is its state, and whatever the address says, the page comes and keeps what was typed.

    While the default model is not ready, the one that came with the app stands in for it, and the page says so.
    """
    models = engine.models
    stands_in = not asked.model and not models.ready and models.entries[models.fallback].loaded is not None
    name = asked.model or (models.fallback if stands_in else models.default)
    state = asked.state(text=FIRST_TEXT, model=name, query=FIRST_QUERY, heads=FIRST_HEAD)
    shared, status = await _page(engine, state)
    page = HomePage(**shared, stands_in_for=models.default if stands_in else "", waiting=_waiting(engine))
    return render(request, "home.html", page, status)


@router.get("/training")
async def training(request: Request, engine: EngineHere, asked: AskedHere) -> Response:
    """A model through its training. Its address is its state, as that of the first page is.

    It opens on the default model, if that kept steps of its training, or else on the one that came with the app.
    """
    models = engine.models
    own_steps, _, _ = await api.course(engine, models.default)
    name = asked.model or (models.default if len(own_steps) > 1 else models.fallback)
    state = asked.state(text=FIRST_TEXT_OF_TRAINING, model=name, query=None, heads=FIRST_HEAD_OF_TRAINING)
    shared, status = await _page(engine, state)
    steps, curve, _ = await api.course(engine, name) if name in models.entries else ([], [], 0)
    known: dict[int | None, CurvePoint] = {point.step: point for point in curve}
    page = TrainingPage(
        **shared,
        steps=[(step, known.get(step)) for step in steps],
        shipped=models.fallback,
        run=models.entries[name].run if name in models.entries else "",
    )
    return render(request, "training.html", page, status)


async def _page(engine: Engine, state: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The fields of a Page in this state, and the status with which it comes."""
    seen, notice, status = await _see(engine, state)
    more = {"stages": STAGES, "examples": EXAMPLES, "plotly": f"/static/{PLOTLY}"}
    return {"models": api.models(engine), **state, **more, "seen": seen, "notice": notice}, status


def render(request: Request, template: str, page: Any, status: int = 200) -> Response:
    """A page: its template may use the fields of its dataclass, and nothing else."""
    context = {field.name: getattr(page, field.name) for field in fields(page)}
    return templates.TemplateResponse(request, template, context, status_code=status)


async def _see(engine: Engine, asked: dict[str, Any]) -> tuple[Seen | None, str, int]:
    if not asked["text"]:
        return None, EMPTY, 200  # nothing is wrong: there is no text yet
    try:
        ask = PageRequest(**asked)
        model, tokens = await api.read(engine, ask)
        header, arrays = await api.look_at(engine, model, tokens, ask, overview=False)
    except ModelLoading as error:
        return None, str(error), 200  # the page is as it should be; it only waits
    except AppError as error:
        return None, str(error), error.status
    except ValidationError as error:
        return None, sentence(error), 422
    query = header["query"]
    rows = [
        Row(
            position=token["position"],
            text=token["text"],
            score=float(arrays["row_scores"][key]),
            scaled=float(arrays["row_scaled"][key]),
            masked=float(arrays["row_scaled"][key]) if key <= query else None,
            weight=float(arrays["row_weights"][key]),
        )
        for key, token in enumerate(header["tokens"])
    ]
    computed_ms = header["timings"]["computed_ms"]
    dropped = [f"U+{ord(lost['text']):04X} (character {lost['start']})" for lost in header["dropped"]]
    split = split_characters(header["tokens"], asked["text"])
    tokens_shown = [token | {"split": words} for token, words in zip(header["tokens"], split, strict=True)]
    return Seen(tokens_shown, dropped, query, rows, header["prediction"], computed_ms), "", 200


def split_characters(tokens: Sequence[Mapping[str, Any]], text: str) -> list[str]:
    """Of each token, the characters of which it holds but a part, in words; empty for most.

    >>> split_characters([{"start": 0, "end": 2}, {"start": 1, "end": 2}, {"start": 2, "end": 3}], "a猫b")[1]
    '\u2068猫\u2069 (character 1)'
    """
    shares_with_next = [token["end"] > behind["start"] for token, behind in pairwise(tokens)]
    words = []
    for token, with_last, with_next in zip(tokens, [False, *shares_with_next], [*shares_with_next, False], strict=True):
        shared = {*([token["start"]] if with_last else []), *([token["end"] - 1] if with_next else [])}
        words.append(" and ".join(f"\u2068{text[at]}\u2069 (character {at})" for at in sorted(shared)))
    return words


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The JSON API, described and tried out; Swagger UI from a Python package, not from a CDN."""
    return templates.TemplateResponse(request, "docs.html", {"swagger": [f"/static/{name}" for name in SWAGGER]})


@router.get("/problems/{slug}")
async def problem(request: Request, slug: str) -> Response:
    """What a `type` of an error means."""
    for error in _descendants(AppError):
        if error.slug() == slug:
            context = {"title": error.title, "meaning": error.__doc__ or "", "status": error.status}
            return templates.TemplateResponse(request, "problem.html", context)
    if slug in problems.MEANINGS:
        title, meaning, status = problems.MEANINGS[slug]
        return templates.TemplateResponse(
            request, "problem.html", {"title": title, "meaning": meaning, "status": status}
        )
    raise HTTPException(404)


def error_page(request: Request, problem: Problem) -> Response:
    """What a person sees of an error: what is wrong, the way out, and what was typed."""
    context = {"problem": problem, "path": request.url.path, "text": request.query_params.get("text")}
    return templates.TemplateResponse(request, "error.html", context, status_code=problem.status)


@router.get("/healthz")
async def healthz(engine: EngineHere) -> Response:
    """The process is alive, and its worker takes texts."""
    if not engine.is_alive:
        return PlainTextResponse("the worker has stopped\n", 503)
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(engine: EngineHere) -> Response:
    """The default model can answer. If not, `state` tells: it is loading, it has failed, or the worker stopped."""
    models = engine.models
    if engine.is_alive and models.ready:
        return PlainTextResponse("ready\n")
    state = models.state(models.default) if engine.is_alive else "stopped"
    waiting = {"ready": False, "state": state, "model": models.default, "doing": _waiting(engine)}
    return JSONResponse(waiting, 503, {"Retry-After": "1"})


@router.get(f"/static/{PLOTLY}")
def plotly_script(request: Request) -> Response:  # not async: the first one compresses, which takes a thread a while
    """Plotly's script from the `plotly` wheel."""
    return _for_ever(request, Path(plotly.__file__).parent / "package_data" / "plotly.min.js", "text/javascript")


@router.get(f"/static/{MATH_FONT}")
def math_font(request: Request) -> Response:
    """The font of the formulas, STIX Two Math, from the `ziamath` wheel; its table MATH says how a radical is drawn."""
    path = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
    return _for_ever(request, Path(str(path)), "font/ttf")


@router.get("/static/swagger-ui-bundle.js")
@router.get("/static/swagger-ui.css")
async def swagger(request: Request) -> Response:
    """Swagger UI's files."""
    return FileResponse(Path(fastapi_offline.__file__).parent / "static" / Path(request.url.path).name)


def _waiting(engine: Engine) -> str:
    """What the default model is waiting for, or why it cannot be had; in words without a full stop."""
    entry = engine.models.entries[engine.models.default]
    return (entry.failure or entry.doing).rstrip(".")


def _for_ever(request: Request, path: Path, media_type: str) -> Response:
    """A large file whose address has its version: compressed once, and kept by browsers for ever."""
    headers = FOR_EVER | {"Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(path, media_type=media_type, headers=headers)
    return Response(_gzipped(path), media_type=media_type, headers=headers | {"Content-Encoding": "gzip"})


@cache
def _gzipped(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


def _number(given: str, otherwise: Any) -> Any:
    """A number of the address; what is no number is left for the request's own check to refuse."""
    return otherwise if given == "" else int(given) if given.isascii() and given.isdigit() and len(given) < 8 else given


def sentence(error: ValidationError) -> str:
    """What is wrong with a request, in words."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
    )


def _descendants(kind: type[AppError]) -> list[type[AppError]]:
    return [found for child in kind.__subclasses__() for found in (child, *_descendants(child))]


def address(state: dict[str, Any], path: str = "/", **change: Any) -> str:
    """The address of a page in this state, with something changed.

    >>> address({"text": "a b", "layer": 3, "query": None}, layer=4)
    '/?text=a+b&layer=4'
    """
    return f"{path}?" + urlencode({key: value for key, value in {**state, **change}.items() if value is not None})


templates.env.globals["address"] = address
templates.env.globals["when_empty"] = EMPTY
