"""The network: embed, blocks, norm, unembed. One forward for both families.

GPT-2 (Radford et al. 2019) and the Llama family (Touvron et al. 2023) differ by the parts that are chosen when the
network is built; nothing below asks which family it is. Nothing below knows that it is observed, either: trace.py
puts its hooks on from outside.
"""

# shapes: B texts, T tokens, M features of a token, V tokens of the vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.attention import Attention, Look, look_back
from model.config import Config
from model.dropout import Dropout
from model.linear import Linear
from model.mlp import make_mlp
from model.norm import make_norm
from model.positions import Embedding, Turn, make_positions


class Block(nn.Module):
    """x + attention(norm_1(x)), then x + mlp(norm_2(x)); training drops a share of what either adds."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_1 = make_norm(config)
        self.attention = Attention(config)
        self.norm_2 = make_norm(config)
        self.mlp = make_mlp(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTM: Tensor, turn: Turn, look: Look) -> Tensor:
        x_BTM = x_BTM + self.dropout(self.attention(self.norm_1(x_BTM), turn, look))
        return x_BTM + self.dropout(self.mlp(self.norm_2(x_BTM)))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A decoder-only transformer.

    In training it drops a share of its numbers in four places: of the embedded tokens, of the attention weights, and
    of what attention and the feed-forward network add to the residual stream.
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

    def hidden(self, ids_BT: Tensor, at_T: Tensor | None = None, looks: Sequence[Look] | None = None) -> Tensor:
        """The residual stream after the last block and the final norm, (B, T, M): all but the unembedding.

        Without more, the tokens are whole texts. `at_T` are their positions where they do not count 0, 1, 2, …, and
        `looks` says, layer by layer, at what they look back where that is not themselves alone (prefix.py).
        """
        if at_T is None:
            at_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        turn = self.positions.turn(at_T)
        x_BTM = self.dropout(self.positions.place(self.embed(ids_BT), at_T))
        for block, look in zip(self.blocks, looks or [look_back] * len(self.blocks), strict=True):
            x_BTM = block(x_BTM, turn, look)
        return self.norm_final(x_BTM)  # type: ignore[no-any-return]

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits: row t scores every token as the one that follows token t; (B, T, V)."""
        return self.unembed(self.hidden(ids_BT))  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.weight.dtype

    @property
    def n_parameters(self) -> int:
        """How many numbers training could change; tied ones are counted once."""
        return sum(p.numel() for p in self.parameters())
