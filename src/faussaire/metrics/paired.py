"""Figures of a picture beside the one that it should be: L1, PSNR, SSIM; and colours and detail.

Pictures are float32 (N, C, H, W) in [-1, 1] throughout; each function gives one number a picture,
(N,). Kept apart from figures of sets (FID and its like), which know no pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from faussaire.metrics.ms_ssim import compare
from faussaire.nn.degrade import grey


def luma_8_bit(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in the studio range, 16 to 235: (N, 1, H, W). Of grey pictures too.

    What super-resolution papers measure PSNR and SSIM on: Y = 16 + 65.481 R + 128.553 G + 24.966 B.
    """
    x = (x.float() + 1.0) / 2.0
    x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
    weights = torch.tensor([65.481, 128.553, 24.966], device=x.device).view(1, 3, 1, 1)
    return 16.0 + (x * weights).sum(dim=1, keepdim=True)


def l1(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference in units of the whole range, 0 to 1.

    Args:
        x, y: the pictures.
        mask: (N, 1, H, W), 1 where it counts; None: everywhere.
    """
    return _mean((x - y).abs() / 2.0, mask)


def psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """10 log10(peak^2 / mean squared difference) in dB; infinite for equal pictures."""
    error = _mean(((x - y) / 2.0).square(), mask)
    return -10.0 * torch.log10(error)


def psnr_luma(x: Tensor, y: Tensor, border: int = 0) -> Tensor:
    """PSNR of `luma_8_bit`, peak 255, `border` pixels left out on each side."""
    a, b = (_inner(luma_8_bit(v), border) for v in (x, y))
    return 10.0 * torch.log10(255.0**2 / (a - b).square().mean(dim=(1, 2, 3)))


def ssim_luma(x: Tensor, y: Tensor, border: int = 0) -> Tensor:
    """SSIM of `luma_8_bit` with a Gaussian window of 11 pixels and deviation 1.5.

    Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity", equation 13.
    """
    a, b = (_inner(luma_8_bit(v), border) for v in (x, y))
    luminance, structure = compare(a, b)
    return (luminance * structure).mean(dim=(1, 2, 3))


def colourfulness(x: Tensor, eps: float = 0.0) -> Tensor:
    """How colourful pictures are: 0 for grey ones, about 40 for photographs.

    Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", the measure M^(3): with
    rg = R - G and yb = (R + G) / 2 - B in 0..255, the length of their deviations plus .3 times that of
    their means.
    """
    red, green, blue = ((x[:, :3] + 1.0) * 127.5).unbind(dim=1)
    opponents = torch.stack([red - green, 0.5 * (red + green) - blue], dim=1)
    spread = (opponents.var(dim=(2, 3), unbiased=False).sum(dim=1) + eps).sqrt()
    return spread + 0.3 * (opponents.mean(dim=(2, 3)).square().sum(dim=1) + eps).sqrt()


def gradient_energy(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels' luma, in 0..1: how much detail there is."""
    y = (grey(x) + 1.0) / 2.0
    across, down = y.diff(dim=3).square(), y.diff(dim=2).square()
    return across.mean(dim=(1, 2, 3)) + down.mean(dim=(1, 2, 3))


def _inner(x: Tensor, border: int) -> Tensor:
    return x[:, :, border : x.shape[2] - border, border : x.shape[3] - border] if border else x


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    counted = mask.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * mask).sum(dim=(1, 2, 3)) / counted.clamp(min=math.ulp(1.0))
