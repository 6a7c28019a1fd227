"""A linear layer that multiplies by whichever road is faster on this processor.

oneDNN can lay a matrix out once in the order in which its kernels read it. On some processors that doubles the speed
of float32, on others it gains little, or loses where there is but one row. So both roads are measured when a model is
loaded, and the packed one is taken from that number of rows on from which it wins. The operators behind it are
private to torch; where they are missing or fail, everything stays on the plain road.
"""

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger("lookback")

ROWS = (1, 4, 16, 64)  # numbers of rows at which the two roads are compared
GAIN = 1.05  # packing takes memory, so it must win by this much
PROBE_BYTES = 120_000_000  # matrices are compared on as many bytes as no cache holds
WORTH_BYTES = 40_000_000  # a network smaller than this lies in the cache and is quick by any road


class Linear(nn.Linear):
    """x Wᵀ + b, as nn.Linear has it; `pack` opens a second road."""

    packed: Tensor | None = None  # the matrix in oneDNN's layout
    packed_from: int = 1  # rows; fewer take the plain road

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None or x.numel() < self.packed_from * self.in_features:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]

    def pack(self, packed_from: int = 1) -> None:
        """Lay the matrix out for oneDNN. Later changes of `weight` are not seen.

        Raises:
            RuntimeError, AttributeError, NotImplementedError: where this torch cannot.
        """
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 16)
        self.packed_from = packed_from


@torch.inference_mode()
def pack(network: nn.Module) -> int | None:
    """Pack every linear layer of a network if that makes it faster here.

    Returns:
        From how many rows on the packed road is taken; None if the plain one is as good everywhere.
    """
    layers = [part for part in network.modules() if isinstance(part, Linear)]
    if not _can_be_packed(layers):
        return None
    probe = _first(layers, PROBE_BYTES)
    try:
        for layer in probe:
            layer.pack()
        packed_from = first_won([(rows, *_race(probe, rows)) for rows in ROWS])
        for layer in layers:
            if packed_from is None:
                layer.packed = None
            elif layer in probe:
                layer.packed_from = packed_from
            else:
                layer.pack(packed_from)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("linear layers stay unpacked: %s", error)
        for layer in layers:
            layer.packed = None
        return None
    return packed_from


def first_won(races: Sequence[tuple[int, float, float]]) -> int | None:
    """From how many rows on the packed road always wins: races are (rows, plain seconds, packed seconds).

    >>> first_won([(1, 1.0, 1.4), (16, 3.0, 2.0), (64, 8.0, 7.0)])
    16
    >>> first_won([(1, 1.0, 0.5), (16, 3.0, 3.0)]) is None
    True
    """
    found = None
    for rows, plain_s, packed_s in reversed(races):
        if plain_s < GAIN * packed_s:
            break
        found = rows
    return found


def _can_be_packed(layers: Sequence[Linear]) -> bool:
    is_plain = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers)
    is_large = sum(layer.weight.nbytes for layer in layers) > WORTH_BYTES
    return is_plain and is_large and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _first(layers: Sequence[Linear], n_bytes: int) -> list[Linear]:
    taken: list[Linear] = []
    for layer in layers:
        if sum(one.weight.nbytes for one in taken) < n_bytes:
            taken.append(layer)
    return taken


def _race(layers: Sequence[Linear], rows: int) -> tuple[float, float]:
    """Seconds for all these layers by the plain and by the packed road; the best of three, taken in turns."""
    inputs = [torch.ones(rows, layer.in_features) for layer in layers]

    def plain() -> None:
        for layer, x in zip(layers, inputs, strict=True):
            F.linear(x, layer.weight, layer.bias)

    def packed() -> None:
        for layer, x in zip(layers, inputs, strict=True):
            layer(x)

    times = [(_seconds(plain), _seconds(packed)) for _ in range(4)][1:]
    return min(one for one, _ in times), min(other for _, other in times)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
