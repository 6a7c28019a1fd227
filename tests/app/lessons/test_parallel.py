"""S08: three methods give the numbers of NumPy, and the times are shown as they were measured."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from app.experiments.base import N_SAMPLES, PanelProgress
from app.experiments.panels import Curves
from app.lessons import parallel
from app.lessons.parallel import METHODS, N_MOST_LOOPED, VECTOR_COUNTS, dot_by_dot, measured_times, method_milliseconds
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, captured, lines, named, number, values

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _measure_briefly_and_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "TIMING_BUDGET_S", 1e-9)
    monkeypatch.setattr(parallel, "_times", {})


def known_time(method: object, x_ND: Tensor) -> float:
    """A time in ms that can be computed in the head: 4 per dot product, 2 per row, or 1."""
    n = len(x_ND)
    return {"dot_by_dot": 4.0 * n * n, "row_by_row": 2.0 * n}.get(method.__name__, 1.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_all_dot_products(name: str) -> None:
    assert METHODS[name](torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[5.0, 11.0], [11.0, 25.0]]
    x_ND = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    assert_close(METHODS[name](x_ND), torch.from_numpy(np.einsum("id,jd->ij", x_ND, x_ND)))


def test_broken_loops_leave_out_the_pairs_below_the_diagonal() -> None:
    assert dot_by_dot(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), broken=True).tolist() == [[5.0, 11.0], [0.0, 25.0]]


def test_the_products_are_those_of_the_vectors_that_enter_the_first_layer(loaded: LoadedModel) -> None:
    x_TM = captured(loaded, LONG, loaded.network.blocks[0])[0][:N_SAMPLES]
    correct, wrong = (panels_of(make_work(loaded, "parallel", LONG, broken=broken)) for broken in (False, True))
    assert_close(values(correct["products"]), x_TM @ x_TM.T, rtol=1e-4, atol=1e-5)
    assert_close(values(correct["difference"]), torch.zeros(N_SAMPLES, N_SAMPLES).double(), rtol=0, atol=1e-4)
    assert_close(values(wrong["difference"]), -(x_TM @ x_TM.T).tril(-1), rtol=1e-4, atol=1e-4)


def test_times_per_product_and_speedups_follow_from_the_times(
    lookback_gpt: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "method_milliseconds", known_time)
    panels = panels_of(make_work(lookback_gpt, "parallel", SENTENCE, n_vectors="64"))
    times, per_product, facts = lines(panels["times"]), lines(panels["times_per_product"]), panels["facts"]
    assert times["row by row"].tolist() == [2.0 * n for n in VECTOR_COUNTS]
    assert times["dot by dot"][:3].tolist() == [4.0 * n * n for n in (8, 16, 32)]
    assert times["dot by dot"][3:].isnan().all()
    assert per_product["dot by dot"][:3].tolist() == [4000.0] * 3  # microseconds
    assert per_product["one product"].tolist() == [1000 / n**2 for n in VECTOR_COUNTS]
    assert number(facts, f"dot by dot / one product, n = {N_MOST_LOOPED}") == 4 * 32 * 32
    assert number(facts, "row by row / one product, n = 256") == 512
    shown = named(facts)
    assert (shown["dot by dot, ms"], shown["row by row, ms"], shown["one product, ms"]) == ("not measured", 128.0, 1.0)
    width = lookback_gpt.network.config.d_model
    assert shown[f"multiplications, 64² · {width}"] == 4096 * width
    curves = panels["times"]
    assert isinstance(curves, Curves)
    assert curves.marker == 64


def test_a_measurement_yields_after_each_time_and_is_made_once() -> None:
    steps = measured_times(8, 0, CPU)
    n_all = len(METHODS) * len(VECTOR_COUNTS)
    assert list(steps) == [PanelProgress(done, n_all) for done in range(1, n_all + 1)]
    assert list(measured_times(8, 0, CPU)) == []
    assert next(measured_times(8, 1, CPU)) == PanelProgress(1, n_all)  # other vectors


def test_a_measurement_runs_in_one_thread_and_restores_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    n_threads = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: n_threads.__setitem__(0, n))
    seen = []

    def method(x_ND: Tensor) -> Tensor:
        seen.append(n_threads[0])
        if len(seen) > 1:
            raise ValueError("a method that fails")
        return x_ND

    with pytest.raises(ValueError, match="a method that fails"):
        method_milliseconds(method, torch.ones(8, 8))
    assert (seen, n_threads) == ([1, 1], [3])
