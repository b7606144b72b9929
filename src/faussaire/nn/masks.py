"""Holes drawn at random: boxes and free strokes, for networks that learn to fill them.

Sizes are those of papers at 256 pixels, in proportion to the smaller side of the pictures here:
- `wide`: one to five lines of up to five segments, each of them 10 to 200 long and 5 to 100 wide, or one
  to four boxes of 30 to 150 a side, half of the time each. Suvorov et al. 2022, "Resolution-robust Large
  Mask Inpainting with Fourier Convolutions", arXiv 2109.07161, section 2.4 and supplement.
- `thin`: one to five lines of up to five segments, 10 to 60 long and 12 to 40 wide, and beside them a
  box of 64 to 128 a side, half of the time. After Yu et al. 2019, "Free-Form Image Inpainting with
  Gated Convolution", arXiv 1806.03589, section 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from faussaire.core.batch import Draws

STROKES, SEGMENTS, BOXES = 5, 5, 4


@dataclass(frozen=True)
class _Sizes:
    """Least and most, in pixels of 256."""

    length: tuple[float, float]
    width: tuple[float, float]
    box: tuple[float, float]


_KINDS = {
    "wide": _Sizes((10.0, 200.0), (5.0, 100.0), (30.0, 150.0)),
    "thin": _Sizes((10.0, 60.0), (12.0, 40.0), (64.0, 128.0)),
}


def holes(draws: Draws, height: int, width: int, kind: str = "wide") -> Tensor:
    """Holes (N, 1, H, W), 1 inside and 0 outside, of pictures of this size.

    Args:
        draws: randomness for N rows.
        height, width: of the pictures.
        kind: `wide` or `thin`.
    """
    sizes = _KINDS[kind]
    which = draws.uniform(1)[:, :, None, None]
    lines = strokes(draws, height, width, sizes.length, sizes.width)
    most = BOXES if kind == "wide" else 1
    squares = boxes(draws, height, width, sizes.box, most)
    if kind == "wide":
        return torch.where(which < 0.5, lines, squares)
    return torch.maximum(lines, squares * (which < 0.5))


def strokes(
    draws: Draws,
    height: int,
    width: int,
    length: tuple[float, float],
    thickness: tuple[float, float],
) -> Tensor:
    """Broken lines with round ends, (N, 1, H, W); lengths and thickness in pixels of 256."""
    unit = min(height, width) / 256.0
    starts = draws.uniform(STROKES, 2)
    numbers = draws.uniform(STROKES, SEGMENTS, 3)
    # How many there are: 1 to 5 of either, each as probable.
    lines = 1 + (draws.uniform(1) * STROKES).long()  # (N, 1)
    parts = 1 + (draws.uniform(STROKES) * SEGMENTS).long()  # (N, STROKES)
    edge = torch.tensor([height, width], device=starts.device, dtype=starts.dtype)
    rows = torch.arange(height, device=starts.device) + 0.5
    columns = torch.arange(width, device=starts.device) + 0.5
    found = torch.zeros(draws.size, height, width, dtype=torch.bool, device=starts.device)
    for line in range(STROKES):
        here = starts[:, line] * edge  # (N, 2): row, column
        for part in range(SEGMENTS):
            turn, far, thick = numbers[:, line, part].unbind(dim=1)
            heading = torch.stack([torch.sin(math.tau * turn), torch.cos(math.tau * turn)], dim=1)
            reach = unit * torch.lerp(*_ends(length, far), far)
            there = torch.minimum((here + reach[:, None] * heading).clamp(min=0.0), edge)
            wide = unit * torch.lerp(*_ends(thickness, thick), thick)
            near = _distance(rows, columns, here, there) <= (0.5 * wide).square()[:, None, None]
            drawn = (line < lines[:, 0]) & (part < parts[:, line])
            found |= near & drawn[:, None, None]
            here = there
    return found[:, None].to(starts.dtype)


def boxes(draws: Draws, height: int, width: int, side: tuple[float, float], most: int) -> Tensor:
    """One to `most` boxes, (N, 1, H, W); sides in pixels of 256, at most the whole picture."""
    unit = min(height, width) / 256.0
    numbers = draws.uniform(most, 4)[:, :, :, None, None]
    count = 1 + (draws.uniform(1) * most).long()
    rows = (torch.arange(height, device=numbers.device) + 0.5).view(1, 1, -1, 1)
    columns = (torch.arange(width, device=numbers.device) + 0.5).view(1, 1, 1, -1)
    tall, wide = (unit * torch.lerp(*_ends(side, u), u) for u in numbers[:, :, :2].unbind(dim=2))
    top, left = (height - tall) * numbers[:, :, 2], (width - wide) * numbers[:, :, 3]
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    inside &= (torch.arange(most, device=count.device) < count)[:, :, None, None]
    return inside.any(dim=1, keepdim=True).to(numbers.dtype)


def _ends(ends: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor]:
    least, most = ends
    return torch.full_like(like, least), torch.full_like(like, most)


def _distance(rows: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of all places to the segments from a to b, (N, 2) each: (N, H, W)."""
    along = b - a
    down = rows[None, :, None] - a[:, :1, None]  # (N, H, 1)
    right = columns[None, None, :] - a[:, 1:, None]  # (N, 1, W)
    length = along.square().sum(dim=1).clamp(min=1e-12)[:, None, None]
    u, v = along[:, :1, None], along[:, 1:, None]
    share = ((down * u + right * v) / length).clamp(0.0, 1.0)
    return (down - share * u).square() + (right - share * v).square()
