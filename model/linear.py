"""A linear layer that multiplies by whichever road is faster on this processor, for as many rows as there are.

A few tokens at a time are bound by reading the parameters, many by arithmetic, and libraries differ in how well they
do either. There are three roads to the same numbers: *plain*, torch's own; *turned*, W xᵀ turned back, for which some
libraries have a better kernel when rows are few; *packed*, on a matrix that oneDNN has laid out once in the order in
which its kernels read it. Which is fastest where is measured when a model is loaded. Packing takes as much memory
again as the parameters, so it has to win clearly; its operators are private to torch, and where they are missing or
fail it is left out.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger("lookback")

Road = Literal["plain", "turned", "packed"]
Roads = Mapping[int, Road]  # from so many rows on; in ascending order

ROWS = (1, 2, 4, 12, 24, 64)  # numbers of rows at which the roads are compared
PACKED_GAIN = 1.2  # times as fast as the better of the others, for half of the numbers of rows
TURNED_GAIN = 1.05
N_ROUNDS = 5
PROBE_BYTES = 120_000_000  # matrices are compared on as many bytes as no cache holds
WORTH_BYTES = 40_000_000  # a network smaller than this lies in the cache and is quick by any road


class Linear(nn.Linear):
    """x Wᵀ + b, as nn.Linear has it, by the road that `roads` names for the number of rows."""

    roads: Roads = {}  # noqa: RUF012 - replaced, never changed
    packed: Tensor | None = None  # the matrix in oneDNN's layout

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        road: Road = "plain"
        for first, taken in self.roads.items():
            if rows >= first:
                road = taken
        return self.by(road, x)

    def by(self, road: Road, x: Tensor) -> Tensor:
        """The same numbers by a certain road."""
        if road == "turned":
            columns = self.weight @ x.reshape(-1, self.in_features).T
            found = columns.T.contiguous().view(*x.shape[:-1], self.out_features)
            return found if self.bias is None else found + self.bias
        if road == "packed":
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]
        return F.linear(x, self.weight, self.bias)

    def pack(self) -> None:
        """Lay the matrix out for oneDNN. Later changes of `weight` are not seen on the packed road.

        Raises:
            RuntimeError, AttributeError, NotImplementedError: where this torch cannot.
        """
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 16)


@torch.inference_mode()
def choose_roads(network: nn.Module) -> Roads:
    """Measure which roads are fastest here, and let every linear layer of a network take them."""
    layers = [part for part in network.modules() if isinstance(part, Linear)]
    if not _is_worth_it(layers):
        return {}
    probe = _first(layers, PROBE_BYTES)
    with_packed = _pack(probe)
    roads = fastest({rows: _race(probe, rows, with_packed=with_packed) for rows in ROWS})
    if "packed" in roads.values() and not _pack(layers):  # no memory for all of it, perhaps
        roads = {rows: "plain" if road == "packed" else road for rows, road in roads.items()}
    for layer in layers:
        layer.roads = roads
        if "packed" not in roads.values():
            layer.packed = None
    return roads


def fastest(races: Mapping[int, Mapping[Road, float]]) -> dict[int, Road]:
    """The road to take from each number of rows on; races are the seconds of each road, by rows.

    >>> fastest({1: {"plain": 1.0, "turned": 2.0}, 12: {"plain": 3.0, "turned": 2.0}})
    {1: 'plain', 12: 'turned'}
    >>> fastest({1: {"plain": 3.0, "turned": 3.0, "packed": 1.0}})
    {1: 'packed'}
    """
    others: dict[int, Road] = {
        rows: "turned" if times["plain"] > TURNED_GAIN * times["turned"] else "plain" for rows, times in races.items()
    }
    won = [times.get("packed", torch.inf) * PACKED_GAIN < times[others[rows]] for rows, times in races.items()]
    if 2 * sum(won) < len(won):
        return others
    return {rows: "packed" if times["packed"] < times[others[rows]] else others[rows] for rows, times in races.items()}


def _is_worth_it(layers: Sequence[Linear]) -> bool:
    is_plain = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers)
    return is_plain and sum(layer.weight.nbytes for layer in layers) > WORTH_BYTES


def _pack(layers: Sequence[Linear]) -> bool:
    """Pack those that are not packed yet. Could it be done?"""
    try:
        for layer in layers:
            if layer.packed is None:
                layer.pack()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("linear layers stay unpacked: %s", error)
        for layer in layers:
            layer.packed = None
        return False
    return True


def _first(layers: Sequence[Linear], n_bytes: int) -> list[Linear]:
    taken: list[Linear] = []
    for layer in layers:
        if sum(one.weight.nbytes for one in taken) < n_bytes:
            taken.append(layer)
    return taken


def _race(layers: Sequence[Linear], rows: int, *, with_packed: bool) -> dict[Road, float]:
    """Seconds for all these layers by each road; the best of some rounds, taken in turns."""
    inputs = [torch.ones(1, rows, layer.in_features) for layer in layers]
    taking_part: tuple[Road, ...] = ("plain", "turned", "packed") if with_packed else ("plain", "turned")

    def drive(road: Road) -> None:
        for layer, x in zip(layers, inputs, strict=True):
            layer.by(road, x)

    rounds = [{road: _seconds(drive, road) for road in taking_part} for _ in range(N_ROUNDS)]
    return {road: min(one[road] for one in rounds) for road in taking_part}


def _seconds(drive: Callable[[Road], None], road: Road) -> float:
    started = time.perf_counter()
    drive(road)
    return time.perf_counter() - started
