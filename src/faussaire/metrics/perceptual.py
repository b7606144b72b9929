"""Perceptual distance: how different two pictures look to a network that knows pictures.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv
1801.03924, equation 1 with all weights 1: at each stage of a network the channels of every place are
brought to length 1, and the squared differences are summed over channels, averaged over places, and
summed over stages. (LPIPS proper weighs the channels by numbers learnt from people's judgement.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.metrics import squeezenet
from faussaire.metrics.weights import SQUEEZENET_1_1, checksum, fill, obtain, read_tensors

_LARGEST = 256  # pixels a side; Karras 2019 shrinks larger pictures to this


class Staged(Protocol):
    """A network that shows its stages."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps, each (N, C, h, w)."""
        ...


@dataclass(frozen=True)
class PerceptualDistance:
    """Callable on two sets of pictures, float32 (N, C, H, W) in [-1, 1]; gives (N,).

    Attributes:
        net: the network.
        name, weights: for provenance.
        mean, deviation: of its inputs, by channel, for pictures in [0, 1].
    """

    net: Staged
    name: str
    weights: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(len(a), device=a.device)
        for one, other in zip(*(self.net.stages(self._input(x)) for x in (a, b)), strict=True):
            difference = _unit(one) - _unit(other)
            total = total + difference.square().sum(1).mean((1, 2))
        return total

    def _input(self, x: Tensor) -> Tensor:
        x = (x.clamp(-1.0, 1.0) + 1.0) / 2.0
        if x.shape[1] == 4:  # as extractors see transparent pictures: on white
            x = x[:, :3] * x[:, 3:] + (1.0 - x[:, 3:])
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        side = max(x.shape[2:])
        if side > _LARGEST:
            size = tuple(max(1, round(s * _LARGEST / side)) for s in x.shape[2:])
            x = F.interpolate(x, size, mode="area")
        mean, deviation = (torch.tensor(v, device=x.device) for v in (self.mean, self.deviation))
        return (x - mean[:, None, None]) / deviation[:, None, None]


def open_perceptual(weights: Path | None = None, device: str = "cpu") -> PerceptualDistance:
    """The distance with SqueezeNet 1.1.

    Args:
        weights: a file or folder with its weights.
        device: where it runs.

    Raises:
        UserError: the weights cannot be had.
    """
    if weights is not None and weights.is_file() and weights.name not in SQUEEZENET_1_1.names:
        weights = None  # the file of another extractor
    path = obtain(SQUEEZENET_1_1, weights)
    state = read_tensors(path)
    net = squeezenet.SqueezeNet.like("1.1", state)
    fill(net, state, path, f"Give the weights of SqueezeNet 1.1: {SQUEEZENET_1_1.url}.")
    net.eval().requires_grad_(False).to(device)
    return PerceptualDistance(
        net, "squeezenet1.1-stages", checksum(path)[:16], squeezenet.MEAN, squeezenet.DEVIATION
    )


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.norm(dim=1, keepdim=True) + 1e-10)
