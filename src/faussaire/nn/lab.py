"""CIE L*a*b*: lightness apart from colour, with differences about as large as they look.

CIE 15:2004, sections 8.2.1 (CIELAB) and IEC 61966-2-1:1999 (sRGB), for the white D65 of the two-degree
observer, XYZ = (0.95047, 1, 1.08883). All functions are differentiable and work in the dtype given.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Linear sRGB to XYZ (IEC 61966-2-1, section 5.2), a row for each of X, Y, Z, to more digits.
RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
#: XYZ of white: what the rows above sum to, so that greys have no colour at all.
WHITE = tuple(sum(row) for row in RGB_TO_XYZ)

_DELTA = 6.0 / 29.0  # below delta^3 the cube root of CIELAB is a straight line


def linear(x: Tensor) -> Tensor:
    """sRGB values in [0, 1] as intensities in [0, 1]."""
    # What `where` does not take has a gradient, too: it must be finite.
    curve = ((x.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(x <= 0.04045, x / 12.92, curve)


def gamma(x: Tensor) -> Tensor:
    """Intensities as sRGB values, the inverse of `linear`; negative ones stay negative."""
    curve = 1.055 * x.clamp(min=0.0031308).pow(1.0 / 2.4) - 0.055
    return torch.where(x <= 0.0031308, 12.92 * x, curve)


def rgb_to_lab(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W), sRGB in [-1, 1], to L* in [0, 100], a* and b*, (N, 3, H, W).

    L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)), X, Y, Z over the white's, with f
    the cube root, and t / (3 delta^2) + 4 / 29 below delta^3, delta = 6 / 29. In sRGB a* lies between
    -87 and 99, b* between -108 and 95.
    """
    xyz = _mixed(_matrix(x), linear((x + 1.0) / 2.0))
    curve = xyz.clamp(min=_DELTA**3).pow(1.0 / 3.0)
    f = torch.where(xyz > _DELTA**3, curve, xyz / (3.0 * _DELTA**2) + 4.0 / 29.0)
    fx, fy, fz = f.unbind(dim=1)
    return torch.stack([116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse of `rgb_to_lab`, cut to [-1, 1]: colours that sRGB lacks become others.

    See `in_gamut` for the way that keeps lightness and hue.
    """
    return (2.0 * gamma(_intensities(lab)) - 1.0).clamp(-1.0, 1.0)


@torch.no_grad()
def in_gamut(lab: Tensor, steps: int = 12) -> Tensor:
    """The same (N, 3, H, W), less colourful where sRGB has no such colour: L* and hue stay.

    a* and b* are scaled by the largest number up to 1 that brings the colour into the cube, found by
    halving an interval; grey of this lightness is in it.
    """
    outside = _excess(lab) > 0.0  # (N, H, W)
    if not outside.any():
        return lab
    rows = lab.permute(0, 2, 3, 1)[outside]  # (K, 3)
    inner, outer = torch.zeros_like(rows[:, :1]), torch.ones_like(rows[:, :1])
    for _ in range(steps):
        middle = (inner + outer) / 2.0
        tried = torch.cat([rows[:, :1], middle * rows[:, 1:]], dim=1)
        out = (_excess(tried[:, :, None, None]) > 0.0).reshape(-1, 1)
        inner, outer = torch.where(out, inner, middle), torch.where(out, middle, outer)
    found = lab.permute(0, 2, 3, 1).clone()
    found[outside] = torch.cat([rows[:, :1], inner * rows[:, 1:]], dim=1)
    return found.permute(0, 3, 1, 2).contiguous()


def _excess(lab: Tensor) -> Tensor:
    """By how much intensities leave [0, 1] beyond rounding, (N, H, W)."""
    rgb = _intensities(lab)
    return torch.maximum(-rgb, rgb - 1.0).amax(dim=1) - 1e-5


def _intensities(lab: Tensor) -> Tensor:
    """Linear RGB (N, 3, H, W) of Lab, in [0, 1] or outside."""
    lightness, a, b = lab.unbind(dim=1)
    fy = (lightness + 16.0) / 116.0
    f = torch.stack([fy + a / 500.0, fy, fy - b / 200.0], dim=1)
    xyz = torch.where(f > _DELTA, f.pow(3), 3.0 * _DELTA**2 * (f - 4.0 / 29.0))
    return _mixed(torch.linalg.inv(_matrix(lab)), xyz)


def _matrix(like: Tensor) -> Tensor:
    """Linear RGB to XYZ over the white's, (3, 3)."""
    exact = torch.tensor(RGB_TO_XYZ, dtype=torch.float64)
    exact = exact / torch.tensor(WHITE, dtype=torch.float64)[:, None]
    return exact.to(like.device, like.dtype)


def _mixed(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, x)
