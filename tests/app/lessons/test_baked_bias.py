"""S03: the extended matrices are the model's with one more column or row, and their product is W X + B."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from app.experiments.base import N_SAMPLES
from app.experiments.panels import Bars, Heatmap
from app.lessons.baked_bias import append_bias, append_ones
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, named, number, values


def test_one_neuron_can_be_checked_in_the_head() -> None:
    w_OJ = append_bias(torch.tensor([[1.0, 2.0]]), torch.tensor([5.0]))
    x_JT = append_ones(torch.tensor([[3.0], [4.0]]), 1.0, broken=False)
    assert (w_OJ @ x_JT).tolist() == [[3.0 + 8 + 5]]
    assert append_ones(torch.tensor([[3.0], [4.0]]), 1.0, broken=True).tolist() == [[1.0], [3.0], [4.0]]


@given(st.lists(st.integers(-9, 9), min_size=8, max_size=8), st.floats(0, 1))
def test_the_last_row_scales_the_bias_and_nothing_else(drawn: list[int], value: float) -> None:
    w_OI, x_IT, b_O = (torch.tensor(drawn[a:b], dtype=torch.float) for a, b in ((0, 4), (2, 6), (6, 8)))
    w_OI, x_IT = w_OI.reshape(2, 2), x_IT.reshape(2, 2)
    z_OT = append_bias(w_OI, b_O) @ append_ones(x_IT, value, broken=False)
    assert_close(z_OT, torch.nn.functional.linear(x_IT.T, w_OI, b_O * value).T)


@pytest.mark.parametrize(("layer", "added", "last_row"), [(0, 0.5, 1.0), (1, -1.1, 0.35)])
def test_the_pictures_are_the_model_s_matrices_with_a_column_and_a_row(
    loaded: LoadedModel, layer: int, added: float, last_row: float
) -> None:
    work = make_work(loaded, "baked-bias", LONG, layer=layer, added_bias=added, last_row=last_row)
    panels, up = panels_of(work), work.up(layer)
    x_IT = captured(loaded, LONG, up)[0][:N_SAMPLES, :6].T
    w_OI, b_O = up.weight[:4, :6].double(), torch.full((4,), added, dtype=torch.double)
    if up.bias is not None:
        b_O += up.bias[:4].double()
    assert_near(values(panels["weights"]), torch.cat((w_OI, b_O[:, None]), 1))
    assert_near(values(panels["samples"])[:-1], x_IT)
    assert values(panels["samples"])[-1].tolist() == pytest.approx([last_row] * N_SAMPLES)
    assert_near(values(panels["outputs"]), w_OI @ x_IT + last_row * b_O[:, None])
    assert_near(values(panels["difference"]), (last_row - 1) * b_O[:, None].expand(-1, N_SAMPLES))


def test_the_bias_is_one_of_the_products_of_an_output(loaded: LoadedModel) -> None:
    work = make_work(loaded, "baked-bias", SENTENCE, token=3)
    panels, bias = panels_of(work), work.up(0).bias
    products, z_OT = panels["products"], values(panels["outputs"])
    assert isinstance(products, Bars)
    assert products.chosen == 6
    assert_near(values(products), values(panels["weights"])[0] * values(panels["samples"])[:, 3])
    own = 0.0 if bias is None else bias[0].item()
    assert products.values[6] == pytest.approx(own + 0.5)
    total = named(panels["facts"])[f"sum for output 0 of {work.token_labels[3]}"]
    assert total == pytest.approx(z_OT[0, 3].item(), rel=1e-4, abs=1e-5)
    assert number(panels["facts"], "bias after the change") == pytest.approx(own + 0.5)
    assert number(panels["facts"], "largest difference to W X + B") < 1e-5


def test_broken_puts_the_ones_above_x_while_the_bias_stays_last(lookback_gpt: LoadedModel) -> None:
    panels = panels_of(make_work(lookback_gpt, "baked-bias", SENTENCE, broken=True))
    samples, weights = panels["samples"], panels["weights"]
    assert isinstance(samples, Heatmap) and isinstance(weights, Heatmap)
    assert (samples.rows[0], weights.columns[-1]) == ("ones", "b")
    assert values(panels["difference"]).abs().max() > 0.01
