"""This app alone: its network and its trace, no server and no pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.peers import Done, Work
from model.linear import choose_roads
from model.trace import Trace, foresee, read_on
from model.weights.folder import load


def trace(folder: Path) -> Work:
    """A trace with all that can be looked at, and the logits after the last token; what is kept is not read again."""
    network, _ = load(folder, device=torch.device("cpu"), dtype=torch.float32)
    choose_roads(network)
    kept: list[Trace] = []

    def work(texts: Sequence[Sequence[int]], same: int) -> Done:
        begun = [one.start(same) for one in kept] if same else [Trace(network, ())] * len(texts)
        kept[:] = read_on(network, [(one, ids[same:]) for one, ids in zip(begun, texts, strict=True)])
        foresee(kept)
        return Done(0, float(kept[0].logits([kept[0].n_tokens - 1]).max()))

    return work
