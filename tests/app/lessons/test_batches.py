"""S21: rows that are read side by side have the numbers of one pass over a padded array, and of each text alone."""

# shapes: B texts, H heads, T tokens of the longest text, M features of a token, D features of a head

from collections.abc import Generator
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.experiments.base import PanelProgress
from app.experiments.panels import AnyPanel, Heatmap
from app.lessons import batches
from app.lessons.batches import BATCH_SIZES, BatchesWork, PaddingSide
from app.models import LoadedModel
from tests.app.experiments import checks_of, complete_work, make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, assert_near, heads_by_hand, lines, named, number, values

TEXTS = [SENTENCE, "my dog ran", "the queen saw the king and ran"]
SIDES: tuple[PaddingSide, ...] = ("right", "left")
LAYER, HEAD = 1, 2


def make_batch(loaded: LoadedModel, **controls: object) -> BatchesWork:
    """A batch of TEXTS whose rows are read."""
    texts = {"second_text": TEXTS[1], "third_text": TEXTS[2], "layer": LAYER, "head": HEAD}
    return cast("BatchesWork", complete_work(loaded, "batches", TEXTS[0], **texts | controls))


def padded_array(loaded: LoadedModel, side: PaddingSide) -> Tensor:
    """The ids of all texts in one array, filled up with 0, (B, T)."""
    ids = [torch.tensor(loaded.tokens(text).ids) for text in TEXTS]
    return pad_sequence(ids, batch_first=True, padding_value=0, padding_side=side)


@torch.inference_mode()
def one_pass(loaded: LoadedModel, side: PaddingSide) -> tuple[Tensor, Tensor]:
    """The vectors after the last layer, (B, T, M), and the weights of the head, (B, T, T), of one padded array."""
    caught: list[Tensor] = []
    heads = loaded.network.blocks[LAYER].get_submodule("attention.heads")
    handle = heads.register_forward_hook(lambda _, inputs, __: caught.extend(inputs[:2]))
    hidden_BTM = loaded.network.hidden(padded_array(loaded, side))
    handle.remove()
    q_BTD, k_BTD = caught[0][:, HEAD], caught[1][:, loaded.network.config.key_head(HEAD)]
    score_BTT = q_BTD @ k_BTD.mT / q_BTD.shape[-1] ** 0.5
    later_TT = torch.ones(score_BTT.shape[1:]).triu(1).bool()
    return hidden_BTM, score_BTT.masked_fill(later_TT, -torch.inf).softmax(-1)


@pytest.mark.parametrize("side", SIDES)
def test_rows_have_the_vectors_and_weights_of_one_pass_over_a_padded_array(
    loaded: LoadedModel, side: PaddingSide
) -> None:
    hidden_BTM, weight_BTT = one_pass(loaded, side)
    for text in range(len(TEXTS)):
        work = make_batch(loaded, padding=side, text_index=text)
        assert_near(work.hidden_BTM, hidden_BTM, relative=1e-3)
        assert_near(values(work.weights()), weight_BTT[text], relative=1e-3)


@pytest.mark.parametrize("side", SIDES)
def test_the_array_shows_the_first_features_and_leaves_padding_empty(loaded: LoadedModel, side: PaddingSide) -> None:
    arrays = {"after the last layer": one_pass(loaded, side)[0]}
    arrays["token vectors"] = loaded.network.embed.weight[padded_array(loaded, side)]
    n = padded_array(loaded, side).shape[1]
    for name, x_BTM in arrays.items():
        cube = make_batch(loaded, padding=side, vectors=name).vectors()
        assert cube.title.startswith(f"{name.capitalize()}: {' × '.join(map(str, x_BTM.shape))}")
        for text, (sheet, labels) in enumerate(zip(cube.values, cube.rows, strict=True)):
            tokens = loaded.tokens(TEXTS[text]).ids
            rows = range(len(tokens)) if side == "right" else range(n - len(tokens), n)
            assert [row for row in range(n) if labels[row] == f"{row} padding"] == sorted({*range(n)} - {*rows})
            assert labels[rows[0]] == f"{rows[0]} {loaded.tokenizer.label(tokens[0])}"
            assert_near([sheet[row] for row in rows], x_BTM[text, rows, :8].detach(), relative=1e-3)
            assert all(sheet[row] == [None] * 8 for row in {*range(n)} - {*rows})


def test_padding_changes_the_weights_on_the_left_and_not_on_the_right(loaded: LoadedModel) -> None:
    alone_TT = heads_by_hand(loaded, TEXTS[1], LAYER).weight_HTT[HEAD]
    for side in SIDES:
        rows = slice(0, len(alone_TT)) if side == "right" else slice(-len(alone_TT), None)
        difference_TT = one_pass(loaded, side)[1][1, rows, rows].double() - alone_TT
        panel = make_batch(loaded, padding=side, text_index=1).difference()
        assert_near(values(panel), difference_TT, absolute=1e-4)
        assert (difference_TT.abs().max() > 1e-3) == (side == "left")


def test_the_facts_are_the_shapes_of_a_padded_array_and_its_distance_to_each_text_alone(loaded: LoadedModel) -> None:
    ids_BT, config = padded_array(loaded, "left"), loaded.network.config
    n_texts, n = ids_BT.shape
    facts, difference = make_batch(loaded, padding="left").batch_facts(), 0.0
    for text, hidden_TM in zip(TEXTS, one_pass(loaded, "left")[0], strict=True):
        alone_TM = loaded.network.hidden(torch.tensor([loaded.tokens(text).ids]))[0].detach()
        change = (hidden_TM[-len(alone_TM) :] - alone_TM).abs().max() / alone_TM.abs().max()
        difference = max(difference, change.item())
    n_padding = n_texts * n - sum(len(loaded.tokens(text).ids) for text in TEXTS)
    keys = f"{n_texts} × {config.n_kv_heads}"
    assert list(named(facts).values())[:8] == [
        f"{n_texts} × {n}",
        f"{n_texts} × {n} × {config.d_model}",
        f"{config.n_heads * config.d_head} × {config.d_model}",
        f"{n_texts} × {config.n_heads} × {n} × {config.d_head}",
        f"{keys} × {n} × {config.d_head}",
        f"{keys} × {config.d_head} × {n}",
        f"{keys} × {n} × {config.d_head}",
        f"{n_texts} × {config.n_heads} × {n} × {n}",
    ]
    assert number(facts, "tokens of padding") == n_padding
    assert number(facts, "fraction of the batch that is padding") == pytest.approx(n_padding / (n_texts * n))
    assert number(facts, "largest relative difference to each text alone") == pytest.approx(difference, rel=1e-2)


def test_two_texts_of_four_and_two_tokens_have_a_quarter_of_padding(lookback_gpt: LoadedModel) -> None:
    work = cast("BatchesWork", complete_work(lookback_gpt, "batches", "the cat saw the", second_text="the cat"))
    assert [len(tokens) for tokens in work.texts] == [4, 2]
    assert number(work.batch_facts(), "fraction of the batch that is padding") == 0.25
    assert [work.padded(1, side)[-2:] for side in SIDES] == [(0, 0), work.texts[1].ids]


def test_all_rows_are_one_round_and_every_added_text_is_read_alone(lookback_gpt: LoadedModel) -> None:
    work = make_work(lookback_gpt, "batches", TEXTS[0], second_text=TEXTS[1], third_text=TEXTS[2])
    rounds = [{name: len(reading.ids) for name, reading in readings.items()} for readings in work.readings()]
    lengths = [len(lookback_gpt.tokens(text).ids) for text in TEXTS]
    assert rounds[0] == {f"row {text}": max(lengths) for text in range(3)}
    assert rounds[1:] == [{"alone 1": lengths[1]}, {"alone 2": lengths[2]}]


def test_a_text_that_the_batch_lacks_means_its_last_one(lookback_gpt: LoadedModel) -> None:
    last, beyond = (panels_of(make_batch(lookback_gpt, text_index=text)) for text in (2, 3))
    assert last == beyond
    panel = last["weights"]
    assert isinstance(panel, Heatmap)
    assert panel.title.startswith("Attention weights of text 2 ")


@pytest.mark.parametrize("side", SIDES)
def test_the_checks_pass_whatever_padding_is_shown(loaded: LoadedModel, side: PaddingSide) -> None:
    assert [check.passed for check in checks_of(make_batch(loaded, padding=side))] == [True] * 3
    assert [check.passed for check in checks_of(make_batch(loaded, padding=side, broken=True))] == [False, True, True]


def test_the_times_are_those_of_a_batch_divided_by_its_texts(
    lookback_gpt: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known_times(_: object, shapes: tuple[tuple[int, int], ...]) -> Generator[PanelProgress, None, list[float]]:
        yield PanelProgress(0, 1)
        return [6.0 + 2.0 * n_texts for n_texts, _ in shapes]

    monkeypatch.setattr(batches, "passes_milliseconds", known_times)
    panels: dict[bool, AnyPanel] = {on: panels_of(make_batch(lookback_gpt, timed=on))["times"] for on in (False, True)}
    assert lines(panels[True])["ms per text"].tolist() == [8.0, 5.0, 3.5, 2.75]
    assert lines(panels[False])["ms per text"].isnan().all()
    assert BATCH_SIZES == (1, 2, 4, 8)


def test_broken_pads_on_the_left(lookback_gpt: LoadedModel) -> None:
    wrong, left = make_batch(lookback_gpt, broken=True), make_batch(lookback_gpt, padding="left")
    assert wrong.vectors() == left.vectors()
