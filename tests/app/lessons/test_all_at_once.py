"""S15: one product gives the scores of a loop over pairs, and rows or columns of weights sum to 1."""

import pytest
import torch
from torch import Tensor

from app.experiments.panels import AnyPanel, Bars, Heatmap
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, values

PRINTED_SCORES = [  # chapter 3.3.2
    [0.9995, 0.9544, 0.9422, 0.4753, 0.4576, 0.6310],
    [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865],
    [0.9422, 1.4754, 1.4570, 0.8296, 0.7154, 1.0605],
    [0.4753, 0.8434, 0.8296, 0.4937, 0.3474, 0.6565],
    [0.4576, 0.7070, 0.7154, 0.3474, 0.6654, 0.2935],
    [0.6310, 1.0865, 1.0605, 0.6565, 0.2935, 0.9450],
]
PRINTED_WEIGHTS = [
    [0.2098, 0.2006, 0.1981, 0.1242, 0.1220, 0.1452],
    [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581],
    [0.1390, 0.2369, 0.2326, 0.1242, 0.1108, 0.1565],
    [0.1435, 0.2074, 0.2046, 0.1462, 0.1263, 0.1720],
    [0.1526, 0.1958, 0.1975, 0.1367, 0.1879, 0.1295],
    [0.1385, 0.2184, 0.2128, 0.1420, 0.0988, 0.1896],
]


def shown(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "all-at-once", text, **controls))


def looped(loaded: LoadedModel, text: str) -> Tensor:
    """The dot product of each pair of inputs of the first layer."""
    x_TM = captured(loaded, text, loaded.network.blocks[0])[0]
    return torch.tensor([[torch.dot(a_M, b_M).item() for b_M in x_TM] for a_M in x_TM], dtype=torch.double)


def test_the_book_s_tables_come_out(loaded: LoadedModel) -> None:
    panels = shown(loaded, source="book")
    torch.testing.assert_close(values(panels["scores"]), torch.tensor(PRINTED_SCORES).double(), rtol=0, atol=6e-5)
    torch.testing.assert_close(values(panels["weights"]), torch.tensor(PRINTED_WEIGHTS).double(), rtol=0, atol=6e-5)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_scores_weights_and_sums_are_those_of_a_loop(loaded: LoadedModel, axis: str) -> None:
    panels, score_TT = shown(loaded, LONG, axis=axis), looped(loaded, LONG)
    power_TT = (score_TT - score_TT.max()).exp()
    sum_TT = power_TT.sum(1, keepdim=True) if axis == "rows" else power_TT.sum(0, keepdim=True)
    weight_TT = power_TT / sum_TT
    assert_near(values(panels["scores"]), score_TT)
    assert_near(values(panels["weights"]), weight_TT, relative=1e-3)
    assert_near(values(panels["row_sums"]), torch.tensor([sum(row) for row in weight_TT.tolist()]), relative=1e-3)
    assert_near(values(panels["column_sums"]), torch.tensor([sum(row) for row in weight_TT.T.tolist()]), relative=1e-3)
    ones = values(panels["row_sums" if axis == "rows" else "column_sums"])
    assert ones.tolist() == pytest.approx([1] * len(ones))


@pytest.mark.parametrize(("fraction", "n_filled"), [(0.0, 0), (0.2, 10), (0.5, 24), (1.0, 49)])
def test_the_loop_fills_row_after_row(loaded: LoadedModel, fraction: float, n_filled: int) -> None:
    scores = shown(loaded, fraction_filled=fraction)["scores"]
    filled = [not number for number in values(scores).isnan().flatten()]
    assert filled == [True] * n_filled + [False] * (49 - n_filled)
    assert scores.title == f"Scores X Xᵀ, {n_filled} of 49 dot products"
    assert isinstance(scores, Heatmap)
    assert scores.selects == ("query", "key")


@pytest.mark.parametrize(("query", "key", "cell"), [(None, 0, (6, 0)), (2, 4, (2, 4)), (99, None, (6, 6))])
def test_the_products_of_two_tokens_add_up_to_their_score(
    loaded: LoadedModel, query: int | None, key: int | None, cell: tuple[int, int]
) -> None:
    panels = shown(loaded, query=query, key=key)
    x_TM = captured(loaded, SENTENCE, loaded.network.blocks[0])[0]
    product_M = x_TM[cell[0]] * x_TM[cell[1]]
    products = panels["products"]
    assert isinstance(products, Bars)
    assert_near(values(products), product_M[:48])
    assert products.title.endswith(f"their sum is the score {values(panels['scores'])[cell].item():.4g}")
    if len(product_M) <= 48:  # of a small model, all are shown
        assert values(products).sum().item() == pytest.approx(looped(loaded, SENTENCE)[cell].item(), abs=1e-4)


def test_broken_takes_the_softmax_over_the_other_axis(loaded: LoadedModel) -> None:
    wrong, columns = shown(loaded, broken=True), shown(loaded, axis="columns")
    assert values(wrong["weights"]).tolist() == values(columns["weights"]).tolist()
    assert not torch.allclose(values(wrong["row_sums"]), torch.ones(7).double())
