"""This app alone: its network and its trace, no server and no pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.peers import Done, Work
from model.linear import choose_kernels
from model.reading import compute_last_logits, read_batch
from model.trace import Trace
from model.weights.folder import load


def trace(folder: Path) -> Work:
    """A trace with all that can be looked at, and the logits after the last token; what is traces is not read again."""
    network, _ = load(folder, device=torch.device("cpu"), dtype=torch.float32)
    choose_kernels(network)
    traces: list[Trace] = []

    def work(texts: Sequence[Sequence[int]], n_shared: int) -> Done:
        begun = [trace.prefix(n_shared) for trace in traces] if n_shared else [Trace(network, ())] * len(texts)
        traces[:] = read_batch(network, [(trace, ids[n_shared:]) for trace, ids in zip(begun, texts, strict=True)])
        compute_last_logits(traces)
        return Done(0, float(traces[0].logits([traces[0].n_tokens - 1]).max()))

    return work
