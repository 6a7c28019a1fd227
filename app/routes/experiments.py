"""The lessons and tools, for people and for programs: two calls and one page for all of them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_origin

import orjson
from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from markupsafe import escape
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from app import problems, service, templating, views
from app.engine import Engine, ReadingProgress
from app.errors import AppError, ModelLoading
from app.experiments import run
from app.experiments.base import Experiment, Lesson, PanelInfo, PanelProgress, experiments, lessons, panel_infos
from app.experiments.checks import Check
from app.experiments.controls import Control, Controls, make_controls
from app.experiments.panels import AnyPanel, Panel
from app.lessons.posts import SERIES
from app.routes import assets, pages
from app.routes.api import json_reply
from app.schemas import ModelInfo, Timings, TokenInfo, TokensRequest
from app.service import ClientDep, EngineDep

CALL = "/api/v1/experiments"
NDJSON = "application/x-ndjson"
SECTIONS = {"The mathematics": 1, "From a text to vectors": 9, "Attention, step by step": 13}  # with their first lesson

log = logging.getLogger("lookback")
router = APIRouter()


class ExperimentInfo(BaseModel):
    """An experiment, and its addresses."""

    slug: str = Field(description="its name in addresses")
    title: str
    summary: str = Field(description="what it is about, in one sentence")
    number: str | None = Field(
        description="of a lesson, in the order of the posts; S17 is the first page itself", examples=["S16"]
    )
    page: str = Field(description="address of its page")
    call: str = Field(description="address of its call, for POST")


class PanelDescription(BaseModel):
    """A panel of an experiment, before anything is computed."""

    name: str
    kind: str
    description: str


class ExperimentDescription(ExperimentInfo):
    """An experiment with the fields of its request and the panels of its reply."""

    requirement: str = Field(description="what a model must have; empty if nothing")
    broken: str = Field(description="what is computed wrongly if the request has `broken`; empty for a tool")
    controls: dict[str, Any] = Field(description="JSON schema of the request")
    panels: list[PanelDescription]


class ExperimentRequest(TokensRequest):
    """A text, and the experiment's own controls: `GET /api/v1/experiments/{slug}` has their JSON schema."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"text": "the fat cat", "layer": 0}]})


class ExperimentReply(BaseModel):
    """What every experiment replies."""

    model: str
    step: int | None = Field(description="training step; `null` is the finished model")
    tokens: list[TokenInfo]
    panels: dict[str, Panel] = Field(description="by the names that `GET` gives")
    timings: Timings


class ChecksReply(BaseModel):
    """The checks of an experiment on one text."""

    model: str
    step: int | None
    checks: list[Check]


@dataclass(frozen=True)
class ExperimentPage:
    """The context of an experiment's template."""

    experiment: Experiment
    lesson: Lesson | None  # the same, if it is one
    previous: Lesson | None
    next: Lesson | None
    models: list[ModelInfo]
    model: str
    requested_model: str  # if this experiment needs another model than the requested one; otherwise empty
    tokens: list[views.TokenFields]
    values: Controls  # of the request
    controls: dict[str, Control]
    panel_infos: dict[str, PanelInfo]  # by the names of the panels; known before there is a result
    panels: dict[str, AnyPanel]  # empty while there is nothing to show
    open: list[str]  # the panels whose numbers are shown as a table
    checks: list[Check] | None  # None until they are requested
    notice: str
    page_address: str  # with its query
    curl: str  # a shell command with the same request
    plotly: str
    series: str  # address of the posts


@dataclass(frozen=True)
class LessonsPage:
    """The context of lessons.html."""

    sections: dict[str, list[Lesson]]
    model: str | None
    text: str | None
    series: str


@dataclass(frozen=True)
class ToolsPage:
    """The context of tools.html."""

    tools: list[Experiment]
    model: str | None
    text: str | None


@dataclass(frozen=True)
class SymbolsPage:
    """The context of symbols.html, which needs none."""


@dataclass(frozen=True)
class ChecksPage:
    """The context of the fragment checks.html."""

    checks: list[Check]


def _known(slug: str) -> Experiment:
    """The experiment of an address."""
    if slug not in experiments():
        raise HTTPException(404)
    return experiments()[slug]


KnownExperiment = Annotated[Experiment, Depends(_known)]


def _parse_body(experiment: KnownExperiment, body: Annotated[ExperimentRequest, Body()]) -> Controls:
    """The request of an experiment, checked against its own controls."""
    try:
        return experiment.controls.model_validate(body.model_dump(exclude_unset=True))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


ParsedControls = Annotated[Controls, Depends(_parse_body)]


@router.get(CALL, summary="Lessons and tools", tags=["experiments"])
async def get_experiments() -> list[ExperimentInfo]:
    """All lessons in the order of the posts, then the tools."""
    return [ExperimentInfo(**_info(experiment)) for experiment in experiments().values()]


@router.get(f"{CALL}/{{slug}}", summary="The controls and panels of an experiment", tags=["experiments"])
async def get_experiment(experiment: KnownExperiment) -> ExperimentDescription:
    """What a request of this experiment may contain, as a JSON schema, and what its reply contains."""
    return ExperimentDescription(
        **_info(experiment),
        requirement=experiment.requirement,
        broken=experiment.break_description if isinstance(experiment, Lesson) else "",
        controls=experiment.controls.model_json_schema(),
        panels=[PanelDescription(**vars(info)) for info in panel_infos(experiment.work)],
    )


@router.post(
    f"{CALL}/{{slug}}",
    summary="Run an experiment",
    tags=["experiments"],
    response_model=ExperimentReply,
    responses=problems.DESCRIBED | {200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def post_experiment(
    request: Request, experiment: KnownExperiment, controls: ParsedControls, engine: EngineDep, client: ClientDep
) -> Response:
    """All panels of an experiment for a text.

    With `Accept: application/x-ndjson` they come as they are computed, one JSON value per line: first `model`, `step`
    and `tokens`; then for each panel its `name` and `panel`; in between `progress`; an error as `problem`; at last
    `timings`.
    """
    prepared = await run.prepare(engine, experiment, controls)
    if NDJSON in request.headers.get("accept", ""):
        return StreamingResponse(_lines(engine, prepared), media_type=NDJSON)
    panels, timings = await client.cancel_on_disconnect(run.all_panels(engine, prepared))
    shown = {name: panel.model_dump() for name, panel in panels.items()}
    return json_reply({**_text_fields(prepared), "panels": shown, "timings": timings.model_dump()})


@router.post(
    f"{CALL}/{{slug}}/checks", summary="Check an experiment", tags=["experiments"], responses=problems.DESCRIBED
)
async def post_checks(
    experiment: KnownExperiment, controls: ParsedControls, engine: EngineDep, client: ClientDep
) -> ChecksReply:
    """What must hold for a lesson, measured on a text; with `broken`, one of them fails."""
    prepared = await run.prepare(engine, experiment, controls)
    checks = await client.cancel_on_disconnect(run.all_checks(engine, prepared))
    return ChecksReply(model=prepared.model.name, step=prepared.model.step, checks=checks)


@router.api_route("/api/v2/lessons", methods=["GET"], include_in_schema=False)
@router.api_route("/api/v2/lessons/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
async def moved(rest: str = "") -> Response:
    """The lessons' calls of version 0.1; their replies had the panels beside the other fields."""
    return RedirectResponse(f"{CALL}/{rest}".rstrip("/"), 308)


@router.get("/lessons", include_in_schema=False)
async def lesson_list(request: Request, text: str | None = None, model: str | None = None) -> Response:
    """The lessons in the order of the posts; their links keep the text and the model."""
    return templating.render(request, "lessons.html", LessonsPage(sections(), model, text, SERIES))


@router.get("/tools", include_in_schema=False)
async def tool_list(request: Request, text: str | None = None, model: str | None = None) -> Response:
    """The tools; their links keep the text and the model."""
    tools = [experiment for experiment in experiments().values() if not isinstance(experiment, Lesson)]
    return templating.render(request, "tools.html", ToolsPage(tools, model, text))


@router.get("/lessons/symbols", include_in_schema=False)
async def symbols(request: Request) -> Response:
    """What each letter means, here, in the posts and in the book."""
    return templating.render(request, "symbols.html", SymbolsPage())


@router.get("/lessons/{slug}", include_in_schema=False)
@router.get("/tools/{slug}", include_in_schema=False)
async def experiment_page(
    request: Request, experiment: KnownExperiment, engine: EngineDep, client: ClientDep
) -> Response:
    """An experiment. Its address is its state; whatever that is, the page comes and keeps what was typed."""
    if request.url.path != experiment.page:
        raise HTTPException(404)
    query = request.query_params
    model, requested_model = _choose_model(engine, experiment, query.get("model"))
    values, notice = parse_query(experiment, query, model)
    status = 422 if notice else 200
    if not notice and not values.text and not values.ids:
        notice = templating.EMPTY
    prepared, panels, checks = None, dict[str, AnyPanel](), None
    if not notice:
        try:
            prepared = await run.prepare(engine, experiment, values)
            panels, _ = await client.cancel_on_disconnect(run.all_panels(engine, prepared))
            if "prove" in query:
                checks = await client.cancel_on_disconnect(run.all_checks(engine, prepared))
        except ModelLoading as error:
            notice = str(error)
        except AppError as error:
            notice, status = str(error), error.status
    lesson = experiment if isinstance(experiment, Lesson) else None
    previous, next_lesson = _previous_and_next(lesson)
    page = ExperimentPage(
        experiment=experiment,
        lesson=lesson,
        previous=previous,
        next=next_lesson,
        models=service.model_infos(engine),
        model=model,
        requested_model=requested_model,
        tokens=views.tokens(prepared.work.tokens)["tokens"] if prepared and panels else [],
        values=values,
        controls=make_controls(values, engine.models.shape(model)[0] if model in engine.models.entries else None),
        panel_infos={info.name: info for info in panel_infos(experiment.work)},
        panels=panels,
        open=query.getlist("open"),
        checks=checks,
        notice=notice,
        page_address=f"{request.url.path}?{request.url.query}",
        curl=curl(experiment, values, str(request.base_url)),
        plotly=assets.PLOTLY,
        series=SERIES,
    )
    return templating.render(request, experiment.template, page, status)


@router.post("/fragments/{slug}/panels", include_in_schema=False)
async def panels_fragment(
    experiment: KnownExperiment,
    controls: ParsedControls,
    engine: EngineDep,
    open: Annotated[list[str], Query(default_factory=list)],
) -> Response:
    """The stream of panels for the page, with the tables that are open there."""
    return StreamingResponse(_lines(engine, await run.prepare(engine, experiment, controls), open), media_type=NDJSON)


@router.post("/fragments/{slug}/table", include_in_schema=False)
async def table_fragment(
    experiment: KnownExperiment, controls: ParsedControls, panel: str, engine: EngineDep, client: ClientDep
) -> Response:
    """The numbers of one panel as a table, for the page."""
    if panel not in {info.name for info in panel_infos(experiment.work)}:
        raise HTTPException(404)
    prepared = await run.prepare(engine, experiment, controls)
    panels, _ = await client.cancel_on_disconnect(run.all_panels(engine, prepared, [panel]))
    return HTMLResponse(await _table(panels[panel]))


@router.post("/fragments/{slug}/checks", include_in_schema=False)
async def checks_fragment(
    request: Request, experiment: KnownExperiment, controls: ParsedControls, engine: EngineDep, client: ClientDep
) -> Response:
    """The checks as the items of a list, for the page."""
    prepared = await run.prepare(engine, experiment, controls)
    checks = await client.cancel_on_disconnect(run.all_checks(engine, prepared))
    return templating.render(request, "fragments/checks.html", ChecksPage(checks))


@router.post("/fragments/{slug}/curl", include_in_schema=False)
async def curl_fragment(request: Request, experiment: KnownExperiment, controls: ParsedControls) -> Response:
    """The shell command with this request, for the page."""
    return HTMLResponse(escape(curl(experiment, controls, str(request.base_url))))


async def _lines(engine: Engine, prepared: run.Run, tables: Collection[str] = ()) -> AsyncIterator[bytes]:
    """A run as lines of JSON; the panels in `tables` also as a table."""
    yield _line(_text_fields(prepared))
    timings = None
    try:
        async for event, until_now in run.stream_panels(engine, prepared):
            timings = until_now
            if isinstance(event, ReadingProgress | PanelProgress):
                yield _line({"progress": vars(event)})
            elif isinstance(event, tuple):
                name, panel = event
                table = {"table": await _table(panel)} if name in tables else {}
                yield _line({"name": name, "panel": panel.model_dump(), **table})
        yield _line({"timings": timings.model_dump() if timings else None})
    except AppError as error:
        yield _line({"problem": problems.of_error(error).model_dump(), "retry_after_s": error.retry_after_s})
    except Exception as error:
        log.exception("an experiment failed while it was streamed")
        yield _line({"problem": problems.of_bug(error).model_dump(), "retry_after_s": None})


async def _table(panel: AnyPanel) -> str:
    """The numbers of a panel as a table; in a thread, because with 200 tokens it has 40,000 cells."""
    template = templating.templates().get_template("fragments/table.html")
    return await asyncio.to_thread(template.render, content=panel)


def _line(content: Mapping[str, object]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _text_fields(prepared: run.Run) -> dict[str, object]:
    model = prepared.model
    return {"model": model.name, "step": model.step, "tokens": views.tokens(prepared.work.tokens)["tokens"]}


def _info(experiment: Experiment) -> dict[str, Any]:
    return {
        "slug": experiment.slug,
        "title": experiment.title,
        "summary": experiment.summary,
        "number": f"S{experiment.number:02}" if isinstance(experiment, Lesson) else None,
        "page": experiment.page,
        "call": f"{CALL}/{experiment.slug}",
    }


def sections() -> dict[str, list[Lesson]]:
    """The lessons by the titles of their sections."""
    lessons_of: dict[str, list[Lesson]] = {title: [] for title in SECTIONS}
    for lesson in lessons().values():
        title = [title for title, first in SECTIONS.items() if lesson.number >= first][-1]
        lessons_of[title].append(lesson)
    return lessons_of


def _choose_model(engine: Engine, experiment: Experiment, requested: str | None) -> tuple[str, str]:
    """The model to show, and the requested one if it does not have what the experiment needs."""
    models = engine.models
    model = requested or (models.default if models.ready else models.fallback)
    if model in models.entries and not experiment.is_supported_by(models.shape(model)[0]):
        return models.fallback, model
    return model, ""


def _previous_and_next(lesson: Lesson | None) -> tuple[Lesson | None, Lesson | None]:
    if lesson is None:
        return None, None
    order = list(lessons().values())
    at = order.index(lesson)
    return order[at - 1] if at else None, order[at + 1] if at + 1 < len(order) else None


def parse_query(experiment: Experiment, query: QueryParams, model: str) -> tuple[Controls, str]:
    """The request of an address, and what is wrong with the address; wrong fields get their defaults.

    If the address names no head, it is the head with which the first page begins.
    """
    fields = experiment.controls.model_fields
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
        return experiment.controls.model_validate(raw), ""
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors()}
        valid = {name: value for name, value in raw.items() if name not in wrong} | {"text": pages.FIRST_TEXT}
        corrected = experiment.controls.model_validate(valid).model_copy(update={"text": raw["text"]})
        return corrected, pages.validation_message(error)


def curl(experiment: Experiment, values: Controls, base: str) -> str:
    """A shell command that sends this request to the server at `base`."""
    body = json.dumps(values.model_dump(exclude_defaults=True), ensure_ascii=False).replace("'", "'\\''")
    return f"curl {base.rstrip('/')}{CALL}/{experiment.slug} --json '{body}'"
