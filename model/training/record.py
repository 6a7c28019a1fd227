"""training.json: the record of a run, with its recipe, the steps taken, and the curve of its losses."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from model.training.recipe import Recipe, TrainingError
from model.weights.save import write_json

RECORD = "training.json"
RECORD_VERSION = 2
# Fields of the recipe in files without a version, and their names since version 2.
RENAMED = {"late": "dropout_after", "drills": "curriculum", "n_texts": "batch_size"}


@dataclass(frozen=True)
class LossPoint:
    """One point of the curve."""

    step: int
    n_tokens: int  # read so far
    loss: float  # mean over the steps since the last point, in nats per token
    held_out_loss: float  # nats per token
    bits_per_byte: float  # of the held-out text


@dataclass(frozen=True)
class Record:
    """The state of a run after some steps."""

    recipe: Recipe
    step: int = 0  # how many steps were taken
    curve: tuple[LossPoint, ...] = ()
    losses: tuple[float, ...] = ()  # of the steps since the last point of the curve, in nats per token

    def as_dict(self) -> dict[str, object]:
        """The content of training.json."""
        return {"version": RECORD_VERSION} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, object]) -> Self:
        """The record in the content of a training.json.

        Raises:
            TrainingError: if it has another version, or an unknown or a missing field.
            AttributeError, KeyError, TypeError, ValueError: if it is no such content.
        """
        version = raw.get("version")
        if version not in (None, RECORD_VERSION):
            raise TrainingError(f"{RECORD} has the version {version}; Lookback reads {RECORD_VERSION} and older")
        _check_names(raw, ("version", *_field_names(cls)), f"{RECORD}: ")
        recipe = cast(Mapping[str, object], raw["recipe"])
        if version is None:
            recipe = {RENAMED.get(name, name): value for name, value in recipe.items()}
        _check_names(recipe, _field_names(Recipe), f"{RECORD}: recipe.")
        if missing := [name for name in _field_names(Recipe) if name not in recipe]:
            raise TrainingError(f"{RECORD} has no recipe.{missing[0]}")
        points = cast(list[Mapping[str, float]], raw["curve"])
        for point in points:
            _check_names(point, _field_names(LossPoint), f"{RECORD}: curve[*].")
        return cls(
            Recipe(**recipe),  # type: ignore[arg-type]
            int(cast(int, raw["step"])),
            tuple(LossPoint(**point) for point in points),  # type: ignore[arg-type]
            tuple(cast(list[float], raw.get("losses", []))),
        )


def _field_names(kind: type[Record] | type[Recipe] | type[LossPoint]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise TrainingError(f"{where}{unknown[0]} is an unknown field")


def write_record(folder: Path, record: Record) -> None:
    """Write training.json.

    Raises:
        OSError: if it cannot be written; the old file, if any, is unchanged.
    """
    write_json(folder / RECORD, record.as_dict())


def load_record(folder: Path) -> Record | None:
    """The record of the run in this folder; None if there is none, or if the file is damaged.

    Raises:
        TrainingError: if the file has another version, or an unknown or a missing field.
    """
    try:
        return Record.from_dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except TrainingError:
        raise
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return None


def read_record(folder: Path) -> Record | None:
    """The record of the run in this folder; None if there is none, or none that this version can read."""
    try:
        return load_record(folder)
    except TrainingError:
        return None
