"""S08: many dot products as one matrix product, and how long they take on this machine."""

# shapes: N random vectors, T tokens, D features of a vector

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from app.lessons.book import vectors
from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, product_scales
from app.lessons.clock import milliseconds
from app.lessons.lesson import N_SAMPLES, Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Curves, Facts, Heatmap, Line, facts, signed
from app.lessons.posts import MATRICES, PART_7

VECTOR_COUNTS = (8, 16, 32, 64, 128, 256)  # that are timed
N_MOST_LOOPED = 32  # vectors; for more, one Python step per dot product takes too long
N_TIMED_ROUNDS, TIMING_BUDGET_S = 5, 0.02  # the most rounds and seconds for each method and number of vectors

VectorCount = Literal["8", "16", "32", "64", "128", "256"]
Times = Mapping[str, tuple[float | None, ...]]  # ms for each of VECTOR_COUNTS, by method; None if not timed


class ParallelRequest(LessonRequest):
    """A number of vectors, and the number of a measurement."""

    n_vectors: VectorCount = Field("32", title="Vectors", description="shows the times for this many vectors")
    measurement: int = Field(
        0, ge=0, le=9, title="Measurement", description="another number draws other vectors and measures again"
    )


class ParallelResult(LessonResult):
    """The same dot products by two methods, and the times of three methods."""

    products: Heatmap = Field(description="X Xᵀ for the tokens of the text, as one matrix product")
    difference: Heatmap = Field(description="the dot products computed one by one, minus X Xᵀ")
    times: Curves
    times_per_product: Curves = Field(description="the times, divided by the n² dot products")
    facts: Facts


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


def method_milliseconds(method: Callable[[Tensor], Tensor], x_ND: Tensor) -> float:
    """The time of a method in ms, until its last number can be read on the CPU."""
    return milliseconds(lambda: method(x_ND)[-1, -1].item(), N_TIMED_ROUNDS, TIMING_BUDGET_S)


@lru_cache(maxsize=32)
@torch.inference_mode()
def measured_times(width: int, seed: int, device: torch.device) -> Times:
    """The times of all methods for random vectors with `width` features; cached, so that a page can show them again.

    They run in one CPU thread: on a busy machine, several threads would wait for each other in every tiny product.
    """
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(max(VECTOR_COUNTS), width, generator=generator).to(device)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method in (dot_by_dot, row_by_row, one_product):
            method(x_ND[: VECTOR_COUNTS[0]])  # so that torch's work in its first call is not timed
        return {
            "dot by dot": tuple(
                method_milliseconds(dot_by_dot, x_ND[:n]) if n <= N_MOST_LOOPED else None for n in VECTOR_COUNTS
            ),
            "row by row": tuple(method_milliseconds(row_by_row, x_ND[:n]) for n in VECTOR_COUNTS),
            "one product": tuple(method_milliseconds(one_product, x_ND[:n]) for n in VECTOR_COUNTS),
        }
    finally:
        torch.set_num_threads(n_threads)


def times_for_model(reading: Reading, request: ParallelRequest) -> Times:
    """The times for vectors with as many features as the model's, on its device."""
    return measured_times(reading.config.d_model, request.measurement, reading.model.network.device)


def _speedup(times: Times, method: str, n: int) -> float:
    index = VECTOR_COUNTS.index(n)
    slow, fast = times[method][index], times["one product"][index]
    assert slow is not None and fast is not None
    return slow / fast


def compute(reading: Reading, request: ParallelRequest) -> ParallelResult:
    """The dot products of the text's tokens by two methods, and the times of three methods for more vectors."""
    x_TD, labels = vectors(reading, "model")
    x_TD, labels = x_TD[:N_SAMPLES], labels[:N_SAMPLES]
    product_TT = one_product(x_TD)
    difference_TT = dot_by_dot(x_TD, broken=request.broken) - product_TT
    times, width, n = times_for_model(reading, request), reading.config.d_model, int(request.n_vectors)
    microseconds = {
        method: [None if ms is None else 1e3 * ms / n**2 for ms, n in zip(all_ms, VECTOR_COUNTS, strict=True)]
        for method, all_ms in times.items()
    }
    return ParallelResult(
        products=signed(f"X Xᵀ as one matrix product, {len(x_TD)} × {len(x_TD)}", labels, labels, product_TT),
        difference=signed(
            f"Difference of dot by dot to one matrix product, at most {difference_TT.abs().max():.1g}",
            labels,
            labels,
            difference_TT,
            limit=product_TT.abs().max().item(),
        ),
        times=_curves_over_n(f"Milliseconds for all pairs of n vectors with {width} features, measured here", times, n),
        times_per_product=_curves_over_n("Microseconds per dot product", microseconds, n),
        facts=_time_facts(reading, request, times),
    )


def _curves_over_n(title: str, times: Mapping[str, Sequence[float | None]], n: int) -> Curves:
    counts = [float(count) for count in VECTOR_COUNTS]
    lines = [Line(name=method, x=counts, y=[*values]) for method, values in times.items()]
    return Curves(title=title, x_axis="n", lines=lines, marker=float(n))


def _time_facts(reading: Reading, request: ParallelRequest, times: Times) -> Facts:
    n, width = int(request.n_vectors), reading.config.d_model
    times_at_n = {method: all_ms[VECTOR_COUNTS.index(n)] for method, all_ms in times.items()}
    most = max(VECTOR_COUNTS)
    return facts(
        f"Measurement {request.measurement}, n = {n}",
        {
            "device": reading.model.network.device.type,
            "threads": f"1 of {torch.get_num_threads()}",
            f"multiplications, {n}² · {width}": float(n * n * width),
            **{f"{method}, ms": "not measured" if ms is None else ms for method, ms in times_at_n.items()},
            f"dot by dot / one product, n = {N_MOST_LOOPED}": _speedup(times, "dot by dot", N_MOST_LOOPED),
            f"row by row / one product, n = {most}": _speedup(times, "row by row", most),
        },
    )


@torch.inference_mode()
def checks(reading: Reading, request: ParallelRequest) -> Iterator[Check]:
    """All methods give the same numbers, with n²·d multiplications; how fast they are cannot be checked."""
    x_TD = vectors(reading, "model")[0][:N_SAMPLES]
    n_vectors, width = x_TD.shape
    product_TT = one_product(x_TD)
    arithmetic, scale_TT = Arithmetic(n_terms=width), product_scales(x_TD, x_TD)
    for method, name in ((partial(dot_by_dot, broken=request.broken), "dot by dot"), (row_by_row, "row by row")):
        yield equal(f"{name} gives the numbers of one product", method(x_TD), product_TT, arithmetic, scale_TT)
    with FlopCounterMode(display=False) as counter:
        one_product(x_TD)
    n_operations = 2 * n_vectors**2 * width
    yield at_most(
        0,
        abs(counter.get_total_flops() - n_operations),
        f"torch counts n²·d = {n_vectors}² · {width} multiplications and as many additions",
    )
    shortest = min(ms for all_ms in times_for_model(reading, request).values() for ms in all_ms if ms is not None)
    resolution = 1000 * time.get_clock_info("perf_counter").resolution
    yield at_least(resolution, shortest, "every time, in milliseconds, is long enough for the clock to measure")


LESSON = Lesson(
    number=8,
    title="Many at once",
    posts=(MATRICES, PART_7),
    request_type=ParallelRequest,
    result_type=ParallelResult,
    compute=compute,
    checks=checks,
    break_description="skip the pairs below the diagonal in the loops, without copying them from above it",
    code_references=("model/attention.py: scores", "app/lessons/parallel.py: dot_by_dot, row_by_row, one_product"),
)
