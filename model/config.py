"""The numbers and the few choices that fix a transformer's shape."""

import math
from dataclasses import dataclass
from typing import Literal


class ConfigError(ValueError):
    """These numbers do not make a transformer."""


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How a rotary model was stretched to a context longer than its first training had.

    `linear` divides every frequency by `factor`. `llama3` leaves the fast ones alone, divides the slow ones, and
    blends between: the wavelengths `original_context / high_freq_factor` and `original_context / low_freq_factor`
    are the two borders (Llama 3.1's model card).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192  # tokens


@dataclass(frozen=True, kw_only=True)
class Config:
    """What must be known of a model to build it; one object for both families.

    Raises:
        ConfigError: when the numbers contradict one another.
    """

    family: Literal["gpt2", "llama"]
    n_layers: int
    n_heads: int  # query heads of a layer
    n_kv_heads: int  # key and value heads; fewer than n_heads is grouped-query attention
    d_model: int  # features of a token in the residual stream
    d_head: int  # features of a query, a key, a value
    d_mlp: int  # hidden features of the feed-forward network
    n_vocab: int  # tokens the embedding has a row for
    n_context: int  # the most tokens the model reads at a time
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    positions: Literal["learned", "rotary"]
    mlp: Literal["gelu", "swiglu"]
    tied: bool  # the unembedding is the embedding
    attention_bias: bool  # query, key, value and output projections have a bias
    mlp_bias: bool
    dropout: float = 0.0  # the share of numbers that training sets to 0, in each of four places; reading drops none
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "n_vocab", "n_context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key heads evenly")
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(f"rotary positions turn pairs of features; d_head is {self.d_head}, which is odd")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and less than 1")
        if not (self.norm_eps > 0 and math.isfinite(self.norm_eps)):
            raise ConfigError(f"norm_eps is {self.norm_eps}; it must be positive and finite")

    def key_head(self, head: int) -> int:
        """The key and value head that a query head uses; n_heads / n_kv_heads neighbouring query heads share one."""
        return head // (self.n_heads // self.n_kv_heads)
