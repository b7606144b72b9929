"""What every statistic asks of feature vectors and pictures before it trusts them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from faussaire.core.errors import UserError

_BLOCK = 4096


def require_features(features: Tensor, least: int = 2) -> Tensor:
    """The same vectors, on a device that has float64.

    Args:
        features: (N, D), floating.
        least: how many vectors the statistic needs.

    Raises:
        UserError: another shape, NaN or infinity, or fewer than `least` vectors.
    """
    if features.dim() != 2 or not features.is_floating_point():
        raise UserError(
            f"Features must be floating-point (N, D), not {features.dtype} {tuple(features.shape)}.",
            "Give one vector for each picture.",
        )
    if len(features) < least:
        raise UserError(
            f"{len(features)} feature vectors are too few: this statistic needs {least}.",
            "Measure more pictures.",
        )
    for start in range(0, len(features), _BLOCK):
        good = features[start : start + _BLOCK].isfinite().all(dim=1)
        if not bool(good.all()):
            row = start + int(good.logical_not().nonzero()[0, 0])
            raise UserError(
                f"The feature vector of picture {row:,} holds NaN or infinity.",
                "Look at that picture and at the extractor's weight file.",
            )
    return features.cpu() if features.device.type == "mps" else features  # MPS has no float64


def require_same_space(x: Tensor, y: Tensor) -> None:
    """Refuse vectors of different lengths.

    Raises:
        UserError: with both lengths.
    """
    if x.shape[-1] != y.shape[-1]:
        raise UserError(
            f"The features have {x.shape[-1]:,} and {y.shape[-1]:,} dimensions.",
            "Take both from one extractor.",
        )


def require_pictures(pictures: np.ndarray | Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The same pictures as a tensor.

    Args:
        pictures: uint8 (N, H, W, C).
        shape: the (H, W, C) that they should have.

    Raises:
        UserError: another type or shape.
    """
    if isinstance(pictures, np.ndarray):
        # torch warns of arrays that it could not write to, such as mapped files.
        pictures = torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())
    if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1:] != shape:
        raise UserError(
            f"Pictures must be uint8 (N, {', '.join(map(str, shape))}), not {pictures.dtype} "
            f"{tuple(pictures.shape)}.",
            "Bring all pictures to one size and to the same colours.",
        )
    return pictures
