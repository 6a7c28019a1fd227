"""The road over another device than the CPU, as far as it can be walked where there is none.

torch's meta device computes shapes and no numbers, and its tensors refuse to be mixed with the CPU's.
"""

from typing import Any

import pytest
import torch

from model.config import Config
from model.gpt import GPT
from model.reading import compute_last_logits, read, read_batch
from model.trace import Trace

AWAY = torch.device("meta")
SHAPE: dict[str, Any] = {
    "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "d_head": 8, "d_mlp": 48, "n_vocab": 50,
    "n_context": 64, "norm_eps": 1e-5, "tied": True, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
LLAMA: dict[str, Any] = {"family": "llama", "norm": "rmsnorm", "positions": "rotary", "mlp": "swiglu"}
GPT2: dict[str, Any] = {"family": "gpt2", "norm": "layernorm", "positions": "learned", "mlp": "gelu"}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def network(request: pytest.FixtureRequest, dtype: torch.dtype) -> GPT:
    """A network whose parameters are elsewhere."""
    return GPT(Config(**SHAPE, **request.param)).to(device=AWAY, dtype=dtype)


def test_a_reading_stays_on_the_models_device(network: GPT) -> None:
    assert network.device == AWAY
    first = read(network, [1, 2, 3])
    traces = read_batch(network, [(first, [4]), (first.prefix(1), [5, 6]), (Trace(network, ()), [7] * 40)])
    compute_last_logits(traces)
    assert [trace.n_tokens for trace in traces] == [4, 3, 40]
    for trace in traces:
        made = [tensor for stretch in trace.chunks for tensor in stretch.tensors]
        made += [values for _, values in trace.stages(0, [0, 1])]
        made += [trace.context(1, [0]), trace.logits([0, 1]), trace.logits([trace.n_tokens - 1]), trace.residual_LT]
        assert {tensor.device for tensor in made} == {AWAY}


def test_what_is_kept_has_the_models_dtype_and_what_is_looked_at_is_float32(network: GPT, dtype: torch.dtype) -> None:
    trace = read(network, [1, 2, 3])
    assert trace.chunks[0].keys_LGTD.dtype == dtype
    assert {trace.stage("weights", 0, [0]).dtype, trace.norms_STK.dtype, trace.logits([0]).dtype} == {torch.float32}


def test_two_devices_in_one_sum_are_found() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=AWAY) + torch.ones(2)
