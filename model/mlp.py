"""The feed-forward network: GELU (GPT-2) and SwiGLU (Llama family)."""

# shapes: ... any leading dimensions, M features of a token

from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Config
from model.linear import Linear


class GeluMLP(nn.Module):
    """down(gelu(up(x))), with the tanh approximation of GELU that GPT-2 was trained with (Hendrycks, Gimpel 2016)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_mlp, bias=config.mlp_bias)
        self.down = Linear(config.d_mlp, config.d_model, bias=config.mlp_bias)

    def forward(self, x_M: Tensor) -> Tensor:
        """What the block adds to the residual stream; same shape."""
        return self.down(F.gelu(self.up(x_M), approximate="tanh"))  # type: ignore[no-any-return]


class SwigluMLP(nn.Module):
    """down(silu(gate(x)) * up(x)): `gate` scales each feature of `up` (Shazeer 2020)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_mlp, bias=config.mlp_bias)
        self.up = Linear(config.d_model, config.d_mlp, bias=config.mlp_bias)
        self.down = Linear(config.d_mlp, config.d_model, bias=config.mlp_bias)

    def forward(self, x_M: Tensor) -> Tensor:
        """What the block adds to the residual stream; same shape."""
        return self.down(F.silu(self.gate(x_M)) * self.up(x_M))  # type: ignore[no-any-return]


def make_mlp(config: Config) -> nn.Module:
    """The feed-forward network that a Config names, with random parameters."""
    kinds = {"gelu": GeluMLP, "swiglu": SwigluMLP}
    return kinds[config.mlp](config)
