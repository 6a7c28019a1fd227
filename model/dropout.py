"""Dropout: sets random numbers to 0 in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """In training, sets each number to 0 with probability `rate` and scales the others by 1 / (1 - rate).

    In inference it returns its input. The mean stays the same, and no part of the network can rely on another one
    (Srivastava et al. 2014).

    On a CPU, torch's own dropout draws two random words per number, which took 38 % of a training step here. This one
    gets four numbers out of two words; its rate is exact to 1/65,536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The input with some numbers dropped, in training; same shape."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
        survives = drawn >= round(self.rate * 2**16) - 2**15
        return x * (survives.to(x.dtype) / (1 - self.rate))
