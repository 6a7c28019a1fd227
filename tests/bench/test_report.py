"""Medians, ratios and targets."""

from pathlib import Path

import pytest

from bench import report
from bench.contestants import LIVE, REFERENCE
from bench.measure import Disagreement, check_agreement
from bench.results import Batch, Load, Results, Sample, from_file


def sample(contestant: str, ms: float, *, case: str = "first", n_tokens: int = 128, n_bytes: int = 0) -> Sample:
    return Sample(contestant, n_tokens, case, ms, n_bytes, top_logit=20.0)


@pytest.fixture
def results() -> Results:
    """Transformers takes 100 ms; this app 40 for a first reading, and 20 for an appended word, which is too long."""
    run = Results(machine={}, settings={})
    run.samples += [sample(REFERENCE, ms) for ms in (90.0, 100.0, 900.0)]
    run.samples += [sample(LIVE, 40.0), sample(LIVE, 20.0, case="appended", n_bytes=35_000)]
    run.batches.append(Batch(LIVE, 8, 32, one_ms=[10.0, 20.0, 30.0], all_ms=[50.0]))
    load = Load(16, 10.0, n_keys=20, n_unanswered=0, problems=[], latency_ms=[], late_ms=[1.0], n_bytes=0)
    load.latency_ms.extend(float(ms) for ms in range(1, 21))
    run.loads.append(load)
    return run


def test_a_ratio_compares_medians(results: Results) -> None:
    assert report.ratio(results.samples, LIVE, "first", 128) == pytest.approx(0.4)
    assert report.ratio(results.samples, LIVE, "first", 512) is None


def test_targets_are_met_or_missed(results: Results) -> None:
    verdicts = {target.name: (target.measured, target.is_met) for target in report.targets(results)}
    assert verdicts == {
        "first reading, 128 tokens: time relative to transformers": (pytest.approx(0.4), True),
        "one word appended, 128 tokens: time relative to transformers": (pytest.approx(0.2), False),
        "one word appended, 128 tokens: on the wire": (35.0, True),
        f"8 texts appended at once, relative to one: {LIVE}": (2.5, True),
        "16 typists: p95": (19.0, True),
    }


def test_the_median_lies_between_the_quartiles() -> None:
    assert str(report.spread([4.0, 1.0, 2.0, 3.0, 100.0])) == "3.00 (2.00–4.00)"
    assert str(report.spread([1234.5])) == "1,234 (1,234–1,234)"


@pytest.mark.parametrize(("percent", "expected"), [(50, 10.0), (95, 19.0), (99, 20.0), (100, 20.0)])
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert report.percentile([float(ms) for ms in range(20, 0, -1)], percent) == expected


def test_written_results_can_be_loaded(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert from_file(tmp_path / "results.json") == results


def test_contestants_with_different_logits_are_an_error() -> None:
    deviating = Sample(LIVE, 128, "first", 1.0, 0, top_logit=20.02)
    with pytest.raises(Disagreement, match=r"20\.0200 where .* computes 20\.0000, for the same 128 tokens"):
        check_agreement([sample(REFERENCE, 1.0), deviating])
    check_agreement([sample(REFERENCE, 1.0), sample(LIVE, 1.0)])
