"""SNGAN: residual networks with spectral normalisation; SAGAN's self-attention as a setting.

Spectral Normalization for Generative Adversarial Networks. Takeru Miyato, Toshiki Kataoka, Masanori
Koyama, Yuichi Yoshida. 2018. arXiv 1802.05957.

Every layer of the discriminator is divided by its largest singular value (equation 8), which bounds
the discriminator's Lipschitz constant by construction, without a penalty. The loss is the hinge
(equations 16 and 17); the networks are those of appendix B.4; Adam with rate 2e-4, beta1 0 and beta2
0.9, five discriminator steps for one of the generator, the rate falling to 0.

By class: cGANs with Projection Discriminator. Takeru Miyato, Masanori Koyama. 2018. arXiv 1802.05637.
The discriminator adds <V y, phi(x)> to its unconditional logit (equation 3 there); the generator's
batch norms have a gain and a bias for each class.

`attention`: Self-Attention Generative Adversarial Networks. Han Zhang, Ian Goodfellow, Dimitris
Metaxas, Augustus Odena. 2019. arXiv 1805.08318. In both networks each pixel looks at all others
(equations 1 to 3 there); the generator is spectrally normalised too, and one discriminator step at
four times the generator's rate takes the place of five (section 4). `--preset sagan` is this, by class.

Where this goes beyond the papers or leaves them:
- Any resolution from 16 up, non-square too: the number of doublings follows from the smaller side,
  and the generator's output is cropped where sides are not divisible. The paper's networks for 32 and
  for 128 pixels are the presets `cifar` and `imagenet`; the defaults are a narrower `imagenet`.
- By default one discriminator step at twice the generator's rate takes the place of five, and rates
  are twice the paper's: the generator then learns from every batch, which is what counts in a run of
  minutes or hours. The presets have the papers' steps and rates.
- Samples are made with averaged weights.
- As in the authors' code, weights begin as Glorot and Bengio's uniform, times sqrt(2) within residual
  branches; attention's keys and values are max-pooled, which SAGAN's code does and its text does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.config import check_range
from faussaire.core.family import Pictures
from faussaire.game import Asked, GameConfig, ImageGAN, LossName
from faussaire.nn.conditional import ConditionalBatchNormAct2d
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import base_size, cut, doublings
from faussaire.nn.spectral import converge, spectral
from faussaire.nn.turns import QUARTERS


@dataclass(frozen=True, kw_only=True)
class SNGANConfig(GameConfig):
    """Settings of SNGAN, besides those of every game.

    Attributes:
        latent: numbers in the noise vector z.
        width: channels of the generator's block next to the picture; they double with each halving
            of the resolution.
        max_width: where the doubling ends.
        discriminator_width: channels of the discriminator's first block; None: width.
        discriminator_max_width: where their doubling ends; None: max_width.
        plain_blocks: blocks at the discriminator's end that keep the resolution; those that halve it
            are as many fewer. The paper has 1, and 2 for 32 pixels.
        attention: resolution at which pixels attend to each other, in both networks; the nearest
            that the networks have is taken. 0: none. The paper has 32.
        generator_spectral: normalise the generator's layers too, as SAGAN does.
    """

    loss: LossName = "hinge"
    lr: float = 4e-4
    discriminator_lr: float | None = 8e-4
    lr_decay: Literal["none", "linear"] = "linear"
    beta1: float = 0.0
    beta2: float = 0.9
    latent: int = 128
    width: int = 32
    max_width: int = 128
    discriminator_width: int | None = None
    discriminator_max_width: int | None = None
    plain_blocks: int = 1
    attention: int = 0
    generator_spectral: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            latent=(1, 100_000),
            width=(1, 8192),
            max_width=(1, 65536),
            plain_blocks=(0, 8),
            attention=(0, 1024),
        )
        for name in ("discriminator_width", "discriminator_max_width"):
            if getattr(self, name) is not None:
                check_range(self, **{name: (1, 65536)})


def nearest_side(wanted: int, sides: list[int]) -> int | None:
    """Index of the side nearest to `wanted` as a ratio; None where nothing is wanted."""
    if not wanted:
        return None
    return min(range(len(sides)), key=lambda index: abs(math.log(sides[index] / wanted)))


class SelfAttention(nn.Module):
    """y = x + gamma W_v sum_j a_j h(x_j), a = softmax_j <f(x_i), g(x_j)>. SAGAN, equations 1 to 3.

    x, y: (N, C, H, W). f and g have C/8 channels, h has C/2; j goes over a grid pooled by two. gamma
    begins at 0: the network first learns without.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = max(1, channels // 8), max(1, channels // 2)
        self.query = spectral(nn.Conv2d(channels, inner, 1, bias=False))
        self.key = spectral(nn.Conv2d(channels, inner, 1, bias=False))
        self.value = spectral(nn.Conv2d(channels, half, 1, bias=False))
        self.out = spectral(nn.Conv2d(half, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # (N, C/8, HW)
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # (N, C/8, HW/4)
        value = F.max_pool2d(self.value(x), 2).flatten(2)  # (N, C/2, HW/4)
        weights = (query.transpose(1, 2) @ key).softmax(dim=2)  # (N, HW, HW/4), float32
        seen = value @ weights.transpose(1, 2).to(value.dtype)
        seen = seen.unflatten(2, x.shape[2:])
        return x + self.gamma.to(x.dtype) * self.out(seen)


class GeneratorBlock(nn.Module):
    """Batch norm, ReLU, nearest doubling, 3x3; batch norm, ReLU, 3x3; beside them 1x1 and doubling.

    (N, wide, H, W) to (N, narrow, 2H, 2W). The 1x1 convolution of the shortcut comes before the
    doubling, which gives the same for a quarter of the work.
    """

    def __init__(self, wide: int, narrow: int, condition_size: int) -> None:
        super().__init__()
        self.norm1 = norm(wide, condition_size)
        self.conv1 = nn.Conv2d(wide, narrow, 3, padding=1)
        self.norm2 = norm(narrow, condition_size)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.shortcut = nn.Conv2d(wide, narrow, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        given = () if condition is None else (condition,)
        y = self.conv1(double(self.norm1(x, *given)))
        y = self.conv2(self.norm2(y, *given))
        return y + double(self.shortcut(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, average pooling by two if `halve`; beside them pooling and 1x1.

    The first block has no ReLU before its first convolution: it would hide the dark half of the
    picture.
    """

    def __init__(self, narrow: int, wide: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        inner = wide if first else narrow
        self.conv1 = spectral(nn.Conv2d(narrow, inner, 3, padding=1))
        self.conv2 = spectral(nn.Conv2d(inner, wide, 3, padding=1))
        learnt = halve or narrow != wide
        self.shortcut = spectral(nn.Conv2d(narrow, wide, 1)) if learnt else None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first else F.relu(x)
        y = self.conv2(F.relu(self.conv1(y)))
        if self.halve:
            # Averaging and a 1x1 convolution commute, so the shortcut shrinks before it works.
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return y + (x if self.shortcut is None else self.shortcut(x))


class Generator(nn.Module):
    """Noise (N, latent) and conditions (N, K) or None to pictures (N, C, H, W) in [-1, 1]."""

    def __init__(self, config: SNGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        # Rounded up, so that the doubled size covers the picture; `forward` crops the rest.
        self.base = base_size(spec.height, spec.width, steps)
        widths = [min(config.max_width, config.width * 2**step) for step in reversed(range(steps))]
        size = spec.condition_size if config.conditional else 0
        self.project = nn.Linear(config.latent, widths[0] * self.base[0] * self.base[1])
        self.blocks = nn.ModuleList(
            GeneratorBlock(wide, narrow, size)
            for wide, narrow in zip([widths[0], *widths], widths, strict=False)
        )
        sides = [min(self.base) * 2 ** (step + 1) for step in range(steps)]
        self.attend_after = nearest_side(config.attention, sides)
        if self.attend_after is not None:
            self.attention = SelfAttention(widths[self.attend_after])
        self.norm = BatchNormAct2d(widths[-1])
        self.colour = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)
        if config.generator_spectral:
            for layer in weighted(self):
                if type(layer) in (nn.Conv2d, nn.Linear):  # attention has seen to its own
                    spectral(layer)
        initialise(self)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.project(z).unflatten(1, (-1, *self.base))
        x = x.contiguous(memory_format=torch.channels_last)
        for index, block in enumerate(self.blocks):
            x = block(x, condition)
            if index == self.attend_after:
                x = self.attention(x)
        x = torch.tanh(self.colour(self.norm(x)))
        return cut(x, self.size)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,).

    Or to logits of quarter turns, (N, 4), or to the sums of its last maps, (N, F).
    """

    def __init__(self, config: SNGANConfig, spec: Pictures) -> None:
        super().__init__()
        total = doublings(spec.height, spec.width) + 1
        halvings = max(1, total - config.plain_blocks)
        narrowest = config.discriminator_width or config.width
        widest = config.discriminator_max_width or config.max_width
        widths = [min(widest, narrowest * 2**step) for step in range(halvings)]
        widths += [widths[-1]] * (total - halvings)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(narrow, wide, halve=index < halvings, first=index == 0)
            for index, (narrow, wide) in enumerate(
                zip([spec.channels, *widths], widths, strict=False)
            )
        )
        sides = [min(spec.height, spec.width) // 2 ** (step + 1) for step in range(halvings)]
        self.attend_after = nearest_side(config.attention, sides)
        if self.attend_after is not None:
            self.attention = SelfAttention(widths[self.attend_after])
        self.classify = spectral(nn.Linear(widths[-1], 1))
        size = spec.condition_size if config.conditional else 0
        self.embed = spectral(nn.Linear(size, widths[-1], bias=False)) if size else None
        self.turns = spectral(nn.Linear(widths[-1], QUARTERS)) if config.rotation else None
        initialise(self)

    def forward(
        self, x: Tensor, condition: Tensor | None = None, asked: Asked = "logits"
    ) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == self.attend_after:
                x = self.attention(x)
        features = F.relu(x).float().sum(dim=(2, 3))
        if asked == "features":
            return features
        if asked == "turns":
            assert self.turns is not None
            return self.turns(features)
        logits = self.classify(features)[:, 0]
        if self.embed is not None and condition is not None:
            logits = logits + (self.embed(condition) * features).sum(dim=1)
        return logits


def norm(channels: int, condition_size: int) -> nn.Module:
    """Batch norm and ReLU, with a gain and a bias for each condition where there are any."""
    if condition_size:
        return ConditionalBatchNormAct2d(channels, condition_size)
    return BatchNormAct2d(channels)


def double(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), every pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def weighted(net: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """All convolutions and linear layers but those that give conditional batch norm its gains."""
    modulating = {
        layer
        for block in net.modules()
        if isinstance(block, ConditionalBatchNormAct2d)
        for layer in (block.gain, block.bias)
    }
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in modulating
    ]


def initialise(net: nn.Module) -> None:
    """Glorot's uniform distribution; the 3x3 convolutions of residual branches get sqrt(2) of it."""
    residual = {
        conv
        for block in net.modules()
        if isinstance(block, GeneratorBlock | DiscriminatorBlock)
        for conv in (block.conv1, block.conv2)
    }
    for layer in weighted(net):
        nn.init.xavier_uniform_(layer.weight, math.sqrt(2.0) if layer in residual else 1.0)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    converge(net)


class SNGAN(ImageGAN[SNGANConfig]):
    """SNGAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = SNGANConfig
    least_side = 16
    exposes = True
    training: ClassVar = {"batch": 32}
    presets: ClassVar = {
        # Miyato et al., appendix B.4: residual networks for CIFAR-10, 4x4 to 32x32 pixels.
        "cifar": {
            "width": 256,
            "max_width": 256,
            "discriminator_width": 128,
            "discriminator_max_width": 128,
            "plain_blocks": 2,
            "lr": 2e-4,
            "discriminator_lr": 2e-4,
            "critic_steps": 5,
            "batch": 64,
        },
        # The same for ImageNet, 4x4 to 128x128.
        "imagenet": {
            "width": 64,
            "max_width": 1024,
            "lr": 2e-4,
            "discriminator_lr": 2e-4,
            "critic_steps": 5,
            "batch": 64,
        },
        # Zhang et al., section 4; by class, as all of its figures are.
        "sagan": {
            "conditional": True,
            "width": 64,
            "max_width": 1024,
            "attention": 32,
            "generator_spectral": True,
            "lr": 1e-4,
            "discriminator_lr": 4e-4,
            "lr_decay": "none",
            "batch": 256,
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "max_width": 64},
        "small": {"width": 32, "max_width": 128},
        "base": {"width": 64, "max_width": 512},
        "large": {"width": 128, "max_width": 1024},
    }

    def __init__(self, config: SNGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }
