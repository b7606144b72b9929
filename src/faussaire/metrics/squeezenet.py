"""SqueezeNet 1.0 and 1.1: a small network of natural pictures, with features and perceptual stages.

Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv
1602.07360, table 1; version 1.1 is the authors' later variant with a smaller first layer and earlier
pools. Attributes are named so that torchvision's weight files load as they are. Weights are 3 to
5 MB, so this is the extractor for where the 95 MB of Inception cannot be had; its figures compare
only with figures of the same network. It runs in float32: bf16 is 1.6 times as fast on a CPU with
AMX, but moved Fréchet distances by 0.05 to 0.19 % (of emoji, and of halves of Fashion-MNIST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 224  # pixels a side
LEAST_SIDE = 21  # pixels, of which the third pooling leaves one
FEATURES = 512
CLASSES = 1000
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]

Version = Literal["1.0", "1.1"]

POOL = "pool"
# Filters, kernel and padding of the first convolution (stride 2), then pools and fire modules
# fire2 to fire9 as (squeezed, expanded): expanded filters of 1x1 and as many of 3x3.
_FIRST = {"1.0": (96, 7), "1.1": (64, 3)}
_LAYERS: dict[str, tuple[str | tuple[int, int], ...]] = {
    "1.0": (POOL, (16, 64), (16, 64), (32, 128), POOL,
            (32, 128), (48, 192), (48, 192), (64, 256), POOL, (64, 256)),
    "1.1": (POOL, (16, 64), (16, 64), POOL, (32, 128), (32, 128), POOL,
            (48, 192), (48, 192), (64, 256), (64, 256)),
}  # fmt: skip
# Where LPIPS (Zhang et al. 2018, arXiv 1801.03924) taps 1.1: after the first convolution, fire3 and
# fire5, then fire6 to fire9. The same layers by name are tapped in 1.0, which LPIPS has no heads for.
_TAPS = {"1.0": (1, 4, 7, 8, 9, 10, 12), "1.1": (1, 4, 7, 9, 10, 11, 12)}


class Fire(nn.Module):
    """Squeeze by 1x1, then expand by 1x1 and 3x3 side by side: (N, C, H, W) -> (N, 2 e, H, W)."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: on a CPU a third of the time went into fresh memory for rectified copies.
        x = F.relu(self.squeeze(x), inplace=True)
        sides = (F.relu(side(x), inplace=True) for side in (self.expand1x1, self.expand3x3))
        return torch.cat(tuple(sides), 1)


class SqueezeNet(nn.Module):
    """Features, class logits and stages of pictures.

    Args:
        version: `1.0` or `1.1`.
        classes: K, 0 for a network without its classifier.
    """

    def __init__(self, version: Version = "1.1", classes: int = 0) -> None:
        super().__init__()
        channels, kernel = _FIRST[version]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, kernel, stride=2), nn.ReLU(inplace=True)]
        for layer in _LAYERS[version]:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            else:
                layers.append(Fire(channels, *layer))
                channels = 2 * layer[1]
        self.features = nn.Sequential(*layers)
        self.classifier = None
        if classes:  # torchvision's index 0 is a dropout, which does nothing here
            self.classifier = nn.Sequential(nn.Identity(), nn.Conv2d(FEATURES, classes, 1))
        self._taps = _TAPS[version]

    @classmethod
    def like(cls, version: Version, state: Mapping[str, Tensor]) -> SqueezeNet:
        """An empty network that a state dict fits: with a classifier where the state has one."""
        head = state.get("classifier.1.bias")
        return cls(version, 0 if head is None else len(head))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, 512) and logits (N, K), None without a classifier.

        The features are the spatial mean of the last stage; the logits the spatial mean of the
        rectified class maps, as the network was trained: none is negative.

        Args:
            x: (N, 3, H, W) RGB in [0, 1], minus MEAN, over DEVIATION; H and W from LEAST_SIDE; it was
                trained with 224.
        """
        maps = self.features(x)
        logits = None if self.classifier is None else F.relu(self.classifier(maps)).mean((2, 3))
        return maps.mean((2, 3)), logits

    def stages(self, x: Tensor) -> list[Tensor]:
        """The 7 feature maps that LPIPS compares, from fine to coarse, each (N, C, h, w).

        C is 64 (96 in version 1.0), 128, 256, 384, 384, 512, 512.
        """
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._taps:
                found.append(x)
        return found
