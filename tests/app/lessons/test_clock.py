"""A measurement of the network yields often, and counts only the time of what it runs."""

import math
from collections.abc import Callable, Generator
from typing import TypeVar

import pytest
import torch

from app.experiments.base import PanelProgress
from app.lessons import clock
from app.lessons.clock import (
    TIMED_LENGTHS,
    extrapolated_ms,
    forward_milliseconds,
    growth_exponent,
    hidden_in_steps,
    length_milliseconds,
    milliseconds,
    passes_milliseconds,
    random_ids,
)
from app.lessons.cost import operations
from app.models import LoadedModel

T = TypeVar("T")


class FakeTime:
    """A clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    monkeypatch.setattr(clock, "time", fake := FakeTime())
    return fake


def returned(steps: Generator[object, None, T], on_yield: Callable[[], object] = int) -> T:
    """What a generator returns in the end; `on_yield` is called whenever it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        on_yield()


@pytest.mark.parametrize("step_s", [-1.0, 60.0])
def test_a_pass_in_steps_computes_what_the_network_computes(
    loaded: LoadedModel, step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "STEP_S", step_s)
    network, ids_BT = loaded.network, random_ids(loaded.network, 2, 9)
    n_steps = len(list(hidden_in_steps(network, ids_BT)))
    assert n_steps == (network.config.n_layers if step_s < 0 else 0)
    assert torch.equal(returned(hidden_in_steps(network, ids_BT)), network.hidden(ids_BT))


def test_the_median_leaves_out_the_first_round_unless_it_is_the_only_one(fake_time: FakeTime) -> None:
    durations = iter((9.0, 1.0, 3.0, 2.0))
    assert milliseconds(lambda: setattr(fake_time, "now", fake_time.now + next(durations)), n_rounds=3) == 2000
    durations = iter((9.0,))
    assert milliseconds(lambda: setattr(fake_time, "now", fake_time.now + next(durations)), budget_s=1.0) == 9000


def test_what_runs_between_two_steps_is_not_measured(
    lookback_gpt: LoadedModel, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_steps(*_: object) -> Generator[None, None, None]:
        fake_time.now += 0.01
        yield
        fake_time.now += 0.03

    def other_jobs() -> None:
        fake_time.now += 100.0

    monkeypatch.setattr(clock, "hidden_in_steps", two_steps)
    network = lookback_gpt.network
    progress = PanelProgress(0, 1)
    steps = forward_milliseconds(network, random_ids(network, 1, 4), progress)
    assert returned(steps, other_jobs) == pytest.approx(40.0)
    n_rounds = math.ceil(clock.PASS_BUDGET_S / 0.04)
    assert list(forward_milliseconds(network, random_ids(network, 1, 4), progress)) == [progress] * 2 * n_rounds


def test_passes_are_measured_once_and_not_beyond_the_context(tiny_llama_model: LoadedModel) -> None:
    network = tiny_llama_model.network
    shapes = ((1, 4), (2, 4), (1, network.config.n_context + 1))
    first, second, too_long = returned(passes_milliseconds(network, shapes))
    assert first and second and too_long is None
    assert list(passes_milliseconds(network, shapes)) == []
    assert returned(passes_milliseconds(network, shapes)) == [first, second, None]


def test_no_pass_is_measured_after_the_budget(lookback_gpt: LoadedModel, fake_time: FakeTime) -> None:
    def other_jobs() -> None:
        fake_time.now += 1.0

    n_rounds = clock.N_PASS_ROUNDS + 1  # of the first pass, each of which takes no time by the fake clock
    times = returned(passes_milliseconds(lookback_gpt.network, ((1, 3), (1, 5)), budget_s=n_rounds - 0.5), other_jobs)
    assert times == [0.0, None]


def test_a_time_that_grows_with_the_square_has_the_exponent_2(lookback_gpt: LoadedModel) -> None:
    config = lookback_gpt.network.config
    times = [float(n * n) for n in TIMED_LENGTHS[:-1]]
    assert growth_exponent([*times, None]) == pytest.approx(2)
    assert math.isnan(growth_exponent([1.0, None, None, None, None, None]))
    expected = 128**2 * operations(config, 1000) / operations(config, 128)
    assert extrapolated_ms(config, [*times, None], 1000) == pytest.approx(expected)
    assert math.isnan(extrapolated_ms(config, [None] * 6, 1000))


def test_there_is_a_time_for_each_length(tiny_llama_model: LoadedModel) -> None:
    times = returned(length_milliseconds(tiny_llama_model.network))
    n_context = tiny_llama_model.network.config.n_context
    assert [time is None for time in times] == [n > n_context for n in TIMED_LENGTHS]
