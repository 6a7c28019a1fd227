"""The sizes and options of a transformer."""

import math
from dataclasses import dataclass
from typing import Literal


class ConfigError(ValueError):
    """Sizes or options that do not make a transformer."""


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How the rotary frequencies of a model were scaled to extend its context.

    `linear` divides every frequency by `factor`. `llama3` does so only for wavelengths above
    `original_context / low_freq_factor`, leaves those below `original_context / high_freq_factor` unchanged, and
    interpolates between the two (Llama 3.1's model card).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192  # tokens


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture of a model, for both families.

    Raises:
        ConfigError: if the values contradict each other.
    """

    family: Literal["gpt2", "llama"]
    n_layers: int
    n_heads: int  # query heads per layer
    n_kv_heads: int  # key and value heads per layer; fewer than n_heads in grouped-query attention
    d_model: int  # features per token in the residual stream
    d_head: int  # features of each query, key and value
    d_mlp: int  # hidden features of the feed-forward network
    n_vocab: int  # rows of the embedding: token ids
    n_context: int  # the longest text that the model reads, in tokens
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    positions: Literal["learned", "rotary"]
    mlp: Literal["gelu", "swiglu"]
    tied: bool  # the unembedding is the embedding
    attention_bias: bool  # query, key, value and output projections have a bias
    mlp_bias: bool
    dropout: float = 0.0  # probability, in training, that a number is set to 0, in each of four places
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "n_vocab", "n_context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key heads evenly")
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(f"rotary positions rotate pairs of features; d_head is {self.d_head}, which is odd")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and less than 1")
        if not (self.norm_eps > 0 and math.isfinite(self.norm_eps)):
            raise ConfigError(f"norm_eps is {self.norm_eps}; it must be positive and finite")

    def key_head(self, head: int) -> int:
        """The key and value head that a query head uses; n_heads / n_kv_heads neighbouring query heads share one."""
        return head // (self.n_heads // self.n_kv_heads)
