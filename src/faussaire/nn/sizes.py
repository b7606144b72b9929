"""Pictures of any size in networks that double: how often, from what, and what is cut in the end."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def doublings(height: int, width: int) -> int:
    """How often 4..7 pixels double to reach the smaller side: 2 at 16, 3 at 32, 4 at 64, 5 at 128."""
    return int(math.log2(min(height, width) / 4))


def multiple_of(height: int, width: int, step: int) -> tuple[int, int]:
    """The least (height, width) that covers this one and is divisible by `step`."""
    return -(-height // step) * step, -(-width // step) * step


def base_size(height: int, width: int, steps: int) -> tuple[int, int]:
    """The (height, width) that, doubled `steps` times, covers the picture: rounded up."""
    return -(-height // 2**steps), -(-width // 2**steps)


def cut(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of pictures (N, C, H, W), as (N, C, *size)."""
    height, width = size
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def filled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (N, C, H, W) with their edges repeated to (N, C, *size); `cut` gives them back."""
    down, right = size[0] - x.shape[2], size[1] - x.shape[3]
    if not down and not right:
        return x
    edges = (right // 2, right - right // 2, down // 2, down - down // 2)
    return F.pad(x, edges, mode="replicate")


def mirrored(x: Tensor, size: tuple[int, int]) -> Tensor:
    """As `filled`, but what is added mirrors the picture, as far as it reaches."""
    down, right = size[0] - x.shape[2], size[1] - x.shape[3]
    edges = (right // 2, right - right // 2, down // 2, down - down // 2)
    if edges[1] >= x.shape[3] or edges[3] >= x.shape[2]:
        return filled(x, size)
    return F.pad(x, edges, mode="reflect") if down or right else x
