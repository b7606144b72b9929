"""Fréchet distance between two Gaussians, fitted to features.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", arXiv 1706.08500, equation 6, after Dowson and Landau 1982, "The Fréchet distance
between multivariate normal distributions", equation 4:

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

The field reports d^2 and calls it the distance. With S1 = A A^T, the eigenvalues of S1 S2 other than
zero are those of A^T S2 A, which is symmetric, so that the last trace is a sum of real square roots:
no root of a matrix, nothing complex.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics.inputs import require_features, require_same_space

_BLOCK = 8192


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features.

    Attributes:
        count: vectors seen, N.
        mean: (D,) float64.
        covariance: (D, D) float64, divided by N - 1.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Of features (N, D).

        Raises:
            UserError: fewer than 2 vectors, NaN or infinity.
        """
        require_features(features)
        total = MomentsSum()
        for block in features.split(_BLOCK):
            total.add(block)
        return total.moments()


class MomentsSum:
    """Moments of features that come block by block.

    Sums are float64 and taken about the first block's mean, so that a large common offset costs no
    digits. The result does not depend on the blocks beyond rounding.
    """

    def __init__(self) -> None:
        self._count = 0
        self._shift: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Add a block (n, D).

        Raises:
            UserError: NaN or infinity, or another D than before.
        """
        block = require_features(features, least=0).double()
        if len(block) == 0:
            return
        if self._shift is None:
            self._shift = block.mean(dim=0)
            self._sum = torch.zeros_like(self._shift)
            self._products = self._sum.new_zeros(len(self._sum), len(self._sum))
        require_same_space(self._shift, block)
        block = block - self._shift
        self._count += len(block)
        self._sum += block.sum(dim=0)
        self._products.addmm_(block.T, block)

    def moments(self) -> Moments:
        """Of everything added so far.

        Raises:
            UserError: fewer than 2 vectors.
        """
        if self._shift is None or self._count < 2:
            raise UserError(
                f"{self._count} feature vectors have no covariance.", "Measure at least 2 pictures."
            )
        offset = self._sum / self._count
        spread = self._products - self._count * torch.outer(offset, offset)
        return Moments(self._count, self._shift + offset, spread / (self._count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared distance d^2 of equation 6; at least 0, and symmetric.

    It is biased upwards by a term of order 1/N (Bińkowski et al. 2018, arXiv 1801.01401, appendix
    D): compare only distances of equal counts. Exact to about 1e-7 of the largest eigenvalue of the
    covariances, also where a count is below D and its covariance singular.

    Raises:
        UserError: different D, or NaN or infinity.
    """
    require_same_space(a.mean, b.mean)
    for moments in (a, b):
        if not bool(moments.mean.isfinite().all() and moments.covariance.isfinite().all()):
            raise UserError(
                f"The moments of {moments.count:,} feature vectors hold NaN or infinity.",
                "Measure these pictures anew.",
            )
    apart = (a.mean - b.mean).square().sum()
    spread = a.covariance.trace() + b.covariance.trace()
    return max(0.0, float(apart + spread - 2.0 * _trace_of_root(a, b)))


def _trace_of_root(a: Moments, b: Moments) -> Tensor:
    """tr((S1 S2)^(1/2)) from the eigenvalues of A^T S2 A, where S1 = A A^T."""
    few, many = sorted((a, b), key=lambda moments: (moments.count, float(moments.mean.sum())))
    rank = min(few.count - 1, len(few.mean))
    factor, other = _cholesky(many), few
    if factor is None:
        factor, other = _eigen_factor(few, rank), many
    eigenvalues = torch.linalg.eigvalsh(factor.T @ other.covariance @ factor)
    # Beyond the rank there is only rounding, whose square root would be a million times larger.
    return eigenvalues[-rank:].clamp(min=0.0).sqrt().sum()


def _cholesky(moments: Moments) -> Tensor | None:
    """A triangular factor; None where the covariance is singular. A tenth of the time of `eigh`."""
    if moments.count <= len(moments.mean):
        return None
    factor, failed = torch.linalg.cholesky_ex(moments.covariance)
    return None if int(failed) else factor


def _eigen_factor(moments: Moments, rank: int) -> Tensor:
    """(D, rank): eigenvectors times the square roots of their eigenvalues, the largest `rank`."""
    values, vectors = torch.linalg.eigh(moments.covariance)
    return vectors[:, -rank:] * values[-rank:].clamp(min=0.0).sqrt()
