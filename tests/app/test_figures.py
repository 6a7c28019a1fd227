"""Figures are valid Plotly, show the right cells, and give equal tokens different labels."""

import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import figures
from app.figures import Window
from model.sites import STAGES, Stage

TOKENS = ["the", "·fat", "·cat", "the", "<b>x</b>"]
N = len(TOKENS)


def values(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(N, N)).astype(np.float32)


def head(stage: Stage) -> Any:
    return figures.head_figure(Window(0, N, 0, N), stage, model="tiny", layer=3, head=1)


@pytest.mark.parametrize("stage", STAGES)
def test_the_heatmap_of_a_head_is_a_valid_plotly_figure_with_the_models_numbers(stage: Stage) -> None:
    arrays = {name: values(i) for i, name in enumerate(("scores", "scaled", "weights"))}
    drawn = go.Figure(figures.filled(head(stage), arrays, TOKENS)).data[0]
    expected = arrays["scaled" if stage == "masked" else stage]
    masked = np.triu(np.ones((N, N), dtype=bool), 1)
    if stage in ("masked", "weights"):
        assert np.isnan(drawn.z[masked]).all()
        np.testing.assert_array_equal(drawn.z[~masked], expected[~masked])
    else:
        np.testing.assert_array_equal(drawn.z, expected)


def test_norms_are_a_valid_plotly_figure_that_shows_the_true_numbers_on_hover() -> None:
    statistics = {name: np.abs(values(i)) + 0.01 for i, name in enumerate(("mean", "variance", "rms"))}
    sites = [f"site {i}" for i in range(N)]
    drawn = go.Figure(figures.filled(figures.norms_figure(N, sites, statistics, model="tiny"), statistics, TOKENS))
    for trace, (name, numbers) in zip(drawn.data, statistics.items(), strict=True):
        np.testing.assert_array_equal(trace.customdata, numbers)
        np.testing.assert_array_equal(trace.z, figures.shaded(name, numbers))
        assert name in trace.hovertemplate


def test_rows_are_queries_and_columns_are_keys() -> None:
    layout = head("weights")["layout"]
    assert (layout["yaxis"]["title"]["text"], layout["xaxis"]["title"]["text"]) == ("query", "key")
    assert layout["yaxis"]["range"][0] > layout["yaxis"]["range"][1]  # the first query is on top


def test_the_title_of_a_heatmap_names_model_layer_head_and_stage() -> None:
    assert head("weights")["layout"]["title"]["text"] == "tiny · layer 3, head 1 · attention weights"


def drawn(stage: Stage, arrays: dict[str, Any]) -> Any:
    return figures.filled(head(stage), arrays, TOKENS)["data"][0]


def test_weights_run_from_zero_to_one_and_scores_around_zero() -> None:
    weights, scores = drawn("weights", {"weights": values()}), drawn("scores", {"scores": values()})
    assert (weights["zmin"], weights["zmax"], weights["autocolorscale"]) == (0, 1, False)
    assert (scores["zmin"], scores["autocolorscale"]) == (-scores["zmax"], True)
    assert scores["zmax"] == pytest.approx(np.abs(values()).max())


def test_masked_cells_do_not_widen_the_colour_range_of_masked_scores() -> None:
    scaled = values()
    scaled[0, 4] = 1e6
    assert drawn("masked", {"scaled": scaled})["zmax"] < 10


def test_a_window_has_the_labels_of_its_own_tokens_and_leaves_its_masked_cells_blank() -> None:
    figure = figures.head_figure(Window(3, 5, 1, 5), "weights", model="tiny", layer=0, head=0)
    trace: Any = figures.filled(figure, {"weights": np.ones((2, 4), np.float32)}, TOKENS)["data"][0]
    assert (trace["y"], trace["x"]) == (
        ["3 the", "4 &lt;b&gt;x&lt;/b&gt;"],
        ["1 ·fat", "2 ·cat", "3 the", "4 &lt;b&gt;x&lt;/b&gt;"],
    )
    assert np.isnan(trace["z"]).tolist() == [[False, False, False, True], [False] * 4]


def test_the_title_and_the_labels_say_if_cells_cover_several_tokens() -> None:
    figure: Any = figures.head_figure(Window(0, 5, 0, 5, 2), "weights", model="tiny", layer=0, head=0)
    assert "each cell is the largest of 2×2" in figure["layout"]["title"]["text"]
    filled: Any = figures.filled(figure, {"weights": np.ones((3, 3), np.float32)}, TOKENS)
    assert filled["data"][0]["x"][0] == "0–1 the"


@given(st.lists(st.text(max_size=40), max_size=20))
def test_labels_are_unique_and_contain_no_markup(tokens: list[str]) -> None:
    labels = figures.labels(tokens)
    assert len(set(labels)) == len(tokens)
    assert not any(re.search("[<>]", label) for label in labels)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(-50, 50))
def test_the_hatch_covers_only_masked_cells_inside_the_heatmap(height: int, width: int, offset: int) -> None:
    for line in re.findall(r"M(\S+?),(\S+?)L([\d.-]+),([\d.-]+)", figures.hatch(height, width, offset)):
        x1, y1, x2, y2 = map(float, line)
        assert x1 + y1 == pytest.approx(x2 + y2, abs=1e-3)
        assert -0.5 <= y1 < y2 <= height - 0.5
        assert -0.5 <= x2 < x1 <= width - 0.5
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
        assert round(middle_x + 1e-9) >= round(middle_y - 1e-9) + offset


def test_the_masked_scores_of_an_edited_head_are_an_array_of_their_own() -> None:
    def meta(stage: Any, mask: Any) -> tuple[object, object]:
        figure: Any = figures.head_figure(Window(0, 5, 0, 5), stage, mask, model="m", layer=0, head=0)
        return figure["data"][0]["meta"]["z"], figure["data"][0]["meta"]["masked_from"]

    assert [meta("masked", mask) for mask in ("causal", "edited", "none")] == [
        ("scaled", 0),
        ("masked", 0),
        ("masked", None),
    ]
    assert [meta("weights", mask) for mask in ("causal", "edited", "none")] == [
        ("weights", 0),
        ("weights", 0),
        ("weights", None),
    ]


def test_the_heatmap_of_one_token_has_no_hatch() -> None:
    assert figures.head_figure(Window(0, 1, 0, 1), "weights", model="m", layer=0, head=0)["layout"]["shapes"] == []
