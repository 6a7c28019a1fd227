"""The panels that an experiment consists of: a few kinds of pictures and tables, as numbers with labels.

static/experiment_panels.js draws them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

N_BARS = 48  # features of a vector in a picture; more bars would be too narrow to see

Number = float | None  # None if it is not finite


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Panel(_Values):
    title: str = Field(description="what the panel shows, with its shape")


class Heatmap(_Panel):
    """A matrix: one row for each of `rows`, one column for each of `columns`."""

    kind: Literal["heatmap"] = "heatmap"
    rows: list[str]
    columns: list[str]
    values: list[list[Number]]
    scale: Literal["probability", "signed"] = Field(description="colours run from 0 to 1, or symmetrically around 0")
    limit: float = Field(1e-6, description="a signed colour scale ends at this value or beyond it")
    selects: tuple[str, str] | None = Field(
        None, description="the fields of the request that a click on a cell sets: to its row, to its column"
    )


class Bars(_Panel):
    """One number per label."""

    kind: Literal["bars"] = "bars"
    labels: list[str]
    values: list[Number]
    chosen: int | None = Field(None, description="index of the bar that is highlighted")
    probabilities: bool = Field(False, description="the numbers lie between 0 and 1")
    selects: str = Field("", description="the field of the request that a click on a bar sets to its index")


class Line(_Values):
    """One line of a chart."""

    name: str
    x: list[float]
    y: list[Number]


class Curves(_Panel):
    """Lines over a common x axis."""

    kind: Literal["curves"] = "curves"
    x_axis: str
    lines: list[Line]
    log: bool = Field(False, description="the x axis is logarithmic")
    marker: float | None = Field(None, description="the x of the current setting, marked by a vertical line")


class Facts(_Panel):
    """Single numbers or words, each with its name."""

    kind: Literal["facts"] = "facts"
    names: list[str]
    values: list[Number | str]


class Point(_Values):
    """A point in a plane."""

    name: str
    group: str = Field(description="the points of one group have one colour")
    x: float
    y: float
    selects: dict[str, int] = Field({}, description="the fields of the request that a click on it sets, and to what")


class Points(_Panel):
    """Points in a plane, or arrows from the origin to them."""

    kind: Literal["points"] = "points"
    x_axis: str
    y_axis: str
    points: list[Point]
    arrows: bool = False
    limit: float | None = Field(None, description="both axes run from -limit to limit; if null, as far as the points")
    draggable: list[str] = Field(
        [], description="for each of the first arrows, the field of the request that dragging its tip sets"
    )


class Chip(_Values):
    """A piece of text in a small box."""

    text: str
    about: str = Field("", description="small print beside the text")
    faded: bool = False


class ChipRow(_Values):
    """Chips side by side."""

    name: str
    chips: list[Chip]


class Chips(_Panel):
    """Rows of chips."""

    kind: Literal["chips"] = "chips"
    rows: list[ChipRow]


class Cube(_Panel):
    """Matrices of one shape, drawn one behind another; a cell may be empty."""

    kind: Literal["cube"] = "cube"
    sheets: list[str]
    rows: list[list[str]] = Field(description="the row labels of each sheet")
    columns: list[str]
    values: list[list[list[Number]]]


AnyPanel = Heatmap | Bars | Curves | Facts | Points | Chips | Cube
Panel = Annotated[AnyPanel, Field(discriminator="kind")]


def numbers(values: Tensor) -> list[Number]:
    """A vector as a list of finite numbers; None for the others.

    >>> numbers(Tensor([0.5, -math.inf]))
    [0.5, None]
    """
    return [value if math.isfinite(value) else None for value in values.tolist()]


def matrix(values: Tensor) -> list[list[Number]]:
    """A matrix as a list of rows, each as in `numbers`."""
    return [numbers(row) for row in values]


def signed(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Tensor,
    *,
    limit: float = 1e-6,
    selects: tuple[str, str] | None = None,
) -> Heatmap:
    """A heatmap whose colour scale is symmetric around 0."""
    return Heatmap(
        title=title,
        rows=[*rows],
        columns=[*columns],
        values=matrix(values),
        scale="signed",
        limit=limit,
        selects=selects,
    )


def probabilities(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Tensor,
    *,
    selects: tuple[str, str] | None = None,
) -> Heatmap:
    """A heatmap whose colour scale runs from 0 to 1."""
    return Heatmap(
        title=title, rows=[*rows], columns=[*columns], values=matrix(values), scale="probability", selects=selects
    )


def facts(title: str, named: Mapping[str, float | str]) -> Facts:
    """Single values by their names.

    >>> facts("both", {"sum": 1.0, "shape": "2 × 3"}).values
    [1.0, '2 × 3']
    """
    finite = [value if isinstance(value, str) or math.isfinite(value) else None for value in named.values()]
    return Facts(title=title, names=[*named], values=finite)


def shape_label(shape: Iterable[int]) -> str:
    """The shape of an array, in words.

    >>> shape_label(Tensor(2, 3).shape)
    '2 × 3'
    """
    return " × ".join(map(str, shape))
