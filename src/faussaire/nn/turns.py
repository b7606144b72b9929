"""Pictures turned by quarters, and by how many: what self-supervision by rotation asks."""

from __future__ import annotations

import torch
from torch import Tensor

QUARTERS = 4


def turned(images: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Each picture turned once: as many by 0, 90, 180 and 270 degrees, anticlockwise.

    Row i is turned by (first + i) mod 4 quarters, which the rows of a batch's parts agree on; the rows
    come back sorted by that, not in their order.

    Args:
        images: (N, C, S, S).
        first: the first row's number in its batch.

    Returns:
        (N, C, S, S), and the quarters, (N,) int64.
    """
    rows = [images[(quarter - first) % QUARTERS :: QUARTERS] for quarter in range(QUARTERS)]
    parts = [part.rot90(quarter, (2, 3)) for quarter, part in enumerate(rows)]
    counts = torch.tensor([len(part) for part in parts])
    quarters = torch.arange(QUARTERS).repeat_interleave(counts)
    return torch.cat(parts), quarters.to(images.device, non_blocking=True)


def turned_all_ways(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every picture turned in all four ways: (N, C, S, S) to (4N, C, S, S) and quarters (4N,) int64."""
    parts = [images.rot90(quarter, (2, 3)) for quarter in range(QUARTERS)]
    quarters = torch.arange(QUARTERS, device=images.device)
    return torch.cat(parts), quarters.repeat_interleave(len(images))
