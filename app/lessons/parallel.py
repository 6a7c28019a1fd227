"""S08: many dot products as one matrix product, and how long they take on this machine."""

# shapes: N random vectors, T tokens, D features of a vector

import math
import time
from collections.abc import Callable, Generator, Mapping
from functools import cached_property, partial
from itertools import product
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from app.experiments.base import N_SAMPLES, Lesson, PanelProgress, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_scales
from app.experiments.controls import Choice, Controls, Slider
from app.experiments.panels import Curves, Facts, Heatmap, Line, facts, numbers, shape_label, signed
from app.lessons.clock import milliseconds
from app.lessons.posts import MATRICES, PART_7

VECTOR_COUNTS = (8, 16, 32, 64, 128, 256)  # that are timed
N_MOST_LOOPED = 32  # vectors; for more, one Python step per dot product takes too long
N_TIMED_ROUNDS, TIMING_BUDGET_S = 5, 0.02  # the most rounds and seconds for each method and number of vectors

Times = Mapping[str, Tensor]  # ms for each of VECTOR_COUNTS, by method; NaN if not timed

_times: dict[tuple[int, int, torch.device], Times] = {}  # by width, seed and device, so that a page can show them again


class ParallelControls(Controls):
    """A number of vectors, and the number of a measurement."""

    n_vectors: Annotated[
        Literal["8", "16", "32", "64", "128", "256"], Choice("Vectors", "shows the times for this many vectors")
    ] = "32"
    measurement: Annotated[
        int, Slider(0, 9, 1, "Measurement", "another number draws other vectors and measures again")
    ] = 0


def dot_by_dot(x_ND: Tensor, *, broken: bool = False) -> Tensor:
    """All dot products, (N, N), in two loops with one dot product per step; broken: without those below the diagonal.

    >>> dot_by_dot(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[5.0, 11.0], [11.0, 25.0]]
    """
    rows = x_ND.unbind()
    if broken:
        return torch.stack([torch.stack([a @ b * (j >= i) for j, b in enumerate(rows)]) for i, a in enumerate(rows)])
    return torch.stack([torch.stack([a @ b for b in rows]) for a in rows])


def row_by_row(x_ND: Tensor) -> Tensor:
    """All dot products, (N, N), in one loop with the matrix times one vector per step."""
    return torch.stack([x_ND @ row_D for row_D in x_ND])


def one_product(x_ND: Tensor) -> Tensor:
    """All dot products, (N, N), as one matrix product without a Python loop."""
    return x_ND @ x_ND.T


METHODS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "dot by dot": dot_by_dot,
    "row by row": row_by_row,
    "one product": one_product,
}


@torch.inference_mode()
def method_milliseconds(method: Callable[[Tensor], Tensor], x_ND: Tensor) -> float:
    """The time of a method in ms, until its last number can be read on the CPU.

    It runs in one CPU thread: on a busy machine, several threads would wait for each other in every tiny product.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method(x_ND[: VECTOR_COUNTS[0]])  # so that torch's work in its first call is not timed
        return milliseconds(lambda: method(x_ND)[-1, -1].item(), N_TIMED_ROUNDS, TIMING_BUDGET_S)
    finally:
        torch.set_num_threads(n_threads)


def measured_times(width: int, seed: int, device: torch.device) -> Generator[PanelProgress, None, Times]:
    """The times of all methods for random vectors with `width` features; measured once."""
    if (width, seed, device) not in _times:
        generator = torch.Generator().manual_seed(seed)
        x_ND = torch.randn(max(VECTOR_COUNTS), width, generator=generator).to(device)
        times: dict[str, list[float]] = {name: [] for name in METHODS}
        n_all = len(METHODS) * len(VECTOR_COUNTS)
        for done, (n, (name, method)) in enumerate(product(VECTOR_COUNTS, METHODS.items()), 1):
            is_timed = method is not dot_by_dot or n <= N_MOST_LOOPED
            times[name].append(method_milliseconds(method, x_ND[:n]) if is_timed else math.nan)
            yield PanelProgress(done, n_all)
        _times[width, seed, device] = {name: torch.tensor(ms, dtype=torch.double) for name, ms in times.items()}
    return _times[width, seed, device]


class ParallelWork(Work):
    """The dot products of the text's tokens by two methods, and the times of three methods for more vectors."""

    sites = frozenset({"embedding"})
    controls: ParallelControls

    @cached_property
    def x_TD(self) -> Tensor:
        """The first tokens with their positions added: the input of the first layer, float32."""
        return self.trace.observed("embedding")[:N_SAMPLES].float().cpu()

    def measured(self) -> Generator[PanelProgress, None, Times]:
        """The times for vectors with as many features as the model's, on its device."""
        return measured_times(self.config.d_model, self.controls.measurement, self.network.device)

    @panel
    def products(self) -> Heatmap:
        """X Xᵀ for the tokens of the text, as one matrix product."""
        labels, product_TT = self.token_labels[:N_SAMPLES], one_product(self.x_TD)
        return signed(f"X Xᵀ as one matrix product, {shape_label(product_TT.shape)}", labels, labels, product_TT)

    @panel
    def difference(self) -> Heatmap:
        """The dot products computed one by one, minus X Xᵀ."""
        labels, product_TT = self.token_labels[:N_SAMPLES], one_product(self.x_TD)
        difference_TT = dot_by_dot(self.x_TD, broken=self.controls.broken) - product_TT
        title = f"Difference of dot by dot to one matrix product, at most {largest(difference_TT):.1g}"
        return signed(title, labels, labels, difference_TT, limit=largest(product_TT))

    def over_n(self, title: str, times: Times) -> Curves:
        """One line per method over the number of vectors."""
        counts = [float(count) for count in VECTOR_COUNTS]
        lines = [Line(name=method, x=counts, y=numbers(values)) for method, values in times.items()]
        return Curves(title=title, x_axis="n", lines=lines, marker=float(self.controls.n_vectors))

    @panel
    def times(self) -> Generator[PanelProgress, None, Curves]:
        """The time of each method for n vectors."""
        times, width = (yield from self.measured()), self.config.d_model
        return self.over_n(f"Milliseconds for all pairs of n vectors with {width} features, measured here", times)

    @panel
    def times_per_product(self) -> Generator[PanelProgress, None, Curves]:
        """The times, divided by the n² dot products."""
        times = yield from self.measured()
        n_products = torch.tensor(VECTOR_COUNTS).square()
        microseconds = {method: 1e3 * ms / n_products for method, ms in times.items()}
        return self.over_n("Microseconds per dot product", microseconds)

    @panel
    def facts(self) -> Generator[PanelProgress, None, Facts]:
        """The chosen number of vectors, and how much faster one product is."""
        times, n, width = (yield from self.measured()), int(self.controls.n_vectors), self.config.d_model
        at_n = {method: ms[VECTOR_COUNTS.index(n)].item() for method, ms in times.items()}
        speedups = {method: ms / times["one product"] for method, ms in times.items()}
        named = {
            "device": self.network.device.type,
            "threads": f"1 of {torch.get_num_threads()}",
            f"multiplications, {n}² · {width}": float(n * n * width),
            **{f"{method}, ms": "not measured" if math.isnan(ms) else ms for method, ms in at_n.items()},
            **{
                f"{method} / one product, n = {count}": speedups[method][VECTOR_COUNTS.index(count)].item()
                for method, count in (("dot by dot", N_MOST_LOOPED), ("row by row", max(VECTOR_COUNTS)))
            },
        }
        return facts(f"Measurement {self.controls.measurement}, n = {n}", named)

    def checks(self) -> Generator[Check | PanelProgress, None, None]:
        """All methods give the same numbers, with n²·d multiplications; how fast they are cannot be checked."""
        x_TD, product_TT = self.x_TD, one_product(self.x_TD)
        n_vectors, width = x_TD.shape
        arithmetic, scale_TT = Arithmetic(n_terms=width), product_scales(x_TD, x_TD)
        for name, method in (
            ("dot by dot", partial(dot_by_dot, broken=self.controls.broken)),
            ("row by row", row_by_row),
        ):
            yield equal(f"{name} gives the numbers of one product", method(x_TD), product_TT, arithmetic, scale_TT)
        with FlopCounterMode(display=False) as counter:
            one_product(x_TD)
        name = f"torch counts n²·d = {n_vectors}² · {width} multiplications and as many additions"
        yield at_most(0, abs(counter.get_total_flops() - 2 * n_vectors**2 * width), name)
        times = yield from self.measured()
        shortest = min(ms for all_ms in times.values() for ms in all_ms.tolist() if not math.isnan(ms))
        resolution = 1000 * time.get_clock_info("perf_counter").resolution
        yield at_least(resolution, shortest, "every time, in milliseconds, is long enough for the clock to measure")


EXPERIMENT = Lesson(
    number=8,
    title="Many at once",
    posts=(MATRICES, PART_7),
    work=ParallelWork,
    break_description="skip the pairs below the diagonal in the loops, without copying them from above it",
    code_references=("model/attention.py: scores", "app/lessons/parallel.py: dot_by_dot, row_by_row, one_product"),
)
