"""Ratios of edits, and of a key's wait beside an experiment."""

from pathlib import Path

import pytest

from bench import edit_report
from bench.edited import ABLATION, CUT, ONE_PASS, TAIL
from bench.results import Beside, Edited, Load, Pair, Results, Sweep, from_file


def load(latency_ms: list[float]) -> Load:
    return Load(1, 10.0, len(latency_ms), n_unanswered=0, problems=[], latency_ms=latency_ms, late_ms=[], n_bytes=0)


@pytest.fixture
def results() -> Results:
    """An ablation takes twice a pass, a cut 1.5 times its tail; keys wait 4 times as long beside one experiment."""
    run = Results(machine={}, settings={})
    pairs = [
        Pair(ABLATION, ONE_PASS, 128, ms=[190.0, 200.0, 900.0], reference_ms=[90.0, 100.0, 110.0]),
        Pair(CUT, TAIL, 128, ms=[30.0], reference_ms=[20.0]),
    ]
    run.edited = Edited(pairs, Sweep(270, 32, steps_ms=[50.0, 70.0, 60.0]))
    run.besides.append(Beside("dropout", 3, alone=load([10.0, 11.0]), beside=load([5.0, 48.0])))
    run.besides.append(Beside("parallel", 2, alone=load([12.0]), beside=load([24.0])))
    return run


def test_targets_are_met_or_missed(results: Results) -> None:
    verdicts = {target.name: (target.measured, target.is_met) for target in edit_report.targets(results)}
    assert verdicts == {
        f"{ABLATION}: time relative to {ONE_PASS}": (2.0, True),
        f"{CUT}: time relative to {TAIL}": (1.5, False),
        "every head at every token: longest step": (70.0, True),
        "one typist beside dropout: p95 relative to that alone": (4.0, False),
        "one typist beside parallel: p95 relative to that alone": (2.0, True),
    }


def test_what_was_not_measured_has_no_target() -> None:
    assert edit_report.targets(Results(machine={}, settings={})) == []


def test_one_disturbed_round_changes_neither_ratio(results: Results) -> None:
    assert results.edited
    ablation, _ = results.edited.pairs
    assert edit_report.ratio(ablation) == 2.0
    assert edit_report.low_ratio(ablation) == pytest.approx(195 / 95)


def test_a_wait_is_compared_with_all_typists_alone(results: Results) -> None:
    dropout, parallel = results.besides
    assert edit_report.beside_ratio(dropout, [dropout]) == pytest.approx(48 / 11)
    assert edit_report.beside_ratio(dropout, [dropout, parallel]) == pytest.approx(48 / 12)


def test_without_a_reply_there_is_no_ratio() -> None:
    unanswered = Beside("dropout", 1, load([1.0]), load([]))
    assert edit_report.beside_ratio(unanswered, [unanswered]) is None


def test_written_results_can_be_loaded(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert from_file(tmp_path / "results.json") == results


def test_every_table_has_a_row_per_result(results: Results) -> None:
    assert results.edited
    assert edit_report.pairs(results.edited.pairs).row_count == 2
    assert edit_report.sweep(results.edited.sweep).row_count == 1
    assert edit_report.besides(results.besides).row_count == 2
