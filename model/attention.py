"""Attention with grouped heads; each stage of a head is a function of its own.

scores -> scaled -> masked -> weights -> context. The network itself takes the fused road (`look_back`), which never
holds a weight; whoever wants to see one walks the stages over the same queries, keys and values. A test holds the
two roads together.
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
from model.positions import Turn

Look = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values -> context, as `look_back` has them


def scores(q_HTD: Tensor, k_HSD: Tensor) -> Tensor:
    """q·k: how well each query (a row) matches each key (a column); (H, T, S), in no unit.

    >>> scores(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])).tolist()
    [[[11.0, 2.0]]]
    """
    return q_HTD @ k_HSD.mT


def scaled(score_HTS: Tensor, d_head: int) -> Tensor:
    """Scores over sqrt(d_head): their spread no longer grows with the width of a head (Vaswani et al. 2017, 3.2.1)."""
    return score_HTS / math.sqrt(d_head)


def visible(n_queries: int, n_keys: int, first: int | None = None, device: torch.device | None = None) -> Tensor:
    """The causal mask as truth: which key each query may look at; (T, S) of bool.

    The queries are those from position `first` on; the last ones of the text if it is left out.

    >>> visible(2, 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    first = n_keys - n_queries if first is None else first
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(first)


def masked(scaled_HTS: Tensor, first: int | None = None) -> Tensor:
    """Scaled scores with -inf where a query would see a later token; `first` as for `visible`."""
    n_queries, n_keys = scaled_HTS.shape[-2:]
    return scaled_HTS.masked_fill(~visible(n_queries, n_keys, first, scaled_HTS.device), -math.inf)


def weights(masked_HTS: Tensor) -> Tensor:
    """The share of its attention each query gives each key: rows sum to 1, and are exactly 0 where -inf stood."""
    return masked_HTS.softmax(dim=-1)


def context(weight_HTS: Tensor, v_HSD: Tensor) -> Tensor:
    """What each query takes away: the mean of the values, weighted; (H, T, D)."""
    return weight_HTS @ v_HSD


def look_back(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, seen_BS: Tensor | None = None) -> Tensor:
    """Context vectors by the fused road, (B, H, T, D): the queries are those of the last T of the S tokens.

    Query head h shares the key head h // (H / G). Texts of different lengths can look back together if each has one
    query: `seen_BS` is then true for the keys that a text has.
    """
    n_heads, n_queries, d_head = q_BHTD.shape[1:]
    n_keys = k_BGSD.shape[2]
    if n_queries == 1:  # it sees everything, and the heads that share keys can be rows of one matrix
        q_BGRD = q_BHTD.reshape(len(q_BHTD), k_BGSD.shape[1], -1, d_head)
        mask = None if seen_BS is None else seen_BS[:, None, None]
        context_BGRD = F.scaled_dot_product_attention(q_BGRD, k_BGSD, v_BGSD, attn_mask=mask)
        return context_BGRD.reshape(len(q_BHTD), n_heads, 1, d_head)
    return F.scaled_dot_product_attention(
        q_BHTD,
        k_BGSD,
        v_BGSD,
        attn_mask=visible(n_queries, n_keys, device=q_BHTD.device) if n_queries < n_keys else None,
        is_causal=n_queries == n_keys,
        enable_gqa=n_heads != k_BGSD.shape[1],
    )


def look_by_stages(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    mask: Callable[[Tensor], Tensor] = masked,
    share: Callable[[Tensor], Tensor] = weights,
) -> Tensor:
    """Context vectors by the stages, (B, H, T, D), where one of them is to be done in another way.

    `mask` makes masked scores of scaled ones, `share` makes weights of these; both (B, H, T, S).
    """
    n_each = q_BHTD.shape[1] // k_BGSD.shape[1]
    score_BHTS = scores(q_BHTD, k_BGSD.repeat_interleave(n_each, 1))
    weight_BHTS = share(mask(scaled(score_BHTS, q_BHTD.shape[-1])))
    return context(weight_BHTS, v_BGSD.repeat_interleave(n_each, 1))


class Heads(nn.Module):
    """All heads of a layer look at once. Its inputs are queries, keys and values as attention uses them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, look: Look = look_back) -> Tensor:
        """Context vectors, (B, H, T, D). `look` may know of more keys and values than those of this pass.

        Where weights are dropped, in training, they have to be there: the stages are walked, over whole texts.
        """
        if not self.training or self.dropout.rate == 0:
            return look(q_BHTD, k_BGTD, v_BGTD)
        return look_by_stages(q_BHTD, k_BGTD, v_BGTD, share=lambda masked_BHTT: self.dropout(weights(masked_BHTT)))


class Attention(nn.Module):
    """Tokens look back: project to queries, keys and values, let the heads look, project what they bring back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.d_head = config.d_head
        d_queries, d_keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = Linear(config.d_model, d_queries, bias=config.attention_bias)
        self.key = Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.value = Linear(config.d_model, d_keys, bias=config.attention_bias)
        self.heads = Heads(config.dropout)
        self.output = Linear(d_queries, config.d_model, bias=config.attention_bias)

    def forward(self, x_BTM: Tensor, turn: Turn, look: Look) -> Tensor:
        """What attention adds to the residual stream; `turn` puts the positions into queries and keys."""
        q_BHTD, k_BGTD = turn(self._split(self.query(x_BTM))), turn(self._split(self.key(x_BTM)))
        context_BHTD = self.heads(q_BHTD, k_BGTD, self._split(self.value(x_BTM)), look)
        return self.output(context_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, projected_BTX: Tensor) -> Tensor:
        n_texts, n_tokens, _ = projected_BTX.shape
        return projected_BTX.view(n_texts, n_tokens, -1, self.d_head).transpose(1, 2)
