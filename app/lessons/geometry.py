"""Distances and angles of vectors, a plane to draw them in, and what a matrix does to them."""

# shapes: T tokens, X features, I features before a matrix, O features after it, R features on its narrower side

import torch
from torch import Tensor
from torch.nn import functional as F


def cosines(x_TX: Tensor) -> Tensor:
    """The cosine similarities of all pairs, (T, T)."""
    unit_TX = F.normalize(x_TX, dim=1)
    return unit_TX @ unit_TX.T


def distances(x_TX: Tensor) -> Tensor:
    """The Euclidean distances of all pairs, (T, T)."""
    return torch.cdist(x_TX, x_TX, compute_mode="donot_use_mm_for_euclid_dist")


def singular_values(weight_OI: Tensor) -> Tensor:
    """The singular values of a matrix, (R,), the largest first: how much it scales each of its principal directions."""
    n_outputs, n_inputs = weight_OI.shape
    narrow_RR = weight_OI @ weight_OI.T if n_outputs < n_inputs else weight_OI.T @ weight_OI
    squares_R: Tensor = torch.linalg.eigvalsh(narrow_RR)
    return squares_R.clamp_min(0).sqrt().flip(0)


def null_part(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """The part of each vector in the null space of the matrix, (T, I): it is orthogonal to all rows."""
    if len(weight_OI) >= weight_OI.shape[1]:
        return torch.zeros_like(x_TI)  # as many rows as features: if they are independent, only 0 is orthogonal to all
    row_space_IR: Tensor = torch.linalg.qr(weight_OI.T).Q
    return x_TI - x_TI @ row_space_IR @ row_space_IR.T


def plane(x_TX: Tensor) -> tuple[Tensor, list[str]]:
    """Vectors in two dimensions, (T, 2), and the names of the axes: principal components if there are more features."""
    if x_TX.shape[1] <= 2:
        return F.pad(x_TX, (0, 2 - x_TX.shape[1])), ["feature 0", "feature 1"]
    centred_TX = x_TX - x_TX.mean(0)
    variance_T, axes_TT = torch.linalg.eigh(centred_TX @ centred_TX.T)  # U and S² of the SVD of the centred vectors
    variance_T = F.pad(variance_T.clamp_min(0).flip(0), (0, 1))
    point_T2 = F.pad(axes_TT.flip(1), (0, 1))[:, :2] * variance_T[:2].sqrt()
    farthest_2 = point_T2.gather(0, point_T2.abs().argmax(0, keepdim=True))[0]
    sign_2 = torch.where(farthest_2 < 0, -1.0, 1.0)  # the sign of an axis is arbitrary: its farthest token gets +
    ratio_2 = variance_T[:2] / variance_T.sum().clamp_min(1e-12)
    titles = [f"principal component {n}, {ratio:.0%} of the variance" for n, ratio in enumerate(ratio_2.tolist(), 1)]
    return point_T2 * sign_2, titles
