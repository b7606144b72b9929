"""PatchGAN: a discriminator that judges every patch of a picture by itself.

Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv
1611.07004, section 3.2.2 and appendix 6.1.2.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from faussaire.nn.fused import InstanceNormAct2d


class PatchDiscriminator(nn.Module):
    """Pictures (N, C, H, W), and those beside them (N, K, H, W) or None, to logits (N, 1, h, w).

    4x4 convolutions, `halvings` of them with stride 2: C64-C128-C256-C512 of the paper has three
    halvings, and each logit sees 70x70 pixels; 34 with two, 16 with one, 142 with four. Leaky ReLU of
    slope .2; instance normalisation but in the first layer and the last. Pictures must have
    `3 * 2 ** halvings` pixels a side, or no logit is left.

    Args:
        channels: of the pictures.
        beside: channels of the pictures beside them (what they were made from); 0: none.
        width: channels of the first layer; they double with each halving, up to eight times.
        halvings: layers of stride 2.
        norm: whether layers are normalised.
    """

    def __init__(
        self, channels: int, beside: int, width: int, halvings: int, *, norm: bool = True
    ) -> None:
        super().__init__()
        widths = [min(2**step, 8) * width for step in range(halvings + 1)]
        self.look = nn.Conv2d(channels + beside, widths[0], 4, stride=2, padding=1)
        layers: list[nn.Module] = [nn.LeakyReLU(0.2)]
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            stride = 2 if index < halvings - 1 else 1
            layers.append(nn.Conv2d(narrow, wide, 4, stride=stride, padding=1, bias=not norm))
            layers.append(InstanceNormAct2d(wide, 0.2) if norm else nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.body = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        return self.body(self.look(x if beside is None else torch.cat([beside, x], dim=1)))


def per_picture(logits: Tensor) -> Tensor:
    """One logit a picture, (N,): the mean of those of its patches, where it has several."""
    return torch.flatten(logits, 1).mean(dim=1) if logits.dim() > 1 else logits


def fitting_halvings(side: int, wanted: int) -> int:
    """As many halvings as wanted, or as many as leave some logits of a picture of this side."""
    return max(1, min(wanted, side.bit_length() - 4))


def initialise(module: nn.Module) -> None:
    """Weights from N(0, .02), gains from N(1, .02), biases 0: appendix 6.2 of arXiv 1611.07004."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, InstanceNormAct2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
