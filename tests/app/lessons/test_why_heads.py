"""S24: the patterns of the heads are counted weight by weight, and the plane keeps what NumPy says it keeps."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from app.experiments.panels import AnyPanel, Bars, Chips, Facts, Heatmap, Points
from app.lessons.why_heads import pattern_scores, score_by_loop
from app.models import LoadedModel
from model.heads import TEXT_PATTERNS
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, heads_by_hand, values

HEAD = {"layer": 1, "head": 2}
IDS = [7, 8, 7]
WEIGHTS = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]


def shown(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "why-heads", text, **HEAD | controls))


def means(weights: list[list[float]], ids: tuple[int, ...]) -> dict[str, float]:
    """The score of a head for each pattern, in plain Python; NaN if the text has nothing to measure."""

    def mean(terms: list[float]) -> float:
        return sum(terms) / len(terms) if terms else math.nan

    n = len(ids)
    copies = {i: [j for j in range(i) if ids[j] == ids[i]] for i in range(n)}
    return {
        "previous token": mean([weights[i][i - 1] for i in range(1, n)]),
        "current token": mean([weights[i][i] for i in range(n)]),
        "first token": mean([weights[i][0] for i in range(1, n)]),
        "same token before": mean([sum(weights[i][j] for j in copies[i]) for i in range(n) if copies[i]]),
    }


def equal_weights(n: int) -> list[list[float]]:
    return [[1 / (i + 1)] * (i + 1) + [0.0] * (n - i - 1) for i in range(n)]


def scores_by_hand(loaded: LoadedModel, text: str, layer: int) -> list[dict[str, float]]:
    ids = loaded.tokens(text).ids
    return [means(weights, ids) for weights in heads_by_hand(loaded, text, layer).weight_HTT.tolist()]


def test_the_patterns_of_three_tokens_can_be_checked_in_the_head() -> None:
    expected = {"previous token": 0.1875, "current token": 2.125 / 3, "first token": 0.375, "same token before": 0.5}
    score_1P = pattern_scores(torch.tensor([WEIGHTS]), IDS)
    assert dict(zip(TEXT_PATTERNS, score_1P[0].tolist(), strict=True)) == pytest.approx(expected)
    for pattern in TEXT_PATTERNS:
        assert score_by_loop(pattern, WEIGHTS, IDS) == pytest.approx(expected[pattern])
    assert math.isnan(score_by_loop("same token before", WEIGHTS, [1, 2, 3]))


def test_broken_counts_the_next_token() -> None:
    weight_1TT = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    assert pattern_scores(weight_1TT, [1, 2])[0, 0] == 0.5
    assert pattern_scores(weight_1TT, [1, 2], broken=True)[0, 0] == 0.75


@pytest.mark.parametrize("pattern", TEXT_PATTERNS)
def test_all_heads_have_the_scores_of_plain_python(loaded: LoadedModel, pattern: str) -> None:
    panels = shown(loaded, LONG, pattern=pattern)
    n_layers, n_heads = loaded.network.config.n_layers, loaded.network.config.n_heads
    score_LH = [[head[pattern] for head in scores_by_hand(loaded, LONG, layer)] for layer in range(n_layers)]
    model_scores, layer_scores = panels["model_scores"], panels["layer_scores"]
    assert_near(values(model_scores), torch.tensor(score_LH), relative=1e-3)
    assert_near(values(layer_scores)[:, TEXT_PATTERNS.index(pattern)], torch.tensor(score_LH[1]), relative=1e-3)
    assert isinstance(model_scores, Heatmap)
    assert model_scores.selects == ("layer", "head")
    assert model_scores.title == f"Mean weight of all heads, {pattern} ({n_layers} layers × {n_heads} heads)"


@pytest.mark.parametrize("text", [SENTENCE, "the fat cat"])
def test_a_head_is_named_after_its_best_pattern_if_that_is_clearly_stronger_than_with_equal_weights(
    loaded: LoadedModel, text: str
) -> None:
    panels, ids = shown(loaded, text), loaded.tokens(text).ids
    uniform = means(equal_weights(len(ids)), ids)
    patterns, facts = panels["head_patterns"], panels["head_facts"]
    assert isinstance(patterns, Chips)
    assert isinstance(facts, Facts)
    for chip, scores in zip(patterns.rows[0].chips, scores_by_hand(loaded, text, 1), strict=True):
        best = max(scores, key=lambda pattern: np.nan_to_num(scores[pattern], nan=-1))
        ratio = scores[best] / uniform[best]
        assert chip.about.startswith(f"{best}, " if ratio >= 1.5 else f"none; highest: {best}, ")
        assert chip.about.endswith(f"= {ratio:.1f} × that of equal weights")
    chosen = scores_by_hand(loaded, text, 1)[2]
    for pattern, line in zip(facts.names, facts.values, strict=True):
        if math.isnan(chosen[pattern]):
            assert line == "nothing to measure"
        else:
            numbers = [float(part.split()[-1]) for part in str(line).split("; ")]
            ratio = chosen[pattern] / uniform[pattern]
            assert numbers == pytest.approx([chosen[pattern], uniform[pattern], ratio], rel=2e-2, abs=6e-3)


def test_the_plane_keeps_as_much_of_the_lengths_and_products_as_the_best_plane_of_numpy(loaded: LoadedModel) -> None:
    panel, oracle = shown(loaded, LONG)["head_plane"], heads_by_hand(loaded, LONG, 1)
    q_TD, k_TD = (vectors[2, :16].numpy() for vectors in (oracle.q_HTD, oracle.k_HTD))
    vector_XD = np.concatenate((q_TD, k_TD - k_TD.mean(0)))
    u, s, vt = np.linalg.svd(vector_XD, full_matrices=False)
    assert isinstance(panel, Points)
    point_X2 = np.array([(point.x, point.y) for point in panel.points])
    best_XD = u[:, :2] * s[:2] @ vt[:2]
    np.testing.assert_allclose(point_X2 @ point_X2.T, best_XD @ best_XD.T, rtol=1e-2, atol=1e-2 * s[0] ** 2 / len(u))
    fractions = s**2 / (s**2).sum()
    percents = [panel.x_axis.partition("%")[0], panel.y_axis.partition("%")[0]]
    assert [float(percent) for percent in percents] == pytest.approx((100 * fractions[:2]).tolist(), abs=0.6)
    assert [point.group for point in panel.points] == ["query"] * 16 + ["key"] * 16
    assert panel.points[16].name == panel.points[0].name


def test_the_best_pairs_are_those_with_the_highest_mean_over_all_their_places(loaded: LoadedModel) -> None:
    bars, ids = shown(loaded, LONG)["best_pairs"], loaded.tokens(LONG).ids
    scaled = (heads_by_hand(loaded, LONG, 1).score_HTT[2] / loaded.network.config.d_head**0.5).tolist()
    places: dict[tuple[int, int], list[float]] = {}
    for i, row in enumerate(scaled):
        mean = sum(row[: i + 1]) / (i + 1)
        for j in range(i + 1):
            places.setdefault((ids[i], ids[j]), []).append(row[j] - mean)
    scores = sorted(((sum(terms) / len(terms), pair) for pair, terms in places.items()), reverse=True)
    assert isinstance(bars, Bars)
    assert bars.values == pytest.approx([score for score, _ in scores[:8]], rel=1e-3, abs=1e-4)
    label = loaded.tokenizer.label
    if min(a - b for (a, _), (b, _) in pairwise(scores[:9])) > 1e-3:  # else rounding may exchange two of them
        assert bars.labels == [f"{label(query)} → {label(key)}" for _, (query, key) in scores[:8]]


def test_the_made_up_head_has_the_arrows_and_the_mask_of_the_controls(loaded: LoadedModel) -> None:
    arrows = {
        "noun_query": [1.0, -2.0],
        "article_query": [0.0, 1.0],
        "noun_key": [2.0, 0.5],
        "article_key": [-1.0, 0.0],
    }
    panels = panels_of(make_work(loaded, "why-heads", SENTENCE, no_mask=True, **arrows))
    points = panels["toy_arrows"]
    assert isinstance(points, Points)
    assert {f"{point.name}_{point.group}": [point.x, point.y] for point in points.points} == arrows
    on_article, on_noun = (1 * -1) / 2**0.5, (1 * 2 - 2 * 0.5) / 2**0.5  # scores of the query of "cat"
    powers = [math.exp(score) for score in (on_article, 0, on_noun, 0, 0, on_article, on_noun)]
    assert values(panels["toy_weights"])[2].tolist() == pytest.approx([power / sum(powers) for power in powers])
    facts = panels["toy_facts"]
    assert isinstance(facts, Facts)
    assert facts.values[0] == pytest.approx(2 * powers[0] / sum(powers))
    kinds = panels["word_kinds"]
    assert isinstance(kinds, Chips)
    assert [chip.about for chip in kinds.rows[0].chips][:3] == ["article", "other", "noun"]


def test_the_weights_are_those_of_the_chosen_head(loaded: LoadedModel) -> None:
    weights = shown(loaded, layer=2, head=1)["weights"]
    assert_near(values(weights), heads_by_hand(loaded, SENTENCE, 2).weight_HTT[1], relative=1e-3)
    assert weights.title == "Attention weights, layer 2, head 1"
