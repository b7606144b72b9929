"""Kernel distances: KID and CMMD, both estimates of the squared maximum mean discrepancy

    MMD^2(P, Q) = E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)],   x, x' ~ P and y, y' ~ Q

Gretton et al. 2012, "A Kernel Two-Sample Test", JMLR 13, section 2. Kernels are computed in float64,
in blocks, so that memory does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics.inputs import require_features, require_same_space

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Vectors (n, D) and (m, D) in float64 -> the kernel of all pairs, (n, m)."""

_BLOCK = 2048
_LEAST = 10


@dataclass(frozen=True)
class KernelDistance:
    """KID with what it was made of.

    Attributes:
        value: mean over subsets.
        error: its standard error: how far the value would move with other pictures and other
            subsets of them. On the safe side where the sets are alike.
        subsets: how many.
        size: pictures of each set in a subset.
    """

    value: float
    error: float
    subsets: int
    size: int


def kid(
    x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1_000, seed: int = 0
) -> KernelDistance:
    """Kernel Inception Distance: the mean of `polynomial_mmd` over random subsets.

    Bińkowski et al. 2018, "Demystifying MMD GANs", arXiv 1801.01401, section 4. Unbiased, whatever
    the size.

    The deviation s of the values over subsets, divided by the root of their number S, would be the
    standard error if each subset were of new pictures; they overlap, and the more the fewer pictures
    there are. With m of n pictures in a subset, s falls short of the deviation between independent
    subsets by sqrt(1 - m / n), and what all n pictures have in common adds at most m / n of its
    square. So the error is s sqrt((1 / S + m / n) / (1 - m / n)).

    Args:
        x, y: features (n, D) and (m, D).
        subsets: how many to draw; each without replacement.
        size: pictures of each set in a subset; at most half of the smaller set is used.
        seed: of the draws.

    Raises:
        UserError: fewer than 10 vectors in a set, NaN or infinity, or different D.
    """
    x, y = require_features(x, _LEAST), require_features(y, _LEAST)
    require_same_space(x, y)
    fewer = min(len(x), len(y))
    size = min(size, fewer // 2)
    draws = torch.Generator().manual_seed(seed)

    def subset(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=draws)[:size].to(of.device)]

    values = [_polynomial_mmd(subset(x), subset(y)) for _ in range(subsets)]
    share = size / fewer
    error = stdev(values) * ((1 / subsets + share) / (1 - share)) ** 0.5
    return KernelDistance(fmean(values), error, subsets, size)


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of all vectors, with the kernel (x.y / D + 1)^3.

    Bińkowski et al. 2018, equations 4 and 5 (after Gretton et al. 2012, equation 3).

    Args:
        x, y: features (n, D) and (m, D).

    Raises:
        UserError: fewer than 2 vectors in a set, NaN or infinity, or different D.
    """
    x, y = require_features(x), require_features(y)
    require_same_space(x, y)
    return _polynomial_mmd(x, y)


def cmmd(x: Tensor, y: Tensor, *, sigma: float = 10.0) -> float:
    """1,000 times the biased MMD^2 with a Gaussian kernel, of vectors brought to length 1.

    Jayasumana et al. 2024, "Rethinking FID: Towards a Better Evaluation Metric for Image
    Generation", arXiv 2401.09603: k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) on CLIP embeddings. The
    paper writes the unbiased estimate; the code that its authors published, and with it the figures
    in use, averages over all pairs, each vector with itself included (Gretton et al. 2012, equation
    5). This function does the same. To rounding it is at least 0, and 0 for equal sets; it is too
    large by 1000 (E[1 - k(x, x')] / n + E[1 - k(y, y')] / m) on average.

    Args:
        x, y: embeddings (n, D) and (m, D), of any length but 0.
        sigma: width of the kernel.

    Raises:
        UserError: fewer than 2 vectors in a set, NaN, infinity, length 0, or different D.
    """
    x, y = require_features(x), require_features(y)
    require_same_space(x, y)
    for v in (x, y):
        if bool((v.norm(dim=1) == 0).any()):
            raise UserError(
                "An embedding of length 0 has no direction.", "Look at the extractor's weight file."
            )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        a, b = (v / v.norm(dim=1, keepdim=True) for v in (a, b))
        # k - 1, whose ones cancel in MMD^2: k itself lies in [0.98, 1] and would cost digits.
        return ((a @ b.T).clamp_(max=1.0) - 1.0).div_(sigma**2).expm1_()

    def mean_within(v: Tensor) -> float:
        return 2.0 * _half(kernel, v) / len(v) ** 2  # k(x, x) - 1 = 0 adds nothing

    between = _total(kernel, x, y) / (len(x) * len(y))
    return 1000.0 * (mean_within(x) + mean_within(y) - 2.0 * between)


def _polynomial_mmd(x: Tensor, y: Tensor) -> float:
    def mean_within(v: Tensor) -> float:
        return 2.0 * _half(_cubic, v) / (len(v) * (len(v) - 1))

    between = _total(_cubic, x, y) / (len(x) * len(y))
    return mean_within(x) + mean_within(y) - 2.0 * between


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    """(a.b / D + 1)^3."""
    base = (a @ b.T).div_(a.shape[1]).add_(1.0)
    return base.square().mul_(base)


def _total(kernel: Kernel, x: Tensor, y: Tensor) -> float:
    """Sum of the kernel over all pairs of x (n, D) and y (m, D)."""
    return sum(
        float(kernel(a.double(), b.double()).sum())
        for a in x.split(_BLOCK)
        for b in y.split(_BLOCK)
    )


def _half(kernel: Kernel, x: Tensor) -> float:
    """Sum of a symmetric kernel over the pairs i < j of x (n, D)."""
    total = 0.0
    blocks = x.split(_BLOCK)
    for i, block in enumerate(blocks):
        values = kernel(block.double(), block.double())
        total += (float(values.sum()) - float(values.diagonal().sum())) / 2.0
        total += sum(_total(kernel, block, later) for later in blocks[i + 1 :])
    return total
