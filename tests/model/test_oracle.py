"""The network computes what `transformers` computes, on tiny random checkpoints of both families."""

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
    folder: Path = write(tmp_path_factory.mktemp("oracle") / request.param, **change)
    return folder


@pytest.fixture(scope="module")
def network(folder: Path) -> GPT:
    return load(folder, device=CPU, dtype=FLOAT)[0]


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def test_logits_equal_those_of_transformers(network: GPT, oracle: Any) -> None:
    with torch.inference_mode():
        expected = oracle(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(read(network, IDS).logits(range(len(IDS))), expected, atol=1e-5, rtol=1e-5)


def test_weights_of_every_layer_equal_those_of_transformers(network: GPT, oracle: Any) -> None:
    trace = read(network, IDS)
    with torch.inference_mode():
        attentions = oracle(torch.tensor([IDS]), output_attentions=True).attentions
    assert len(attentions) == network.config.n_layers
    for layer, expected_BHTT in enumerate(attentions):
        weights_HTT = trace.stage("weights", layer, range(network.config.n_heads))
        torch.testing.assert_close(weights_HTT, expected_BHTT[0], atol=1e-5, rtol=0)


def test_norm_statistics_equal_those_of_the_residual_stream_of_transformers(network: GPT, oracle: Any) -> None:
    trace = read(network, IDS)
    with torch.inference_mode():
        hidden = oracle(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    names = [site.name for site in norm_sites(network.config)]
    for layer in range(network.config.n_layers):
        norm_TK = trace.norms_STK[names.index(f"layers.{layer}.norm_1")]
        variance_T, mean_T = torch.var_mean(hidden[layer][0], dim=-1, correction=0)
        torch.testing.assert_close(norm_TK[:, 0], mean_T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm_TK[:, 1], variance_T, atol=1e-5, rtol=1e-5)
        if layer:
            torch.testing.assert_close(
                trace.residual_norm_LT[layer - 1], hidden[layer][0].norm(dim=-1), atol=1e-4, rtol=1e-5
            )
    torch.testing.assert_close(trace.hidden_TM, hidden[-1][0], atol=1e-5, rtol=1e-5)


def test_there_are_two_norm_sites_per_layer_and_one_at_the_end(network: GPT) -> None:
    sites = norm_sites(network.config)
    assert [sites[0].name, sites[1].name, sites[-1].name] == ["layers.0.norm_1", "layers.0.norm_2", "norm_final"]
    assert len(sites) == 2 * network.config.n_layers + 1 == len(read(network, IDS).norms_STK)


def test_logits_with_and_without_hooks_are_bit_equal(network: GPT) -> None:
    with torch.inference_mode():
        without = network(torch.tensor([IDS]))
        with observing(network):
            with_hooks = network(torch.tensor([IDS]))
    assert torch.equal(with_hooks, without)
    assert torch.equal(read(network, IDS).logits(range(len(IDS))), without[0])


def test_hooks_are_removed_even_after_an_error(network: GPT) -> None:
    with pytest.raises(IndexError):
        read(network, [N_VOCAB + 1])
    read(network, IDS)
    assert not any(module._forward_hooks for module in network.modules())


def test_rows_of_weights_sum_to_one_and_masked_weights_are_exactly_zero(network: GPT) -> None:
    trace = read(network, IDS)
    is_masked = torch.ones(len(IDS), len(IDS), dtype=torch.bool).triu(1)
    for layer in range(network.config.n_layers):
        weights_HTT = trace.stage("weights", layer, range(network.config.n_heads))
        torch.testing.assert_close(weights_HTT.sum(-1), torch.ones(weights_HTT.shape[:2]), atol=1e-5, rtol=0)
        assert (weights_HTT[:, is_masked] == 0).all()
        assert weights_HTT[:, 0, 0].tolist() == [1.0] * network.config.n_heads
        assert trace.stage("masked", layer, [0])[0][is_masked].tolist() == [-torch.inf] * int(is_masked.sum())


def test_context_vectors_equal_the_output_of_the_fused_kernel(network: GPT) -> None:
    outputs: list[Tensor] = []
    hook = network.blocks[1].attention.heads.register_forward_hook(lambda _, __, output: outputs.append(output))  # type: ignore[union-attr]
    trace = read(network, IDS)
    hook.remove()
    torch.testing.assert_close(trace.context(1, range(network.config.n_heads)), outputs[0][0], atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(0, N_VOCAB - 1), min_size=2, max_size=30), st.data())
@settings(max_examples=15, deadline=None)
def test_a_later_token_never_changes_an_earlier_row(tiny: GPT, ids: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(ids) - 1))
    whole, prefix = read(tiny, ids), read(tiny, ids[:n])
    heads = range(tiny.config.n_heads)
    for layer in range(tiny.config.n_layers):
        # large terms cancel in a score, so its rounding error grows with the layer's largest score, about 17 here
        scale = whole.stage("scores", layer, heads).abs().max().item()
        for stage in STAGES:
            expected = whole.stage(stage, layer, heads)[:, :n, :n]
            torch.testing.assert_close(prefix.stage(stage, layer, heads), expected, atol=2e-6 * scale, rtol=1e-5)
    torch.testing.assert_close(prefix.logits(range(n)), whole.logits(range(n)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prefix.norms_STK, whole.norms_STK[:, :n], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> GPT:
    return load(tiny_llama, device=CPU, dtype=FLOAT)[0]


def test_the_memory_of_a_trace_grows_linearly_with_the_text(tiny: GPT) -> None:
    sizes = [read(tiny, [1] * n).n_bytes for n in (10, 20, 40)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


def test_bfloat16_is_close_to_float32(folder: Path, network: GPT) -> None:
    bfloat16 = load(folder, device=CPU, dtype=torch.bfloat16)[0]
    expected, trace = read(network, IDS), read(bfloat16, IDS)
    assert bfloat16.dtype == torch.bfloat16
    assert trace.stage("weights", 0, [0]).dtype == torch.float32
    torch.testing.assert_close(
        trace.stage("weights", 0, [0, 1]), expected.stage("weights", 0, [0, 1]), atol=0.1, rtol=0
    )


@pytest.mark.parametrize("n_tokens", [0, 65])
def test_a_text_without_tokens_or_longer_than_the_context_is_refused(tiny: GPT, n_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"{n_tokens} tokens; this model reads 1 to 64"):
        read(tiny, [1] * n_tokens)
