"""S23: what a head adds is what the output projection makes of its context vector when all others are 0."""

# shapes: H heads, T tokens, D features of a head, M features of a token, V tokens of the vocabulary; B texts

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from app.experiments.panels import AnyPanel, Bars
from app.models import LoadedModel
from tests.app.experiments import checks_of, make_work, panels_of
from tests.app.lessons.oracle import (
    LONG,
    SENTENCE,
    Change,
    assert_near,
    captured,
    heads_by_hand,
    logits_with,
    number,
    values,
)

LAYER, TOKEN = 1, 4


def shown(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "output-projection", text, **{"layer": LAYER, "token": TOKEN, **controls}))


def part(loaded: LoadedModel, name: str) -> nn.Module:
    return loaded.network.blocks[LAYER].get_submodule(f"attention.{name}")


def added_by_hand(loaded: LoadedModel, *, skip_projection: bool = False) -> list[Tensor]:
    """The vector that each head adds to the token, and the bias, (M,) each."""
    heads, config = heads_by_hand(loaded, SENTENCE, LAYER), loaded.network.config
    output = part(loaded, "output")
    nothing_X = torch.zeros(config.n_heads * config.d_head)
    bias_M = torch.zeros(config.d_model) if skip_projection else output(nothing_X).detach()
    added = []
    for head in range(config.n_heads):
        own_X = nothing_X.clone()
        own_X[head * config.d_head :][: config.d_head] = heads.weight_HTT[head, TOKEN] @ heads.v_HTD[head]
        added.append(own_X if skip_projection else output(own_X).detach() - bias_M)
    return [*added, bias_M]


def assert_vectors_shown(panels: dict[str, AnyPanel], vectors: list[Tensor]) -> None:
    """That lengths, components, cosines and facts are those of these vectors, in plain Python."""

    def dot(a_M: list[float], b_M: list[float]) -> float:
        return math.fsum(a * b for a, b in zip(a_M, b_M, strict=True))

    listed = [vector.tolist() for vector in vectors]
    sum_M = [math.fsum(column) for column in zip(*listed, strict=True)]
    lengths, length = [math.sqrt(dot(v, v)) for v in listed], math.sqrt(dot(sum_M, sum_M))
    n_heads = len(listed) - 1
    pairs = product(range(n_heads), repeat=2)
    cosines = [dot(listed[a], listed[b]) / max(lengths[a] * lengths[b], 1e-12) for a, b in pairs]
    assert_near(values(panels["lengths"]), lengths, relative=1e-3)
    assert_near(values(panels["components"]), [dot(v, sum_M) / length for v in listed], relative=1e-3, absolute=1e-4)
    assert_near(values(panels["cosines"]).flatten(), cosines, relative=1e-3, absolute=1e-4)
    assert number(panels["facts"], "length of the sum") == pytest.approx(length, rel=1e-3)
    assert number(panels["facts"], "sum of the lengths") == pytest.approx(sum(lengths), rel=1e-3)
    assert values(panels["components"]).sum().item() == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize("skip_projection", [False, True])
def test_each_head_adds_what_the_projection_makes_of_it_alone(loaded: LoadedModel, *, skip_projection: bool) -> None:
    panels = shown(loaded, skip_projection=skip_projection)
    assert_vectors_shown(panels, added_by_hand(loaded, skip_projection=skip_projection))


@pytest.mark.parametrize("skip_projection", [False, True])
def test_a_head_that_is_off_adds_nothing(loaded: LoadedModel, *, skip_projection: bool) -> None:
    panels = shown(loaded, head_off=2, skip_projection=skip_projection)
    vectors = added_by_hand(loaded, skip_projection=skip_projection)
    vectors[2] = torch.zeros_like(vectors[2])
    assert_vectors_shown(panels, vectors)
    bars = panels["lengths"]
    assert isinstance(bars, Bars)
    assert (bars.chosen, bars.labels[2], bars.values[2]) == (2, "head 2", 0.0)


@pytest.mark.parametrize("text", [SENTENCE, LONG, "the"])
@pytest.mark.parametrize(("head_off", "skip_projection"), [(None, False), (1, False), (None, True), (1, True)])
def test_the_logits_change_as_in_a_pass_in_which_hooks_change_the_layer(
    loaded: LoadedModel, text: str, head_off: int | None, *, skip_projection: bool
) -> None:
    changes: dict[nn.Module, Change] = {}
    if head_off is not None:
        off = torch.tensor([head_off])
        changes[part(loaded, "heads")] = lambda _, context_BHTD: context_BHTD.index_fill(1, off, 0.0)
    if skip_projection:
        changes[part(loaded, "output")] = lambda inputs, _: inputs[0]
    ids = loaded.tokens(text).ids
    change_V = logits_with(loaded, ids, changes)[-1] - logits_with(loaded, ids, {})[-1]
    facts = shown(loaded, text, head_off=head_off, skip_projection=skip_projection)["facts"]
    name = "largest change of a logit after the text"
    assert number(facts, name) == pytest.approx(change_V.abs().max().item(), rel=1e-3, abs=1e-6)


def test_the_vectors_sum_to_what_a_hook_sees_the_layer_add_unless_the_last_head_is_left_out(
    loaded: LoadedModel,
) -> None:
    output_TM = captured(loaded, SENTENCE, loaded.network.blocks[LAYER].get_submodule("attention"))[1]
    vectors = added_by_hand(loaded)
    assert_near(torch.stack(vectors).sum(0), output_TM[TOKEN], relative=1e-3, absolute=1e-4)
    vectors[-2] = torch.zeros_like(vectors[-2])
    assert_vectors_shown(shown(loaded, broken=True), vectors)
    checks = checks_of(make_work(loaded, "output-projection", SENTENCE, layer=LAYER, broken=True))
    assert [check.passed for check in checks] == [False, True]  # the second is about the first head
