"""How a model knows where a token stands: learned vectors added once, or queries and keys turned in every layer."""

# shapes: B texts, H heads, T tokens, D features of a head, F = D/2 rotary pairs, M features of a token

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.config import Config, RotaryScaling

Turn = Callable[[Tensor], Tensor]  # what a layer does to its queries and keys, (B, H, T, D) to the same shape


class Embedding(nn.Embedding):
    """A table of vectors that waits for its numbers.

    nn.Embedding would draw random ones first, and where no memory is behind the table yet (the meta device, on which
    a model is built before its file is mapped) that draw makes torch import its whole compiler: two seconds.
    """

    def reset_parameters(self) -> None:
        """Leave the table as it is."""


class LearnedPositions(nn.Module):
    """One trained vector for each of the context's positions (GPT-2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.table = Embedding(config.n_context, config.d_model)

    def place(self, x_BTM: Tensor, at_T: Tensor) -> Tensor:
        """Token embeddings with their position's vector added."""
        return x_BTM + self.table(at_T)  # type: ignore[no-any-return]

    def turn(self, at_T: Tensor) -> Turn:  # noqa: ARG002
        """Nothing is turned."""
        return _same


class RotaryPositions(nn.Module):
    """Pairs of features are turned by an angle that grows with the position (Su et al. 2021, RoFormer).

    Feature f is paired with feature f + D/2: the half-split layout of Hugging Face's Llama checkpoints.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.frequencies = rotary_frequencies(config.d_head, config.rotary_base, config.rotary_scaling)

    def place(self, x_BTM: Tensor, at_T: Tensor) -> Tensor:  # noqa: ARG002
        """Nothing is added: the residual stream does not know where it stands."""
        return x_BTM

    def turn(self, at_T: Tensor) -> Turn:
        """The rotation by these positions' angles; the angles are computed once for all layers."""
        angle_TF = at_T[:, None].float() * torch.tensor(self.frequencies, device=at_T.device)
        cos_TD = angle_TF.cos().repeat(1, 2)
        # a quarter turn is (-right, left); here the halves change places and the sine bears the sign
        sin_TD = torch.cat((-angle_TF.sin(), angle_TF.sin()), dim=-1)

        def turn(q_BHTD: Tensor) -> Tensor:
            cos, sin = cos_TD.to(q_BHTD.dtype), sin_TD.to(q_BHTD.dtype)
            return q_BHTD * cos + q_BHTD.roll(q_BHTD.shape[-1] // 2, -1) * sin

        return turn


def rotary_frequencies(d_head: int, base: float, scaling: RotaryScaling | None = None) -> list[float]:
    """The angle in radians by which each of the d_head/2 pairs turns from one position to the next.

    >>> rotary_frequencies(4, base=100.0)
    [1.0, 0.1...]
    """
    # In float32 and on the CPU, operation for operation as the models were trained.
    plain = 1.0 / (base ** (torch.arange(0, d_head, 2, device="cpu").float() / d_head))
    if scaling is None:
        scaled = plain
    elif scaling.kind == "linear":
        scaled = plain / scaling.factor
    else:
        wavelength = 2 * math.pi / plain
        slow = scaling.original_context / scaling.low_freq_factor
        fast = scaling.original_context / scaling.high_freq_factor
        blend = (scaling.original_context / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        between = (1 - blend) * plain / scaling.factor + blend * plain
        scaled = torch.where(wavelength > slow, plain / scaling.factor, torch.where(wavelength < fast, plain, between))
    return [float(f) for f in scaled]


def make_positions(config: Config) -> LearnedPositions | RotaryPositions:
    """The positions of this family."""
    return LearnedPositions(config) if config.positions == "learned" else RotaryPositions(config)


def _same(q_BHTD: Tensor) -> Tensor:
    return q_BHTD
