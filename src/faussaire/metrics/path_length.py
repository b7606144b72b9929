"""Perceptual path length: how abruptly pictures change on a walk through the latent space.

Karras, Laine and Aila 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks", arXiv 1812.04948, section 4.1, equation 2:

    l_Z = E[ d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps))) / eps^2 ],  eps = 1e-4

with d a perceptual distance and t uniform in [0, 1]. As in the paper's measurements, the lowest and
the highest hundredth of the distances are left out. The paper's d is VGG-16 with LPIPS weights; here
the distance is injected and named in the figure's provenance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import precise
from faussaire.core.family import Family

EPSILON = 1e-4
_BATCH = 16

Distance = Callable[[Tensor, Tensor], Tensor]
"""Perceptual distance of pictures a and b, float32 (N, C, H, W) in [-1, 1] -> (N,)."""


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Along the great circle from a to b, both (N, D) on the unit sphere; t: (N, 1)."""
    angle = torch.acos((a * b).sum(1, keepdim=True).clamp(-1.0, 1.0))
    along = torch.nn.functional.normalize(b - (a * b).sum(1, keepdim=True) * a, dim=1)
    return a * torch.cos(t * angle) + along * torch.sin(t * angle)


@torch.no_grad()
def path_lengths(
    family: Family[Any],
    distance: Distance,
    *,
    count: int,
    seed: int,
    device: str,
    labels: Tensor | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Tensor:
    """d / eps^2 on `count` steps, (count,) float64.

    Latent vectors are interpolated on the sphere and then given the length that lies between those
    of the two ends. Networks run in float32: in bf16 a step of 1e-4 would drown in rounding.

    Args:
        family: one with a latent space, as samples are made with it.
        distance: the perceptual distance.
        count: steps.
        seed: names the sequence of steps.
        device: where the family runs.
        labels: (count,) class numbers for a conditional family.
        progress: called as progress(what, done, total).
    """
    lengths = []
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        rows = range(start, start + size)
        begin, end = (_latents(family, seed, end, rows, device) for end in (0, 1))
        chances = RowDraws([mix(seed, "path", "t", row) for row in rows], device=device)
        t = chances.uniform(1)
        chosen = None if labels is None else labels[start : start + size].to(device)
        pictures = []
        for moment in (t, t + EPSILON):
            # The same draws for both: noise inside a generator is no movement in latent space.
            draws = RowDraws([mix(seed, "path", "noise", row) for row in rows], device=device)
            with precise():
                sample = family.sample(draws, labels=chosen, latents=_between(begin, end, moment))
            pictures.append(sample.float())
        lengths.append(distance(*pictures).double().cpu() / EPSILON**2)
        if progress is not None:
            progress("path length", start + size, count)
    return torch.cat(lengths)


def _latents(family: Family[Any], seed: int, end: int, rows: range, device: str) -> Tensor:
    """One end of each step."""
    draws = RowDraws([mix(seed, "path", end, row) for row in rows], device=device)
    found = family.latents(draws)
    assert found is not None
    return found


def _between(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """A point between latent vectors of any shape, direction and length apart."""
    first, second = a.flatten(1), b.flatten(1)
    near, far = first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True)
    direction = slerp(first / near, second / far, t)
    return (direction * (near + t * (far - near))).view(a.shape)


def trimmed_mean(lengths: Tensor) -> tuple[float, float]:
    """Mean and its standard error without the lowest and the highest hundredth."""
    low, high = torch.quantile(lengths, torch.tensor([0.01, 0.99], dtype=lengths.dtype))
    kept = lengths[(lengths >= low) & (lengths <= high)]
    return float(kept.mean()), float(kept.std() / len(kept) ** 0.5)
