"""LayerNorm (GPT-2) and RMSNorm (Llama family), with a common base class for the hooks that observe them."""

# shapes: ... any leading dimensions, M features of a token

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Config


class Norm(nn.Module):
    """Normalises the features of every token, then applies a learned gain (and bias)."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(d_model))

    @abstractmethod
    def normalise(self, x_M: Tensor) -> Tensor:
        """The normalised features, before gain and bias; same shape."""


class LayerNorm(Norm):
    """(x - mean) / sqrt(variance + eps) * gain + bias, with the biased variance (Ba, Kiros, Hinton 2016).

    >>> LayerNorm(2, eps=1e-5)(torch.tensor([1.0, 3.0])).round(decimals=3)
    tensor([-1.,  1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__(d_model, eps)
        self.bias = nn.Parameter(torch.zeros(d_model))

    def normalise(self, x_M: Tensor) -> Tensor:
        """(x - mean) / sqrt(variance + eps)."""
        return F.layer_norm(x_M, self.gain.shape, eps=self.eps)

    def forward(self, x_M: Tensor) -> Tensor:
        """The normalised features times gain, plus bias."""
        return F.layer_norm(x_M, self.gain.shape, self.gain, self.bias, self.eps)


class RMSNorm(Norm):
    """x / sqrt(mean of squares + eps) * gain (Zhang, Sennrich 2019). It computes neither mean nor variance.

    The squares are averaged in float32, whatever the model's dtype, because the Llama family was trained so.
    """

    def normalise(self, x_M: Tensor) -> Tensor:
        """x / sqrt(mean of squares + eps)."""
        x32_M = x_M.float()
        return (x32_M * torch.rsqrt(x32_M.square().mean(-1, keepdim=True) + self.eps)).to(x_M.dtype)

    def forward(self, x_M: Tensor) -> Tensor:
        """The normalised features times gain."""
        return self.normalise(x_M) * self.gain


def make_norm(config: Config) -> Norm:
    """The norm that a Config names, with initial parameters: gain 1, bias 0."""
    kinds = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
    return kinds[config.norm](config.d_model, config.norm_eps)
