"""A check: something that must hold, measured; and how far rounding may move two computations of one number apart.

Every tolerance of the lessons comes from here. Laws without rounding (counts, copies, weights that are masked) are
held exactly, with `at_most(0, …)`.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

SAFETY = 4.0  # times the deviation that random rounding would have; what sums really lose is mostly far less


class Check(BaseModel):
    """Something that must hold, measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="what holds, in words")
    measured: float | None = Field(description="`null` where it is no number, or where nothing was measured")
    least: float | None = Field(None, description="it may not be below this")
    most: float | None = Field(None, description="it may not be above this")
    passed: bool | None = Field(description="`null` where the check does not apply; `reason` says why")
    reason: str = Field("", description="why the check does not apply; empty where it does")


def at_most(most: float, measured: float, name: str) -> Check:
    """
    >>> at_most(0.5, 0.25, "small").passed, at_most(0.5, float("nan"), "small").passed
    (True, False)
    """
    return Check(name=name, measured=_finite(measured), most=most, passed=measured <= most)


def at_least(least: float, measured: float, name: str) -> Check:
    """
    >>> at_least(0.5, 0.25, "large").passed
    False
    """
    return Check(name=name, measured=_finite(measured), least=least, passed=measured >= least)


def does_not_apply(name: str, reason: str) -> Check:
    """A check of something that this text, or these controls, do not have."""
    return Check(name=name, measured=None, passed=None, reason=reason)


@dataclass(frozen=True)
class Arithmetic:
    """How numbers were computed: as sums of so many terms, stored so often in numbers of a dtype on the way.

    Rounding errors are independent of one another, more or less: those of a sum of n terms add up to about
    eps · √n · Σ|terms| (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Sums are
    accumulated in float32 at least, whatever the dtype; terms that are stored in a narrower one bring its eps along.
    """

    n_terms: int = 1
    dtype: torch.dtype = torch.float32
    n_roundings: int = 1

    def error(self, scale: float = 1.0) -> float:
        """The largest difference that rounding explains between two computations of the same number.

        `scale` is the magnitude of what is summed, not of the sum: cancellation makes a sum smaller, not its error.

        >>> 1e-6 < Arithmetic(n_terms=4).error() < 1e-5, Arithmetic(dtype=torch.bfloat16).error() > 1e-2
        (True, True)
        """
        stored = torch.finfo(self.dtype).eps
        accumulated = min(stored, torch.finfo(torch.float32).eps)
        return SAFETY * scale * (accumulated * math.sqrt(self.n_terms) + stored * math.sqrt(self.n_roundings))


def product_sums(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0) -> Tensor:
    """Σ|terms| of every sum in x Wᵀ + b, (T, O): the scale of the errors of adding them up.

    >>> product_sums(torch.tensor([[3.0, -4.0]]), torch.tensor([[1.0, 1.0]])).item()
    7.0
    """
    return x_TI.abs() @ w_OI.abs().T + torch.as_tensor(b_O, dtype=w_OI.dtype, device=w_OI.device).abs()


def product_norms(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0) -> Tensor:
    """The root of Σ terms² of every sum in x Wᵀ + b, (T, O), or the sum if that is larger.

    It is the scale of errors that the terms bring with them, each by itself, and of the stored sum's own.

    >>> product_norms(torch.tensor([[3.0, -4.0]]), torch.tensor([[1.0, 1.0]])).item()
    5.0
    """
    b_O = torch.as_tensor(b_O, dtype=w_OI.dtype, device=w_OI.device)
    return torch.maximum((x_TI.square() @ w_OI.square().T + b_O.square()).sqrt(), (x_TI @ w_OI.T + b_O).abs())


def product_scales(x_TI: Tensor, w_OI: Tensor, b_O: Tensor | float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The scale of the rounding error of every sum in x Wᵀ + b, (T, O).

    In a narrower dtype than float32 the errors of the stored numbers outweigh those of adding up.
    """
    is_narrow = torch.finfo(dtype).eps > torch.finfo(torch.float32).eps
    return product_norms(x_TI, w_OI, b_O) if is_narrow else product_sums(x_TI, w_OI, b_O)


def equal(
    name: str, ours: Tensor, theirs: Tensor, arithmetic: Arithmetic, scale: Tensor | float | None = None
) -> Check:
    """The check that two computations of the same numbers agree to within rounding.

    `scale` is as for `Arithmetic.error`, for each number or for all of them; the largest number if left out. What is
    measured is the difference of the pair that comes nearest to its limit, or goes farthest beyond it.

    >>> equal("one", torch.tensor([1.0]), torch.tensor([1.0000001]), Arithmetic()).passed
    True
    """
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    if scale is None:
        scale = largest(ours, theirs)
    scales = torch.as_tensor(scale, dtype=torch.double).cpu().expand_as(ours)
    off = (ours - theirs).abs().flatten()
    most = scales.flatten() * arithmetic.error()
    worst = int((off / most.clamp_min(1e-300)).nan_to_num(math.inf).argmax())
    return at_most(most[worst].item(), off[worst].item(), name)


def different(
    name: str, ours: Tensor, theirs: Tensor, arithmetic: Arithmetic, scale: Tensor | float | None = None
) -> Check:
    """The check that some two numbers of a pair of tensors differ by more than rounding explains."""
    agreed = equal(name, ours, theirs, arithmetic, scale)
    assert agreed.most is not None
    return at_least(agreed.most, math.nan if agreed.measured is None else agreed.measured, name)


def printed(name: str, ours: Tensor | float, values: Tensor | float, digits: int = 4) -> Check:
    """The check that numbers are those that were printed somewhere, with so many digits after the point.

    >>> printed("pi", math.pi, 3.1416).passed, printed("pi", math.pi, 3.1415).passed
    (True, False)
    """
    ours, values = torch.as_tensor(ours).double().cpu(), torch.as_tensor(values, dtype=torch.double)
    half = 0.5 * 10.0**-digits
    return at_most(half + Arithmetic().error(largest(values)), (ours - values).abs().max().item(), name)


def largest(*values: Tensor) -> float:
    """The largest of some numbers, whatever their signs."""
    return max(x.detach().abs().max().item() for x in values)


def _finite(measured: float) -> float | None:
    return measured if math.isfinite(measured) else None
