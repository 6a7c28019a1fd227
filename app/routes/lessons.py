"""The lessons, for people and for programs: the list, one page for each, its numbers and its checks."""

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, get_origin

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import problems, service, templating, views
from app.engine import Engine
from app.errors import AppError, ModelLoading, TextTooLong, UnsupportedByModel
from app.lessons.checks import Check
from app.lessons.controls import Control, make_controls
from app.lessons.lesson import AnyLesson, LessonRequest, LessonResult, Reading, check_request_heads, lessons
from app.lessons.posts import SERIES
from app.models import LoadedModel, ModelInput
from app.routes import assets, pages
from app.routes.api import json_reply
from app.schemas import ModelInfo, Timings, TokenInfo
from app.service import Client, ClientDep, EngineDep
from model.tokenizer import Tokens
from model.trace import Trace

MAX_LESSON_TOKENS = 256  # pictures of more cannot be read, and their computation would delay other clients
SECTIONS = {"The mathematics": 1, "From a text to vectors": 9, "Attention, step by step": 13}  # with their first system

router = APIRouter()


@dataclass(frozen=True)
class LessonPage:
    """The context of a lesson's template."""

    lesson: AnyLesson
    previous: AnyLesson | None
    next: AnyLesson | None
    models: list[ModelInfo]
    model: str
    requested_model: str  # if this lesson needs another model than the requested one; otherwise empty
    tokens: list[views.TokenFields]
    lesson_request: LessonRequest  # of the result
    controls: dict[str, Control]
    panel_kinds: dict[str, str]  # by the names of the panels; known before there is a result
    result: dict[str, object] | None  # None while there is nothing to show
    checks: list[Check] | None  # None until they are requested
    notice: str
    curl: str  # a shell command with the same request
    plotly: str
    series: str  # address of the posts


@dataclass(frozen=True)
class LessonsPage:
    """The context of lessons.html."""

    sections: dict[str, list[AnyLesson]]
    model: str | None
    text: str | None
    series: str


@dataclass(frozen=True)
class SymbolsPage:
    """The context of symbols.html, which needs none."""


class LessonInfo(BaseModel):
    """A lesson, and its addresses."""

    number: str = Field(description="in the order of the posts; S17 is the first page itself", examples=["S16"])
    slug: str = Field(description="its name in addresses")
    title: str
    summary: str = Field(description="what it is about, in one sentence")
    page: str = Field(description="address of its page")
    call: str = Field(description="address of its call, for POST")


class LessonReply(BaseModel):
    """What every lesson's reply has besides its panels."""

    model: str
    step: int | None = Field(description="training step; `null` is the finished model")
    tokens: list[TokenInfo]
    timings: Timings


class ChecksReply(BaseModel):
    """The checks of a lesson on one text."""

    model: str
    step: int | None
    checks: list[Check]


class Computed(NamedTuple):
    """The result of a lesson, and what it was computed from."""

    model: LoadedModel
    tokens: Tokens
    result: LessonResult
    timings: Timings


@router.get("/api/v2/lessons", summary="Lessons", tags=["lessons"])
async def get_lessons() -> list[LessonInfo]:
    """All lessons in the order of the posts."""
    return [
        LessonInfo(
            number=f"S{lesson.number:02}",
            slug=slug,
            title=lesson.title,
            summary=lesson.summary,
            page=f"/lessons/{slug}",
            call=f"/api/v2/lessons/{slug}",
        )
        for slug, lesson in lessons().items()
    ]


@router.get("/lessons", include_in_schema=False)
async def lesson_list(request: Request, text: str | None = None, model: str | None = None) -> Response:
    """The lessons in the order of the posts; their links keep the text and the model."""
    return templating.render(request, "lessons.html", LessonsPage(sections(), model, text, SERIES))


@router.get("/lessons/symbols", include_in_schema=False)
async def symbols(request: Request) -> Response:
    """What each letter means, here, in the posts and in the book."""
    return templating.render(request, "symbols.html", SymbolsPage())


@router.get("/lessons/{slug}", include_in_schema=False)
async def lesson_page(request: Request, slug: str, engine: EngineDep, client: ClientDep) -> Response:
    """A lesson. Its address is its state; whatever that is, the page comes and keeps what was typed."""
    if slug not in lessons():
        raise HTTPException(404)
    lesson = lessons()[slug]
    query = request.query_params
    model, requested_model = _choose_model(engine, lesson, query.get("model"))
    lesson_request, notice = parse_query(lesson, query, model)
    status = 422 if notice else 200
    if not notice and not lesson_request.text:
        notice = templating.EMPTY
    computed, checks = None, None
    if not notice:
        try:
            computed = await _compute(engine, client, lesson, lesson_request)
            if "prove" in query:
                checks = (await _check(engine, client, lesson, lesson_request)).checks
        except ModelLoading as error:
            notice = str(error)
        except AppError as error:
            notice, status = str(error), error.status
    previous, next_lesson = _previous_and_next(lesson)
    page = LessonPage(
        lesson=lesson,
        previous=previous,
        next=next_lesson,
        models=service.model_infos(engine),
        model=model,
        requested_model=requested_model,
        tokens=views.tokens(computed.tokens)["tokens"] if computed else [],
        lesson_request=lesson_request,
        controls=make_controls(
            lesson, lesson_request, engine.models.shape(model)[0] if model in engine.models.entries else None
        ),
        panel_kinds=lesson.panel_kinds,
        result=computed.result.model_dump() if computed else None,
        checks=checks,
        notice=notice,
        curl=curl(lesson, lesson_request, str(request.base_url)),
        plotly=assets.PLOTLY,
        series=SERIES,
    )
    return templating.render(request, f"lessons/{slug}.html", page, status)


def sections() -> dict[str, list[AnyLesson]]:
    """The lessons by the titles of their sections."""
    lessons_of: dict[str, list[AnyLesson]] = {title: [] for title in SECTIONS}
    for lesson in lessons().values():
        title = [title for title, first in SECTIONS.items() if lesson.number >= first][-1]
        lessons_of[title].append(lesson)
    return lessons_of


def make_router() -> APIRouter:
    """The routes of all lessons: the pages, and two calls for each lesson, its numbers and its checks."""
    lesson_router = APIRouter()
    lesson_router.include_router(router)
    for slug, lesson in lessons().items():
        compute, check = _calls(lesson)
        reply = type(
            lesson.result_type.__name__,
            (LessonReply, lesson.result_type),
            {"__doc__": lesson.result_type.__doc__, "__module__": __name__},
        )
        title = f"S{lesson.number:02} {lesson.title}"
        path = f"/api/v2/lessons/{slug}"
        for address, call, reply_type, summary in (
            (path, compute, reply, title),
            (f"{path}/checks", check, ChecksReply, f"{title}: checks"),
        ):
            lesson_router.add_api_route(
                address,
                call,
                methods=["POST"],
                tags=["lessons"],
                summary=summary,
                response_model=reply_type,
                responses=problems.DESCRIBED,
                name=address,
            )
    return lesson_router


Call = Callable[[LessonRequest, Engine, Client], Awaitable[Response | ChecksReply]]


def _calls(lesson: AnyLesson) -> tuple[Call, Call]:
    """The functions of a lesson's two calls, each with the type of the lesson's own request in its signature."""

    async def compute(request: LessonRequest, engine: EngineDep, client: ClientDep) -> Response:
        model, tokens, result, timings = await _compute(engine, client, lesson, request)
        fields = {"model": model.name, "step": model.step, "timings": timings.model_dump()}
        return json_reply({**fields, "tokens": views.tokens(tokens)["tokens"], **result.model_dump()})

    async def check(request: LessonRequest, engine: EngineDep, client: ClientDep) -> ChecksReply:
        return await _check(engine, client, lesson, request)

    for call in (compute, check):
        call.__annotations__["request"] = lesson.request_type
    compute.__doc__ = f"{(inspect.getdoc(lesson.compute) or '').strip()} `broken`: {lesson.break_description}."
    check.__doc__ = inspect.getdoc(lesson.checks)
    return compute, check


async def _compute(engine: Engine, client: Client, lesson: AnyLesson, request: LessonRequest) -> Computed:
    model, tokens, edits, _ = await _read(engine, lesson, request)

    def view(trace: Trace) -> LessonResult:
        return lesson.compute(Reading(model, tokens, trace), request)

    work = engine.compute(model, tokens, view, edits=edits)
    result, timings = await client.cancel_on_disconnect(work)
    return Computed(model, tokens, result, timings)


async def _check(engine: Engine, client: Client, lesson: AnyLesson, request: LessonRequest) -> ChecksReply:
    model, tokens, edits, _ = await _read(engine, lesson, request)

    def view(trace: Trace) -> list[Check]:
        return list(lesson.checks(Reading(model, tokens, trace), request))

    work = engine.compute(model, tokens, view, edits=edits)
    checks, _ = await client.cancel_on_disconnect(work)
    return ChecksReply(model=model.name, step=model.step, checks=checks)


async def _read(engine: Engine, lesson: AnyLesson, request: LessonRequest) -> ModelInput:
    """The input of the requested model, or if none is requested of one that has what the lesson needs."""
    if request.model is None and not lesson.is_supported_by(engine.models.shape(engine.models.default)[0]):
        request = request.model_copy(update={"model": engine.models.fallback})
    given = await service.model_input(engine, request)
    model, tokens, *_ = given
    if len(tokens) > MAX_LESSON_TOKENS:
        raise TextTooLong(len(tokens), MAX_LESSON_TOKENS, "a lesson", "open it on the first page")
    if not lesson.is_supported_by(model.network.config):
        raise UnsupportedByModel(model.name, lesson.requirement, engine.models.fallback)
    check_request_heads(request, model)
    return given


def _choose_model(engine: Engine, lesson: AnyLesson, requested: str | None) -> tuple[str, str]:
    """The model to show, and the requested one if it does not have what the lesson needs."""
    models = engine.models
    model = requested or (models.default if models.ready else models.fallback)
    if model in models.entries and not lesson.is_supported_by(models.shape(model)[0]):
        return models.fallback, model
    return model, ""


def _previous_and_next(lesson: AnyLesson) -> tuple[AnyLesson | None, AnyLesson | None]:
    order = list(lessons().values())
    at = order.index(lesson)
    return order[at - 1] if at else None, order[at + 1] if at + 1 < len(order) else None


def parse_query(lesson: AnyLesson, query: QueryParams, model: str) -> tuple[LessonRequest, str]:
    """The request of an address, and what is wrong with the address; wrong fields get their defaults.

    If the address names no head, it is the head with which the first page begins.
    """
    fields = lesson.request_type.model_fields
    known = {name: value for name, value in query.items() if name in fields and value != ""}
    layer, head = pages.FIRST_HEAD.get(model, (0, 0))
    defaults = {"text": pages.FIRST_TEXT, "layer": layer, "head": head}
    raw: dict[str, object] = {name: value for name, value in defaults.items() if name in fields} | known
    raw["model"] = model
    raw["text"] = known.get("text", pages.FIRST_TEXT).replace("\r\n", "\n")
    for name, field in fields.items():
        if name in known and get_origin(field.annotation) is list:
            raw[name] = ",".join(query.getlist(name)).split(",")
    try:
        return lesson.request_type.model_validate(raw), ""
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors()}
        valid = {name: value for name, value in raw.items() if name not in wrong} | {"text": pages.FIRST_TEXT}
        corrected = lesson.request_type.model_validate(valid).model_copy(update={"text": raw["text"]})
        return corrected, pages.validation_message(error)


def curl(lesson: AnyLesson, request: LessonRequest, base: str) -> str:
    """A shell command that sends this request to the server at `base`."""
    body = json.dumps(request.model_dump(exclude_defaults=True), ensure_ascii=False).replace("'", "'\\''")
    return f"curl {base}api/v2/lessons/{lesson.slug} --json '{body}'"
