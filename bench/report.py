"""What was measured -> tables: medians with their quartiles, ratios, targets and whether they are met."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich.table import Table

from bench.contestants import BASE, LIVE
from bench.results import CASES, Batch, Load, Results, Sample

# The most that LIVE may take, as a share of what BASE takes for a text of as many tokens.
RATIOS = {
    "first": {8: 0.5, 32: 0.5, 128: 0.55, 512: 0.6, 1024: 0.6},
    "appended": {8: 0.35, 32: 0.25, 128: 0.10, 512: 0.03, 1024: 0.015},
}
APPENDED_BYTES = {128: 60_000}
BATCH_RATIO = 2.5  # eight texts beside one
TYPISTS_P95_MS = {16: 200.0}
EIGHT_TRACES_MB = 2_500.0


@dataclass(frozen=True)
class Spread:
    """A median, and between what lies the middle half."""

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
    """The smallest value that is not exceeded by `percent` of them.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 50)
    2.0
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


@dataclass(frozen=True)
class Target:
    """Something that was promised, and what was found."""

    name: str
    promised: float
    found: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.found <= self.promised


def targets(results: Results) -> list[Target]:
    """All that this run can tell about."""
    return [*_ratio_targets(results.samples), *_byte_targets(results.samples), *_other_targets(results)]


def ratio(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> float | None:
    """A contestant's median as a share of that of BASE, for texts of as many tokens; None if not measured."""
    mine = _ms(samples, contestant, case, n_tokens)
    base = _ms(samples, BASE, "first", n_tokens)
    return median(mine) / median(base) if mine and base else None


def times(samples: Sequence[Sample]) -> Table:
    """A row for each contestant and case, a column for each number of tokens."""
    table = _table("ms: median (quartiles)", samples)
    for contestant, case in _rows(samples):
        found = [_ms(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        table.add_row(_label(samples, contestant, case), *(str(spread(one)) if one else "" for one in found))
    return table


def ratios(samples: Sequence[Sample]) -> Table:
    """The same as shares of what BASE takes."""
    table = _table(f"median, where “{BASE}” is 1", samples)
    for contestant, case in _rows(samples):
        found = [ratio(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        table.add_row(_label(samples, contestant, case), *("" if one is None else f"{one:.3f}" for one in found))
    return table


def sizes(samples: Sequence[Sample]) -> Table:
    """What is sent."""
    table = _table("kB serialised, or on the wire", samples)
    for contestant, case in _rows([sample for sample in samples if sample.n_bytes]):
        found = [_bytes(samples, contestant, case, n_tokens) for n_tokens in _lengths(samples)]
        cells = [f"{median(one) / 1e3:,.1f}" if one else "" for one in found]
        table.add_row(_label(samples, contestant, case), *cells)
    return table


def peaks(results: Results) -> Table:
    """Peak memory, after the texts of each length."""
    table = _table("MB at the most, up to here", results.samples)
    found = {(memory.contestant, memory.n_tokens): memory.peak_mb for memory in results.memory}
    for contestant in dict.fromkeys(memory.contestant for memory in results.memory):
        mine = [found.get((contestant, n_tokens)) for n_tokens in _lengths(results.samples)]
        table.add_row(contestant, *("" if one is None else f"{one:,.0f}" for one in mine))
    return table


def batches(found: Sequence[Batch]) -> Table:
    """Eight texts beside one."""
    table = Table("texts appended at once", "one, ms", "all, ms", "ratio", box=None)
    for one in found:
        name = f"{one.contestant}: {one.n_texts} texts of {one.n_tokens} tokens"
        table.add_row(name, str(spread(one.one_ms)), str(spread(one.all_ms)), f"{_batch_ratio(one):.2f}")
    return table


def loads(found: Sequence[Load]) -> Table:
    """Typists, and how long their keys waited."""
    table = Table("typists", "keys", "keys/s", "ms, p50", "p95", "p99", "no answer", "refused", box=None)
    table.add_column("load generator late, p95")
    for load in found:
        waits = [f"{percentile(load.latency_ms, p):,.0f}" if load.latency_ms else "" for p in (50, 95, 99)]
        keys = f"{load.n_keys:,}", f"{load.n_keys / load.seconds:.1f}"
        late = f"{percentile(load.late_ms, 95):.0f}" if load.late_ms else ""
        table.add_row(str(load.n_typists), *keys, *waits, str(load.n_unanswered), str(len(load.problems)), late)
    return table


def verdicts(found: Sequence[Target]) -> Table:
    """Promised and found."""
    table = Table("target", "at most", "found", "", box=None)
    for one in found:
        word = "[green]met[/]" if one.met else "[red]missed[/]"
        table.add_row(one.name, f"{one.promised:g}{one.unit}", f"{one.found:.3g}{one.unit}", word)
    return table


def _ratio_targets(samples: Sequence[Sample]) -> Iterable[Target]:
    for case, promised in RATIOS.items():
        for n_tokens, most in promised.items():
            if (found := ratio(samples, LIVE, case, n_tokens)) is not None:
                yield Target(f"{CASES[case]}, {n_tokens:,} tokens: share of transformers' time", most, found)


def _byte_targets(samples: Sequence[Sample]) -> Iterable[Target]:
    for n_tokens, most in APPENDED_BYTES.items():
        if found := _bytes(samples, LIVE, "appended", n_tokens):
            yield Target(f"one word appended, {n_tokens} tokens: on the wire", most / 1e3, median(found) / 1e3, " kB")


def _other_targets(results: Results) -> Iterable[Target]:
    for batch in results.batches:
        name = f"{batch.n_texts} texts appended at once beside one: {batch.contestant}"
        yield Target(name, BATCH_RATIO, _batch_ratio(batch))
    for load in results.loads:
        if load.n_typists in TYPISTS_P95_MS and load.latency_ms:
            found = percentile(load.latency_ms, 95)
            yield Target(f"{load.n_typists} typists: p95", TYPISTS_P95_MS[load.n_typists], found, " ms")
    if results.eight_traces_mb is not None:
        yield Target("peak memory, 8 traces of 1,024 tokens", EIGHT_TRACES_MB, results.eight_traces_mb, " MB")


def _table(title: str, samples: Sequence[Sample]) -> Table:
    """A table with a column for each number of tokens."""
    table = Table(box=None)
    table.add_column(title, no_wrap=True)
    for n_tokens in _lengths(samples):
        table.add_column(f"{n_tokens:,} tokens", justify="right", no_wrap=True)
    return table


def _lengths(samples: Iterable[Sample]) -> list[int]:
    return sorted({sample.n_tokens for sample in samples})


def _rows(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """Every contestant with each of its cases, in the order of the names: rounds begin with another one each time."""
    cases = list(CASES)
    found = {(sample.contestant, sample.case) for sample in samples}
    return sorted(found, key=lambda row: (row[0].startswith("Lookback"), row[0], cases.index(row[1])))


def _label(samples: Iterable[Sample], contestant: str, case: str) -> str:
    """A peer reads everything again after every edit, so its first readings stand for all."""
    only_first = all(sample.case == "first" for sample in samples if sample.contestant == contestant)
    return f"{contestant}: {'any edit' if only_first else CASES[case]}"


def _ms(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> list[float]:
    return [s.ms for s in samples if (s.contestant, s.case, s.n_tokens) == (contestant, case, n_tokens)]


def _bytes(samples: Iterable[Sample], contestant: str, case: str, n_tokens: int) -> list[int]:
    return [s.n_bytes for s in samples if (s.contestant, s.case, s.n_tokens) == (contestant, case, n_tokens)]


def _batch_ratio(batch: Batch) -> float:
    return median(batch.all_ms) / median(batch.one_ms)


def _short(value: float) -> str:
    """Three digits that say something.

    >>> [_short(value) for value in (1234.5, 123.45, 12.345, 1.2345)]
    ['1,234', '123', '12.3', '1.23']
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
