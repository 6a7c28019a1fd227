"""S16: the pictures are those of the chosen head, and cutting an edge changes what it changes in a pass with hooks."""

import pytest
import torch
from torch import Tensor

from app.experiments.panels import Bars, Heatmap, Points
from app.lessons.head import head_of_book
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, assert_near, heads_by_hand, logits_by_hand, named, number, values

NOUN, MODIFIER, OTHER = 2, 1, 6  # cat, fat, mat
CHANGE = "largest change of a probability after the text"


def relative_weight(loaded: LoadedModel, layer: int, head: int, query: int) -> float:
    """Weight × row length from a token to the modifier."""
    return heads_by_hand(loaded, SENTENCE, layer).weight_HTT[head, query, MODIFIER].item() * (query + 1)


def all_heads(loaded: LoadedModel) -> list[tuple[int, int]]:
    config = loaded.network.config
    return [(layer, head) for layer in range(config.n_layers) for head in range(config.n_heads)]


def changes_by_hand(loaded: LoadedModel, layer: int, head: int) -> Tensor:
    """The change of every probability after each token, (T, V), if the noun cannot attend to its modifier."""
    ids = loaded.tokens(SENTENCE).ids
    causal_TT = torch.ones(len(ids), len(ids)).tril().bool()

    def is_allowed(own_layer: int) -> Tensor:
        allowed_HTT = causal_TT.repeat(loaded.network.config.n_heads, 1, 1)
        allowed_HTT[head, NOUN, MODIFIER] = own_layer != layer
        return allowed_HTT

    after_TV, before_TV = (logits_by_hand(loaded, ids, mask) for mask in (is_allowed, lambda _: causal_TT))
    return after_TV.softmax(-1) - before_TV.softmax(-1)


@pytest.mark.parametrize("kind", ["queries", "keys", "values", "context vectors"])
def test_the_pictures_are_those_of_the_chosen_head(loaded: LoadedModel, kind: str) -> None:
    panels = panels_of(make_work(loaded, "self-attention", SENTENCE, layer=1, head=2, vector_kind=kind))
    oracle = heads_by_hand(loaded, SENTENCE, 1)
    context_HTD = oracle.weight_HTT @ oracle.v_HTD
    vectors = {"queries": oracle.q_HTD, "keys": oracle.k_HTD, "values": oracle.v_HTD, "context vectors": context_HTD}
    assert_near(values(panels["vectors"]), vectors[kind][2], relative=1e-3)
    assert_near(values(panels["scores"]), oracle.score_HTT[2], relative=1e-3)
    assert_near(values(panels["weights"]), oracle.weight_HTT[2], relative=1e-3)
    d = loaded.network.config.d_head
    output_MD = loaded.network.blocks[1].get_submodule("attention.output").get_parameter("weight")[:, 2 * d : 3 * d]
    lengths_T = (oracle.v_HTD[2] @ output_MD.double().T).norm(dim=1)
    assert_near(values(panels["contributions"]), oracle.weight_HTT[2] * lengths_T, relative=1e-3)
    assert panels["vectors"].title == f"{kind.capitalize()}, layer 1, head 2"


def test_a_click_on_a_cell_of_the_model_chooses_noun_and_modifier_but_the_book_has_none(loaded: LoadedModel) -> None:
    model, book = (
        panels_of(make_work(loaded, "self-attention", SENTENCE, source=source))["weights"]
        for source in ("model", "book")
    )
    assert isinstance(model, Heatmap)
    assert isinstance(book, Heatmap)
    assert (model.selects, book.selects) == (("noun", "modifier"), None)
    assert_near(values(book), head_of_book().weights_TT)
    assert book.rows == ["0 Your", "1 journey", "2 starts", "3 with", "4 one", "5 step"]


def test_the_facts_are_the_cells_of_the_chosen_head(loaded: LoadedModel) -> None:
    panel = panels_of(make_work(loaded, "self-attention", SENTENCE, layer=1, head=2))["edge_facts"]
    oracle = heads_by_hand(loaded, SENTENCE, 1)
    weight_TT, score_TT = oracle.weight_HTT[2], oracle.score_HTT[2]
    pairs = [
        (relative_weight(loaded, *head, NOUN), relative_weight(loaded, *head, OTHER)) for head in all_heads(loaded)
    ]
    weight_T = weight_TT[NOUN, : NOUN + 1] * torch.tensor([1.0, 0.0, 1.0])  # of "the fat cat", without "fat"
    before_D = weight_TT[NOUN] @ oracle.v_HTD[2]
    after_D = weight_T / weight_T.sum() @ oracle.v_HTD[2, : NOUN + 1]
    expected = {
        "weight 2 ·cat → 1 ·fat": weight_TT[NOUN, MODIFIER],
        "weight 6 ·mat → 1 ·fat": weight_TT[OTHER, MODIFIER],
        "weight × row length 3, 2 ·cat → 1 ·fat": weight_TT[NOUN, MODIFIER] * 3,
        "weight × row length 7, 6 ·mat → 1 ·fat": weight_TT[OTHER, MODIFIER] * 7,
        "score 2 ·cat → 1 ·fat": score_TT[NOUN, MODIFIER],
        "score 1 ·fat → 2 ·cat": score_TT[MODIFIER, NOUN],
        "heads with weight × row length above 1 from the noun and below 1 from the other noun": sum(
            from_noun > 1 > from_other for from_noun, from_other in pairs
        ),
        "relative change of the context vector of 2 ·cat if the edge is cut": (after_D - before_D).norm()
        / before_D.norm(),
    }
    facts = dict(named(panel))
    assert facts.pop(CHANGE) == "not cut yet"
    assert facts == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-3, abs=1e-5)


def test_every_head_is_a_point_at_its_two_relative_weights(loaded: LoadedModel) -> None:
    panels = panels_of(make_work(loaded, "self-attention", SENTENCE, layer=2, head=1))
    points, bars = panels["heads"], panels["best_heads"]
    assert isinstance(points, Points)
    assert isinstance(bars, Bars)
    differences = {}
    for point, (layer, head) in zip(points.points, all_heads(loaded), strict=True):
        assert point.selects == {"layer": layer, "head": head}
        assert point.group == ("chosen head" if (layer, head) == (2, 1) else "head")
        from_noun, from_other = (relative_weight(loaded, layer, head, query) for query in (NOUN, OTHER))
        assert (point.x, point.y) == pytest.approx((from_noun, from_other), rel=1e-3, abs=1e-5)
        differences[f"layer {layer}, head {head}"] = from_noun - from_other
    best = sorted(differences.values(), reverse=True)[:12]
    assert bars.values == pytest.approx(best, rel=1e-3, abs=1e-5)
    assert [differences[label] for label in bars.labels] == pytest.approx(best, rel=1e-3, abs=1e-5)


def test_a_cut_edge_changes_the_probabilities_as_in_a_pass_with_hooks(loaded: LoadedModel) -> None:
    panels = panels_of(make_work(loaded, "self-attention", SENTENCE, layer=1, head=2, cut=True))
    change_TV, changes = changes_by_hand(loaded, 1, 2), panels["probability_changes"]
    assert isinstance(changes, Bars)
    top = change_TV[NOUN].abs().topk(10).values
    assert_near(values(changes).abs(), top, relative=1e-2)
    tokens = {loaded.tokenizer.label(id): change for id, change in enumerate(change_TV[NOUN].tolist())}
    shown = [label.partition(" ")[2] for label in changes.labels]
    assert [tokens[label] for label in shown] == pytest.approx(values(changes).tolist(), rel=1e-2, abs=1e-6)
    assert number(panels["edge_facts"], CHANGE) == pytest.approx(change_TV[-1].abs().max().item(), rel=1e-2, abs=1e-6)
    assert changes.title.endswith("after 2 ·cat: the edge is cut")


def test_before_a_cut_the_tokens_are_the_most_probable_ones_and_have_no_change(loaded: LoadedModel) -> None:
    changes = panels_of(make_work(loaded, "self-attention", SENTENCE))["probability_changes"]
    assert isinstance(changes, Bars)
    with torch.inference_mode():
        best = loaded.network(torch.tensor([loaded.tokens(SENTENCE).ids]))[0, NOUN].topk(10).indices.tolist()
    assert changes.labels == [f"{rank} {loaded.tokenizer.label(id)}" for rank, id in enumerate(best)]
    assert changes.values == [None] * 10


def test_an_edge_to_a_later_token_cannot_be_cut(loaded: LoadedModel) -> None:
    work = make_work(loaded, "self-attention", SENTENCE, noun=1, modifier=2, cut=True)
    facts = named(panels_of(work)["edge_facts"])
    assert facts[CHANGE] == "only an edge to an earlier token can be cut"
    assert facts["relative change of the context vector of 1 ·fat if the edge is cut"] == 0
    assert work.traces == {}


def test_broken_exchanges_queries_and_keys(loaded: LoadedModel) -> None:
    right, wrong = (panels_of(make_work(loaded, "self-attention", SENTENCE, broken=broken)) for broken in (False, True))
    assert_near(values(wrong["scores"]), values(right["scores"]).T)
    assert not torch.allclose(values(wrong["weights"]), values(right["weights"]))
