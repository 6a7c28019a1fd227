"""What lessons are made of: a few kinds of pictures, as numbers with names. static/parts.js draws them."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Number = float | None  # None where there is no finite number


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="what is seen, with the shape of it")


class Heatmap(_Part):
    """A matrix: a row for each of `rows`, a column for each of `columns`."""

    kind: Literal["heatmap"] = "heatmap"
    rows: list[str]
    columns: list[str]
    values: list[list[Number]]
    scale: Literal["share", "signed"] = Field(description="colours run from 0 to 1, or around 0")


class Bars(_Part):
    """A number for each label."""

    kind: Literal["bars"] = "bars"
    labels: list[str]
    values: list[Number]
    chosen: int | None = Field(None, description="the label that stands out")
    share: bool = Field(False, description="the numbers are shares, from 0 to 1")


class Line(BaseModel):
    """One line of a chart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    x: list[float]
    y: list[Number]


class Curves(_Part):
    """Lines over a common axis."""

    kind: Literal["curves"] = "curves"
    x_axis: str
    lines: list[Line]
    here: float | None = Field(None, description="where on the axis the reader stands")


class Facts(_Part):
    """Single numbers, each with its name."""

    kind: Literal["facts"] = "facts"
    names: list[str]
    values: list[Number]


Part = Annotated[Heatmap | Bars | Curves | Facts, Field(discriminator="kind")]


def numbers(values: Tensor) -> list[Number]:
    """A vector for a part.

    >>> numbers(Tensor([0.5, -math.inf]))
    [0.5, None]
    """
    return [value if math.isfinite(value) else None for value in values.tolist()]


def matrix(values: Tensor) -> list[list[Number]]:
    """A matrix for a part."""
    return [numbers(row) for row in values]
