"""Tables of what changes of the model and experiments cost, and their targets."""

from collections.abc import Iterable, Sequence
from statistics import median

from rich.table import Table

from bench.edited import ABLATION, CUT, CUT_UPPER, HEAD, HEAD_UPPER
from bench.report import Target, percentile, spread
from bench.results import Beside, Edited, Pair, Results, Sweep

# The most time, relative to the reference of each pair.
LIMITS = {ABLATION: 2.5, CUT: 1.1, HEAD: 1.1, CUT_UPPER: 1.0, HEAD_UPPER: 1.0}
STEP_MS = 200.0  # a typist waits for a step of a sweep
BESIDE_RATIO = 3.0  # the 95th percentile of a key's wait beside an experiment, relative to that alone


def targets(results: Results) -> list[Target]:
    """All targets of this file that a run has measurements for."""
    return [*(_edited_targets(results.edited) if results.edited else ()), *_beside_targets(results.besides)]


def ratio(pair: Pair) -> float:
    """The median time relative to the median of the reference."""
    return median(pair.ms) / median(pair.reference_ms)


def low_ratio(pair: Pair) -> float:
    """The lower quartiles in the same relation: what is left when other work of the machine disturbs both."""
    return spread(pair.ms).low / spread(pair.reference_ms).low


def beside_ratio(item: Beside, besides: Iterable[Beside]) -> float | None:
    """The 95th percentile beside one experiment, relative to that of all typists alone; None without replies."""
    alone_ms = [ms for measured in besides for ms in measured.alone.latency_ms]
    beside_ms = item.beside.latency_ms
    return percentile(beside_ms, 95) / percentile(alone_ms, 95) if alone_ms and beside_ms else None


def pairs(results: Sequence[Pair]) -> Table:
    """Each pair: both times, and their ratio."""
    table = Table("edits: ms, median (quartiles)", "", "relative to", "", "ratio", "of lower quartiles", box=None)
    for pair in results:
        times = pair.name, str(spread(pair.ms)), pair.reference, str(spread(pair.reference_ms))
        table.add_row(*times, f"{ratio(pair):.2f}", f"{low_ratio(pair):.2f}")
    return table


def sweep(result: Sweep) -> Table:
    """The sweep over all heads at all tokens."""
    table = Table("every head at every token", "seconds", "steps", "step, ms", "longest, ms", box=None)
    steps_ms = result.steps_ms
    name, seconds = f"{result.n_heads} heads, {result.n_tokens} tokens", sum(steps_ms) / 1e3
    table.add_row(name, f"{seconds:.1f}", str(len(steps_ms)), str(spread(steps_ms)), f"{max(steps_ms):.0f}")
    return table


def besides(results: Sequence[Beside]) -> Table:
    """How long keys waited alone and beside each experiment."""
    columns = "runs", "alone: keys", "ms, p50", "p95", "beside: keys", "ms, p50", "p95", "no reply", "p95, ratio"
    table = Table("one typist beside", *columns, box=None)
    for item in results:
        cells = [item.experiment, str(item.n_runs)]
        for load in (item.alone, item.beside):
            waits = [f"{percentile(load.latency_ms, p):,.0f}" if load.latency_ms else "" for p in (50, 95)]
            cells += [str(load.n_keys), *waits]
        value = beside_ratio(item, results)
        table.add_row(*cells, str(item.beside.n_unanswered), "" if value is None else f"{value:.2f}")
    return table


def _edited_targets(edited: Edited) -> Iterable[Target]:
    for pair in edited.pairs:
        yield Target(f"{pair.name}: time relative to {pair.reference}", LIMITS[pair.name], ratio(pair))
    yield Target("every head at every token: longest step", STEP_MS, max(edited.sweep.steps_ms), " ms")


def _beside_targets(besides: Sequence[Beside]) -> Iterable[Target]:
    for item in besides:
        if (measured := beside_ratio(item, besides)) is not None:
            name = f"one typist beside {item.experiment}: p95 relative to that alone"
            yield Target(name, BESIDE_RATIO, measured)
