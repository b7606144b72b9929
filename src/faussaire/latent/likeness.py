"""How like two pictures are: in pixels, and through a frozen network that knows natural pictures.

The perceptual distance is equation 1 of Zhang et al. 2018, "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric" (arXiv 1801.03924), with all weights 1: at each layer the channels of
every place are brought to length 1, and squared differences are summed over channels and averaged over
places. Its network is VGG-19 where that file is here, else SqueezeNet 1.1; the papers' LPIPS weighs
channels by numbers learnt from people's judgement, for VGG-16.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.device import precise
from faussaire.data.parallel import Progress
from faussaire.metrics.maps import FeatureMaps, choose, open_maps
from faussaire.metrics.weights import Unavailable
from faussaire.nn.degrade import rgb

LAYERS = {
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4"),
    "squeezenet1.1": ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"),
}
"""By network: the last of each block, or as LPIPS looks through SqueezeNet."""

LEAST_SIGHT = 64
"""Pixels of the smaller side that the network is shown at least: of smaller pictures nothing is left."""
MOST_SIGHT = 256
"""And at most: larger pictures are averaged down (arXiv 1912.04958, appendix D)."""


class Likeness(nn.Module):
    """Distances of pictures, differentiable.

    Args:
        maps: the network; None: pixels alone.
    """

    def __init__(self, maps: FeatureMaps | None) -> None:
        super().__init__()
        self.maps = maps

    @property
    def name(self) -> str:
        """Of the network, for records."""
        return "none" if self.maps is None else self.maps.name

    def seen(self, x: Tensor) -> list[Tensor]:
        """What there is to compare of pictures (N, C, H, W) in [-1, 1]; nothing without a network."""
        if self.maps is None:
            return []
        x = rgb(x)
        side = min(x.shape[2:])
        if side < LEAST_SIGHT or side > MOST_SIGHT:
            factor = min(max(side, LEAST_SIGHT), MOST_SIGHT) / side
            size = [max(1, round(s * factor)) for s in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        with precise():
            return [_unit(found) for found in self.maps(x).values()]

    def perceptual(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distances (N,) of what was `seen`; 0 without a network."""
        if not a:
            return torch.zeros(())
        parts = [(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(parts).sum(0)


def pixels(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of each picture, (N,), of pictures in [-1, 1]."""
    return (a - b).square().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Decibels, (N,), of pictures in [-1, 1]: 10 log10 of 4 over the mean squared difference."""
    return 10.0 * torch.log10(4.0 / pixels(a, b).clamp(min=1e-10))


def open_likeness(
    name: str = "auto",
    *,
    weights: Path | None = None,
    device: str = "cpu",
    note: Callable[[str], None] = lambda sentence: None,
    progress: Progress | None = None,
) -> Likeness:
    """Distances through a network, on a device.

    Args:
        name: `vgg19`, `squeezenet1.1`, `none`, or `auto`: the first of these that can be had.
        weights: a file or a folder with its weights.
        device: where to put it.
        note: hears, in a sentence, that `auto` did without.
        progress: called as progress(what, done, total) during a download.

    Raises:
        UserError: the one asked for cannot be had.
    """
    if name == "none":
        return Likeness(None)
    try:
        found, path = choose(name, weights=weights, note=lambda _: None, progress=progress)
    except Unavailable as error:
        if name != "auto":
            raise
        note(f"Pictures are compared by pixels alone, which blurs what is found: {error.cause}")
        return Likeness(None)
    net = Likeness(open_maps(found, path, LAYERS[found]))
    return net.to(device).eval().requires_grad_(False)


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()
