"""The numbers of panels as tensors, and what a module of a network computes: for tests of the lessons' numbers."""

# shapes: T tokens, I inputs of a module, O outputs

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from app.experiments.panels import AnyPanel, Bars, Curves, Facts, Heatmap, Number
from app.models import LoadedModel

SENTENCE = "the fat cat sat on the mat"
LONG = "the fat cat sat on the mat and the dog ran over the hill to see the king and his queen"


def values(panel: AnyPanel) -> Tensor:
    """The numbers of a heatmap or of bars; NaN where there is none."""
    assert isinstance(panel, Heatmap | Bars)
    rows = [row if isinstance(row, list) else [row] for row in panel.values]
    shape = (len(rows),) if isinstance(panel, Bars) else (len(rows), -1)
    return torch.tensor([_number(value) for row in rows for value in row], dtype=torch.double).reshape(shape)


def lines(panel: AnyPanel) -> dict[str, Tensor]:
    """The y of each line of a chart, by its name."""
    assert isinstance(panel, Curves)
    return {line.name: torch.tensor([_number(y) for y in line.y], dtype=torch.double) for line in panel.lines}


def named(panel: AnyPanel) -> Mapping[str, Number | str]:
    """The facts by their names."""
    assert isinstance(panel, Facts)
    return dict(zip(panel.names, panel.values, strict=True))


def number(panel: AnyPanel, name: str) -> float:
    """A fact that is a number."""
    value = named(panel)[name]
    assert isinstance(value, float)
    return value


def assert_near(actual: Any, expected: Any, relative: float = 1e-4, absolute: float | None = None) -> None:
    """That two tensors, arrays or lists of numbers agree to within rounding in float32."""
    absolute = relative / 10 if absolute is None else absolute
    assert_close(_double(actual), _double(expected), rtol=relative, atol=absolute)


def captured(loaded: LoadedModel, text: str, module: nn.Module) -> tuple[Tensor, Tensor]:
    """Input, (T, I), and output, (T, O), of a module in a pass over a text, caught by a hook; double precision."""
    caught: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: caught.extend((inputs[0][0], output[0])))
    try:
        loaded.network(torch.tensor([loaded.tokens(text).ids]))
    finally:
        handle.remove()
    input_TI, output_TO = caught
    return input_TI.double(), output_TO.double()


def _number(value: Number) -> float:
    return math.nan if value is None else value


def _double(numbers: Any) -> Tensor:
    return numbers.double() if isinstance(numbers, Tensor) else torch.tensor(np.asarray(numbers, dtype=float))
