"""Attention with grouped heads; each stage of a head is a function of its own.

scores -> scaled -> masked -> weights -> context. The network itself uses the fused kernel (`fused_attention`), which
never stores a weight. To show the weights, the stages are computed from the same queries, keys and values. A test
checks that both give the same context vectors.
"""

# shapes: B texts, H query heads, G key and value heads, T queries, S keys, D features of a head, M features of a token

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Config
from model.dropout import Dropout
from model.linear import Linear
from model.positions import Rotation

# Queries, keys, values -> context vectors; shapes as for `fused_attention`.
AttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def scores(q_HTD: Tensor, k_HSD: Tensor) -> Tensor:
    """q·k: how well each query (row) matches each key (column); (H, T, S), no unit.

    >>> scores(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])).tolist()
    [[[11.0, 2.0]]]
    """
    return q_HTD @ k_HSD.mT


def scaled(score_HTS: Tensor, d_head: int) -> Tensor:
    """Scores divided by sqrt(d_head), so that their spread does not grow with d_head (Vaswani et al. 2017, 3.2.1)."""
    return score_HTS / math.sqrt(d_head)


def causal_mask(n_queries: int, n_keys: int, offset: int | None = None, device: torch.device | None = None) -> Tensor:
    """The causal mask: True where a query may attend to a key; (T, S) of bool.

    `offset` is the position of the first query minus that of the first key; if left out, the queries are the last
    tokens of the text.

    >>> causal_mask(2, 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    offset = n_keys - n_queries if offset is None else offset
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(offset)


def masked(scaled_HTS: Tensor, offset: int | None = None) -> Tensor:
    """Scaled scores with -inf where a query would attend to a later token; `offset` as for `causal_mask`."""
    n_queries, n_keys = scaled_HTS.shape[-2:]
    return scaled_HTS.masked_fill(~causal_mask(n_queries, n_keys, offset, scaled_HTS.device), -math.inf)


def weights(masked_HTS: Tensor) -> Tensor:
    """Attention weights, the softmax of each row: rows sum to 1, and are exactly 0 where the score is -inf."""
    return masked_HTS.softmax(dim=-1)


def context(weight_HTS: Tensor, v_HSD: Tensor) -> Tensor:
    """Context vectors: for each query, the mean of the values, weighted by its attention weights; (H, T, D)."""
    return weight_HTS @ v_HSD


def attention_weights(
    score_HTS: Tensor,
    d_head: int,
    mask: Callable[[Tensor], Tensor] = masked,
    normalise: Callable[[Tensor], Tensor] = weights,
) -> Tensor:
    """The weights of unscaled scores: scale, mask, softmax; same shape. Mask and softmax can be replaced.

    >>> attention_weights(torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]), d_head=4).tolist()
    [[[1.0, 0.0], [0.5, 0.5]]]
    """
    return normalise(mask(scaled(score_HTS, d_head)))


def fused_attention(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, key_mask_BS: Tensor | None = None) -> Tensor:
    """Context vectors from torch's fused kernel, (B, H, T, D). The queries are those of the last T of the S tokens.

    Query head h shares the key head h // (H / G). Texts of different lengths can be in one batch if each has a single
    query; `key_mask_BS` is then True for the keys that a text has.
    """
    n_heads, n_queries, d_head = q_BHTD.shape[1:]
    n_keys = k_BGSD.shape[2]
    if n_queries == 1:  # it may attend to every key, and the query heads that share keys become rows of one matrix
        q_BGRD = q_BHTD.reshape(len(q_BHTD), k_BGSD.shape[1], -1, d_head)
        mask = None if key_mask_BS is None else key_mask_BS[:, None, None]
        context_BGRD = F.scaled_dot_product_attention(q_BGRD, k_BGSD, v_BGSD, attn_mask=mask)
        return context_BGRD.reshape(len(q_BHTD), n_heads, 1, d_head)
    return F.scaled_dot_product_attention(
        q_BHTD,
        k_BGSD,
        v_BGSD,
        attn_mask=causal_mask(n_queries, n_keys, device=q_BHTD.device) if n_queries < n_keys else None,
        is_causal=n_queries == n_keys,
        enable_gqa=n_heads != k_BGSD.shape[1],
    )


def staged_attention(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    mask: Callable[[Tensor], Tensor] = masked,
    normalise: Callable[[Tensor], Tensor] = weights,
) -> Tensor:
    """Context vectors computed stage by stage, (B, H, T, D), so that the mask or the softmax can be replaced.

    `mask` turns scaled scores into masked ones, `normalise` turns these into weights; both (B, H, T, S).
    """
    group_size = q_BHTD.shape[1] // k_BGSD.shape[1]  # query heads per key head
    score_BHTS = scores(q_BHTD, k_BGSD.repeat_interleave(group_size, 1))
    weight_BHTS = attention_weights(score_BHTS, q_BHTD.shape[-1], mask, normalise)
    return context(weight_BHTS, v_BGSD.repeat_interleave(group_size, 1))


class Heads(nn.Module):
    """All heads of one layer. A hook on this module sees the queries, keys and values that attention uses."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, attend: AttentionFn = fused_attention) -> Tensor:
        """Context vectors, (B, H, T, D). `attend` may prepend cached keys and values.

        With attention dropout, in training, the stages are computed over whole texts, because the fused kernel has no
        weights to drop.
        """
        if not self.training or self.dropout.rate == 0:
            return attend(q_BHTD, k_BGTD, v_BGTD)
        return staged_attention(
            q_BHTD, k_BGTD, v_BGTD, normalise=lambda masked_BHTT: self.dropout(weights(masked_BHTT))
        )


class Attention(nn.Module):
    """Self-attention: project to queries, keys and values, attend, project the context vectors back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.d_head = config.d_head
        d_queries, d_keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = Linear(config.d_model, d_queries, bias=config.attention_bias)
        self.key = Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.value = Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.heads = Heads(config.dropout)
        self.output = Linear(d_queries, config.d_model, bias=config.attention_bias)

    def forward(self, x_BTM: Tensor, rotate: Rotation, attend: AttentionFn) -> Tensor:
        """What attention adds to the residual stream, (B, T, M). `rotate` puts positions into queries and keys."""
        q_BHTD, k_BGTD = rotate(self._split(self.query(x_BTM))), rotate(self._split(self.key(x_BTM)))
        context_BHTD = self.heads(q_BHTD, k_BGTD, self._split(self.value(x_BTM)), attend)
        return self.output(context_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, projected_BTX: Tensor) -> Tensor:
        n_texts, n_tokens, _ = projected_BTX.shape
        return projected_BTX.view(n_texts, n_tokens, -1, self.d_head).transpose(1, 2)
