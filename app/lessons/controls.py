"""The controls of a lesson's page, made from the fields of its request: their types, limits and titles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args, get_origin

from pydantic.fields import FieldInfo

from app.lessons.lesson import AnyLesson, LessonRequest
from model.config import Config

SHARED_FIELDS = frozenset(LessonRequest.model_fields)  # of all lessons; they are no controls of their own


@dataclass(frozen=True)
class Control:
    """An input of the page that sets one field of the request."""

    name: str
    title: str
    help: str
    kind: Literal["range", "number", "choice", "switch", "token", "sliders", "text", "heads"]
    value: object  # of the field; its type depends on the kind
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None  # of a slider
    choices: tuple[str, ...] = ()  # of a token: the label of the empty option; of sliders: their names
    playable: bool = False  # whether it can be animated from the minimum to the maximum


class _Common(TypedDict):
    name: str
    title: str
    help: str
    value: object


def make_controls(lesson: AnyLesson, request: LessonRequest, config: Config | None) -> dict[str, Control]:
    """The controls of a lesson with the values of a request, by their names; `config` limits layers and heads."""
    last = {"layer": config.n_layers - 1, "head": config.n_heads - 1, "heads": config.n_heads - 1} if config else {}
    return {
        name: _control(name, field, getattr(request, name), last)
        for name, field in lesson.request_type.model_fields.items()
        if name not in SHARED_FIELDS
    }


def _control(name: str, field: FieldInfo, value: object, last: Mapping[str, int]) -> Control:
    extra: Mapping[str, object] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    common = _Common(name=name, title=field.title or name, help=field.description or "", value=value)
    maximum = last.get(str(extra.get("kind", name)))
    if get_origin(field.annotation) is Literal:
        return Control(**common, kind="choice", choices=get_args(field.annotation))
    if field.annotation is bool:
        return Control(**common, kind="switch")
    if extra.get("kind") == "token":
        return Control(**common, kind="token", choices=(str(extra.get("empty_label", "the last")),))
    if extra.get("kind") == "sliders":
        return _sliders(common, extra)
    if extra.get("kind") == "heads":
        return Control(**common, kind="heads", maximum=maximum)
    if field.annotation is str:
        return Control(**common, kind="text")
    limits = {key: getattr(bound, key) for bound in field.metadata for key in ("ge", "le") if hasattr(bound, key)}
    if maximum is not None or "le" not in limits:
        return Control(**common, kind="number", minimum=0, maximum=maximum)
    return Control(
        **common,
        kind="range",
        minimum=limits["ge"],
        maximum=limits["le"],
        step=step if isinstance(step := extra.get("step"), float | int) else 1,
        playable=bool(extra.get("playable")),
    )


def _sliders(common: _Common, extra: Mapping[str, object]) -> Control:
    """One slider for each number of a list."""
    limit = float(str(extra.get("limit", 10)))
    assert isinstance(common["value"], Sequence)
    names = extra.get("names", [f"z{i}" for i in range(len(common["value"]))])
    assert isinstance(names, list)
    return Control(**common, kind="sliders", minimum=-limit, maximum=limit, step=0.1, choices=tuple(map(str, names)))
