"""The lessons, for people and for programs: the map, a page for each, its numbers and its checks."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import problems, service, templating, views
from app.engine import Engine
from app.errors import AppError, ModelLoading, TextTooLong, UnsupportedByModel
from app.lessons.checks import Check
from app.lessons.lesson import AnyLesson, LessonRequest, Reading, check_heads, lessons
from app.lessons.posts import SERIES
from app.models import Loaded
from app.routes import assets, pages
from app.routes.api import json_reply
from app.schemas import ModelInfo, Timings
from app.service import Client, ClientDep, EngineDep
from model.tokenizer import Tokens

N_MOST = 256  # tokens of a text: pictures of more cannot be read, and one client cannot ask for much
SECTIONS = {"The mathematics": 1, "From a text to vectors": 9, "Attention, step by step": 13}  # from which system on
COMMON = set(LessonRequest.model_fields)  # what is not a control of one lesson alone

router = APIRouter()


@dataclass(frozen=True)
class Control:
    """Something on the page that changes a field of the request."""

    name: str
    title: str
    help: str
    kind: Literal["range", "number", "choice", "switch", "token", "sliders", "text", "heads"]
    value: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None  # of a slider
    choices: tuple[str, ...] = ()  # of a token: the label of the empty option; of sliders: their names
    playable: bool = False  # can be run from the minimum to the maximum


@dataclass(frozen=True)
class LessonPage:
    """The context of a lesson's template."""

    lesson: AnyLesson
    previous: AnyLesson | None
    next: AnyLesson | None
    models: list[ModelInfo]
    model: str
    requested_model: str  # the model that was asked for, where this lesson needs another one; empty otherwise
    tokens: list[views.TokenFields]
    lesson_request: LessonRequest  # the request that gives what is shown
    controls: dict[str, Control]
    panel_kinds: dict[str, str]  # by the panels' names; known before there is a result
    result: dict[str, Any] | None  # None while there is nothing to show
    checks: list[Check] | None  # None until they are requested
    notice: str
    curl: str  # the line that gives what is shown, for a shell
    plotly: str
    series: str  # where the posts are


@dataclass(frozen=True)
class MapPage:
    """The context of lessons.html."""

    sections: dict[str, list[AnyLesson]]
    model: str | None
    text: str | None
    series: str


@dataclass(frozen=True)
class SymbolsPage:
    """The context of symbols.html, which needs none."""


class LessonInfo(BaseModel):
    """A lesson, and where it is."""

    system: str
    slug: str
    title: str
    about: str
    page: str
    call: str


class LessonReply(BaseModel):
    """What every lesson's answer says beside its parts."""

    model: str
    step: int | None = Field(description="of the model's training; `null` is its end")
    tokens: list[dict[str, Any]]
    timings: Timings


class Proof(BaseModel):
    """A lesson's checks on one text."""

    model: str
    step: int | None
    checks: list[Check]


@router.get("/api/v1/lessons", summary="Lessons", tags=["lessons"])
async def get_lessons() -> list[LessonInfo]:
    """All lessons in the order of the posts."""
    return [
        LessonInfo(
            system=f"S{lesson.system:02}",
            slug=slug,
            title=lesson.title,
            about=lesson.about,
            page=f"/lessons/{slug}",
            call=f"/api/v1/lessons/{slug}",
        )
        for slug, lesson in lessons().items()
    ]


@router.get("/lessons", include_in_schema=False)
async def lesson_map(request: Request, text: str | None = None, model: str | None = None) -> Response:
    """The lessons in the order of the posts; a text and a model come along."""
    return templating.render(request, "lessons.html", MapPage(sections(), model, text, SERIES))


@router.get("/lessons/symbols", include_in_schema=False)
async def symbols(request: Request) -> Response:
    """What each letter means, here, in the posts and in the book."""
    return templating.render(request, "symbols.html", SymbolsPage())


@router.get("/lessons/{slug}", include_in_schema=False)
async def lesson_page(request: Request, slug: str, engine: EngineDep, client: ClientDep) -> Response:
    """A lesson. Its address is its state, and whatever that says, the page comes and keeps what was typed."""
    if slug not in lessons():
        raise HTTPException(404)
    lesson = lessons()[slug]
    given = request.query_params
    name = given.get("model") or (engine.models.default if engine.models.ready else engine.models.fallback)
    requested_model = ""
    if name in engine.models.entries and not lesson.fits(engine.models.shape(name)[0]):
        requested_model, name = name, engine.models.fallback
    lesson_request, notice = parse_query(lesson, given, name)
    status, result, checks = 422 if notice else 200, None, None
    if not notice and not lesson_request.text:
        notice = templating.EMPTY
    tokens: list[views.TokenFields] = []
    if not notice:
        try:
            tokens, result, _ = await _compute(engine, client, lesson, lesson_request)
            if "prove" in given:
                checks = (await _prove(engine, client, lesson, lesson_request)).checks
        except ModelLoading as error:
            notice = str(error)
        except AppError as error:
            notice, status = str(error), error.status
    order = list(lessons().values())
    place = order.index(lesson)
    page = LessonPage(
        lesson=lesson,
        previous=order[place - 1] if place else None,
        next=order[place + 1] if place + 1 < len(order) else None,
        models=service.model_infos(engine),
        model=name,
        requested_model=requested_model,
        tokens=tokens,
        lesson_request=lesson_request,
        controls=controls(lesson, lesson_request, engine, name),
        panel_kinds=lesson.panel_kinds,
        result=result,
        checks=checks,
        notice=notice,
        curl=curl(lesson, lesson_request, str(request.base_url)),
        plotly=assets.PLOTLY,
        series=SERIES,
    )
    return templating.render(request, f"lessons/{slug}.html", page, status)


def sections() -> dict[str, list[AnyLesson]]:
    """The lessons under their headings."""
    found: dict[str, list[AnyLesson]] = {name: [] for name in SECTIONS}
    for one in lessons().values():
        name = [name for name, first in SECTIONS.items() if one.system >= first][-1]
        found[name].append(one)
    return found


def make_router() -> APIRouter:
    """The routes of all lessons; each has two calls: its numbers, and its checks."""
    made = APIRouter()
    made.include_router(router)
    for slug, lesson in lessons().items():
        call, prove = _calls(lesson)
        reply = type(
            lesson.result_type.__name__,
            (LessonReply, lesson.result_type),
            {"__doc__": lesson.result_type.__doc__, "__module__": __name__},
        )
        title = f"S{lesson.system:02} {lesson.title}"
        path = f"/api/v1/lessons/{slug}"
        for at, function, replies, summary in (
            (path, call, reply, title),
            (f"{path}/checks", prove, Proof, f"{title}: checks"),
        ):
            made.add_api_route(
                at,
                function,
                methods=["POST"],
                tags=["lessons"],
                summary=summary,
                response_model=replies,
                responses=problems.DESCRIBED,
                name=at,
            )
    return made


def _calls(lesson: AnyLesson) -> tuple[Any, Any]:
    """The functions behind a lesson's two calls, each with the lesson's own request in its signature."""

    async def call(request: Any, engine: EngineDep, client: ClientDep) -> Response:
        tokens, result, about = await _compute(engine, client, lesson, request)
        return json_reply({**about, "tokens": tokens, **result})

    async def prove(request: Any, engine: EngineDep, client: ClientDep) -> Proof:
        return await _prove(engine, client, lesson, request)

    for function in (call, prove):
        function.__annotations__["request"] = lesson.request_type
    call.__doc__ = f"{(inspect.getdoc(lesson.compute) or '').strip()} `broken`: {lesson.breaks}."
    prove.__doc__ = inspect.getdoc(lesson.checks)
    return call, prove


async def _compute(
    engine: Engine, client: Client, lesson: AnyLesson, request: LessonRequest
) -> tuple[list[views.TokenFields], dict[str, Any], dict[str, Any]]:
    """The tokens of the text, the parts of the answer, and what they are of."""
    model, tokens = await _read(engine, lesson, request)
    work = engine.compute(model, tokens, lambda trace: lesson.compute(Reading(model, tokens, trace), request))
    result, timings = await client.cancel_on_disconnect(work)
    about = {"model": model.name, "step": model.step, "timings": timings.model_dump()}
    return views.tokens(tokens)["tokens"], result.model_dump(), about


async def _prove(engine: Engine, client: Client, lesson: AnyLesson, request: LessonRequest) -> Proof:
    model, tokens = await _read(engine, lesson, request)
    work = engine.compute(model, tokens, lambda trace: list(lesson.checks(Reading(model, tokens, trace), request)))
    checks, _ = await client.cancel_on_disconnect(work)
    return Proof(model=model.name, step=model.step, checks=checks)


async def _read(engine: Engine, lesson: AnyLesson, request: LessonRequest) -> tuple[Loaded, Tokens]:
    """The tokens of the text, for the model that was asked for; where none was, for one that has what is needed."""
    if request.model is None and not lesson.fits(engine.models.shape(engine.models.default)[0]):
        request = request.model_copy(update={"model": engine.models.fallback})
    model, tokens = await service.model_and_tokens(engine, request)
    if len(tokens) > N_MOST:
        raise TextTooLong(len(tokens), N_MOST, "a lesson", "look at it on the first page")
    if not lesson.fits(model.network.config):
        raise UnsupportedByModel(model.name, lesson.needs, engine.models.fallback)
    check_heads(request, model.network.config, model.name)
    return model, tokens


def parse_query(lesson: AnyLesson, given: QueryParams, model: str) -> tuple[LessonRequest, str]:
    """The request of an address, and what is wrong with that; what is wrong is left out, what was typed stays.

    Where the address names no head, it is one of the model's that is worth a look.
    """
    known = {name: value for name, value in given.items() if name in lesson.request_type.model_fields and value != ""}
    layer, head = pages.FIRST_HEAD.get(model, (0, 0))
    first = {"text": pages.FIRST_TEXT, "layer": layer, "head": head}
    raw: dict[str, Any] = {name: first[name] for name in first if name in lesson.request_type.model_fields} | known
    raw["model"] = model
    raw["text"] = raw["text"].replace("\r\n", "\n")
    for name, field in lesson.request_type.model_fields.items():
        if name in known and get_origin(field.annotation) is list:
            raw[name] = ",".join(given.getlist(name)).split(",")
    try:
        return lesson.request_type.model_validate(raw), ""
    except ValidationError as error:
        wrong = {one["loc"][0] for one in error.errors()}
        kept = {name: value for name, value in raw.items() if name not in wrong} | {"text": pages.FIRST_TEXT}
        corrected = lesson.request_type.model_validate(kept).model_copy(update={"text": raw["text"]})
        return corrected, pages.validation_message(error)


def controls(lesson: AnyLesson, request: LessonRequest, engine: Engine, model: str) -> dict[str, Control]:
    """What a client can change, by the names of the request's fields."""
    shape = engine.models.shape(model)[0] if model in engine.models.entries else None
    last = {"layer": shape.n_layers - 1, "head": shape.n_heads - 1, "heads": shape.n_heads - 1} if shape else {}
    found = {}
    for name, field in lesson.request_type.model_fields.items():
        if name not in COMMON:
            found[name] = _control(name, field, getattr(request, name), last)
    return found


def _control(name: str, field: FieldInfo, value: Any, ends: Mapping[str, int]) -> Control:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    end = ends.get(str(extra.get("kind", name)))
    bounds = {kind: getattr(one, kind) for one in field.metadata for kind in ("ge", "le") if hasattr(one, kind)}
    base = {"name": name, "title": field.title or name, "help": field.description or "", "value": value}
    if get_origin(field.annotation) is Literal:
        return Control(**base, kind="choice", choices=get_args(field.annotation))
    if field.annotation is bool:
        return Control(**base, kind="switch")
    if extra.get("kind") == "token":
        return Control(**base, kind="token", choices=(str(extra.get("empty_label", "the last")),))
    if extra.get("kind") == "sliders":
        limit = float(str(extra.get("limit", 10)))
        names = extra.get("names", [f"z{i}" for i in range(len(value))])
        assert isinstance(names, list)
        return Control(
            **base, kind="sliders", minimum=-limit, maximum=limit, step=0.1, choices=tuple(str(name) for name in names)
        )
    if extra.get("kind") == "heads":
        return Control(**base, kind="heads", maximum=end)
    if field.annotation is str:
        return Control(**base, kind="text")
    if end is not None or "le" not in bounds:
        return Control(**base, kind="number", minimum=0, maximum=end)
    return Control(
        **base,
        kind="range",
        minimum=bounds["ge"],
        maximum=bounds["le"],
        step=step if isinstance(step := extra.get("step"), float | int) else 1,
        playable=bool(extra.get("playable")),
    )


def curl(lesson: AnyLesson, request: LessonRequest, base: str) -> str:
    """The line that asks the same of the server at `base`, for a shell."""
    body = json.dumps(request.model_dump(exclude_defaults=True), ensure_ascii=False).replace("'", "'\\''")
    return f"curl {base}api/v1/lessons/{lesson.slug} --json '{body}'"
