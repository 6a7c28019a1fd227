"""The network: embed, blocks, norm, unembed. One forward pass for both families.

GPT-2 (Radford et al. 2019) and the Llama family (Touvron et al. 2023) differ by the modules that are chosen when the
network is built; nothing below asks which family it is. Nothing below knows that it is observed, either: reading.py
registers its hooks from outside.
"""

# shapes: B texts, T tokens, M features of a token, V tokens of the vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.attention import Attention, AttentionFn, fused_attention
from model.config import Config
from model.dropout import Dropout
from model.linear import Linear
from model.mlp import make_mlp
from model.norm import make_norm
from model.positions import Embedding, Rotation, make_positions


class Block(nn.Module):
    """x + attention(norm_1(x)), then x + mlp(norm_2(x)), with dropout on both in training."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_1 = make_norm(config)
        self.attention = Attention(config)
        self.norm_2 = make_norm(config)
        self.mlp = make_mlp(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTM: Tensor, rotate: Rotation, attend: AttentionFn) -> Tensor:
        """The residual stream after this block, (B, T, M)."""
        x_BTM = x_BTM + self.dropout(self.attention(self.norm_1(x_BTM), rotate, attend))
        return x_BTM + self.dropout(self.mlp(self.norm_2(x_BTM)))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A decoder-only transformer.

    In training, dropout applies in four places: to the embedded tokens, to the attention weights, and to what
    attention and the feed-forward network add to the residual stream.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config.n_vocab, config.d_model)
        self.positions = make_positions(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_final = make_norm(config)
        self.unembed = Linear(config.d_model, config.n_vocab, bias=False)
        if config.tied:
            self.unembed.weight = self.embed.weight

    def hidden(
        self,
        ids_BT: Tensor,
        positions_T: Tensor | None = None,
        attention_fns: Sequence[AttentionFn] | None = None,
    ) -> Tensor:
        """The residual stream after the last block and the final norm, (B, T, M): all but the unembedding.

        By default the tokens are whole texts. `positions_T` are their positions if these are not 0, 1, 2, …;
        `attention_fns`, one per layer, replace the fused attention of whole texts (reading.py).
        """
        if positions_T is None:
            positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        rotate = self.positions.rotation(positions_T)
        x_BTM = self.dropout(self.positions.add_positions(self.embed(ids_BT), positions_T))
        for block, attend in zip(self.blocks, attention_fns or [fused_attention] * len(self.blocks), strict=True):
            x_BTM = block(x_BTM, rotate, attend)
        return self.norm_final(x_BTM)  # type: ignore[no-any-return]

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits, (B, T, V): row t scores every token as the one that follows token t."""
        return self.unembed(self.hidden(ids_BT))  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.embed.weight.dtype

    @property
    def n_parameters(self) -> int:
        """The number of trainable numbers; tied ones are counted once."""
        return sum(p.numel() for p in self.parameters())
