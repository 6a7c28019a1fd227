"""Attention with grouped heads; each stage of a head is a function of its own.

scores -> scaled -> masked -> weights -> context. The network itself takes the fused road (`Heads`), which never
holds a weight; whoever wants to see one walks the stages over the same queries, keys and values. A test holds the
two roads together.
"""

# shapes: B texts, H query heads, G key and value heads, T queries, S keys, D features of a head, M features of a token

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Config
from model.positions import Turn


def scores(q_HTD: Tensor, k_HSD: Tensor) -> Tensor:
    """q·k: how well each query (a row) matches each key (a column); (H, T, S), in no unit.

    >>> scores(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])).tolist()
    [[[11.0, 2.0]]]
    """
    return q_HTD @ k_HSD.mT


def scaled(score_HTS: Tensor, d_head: int) -> Tensor:
    """Scores over sqrt(d_head): their spread no longer grows with the width of a head (Vaswani et al. 2017, 3.2.1)."""
    return score_HTS / math.sqrt(d_head)


def visible(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """The causal mask as truth: query i, counted from the text's end, may look at key j; (T, S) of bool.

    >>> visible(2, 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def masked(scaled_HTS: Tensor) -> Tensor:
    """Scaled scores with -inf where a query would see a later token."""
    return scaled_HTS.masked_fill(~visible(scaled_HTS.shape[-2], scaled_HTS.shape[-1], scaled_HTS.device), -math.inf)


def weights(masked_HTS: Tensor) -> Tensor:
    """The share of its attention each query gives each key: rows sum to 1, and are exactly 0 where -inf stood."""
    return masked_HTS.softmax(dim=-1)


def context(weight_HTS: Tensor, v_HSD: Tensor) -> Tensor:
    """What each query takes away: the mean of the values, weighted; (H, T, D)."""
    return weight_HTS @ v_HSD


class Heads(nn.Module):
    """All heads of a layer look at once. Its inputs are the queries, keys and values as attention uses them."""

    def forward(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        """Context vectors, (B, H, T, D). Query head h shares the key head h // (H / G)."""
        return F.scaled_dot_product_attention(
            q_BHTD, k_BGSD, v_BGSD, is_causal=True, enable_gqa=q_BHTD.shape[1] != k_BGSD.shape[1]
        )


class Attention(nn.Module):
    """Tokens look back: project to queries, keys and values, let the heads look, project what they bring back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.d_head = config.d_head
        d_queries, d_keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = nn.Linear(config.d_model, d_queries, bias=config.attention_bias)
        self.key = nn.Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.value = nn.Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.heads = Heads()
        self.output = nn.Linear(d_queries, config.d_model, bias=config.attention_bias)

    def forward(self, x_BTM: Tensor, turn: Turn) -> Tensor:
        """What attention adds to the residual stream; `turn` puts the positions into queries and keys."""
        q_BHTD, k_BGTD = turn(self._split(self.query(x_BTM))), turn(self._split(self.key(x_BTM)))
        context_BHTD = self.heads(q_BHTD, k_BGTD, self._split(self.value(x_BTM)))
        return self.output(context_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, projected_BTX: Tensor) -> Tensor:
        n_texts, n_tokens, _ = projected_BTX.shape
        return projected_BTX.view(n_texts, n_tokens, -1, self.d_head).transpose(1, 2)
