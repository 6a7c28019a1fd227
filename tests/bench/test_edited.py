"""The pairs of edited readings read what their names say."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import NO_SITES
from app.experiments.base import RESIDUAL, PanelProgress
from app.models import LoadedModel
from bench.edited import ablation_of, cache_of, read_rest, timed_steps, with_other_end
from bench.measure import rotated
from model.cache import shared_prefix_length
from model.edits import NO_EDITS, Cut, Edit, Edits
from model.reading import read
from model.sites import ObservedSite

IDS = tuple(range(10, 22))
N_TAIL = 4
CUT = Edits((Cut(1, 0, query=len(IDS) - N_TAIL, key=0),))
HEAD = Edits((Edit("context", 1, heads=(0,), first=len(IDS) - N_TAIL, scale=0.0),))


@given(st.lists(st.integers(0, 3), min_size=2).filter(lambda ids: len(set(ids)) > 1), st.data())
def test_a_text_with_another_end_shares_what_comes_before(ids: Sequence[int], data: st.DataObject) -> None:
    n_changed = data.draw(st.integers(1, len(ids)))
    changed = with_other_end(tuple(ids), n_changed)
    assert len(changed) == len(ids)
    assert shared_prefix_length(changed, tuple(ids)) == len(ids) - n_changed


@pytest.mark.parametrize("edits", [CUT, HEAD])
def test_an_edited_reading_reads_as_many_tokens_as_the_unedited_one(tiny_model: LoadedModel, edits: Edits) -> None:
    network = tiny_model.network
    unedited = cache_of(network, with_other_end(IDS, N_TAIL), NO_SITES).longest_prefix(network, IDS)
    edited = cache_of(network, IDS, NO_SITES).longest_prefix(network, IDS, edits)
    assert unedited.n_tokens == edited.n_tokens == len(IDS) - N_TAIL


@pytest.mark.parametrize(("edits", "sites"), [*product([CUT, HEAD, NO_EDITS], [NO_SITES, RESIDUAL])])
def test_a_rest_ends_as_the_whole_reading(
    tiny_model: LoadedModel, edits: Edits, sites: frozenset[ObservedSite]
) -> None:
    ids = IDS if edits else with_other_end(IDS, N_TAIL)
    cache = cache_of(tiny_model.network, ids, sites)
    trace, whole = read_rest(tiny_model.network, cache, IDS, edits), read(tiny_model.network, IDS, edits)
    last = len(IDS) - 1
    assert trace.logits([last]).tolist() == [pytest.approx(row, abs=1e-4) for row in whole.logits([last]).tolist()]


def test_the_ablation_has_an_effect_for_every_head(tiny_model: LoadedModel) -> None:
    work = ablation_of(tiny_model, "the fat cat")
    steps = [step for _, step in timed_steps(work.sweep())]
    config = tiny_model.network.config
    assert len(work.effects) == config.n_layers * config.n_heads
    assert isinstance(steps[0], PanelProgress)
    assert steps[-1] is None


def test_every_step_is_timed_and_so_is_what_follows_the_last() -> None:
    steps = list(timed_steps(iter([PanelProgress(1, 2), PanelProgress(2, 2)])))
    assert [step for _, step in steps] == [PanelProgress(1, 2), PanelProgress(2, 2), None]
    assert all(ms >= 0 for ms, _ in steps)


def test_rotation_lets_each_be_first_once() -> None:
    assert [rotated("abc", i)[0] for i in range(6)] == [*"abcabc"]
    assert sorted(rotated("abc", 2)) == [*"abc"]
