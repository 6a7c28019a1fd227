"""The prefix cache: exact, bounded, and used for every text that begins with the same tokens."""

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
    """Read a text as the engine does: continue from its longest cached prefix."""
    trace = cache.longest_prefix(network, tuple(ids))
    if trace.n_tokens < len(ids):
        trace = read_batch(network, [(trace, ids[trace.n_tokens :])])[0]
    cache.put(tuple(ids), trace)
    return trace


def assert_same(trace: Trace, fresh: Trace) -> None:
    """Every stage, norm, context and logit is equal within 1e-5, or 1e-5 of the largest number if that is over 1."""
    config = fresh.model.config
    heads = range(config.n_heads)
    assert trace.n_tokens == fresh.n_tokens
    for layer in range(config.n_layers):
        for stage in STAGES:
            assert_close(trace.stage(stage, layer, heads), fresh.stage(stage, layer, heads))
        assert_close(trace.context(layer, heads), fresh.context(layer, heads))
    assert_close(trace.norms_STK, fresh.norms_STK)
    assert_close(trace.residual_norm_LT, fresh.residual_norm_LT)
    assert_close(trace.logits(range(fresh.n_tokens)), fresh.logits(range(fresh.n_tokens)))


def assert_close(x: Tensor, fresh: Tensor) -> None:
    largest = float(fresh[fresh.isfinite()].abs().max())
    torch.testing.assert_close(x, fresh, atol=1e-5 * max(1.0, largest), rtol=0)


EDITS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.lists(st.integers(0, 399), max_size=20)), max_size=6
)


@given(IDS, EDITS)
@settings(max_examples=30, deadline=None)
def test_reading_with_the_cache_equals_reading_without(
    network: GPT, ids: list[int], edits: list[tuple[int, int, list[int]]]
) -> None:
    """An edit replaces a run of tokens: typing, deleting, pasting."""
    cache = PrefixCache(2_000_000)
    read_with(cache, network, ids)
    for at, n_removed, new in edits:
        at = min(at, len(ids))
        ids = [*ids[:at], *new, *ids[at + n_removed :]][:64] or [1]
        trace = read_with(cache, network, ids)
    assert_same(trace if edits else read_with(cache, network, ids), read(network, ids))


@given(st.lists(st.tuples(IDS, st.integers(0, 60)), min_size=2, max_size=5))
@settings(max_examples=25, deadline=None)
def test_texts_read_in_one_batch_equal_texts_read_alone(network: GPT, texts: list[tuple[list[int], int]]) -> None:
    starts = [min(n_cached, len(ids) - 1) for ids, n_cached in texts]
    before = [read(network, ids[:n]) if n else Trace(network, ()) for (ids, _), n in zip(texts, starts, strict=True)]
    rest = [ids[n:] for (ids, _), n in zip(texts, starts, strict=True)]
    for (ids, _), trace in zip(texts, read_batch(network, list(zip(before, rest, strict=True))), strict=True):
        assert_same(trace, read(network, ids))


def test_a_cached_text_is_not_read_again(network: GPT) -> None:
    cache = PrefixCache(1_000_000)
    first = read_with(cache, network, [1, 2, 3])
    assert cache.longest_prefix(network, (1, 2, 3)) is first
    assert cache.longest_prefix(network, (1, 2, 4)).n_tokens == 2
    assert cache.longest_prefix(network, (1, 2)).n_tokens == 2
    assert cache.longest_prefix(network, (4, 2, 3)).n_tokens == 0


def test_the_cache_of_one_model_is_not_used_for_another(network: GPT, tmp_path: Path) -> None:
    second_network = load(write_llama(tmp_path / "second"), device=CPU, dtype=FLOAT)[0]
    cache = PrefixCache(1_000_000)
    read_with(cache, network, [1, 2])
    assert cache.longest_prefix(second_network, (1, 2)).n_tokens == 0


def test_the_least_recently_used_text_is_evicted_first(network: GPT) -> None:
    cache = PrefixCache(2 * read(network, [1, 2]).n_bytes)
    for ids in ([1, 2], [3, 4]):
        read_with(cache, network, ids)
    cache.longest_prefix(network, (1, 2))
    read_with(cache, network, [5, 6])
    assert [cache.longest_prefix(network, ids).n_tokens for ids in ((1, 2), (3, 4), (5, 6))] == [2, 0, 2]


@given(st.lists(IDS, max_size=12), st.integers(0, 400_000))
@settings(max_examples=25, deadline=None)
def test_the_cache_never_exceeds_its_limit_and_counts_every_byte(
    network: GPT, texts: list[list[int]], max_bytes: int
) -> None:
    cache = PrefixCache(max_bytes)
    for ids in texts:
        read_with(cache, network, ids)
        chunks = {chunk for trace in cache._traces.values() for chunk in trace.chunks}
        assert cache.n_bytes == sum(chunk.n_bytes for chunk in chunks) <= max_bytes


def test_texts_with_a_common_prefix_share_memory(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    long = read_with(cache, network, [7] * 60)
    read_with(cache, network, [7] * 60 + [8])
    assert cache.n_bytes < 1.5 * long.n_bytes  # only the last chunk, of up to 32 tokens, is stored twice


def test_evicting_a_model_removes_all_its_traces(network: GPT) -> None:
    cache = PrefixCache(1_000_000)
    read_with(cache, network, [1, 2, 3])
    cache.evict_model(network)
    assert (len(cache), cache.n_bytes, cache.longest_prefix(network, (1, 2, 3)).n_tokens) == (0, 0, 0)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30))
def test_the_shared_prefix_is_as_long_as_counting_gives(a: list[int], b: list[int]) -> None:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    assert shared_prefix_length(a, b) == n
