"""Runs experiments without an app, for tests of their numbers."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from app.engine import Reading
from app.experiments.base import PanelProgress, Round, Work, experiments, run_checks, run_panels
from app.experiments.checks import Check
from app.experiments.panels import AnyPanel
from app.models import LoadedModel
from model.reading import read
from model.sites import ObservedSite
from model.trace import Trace


@lru_cache(maxsize=200)
def trace_of(loaded: LoadedModel, ids: tuple[int, ...], sites: frozenset[ObservedSite]) -> Trace:
    """The trace of a text, read once for all tests."""
    return read(loaded.network, ids, sites=sites)


def make_work(loaded: LoadedModel, slug: str, text: str, **controls: object) -> Work:
    """An experiment on a text that is read; its further readings are not."""
    experiment, tokens = experiments()[slug], loaded.tokens(text)
    work = experiment.work(loaded, tokens, experiment.controls.model_validate({"text": text, **controls}))
    work.trace = trace_of(loaded, tokens.ids, work.sites)
    return work


def complete_work(loaded: LoadedModel, slug: str, text: str, **controls: object) -> Work:
    """An experiment on a text, with everything read that its panels and checks need."""
    work = make_work(loaded, slug, text, **controls)
    for rounds in (work.readings(), work.check_readings()):
        for readings in rounds:  # one after another: the second may use the traces of the first
            _read_round(work, readings)
    return work


def panels_of(work: Work) -> dict[str, AnyPanel]:
    """All panels by their names."""
    return dict(step for step in _steps(work, run_panels(work)) if isinstance(step, tuple))


def checks_of(work: Work) -> list[Check]:
    """All checks."""
    return [step for step in _steps(work, run_checks(work)) if isinstance(step, Check)]


def _steps(work: Work, steps: Iterable[object]) -> Iterable[object]:
    for step in steps:
        if isinstance(step, Round):
            _read_round(work, step.readings)
        elif not isinstance(step, PanelProgress):
            yield step


def _read_round(work: Work, readings: Mapping[str, Reading]) -> None:
    for name, reading in readings.items():
        work.traces[name] = read(work.network, reading.ids, reading.edits, reading.sites)
