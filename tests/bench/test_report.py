"""Medians, ratios and verdicts."""

from pathlib import Path

import pytest

from bench import report
from bench.contestants import BASE, LIVE
from bench.measure import Disagreement, check
from bench.results import Batch, Load, Results, Sample, from_file


def sample(contestant: str, ms: float, *, case: str = "first", n_tokens: int = 128, n_bytes: int = 0) -> Sample:
    return Sample(contestant, n_tokens, case, ms, n_bytes, top_logit=20.0)


@pytest.fixture
def results() -> Results:
    """Transformers takes 100 ms; the first reading here 40, an appended word 20, which is too long."""
    found = Results(machine={}, settings={})
    found.samples += [sample(BASE, ms) for ms in (90.0, 100.0, 900.0)]
    found.samples += [sample(LIVE, 40.0), sample(LIVE, 20.0, case="appended", n_bytes=35_000)]
    found.batches.append(Batch(LIVE, 8, 32, one_ms=[10.0, 20.0, 30.0], all_ms=[50.0]))
    load = Load(16, 10.0, n_keys=20, n_unanswered=0, problems=[], latency_ms=[], late_ms=[1.0], n_bytes=0)
    load.latency_ms.extend(float(ms) for ms in range(1, 21))
    found.loads.append(load)
    return found


def test_a_ratio_is_one_of_medians(results: Results) -> None:
    assert report.ratio(results.samples, LIVE, "first", 128) == pytest.approx(0.4)
    assert report.ratio(results.samples, LIVE, "first", 512) is None


def test_targets_are_met_or_missed(results: Results) -> None:
    verdicts = {target.name: (target.found, target.met) for target in report.targets(results)}
    assert verdicts == {
        "first reading, 128 tokens: share of transformers' time": (pytest.approx(0.4), True),
        "one word appended, 128 tokens: share of transformers' time": (pytest.approx(0.2), False),
        "one word appended, 128 tokens: on the wire": (35.0, True),
        f"8 texts appended at once beside one: {LIVE}": (2.5, True),
        "16 typists: p95": (19.0, True),
    }


def test_the_median_lies_between_the_quartiles() -> None:
    assert str(report.spread([4.0, 1.0, 2.0, 3.0, 100.0])) == "3.00 (2.00–4.00)"
    assert str(report.spread([1234.5])) == "1,234 (1,234–1,234)"


@pytest.mark.parametrize(("percent", "found"), [(50, 10.0), (95, 19.0), (99, 20.0), (100, 20.0)])
def test_a_percentile_is_one_of_the_values(percent: float, found: float) -> None:
    assert report.percentile([float(ms) for ms in range(20, 0, -1)], percent) == found


def test_what_is_written_can_be_read_again(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert from_file(tmp_path / "results.json") == results


def test_contestants_that_read_something_else_are_found_out() -> None:
    other = Sample(LIVE, 128, "first", 1.0, 0, top_logit=20.02)
    with pytest.raises(Disagreement, match=r"20\.0200 where .* finds 20\.0000, for the same 128 tokens"):
        check([sample(BASE, 1.0), other])
    check([sample(BASE, 1.0), sample(LIVE, 1.0)])
