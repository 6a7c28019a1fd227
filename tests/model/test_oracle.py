"""What our network computes is what `transformers` computes: on tiny random checkpoints of both families."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from model.gpt import GPT
from model.reading import observing, read
from model.sites import STAGES, norm_sites
from model.weights.folder import load
from tests.checkpoints import N_VOCAB, write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

CHECKPOINTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (write_gpt2, {}),
    "gpt2-untied": (write_gpt2, {"tie_word_embeddings": False}),
    "gpt2-eps": (write_gpt2, {"layer_norm_epsilon": 1e-3, "n_inner": 40}),
    "llama": (write_llama, {}),
    "llama-untied": (write_llama, {"tie_word_embeddings": False}),
    "llama-one-key-head": (write_llama, {"num_key_value_heads": 1}),
    "llama-ungrouped": (write_llama, {"num_key_value_heads": 4}),
    "llama-biased": (write_llama, {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": (write_llama, {"head_dim": 12}),
    "llama-3": (
        write_llama,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
}
IDS = (5, 9, 200, 9, 31, 5, 399, 17, 0, 260, 44)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write, change = CHECKPOINTS[request.param]
    written: Path = write(tmp_path_factory.mktemp("oracle") / request.param, **change)
    return written


@pytest.fixture(scope="module")
def ours(folder: Path) -> GPT:
    return load(folder, device=CPU, dtype=FLOAT)[0]


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def test_logits_are_the_oracles(ours: GPT, oracle: Any) -> None:
    with torch.inference_mode():
        expected = oracle(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(read(ours, IDS).logits(range(len(IDS))), expected, atol=1e-5, rtol=1e-5)


def test_weights_of_every_layer_are_the_oracles(ours: GPT, oracle: Any) -> None:
    trace = read(ours, IDS)
    with torch.inference_mode():
        attentions = oracle(torch.tensor([IDS]), output_attentions=True).attentions
    assert len(attentions) == ours.config.n_layers
    for layer, expected_BHTT in enumerate(attentions):
        weights_HTT = trace.stage("weights", layer, range(ours.config.n_heads))
        torch.testing.assert_close(weights_HTT, expected_BHTT[0], atol=1e-5, rtol=0)


def test_norm_statistics_are_those_of_the_oracles_residual_stream(ours: GPT, oracle: Any) -> None:
    trace = read(ours, IDS)
    with torch.inference_mode():
        hidden = oracle(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    names = [site.name for site in norm_sites(ours.config)]
    for layer in range(ours.config.n_layers):
        found_TK = trace.norms_STK[names.index(f"layers.{layer}.norm_1")]
        variance_T, mean_T = torch.var_mean(hidden[layer][0], dim=-1, correction=0)
        torch.testing.assert_close(found_TK[:, 0], mean_T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found_TK[:, 1], variance_T, atol=1e-5, rtol=1e-5)
        if layer:
            torch.testing.assert_close(
                trace.residual_LT[layer - 1], hidden[layer][0].norm(dim=-1), atol=1e-4, rtol=1e-5
            )
    torch.testing.assert_close(trace.hidden_TM, hidden[-1][0], atol=1e-5, rtol=1e-5)


def test_there_are_two_norm_sites_a_layer_and_one_at_the_end(ours: GPT) -> None:
    sites = norm_sites(ours.config)
    assert [sites[0].name, sites[1].name, sites[-1].name] == ["layers.0.norm_1", "layers.0.norm_2", "norm_final"]
    assert len(sites) == 2 * ours.config.n_layers + 1 == len(read(ours, IDS).norms_STK)


def test_logits_with_hooks_equal_logits_without_bit_for_bit(ours: GPT) -> None:
    with torch.inference_mode():
        without = ours(torch.tensor([IDS]))
        with observing(ours):
            with_hooks = ours(torch.tensor([IDS]))
    assert torch.equal(with_hooks, without)
    assert torch.equal(read(ours, IDS).logits(range(len(IDS))), without[0])


def test_no_hook_is_left_even_when_a_reading_fails(ours: GPT) -> None:
    with pytest.raises(IndexError):
        read(ours, [N_VOCAB + 1])
    read(ours, IDS)
    assert not any(part._forward_hooks for part in ours.modules())


def test_rows_sum_to_one_and_are_exactly_zero_right_of_the_diagonal(ours: GPT) -> None:
    trace = read(ours, IDS)
    behind = torch.ones(len(IDS), len(IDS), dtype=torch.bool).triu(1)
    for layer in range(ours.config.n_layers):
        weights_HTT = trace.stage("weights", layer, range(ours.config.n_heads))
        torch.testing.assert_close(weights_HTT.sum(-1), torch.ones(weights_HTT.shape[:2]), atol=1e-5, rtol=0)
        assert (weights_HTT[:, behind] == 0).all()
        assert weights_HTT[:, 0, 0].tolist() == [1.0] * ours.config.n_heads
        assert trace.stage("masked", layer, [0])[0][behind].tolist() == [-torch.inf] * int(behind.sum())


def test_context_vectors_are_what_the_fused_road_brings_back(ours: GPT) -> None:
    seen: list[Tensor] = []
    hook = ours.blocks[1].attention.heads.register_forward_hook(lambda _, __, output: seen.append(output))  # type: ignore[union-attr]
    trace = read(ours, IDS)
    hook.remove()
    torch.testing.assert_close(trace.context(1, range(ours.config.n_heads)), seen[0][0], atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(0, N_VOCAB - 1), min_size=2, max_size=30), st.data())
@settings(max_examples=15, deadline=None)
def test_a_later_token_never_changes_an_earlier_row(tiny: GPT, ids: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(ids) - 1))
    whole, start = read(tiny, ids), read(tiny, ids[:n])
    heads = range(tiny.config.n_heads)
    for layer in range(tiny.config.n_layers):
        # a score is a sum in which much cancels: its rounding error follows the layer's largest one, some 17 here
        scale = whole.stage("scores", layer, heads).abs().max().item()
        for stage in STAGES:
            expected = whole.stage(stage, layer, heads)[:, :n, :n]
            torch.testing.assert_close(start.stage(stage, layer, heads), expected, atol=2e-6 * scale, rtol=1e-5)
    torch.testing.assert_close(start.logits(range(n)), whole.logits(range(n)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(start.norms_STK, whole.norms_STK[:, :n], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> GPT:
    return load(tiny_llama, device=CPU, dtype=FLOAT)[0]


def test_memory_of_a_trace_grows_with_the_text_not_with_its_square(tiny: GPT) -> None:
    sizes = [read(tiny, [1] * n).n_bytes for n in (10, 20, 40)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


def test_bfloat16_stays_near_float32(folder: Path, ours: GPT) -> None:
    half = load(folder, device=CPU, dtype=torch.bfloat16)[0]
    exact, near = read(ours, IDS), read(half, IDS)
    assert half.dtype == torch.bfloat16
    assert near.stage("weights", 0, [0]).dtype == torch.float32
    torch.testing.assert_close(near.stage("weights", 0, [0, 1]), exact.stage("weights", 0, [0, 1]), atol=0.1, rtol=0)


@pytest.mark.parametrize("n_tokens", [0, 65])
def test_a_reading_has_at_least_one_token_and_at_most_the_context(tiny: GPT, n_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"{n_tokens} tokens; this model reads 1 to 64"):
        read(tiny, [1] * n_tokens)
