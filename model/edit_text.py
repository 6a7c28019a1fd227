"""Edits as they are written in an address or a request: `scale:3.5:0,cut:11.7:2>1`. `str` of Edits is the way back."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from model.config import Config
from model.edits import (
    DROP_TARGETS,
    Change,
    Cut,
    Drop,
    Edit,
    Edits,
    NoMask,
    Temperature,
    Values,
    check_on_model,
)

# How each kind of edit is written. LAYER, HEAD and positions count from 0.
SYNTAX = {
    "scale": "scale:LAYER.HEAD:FACTOR",
    "cut": "cut:LAYER.HEAD:QUERY>KEY",
    "steer": "steer:LAYER:NAME:STRENGTH",
    "temperature": "temperature:LAYER.HEAD:VALUE",
    "nomask": "nomask:LAYER.HEAD",
    "drop": "drop:TARGET:RATE:SEED",
}

Directions = Callable[[str], Values]  # the vector of a name; raises a ValueError for a name that it does not know


def read_edits(text: str, config: Config, directions: Directions) -> Edits:
    """The edits that a text names; `directions` finds the vector that a `steer` names.

    Raises:
        ValueError: naming the piece that is wrong, as written, and what is right.
    """
    changes: list[Change] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            change = _parse_piece(piece, directions)
            check_on_model(change, config)
        except ValueError as error:
            raise ValueError(f"edit {piece!r}: {error}") from error
        changes.append(change)
    return Edits(tuple(changes))


def _parse_piece(piece: str, directions: Directions) -> Change:
    kind, *fields = piece.split(":")
    if kind not in SYNTAX:
        raise ValueError(f"an edit is one of {', '.join(SYNTAX.values())}")
    if len(fields) != SYNTAX[kind].count(":"):
        raise ValueError(f"write {SYNTAX[kind]}")
    try:
        return _PARSERS[kind](fields, directions)
    except _Unreadable as error:
        raise ValueError(f"{error}; write {SYNTAX[kind]}") from error


class _Unreadable(ValueError):
    """A part of an edit that is not written as SYNTAX says."""


def _parse_scale(fields: Sequence[str], _: Directions) -> Change:
    layer, heads = _place(fields[0])
    return Edit("context", layer, heads, scale=_float(fields[1]))


def _parse_cut(fields: Sequence[str], _: Directions) -> Change:
    layer, heads = _place(fields[0])
    query, arrow, key = fields[1].partition(">")
    if heads is None or not arrow:
        raise _Unreadable("a cut names one head, one query and one key")
    return Cut(layer, heads[0], _integer(query), _integer(key))


def _parse_steer(fields: Sequence[str], directions: Directions) -> Change:
    layer, name, strength = _integer(fields[0]), fields[1], _float(fields[2])
    vector = directions(name)
    return Edit("block", layer, add=replace(vector, name=name, strength=vector.strength * strength))


def _parse_temperature(fields: Sequence[str], _: Directions) -> Change:
    return Temperature(*_place_or_all(fields[0]), _float(fields[1]))


def _parse_nomask(fields: Sequence[str], _: Directions) -> Change:
    return NoMask(*_place_or_all(fields[0]))


def _parse_drop(fields: Sequence[str], _: Directions) -> Change:
    target = {name: name for name in DROP_TARGETS}.get(fields[0])  # type: ignore[call-overload]
    if target is None:
        raise _Unreadable(f"{fields[0]!r} cannot be dropped; {', '.join(DROP_TARGETS)} can")
    return Drop(target, None, _float(fields[1]), _integer(fields[2]))


_PARSERS: dict[str, Callable[[Sequence[str], Directions], Change]] = {
    "scale": _parse_scale,
    "cut": _parse_cut,
    "steer": _parse_steer,
    "temperature": _parse_temperature,
    "nomask": _parse_nomask,
    "drop": _parse_drop,
}


def _place(text: str) -> tuple[int, tuple[int, ...] | None]:
    layer, heads = _place_or_all(text)
    if layer is None:
        raise _Unreadable("only temperature and nomask can be of all layers")
    return layer, heads


def _place_or_all(text: str) -> tuple[int | None, tuple[int, ...] | None]:
    layer, dot, head = text.partition(".")
    if not dot:
        raise _Unreadable(f"{text!r} is no LAYER.HEAD, such as 3.5, or 3.* for all heads")
    return None if layer == "*" else _integer(layer), None if head == "*" else (_integer(head),)


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Unreadable(f"{text!r} is no whole number from 0 on")
    return int(text)


def _float(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", text) or not math.isfinite(float(text)):
        raise _Unreadable(f"{text!r} is no number, such as 0.5")
    return float(text)
