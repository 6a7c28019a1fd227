"""The pages for people, and the context that each template may use."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import problems, service
from app.edits import describe
from app.engine import Engine
from app.errors import AppError, ModelLoading, field_message
from app.live.frame import Array
from app.routes import assets
from app.schemas import CurvePoint, ModelInfo, PageRequest, Problem
from app.service import EngineDep
from app.templating import EMPTY, render
from app.views import PredictionFields, TokenFields
from model.edits import Edits
from model.sites import STAGES

FIRST_TEXT = "the fat cat sat on the mat"
# The head to begin with, by model: one in which "cat" attends to "fat", and "mat" does not.
FIRST_HEAD = {"smollm2-135m": (11, 7), "lookback-gpt": (3, 3)}
FIRST_QUERY = 2  # "cat"
FIRST_TEXT_OF_TRAINING = "the fat cat sat on the mat, and the fat cat"  # its end can be predicted from its beginning
FIRST_HEAD_OF_TRAINING = {"lookback-gpt": (1, 1)}  # an induction head
EXAMPLES = (
    FIRST_TEXT,
    "The keys to the cabinet are on the table",
    "When Mary and John went to the store, John gave a drink to",
    "one two three four one two three",
    "def add(a, b):\n    return a + b",
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Row:
    """One key of the chosen query: the numbers of one cell, stage by stage."""

    position: int
    text: str
    score: float
    scaled: float
    masked: float | None
    weight: float


class ShownToken(TokenFields):
    """A token as a page shows it."""

    split: str  # the characters that it shares with its neighbours, as `split_characters` describes them


@dataclass(frozen=True)
class ShownEdit:
    """An edit as a page shows it."""

    text: str  # as an address has it
    words: str
    without: str | None  # the edits without this one; None if none is left


@dataclass(frozen=True)
class PageResult:
    """What the page shows of a text before any script runs."""

    tokens: list[ShownToken]
    dropped: list[str]  # characters that are not in the vocabulary, described
    edits: list[ShownEdit]
    query: int
    rows: list[Row]
    prediction: PredictionFields
    computed_ms: float


@dataclass(frozen=True)
class PageState:
    """The state of a page, all of which is in its address. Values that are no numbers are still as they were typed."""

    text: str
    model: str  # the name of the chosen model, which may not exist
    step: int | str | None  # of the model's training; None is the finished model
    layer: int | str
    head: int | str
    query: int | str | None  # None follows the last token
    stage: str
    edits: str  # as an address has them; empty for none


@dataclass(frozen=True)
class Page(PageState):
    """What the pages with a text have in common: their state, and the result."""

    models: list[ModelInfo]
    stages: tuple[str, ...]
    examples: tuple[str, ...]
    plotly: str  # address of Plotly's script
    result: PageResult | None  # None while there is nothing to show
    notice: str  # an error, or that the model is loading; empty if all is well


@dataclass(frozen=True)
class HomePage(Page):
    """The context of home.html."""

    fallback_for: str  # the default model, if another one is shown until it is ready; otherwise empty
    waiting_for: str  # what the default model is waiting for


@dataclass(frozen=True)
class TrainingPage(Page):
    """The context of training.html."""

    steps: list[tuple[int | None, CurvePoint | None]]  # of the training, each with its losses if they are known
    shipped: str  # a model that has such steps
    run: str  # the state of a training run in progress; empty if there is none


@dataclass(frozen=True)
class DocsPage:
    """The context of docs.html."""

    swagger: tuple[str, str]  # addresses of its script and its style sheet


@dataclass(frozen=True)
class ProblemPage:
    """The context of problem.html: what a `type` of an error means."""

    title: str
    meaning: str
    status: int | str


@dataclass(frozen=True)
class ErrorPage:
    """The context of error.html."""

    problem: Problem
    path: str
    text: str | None  # what was typed


@dataclass(frozen=True)
class PageQuery:
    """The query of an address; a field that is absent has the default of its page."""

    text: str | None = None
    model: str | None = None
    step: str = ""
    layer: str = ""
    head: str = ""
    query: str = ""
    stage: str = "weights"
    edits: str = ""

    def state(self, *, text: str, model: str, query: int | None, heads: Mapping[str, tuple[int, int]]) -> PageState:
        """The state of the page.

        `text` is the default text, `query` the token to begin with if the text is the default, and `heads` the head to
        begin with, by model.
        """
        first_layer, first_head = heads.get(model, (0, 0))
        return PageState(
            # without scripts, a form sends \r\n for each line end of its text box, which itself contains \n
            text=text if self.text is None else self.text.replace("\r\n", "\n"),
            model=model,
            step=_to_number(self.step) if self.step else None,
            layer=_to_number(self.layer) if self.layer else first_layer,
            head=_to_number(self.head) if self.head else first_head,
            query=_to_number(self.query) if self.query else query if self.text is None else None,
            stage=self.stage,
            edits=self.edits,
        )


PageQueryDep = Annotated[PageQuery, Depends()]


@router.get("/")
async def home(request: Request, engine: EngineDep, query: PageQueryDep) -> Response:
    """The page of all heads. Even for an invalid address there is a page, which keeps what was typed.

    While the default model is not ready, the model that came with the app is shown instead, and the page says so.
    """
    models = engine.models
    uses_fallback = not query.model and not models.ready and models.entries[models.fallback].loaded is not None
    name = query.model or (models.fallback if uses_fallback else models.default)
    state = query.state(text=FIRST_TEXT, model=name, query=FIRST_QUERY, heads=FIRST_HEAD)
    shared, status = await _page(engine, state)
    fallback_for = models.default if uses_fallback else ""
    page = HomePage(**vars(shared), fallback_for=fallback_for, waiting_for=models.waiting_for)
    return render(request, "home.html", page, status)


@router.get("/training")
async def training(request: Request, engine: EngineDep, query: PageQueryDep) -> Response:
    """A model through its training.

    It opens on the default model if that has saved steps of its training, else on the one that came with the app.
    """
    models = engine.models
    own = await service.training_history(engine, models.default)
    name = query.model or (models.default if len(own.steps) > 1 else models.fallback)
    state = query.state(text=FIRST_TEXT_OF_TRAINING, model=name, query=None, heads=FIRST_HEAD_OF_TRAINING)
    shared, status = await _page(engine, state)
    is_known = name in models.entries
    history = await service.training_history(engine, name) if is_known else service.TrainingHistory([], [], 0)
    points: dict[int | None, CurvePoint] = {point.step: point for point in history.curve}
    page = TrainingPage(
        **vars(shared),
        steps=[(step, points.get(step)) for step in history.steps],
        shipped=models.fallback,
        run=models.entries[name].run_status if is_known else "",
    )
    return render(request, "training.html", page, status)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The JSON API in Swagger UI, which comes from a Python package, not from a CDN."""
    return render(request, "docs.html", DocsPage(assets.SWAGGER))


@router.get("/problems/{slug}")
async def problem(request: Request, slug: str) -> Response:
    """What a `type` of an error means."""
    for error in descendants(AppError):
        if error.slug() == slug:
            return render(request, "problem.html", ProblemPage(error.title, error.__doc__ or "", error.status))
    if slug in problems.MEANINGS:
        return render(request, "problem.html", ProblemPage(*problems.MEANINGS[slug]))
    raise HTTPException(404)


def error_page(request: Request, problem: Problem) -> Response:
    """What a person sees of an error: what is wrong, what to do, and what was typed."""
    page = ErrorPage(problem, request.url.path, request.query_params.get("text"))
    return render(request, "error.html", page, problem.status)


async def _page(engine: Engine, state: PageState) -> tuple[Page, int]:
    """What both pages show in this state, and the status of the reply."""
    result, notice, status = await _result(engine, state)
    models = service.model_infos(engine)
    page = Page(
        **vars(state),
        models=models,
        stages=STAGES,
        examples=EXAMPLES,
        plotly=assets.PLOTLY,
        result=result,
        notice=notice,
    )
    return page, status


async def _result(engine: Engine, state: PageState) -> tuple[PageResult | None, str, int]:
    """The result for the text, a notice, and the status of the reply."""
    if not state.text:
        return None, EMPTY, 200  # nothing is wrong: there is no text yet
    try:
        request = PageRequest.model_validate(asdict(state))
        given = await service.model_input(engine, request)
        frame, timings = await service.compute_page(engine, given, request, overview=False)
    except ModelLoading as error:
        return None, str(error), 200  # the page is right; it only has to wait
    except AppError as error:
        return None, str(error), error.status
    except ValidationError as error:
        return None, validation_message(error), 422
    header, arrays = frame
    split = split_characters(header["tokens"], state.text)
    result = PageResult(
        tokens=[{**token, "split": words} for token, words in zip(header["tokens"], split, strict=True)],
        edits=_shown_edits(given.edits),
        dropped=[f"U+{ord(drop['text']):04X} (character {drop['start']})" for drop in header["dropped"]],
        query=header["query"],
        rows=_rows(header["tokens"], header["query"], arrays),
        prediction=header["prediction"],
        computed_ms=timings.computed_ms,
    )
    return result, "", 200


def _shown_edits(edits: Edits) -> list[ShownEdit]:
    texts = [str(change) for change in edits.changes]
    return [
        ShownEdit(text, describe(change), ",".join(texts[:at] + texts[at + 1 :]) or None)
        for at, (text, change) in enumerate(zip(texts, edits.changes, strict=True))
    ]


def _rows(tokens: Sequence[TokenFields], query: int, arrays: Mapping[str, Array]) -> list[Row]:
    masked = arrays.get("row_masked", np.where(np.arange(len(tokens)) <= query, arrays["row_scaled"], -np.inf))
    return [
        Row(
            position=token["position"],
            text=token["text"],
            score=float(arrays["row_scores"][key]),
            scaled=float(arrays["row_scaled"][key]),
            masked=float(masked[key]) if np.isfinite(masked[key]) else None,
            weight=float(arrays["row_weights"][key]),
        )
        for key, token in enumerate(tokens)
    ]


def split_characters(tokens: Sequence[TokenFields], text: str) -> list[str]:
    """For each token, the characters of which it contains only a part, in words; empty for most tokens.

    >>> token = {"position": 0, "id": 0, "text": "", "bytes": ""}
    >>> tokens = [token | {"start": start, "end": end} for start, end in ((0, 2), (1, 2), (2, 3))]
    >>> split_characters(tokens, "a猫b")[1]
    '\u2068猫\u2069 (character 1)'
    """
    overlaps = [token["end"] > after["start"] for token, after in pairwise(tokens)]
    words = []
    overlaps_previous, overlaps_next = [False, *overlaps], [*overlaps, False]
    for token, splits_first, splits_last in zip(tokens, overlaps_previous, overlaps_next, strict=True):
        shared = {*([token["start"]] if splits_first else []), *([token["end"] - 1] if splits_last else [])}
        words.append(" and ".join(f"\u2068{text[at]}\u2069 (character {at})" for at in sorted(shared)))
    return words


def validation_message(error: ValidationError) -> str:
    """What is wrong with a request, in words."""
    return "; ".join(map(field_message, error.errors()))


def descendants(kind: type[AppError]) -> list[type[AppError]]:
    """All classes of errors below this one."""
    return [error for child in kind.__subclasses__() for error in (child, *descendants(child))]


def _to_number(value: str) -> int | str:
    """A number of the address; anything else is left for the request's own validation to refuse."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 8 else value
