"""What a run writes down of itself: the recipe, how far it came, and the curve of its losses."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from model.weights.save import write_json

RECORD = "training.json"


@dataclass(frozen=True)
class Point:
    """One point of the curve."""

    step: int
    n_tokens: int  # read so far
    loss: float  # of the steps since the last point, in nats a token
    held_out_loss: float  # nats a token
    bits_per_byte: float  # of the held-out text


@dataclass(frozen=True)
class Record:
    """A run as it stands after some steps."""

    recipe: Mapping[str, Any]
    step: int = 0  # so many steps are taken
    curve: tuple[Point, ...] = ()
    losses: tuple[float, ...] = ()  # of the steps since the last point of the curve, in nats a token

    @property
    def n_drills(self) -> int:
        """Steps at the beginning that read no text."""
        n: int = round(self.recipe.get("drills", 0) * self.recipe["n_steps"])
        return n

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The record that `as_dict` took apart.

        Raises:
            KeyError, TypeError, ValueError: when it is none.
        """
        curve = tuple(Point(**point) for point in raw["curve"])
        return cls(dict(raw["recipe"]), int(raw["step"]), curve, tuple(raw.get("losses", ())))


def write_record(folder: Path, record: Record) -> None:
    """training.json.

    Raises:
        OSError: when it cannot be written; then nothing has changed.
    """
    write_json(folder / RECORD, record.as_dict())


def read_record(folder: Path) -> Record | None:
    """The record of the run that left this folder; None where there is none, or one that we cannot read."""
    try:
        return Record.from_dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
