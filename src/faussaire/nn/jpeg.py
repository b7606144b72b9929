"""JPEG as a file would have it: colours halved, 8x8 cosine transforms, rounded to a quality's steps.

ITU-T T.81 (1992), baseline; the tables are those of its annex K, scaled by quality as the Independent
JPEG Group's library does. What the file's coding loses nothing by (Huffman codes) is left out. Tested
against Pillow.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.nn.sizes import multiple_of

# Tables K.1 and K.2.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# JFIF 1.02: Y, Cb - 128, Cr - 128 of RGB.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Pictures as they come back from a JPEG file of this quality, chroma halved (4:2:0).

    Args:
        x: (N, 1 or 3, H, W) in [0, 1], rounded to 8 bits first.
        quality: 1 to 100.

    Returns:
        The same shape, in steps of 1/255. Without gradient: rounding has none.
    """
    height, width = x.shape[2:]
    step = 8 if x.shape[1] == 1 else 16
    rows, columns = multiple_of(height, width, step)
    values = (x.detach().clamp(0.0, 1.0) * 255.0).round()
    # What lies beyond the edge is a copy of it: libjpeg pads likewise.
    values = F.pad(values, (0, columns - width, 0, rows - height), mode="replicate")
    luminance, chrominance = (_steps(table, quality) for table in (_LUMINANCE, _CHROMINANCE))
    if x.shape[1] == 1:
        back = _coded(values - 128.0, luminance) + 128.0
    else:
        matrix = torch.tensor(_TO_YCC, device=x.device)
        ycc = torch.einsum("ij,njhw->nihw", matrix, values).round()
        y = _coded(ycc[:, :1] - 128.0, luminance) + 128.0
        chroma = _coded(F.avg_pool2d(ycc[:, 1:], 2).round(), chrominance)
        chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
        inverse = torch.linalg.inv(matrix)
        back = torch.einsum("ij,njhw->nihw", inverse, torch.cat([y, chroma], dim=1))
    return back[:, :, :height, :width].round().clamp(0.0, 255.0) / 255.0


def _steps(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """(8, 8): what coefficients are rounded to multiples of."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG's qualities are 1 to 100, not {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(table) * percent + 50) // 100
    return scaled.clamp(1, 255).float()


def _coded(x: Tensor, steps: Tensor) -> Tensor:
    """(N, C, H, W) around 0, its 8x8 squares through the transform, rounded, and back."""
    n, c, height, width = x.shape
    cosines, steps = _cosines().to(x.device), steps.to(x.device)
    blocks = x.reshape(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = cosines @ blocks @ cosines.mT
    blocks = cosines.mT @ ((coefficients / steps).round() * steps) @ cosines
    back = blocks.transpose(3, 4).reshape(n, c, height, width)
    return back.round().clamp(-128.0, 127.0)


@cache
def _cosines() -> Tensor:
    """The orthonormal transform, (8, 8): T.81, A.3.3."""
    place, wave = torch.arange(8.0)[None], torch.arange(8.0)[:, None]
    rows = torch.cos((2.0 * place + 1.0) * wave * math.pi / 16.0) / 2.0
    rows[0] /= math.sqrt(2.0)
    return rows
