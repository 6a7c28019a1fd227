"""Checks: statements that must hold, with a measured value; and how much two computations may differ by rounding.

Every tolerance of the experiments comes from here. Statements without rounding (counts, copies, masked weights) are
checked exactly, with `at_most(0, …)`.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

SAFETY = 4.0  # times the standard deviation of random rounding; real sums mostly lose far less


class Check(BaseModel):
    """A statement that must hold, and the value that was measured for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the statement")
    measured: float | None = Field(description="`null` if it is not finite or nothing was measured")
    minimum: float | None = Field(None, description="smallest value that passes")
    maximum: float | None = Field(None, description="largest value that passes")
    passed: bool | None = Field(description="`null` if the check does not apply; `reason` says why")
    reason: str = Field("", description="why the check does not apply; empty if it does")


def at_most(maximum: float, measured: float, name: str) -> Check:
    """The check that a number is not above a maximum; NaN fails.

    >>> at_most(0.5, 0.25, "small").passed, at_most(0.5, float("nan"), "small").passed
    (True, False)
    """
    return Check(name=name, measured=_finite(measured), maximum=maximum, passed=measured <= maximum)


def at_least(minimum: float, measured: float, name: str) -> Check:
    """The check that a number is not below a minimum; NaN fails.

    >>> at_least(0.5, 0.25, "large").passed
    False
    """
    return Check(name=name, measured=_finite(measured), minimum=minimum, passed=measured >= minimum)


def does_not_apply(name: str, reason: str) -> Check:
    """A check of something that this text or these settings do not have."""
    return Check(name=name, measured=None, passed=None, reason=reason)


@dataclass(frozen=True)
class Arithmetic:
    """How a number was computed: the number of terms summed, and how often a result was rounded to a dtype.

    Rounding errors are roughly independent, so those of a sum of n terms add up to about eps · √n · Σ|terms| (Higham
    and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Sums are accumulated in float32 or wider;
    terms that are stored in a narrower dtype contribute the eps of that dtype.
    """

    n_terms: int = 1
    dtype: torch.dtype = torch.float32
    n_roundings: int = 1

    def error(self, scale: float = 1.0) -> float:
        """The largest difference that rounding explains between two computations of the same number.

        `scale` is the magnitude of the terms, not of their sum: cancellation makes a sum smaller, but not its error.

        >>> 1e-6 < Arithmetic(n_terms=4).error() < 1e-5, Arithmetic(dtype=torch.bfloat16).error() > 1e-2
        (True, True)
        """
        stored = torch.finfo(self.dtype).eps
        accumulated = min(stored, torch.finfo(torch.float32).eps)
        return SAFETY * scale * (accumulated * math.sqrt(self.n_terms) + stored * math.sqrt(self.n_roundings))


def product_sums(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0) -> Tensor:
    """Σ|terms| of every sum in x Wᵀ + b, (T, O): the scale of the summation errors.

    >>> product_sums(torch.tensor([[3.0, -4.0]]), torch.tensor([[1.0, 1.0]])).item()
    7.0
    """
    return x_TI.abs() @ w_OI.abs().T + torch.as_tensor(b_O, dtype=w_OI.dtype, device=w_OI.device).abs()


def product_norms(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0) -> Tensor:
    """√(Σ terms²) of every sum in x Wᵀ + b, (T, O), or the sum itself if that is larger.

    This is the scale of the rounding errors of the stored terms and of the stored sum.

    >>> product_norms(torch.tensor([[3.0, -4.0]]), torch.tensor([[1.0, 1.0]])).item()
    5.0
    """
    b_O = torch.as_tensor(b_O, dtype=w_OI.dtype, device=w_OI.device)
    return torch.maximum((x_TI.square() @ w_OI.square().T + b_O.square()).sqrt(), (x_TI @ w_OI.T + b_O).abs())


def product_scales(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The scale of the rounding error of every sum in x Wᵀ + b, (T, O).

    In dtypes narrower than float32, the errors of the stored numbers outweigh the summation errors.
    """
    is_narrow = torch.finfo(dtype).eps > torch.finfo(torch.float32).eps
    return product_norms(x_TI, w_OI, b_O) if is_narrow else product_sums(x_TI, w_OI, b_O)


def equal(
    name: str, actual: Tensor, expected: Tensor, arithmetic: Arithmetic, scale: Tensor | float | None = None
) -> Check:
    """The check that two computations of the same numbers agree to within rounding.

    `scale` is that of `Arithmetic.error`, for each number or for all of them; by default the largest number. The
    measured value is the difference that is largest relative to its tolerance.

    >>> equal("equal", torch.tensor([1.0]), torch.tensor([1.0000001]), Arithmetic()).passed
    True
    """
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    if scale is None:
        scale = largest(actual, expected)
    scales = torch.as_tensor(scale, dtype=torch.double).cpu().expand_as(actual)
    difference = (actual - expected).abs().flatten()
    tolerance = scales.flatten() * arithmetic.error()
    worst = int((difference / tolerance.clamp_min(1e-300)).nan_to_num(math.inf).argmax())
    return at_most(tolerance[worst].item(), difference[worst].item(), name)


def different(
    name: str, actual: Tensor, expected: Tensor, arithmetic: Arithmetic, scale: Tensor | float | None = None
) -> Check:
    """The check that two tensors differ somewhere by more than rounding explains."""
    agreement = equal(name, actual, expected, arithmetic, scale)
    assert agreement.maximum is not None
    return at_least(agreement.maximum, math.nan if agreement.measured is None else agreement.measured, name)


def printed(name: str, actual: Tensor | float, printed_values: Tensor | float, digits: int = 4) -> Check:
    """The check that numbers agree with printed ones, which have `digits` digits after the decimal point.

    >>> printed("pi", math.pi, 3.1416).passed, printed("pi", math.pi, 3.1415).passed
    (True, False)
    """
    actual, expected = torch.as_tensor(actual).double().cpu(), torch.as_tensor(printed_values, dtype=torch.double)
    half = 0.5 * 10.0**-digits
    return at_most(half + Arithmetic().error(largest(expected)), (actual - expected).abs().max().item(), name)


def largest(*values: Tensor) -> float:
    """The largest absolute value in some tensors."""
    return max(x.detach().abs().max().item() for x in values)


def _finite(measured: float) -> float | None:
    return measured if math.isfinite(measured) else None
