"""How a model knows the position of a token: learned vectors added once, or queries and keys rotated in every layer."""

# shapes: B texts, H heads, T tokens, D features of a head, F = D/2 rotary pairs, M features of a token

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.config import Config, RotaryScaling

Rotation = Callable[[Tensor], Tensor]  # applied to the queries and keys of every layer; (B, H, T, D) to the same shape


class Embedding(nn.Embedding):
    """An embedding table that is not initialised, because its numbers come from a file or from the training code.

    nn.Embedding draws random numbers first. On the meta device, on which a model is built before its file is mapped,
    that makes torch import its compiler, which takes two seconds.
    """

    def reset_parameters(self) -> None:
        """Leave the table uninitialised."""


class LearnedPositions(nn.Module):
    """One trained vector for each position of the context (GPT-2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.table = Embedding(config.n_context, config.d_model)

    def add_positions(self, x_BTM: Tensor, positions_T: Tensor) -> Tensor:
        """Token embeddings plus the vectors of their positions, (B, T, M)."""
        return x_BTM + self.table(positions_T)  # type: ignore[no-any-return]

    def rotation(self, positions_T: Tensor) -> Rotation:  # noqa: ARG002
        """No rotation: queries and keys stay as they are."""
        return _unchanged


class RotaryPositions(nn.Module):
    """Pairs of features are rotated by an angle that grows with the position (Su et al. 2021, RoFormer).

    Feature f is paired with feature f + D/2: the half-split layout of Hugging Face's Llama checkpoints.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.frequencies = rotary_frequencies(config.d_head, config.rotary_base, config.rotary_scaling)

    def add_positions(self, x_BTM: Tensor, positions_T: Tensor) -> Tensor:  # noqa: ARG002
        """The token embeddings unchanged: nothing is added to the residual stream."""
        return x_BTM

    def rotation(self, positions_T: Tensor) -> Rotation:
        """The rotation by the angles of these positions; the angles are computed once for all layers."""
        angle_TF = positions_T[:, None].float() * torch.tensor(self.frequencies, device=positions_T.device)
        cos_TD = angle_TF.cos().repeat(1, 2)
        # A rotation needs (-right, left) times the sine. Swapping the halves and putting the sign into the sine
        # gives the same numbers.
        sin_TD = torch.cat((-angle_TF.sin(), angle_TF.sin()), dim=-1)

        def rotate(q_BHTD: Tensor) -> Tensor:
            cos, sin = cos_TD.to(q_BHTD.dtype), sin_TD.to(q_BHTD.dtype)
            return q_BHTD * cos + q_BHTD.roll(q_BHTD.shape[-1] // 2, -1) * sin

        return rotate


def rotary_frequencies(d_head: int, base: float, scaling: RotaryScaling | None = None) -> list[float]:
    """The angle, in radians, by which each of the d_head/2 pairs rotates from one position to the next.

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
    """The positions of this family, with uninitialised parameters."""
    return LearnedPositions(config) if config.positions == "learned" else RotaryPositions(config)


def _unchanged(q_BHTD: Tensor) -> Tensor:
    return q_BHTD
