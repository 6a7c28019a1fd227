"""This app's network and trace, without server and pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.peers import Output, Work
from model.linear import choose_kernels
from model.reading import compute_last_logits, read_batch
from model.trace import Trace
from model.weights.folder import load


def trace(folder: Path) -> Work:
    """A full trace and the logits after the last token; the tokens shared with the previous text are not read again."""
    network, _ = load(folder, device=torch.device("cpu"), dtype=torch.float32)
    choose_kernels(network)
    traces: list[Trace] = []

    def work(texts: Sequence[Sequence[int]], n_shared: int) -> Output:
        prefixes = [trace.prefix(n_shared) for trace in traces] if n_shared else [Trace(network, ())] * len(texts)
        traces[:] = read_batch(network, [(prefix, ids[n_shared:]) for prefix, ids in zip(prefixes, texts, strict=True)])
        compute_last_logits(traces)
        return Output(0, float(traces[0].logits([traces[0].n_tokens - 1]).max()))

    return work
