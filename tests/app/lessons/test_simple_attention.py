"""S14: scores, weights and context vector of a query are those of NumPy, and the book's numbers come out."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.experiments.panels import AnyPanel, Bars
from app.lessons.book import BOOK
from app.lessons.simple_attention import normalise
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, captured, values

NORMALISATIONS = {
    "softmax": lambda scores: np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum(),
    "naive softmax": lambda scores: np.exp(scores) / np.exp(scores).sum(),
    "sum": lambda scores: scores / scores.sum(),
}


def shown(loaded: LoadedModel, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "simple-attention", SENTENCE, **controls))


def embedded(loaded: LoadedModel) -> NDArray[np.float64]:
    """What the first layer of the model gets."""
    x_TM: NDArray[np.float64] = captured(loaded, SENTENCE, loaded.network.blocks[0])[0].detach().numpy()
    return x_TM


def test_weights_that_can_be_checked_in_the_head() -> None:
    assert normalise(torch.tensor([1.0, 3.0]), "sum").tolist() == [0.25, 0.75]
    score_T = torch.tensor([1.0, 3.0]).log()
    assert normalise(score_T, "softmax").tolist() == pytest.approx([0.25, 0.75])
    assert normalise(score_T, "naive softmax").tolist() == pytest.approx([0.25, 0.75])


def test_only_the_softmax_that_subtracts_the_largest_score_bears_large_and_opposite_scores() -> None:
    large, opposite = torch.tensor([200.0, 0.0]), torch.tensor([1.0, -1.0])
    assert normalise(large, "softmax").tolist() == [1, 0]
    assert normalise(large, "naive softmax").isnan().any()
    assert normalise(opposite, "sum").isinf().all()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("query", [0, 2, 6])
def test_scores_weights_and_context_are_those_of_numpy(loaded: LoadedModel, normalisation: str, query: int) -> None:
    panels, x_TM = shown(loaded, query=query, normalisation=normalisation), embedded(loaded)
    scores = x_TM @ x_TM[query]
    weights = NORMALISATIONS[normalisation](scores)
    assert_allclose(values(panels["scores"]), scores, rtol=1e-4, atol=1e-5)
    assert_allclose(values(panels["weights"]), weights, rtol=1e-3, atol=1e-4)
    assert_allclose(values(panels["context"]), [x_TM[query], weights @ x_TM], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("fraction", "n_summed"), [(0.0, 0), (0.45, 3), (1.0, 7)])
def test_the_context_vector_grows_token_by_token(loaded: LoadedModel, fraction: float, n_summed: int) -> None:
    panels, x_TM = shown(loaded, query=3, fraction_summed=fraction), embedded(loaded)
    weights = values(panels["weights"]).numpy()
    expected = sum((weights[i] * x_TM[i] for i in range(n_summed)), np.zeros_like(x_TM[0]))
    assert_allclose(values(panels["context"])[1], expected, rtol=1e-4, atol=1e-5)
    assert f"{n_summed} of 7 tokens summed, {x_TM.shape[1]} features" in panels["context"].title


def test_the_second_word_of_the_book_has_the_numbers_that_are_printed(loaded: LoadedModel) -> None:
    panels = shown(loaded, source="book", query=1)
    printed = [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865]
    assert_allclose(values(panels["scores"]), printed, atol=6e-5)
    assert_allclose(values(panels["weights"]), [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581], atol=6e-5)
    assert_allclose(values(panels["context"])[1], [0.4419, 0.6515, 0.5683], atol=6e-5)
    by_sum = shown(loaded, source="book", query=1, normalisation="sum")["weights"]
    assert_allclose(values(by_sum), [0.1455, 0.2278, 0.2249, 0.1285, 0.1077, 0.1656], atol=6e-5)


@pytest.mark.parametrize(
    ("controls", "position"), [({}, 6), ({"query": 99}, 6), ({"query": 1}, 1), ({"source": "book"}, 0)]
)
def test_the_query_is_the_last_token_or_the_book_s_first_unless_one_is_chosen(
    loaded: LoadedModel, controls: dict[str, object], position: int
) -> None:
    scores = shown(loaded, **controls)["scores"]
    assert isinstance(scores, Bars)
    assert scores.chosen == position
    assert scores.selects == "query"
    assert scores.title == f"Scores of {scores.labels[position]}, x · x"


def test_broken_normalises_the_columns(loaded: LoadedModel) -> None:
    wrong = [values(shown(loaded, source="book", query=query, broken=True)["weights"]) for query in range(6)]
    weight_TT = torch.stack(wrong)
    assert weight_TT.sum(0).tolist() == pytest.approx([1] * 6)
    assert_allclose(weight_TT.T, (BOOK.double() @ BOOK.double().T).softmax(1), rtol=1e-4, atol=1e-5)  # symmetric scores
    assert abs(wrong[0].sum().item() - 1) > 0.05
