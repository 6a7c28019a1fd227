"""S19: two ways to mask agree with PyTorch's, and a later token changes nothing unless the mask is gone."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from app.experiments.checks import Check
from app.experiments.panels import AnyPanel, Bars, Chips
from app.lessons.book import BOOK
from app.lessons.causal_mask import MASKING_METHODS, N_UNMASKED, PRINTED_WEIGHTS, book_scaled_scores, masked_weights
from app.models import LoadedModel
from tests.app.experiments import checks_of, make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, assert_near, heads_by_hand, logits_by_hand, values

CORRECT = MASKING_METHODS[:2]
# two rows of scores 0: the first token has one token to attend to, or two if the mask fails
ROWS_OF_ZEROS: dict[str, list[float]] = dict(
    zip(MASKING_METHODS, ([1, 0, 0.5, 0.5], [1, 0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], [0.5] * 4), strict=True)
)


def shown(loaded: LoadedModel, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "causal-mask", SENTENCE, **controls))


def row_by_hand(method: str, scaled: list[float], row: int) -> list[float]:
    """The weights of one row, in plain Python."""
    is_later = [column > row for column in range(len(scaled))]
    if method == "mask, then softmax":
        powers = [0.0 if later else math.exp(score) for score, later in zip(scaled, is_later, strict=True)]
        return [power / sum(powers) for power in powers]
    if method == "set to 0, then softmax":
        powers = [math.exp(0.0 if later else score) for score, later in zip(scaled, is_later, strict=True)]
        return [power / sum(powers) for power in powers]
    powers = [math.exp(score) for score in scaled]
    masked = [0.0 if later else power / sum(powers) for power, later in zip(powers, is_later, strict=True)]
    return [weight / sum(masked) for weight in masked] if "renormalise" in method else masked


def largest_changes(
    loaded: LoadedModel, position: int, id: int, allowed: Callable[[Tensor], Tensor], text: str = SENTENCE
) -> Tensor:
    """The largest change of a logit after each token, (T,), in passes whose heads are replaced by hooks."""
    ids = list(loaded.tokens(text).ids)
    allowed_TT = allowed(torch.ones(len(ids), len(ids))).bool()
    before_TV = logits_by_hand(loaded, ids, lambda _: allowed_TT)
    ids[position] = id
    return (logits_by_hand(loaded, ids, lambda _: allowed_TT) - before_TV).abs().amax(-1)


def everywhere(ones_TT: Tensor) -> Tensor:
    return ones_TT


@pytest.mark.parametrize("method", MASKING_METHODS)
def test_equal_scores_give_weights_that_can_be_checked_in_the_head(method: str) -> None:
    weight_1TT = masked_weights(torch.zeros(1, 2, 2), method)  # type: ignore[arg-type]
    assert weight_1TT.flatten().tolist() == ROWS_OF_ZEROS[method]
    assert masked_weights(torch.zeros(1, 2, 2), method, broken=True).flatten().tolist() == [0.5] * 4  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=9, max_size=9))
def test_masking_before_the_softmax_or_after_it_and_renormalising_is_the_same(scores: list[float]) -> None:
    scaled_1TT = torch.tensor(scores, dtype=torch.double).reshape(1, 3, 3)
    before_1TT, after_1TT = (masked_weights(scaled_1TT, method) for method in CORRECT)
    assert_close(before_1TT, after_1TT)
    assert before_1TT.triu(1).abs().max() == 0
    bias_TT = torch.zeros(3, 3, dtype=torch.double).masked_fill(torch.ones(3, 3).triu(1).bool(), -math.inf)
    one_hot_TT = torch.eye(3, dtype=torch.double)[None]  # values, so that the output is the weights
    queries_1TD = scaled_1TT * 3**0.5  # keys are one-hot too, so that the scores are those drawn
    assert_close(
        before_1TT, nn.functional.scaled_dot_product_attention(queries_1TD, one_hot_TT, one_hot_TT, attn_mask=bias_TT)
    )


@pytest.mark.parametrize("method", MASKING_METHODS)
def test_each_method_is_that_of_plain_python_and_its_difference_to_the_right_one(
    loaded: LoadedModel, method: str
) -> None:
    panels = shown(loaded, layer=1, head=2, method=method)
    oracle = heads_by_hand(loaded, SENTENCE, 1)
    scaled = (oracle.score_HTT[2] / loaded.network.config.d_head**0.5).tolist()
    weight_TT = torch.tensor([row_by_hand(method, row, index) for index, row in enumerate(scaled)]).double()
    assert_near(values(panels["weights"]), weight_TT, relative=1e-3)
    assert_near(values(panels["difference"]), weight_TT - oracle.weight_HTT[2], relative=1e-3)
    assert_near(values(panels["row_sums"]), weight_TT.sum(1), relative=1e-3)
    later = [sum(row[index + 1 :]) for index, row in enumerate(weight_TT.tolist())]
    assert_near(values(panels["later_weights"]), torch.tensor(later), relative=1e-3)
    assert panels["weights"].title == f"Attention weights, layer 1, head 2: {method}"


def test_the_book_s_scores_are_those_of_its_class_and_its_weights_are_printed(loaded: LoadedModel) -> None:
    """Chapter 3.5.1: the class SelfAttention_v2 with its seed."""
    torch.manual_seed(789)
    query, key = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    assert_close(book_scaled_scores()[0], (query(BOOK) @ key(BOOK).T / 2**0.5).detach())
    for method in CORRECT:
        weights = values(shown(loaded, source="book", method=method)["weights"])
        for row, numbers in enumerate(PRINTED_WEIGHTS):
            assert weights[row, : row + 1].tolist() == pytest.approx(numbers, abs=6e-5)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_replaced_token_changes_the_logits_as_in_passes_with_hooks(loaded: LoadedModel, position: int) -> None:
    panels, ids = shown(loaded, changed_token=position), loaded.tokens(SENTENCE).ids
    id = (ids[position] + 1) % loaded.network.config.n_vocab
    assert_near(values(panels["logit_changes"]), largest_changes(loaded, position, id, torch.tril), relative=1e-3)
    assert values(panels["logit_changes"])[:position].tolist() == pytest.approx([0] * position, abs=1e-4)
    unmasked = panels["unmasked_logit_changes"]
    assert_near(values(unmasked), largest_changes(loaded, position, id, everywhere), relative=1e-3)
    assert values(unmasked).min() > 0.01
    assert isinstance(unmasked, Bars)
    assert unmasked.chosen == position


def test_broken_shows_the_changes_without_a_mask_in_both_pictures(loaded: LoadedModel) -> None:
    panels = shown(loaded, broken=True)
    assert values(panels["logit_changes"]).tolist() == values(panels["unmasked_logit_changes"]).tolist()
    assert values(panels["later_weights"])[:-1].min() > 0


@pytest.mark.parametrize(("replacement", "first"), [("dog", " dog"), ("  dog barks ", " dog"), ("", None)])
def test_the_first_token_of_the_replacement_takes_the_place_of_the_token(
    loaded: LoadedModel, replacement: str, first: str | None
) -> None:
    text = shown(loaded, changed_token=2, replacement=replacement)["changed_text"]
    ids = list(loaded.tokens(SENTENCE).ids)
    next_id = (ids[2] + 1) % loaded.network.config.n_vocab
    ids[2] = next_id if first is None else loaded.tokens(first).ids[0]
    assert isinstance(text, Chips)
    chips = text.rows[0].chips
    assert [chip.text for chip in chips] == [loaded.tokenizer.label(id) for id in ids]
    assert [chip.about for chip in chips] == ["", "", "replaced", "", "", "", ""]
    assert text.title == f"The text, 2 ·cat replaced by {loaded.tokenizer.label(ids[2])}"


def changed_checks(loaded: LoadedModel, **controls: object) -> list[Check]:
    return checks_of(make_work(loaded, "causal-mask", SENTENCE, **controls))[-2:]


def test_the_checks_of_a_change_measure_nothing_where_nothing_can_change(loaded: LoadedModel) -> None:
    first = changed_checks(loaded, changed_token=0)
    same = changed_checks(loaded, replacement="mat")
    assert [check.passed for check in first + same] == [None] * 4
    assert {check.reason for check in first} == {"the first token is replaced, and no token comes before it"}


def test_of_a_long_text_only_the_beginning_is_read_without_a_mask(lookback_gpt: LoadedModel) -> None:
    long = LoadedModel("long", lookback_gpt.network, lookback_gpt.tokenizer, max_tokens=256)
    n, text = N_UNMASKED + 5, "the" + " the" * (N_UNMASKED + 4)
    panels = panels_of(make_work(long, "causal-mask", text, changed_token=2))
    masked, unmasked = panels["logit_changes"], panels["unmasked_logit_changes"]
    assert isinstance(masked, Bars)
    assert isinstance(unmasked, Bars)
    assert (len(masked.values), len(unmasked.values)) == (n, N_UNMASKED)
    assert unmasked.title.endswith("first 128 tokens")
    last = checks_of(make_work(long, "causal-mask", text))[-1]
    assert last.reason == "only 128 tokens are read without a mask"
