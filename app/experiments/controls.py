"""The controls of an experiment: what a field of its request is, said once.

A field is annotated with one of the functions below, for example

    temperature: Annotated[float, Slider(0.1, 5, 0.1, "Temperature", "divides the logits")] = 1.0

and its bounds, its part of the form, of the address and of the JSON schema, and its tests follow from that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from app.schemas import TokensRequest
from model.config import Config

MAX_INDEX = 1_000_000  # of layers, heads and positions; more is a typing error
MAX_HEADS = 256  # of one set

ControlKind = Literal["range", "number", "choice", "switch", "token", "sliders", "text", "layer", "head", "heads"]


class Controls(TokensRequest):
    """The fields of every experiment's request: a text, a model, and whether to compute wrongly."""

    broken: bool = Field(False, title="Break it", description="compute it wrongly on purpose, so that a check fails")


SHARED_FIELDS = frozenset(Controls.model_fields)  # of all experiments; they are no controls of their own


def _control(
    kind: ControlKind, title: str, help: str, extra: Mapping[str, Any] | None = None, **bounds: float
) -> FieldInfo:
    """The pydantic field of a control; its kind and what has no bound go into the JSON schema."""
    extra = {"kind": kind, **(extra or {})}
    return cast("FieldInfo", Field(title=title, description=help or None, json_schema_extra=extra, **bounds))  # type: ignore[call-overload]


def Slider(low: float, high: float, step: float, title: str, help: str = "", *, playable: bool = False) -> FieldInfo:
    """A number between two bounds; `playable` adds a button that moves it from the lowest to the highest."""
    return _control("range", title, help, {"step": step, "playable": playable}, ge=low, le=high)


def NumberField(title: str, help: str = "", *, low: float = 0, high: float = MAX_INDEX) -> FieldInfo:
    """A number that is typed, because its upper bound is not known or too large for a slider."""
    return _control("number", title, help, ge=low, le=high)


def Sliders(limit: float, title: str, help: str = "", *, names: Sequence[str] = (), most: int = 20) -> FieldInfo:
    """A list of numbers between -limit and limit, one slider for each; with `names`, just as many, else 2 to `most`."""
    fewest, most = (len(names), len(names)) if names else (2, most)
    extra = {"limit": limit, "names": [*names]}
    return _control("sliders", title, help, extra, min_length=fewest, max_length=most)


def Choice(title: str, help: str = "") -> FieldInfo:
    """One of a few names: the field is a `Literal`."""
    return _control("choice", title, help)


def Switch(title: str, help: str = "") -> FieldInfo:
    """On or off: the field is a `bool`."""
    return _control("switch", title, help)


def ShortText(title: str, help: str = "", *, max_length: int = 2000) -> FieldInfo:
    """A text beside the one that is read: the field is a `Text`."""
    return _control("text", title, help, max_length=max_length)


def TokenOf(title: str, help: str = "", *, when_none: str = "the last") -> FieldInfo:
    """A token of the text by its position: the field is an `int | None`; `when_none` says what None means."""
    return _control("token", title, help, {"when_none": when_none}, ge=0, le=MAX_INDEX)


def Layer(title: str = "Layer", help: str = "") -> FieldInfo:
    """A layer of the model."""
    return _control("layer", title, help, ge=0, le=MAX_INDEX)


def HeadOf(title: str = "Head", help: str = "") -> FieldInfo:
    """A head of a layer."""
    return _control("head", title, help, ge=0, le=MAX_INDEX)


def HeadSet(title: str, help: str = "") -> FieldInfo:
    """Some heads of a layer: the field is a `list[Index]`."""
    return _control("heads", title, help, max_length=MAX_HEADS)


@dataclass(frozen=True)
class Control:
    """An input of the page that sets one field of the request."""

    name: str
    title: str
    help: str
    kind: ControlKind
    value: object  # of the field; its type depends on the kind
    minimum: float | None = None
    maximum: float | None = None  # None if there is no bound to show
    step: float = 1
    choices: tuple[str, ...] = ()  # of a token: the label of None; of sliders: their names
    playable: bool = False


def control_fields(controls: type[Controls]) -> dict[str, FieldInfo]:
    """The fields of an experiment that are controls of its own, by their names."""
    return {name: field for name, field in controls.model_fields.items() if name not in SHARED_FIELDS}


def make_controls(values: Controls, config: Config | None) -> dict[str, Control]:
    """The inputs of a page with the values of a request, by their names; `config` limits layers and heads."""
    return {
        name: _make_control(name, field, getattr(values, name), config)
        for name, field in control_fields(type(values)).items()
    }


def kind_of(field: FieldInfo) -> ControlKind:
    """What a field is."""
    return cast("ControlKind", _extra(field)["kind"])


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    assert isinstance(field.json_schema_extra, dict), f"{field.title or field} is annotated with no control"
    return field.json_schema_extra


def _make_control(name: str, field: FieldInfo, value: object, config: Config | None) -> Control:
    extra, kind = _extra(field), kind_of(field)
    bounds = {key: getattr(bound, key) for bound in field.metadata for key in ("ge", "le") if hasattr(bound, key)}
    minimum, maximum = bounds.get("ge"), bounds.get("le")
    if kind in ("layer", "head", "heads"):
        n = None if config is None else config.n_layers if kind == "layer" else config.n_heads
        minimum, maximum = 0, None if n is None else n - 1
    elif kind == "sliders":
        minimum, maximum = -extra["limit"], extra["limit"]
    return Control(
        name=name,
        title=field.title or name,
        help=field.description or "",
        kind=kind,
        value=value,
        minimum=minimum,
        maximum=None if maximum == MAX_INDEX else maximum,
        step=extra.get("step", 0.1 if kind == "sliders" else 1),
        choices=_choices(kind, field, value),
        playable=extra.get("playable", False),
    )


def _choices(kind: ControlKind, field: FieldInfo, value: object) -> tuple[str, ...]:
    if kind == "choice":
        return get_args(field.annotation)
    if kind == "token":
        return (_extra(field)["when_none"],)
    if kind == "sliders":
        assert isinstance(value, Sequence)
        return tuple(_extra(field)["names"] or (f"z{i}" for i in range(len(value))))
    return ()


def chosen_heads(values: Controls) -> tuple[list[int], list[int]]:
    """The layers and the heads that a request names in any of its controls, even in one that is not used."""
    indices: dict[str, list[int]] = {"layer": [], "head": []}
    for name, field in control_fields(type(values)).items():
        value: int | Iterable[int] | None = getattr(values, name)
        kind = kind_of(field)
        if kind in ("layer", "head", "heads") and value is not None:
            indices[kind.removesuffix("s")] += [value] if isinstance(value, int) else value
    return indices["layer"], indices["head"]
