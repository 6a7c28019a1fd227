"""What lessons are made of: a few kinds of pictures, as numbers with names. static/parts.js draws them."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Number = float | None  # None where there is no finite number


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Panel(_Values):
    title: str = Field(description="what is seen, with the shape of it")


class Heatmap(_Panel):
    """A matrix: a row for each of `rows`, a column for each of `columns`."""

    kind: Literal["heatmap"] = "heatmap"
    rows: list[str]
    columns: list[str]
    values: list[list[Number]]
    scale: Literal["share", "signed"] = Field(description="colours run from 0 to 1, or around 0")
    reach: float = Field(1e-6, description="colours around 0 reach at least so far")
    picks: tuple[str, str] | None = Field(None, description="what a click on a cell chooses: by its row, by its column")


class Bars(_Panel):
    """A number for each label."""

    kind: Literal["bars"] = "bars"
    labels: list[str]
    values: list[Number]
    chosen: int | None = Field(None, description="the label that stands out")
    share: bool = Field(False, description="the numbers are shares, from 0 to 1")
    picks: str = Field("", description="what a click on a bar chooses")


class Line(_Values):
    """One line of a chart."""

    name: str
    x: list[float]
    y: list[Number]


class Curves(_Panel):
    """Lines over a common axis."""

    kind: Literal["curves"] = "curves"
    x_axis: str
    lines: list[Line]
    log: bool = Field(False, description="the axis is logarithmic")
    here: float | None = Field(None, description="where on the axis the reader stands")


class Facts(_Panel):
    """Single numbers or words, each with its name."""

    kind: Literal["facts"] = "facts"
    names: list[str]
    values: list[Number | str]


class Point(_Values):
    """A point of a plane."""

    name: str
    group: str = Field(description="points of a group have a colour")
    x: float
    y: float
    picks: dict[str, int] = Field({}, description="what a click on it chooses")


class Points(_Panel):
    """Points of a plane, or arrows to them from its origin."""

    kind: Literal["points"] = "points"
    x_axis: str
    y_axis: str
    points: list[Point]
    arrows: bool = False
    reach: float | None = Field(None, description="both axes end here; where the points do, if it is left out")
    held: list[str] = Field([], description="what changes when the tip of an arrow is pulled, arrow by arrow")


class Chip(_Values):
    """A piece of a text, as a little box."""

    text: str
    about: str = Field("", description="small print")
    faded: bool = False


class ChipRow(_Values):
    """Pieces side by side."""

    name: str
    chips: list[Chip]


class Chips(_Panel):
    """Rows of pieces of a text."""

    kind: Literal["chips"] = "chips"
    rows: list[ChipRow]


class Cube(_Panel):
    """Matrices of one shape behind each other; a cell may be empty."""

    kind: Literal["cube"] = "cube"
    sheets: list[str]
    rows: list[list[str]] = Field(description="of each sheet")
    columns: list[str]
    values: list[list[list[Number]]]


Panel = Annotated[Heatmap | Bars | Curves | Facts | Points | Chips | Cube, Field(discriminator="kind")]


def numbers(values: Tensor) -> list[Number]:
    """A vector for a part.

    >>> numbers(Tensor([0.5, -math.inf]))
    [0.5, None]
    """
    return [value if math.isfinite(value) else None for value in values.tolist()]


def matrix(values: Tensor) -> list[list[Number]]:
    """A matrix for a part."""
    return [numbers(row) for row in values]


def signed(title: str, rows: Sequence[str], columns: Sequence[str], values: Tensor, **more: Any) -> Heatmap:
    """A matrix whose colours run around 0."""
    return Heatmap(title=title, rows=[*rows], columns=[*columns], values=matrix(values), scale="signed", **more)


def shares(title: str, rows: Sequence[str], columns: Sequence[str], values: Tensor, **more: Any) -> Heatmap:
    """A matrix whose colours run from 0 to 1."""
    return Heatmap(title=title, rows=[*rows], columns=[*columns], values=matrix(values), scale="share", **more)


def facts(title: str, named: Mapping[str, float | str]) -> Facts:
    """Single values by their names.

    >>> facts("both", {"sum": 1.0, "shape": "2 × 3"}).values
    [1.0, '2 × 3']
    """
    finite = [value if isinstance(value, str) or math.isfinite(value) else None for value in named.values()]
    return Facts(title=title, names=[*named], values=finite)
