"""What is left of a picture, for those that are to be made from it: edges, grey, holes, few pixels."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Draws

#: Rec. 601, as grey pictures are made everywhere else.
LUMA = (0.299, 0.587, 0.114)


def degraded(kind: str, x: Tensor, draws: Draws) -> Tensor:
    """`edges`, `grey`, `mask` or `small` of pictures (N, C, H, W) in [-1, 1]; alpha is not looked at.

    Returns:
        (N, K, H, W) in [-1, 1], K as `degraded_channels` says.
    """
    if kind == "edges":
        return edges(x)
    if kind == "grey":
        return grey(x)
    if kind == "small":
        return small(x)
    if kind == "mask":
        hole = boxes(draws, x.shape[2], x.shape[3])
        return torch.cat([x * (1.0 - hole), 2.0 * hole - 1.0], dim=1)
    raise ValueError(f"there is no degradation {kind!r}")


def degraded_channels(kind: str, channels: int) -> int:
    """K of `degraded` for pictures with C channels; 0 for `none`."""
    return {"none": 0, "edges": 1, "grey": 1, "small": channels, "mask": channels + 1}[kind]


def grey(x: Tensor) -> Tensor:
    """Luma of (N, C, H, W), (N, 1, H, W)."""
    if x.shape[1] < 3:
        return x[:, :1]
    weights = torch.tensor(LUMA, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    return (x[:, :3] * weights).sum(dim=1, keepdim=True)


def rgb(x: Tensor) -> Tensor:
    """Pictures (N, 1, 3 or 4, H, W) in [-1, 1] as (N, 3, H, W): transparent ones lie on white."""
    if x.shape[1] == 4:
        return (x[:, :3] + 1.0) * (x[:, 3:] + 1.0) / 2.0 - x[:, 3:]
    return x.expand(-1, 3, -1, -1)


def edges(x: Tensor) -> Tensor:
    """Dark lines on white where the luma changes, (N, 1, H, W) in [-1, 1].

    The length of Sobel's gradient after a blur of one pixel; a change of a quarter of the whole
    range over a pixel, or more, is black.
    """
    luma = F.pad(grey(x), (2, 2, 2, 2), mode="replicate")
    tent = torch.tensor([1.0, 2.0, 1.0], device=x.device, dtype=x.dtype) / 4.0
    step = torch.tensor([-1.0, 0.0, 1.0], device=x.device, dtype=x.dtype) / 2.0
    blurred = F.conv2d(luma, torch.outer(tent, tent)[None, None])
    across = F.conv2d(blurred, torch.outer(tent, step)[None, None])
    down = F.conv2d(blurred, torch.outer(step, tent)[None, None])
    return 1.0 - 2.0 * (4.0 * torch.hypot(across, down)).clamp(max=1.0)


def small(x: Tensor, factor: int = 4) -> Tensor:
    """(N, C, H, W) averaged over squares of `factor` pixels and enlarged again."""
    size = (x.shape[2], x.shape[3])
    less = F.interpolate(x, size=tuple(max(1, side // factor) for side in size), mode="area")
    return F.interpolate(less, size=size, mode="bicubic", align_corners=False).clamp(-1.0, 1.0)


def boxes(draws: Draws, height: int, width: int, most: int = 3) -> Tensor:
    """Holes, (N, 1, H, W), 1 inside: one to `most` boxes of an eighth to half a side each."""
    numbers = draws.uniform(most, 5)[:, :, :, None, None]
    rows = (torch.arange(height, device=numbers.device) + 0.5).view(1, 1, -1, 1) / height
    columns = (torch.arange(width, device=numbers.device) + 0.5).view(1, 1, 1, -1) / width
    tall, wide = (0.125 + 0.375 * numbers[:, :, i] for i in (0, 1))
    top, left = ((1.0 - side) * numbers[:, :, i] for side, i in ((tall, 2), (wide, 3)))
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    # The first box is always there, each further one with probability 1/2.
    inside[:, 1:] &= numbers[:, 1:, 4] < 0.5
    return inside.any(dim=1, keepdim=True).to(numbers.dtype)


def shrunk(x: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) to (N, C, H / scale, W / scale), antialiased, as MATLAB and Pillow shrink.

    Keys's cubic with a = -1/2, as wide as `scale` asks: what papers on super-resolution shrink with.
    """
    return _resized(x, (x.shape[2] // scale, x.shape[3] // scale))


def enlarged(x: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) to (N, C, scale H, scale W) by the same cubic."""
    return _resized(x, (scale * x.shape[2], scale * x.shape[3]))


def rounded(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] with values that 8 bits can hold."""
    return (x.clamp(-1.0, 1.0).add(1.0) * 127.5).round() / 127.5 - 1.0


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Two matrix products, ten times as fast on a CPU as torch's own interpolation."""
    down, across = (
        _cubic(here, there).to(x.device) for here, there in zip(x.shape[2:], size, strict=True)
    )
    return down @ x @ across.mT


@lru_cache(maxsize=64)
def _cubic(length: int, to: int) -> Tensor:
    """(to, length): row i has the weights of the pixels that pixel i is made of."""
    # Not an inference tensor, nor one without data: it is kept for all callers. With `antialias`
    # torch's cubic has a = -1/2, without it has -3/4.
    with torch.inference_mode(False), torch.device("cpu"):
        lines = torch.eye(length, dtype=torch.float64)[None, None]
        how = {"mode": "bicubic", "align_corners": False, "antialias": True}
        return F.interpolate(lines, size=(to, length), **how)[0, 0].float()
