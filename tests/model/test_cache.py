"""What is cache is exact, bounded, and found again by every text that begins the same."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.cache import PrefixCache, shared_prefix_length
from model.gpt import GPT
from model.reading import read, read_batch
from model.sites import STAGES
from model.trace import Trace
from model.weights.folder import load
from tests.checkpoints import write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

IDS = st.lists(st.integers(0, 399), min_size=1, max_size=60)


@pytest.fixture(scope="module", params=[write_gpt2, write_llama])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GPT:
    return load(request.param(tmp_path_factory.mktemp("cache") / "tiny"), device=CPU, dtype=FLOAT)[0]


def read_with(cache: PrefixCache, network: GPT, ids: list[int]) -> Trace:
    """Read a text the way the engine does: from where what is cache ends."""
    trace = cache.longest_prefix(network, tuple(ids))
    if trace.n_tokens < len(ids):
        trace = read_batch(network, [(trace, ids[trace.n_tokens :])])[0]
    cache.put(tuple(ids), trace)
    return trace


def assert_same(found: Trace, fresh: Trace) -> None:
    """Every stage, norm, context and logit, within 1e-5 (of the largest, where numbers are larger than 1)."""
    config = fresh.model.config
    heads = range(config.n_heads)
    assert found.n_tokens == fresh.n_tokens
    for layer in range(config.n_layers):
        for stage in STAGES:
            assert_close(found.stage(stage, layer, heads), fresh.stage(stage, layer, heads))
        assert_close(found.context(layer, heads), fresh.context(layer, heads))
    assert_close(found.norms_STK, fresh.norms_STK)
    assert_close(found.residual_LT, fresh.residual_LT)
    assert_close(found.logits(range(fresh.n_tokens)), fresh.logits(range(fresh.n_tokens)))


def assert_close(found: Tensor, fresh: Tensor) -> None:
    largest = float(fresh[fresh.isfinite()].abs().max())
    torch.testing.assert_close(found, fresh, atol=1e-5 * max(1.0, largest), rtol=0)


EDITS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.lists(st.integers(0, 399), max_size=20)), max_size=6
)


@given(IDS, EDITS)
@settings(max_examples=30, deadline=None)
def test_a_reading_with_what_is_kept_equals_a_fresh_one(
    network: GPT, ids: list[int], edits: list[tuple[int, int, list[int]]]
) -> None:
    """Edits replace some tokens anywhere by others: typing, deleting, pasting."""
    cache = PrefixCache(2_000_000)
    read_with(cache, network, ids)
    for at, n_gone, new in edits:
        at = min(at, len(ids))
        ids = [*ids[:at], *new, *ids[at + n_gone :]][:64] or [1]
        found = read_with(cache, network, ids)
    assert_same(found if edits else read_with(cache, network, ids), read(network, ids))


@given(st.lists(st.tuples(IDS, st.integers(0, 60)), min_size=2, max_size=5))
@settings(max_examples=25, deadline=None)
def test_texts_that_are_read_together_equal_each_read_alone(network: GPT, texts: list[tuple[list[int], int]]) -> None:
    starts = [min(n_kept, len(ids) - 1) for ids, n_kept in texts]
    before = [read(network, ids[:n]) if n else Trace(network, ()) for (ids, _), n in zip(texts, starts, strict=True)]
    rest = [ids[n:] for (ids, _), n in zip(texts, starts, strict=True)]
    for (ids, _), found in zip(texts, read_batch(network, list(zip(before, rest, strict=True))), strict=True):
        assert_same(found, read(network, ids))


def test_a_text_that_was_just_read_is_not_read_again(network: GPT) -> None:
    cache = PrefixCache(1_000_000)
    first = read_with(cache, network, [1, 2, 3])
    assert cache.longest_prefix(network, (1, 2, 3)) is first
    assert cache.longest_prefix(network, (1, 2, 4)).n_tokens == 2
    assert cache.longest_prefix(network, (1, 2)).n_tokens == 2
    assert cache.longest_prefix(network, (4, 2, 3)).n_tokens == 0


def test_what_is_kept_of_one_model_is_not_shown_for_another(network: GPT, tmp_path: Path) -> None:
    other = load(write_llama(tmp_path / "other"), device=CPU, dtype=FLOAT)[0]
    cache = PrefixCache(1_000_000)
    read_with(cache, network, [1, 2])
    assert cache.longest_prefix(other, (1, 2)).n_tokens == 0


def test_the_text_longest_unused_is_let_go_first(network: GPT) -> None:
    cache = PrefixCache(2 * read(network, [1, 2]).n_bytes)
    for ids in ([1, 2], [3, 4]):
        read_with(cache, network, ids)
    cache.longest_prefix(network, (1, 2))
    read_with(cache, network, [5, 6])
    assert [cache.longest_prefix(network, ids).n_tokens for ids in ((1, 2), (3, 4), (5, 6))] == [2, 0, 2]


@given(st.lists(IDS, max_size=12), st.integers(0, 400_000))
@settings(max_examples=25, deadline=None)
def test_never_more_is_kept_than_allowed_and_every_byte_is_counted(
    network: GPT, texts: list[list[int]], most: int
) -> None:
    cache = PrefixCache(most)
    for ids in texts:
        read_with(cache, network, ids)
        chunks = {stretch for trace in cache._traces.values() for stretch in trace.chunks}
        assert cache.n_bytes == sum(stretch.n_bytes for stretch in chunks) <= most


def test_texts_that_begin_alike_share_memory(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    long = read_with(cache, network, [7] * 60)
    read_with(cache, network, [7] * 60 + [8])
    assert cache.n_bytes < 1.5 * long.n_bytes  # but for the last stretch of up to 32 tokens


def test_a_forgotten_model_leaves_nothing_behind(network: GPT) -> None:
    cache = PrefixCache(1_000_000)
    read_with(cache, network, [1, 2, 3])
    cache.evict_model(network)
    assert (len(cache), cache.n_bytes, cache.longest_prefix(network, (1, 2, 3)).n_tokens) == (0, 0, 0)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30))
def test_the_common_beginning_is_as_long_as_counting_finds(one: list[int], other: list[int]) -> None:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    assert shared_prefix_length(one, other) == n
