"""S12: the sums are what the first layer of the model gets; similarities and weights are those of NumPy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from app.experiments.panels import Heatmap
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, named, values

Matrix = NDArray[np.float64]


def vectors(loaded: LoadedModel, text: str) -> tuple[Matrix, Matrix]:
    """Token vectors, and the input of the first layer, from a pass of the network."""
    token_TM, sum_TM = (
        captured(loaded, text, loaded.network.embed)[1],
        captured(loaded, text, loaded.network.blocks[0])[0],
    )
    return token_TM.detach().numpy(), sum_TM.detach().numpy()


def cosines(x: Matrix) -> Matrix:
    """The cosine of all pairs of rows."""
    lengths = np.linalg.norm(x, axis=1)
    cosine: Matrix = x @ x.T / np.outer(lengths, lengths)
    return cosine


@pytest.mark.parametrize("factor", [1, 0.5])
def test_the_vectors_of_both_tokens_are_those_of_the_pass(lookback_gpt: LoadedModel, factor: float) -> None:
    work = make_work(lookback_gpt, "input-embedding", SENTENCE, token=1, other_token=4, position_scale=factor)
    panel, (token, total) = panels_of(work)["vectors"], vectors(lookback_gpt, SENTENCE)
    position = factor * (total - token)
    expected = [row for at in (1, 4) for row in (token[at], position[at], token[at] + position[at])]
    assert_near(values(panel), expected)


@pytest.mark.parametrize("factor", [0, 0.5, 1, 2])
def test_similarities_and_weights_are_those_of_numpy(lookback_gpt: LoadedModel, factor: float) -> None:
    work = make_work(lookback_gpt, "input-embedding", LONG, token=2, other_token=7, position_scale=factor)
    panels, (token, total) = panels_of(work), vectors(lookback_gpt, LONG)
    x = token + factor * (total - token)
    assert_near(values(panels["token_cosines"]), cosines(token))
    assert_near(values(panels["sum_cosines"]), cosines(x))
    powers = np.exp(x @ x.T)
    assert_near(values(panels["weights"]), powers / powers.sum(1, keepdims=True))
    expected = [cosines(token)[2, 7], token[2] @ token[7], cosines(x)[2, 7], x[2] @ x[7]]
    assert_near(list(named(panels["facts"]).values()), expected)


def test_without_positions_two_equal_tokens_are_the_same_vector(lookback_gpt: LoadedModel) -> None:
    scales = (0, 1)
    without, with_positions = (
        named(panels_of(make_work(lookback_gpt, "input-embedding", SENTENCE, position_scale=scale))["facts"])
        for scale in scales
    )  # the first "the", and the second, which is found by itself
    assert without["cosine similarity, sums"] == pytest.approx(1, abs=1e-6)
    assert with_positions["cosine similarity, token vectors"] == pytest.approx(1, abs=1e-6)
    assert with_positions["cosine similarity, sums"] < 0.99  # type: ignore[operator]


def test_broken_adds_the_vector_of_the_position_before(lookback_gpt: LoadedModel) -> None:
    work = make_work(lookback_gpt, "input-embedding", SENTENCE, token=1, other_token=4, broken=True)
    panel, (token, total) = panels_of(work)["vectors"], vectors(lookback_gpt, SENTENCE)
    assert_near(values(panel)[[1, 4]], (total - token)[[0, 3]])


def test_a_token_is_compared_with_itself_only_if_it_is_chosen_twice(lookback_gpt: LoadedModel) -> None:
    alone, twice = (
        panels_of(make_work(lookback_gpt, "input-embedding", SENTENCE, token=1, other_token=second))
        for second in (None, 1)
    )
    assert isinstance(alone["vectors"], Heatmap)
    assert isinstance(twice["vectors"], Heatmap)
    assert [row.partition(": ")[0] for row in alone["vectors"].rows] == ["1 ·fat"] * 3
    assert [row.partition(": ")[0] for row in twice["vectors"].rows] == ["1 ·fat"] * 3 + ["1 ·fat again"] * 3
    assert list(named(alone["facts"])) == ["the same token again"]
