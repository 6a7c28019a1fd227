"""The vectors of a site, and the logits of next tokens, as NumPy arrays. Torch stops here.

These functions run in the worker thread.
"""

# shapes: H chosen heads, T tokens, P chosen positions, D features of a head, M features of a token,
#         V chosen tokens of the vocabulary

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.schemas import HEAD_SITES, ActivationSite
from app.views import N_ROWS
from model.config import Config
from model.sites import OBSERVED_SITES, ObservedSite
from model.trace import Trace


def observed_sites(site: ActivationSite) -> frozenset[ObservedSite]:
    """What a trace must hold for this site, beyond what every trace holds."""
    return frozenset(observed for observed in OBSERVED_SITES if observed == site)


def n_heads(site: ActivationSite, config: Config) -> int:
    """How many heads the vectors of this site belong to; 0 for a site without heads."""
    if site in ("keys", "values"):
        return config.n_kv_heads
    return config.n_heads if site in HEAD_SITES else 0


def axes(site: ActivationSite) -> list[str]:
    """What each axis of the vectors of a site counts.

    >>> axes("embedding"), axes("keys")
    (['position', 'feature'], ['layer', 'key head', 'position', 'feature of the head'])
    """
    if site in HEAD_SITES:
        return ["layer", "key head" if site in ("keys", "values") else "head", "position", "feature of the head"]
    return [*([] if site == "embedding" else ["layer"]), "position", "feature"]


@torch.inference_mode()
def activations(
    trace: Trace, site: ActivationSite, layers: Sequence[int | None], heads: Sequence[int], positions: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """The vectors of a site in one layer after another, float32: (H, P, D) of a site with heads, else (P, M).

    The embedding has one layer, None.
    """
    trace.check_finite()
    for layer in layers:
        yield _site_vectors(trace, site, layer, heads)[..., list(positions), :].float().cpu().numpy()


def _site_vectors(trace: Trace, site: ActivationSite, layer: int | None, heads: Sequence[int]) -> Tensor:
    """All positions of a site in a layer: (H, T, D) or (T, M)."""
    n_queries = trace.model.config.n_heads // trace.model.config.n_kv_heads  # query heads that share a key head
    match site, layer:
        case "queries", int():
            return trace.queries(layer, heads)
        case "keys", int():
            return trace.keys(layer, [head * n_queries for head in heads])
        case "values", int():
            return trace.values(layer, [head * n_queries for head in heads])
        case "context", int():
            return trace.context(layer, heads)
        case ("embedding" | "attention" | "mlp" | "block") as observed, _:
            return trace.observed(observed, layer)
    raise ValueError(f"{site} is of a layer")


@torch.inference_mode()
def logits(trace: Trace, positions: Sequence[int], ids: Sequence[int] | None) -> Iterator[NDArray[np.float32]]:
    """The logits of some next tokens, of all if None, after some positions at a time; (P, V), float32."""
    for first in range(0, len(positions), N_ROWS):
        logits_PV = trace.logits(positions[first : first + N_ROWS])
        yield (logits_PV if ids is None else logits_PV[:, list(ids)]).cpu().numpy()
