"""S08: many dot products at once, as one product of matrices, and how long they take here and now."""

# shapes: N random vectors, T tokens, D features of a vector

import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from app.lessons.book import vectors
from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, product_scales
from app.lessons.clock import milliseconds
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Curves, Facts, Heatmap, Line, facts, signed
from app.lessons.posts import MATRICES, PART_7

N_TOKENS = 16  # of the text, for the numbers
SIZES = (8, 16, 32, 64, 128, 256)  # vectors, for the times
N_DOTS = 32  # vectors up to which every dot product is a step of Python
N_ROUNDS, BUDGET_S = 5, 0.02  # of each way and size, at most

Size = Literal["8", "16", "32", "64", "128", "256"]
Times = Mapping[str, tuple[float | None, ...]]  # milliseconds at each of SIZES, by the way


class ParallelRequest(LessonRequest):
    """A number of vectors, and which measurement."""

    n: Size = Field("32", title="Vectors", description="for the table of times")
    again: int = Field(
        0, ge=0, le=9, title="Measurement", description="another one draws other vectors and measures anew"
    )


class ParallelResult(LessonResult):
    """The same numbers by two ways, and the times of three."""

    products: Heatmap = Field(description="X Xᵀ of the text's tokens, as one product")
    difference: Heatmap = Field(description="dot product by dot product, less that")
    times: Curves
    each: Curves = Field(description="the same for each of the n² dot products")
    facts: Facts


def dot_by_dot(x_ND: Tensor, *, broken: bool = False) -> Tensor:
    """All pairs, (N, N): two loops, a dot product a step.

    >>> dot_by_dot(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[5.0, 11.0], [11.0, 25.0]]
    """
    rows = x_ND.unbind()
    if broken:
        return torch.stack([torch.stack([a @ b * (j >= i) for j, b in enumerate(rows)]) for i, a in enumerate(rows)])
    return torch.stack([torch.stack([a @ b for b in rows]) for a in rows])


def row_by_row(x_ND: Tensor) -> Tensor:
    """All pairs, (N, N): one loop, a vector times the matrix a step."""
    return torch.stack([x_ND @ row_D for row_D in x_ND])


def at_once(x_ND: Tensor) -> Tensor:
    """All pairs, (N, N): one product, and no loop of ours."""
    return x_ND @ x_ND.T


def took(way: Callable[[Tensor], Tensor], x_ND: Tensor) -> float:
    """The ms of a way, from its start until a number of its result can be read."""
    return milliseconds(lambda: way(x_ND)[-1, -1].item(), N_ROUNDS, BUDGET_S)


@lru_cache(maxsize=32)
@torch.inference_mode()
def measured(width: int, again: int, device: torch.device) -> Times:
    """The times on this machine, of random vectors of a width; measured once and kept, to be shown more than once.

    On a processor one thread does it: on a busy machine several wait for each other at every tiny product.
    """
    generator = torch.Generator().manual_seed(again)
    x_ND = torch.randn(max(SIZES), width, generator=generator).to(device)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for way in (dot_by_dot, row_by_row, at_once):
            way(x_ND[: SIZES[0]])  # what torch does only the first time is not what is timed
        return {
            "dot by dot": tuple(took(dot_by_dot, x_ND[:n]) if n <= N_DOTS else None for n in SIZES),
            "row by row": tuple(took(row_by_row, x_ND[:n]) for n in SIZES),
            "one product": tuple(took(at_once, x_ND[:n]) for n in SIZES),
        }
    finally:
        torch.set_num_threads(n_threads)


def times_here(reading: Reading, request: ParallelRequest) -> Times:
    """The times for vectors as wide as the model's, on its device."""
    return measured(reading.config.d_model, request.again, reading.model.network.device)


def _ratio(times: Times, way: str, n: int) -> float:
    at = SIZES.index(n)
    slow, fast = times[way][at], times["one product"][at]
    assert slow is not None and fast is not None
    return slow / fast


def compute(reading: Reading, request: ParallelRequest) -> ParallelResult:
    """The text's products by two ways, and how long the ways take with more vectors."""
    x_TD, names = vectors(reading, "model")
    x_TD, names = x_TD[:N_TOKENS], names[:N_TOKENS]
    at_once_TT = at_once(x_TD)
    off_TT = dot_by_dot(x_TD, broken=request.broken) - at_once_TT
    times, width, n = times_here(reading, request), reading.config.d_model, int(request.n)
    device = reading.model.network.device
    sizes = [float(size) for size in SIZES]
    per_dot = {
        way: [None if ms is None else 1e3 * ms / size**2 for ms, size in zip(all_ms, SIZES, strict=True)]
        for way, all_ms in times.items()
    }
    at_n = {way: all_ms[SIZES.index(n)] for way, all_ms in times.items()}
    return ParallelResult(
        products=signed(f"X Xᵀ, {len(x_TD)} × {len(x_TD)}, as one product", names, names, at_once_TT),
        difference=signed(
            f"dot by dot, less that: at most {off_TT.abs().max():.1g}",
            names,
            names,
            off_TT,
            limit=at_once_TT.abs().max().item(),
        ),
        times=Curves(
            title=f"milliseconds for all pairs of n vectors of {width} features, measured here",
            x_axis="n",
            lines=[Line(name=way, x=sizes, y=list(all_ms)) for way, all_ms in times.items()],
            marker=float(n),
        ),
        each=Curves(
            title="microseconds for each of the n² dot products",
            x_axis="n",
            lines=[Line(name=way, x=sizes, y=y) for way, y in per_dot.items()],
            marker=float(n),
        ),
        facts=facts(
            f"measurement {request.again}, n = {n}",
            {
                "device": device.type,
                "threads": f"1 of {torch.get_num_threads()}",
                f"multiplications, {n}² · {width}": float(n * n * width),
                **{f"{way}, ms": "not measured" if ms is None else ms for way, ms in at_n.items()},
                f"dot by dot / one product, n = {N_DOTS}": _ratio(times, "dot by dot", N_DOTS),
                f"row by row / one product, n = {max(SIZES)}": _ratio(times, "row by row", max(SIZES)),
            },
        ),
    )


@torch.inference_mode()
def checks(reading: Reading, request: ParallelRequest) -> Iterator[Check]:
    """All ways give the same numbers, by as many multiplications; how fast is for nobody to promise."""
    x_TD = vectors(reading, "model")[0][:N_TOKENS]
    n_vectors, width = x_TD.shape
    at_once_TT = at_once(x_TD)
    products, scale_TT = Arithmetic(n_terms=width), product_scales(x_TD, x_TD)
    for way, name in ((partial(dot_by_dot, broken=request.broken), "dot by dot"), (row_by_row, "row by row")):
        yield equal(f"{name}, numbers differ from those of one product by", way(x_TD), at_once_TT, products, scale_TT)
    with FlopCounterMode(display=False) as counter:
        at_once(x_TD)
    additions_too = 2 * n_vectors**2 * width
    yield at_most(
        0,
        abs(counter.get_total_flops() - additions_too),
        f"torch counts n²·d = {n_vectors}² · {width} multiplications and as many additions, to within",
    )
    shortest = min(ms for all_ms in times_here(reading, request).values() for ms in all_ms if ms is not None)
    tick = 1000 * time.get_clock_info("perf_counter").resolution
    yield at_least(tick, shortest, "the shortest time, in milliseconds, is")


LESSON = Lesson(
    system=8,
    title="Many at once",
    posts=(MATRICES, PART_7),
    request_type=ParallelRequest,
    result_type=ParallelResult,
    compute=compute,
    checks=checks,
    breaks="let the loop skip the pairs below the diagonal, and forget to mirror them",
    code=("model/attention.py: scores", "app/lessons/parallel.py: dot_by_dot, row_by_row, at_once"),
)
