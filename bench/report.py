"""Tables of the results: medians with their quartiles, ratios, and targets with whether they are met."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich.table import Table

from bench.contestants import LIVE, REFERENCE
from bench.results import CASES, Batch, Load, Results, Sample

# The most time that LIVE may take, relative to REFERENCE, by the number of tokens.
RATIOS = {
    "first": {8: 0.5, 32: 0.5, 128: 0.55, 512: 0.6, 1024: 0.6},
    "appended": {8: 0.35, 32: 0.25, 128: 0.10, 512: 0.03, 1024: 0.015},
}
APPENDED_BYTES = {128: 60_000}
BATCH_RATIO = 2.5  # the time of eight texts relative to one
TYPISTS_P95_MS = {16: 200.0}
EIGHT_TRACES_MB = 2_500.0


@dataclass(frozen=True)
class Spread:
    """A median and the two quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles.

    >>> print(spread([1.0, 2.0, 3.0, 4.0, 100.0]))
    3.00 (2.00–4.00)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 50)
    2.0
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


@dataclass(frozen=True)
class Target:
    """An upper limit, and the value that was measured."""

    name: str
    limit: float
    measured: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the measured value is within the limit."""
        return self.measured <= self.limit


def targets(results: Results) -> list[Target]:
    """All targets that this run has measurements for."""
    return [
        *_ratio_targets(results.samples),
        *_byte_targets(results.samples),
        *_batch_targets(results.batches),
        *_typist_targets(results.loads),
        *_memory_targets(results.eight_traces_mb),
    ]


def ratio(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> float | None:
    """A contestant's median time relative to REFERENCE for texts of the same length; None if not measured."""
    times_ms = _ms(samples, contestant, case, n_tokens)
    reference_ms = _ms(samples, REFERENCE, "first", n_tokens)
    return median(times_ms) / median(reference_ms) if times_ms and reference_ms else None


def times(samples: Sequence[Sample]) -> Table:
    """Times: one row per contestant and case, one column per number of tokens."""
    table = _table("ms: median (quartiles)", samples)
    for contestant, case in _rows(samples):
        cells = [_ms(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        table.add_row(_label(samples, contestant, case), *(str(spread(cell)) if cell else "" for cell in cells))
    return table


def ratios(samples: Sequence[Sample]) -> Table:
    """The same times relative to REFERENCE."""
    table = _table(f"median relative to “{REFERENCE}”", samples)
    for contestant, case in _rows(samples):
        cells = [ratio(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        table.add_row(_label(samples, contestant, case), *("" if cell is None else f"{cell:.3f}" for cell in cells))
    return table


def sizes(samples: Sequence[Sample]) -> Table:
    """Sizes of the replies, or of what would be sent."""
    table = _table("kB serialised, or on the wire", samples)
    for contestant, case in _rows([sample for sample in samples if sample.n_bytes]):
        cells = [_bytes(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        texts = [f"{median(cell) / 1e3:,.1f}" if cell else "" for cell in cells]
        table.add_row(_label(samples, contestant, case), *texts)
    return table


def peaks(results: Results) -> Table:
    """Peak memory after the texts of each length."""
    table = _table("peak memory up to here, MB", results.samples)
    peak_mb = {(memory.contestant, memory.n_tokens): memory.peak_mb for memory in results.memory}
    for contestant in dict.fromkeys(memory.contestant for memory in results.memory):
        cells = [peak_mb.get((contestant, n_tokens)) for n_tokens in _lengths(results.samples)]
        table.add_row(contestant, *("" if cell is None else f"{cell:,.0f}" for cell in cells))
    return table


def batches(results: Sequence[Batch]) -> Table:
    """Several texts at once, compared with one."""
    table = Table("texts appended at once", "one, ms", "all, ms", "ratio", box=None)
    for batch in results:
        name = f"{batch.contestant}: {batch.n_texts} texts of {batch.n_tokens} tokens"
        table.add_row(name, str(spread(batch.one_ms)), str(spread(batch.all_ms)), f"{_batch_ratio(batch):.2f}")
    return table


def loads(results: Sequence[Load]) -> Table:
    """Typists, and how long their keys waited for a reply."""
    table = Table("typists", "keys", "keys/s", "ms, p50", "p95", "p99", "no reply", "refused", box=None)
    table.add_column("load generator late, p95")
    for load in results:
        waits = [f"{percentile(load.latency_ms, p):,.0f}" if load.latency_ms else "" for p in (50, 95, 99)]
        keys = f"{load.n_keys:,}", f"{load.n_keys / load.seconds:.1f}"
        late = f"{percentile(load.late_ms, 95):.0f}" if load.late_ms else ""
        table.add_row(str(load.n_typists), *keys, *waits, str(load.n_unanswered), str(len(load.problems)), late)
    return table


def verdicts(targets: Sequence[Target]) -> Table:
    """Targets: limit, measured value, and whether the target is met."""
    table = Table("target", "at most", "measured", "", box=None)
    for target in targets:
        verdict = "[green]met[/]" if target.is_met else "[red]missed[/]"
        limit, measured = f"{target.limit:g}{target.unit}", f"{target.measured:.3g}{target.unit}"
        table.add_row(target.name, limit, measured, verdict)
    return table


def _ratio_targets(samples: Sequence[Sample]) -> Iterable[Target]:
    for case, limits in RATIOS.items():
        for n_tokens, limit in limits.items():
            if (measured := ratio(samples, LIVE, case, n_tokens)) is not None:
                yield Target(f"{CASES[case]}, {n_tokens:,} tokens: time relative to transformers", limit, measured)


def _byte_targets(samples: Sequence[Sample]) -> Iterable[Target]:
    for n_tokens, limit in APPENDED_BYTES.items():
        if n_bytes := _bytes(samples, LIVE, "appended", n_tokens):
            name = f"one word appended, {n_tokens} tokens: on the wire"
            yield Target(name, limit / 1e3, median(n_bytes) / 1e3, " kB")


def _batch_targets(batches: Iterable[Batch]) -> Iterable[Target]:
    for batch in batches:
        name = f"{batch.n_texts} texts appended at once, relative to one: {batch.contestant}"
        yield Target(name, BATCH_RATIO, _batch_ratio(batch))


def _typist_targets(loads: Iterable[Load]) -> Iterable[Target]:
    for load in loads:
        if load.n_typists in TYPISTS_P95_MS and load.latency_ms:
            measured = percentile(load.latency_ms, 95)
            yield Target(f"{load.n_typists} typists: p95", TYPISTS_P95_MS[load.n_typists], measured, " ms")


def _memory_targets(eight_traces_mb: float | None) -> Iterable[Target]:
    if eight_traces_mb is not None:
        yield Target("peak memory, 8 traces of 1,024 tokens", EIGHT_TRACES_MB, eight_traces_mb, " MB")


def _table(title: str, samples: Sequence[Sample]) -> Table:
    """An empty table with one column per number of tokens."""
    table = Table(box=None)
    table.add_column(title, no_wrap=True)
    for n_tokens in _lengths(samples):
        table.add_column(f"{n_tokens:,} tokens", justify="right", no_wrap=True)
    return table


def _lengths(samples: Iterable[Sample]) -> list[int]:
    return sorted({sample.n_tokens for sample in samples})


def _rows(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """Every contestant with each of its cases: peers by name, then Lookback; the order of the samples varies."""
    cases = list(CASES)
    rows = {(sample.contestant, sample.case) for sample in samples}
    return sorted(rows, key=lambda row: (row[0].startswith("Lookback"), row[0], cases.index(row[1])))


def _label(samples: Iterable[Sample], contestant: str, case: str) -> str:
    """A row's name. A peer reads everything again after every edit, so its first readings stand for every edit."""
    only_first = all(sample.case == "first" for sample in samples if sample.contestant == contestant)
    return f"{contestant}: {'any edit' if only_first else CASES[case]}"


def _ms(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> list[float]:
    return [s.ms for s in samples if (s.contestant, s.case, s.n_tokens) == (contestant, case, n_tokens)]


def _bytes(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> list[int]:
    return [s.n_bytes for s in samples if (s.contestant, s.case, s.n_tokens) == (contestant, case, n_tokens)]


def _batch_ratio(batch: Batch) -> float:
    return median(batch.all_ms) / median(batch.one_ms)


def _short(value: float) -> str:
    """Three significant digits, or a whole number if there are more digits before the point.

    >>> [_short(value) for value in (1234.5, 123.45, 12.345, 1.2345)]
    ['1,234', '123', '12.3', '1.23']
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
