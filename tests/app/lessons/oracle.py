"""The numbers of panels as tensors, and what a module of a network computes: for tests of the lessons' numbers."""

# shapes: T tokens, I inputs of a module, O outputs, H heads, D features of a head, B texts, V tokens of the vocabulary

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from app.experiments.panels import AnyPanel, Bars, Curves, Facts, Heatmap, Number
from app.models import LoadedModel

SENTENCE = "the fat cat sat on the mat"
LONG = "the fat cat sat on the mat and the dog ran over the hill to see the king and his queen"

Change = Callable[[tuple[Tensor, ...], Tensor], Tensor]  # inputs and output of a module, to its new output


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


class HeadsByHand(NamedTuple):
    """The heads of a layer, from the queries, keys and values that a hook sees; double precision."""

    q_HTD: Tensor
    k_HTD: Tensor
    v_HTD: Tensor
    score_HTT: Tensor
    weight_HTT: Tensor


def heads_by_hand(loaded: LoadedModel, text: str, layer: int) -> HeadsByHand:
    """What the heads of a layer compute for a text: each score a dot product, each row of weights a masked softmax."""
    caught: list[Tensor] = []
    heads = loaded.network.blocks[layer].get_submodule("attention.heads")
    handle = heads.register_forward_hook(lambda _, inputs, __: caught.extend(inputs[:3]))
    try:
        loaded.network(torch.tensor([loaded.tokens(text).ids]))
    finally:
        handle.remove()
    q_HTD, k_HTD, v_HTD = _per_query_head([tensor_BHTD.double() for tensor_BHTD in caught])[:, 0]
    score_HTT = torch.einsum("hqd,hkd->hqk", q_HTD, k_HTD)
    later_TT = torch.ones(score_HTT.shape[1:]).triu(1).bool()
    weight_HTT = (score_HTT / q_HTD.shape[-1] ** 0.5).masked_fill(later_TT, -math.inf).softmax(-1)
    return HeadsByHand(q_HTD, k_HTD, v_HTD, score_HTT, weight_HTT)


def logits_by_hand(loaded: LoadedModel, ids: Sequence[int], is_allowed: Callable[[int], Tensor]) -> Tensor:
    """Logits after each token, (T, V), if the heads of a layer attend only where `is_allowed(layer)`, (H, T, T), says.

    Hooks replace what the heads return.
    """

    def attend(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
            q_BHTD, k_BHTD, v_BHTD = _per_query_head(inputs[:3])
            scaled_BHTT = q_BHTD @ k_BHTD.mT / q_BHTD.shape[-1] ** 0.5
            context_BHTD: Tensor = scaled_BHTT.masked_fill(~is_allowed(layer), -math.inf).softmax(-1) @ v_BHTD
            return context_BHTD

        return hook

    blocks = enumerate(loaded.network.blocks)
    handles = [block.get_submodule("attention.heads").register_forward_hook(attend(layer)) for layer, block in blocks]
    try:
        with torch.inference_mode():
            logits_BTV: Tensor = loaded.network(torch.tensor([ids]))
    finally:
        for handle in handles:
            handle.remove()
    return logits_BTV[0].double()


def logits_with(loaded: LoadedModel, ids: Sequence[int], changes: Mapping[nn.Module, Change]) -> Tensor:
    """Logits after each token, (T, V), if some modules return what a function makes of their inputs and output."""

    def hook(change: Change) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _, inputs, output: change(inputs, output)

    handles = [module.register_forward_hook(hook(change)) for module, change in changes.items()]
    try:
        with torch.inference_mode():
            logits_BTV: Tensor = loaded.network(torch.tensor([ids]))
    finally:
        for handle in handles:
            handle.remove()
    return logits_BTV[0].double()


def _per_query_head(tensors: Sequence[Tensor]) -> Tensor:
    """Queries, keys and values, with the keys and values repeated for the query heads that share them."""
    n_heads = tensors[0].shape[1]
    return torch.stack([tensor.repeat_interleave(n_heads // tensor.shape[1], 1) for tensor in tensors])


def _number(value: Number) -> float:
    return math.nan if value is None else value


def _double(numbers: Any) -> Tensor:
    return numbers.double() if isinstance(numbers, Tensor) else torch.tensor(np.asarray(numbers, dtype=float))
