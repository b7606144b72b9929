"""Multi-scale structural similarity, and the variety of samples that it measures.

Wang, Simoncelli and Bovik 2003, "Multi-Scale Structural Similarity for Image Quality Assessment",
equation 7:

    MS-SSIM(x, y) = l_M^w_M  prod_{j=1..M} (c_j s_j)^w_j

with luminance l, contrast c and structure s (equations 1 to 3, in a Gaussian window of 11x11 pixels
and 1.5 pixels deviation, wherever it lies wholly inside) at M = 5 scales, each half the one before.
Odena, Olah and Shlens 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs", arXiv
1610.09585, section 4.2, take the mean over random pairs of samples of one class: the lower, the more
they vary; read it beside the value of real pictures. Samples that are all noise are low, too.
"""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics.inputs import require_pictures

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_PIXELS = 1 << 18
"""Of a block of pairs that are compared at once, channels counted."""


class MsSsimPairs:
    """MS-SSIM of pairs from a sequence of pictures in random order: the first with the second, the
    third with the fourth, and so on. No picture is held longer than its block.

    Args:
        shape: (H, W, C) of the pictures.
        pairs: how many to compare; what comes later is passed over.

    Attributes:
        scales: M, of which the figure's meaning depends.

    Raises:
        UserError: pictures smaller than the window.
    """

    def __init__(self, shape: tuple[int, int, int], *, pairs: int = 5_000) -> None:
        self.shape, self.scales = shape, scales_of(*shape[:2])
        self._limit = pairs
        self._values: list[float] = []
        self._single = torch.empty(0, *shape, dtype=torch.uint8)

    def add(self, pictures: np.ndarray | Tensor) -> None:
        """Look at a block of pictures, uint8 (N, H, W, C).

        Raises:
            UserError: another type or shape.
        """
        x = require_pictures(pictures, self.shape)
        room = 2 * (self._limit - self.count)
        x = torch.cat([self._single.to(x.device), x])[:room]
        whole = len(x) - len(x) % 2
        self._single = x[whole:].clone()
        if whole:
            self._values += ms_ssim(x[0:whole:2], x[1:whole:2]).tolist()

    __call__ = add

    @property
    def count(self) -> int:
        """Pairs compared so far."""
        return len(self._values)

    @property
    def mean(self) -> float:
        """Mean over pairs.

        Raises:
            UserError: no pair was shown.
        """
        if not self._values:
            raise UserError(
                "No two pictures were shown.", "MS-SSIM compares pairs: give at least 2."
            )
        return fmean(self._values)

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None for a single pair."""
        return stdev(self._values) / self.count**0.5 if self.count > 1 else None


def diversity(pictures: np.ndarray | Tensor, *, pairs: int = 5_000, seed: int = 0) -> MsSsimPairs:
    """MS-SSIM of random pairs of different pictures; a picture may be in several pairs.

    Args:
        pictures: uint8 (N, H, W, C), N >= 2; of one class, where there are classes.
        pairs: how many to draw.
        seed: of the draws.

    Raises:
        UserError: fewer than 2 pictures, or smaller than the window.
    """
    _, height, width, channels = pictures.shape
    found = MsSsimPairs((height, width, channels), pairs=pairs)
    x = require_pictures(pictures, found.shape)
    if len(x) < 2:
        raise UserError(
            f"{len(x)} pictures make no pair.", "MS-SSIM compares pairs: give at least 2."
        )
    draws = torch.Generator().manual_seed(seed)
    first = torch.randint(len(x), (pairs,), generator=draws)
    second = torch.randint(len(x) - 1, (pairs,), generator=draws)
    second += second >= first
    step = max(1, _PIXELS // x[0].numel())
    for rows in torch.stack([first, second], dim=1).split(step):
        found.add(x[rows.flatten().to(x.device)])
    return found


def scales_of(height: int, width: int) -> int:
    """How many scales, at most 5, keep the 11x11 window inside the picture: 2 for 32x32, 3 for
    64x64, 4 for 128x128, 5 from 161x161.

    Raises:
        UserError: not even one.
    """
    side, scales = min(height, width), 0
    while scales < len(WEIGHTS) and side >= _WINDOW:
        scales, side = scales + 1, (side + 1) // 2
    if scales == 0:
        raise UserError(
            f"MS-SSIM needs pictures of at least {_WINDOW}x{_WINDOW}, not {height}x{width}.",
            "Leave out ms-ssim, or choose a higher resolution.",
        )
    return scales


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of pairs, (N,) float64 in [0, 1]: the mean over channels.

    Smaller pictures have fewer scales (`scales_of`), whose weights are brought to the sum 1. A scale
    at which contrast and structure are below 0 on average (one picture being the other's negative)
    counts as 0, as in public implementations: the power of a negative number is not real.

    Args:
        x, y: uint8 (N, H, W, C), N >= 1.
    """
    scales = scales_of(*x.shape[1:3])
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    weights /= weights.sum()
    step = max(1, _PIXELS // x[0].numel())
    blocks = []
    for a, b in zip(x.split(step), y.split(step), strict=True):
        planes = (v.permute(0, 3, 1, 2).float() for v in (a, b))
        blocks.append(_product(*planes, weights=weights.tolist()))
    return torch.cat(blocks)


def _product(x: Tensor, y: Tensor, weights: list[float]) -> Tensor:
    """Equation 7 on (N, C, H, W) in 0..255 -> (N,) float64."""
    product = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(weights):
        last = scale == len(weights) - 1
        luminance, structure = compare(x, y)
        local = luminance * structure if last else structure
        product *= local.mean(dim=(2, 3), dtype=torch.float64).clamp(min=0.0) ** weight
        if not last:
            x, y = (F.avg_pool2d(v, 2, ceil_mode=True) for v in (x, y))
    return product.mean(dim=1)


def compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """l and c s of equations 1 to 3 with C3 = C2 / 2, at each place of the window.

    x, y: (N, C, H, W) in 0..255 -> both (N, C, H - 10, W - 10).
    """
    # Squares are taken about each picture's own mean, where their difference loses the fewest digits.
    x_shift, y_shift = (v.mean(dim=(2, 3), keepdim=True) for v in (x, y))
    x, y = x - x_shift, y - y_shift
    mean_x, mean_y, xx, yy, xy = (_window(v) for v in (x, y, x * x, y * y, x * y))
    variances = xx - mean_x.square() + yy - mean_y.square()
    structure = (2.0 * (xy - mean_x * mean_y) + _C2) / (variances + _C2)
    mean_x, mean_y = mean_x + x_shift, mean_y + y_shift
    luminance = (2.0 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return luminance, structure


def _window(x: Tensor) -> Tensor:
    """Gaussian mean over the window, where it fits: (N, C, H, W) -> (N, C, H - 10, W - 10).

    Two products with banded matrices: a convolution with few channels took 3 to 30 times as long on
    a CPU at 32x32 and 64x64, and as long at 256x256.
    """
    height, width = x.shape[2:]
    down, across = (_band(side).to(x.device) for side in (height, width))
    rows = x.reshape(-1, width) @ across.T
    return (down @ rows.view(-1, height, width - _WINDOW + 1)).view(*x.shape[:2], len(down), -1)


def _band(side: int) -> Tensor:
    """(side - 10, side): each row has the window at its place."""
    places = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    taps = torch.exp(-places.square() / (2.0 * _SIGMA**2))
    inside = side - _WINDOW + 1
    band = torch.zeros(inside, side, dtype=torch.float64)
    at = torch.arange(inside)[:, None] + torch.arange(_WINDOW)
    return band.scatter_(1, at, (taps / taps.sum()).expand(inside, -1)).float()
