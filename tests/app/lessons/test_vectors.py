"""S01: dot products and cosines of arrows in the head, and of tokens in NumPy."""

import numpy as np
import pytest

from app.experiments.panels import Heatmap, Points
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, named, values


def test_arrows_that_can_be_multiplied_in_the_head(loaded: LoadedModel) -> None:
    panels = panels_of(make_work(loaded, "vectors", SENTENCE, a=[3, 4], b=[-4, 3]))
    assert values(panels["arrow_products"]).tolist() == [-12, 12]
    facts = named(panels["arrow_facts"])
    assert facts == {"dot product": 0, "length of the first": 5, "length of the second": 5, "cosine": 0}
    arrows = panels["arrows"]
    assert isinstance(arrows, Points)
    assert [(point.name, point.x, point.y) for point in arrows.points] == [("a", 3, 4), ("b", -4, 3)]


def test_broken_multiplies_each_feature_by_the_one_before_it(loaded: LoadedModel) -> None:
    panels = panels_of(make_work(loaded, "vectors", SENTENCE, a=[3, 4], b=[-4, 3], broken=True))
    assert values(panels["arrow_products"]).tolist() == [9, -16]
    assert named(panels["arrow_facts"])["dot product"] == -7


@pytest.mark.parametrize("measure", ["dot product", "cosine"])
def test_the_tokens_are_compared_as_numpy_compares_the_rows_of_the_table(loaded: LoadedModel, measure: str) -> None:
    panels = panels_of(make_work(loaded, "vectors", LONG, first_token=3, second_token=None, measure=measure))
    ids = list(loaded.tokens(LONG).ids)
    x = loaded.network.embed.weight.detach().double().numpy()[ids]
    products, lengths = x @ x.T, np.linalg.norm(x, axis=1)
    cosines = products / np.outer(lengths, lengths)
    assert_near(values(panels["pairs"]), cosines if measure == "cosine" else products)
    terms = x[3] * x[-1]
    assert_near(values(panels["token_products"]), terms[:48])
    facts = list(named(panels["token_facts"]).values())
    assert_near(facts, [terms.sum(), lengths[3], lengths[-1], cosines[3, -1]])


def test_a_click_on_a_pair_chooses_its_two_tokens(loaded: LoadedModel) -> None:
    work = make_work(loaded, "vectors", SENTENCE, first_token=2, second_token=4)
    pairs = panels_of(work)["pairs"]
    assert isinstance(pairs, Heatmap)
    assert pairs.selects == ("first_token", "second_token")
    assert pairs.values[2][4] == pytest.approx(named(panels_of(work)["token_facts"])["dot product"], rel=1e-4)
