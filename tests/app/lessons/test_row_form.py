"""S04: the three forms are one product, and the projection is that of the running model."""

import numpy as np
import pytest
import torch

from app.experiments.base import N_SAMPLES
from app.experiments.panels import N_BARS, Bars, Heatmap
from app.lessons.row_form import RowFormWork, baked_form, column_form, row_form
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, named, number, values

PROJECTIONS = ("query", "key", "value")


def made(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> RowFormWork:
    work = make_work(loaded, "row-form", text, **controls)
    assert isinstance(work, RowFormWork)
    return work


def test_the_forms_of_a_product_that_can_be_checked_in_the_head() -> None:
    w_OI, x_TI, b_O = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), torch.tensor([[3.0, 4.0, 5.0]]), torch.ones(2)
    assert row_form(w_OI, x_TI, b_O, broken=False).tolist() == [[12.0, 10.0]]
    assert column_form(w_OI, x_TI, b_O).tolist() == baked_form(w_OI, x_TI, b_O).tolist() == [[12.0], [10.0]]
    # reshaped to [[1, 2], [0, 0], [1, 1]], its columns are no rows of W
    assert row_form(w_OI, x_TI, b_O, broken=True).tolist() == [[3.0 + 5 + 1, 6.0 + 5 + 1]]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_forms_have_the_numbers_of_numpy_and_are_each_other_s_transposes(
    loaded: LoadedModel, projection: str
) -> None:
    work = made(loaded, projection=projection)
    panels = panels_of(work)
    x_TI, _ = captured(loaded, SENTENCE, work.linear)
    w_OI = work.linear.weight.double().numpy()[:4, :6]
    b_O = 0.0 if work.linear.bias is None else work.linear.bias.double().numpy()[:4]
    expected_TO = torch.from_numpy(np.einsum("oi,ti->to", w_OI, x_TI.numpy()[:8, :6]) + b_O)
    assert_near(values(panels["row_form"]), expected_TO)
    assert_near(values(panels["column_form"]).T, expected_TO)
    assert_near(values(panels["baked_form"]).T, expected_TO)
    assert number(panels["form_facts"], "largest difference between X Wᵀ + b and W X + B") < 1e-5


def test_the_shapes_of_the_forms_count_the_numbers_of_the_bias(lookback_gpt: LoadedModel) -> None:
    facts = named(panels_of(made(lookback_gpt, "the cat sat"))["form_facts"])
    assert facts["X Wᵀ + b"] == "3 × 6 times 6 × 4, plus 4"
    assert facts["W′ X′"] == "4 × 7 times 7 × 3"
    assert (facts["numbers stored for the bias in W X + B"], facts["in X Wᵀ + b"]) == (12.0, 4.0)
    assert facts["in W′ X′, with the row of ones"] == 7.0  # a column of 4, and a row of 3 ones


def test_the_strides_are_those_of_numpy_s_arrays(loaded: LoadedModel) -> None:
    work = made(loaded)
    facts = [*named(panels_of(work)["memory_facts"]).values()]
    w_OI, x_TI = work.linear.weight.numpy(), np.zeros((len(work.tokens), loaded.network.config.d_model), np.float32)
    for shown, array in zip(facts, (w_OI, w_OI.T, x_TI), strict=False):
        assert shown == f"{array.strides[0] // 4} and {array.strides[1] // 4}"
    assert facts[3] == "yes"


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_outputs_are_those_that_a_hook_sees_in_the_model(loaded: LoadedModel, projection: str) -> None:
    work = made(loaded, LONG, projection=projection, layer=1, row=3, token=5)
    panels = panels_of(work)
    x_TI, output_TO = captured(loaded, LONG, work.linear)
    assert_near(values(panels["outputs"]), output_TO[:N_SAMPLES, :N_BARS])
    assert_near(values(panels["token_vector"]), x_TI[5:6, :N_BARS])
    assert values(panels["weight_row"]).tolist() == work.linear.weight[3:4, :N_BARS].tolist()
    assert_near(values(panels["products"]), x_TI[5, :N_BARS] * work.linear.weight[3, :N_BARS].double())


def test_all_products_and_the_bias_add_up_to_the_output_of_the_running_model(loaded: LoadedModel) -> None:
    work = made(loaded, row=2, token=4)
    facts = panels_of(work)["output_facts"]
    x_TI, output_TO = captured(loaded, SENTENCE, work.linear)
    products, bias = next(iter(named(facts))), named(facts)["bias"]
    assert products == f"sum of all {x_TI.shape[1]} products"
    expected = sum(w * x for w, x in zip(work.linear.weight[2].tolist(), x_TI[4].tolist(), strict=True))
    assert number(facts, products) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert bias == ("none in this model" if work.linear.bias is None else work.linear.bias[2].item())
    for name in ("sum with the bias", "output in the running model"):
        assert number(facts, name) == pytest.approx(output_TO[4, 2].item(), rel=1e-4, abs=1e-5)
    assert number(facts, [*named(facts)][-1]) < 1e-4


def test_a_row_beyond_the_matrix_means_its_last(tiny_llama_model: LoadedModel) -> None:
    work = made(tiny_llama_model, projection="key", row=N_BARS - 1, token=None)
    panels = panels_of(work)
    last = len(work.linear.weight) - 1
    assert last < N_BARS - 1
    products, picture = panels["products"], panels["row_form"]
    assert isinstance(products, Bars) and isinstance(picture, Heatmap)
    assert products.title.startswith(f"Row {last} of W times {len(work.tokens) - 1} ")
    assert len(picture.rows) == min(8, len(work.tokens))
