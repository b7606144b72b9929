"""Counting modes, whatever they are: known Gaussians in the plane, or stacks of digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of what there is samples cover.

    Attributes:
        modes: there are.
        touched: modes with at least one sample. Nearly worthless alone: a generator that has hardly
            begun sprays samples everywhere, and some hit.
        found: modes with at least a fifth of the good samples that they should have.
        quality: share of good samples.
        reverse_kl: KL(samples' || true modes) in nats over the modes of all samples; 0 is as they
            should be, ln(K / k) where k of K even modes share all samples evenly. Of N samples over
            K modes it is (K - 1) / 2N too high on average.
    """

    modes: int
    touched: int
    found: int
    quality: float
    reverse_kl: float


def tally(
    modes: np.ndarray,
    good: np.ndarray,
    shares: np.ndarray,
    *,
    touching: np.ndarray | None = None,
) -> Coverage:
    """Count the modes of samples.

    Args:
        modes: (N,) the mode that each sample is of, or nearest to, in [0, K).
        good: (N,) bool: whether it is a good one.
        shares: (K,) of all samples that each mode should have, above 0 and 1 together.
        touching: (N,) bool: the samples of which one is enough for a mode to be touched; None: the
            good ones.
    """
    count, total = len(modes), len(shares)
    hits = np.bincount(modes[good], minlength=total)
    touches = hits if touching is None else np.bincount(modes[touching], minlength=total)
    share = np.bincount(modes, minlength=total) / count
    some = share > 0
    return Coverage(
        modes=total,
        touched=int((touches > 0).sum()),
        found=int((hits >= 0.2 * count * shares).sum()),
        quality=float(good.mean()),
        reverse_kl=float((share[some] * np.log(share[some] / shares[some])).sum()),
    )
