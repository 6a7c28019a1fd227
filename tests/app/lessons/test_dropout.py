"""S20: numbers are dropped one by one as in plain Python, and predictions are those of passes with hooks that drop."""

# shapes: N draws, T tokens, M features of a token, H heads, V tokens of the vocabulary, X any of these; B texts

import math
from typing import cast, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.experiments.panels import Heatmap
from app.lessons import dropout
from app.lessons.dropout import N_PASSES, TARGETS, DropoutWork, DroppedNumbers
from app.models import LoadedModel
from model.edited import random_numbers
from model.edits import DROP_TARGETS
from tests.app.experiments import checks_of, complete_work, make_work
from tests.app.lessons.oracle import (
    LONG,
    SENTENCE,
    Change,
    assert_near,
    captured,
    heads_by_hand,
    logits_with,
    named,
    number,
    values,
)

LAYER, HEAD, RATE = 1, 2, 0.25
NUMBERS: tuple[DroppedNumbers, ...] = get_args(DroppedNumbers)


def make_draws(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> DropoutWork:
    """A lesson whose readings are not made yet."""
    fields = {"layer": LAYER, "head": HEAD, "rate": RATE, **controls}
    return cast("DropoutWork", make_work(loaded, "dropout", text, **fields))


def numbers_by_hook(loaded: LoadedModel, target: DroppedNumbers, text: str) -> Tensor:
    """The numbers that dropout is applied to, as hooks see them, (T, X)."""
    block = loaded.network.blocks[LAYER]
    if target == "attention weights":
        return heads_by_hand(loaded, text, LAYER).weight_HTT[HEAD]
    if target == "embedded tokens":
        return captured(loaded, text, loaded.network.blocks[0])[0]
    return captured(loaded, text, block.get_submodule("attention" if target == "attention outputs" else "mlp"))[1]


def drawn_by_hand(x_TX: Tensor, rate: float, seed: int, n_draws: int) -> list[Tensor]:
    """Draw after draw, number by number: 0 if a random number is below the rate, else divided by 1 − rate."""
    random = torch.rand(n_draws, *x_TX.shape, generator=torch.Generator().manual_seed(seed)).tolist()
    drawn = [
        [[0 if r < rate else x / (1 - rate) for r, x in zip(*rows, strict=True)] for rows in zip(draw, x, strict=True)]
        for draw, x in zip(random, [x_TX.tolist()] * n_draws, strict=True)
    ]
    return [torch.tensor(draw) for draw in drawn]


@pytest.mark.parametrize("target", NUMBERS)
def test_draws_their_mean_and_their_sums_are_made_number_by_number(loaded: LoadedModel, target: DroppedNumbers) -> None:
    work, x_TX = make_draws(loaded, target=target, seed=3, n_draws=5), numbers_by_hook(loaded, target, SENTENCE)
    draws = drawn_by_hand(x_TX, RATE, 3, 5)
    mean_TX, n_columns = sum(draws, torch.zeros(1)) / 5, min(64, x_TX.shape[1])
    assert_near(values(work.original()), x_TX[:, :n_columns], relative=1e-3, absolute=1e-4)
    assert_near(values(work.dropped()), draws[0][:, :n_columns], relative=1e-3, absolute=1e-4)
    assert_near(values(work.mean()), mean_TX[:, :n_columns], relative=1e-3, absolute=1e-4)
    assert_near(values(work.row_sums()), draws[0].sum(1), relative=1e-3, absolute=1e-3)
    facts = work.draw_facts()
    flat = [x for row in draws[0].tolist() for x in row]
    assert number(facts, "fraction of the numbers that are 0") == pytest.approx(flat.count(0) / len(flat))
    assert number(facts, "rows of only zeros") == sum(not any(row) for row in draws[0].tolist())
    distance = (mean_TX - x_TX)[x_TX != 0].abs().mean().item()
    name = "mean distance of the averaged draws from the numbers"
    assert number(facts, name) == pytest.approx(distance, rel=1e-3)


def test_a_quarter_of_ones_is_dropped_and_the_others_become_four_thirds(lookback_gpt: LoadedModel) -> None:
    work, ones = make_draws(lookback_gpt), torch.ones(100, 100)
    dropped = work.apply_dropout(ones, 1)[0]
    assert sorted({round(x, 6) for x in dropped.flatten().tolist()}) == [0.0, 1.333333]
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 10_000))
    broken = make_draws(lookback_gpt, broken=True).apply_dropout(ones, 1)[0]
    assert torch.equal(broken, (dropped > 0).float())
    assert torch.equal(work.apply_dropout(ones, 2, inference=True), torch.ones(2, 100, 100))


def test_every_draw_of_the_mean_is_another_and_each_seed_repeats_its_own(lookback_gpt: LoadedModel) -> None:
    of_1, again, of_2 = (make_draws(lookback_gpt, seed=seed).draws_NTX for seed in (1, 1, 2))
    assert torch.equal(of_1, again)
    assert not torch.equal(of_1, of_2)
    assert len({draw.numpy().tobytes() for draw in of_1}) == len(of_1) == 100


def test_a_long_text_has_fewer_draws(lookback_gpt: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    n = len(lookback_gpt.tokens(SENTENCE).ids)
    monkeypatch.setattr(dropout, "MAX_NUMBERS", 3 * n * n + 1)
    assert make_draws(lookback_gpt).mean().title == "Mean of 3 draws"
    monkeypatch.setattr(dropout, "MAX_NUMBERS", 1)
    assert make_draws(lookback_gpt).mean().title == "Mean of 1 draws"


def dropping_hooks(loaded: LoadedModel, target: DroppedNumbers, seed: int, n: int) -> dict[nn.Module, Change]:
    """Hooks that apply dropout in all layers, with the mask of a seed."""
    network, name = loaded.network, TARGETS[target]
    positions_T, features_M = torch.arange(n), torch.arange(network.config.d_model)

    def factors(layer: int, *index: Tensor) -> Tensor:
        uniform = random_numbers((seed, DROP_TARGETS.index(name), layer, *index))
        return torch.where(uniform >= RATE, 1 / (1 - RATE), 0.0).float()

    def on_vectors(layer: int) -> Change:
        return lambda _, x_BTM: x_BTM * factors(layer, positions_T[:, None], features_M)

    def on_weights(layer: int) -> Change:
        def attend(inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
            q_HTD, k_HTD, v_HTD = (x[0].repeat_interleave(len(inputs[0][0]) // len(x[0]), 0) for x in inputs[:3])
            scaled_HTT = q_HTD @ k_HTD.mT / q_HTD.shape[-1] ** 0.5
            weight_HTT = scaled_HTT.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf).softmax(-1)
            heads_H = torch.arange(len(q_HTD))
            factor_HTT = factors(layer, heads_H[:, None, None], positions_T[:, None], positions_T)
            context_HTD: Tensor = (weight_HTT * factor_HTT) @ v_HTD
            return context_HTD[None]

        return attend

    if target == "embedded tokens":
        return {network.dropout: on_vectors(0)}
    change = on_weights if target == "attention weights" else on_vectors
    module = {"attention weights": "attention.heads", "attention outputs": "attention"}.get(target, "mlp")
    return {block.get_submodule(module): change(layer) for layer, block in enumerate(network.blocks)}


@pytest.mark.parametrize("target", NUMBERS)
def test_the_predictions_are_those_of_passes_in_which_hooks_drop_in_all_layers(
    loaded: LoadedModel, target: DroppedNumbers
) -> None:
    fields = {"layer": LAYER, "head": HEAD, "rate": RATE, "target": target, "seed": 2}
    work = cast("DropoutWork", complete_work(loaded, "dropout", LONG, **fields))
    ids = loaded.tokens(LONG).ids
    usual_V = logits_with(loaded, ids, {})[-1].softmax(-1)
    seeds = range(2 * N_PASSES, 3 * N_PASSES)
    hooks = (dropping_hooks(loaded, target, seed, len(ids)) for seed in seeds)
    probability_NV = torch.stack([logits_with(loaded, ids, changes)[-1].softmax(-1) for changes in hooks])
    top = usual_V.topk(6).indices
    heatmap, facts = work.predictions(), named(work.prediction_facts())
    assert_near(values(heatmap)[:, 0], usual_V[top], relative=1e-3)
    assert_near(values(heatmap)[:, 1:].T, probability_NV[:, top], relative=1e-3, absolute=1e-5)
    assert heatmap.rows == [f"{rank} {loaded.tokenizer.label(id)}" for rank, id in enumerate(top.tolist())]
    of_best = probability_NV[:, top[0]].numpy()
    n_others = sum(int(p_V.argmax()) != int(top[0]) for p_V in probability_NV)
    expected = [usual_V.max().item(), np.mean(of_best), np.std(of_best), n_others]
    assert list(facts.values()) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("name", "value"), [("inference", True), ("rate", 0.0)])
def test_at_inference_or_rate_0_nothing_is_dropped_and_nothing_read_again(
    loaded: LoadedModel, name: str, value: object
) -> None:
    work = cast("DropoutWork", make_work(loaded, "dropout", SENTENCE, **{"rate": RATE, name: value}))
    assert list(work.readings()) == []
    assert work.original().values == work.dropped().values
    assert_near(values(work.mean()), values(work.original()))
    columns = values(work.predictions()).T
    assert all(torch.equal(column, columns[0]) for column in columns[1:])
    facts = named(work.prediction_facts())
    assert facts["its standard deviation"] == pytest.approx(0, abs=1e-7)
    assert facts["draws with another most probable token"] == 0


def test_seeds_share_no_draw(lookback_gpt: LoadedModel) -> None:
    rounds = [next(iter(make_draws(lookback_gpt, seed=seed).readings())) for seed in (0, 1)]
    edits = [str(reading.edits) for readings in rounds for reading in readings.values()]
    assert len(set(edits)) == 2 * N_PASSES
    assert edits[0] == "drop:weights:0.25:0"


def test_after_a_draw_a_weight_may_exceed_1_so_its_colours_are_signed(lookback_gpt: LoadedModel) -> None:
    work = make_draws(lookback_gpt)
    scales = {name: cast("Heatmap", getattr(work, name)()).scale for name in ("original", "dropped", "mean")}
    assert scales == {"original": "probability", "dropped": "signed", "mean": "probability"}
    assert values(work.dropped()).max() > 1


@pytest.mark.parametrize("target", NUMBERS)
def test_without_scaling_the_mean_of_the_draws_is_too_small(loaded: LoadedModel, target: DroppedNumbers) -> None:
    right, wrong = (checks_of(make_draws(loaded, target=target, broken=broken)) for broken in (False, True))
    assert all(check.passed for check in right)
    assert [check.passed for check in wrong][:4] == [False, True, True, False]
