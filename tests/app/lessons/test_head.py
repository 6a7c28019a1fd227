"""A head step by step: the vectors, scores and weights are those that hooks see in the model, or those of the book."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from app.lessons.book import BOOK
from app.lessons.head import head_of_book, head_of_model, recompute_head, relative_weights
from app.models import LoadedModel
from tests.app.experiments import make_work
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, heads_by_hand

HEADS = [(0, 0), (1, 3), (2, 2)]  # a layer and a head; of the tiny Llama, heads 2 and 3 share their keys


@pytest.mark.parametrize(("layer", "head"), HEADS)
def test_a_head_is_what_a_hook_sees_in_the_model(loaded: LoadedModel, layer: int, head: int) -> None:
    shown, oracle = (
        head_of_model(make_work(loaded, "self-attention", LONG), layer, head),
        heads_by_hand(loaded, LONG, layer),
    )
    assert_near(shown.vectors["queries"], oracle.q_HTD[head])
    assert_near(shown.vectors["keys"], oracle.k_HTD[head])
    assert_near(shown.vectors["values"], oracle.v_HTD[head])
    assert_near(shown.scores_TT, oracle.score_HTT[head], relative=1e-3)
    assert_near(shown.weights_TT, oracle.weight_HTT[head], relative=1e-3)
    assert_near(shown.vectors["context vectors"], oracle.weight_HTT[head] @ oracle.v_HTD[head], relative=1e-3)


def test_a_contribution_is_as_long_as_what_the_output_projection_makes_of_a_weighted_value(loaded: LoadedModel) -> None:
    layer, head, query, key, d = 1, 2, 5, 3, loaded.network.config.d_head
    shown, oracle = (
        head_of_model(make_work(loaded, "self-attention", SENTENCE), layer, head),
        heads_by_hand(loaded, SENTENCE, layer),
    )
    output = loaded.network.blocks[layer].get_submodule("attention.output")
    context = torch.zeros(loaded.network.config.n_heads * d)
    nothing = output(context)
    context[head * d : (head + 1) * d] = oracle.weight_HTT[head, query, key] * oracle.v_HTD[head, key]
    length = (output(context) - nothing).norm().item()
    assert shown.contributions_TT[query, key].item() == pytest.approx(length, rel=1e-3, abs=1e-6)


def test_swapping_queries_and_keys_transposes_the_scores(loaded: LoadedModel) -> None:
    work = make_work(loaded, "self-attention", SENTENCE)
    right, wrong = (head_of_model(work, 1, 1, swap=swap) for swap in (False, True))
    assert_near(wrong.scores_TT, right.scores_TT.T)
    assert wrong.weights_TT.triu(1).abs().max() == 0


def test_the_book_s_example_is_its_code() -> None:
    """Chapter 3.4.1, with the seed of the book."""
    torch.manual_seed(123)
    query, key, value = (nn.Parameter(torch.rand(3, 2), requires_grad=False) for _ in range(3))
    queries, keys, of_values = BOOK @ query, BOOK @ key, BOOK @ value
    head = head_of_book()
    assert_near(head.scores_TT, queries @ keys.T)
    assert_near(head.weights_TT, torch.softmax(queries @ keys.T / 2**0.5, dim=-1))
    expected = F.scaled_dot_product_attention(queries, keys, of_values)
    assert_near(head.vectors["context vectors"], expected)
    assert [round(number, 4) for number in head.vectors["context vectors"][1].tolist()] == [0.3061, 0.8210]
    assert_near(head_of_book(swap=True).scores_TT, (queries @ keys.T).T)


def test_the_relative_weights_of_a_pair_are_those_of_every_head_times_the_length_of_the_row(
    loaded: LoadedModel,
) -> None:
    work, n_layers = make_work(loaded, "self-attention", LONG), loaded.network.config.n_layers
    weight_LHTT = torch.stack([heads_by_hand(loaded, LONG, layer).weight_HTT for layer in range(n_layers)])
    for query, key in ((4, 1), (7, 7), (11, 0)):
        assert_near(relative_weights(work, query, key), weight_LHTT[:, :, query, key] * (query + 1), relative=1e-3)
    assert relative_weights(work, 0, 0).tolist() == [[1.0] * loaded.network.config.n_heads] * n_layers


@pytest.mark.parametrize(("layer", "head"), HEADS)
def test_a_head_recomputed_from_the_input_of_its_layer_is_the_same(loaded: LoadedModel, layer: int, head: int) -> None:
    oracle = heads_by_hand(loaded, SENTENCE, layer)
    weight_TT, context_TD = recompute_head(make_work(loaded, "self-attention", SENTENCE), layer, head, transpose=False)
    assert_near(weight_TT, oracle.weight_HTT[head], relative=1e-3)
    assert_near(context_TD, oracle.weight_HTT[head] @ oracle.v_HTD[head], relative=1e-3)


def test_transposed_scores_give_the_weights_of_keys_that_attend_to_queries(loaded: LoadedModel) -> None:
    oracle = heads_by_hand(loaded, SENTENCE, 0)
    weight_TT, _ = recompute_head(make_work(loaded, "self-attention", SENTENCE), 0, 0, transpose=True)
    for row, score in enumerate((oracle.score_HTT[0].T / loaded.network.config.d_head**0.5).tolist()):
        expected = torch.tensor(score[: row + 1]).softmax(-1)
        assert_near(weight_TT[row, : row + 1], expected, relative=1e-3)
