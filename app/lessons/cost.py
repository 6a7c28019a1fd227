"""The arithmetic of a long text: operations and memory, from the configuration of a model. Computes no model."""

from model.config import Config
from model.weights.catalogue import catalogue

GPT_2 = catalogue("gpt2")["gpt2"].config()  # the smallest, whose figures are known


def linear_operations(config: Config, n: int) -> int:
    """Multiplications and additions of one layer's projections and feed-forward network over n tokens.

    24·n·d² in GPT-2: 2 for each weight and token, and 12·d² weights.
    """
    d, d_keys = config.d_model, config.n_kv_heads * config.d_head
    n_weights = 2 * d * config.n_heads * config.d_head + 2 * d * d_keys
    n_weights += (3 if config.mlp == "swiglu" else 2) * d * config.d_mlp
    return 2 * n * n_weights


def quadratic_operations(config: Config, n: int) -> int:
    """Multiplications and additions of one layer's scores and context vectors, with their masked half: 4·n²·d."""
    return 4 * n * n * config.n_heads * config.d_head


def operations(config: Config, n: int) -> int:
    """All multiplications and additions of one layer over n tokens."""
    return linear_operations(config, n) + quadratic_operations(config, n)


def crossover_length(config: Config) -> float:
    """The length above which the quadratic operations outnumber the linear ones; 6·d in GPT-2."""
    return linear_operations(config, 1) / quadratic_operations(config, 1)


def attention_weight_bytes(config: Config, n: int) -> int:
    """The memory of all attention weights of a text, if all are stored at once in float32."""
    return config.n_layers * config.n_heads * n * n * 4


def cached_bytes_per_token(config: Config) -> int:
    """The memory of one token's keys and values in float32: all that later tokens need of it."""
    return 2 * config.n_layers * config.n_kv_heads * config.d_head * 4


def quadratic_fraction(config: Config, n: int) -> float:
    """The fraction of a layer's operations that grows with n²."""
    return quadratic_operations(config, n) / operations(config, n)
