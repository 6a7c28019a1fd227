"""A linear layer that uses whichever matrix-multiplication kernel is fastest on this processor for its number of rows.

With few tokens, a layer is limited by reading its parameters, with many by arithmetic, and libraries differ in how
well they do either. Three kernels compute the same numbers: *plain* is torch's own x Wᵀ; *transposed* computes W xᵀ and
transposes the result, which some libraries do faster when rows are few; *prepacked* multiplies by a matrix that oneDNN
has laid out once in the order in which its kernels read it. The kernels are timed when a model is loaded. Prepacking
takes as much memory again as the parameters, so it must win clearly; its operators are private to torch, and where
they are missing or fail it is left out.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger("lookback")

Kernel = Literal["plain", "transposed", "prepacked"]
Kernels = Mapping[int, Kernel]  # the kernel from this number of rows on, in ascending order

ROWS = (1, 2, 4, 12, 24, 64)  # numbers of rows at which the kernels are timed
PREPACKED_GAIN = 1.2  # prepacked must be this many times as fast as the better of the others, at half of ROWS
TRANSPOSED_GAIN = 1.05  # the same for transposed over plain, at each number of rows
N_ROUNDS = 5
BENCHMARK_BYTES = 120_000_000  # of matrices in the benchmark: more than any cache holds
MIN_BYTES = 40_000_000  # a smaller network fits in the cache and is fast with every kernel


class Linear(nn.Linear):
    """x Wᵀ + b like nn.Linear, with the kernel that `kernels` names for the number of rows."""

    kernels: Kernels = {}  # noqa: RUF012 - replaced, never changed
    prepacked: Tensor | None = None  # the matrix in oneDNN's layout

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b, (…, outputs)."""
        n_rows = x.numel() // self.in_features
        kernel: Kernel = "plain"
        for first, candidate in self.kernels.items():
            if n_rows >= first:
                kernel = candidate
        return self.multiply(x, kernel)

    def multiply(self, x: Tensor, kernel: Kernel) -> Tensor:
        """x Wᵀ + b computed by the given kernel."""
        if kernel == "transposed":
            columns = self.weight @ x.reshape(-1, self.in_features).T
            y = columns.T.contiguous().view(*x.shape[:-1], self.out_features)
            return y if self.bias is None else y + self.bias
        if kernel == "prepacked":
            return torch.ops.mkldnn._linear_pointwise(x, self.prepacked, self.bias, "none", [], "")  # type: ignore[no-any-return]
        return F.linear(x, self.weight, self.bias)

    def prepack(self) -> None:
        """Copy the matrix into oneDNN's layout. The prepacked kernel does not see later changes of `weight`.

        Raises:
            RuntimeError, AttributeError, NotImplementedError: if this torch cannot.
        """
        self.prepacked = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 16)


@torch.inference_mode()
def choose_kernels(network: nn.Module) -> Kernels:
    """Time the kernels on this machine and set the fastest ones on every linear layer of the network."""
    layers = [module for module in network.modules() if isinstance(module, Linear)]
    if not _is_worth_it(layers):
        return {}
    sample = _first_layers(layers, BENCHMARK_BYTES)
    with_prepacked = _prepack(sample)
    kernels = fastest({n_rows: _benchmark(sample, n_rows, with_prepacked=with_prepacked) for n_rows in ROWS})
    if "prepacked" in kernels.values() and not _prepack(layers):  # no memory for all of it, perhaps
        kernels = {n_rows: "plain" if kernel == "prepacked" else kernel for n_rows, kernel in kernels.items()}
    for layer in layers:
        layer.kernels = kernels
        if "prepacked" not in kernels.values():
            layer.prepacked = None
    return kernels


def fastest(seconds: Mapping[int, Mapping[Kernel, float]]) -> dict[int, Kernel]:
    """The kernel to use from each number of rows on, given the seconds that each kernel took, by number of rows.

    >>> fastest({1: {"plain": 1.0, "transposed": 2.0}, 12: {"plain": 3.0, "transposed": 2.0}})
    {1: 'plain', 12: 'transposed'}
    >>> fastest({1: {"plain": 3.0, "transposed": 3.0, "prepacked": 1.0}})
    {1: 'prepacked'}
    """
    unpacked: dict[int, Kernel] = {
        n_rows: "transposed" if times["plain"] > TRANSPOSED_GAIN * times["transposed"] else "plain"
        for n_rows, times in seconds.items()
    }
    wins = [
        times.get("prepacked", torch.inf) * PREPACKED_GAIN < times[unpacked[n_rows]]
        for n_rows, times in seconds.items()
    ]
    if 2 * sum(wins) < len(wins):
        return unpacked
    return {
        n_rows: "prepacked" if times["prepacked"] < times[unpacked[n_rows]] else unpacked[n_rows]
        for n_rows, times in seconds.items()
    }


def _is_worth_it(layers: Sequence[Linear]) -> bool:
    is_float32_on_cpu = all(
        layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers
    )
    return is_float32_on_cpu and sum(layer.weight.nbytes for layer in layers) > MIN_BYTES


def _prepack(layers: Sequence[Linear]) -> bool:
    """Prepack the layers that are not prepacked yet; False, and none is, if that fails."""
    try:
        for layer in layers:
            if layer.prepacked is None:
                layer.prepack()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("linear layers are not prepacked: %s", error)
        for layer in layers:
            layer.prepacked = None
        return False
    return True


def _first_layers(layers: Sequence[Linear], n_bytes: int) -> list[Linear]:
    """The first layers that together have at least `n_bytes`."""
    chosen: list[Linear] = []
    for layer in layers:
        if sum(chosen_layer.weight.nbytes for chosen_layer in chosen) < n_bytes:
            chosen.append(layer)
    return chosen


def _benchmark(layers: Sequence[Linear], n_rows: int, *, with_prepacked: bool) -> dict[Kernel, float]:
    """Seconds for all these layers with each kernel: the best of N_ROUNDS, alternating between the kernels."""
    inputs = [torch.ones(1, n_rows, layer.in_features) for layer in layers]
    candidates: tuple[Kernel, ...] = ("plain", "transposed", "prepacked") if with_prepacked else ("plain", "transposed")

    def multiply_all(kernel: Kernel) -> None:
        for layer, x in zip(layers, inputs, strict=True):
            layer.multiply(x, kernel)

    rounds = [{kernel: _seconds(multiply_all, kernel) for kernel in candidates} for _ in range(N_ROUNDS)]
    return {kernel: min(times[kernel] for times in rounds) for kernel in candidates}


def _seconds(run: Callable[[Kernel], None], kernel: Kernel) -> float:
    started = time.perf_counter()
    run(kernel)
    return time.perf_counter() - started
