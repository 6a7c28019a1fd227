"""TransformerLens: `run_with_cache`, which captures every activation that has a hook."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from bench.peers import Output, Work


def run_with_cache(folder: Path) -> Work:
    """Capture everything, the default of `run_with_cache`."""
    model = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)

    def work(texts: Sequence[Sequence[int]], _: int) -> Output:
        (ids,) = texts
        logits_BTV, cache = model.run_with_cache(torch.tensor([ids]))
        if "blocks.0.attn.hook_pattern" not in cache:
            raise RuntimeError("run_with_cache captured no attention pattern")
        return Output(0, float(logits_BTV[0, -1].max()))

    return work
