"""S18: scaled scores have a smaller spread, and a smaller exponent leaves a row of weights less random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.experiments.panels import AnyPanel, Curves, Heatmap
from app.lessons.scaling import EXPONENTS, entropy_bits, weights_at
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, heads_by_hand, lines, named, values

HEAD = {"layer": 1, "head": 2}


def shown(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "scaling", text, **HEAD | controls))


def entropy(weights: list[float]) -> float:
    return -sum(weight * math.log2(weight) for weight in weights if weight)


def row_at(scores: list[float], divisor: float) -> list[float]:
    """The softmax of scores divided by a number."""
    powers = [math.exp((score - max(scores)) / divisor) for score in scores]
    return [power / sum(powers) for power in powers]


def test_weights_and_entropies_that_can_be_checked_in_the_head() -> None:
    score_TT = torch.tensor([[0.0, 9.0], [0.0, 2 * math.log(3)]])
    assert weights_at(score_TT, 4, 0.5).flatten().tolist() == pytest.approx([1, 0, 0.25, 0.75])
    assert weights_at(score_TT, 4, 0.0).flatten().tolist() == pytest.approx([1, 0, 0.1, 0.9])
    weight_XT = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    assert entropy_bits(weight_XT).tolist() == pytest.approx([0, 1, 2])


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=9), st.integers(1, 64), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_exponent_lowers_the_entropy_of_no_row(
    scores: list[float], width: int, first: float, second: float
) -> None:
    score_TT = torch.tensor(scores, dtype=torch.double).repeat(len(scores), 1)
    smaller_T, larger_T = (entropy_bits(weights_at(score_TT, width, exponent)) for exponent in sorted((first, second)))
    assert (larger_T - smaller_T).min() > -1e-9


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("broken", [False, True])
def test_the_weights_are_the_softmax_of_scores_divided_by_a_power_of_the_width(
    loaded: LoadedModel, exponent: float, broken: bool
) -> None:
    weights = shown(loaded, exponent=exponent, broken=broken)["weights"]
    config, oracle = loaded.network.config, heads_by_hand(loaded, SENTENCE, 1)
    width = config.d_model if broken else config.d_head
    for row, scores in enumerate(oracle.score_HTT[2].tolist()):
        expected = row_at(scores[: row + 1], width**exponent)
        assert values(weights)[row, : row + 1].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert isinstance(weights, Heatmap)
    assert weights.title.endswith(f"scores divided by {width}^{exponent:g}")
    assert weights.selects == ("query", "")
    if exponent == 0.5 and not broken:
        assert_near(values(weights), oracle.weight_HTT[2], relative=1e-3)


@pytest.mark.parametrize("query", [None, 0, 4])
def test_entropy_and_largest_weight_of_a_row_follow_the_exponent(loaded: LoadedModel, query: int | None) -> None:
    panel = shown(loaded, query=query, exponent=0.7)["entropy"]
    row = 6 if query is None else query
    scores = heads_by_hand(loaded, SENTENCE, 1).score_HTT[2, row, : row + 1].tolist()
    rows = [row_at(scores, loaded.network.config.d_head**exponent) for exponent in EXPONENTS]
    curves = lines(panel)
    assert curves["entropy, bits"].tolist() == pytest.approx([entropy(weights) for weights in rows], rel=1e-3, abs=1e-4)
    assert curves["largest weight"].tolist() == pytest.approx([max(weights) for weights in rows], rel=1e-3)
    assert isinstance(panel, Curves)
    assert panel.marker == 0.7
    assert [line.x for line in panel.lines] == [pytest.approx(np.linspace(0, 1, 21).tolist())] * 2


def test_spread_and_histogram_are_those_of_numpy(loaded: LoadedModel) -> None:
    panels, width = shown(loaded, LONG), loaded.network.config.d_head
    score_TT = heads_by_hand(loaded, LONG, 1).score_HTT[2].numpy()
    score_X = score_TT[np.tril_indices(len(score_TT))]
    both = {"q·k": score_X, f"q·k / √{width}": score_X / width**0.5}
    facts = named(panels["spread"])
    deviations = {f"standard deviation of {name}": values.std() for name, values in both.items()}
    assert facts == pytest.approx(deviations | {f"√{width}": width**0.5}, rel=1e-4)
    everything = np.concatenate([*both.values()])
    counted = lines(panels["histogram"])
    for name, own in both.items():
        counts, edges = np.histogram(own, bins=24, range=(everything.min(), everything.max()))
        assert counted[name].sum() == len(score_X)
        # a score at the edge of a bin may round into the next one
        assert np.abs(counted[name].numpy() - counts).sum() <= 4
        histogram = panels["histogram"]
        assert isinstance(histogram, Curves)
        assert histogram.lines[0].x == pytest.approx(((edges[1:] + edges[:-1]) / 2).tolist(), rel=1e-3, abs=1e-3)


def test_without_scaling_wide_random_vectors_give_nearly_all_weight_to_one_key(lookback_gpt: LoadedModel) -> None:
    """NumPy draws other vectors of the same widths."""
    panel = shown(lookback_gpt)["random_vectors"]
    assert isinstance(panel, Curves)
    assert panel.marker == lookback_gpt.network.config.d_head
    widths, generator = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768), np.random.default_rng(1)
    assert panel.lines[0].x == [*widths]
    unscaled, scaled = lines(panel).values()
    for index, width in enumerate(widths):
        score_NT = np.einsum(
            "nkd,nd->nk", generator.standard_normal((1000, 7, width)), generator.standard_normal((1000, width))
        )
        for curve, divisor in ((unscaled, 1.0), (scaled, width**0.5)):
            power_NT = np.exp((score_NT - score_NT.max(1, keepdims=True)) / divisor)
            mean = (power_NT.max(1) / power_NT.sum(1)).mean()
            assert curve[index].item() == pytest.approx(mean, abs=0.06)  # 3 σ of the two samples
    assert unscaled[-1] > 0.9
    assert scaled[-1] < 0.5
