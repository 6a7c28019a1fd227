"""The made-up head: its weights are a softmax of four arrows' products, and equal arrows give equal weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.lessons.toy_head import (
    ToyHead,
    mean_weight,
    toy_facts,
    uniform_weights,
    weights_of_arrows,
    word_chips,
    word_kinds,
)
from app.models import LoadedModel
from tests.app.experiments import make_work
from tests.app.lessons.oracle import SENTENCE, named

ARTICLE, NOUN = 0, 1
KINDS = [ARTICLE, None, NOUN]  # the fat cat
ROOT = 2**0.5  # of the number of features, which divides the scores

vectors = st.lists(st.floats(-5, 5), min_size=2, max_size=2)


def made(*, has_mask: bool = True, noun_query: tuple[float, float] = (0, 0)) -> ToyHead:
    """A head whose article has key (1, 0); all else is 0 unless the query of a noun is given."""
    return ToyHead([0.0, 0.0], [*noun_query], [1.0, 0.0], [0.0, 0.0], has_mask)


def test_a_noun_that_looks_for_articles_can_be_checked_in_the_head() -> None:
    weight_TT = made(noun_query=(ROOT * math.log(3), 0)).weights(KINDS)
    assert weight_TT[0].tolist() == [1, 0, 0]
    assert weight_TT[1].tolist() == [0.5, 0.5, 0]  # "fat" is neither, so that its scores are 0
    assert weight_TT[2].tolist() == pytest.approx([0.6, 0.2, 0.2])  # 3 : 1 : 1


def test_without_queries_all_weights_are_equal_with_and_without_a_mask() -> None:
    for has_mask in (True, False):
        weights = made(has_mask=has_mask).weights(KINDS)
        torch.testing.assert_close(weights, uniform_weights(3, has_mask=has_mask))
    assert uniform_weights(2).tolist() == [[1, 0], [0.5, 0.5]]
    assert uniform_weights(2, has_mask=False).tolist() == [[0.5, 0.5], [0.5, 0.5]]


@settings(deadline=None)
@given(
    vectors, vectors, vectors, vectors, st.booleans(), st.lists(st.sampled_from([0, 1, None]), min_size=1, max_size=6)
)
def test_the_weights_are_the_softmax_of_the_products_of_the_arrows(
    article_query: list[float],
    noun_query: list[float],
    article_key: list[float],
    noun_key: list[float],
    has_mask: bool,
    kinds: list[int | None],
) -> None:
    head = ToyHead(article_query, noun_query, article_key, noun_key, has_mask)
    zero = [0.0, 0.0]
    queries: dict[int | None, list[float]] = {ARTICLE: article_query, NOUN: noun_query, None: zero}
    keys: dict[int | None, list[float]] = {ARTICLE: article_key, NOUN: noun_key, None: zero}
    for row, (weights, looped) in enumerate(
        zip(head.weights(kinds).tolist(), weights_of_arrows(head.arrows(), kinds, has_mask=has_mask), strict=True)
    ):
        x, y = queries[kinds[row]]
        last = row + 1 if has_mask else len(kinds)
        powers = [math.exp((x * keys[kind][0] + y * keys[kind][1]) / ROOT) for kind in kinds[:last]]
        expected = [power / sum(powers) for power in powers] + [0.0] * (len(kinds) - last)
        assert weights == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert looped == pytest.approx(expected)


def test_words_are_recognised_whatever_their_spaces_and_capitals(loaded: LoadedModel) -> None:
    work = make_work(loaded, "why-heads", SENTENCE)
    assert word_kinds(work) == [ARTICLE, None, NOUN, None, None, ARTICLE, NOUN]
    labels = ["a", "fat", "mat"]
    assert [chip.about for chip in word_chips(labels, KINDS).rows[0].chips] == ["article", "other", "noun"]
    assert [chip.text for chip in word_chips(labels, KINDS).rows[0].chips] == labels


def test_the_facts_are_the_mean_weights_between_the_kinds() -> None:
    weight_TT = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.6, 0.1, 0.3]])
    shown = named(toy_facts(weight_TT, KINDS, has_mask=True))
    assert [*shown.values()] == pytest.approx([0.6, 1 / 3, 0, 0])
    unmasked = named(toy_facts(weight_TT, KINDS, has_mask=False))
    assert unmasked["from articles to nouns, if all weights were equal"] == pytest.approx(1 / 3)
    article_T, noun_T = torch.tensor([True, True, False]), torch.tensor([False, True, True])
    assert mean_weight(weight_TT, noun_T, article_T) == pytest.approx((1.0 + 0.7) / 2)


def test_a_text_without_nouns_has_nothing_to_measure() -> None:
    assert named(toy_facts(torch.eye(2), [ARTICLE, None], has_mask=True))["from nouns to articles"] is None


def test_the_arrows_can_be_dragged_and_carry_the_names_of_their_controls() -> None:
    arrows = ToyHead([1, 2], [3, 4], [-1, -2], [-3, -4], has_mask=True).arrows()
    tips = {f"{point.name}_{point.group}": (point.x, point.y) for point in arrows.points}
    assert tips == {"noun_query": (3, 4), "article_query": (1, 2), "noun_key": (-3, -4), "article_key": (-1, -2)}
    assert arrows.draggable == [*tips]
    assert arrows.arrows
    assert arrows.limit == 5
