"""The named places of a forward pass: sites of vectors, stages of a head, norms with their statistics."""

from dataclasses import dataclass
from typing import Literal, get_args

from model.config import Config

# Where a vector (or, for scores, a matrix) of the pass can be changed. Queries and keys are meant after rotation; the
# context vectors are those of the heads, before the output projection; attention and mlp are what these two add to the
# residual stream; embedding and block are the residual stream before the first layer and after a layer.
Site = Literal["embedding", "queries", "keys", "values", "scores", "context", "attention", "mlp", "block"]
SITES: tuple[Site, ...] = get_args(Site)

# What a trace holds only if it was wanted; norms, queries, keys and values are in every trace.
ObservedSite = Literal["embedding", "attention", "mlp", "block"]
OBSERVED_SITES: tuple[ObservedSite, ...] = get_args(ObservedSite)

Stage = Literal["scores", "scaled", "masked", "weights"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# Of a token's vector before a norm, after normalising, and after gain and bias.
STATISTICS = (
    "mean",
    "variance",
    "rms",
    "normalised_mean",
    "normalised_variance",
    "output_mean",
    "output_variance",
)


@dataclass(frozen=True)
class NormSite:
    """One of the 2·layers + 1 norms of a network."""

    name: str  # layers.0.norm_1, layers.0.norm_2, …, norm_final
    layer: int | None  # None for the final norm
    kind: Literal["layernorm", "rmsnorm"]
    eps: float


def norm_sites(config: Config) -> tuple[NormSite, ...]:
    """All norm sites in the order of the forward pass, which is also the order of S in `Trace.norms_STK`."""
    layers = [
        NormSite(f"layers.{layer}.{norm}", layer, config.norm, config.norm_eps)
        for layer in range(config.n_layers)
        for norm in ("norm_1", "norm_2")
    ]
    return (*layers, NormSite("norm_final", None, config.norm, config.norm_eps))
