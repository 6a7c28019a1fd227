"""A run of an experiment: its model, its text, what else it must read, and its panels as they are computed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from app import service
from app.engine import Engine, Reading, ReadingProgress
from app.errors import EditsNotAccepted, TextTooLong, UnsupportedByModel
from app.experiments.base import MAX_TOKENS, Experiment, PanelProgress, Round, Work, run_checks, run_panels
from app.experiments.checks import Check
from app.experiments.controls import Controls, chosen_heads
from app.experiments.panels import AnyPanel
from app.models import LoadedModel, ModelInput
from app.schemas import Timings
from model.trace import Trace

Event = ReadingProgress | PanelProgress | tuple[str, AnyPanel] | Check


class Run(NamedTuple):
    """An experiment with the model and the text of a request; nothing is read yet."""

    experiment: Experiment
    work: Work
    given: ModelInput

    @property
    def model(self) -> LoadedModel:
        """The model that reads the text."""
        return self.work.model


async def prepare(engine: Engine, experiment: Experiment, controls: Controls) -> Run:
    """The model of a request, or if it names none one that has what the experiment needs; and its tokens.

    Raises:
        TextTooLong, UnsupportedByModel, NoSuchHead, EditsNotAccepted: if the experiment cannot be run on them.
    """
    if controls.model is None and not experiment.is_supported_by(engine.models.shape(engine.models.default)[0]):
        controls = controls.model_copy(update={"model": engine.models.fallback})
    given = await service.model_input(engine, controls)
    model, tokens = given.model, given.tokens
    if len(tokens) > MAX_TOKENS:
        raise TextTooLong(len(tokens), MAX_TOKENS, "an experiment", "open it on the first page")
    if not experiment.is_supported_by(model.network.config):
        raise UnsupportedByModel(model.name, experiment.requirement, engine.models.fallback)
    if given.edits and not experiment.accepts_edits:
        raise EditsNotAccepted(experiment.title, str(given.edits))
    model.check_heads(*chosen_heads(controls))
    return Run(experiment, experiment.work(model, tokens, controls), given)


async def stream_panels(
    engine: Engine, run: Run, names: Sequence[str] | None = None
) -> AsyncIterator[tuple[Event, Timings]]:
    """The panels one by one, each with its name, and how far the slow ones are; the timings are those so far."""
    async for event in _events(engine, run, lambda work: run_panels(work, names)):
        yield event


async def stream_checks(engine: Engine, run: Run) -> AsyncIterator[tuple[Event, Timings]]:
    """The checks one by one."""
    async for event in _events(engine, run, run_checks):
        yield event


async def all_panels(
    engine: Engine, run: Run, names: Sequence[str] | None = None
) -> tuple[dict[str, AnyPanel], Timings]:
    """All panels by their names, and the timings of the last one."""
    computed, timings = dict[str, AnyPanel](), Timings(queued_ms=0, computed_ms=0)
    async for event, until_now in stream_panels(engine, run, names):
        timings = until_now
        if isinstance(event, tuple):
            computed[event[0]] = event[1]
    return computed, timings


async def all_checks(engine: Engine, run: Run) -> list[Check]:
    """All checks."""
    return [event async for event, _ in stream_checks(engine, run) if isinstance(event, Check)]


async def _events(
    engine: Engine, run: Run, steps: Callable[[Work], Iterator[Round | Event]]
) -> AsyncIterator[tuple[Event, Timings]]:
    """What the steps of a run yield, except the rounds of readings: those are read here, between two steps."""
    work = run.work

    def view(trace: Trace) -> Iterator[Round | Event]:
        work.trace = trace
        yield from steps(work)

    reading = Reading(work.tokens.ids, run.given.edits, work.sites)
    stream = engine.submit(work.model, reading, view, needs_last_logits=True)
    timings = Timings(queued_ms=0, computed_ms=0)
    try:
        async for event in stream:
            if isinstance(event, ReadingProgress):
                yield event, timings
                continue
            step, timings = event
            if isinstance(step, Round):
                await _read_round(engine, work, step.readings)
                stream.resume()
            else:
                yield step, timings
    finally:
        stream.cancel()


async def _read_round(engine: Engine, work: Work, readings: Mapping[str, Reading]) -> None:
    """Make the readings of a round together, and put their traces into the work."""
    tasks = [asyncio.ensure_future(_read(engine, work.model, reading)) for reading in readings.values()]
    try:
        work.traces |= dict(zip(readings, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:  # if one failed, nobody waits for the others
            task.cancel()


async def _read(engine: Engine, model: LoadedModel, reading: Reading) -> Trace:
    trace, _ = await engine.compute(model, reading, lambda trace: trace, needs_last_logits=True)
    return trace
