"""S02: the matrices are the model's, and every cell of Z is the sum that the page says it is."""

import pytest
import torch
from torch.testing import assert_close

from app.experiments.base import N_SAMPLES
from app.experiments.panels import Bars, Heatmap
from app.lessons.layer import LayerWork, apply_layer, bias_matrix
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, named, number, values


def test_a_layer_of_two_neurons_can_be_checked_in_the_head() -> None:
    w_OI, x_IT, b_O = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]]), torch.ones(2)
    assert apply_layer(w_OI, x_IT, b_O, broken=False).tolist() == [[12.0, 3.0], [-3.0, 0.0]]
    assert apply_layer(w_OI, x_IT, b_O, broken=True).tolist() == [[11.0, 2.0], [-2.0, 1.0]]  # weights 2 and 1, −1 and 0
    assert bias_matrix(torch.tensor([5.0]), 3).tolist() == [[5.0, 5.0, 5.0]]


@pytest.mark.parametrize(("n_outputs", "n_inputs", "layer"), [(4, 6, 0), (2, 8, 1)])
def test_the_pictures_are_corners_of_the_model_and_their_product_is_summed_by_hand(
    loaded: LoadedModel, n_outputs: int, n_inputs: int, layer: int
) -> None:
    work = make_work(loaded, "layer", LONG, layer=layer, n_outputs=n_outputs, n_inputs=n_inputs)
    panels, up = panels_of(work), work.up(layer)
    x_TI, _ = captured(loaded, LONG, up)
    w = up.weight.tolist()
    b = [0.0] * len(w) if up.bias is None else up.bias.tolist()
    assert values(panels["weights"]).tolist() == [row[:n_inputs] for row in w[:n_outputs]]
    assert_near(values(panels["samples"]), x_TI[:N_SAMPLES, :n_inputs].T)
    assert values(panels["bias"]).tolist() == [[bias] * N_SAMPLES for bias in b[:n_outputs]]
    summed = [
        [sum(w[o][i] * x_I[i] for i in range(n_inputs)) + b[o] for x_I in x_TI[:N_SAMPLES].tolist()]
        for o in range(n_outputs)
    ]
    assert_near(values(panels["outputs"]), torch.tensor(summed, dtype=torch.double))


def test_the_terms_of_a_cell_add_up_to_the_cell(loaded: LoadedModel) -> None:
    panels = panels_of(make_work(loaded, "layer", SENTENCE, row=1, token=3, n_inputs=5))
    terms, cell = values(panels["cell_products"]), values(panels["outputs"])[1, 3]
    expected = values(panels["weights"])[1] * values(panels["samples"])[:, 3]
    assert_near(terms[:5], expected)
    assert_near(terms.sum(), cell)
    shown = named(panels["cell_facts"])
    assert [*shown.values()][:6] == values(panels["cell_products"]).tolist()
    assert number(panels["cell_facts"], "sum") == pytest.approx(cell.item(), rel=1e-4, abs=1e-5)
    assert number(panels["cell_facts"], "cell of Z") == cell.item()
    weight, sample = values(panels["weights"])[1, 0].item(), values(panels["samples"])[0, 3].item()
    assert next(iter(shown)) == f"in 0: {weight:.3g} · {sample:.3g}".replace("-", "−")


def test_with_all_its_inputs_the_layer_gives_what_a_hook_sees_in_the_model(loaded: LoadedModel) -> None:
    work = make_work(loaded, "layer", SENTENCE)
    assert isinstance(work, LayerWork)
    up = work.up(0)
    _, output_TO = captured(loaded, SENTENCE, up)
    assert_near(apply_layer(*work.whole, broken=False).double().T, output_TO)
    facts = named(panels_of(work)["layer_facts"])
    assert facts["W"] == f"{output_TO.shape[1]} × {loaded.network.config.d_model}"
    assert facts["bias"] == ("none, shown as zeros" if up.bias is None else f"{len(up.bias)} numbers")


def test_more_outputs_leave_the_rows_of_z_as_they_were(loaded: LoadedModel) -> None:
    few, many = (values(panels_of(make_work(loaded, "layer", SENTENCE, n_outputs=n))["outputs"]) for n in (2, 8))
    assert_close(many[:2], few)


def test_a_row_or_token_beyond_the_corner_means_its_last(lookback_gpt: LoadedModel) -> None:
    panels = panels_of(make_work(lookback_gpt, "layer", LONG, n_outputs=3, row=7, token=None))
    outputs, products = panels["outputs"], panels["cell_products"]
    assert isinstance(outputs, Heatmap) and isinstance(products, Bars)
    assert [row[0] for row in outputs.rows] == ["o", "o", "▸"]
    assert [column[0] for column in outputs.columns].index("▸") == N_SAMPLES - 1
    assert products.title.startswith("Output 2 of 15 ")
    assert products.chosen == 6
