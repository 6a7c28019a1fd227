"""A model on a device other than the CPU, tested without one.

torch's meta device computes only shapes, and refuses to mix its tensors with those of the CPU.
"""

from typing import Any

import pytest
import torch

from model.config import Config
from model.gpt import GPT
from model.reading import compute_last_logits, read, read_batch
from model.trace import Trace

META = torch.device("meta")
SHAPE: dict[str, Any] = {
    "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_head": 8, "d_mlp": 48, "n_vocab": 50,
    "n_context": 64, "norm_eps": 1e-5, "tied": True, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
LLAMA: dict[str, Any] = {"family": "llama", "norm": "rmsnorm", "positions": "rotary", "mlp": "swiglu"}
GPT2: dict[str, Any] = {"family": "gpt2", "norm": "layernorm", "positions": "learned", "mlp": "gelu"}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    dtype: torch.dtype = request.param
    return dtype


@pytest.fixture(params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def network(request: pytest.FixtureRequest, dtype: torch.dtype) -> GPT:
    """A network on the meta device."""
    return GPT(Config(**SHAPE, **request.param)).to(device=META, dtype=dtype)


def test_everything_computed_from_a_text_is_on_the_models_device(network: GPT) -> None:
    assert network.device == META
    first = read(network, [1, 2, 3])
    traces = read_batch(network, [(first, [4]), (first.prefix(1), [5, 6]), (Trace(network, ()), [7] * 40)])
    compute_last_logits(traces)
    assert [trace.n_tokens for trace in traces] == [4, 3, 40]
    for trace in traces:
        tensors = [tensor for chunk in trace.chunks for tensor in chunk.tensors]
        tensors += [values for _, values in trace.stages(0, [0, 1])]
        tensors += [
            trace.context(1, [0]),
            trace.logits([0, 1]),
            trace.logits([trace.n_tokens - 1]),
            trace.residual_norm_LT,
        ]
        assert {tensor.device for tensor in tensors} == {META}


def test_stored_tensors_have_the_models_dtype_and_results_are_float32(network: GPT, dtype: torch.dtype) -> None:
    trace = read(network, [1, 2, 3])
    assert trace.chunks[0].keys_LGTD.dtype == dtype
    assert {trace.stage("weights", 0, [0]).dtype, trace.norms_STK.dtype, trace.logits([0]).dtype} == {torch.float32}


def test_the_meta_device_refuses_tensors_of_the_cpu() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=META) + torch.ones(2)
