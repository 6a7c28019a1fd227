"""S11: the table is what the model adds to its token vectors, and a swap moves the token vectors only."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.experiments.panels import Chips, Curves
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, lines, named, values


def table(loaded: LoadedModel) -> NDArray[np.float64]:
    """P, from the parameters of the network."""
    parameters = dict(loaded.network.named_parameters())
    return parameters["positions.table.weight"].detach().double().numpy()


def test_the_rows_are_what_the_model_adds_to_its_token_vectors(lookback_gpt: LoadedModel) -> None:
    n = len(lookback_gpt.tokens(LONG))
    shown = values(panels_of(make_work(lookback_gpt, "position-embedding", LONG, n_positions=n))["table"])
    token_TM = captured(lookback_gpt, LONG, lookback_gpt.network.embed)[1]
    sum_TM = captured(lookback_gpt, LONG, lookback_gpt.network.blocks[0])[0]
    assert_near(shown, (sum_TM - token_TM).detach()[:, :48])


def test_broken_gives_each_position_the_vector_of_the_one_before(lookback_gpt: LoadedModel) -> None:
    right, wrong = (
        values(panels_of(make_work(lookback_gpt, "position-embedding", SENTENCE, broken=broken))["table"])
        for broken in (False, True)
    )
    assert wrong[1:].tolist() == right[:-1].tolist()


def test_curves_cosines_and_facts_are_those_of_numpy(lookback_gpt: LoadedModel) -> None:
    work = make_work(lookback_gpt, "position-embedding", SENTENCE, n_positions=9, feature=3, other_feature=10_000)
    panels, rows = panels_of(work), table(lookback_gpt)
    n_context, n_features = rows.shape
    curves = lines(panels["curves"])
    assert list(curves) == ["feature 3", f"feature {n_features - 1}"]
    assert [y.tolist() for y in curves.values()] == [rows[:, 3].tolist(), rows[:, -1].tolist()]
    assert isinstance(panels["curves"], Curves)
    assert panels["curves"].marker == len(work.tokens) - 1
    lengths = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows.T / np.outer(lengths, lengths)
    assert_near(values(panels["cosines"]), cosines[:9, :9])
    apart = [np.diagonal(cosines, offset).mean() for offset in (1, 8, 32)]
    token_lengths = lookback_gpt.network.embed.weight.detach()[list(work.tokens.ids)].double().norm(dim=1)
    expected = [n_context, rows.size, lengths.mean(), token_lengths.mean(), *apart]
    assert_near(list(named(panels["facts"]).values()), expected)


def test_a_swap_exchanges_two_chips_and_no_other(lookback_gpt: LoadedModel) -> None:
    swap = panels_of(make_work(lookback_gpt, "position-embedding", SENTENCE, token=1, other_token=2))["swap"]
    assert isinstance(swap, Chips)
    original, swapped = ([chip.text for chip in row.chips] for row in swap.rows)
    assert original == ["·the", "·fat", "·cat", "·sat", "·on", "·the", "·mat"]
    assert swapped == ["·the", "·cat", "·fat", "·sat", "·on", "·the", "·mat"]
    assert [chip.about for chip in swap.rows[1].chips[:2]] == ["position 0", "position 1, was at 2"]


@pytest.mark.parametrize(("token", "other_token", "swapped"), [(1, 2, "the cat fat sat on the mat"), (0, 5, SENTENCE)])
def test_a_swap_moves_the_token_vectors_and_the_sums_as_in_a_pass_over_the_swapped_text(
    lookback_gpt: LoadedModel, token: int, other_token: int, swapped: str
) -> None:
    work = make_work(lookback_gpt, "position-embedding", SENTENCE, token=token, other_token=other_token)
    embed, block = lookback_gpt.network.embed, lookback_gpt.network.blocks[0]
    with torch.inference_mode():
        moved = captured(lookback_gpt, swapped, embed)[1] - captured(lookback_gpt, SENTENCE, embed)[1]
        total = captured(lookback_gpt, swapped, block)[0] - captured(lookback_gpt, SENTENCE, block)[0]
    expected = [moved.norm(dim=1).tolist(), [0] * 7, total.norm(dim=1).tolist()]
    assert_near(values(panels_of(work)["changes"]), expected)
    assert np.flatnonzero(expected[0]).tolist() == ([1, 2] if swapped != SENTENCE else [])
