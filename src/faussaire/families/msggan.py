"""MSG-GAN: pictures at every scale at once, so that gradients reach every layer directly.

MSG-GAN: Multi-Scale Gradients for Generative Adversarial Networks. Animesh Karnewar, Oliver Wang. 2020.
arXiv 1903.06048.

The generator paints a picture from the features of each level with a 1x1 convolution; the discriminator
sees all of them, each beside its own features of that size (section 2, figure 2). Nothing grows and
nothing fades: the scales agree from early on, and learn from coarse to fine by themselves. Networks
are ProGAN's, with the batch's deviation at every level of the discriminator (appendix, tables 6 and 7).
Pixel norm, equalised learning rates, one learning rate of .003 for both players, averaged weights.
How a picture joins the features is phi of section 2: `simple` concatenates, `lin-cat` puts a 1x1
convolution on the picture before, `cat-lin` on both after.

Where this goes beyond the paper or leaves it:
- The loss is the relativistic average hinge of the authors' code. The paper's MSG-ProGAN has WGAN-GP
  (`--preset paper`), whose penalty we take on the gradient with respect to all scales together; the
  authors average one penalty for each.
- Adam with beta1 0 and beta2 .99, as their code has it; the paper names RMSprop, which that is but for
  the correction of the first steps.
- Any resolution from 16 up, non-square too: the coarsest level has the picture's sides halved until the
  smaller is 4 to 7 pixels, rounded up. The reals' edges are repeated where levels do not divide the
  sides, and samples are cut to them.
- The deviation of the batch is taken in groups of 4 neighbours.
- Augmentation, which the paper has not, transforms all scales in the size of the finest, so that they
  still agree (`at_full_size`).
- Classes, which the paper has not: an embedding beside z in the generator, and one that is added to
  the discriminator's last convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Pictures
from faussaire.game import GameConfig, ImageGAN, LossName
from faussaire.losses import Samples
from faussaire.nn.equal import EqualConv2d, EqualLinear, minibatch_stddev, pixel_norm
from faussaire.nn.resample import downsample
from faussaire.nn.sizes import base_size, cut, doublings, filled

ROOT2 = math.sqrt(2.0)
BOX = (1.0, 1.0)
"""Taps with which `downsample` is a mean of 2x2 pixels; a penalty's second derivatives stay lean."""


@dataclass(frozen=True, kw_only=True)
class MSGGANConfig(GameConfig):
    """Settings of MSG-GAN.

    Attributes:
        latent: numbers in the noise vector z.
        fmap_base: channels at r pixels are `2 * fmap_base / r`, so that each level costs about the
            same. The paper has 8192.
        fmap_max: most channels of a layer. The paper has 512.
        combine: how the discriminator joins a picture to its features of that size.
        stddev_group: pictures that the discriminator compares with each other.
    """

    latent: int = 128
    fmap_base: int = 512
    fmap_max: int = 128
    combine: Literal["simple", "lin-cat", "cat-lin"] = "simple"
    stddev_group: int = 4
    loss: LossName = "relativistic-average-hinge"
    lr: float = 3e-3
    beta1: float = 0.0
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            latent=(1, 100_000),
            fmap_base=(1, 1_000_000),
            fmap_max=(1, 65_536),
            stddev_group=(1, 1024),
        )


@dataclass(frozen=True)
class Scales:
    """The sizes at which pictures are made and judged, and the channels of their features.

    Attributes:
        base: height and width of the coarsest.
        channels: of the features by level, from the coarsest.
    """

    base: tuple[int, int]
    channels: tuple[int, ...]

    @classmethod
    def of(cls, config: MSGGANConfig, spec: Pictures) -> Scales:
        steps = doublings(spec.height, spec.width)
        base = base_size(spec.height, spec.width, steps)
        widths = (config.fmap_base // 2 ** (level + 1) for level in range(steps + 1))
        return cls(base, tuple(max(1, min(config.fmap_max, width)) for width in widths))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finest."""
        scale = 2 ** (len(self.channels) - 1)
        return self.base[0] * scale, self.base[1] * scale


class Generator(nn.Module):
    """Noise (N, latent) and conditions (N, K) or None to pictures (N, C, H, W)."""

    def __init__(self, config: MSGGANConfig, spec: Pictures) -> None:
        super().__init__()
        self.scales = Scales.of(config, spec)
        self.size = (spec.height, spec.width)
        self.embed, conditions = embedding(config, spec, config.latent)
        channels, (height, width) = self.scales.channels, self.scales.base
        inputs = config.latent * (2 if conditions else 1)
        # The gain of a convolution with a 4x4 kernel on one pixel, which this layer is.
        self.project = EqualLinear(inputs, channels[0] * height * width, bias=False, gain=ROOT2 / 4)
        self.bias = nn.Parameter(torch.zeros(channels[0]))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                EqualConv2d(inputs, width, 3, gain=ROOT2)
                for inputs in ((channels[level - 1], width) if level else (width,))
            )
            for level, width in enumerate(channels)
        )
        self.paint = nn.ModuleList(EqualConv2d(width, spec.channels, 1) for width in channels)

    def forward(
        self, z: Tensor, condition: Tensor | None = None, *, scales: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """The finest picture, cut to its size; or those of all `scales`, coarsest first."""
        z = pixel_norm(z)
        if self.embed is not None and condition is not None:
            z = torch.cat([z, pixel_norm(self.embed(condition))], dim=1)
        x = self.project(z).unflatten(1, (-1, *self.scales.base))
        x = x.contiguous(memory_format=torch.channels_last)
        x = pixel_norm(F.leaky_relu(x + self.bias.to(x.dtype).view(-1, 1, 1), 0.2))
        pictures = []
        for level, (convs, paint) in enumerate(zip(self.blocks, self.paint, strict=True)):
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            for conv in convs:  # pyright: ignore[reportGeneralTypeIssues]
                x = pixel_norm(F.leaky_relu(conv(x), 0.2))
            if scales or level == len(self.blocks) - 1:
                pictures.append(paint(x))
        return tuple(pictures) if scales else cut(pictures[-1], self.size)


class Discriminator(nn.Module):
    """Pictures at all scales, coarsest first, and conditions (N, K) or None to logits (N,)."""

    def __init__(self, config: MSGGANConfig, spec: Pictures) -> None:
        super().__init__()
        scales = Scales.of(config, spec)
        channels, colours = scales.channels, spec.channels
        self.group = config.stddev_group
        self.look = EqualConv2d(colours, channels[-1], 1, gain=ROOT2)
        joins = [Join(config.combine, width, colours) for width in channels[:-1]]
        entering = [*(join.outputs for join in joins), channels[-1]]
        self.joins = nn.ModuleList(joins)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    EqualConv2d(entering[level] + 1, channels[level], 3, gain=ROOT2),
                    EqualConv2d(channels[level], channels[level - 1], 3, gain=ROOT2),
                ]
            )
            for level in range(1, len(channels))
        )
        self.conclude = EqualConv2d(entering[0] + 1, channels[0], 3, gain=ROOT2)
        self.embed, _ = embedding(config, spec, channels[0])
        area = scales.base[0] * scales.base[1]
        self.summarise = EqualLinear(channels[0] * area, channels[0], gain=ROOT2)
        # A relativistic loss sees differences of logits, in which a bias cancels.
        bias = not config.loss.startswith("relativistic")
        self.classify = EqualLinear(channels[0], 1, bias=bias)

    def forward(self, pictures: Sequence[Tensor], condition: Tensor | None = None) -> Tensor:
        seen = F.leaky_relu(self.look(pictures[-1]), 0.2)
        for level in range(len(pictures) - 1, 0, -1):
            seen = minibatch_stddev(seen, self.group)
            for conv in self.blocks[level - 1]:  # pyright: ignore[reportGeneralTypeIssues]
                seen = F.leaky_relu(conv(seen), 0.2)
            seen = self.joins[level - 1](downsample(seen, BOX), pictures[level - 1])
        seen = self.conclude(minibatch_stddev(seen, self.group))
        if self.embed is not None and condition is not None:
            seen = seen + self.embed(condition)[:, :, None, None]
        seen = self.summarise(F.leaky_relu(seen, 0.2).flatten(1))
        return self.classify(F.leaky_relu(seen, 0.2)).flatten()


class Join(nn.Module):
    """phi: features (N, width, h, w) and a picture (N, colours, h, w) to (N, outputs, h, w).

    Section 2, equations of phi_simple, phi_lin_cat and phi_cat_lin.
    """

    def __init__(self, combine: str, width: int, colours: int) -> None:
        super().__init__()
        self.outputs = {"simple": width + colours, "lin-cat": 2 * width, "cat-lin": width}[combine]
        self.before = EqualConv2d(colours, width, 1) if combine == "lin-cat" else nn.Identity()
        after = combine == "cat-lin"
        self.after = EqualConv2d(width + colours, width, 1) if after else nn.Identity()

    def forward(self, features: Tensor, picture: Tensor) -> Tensor:
        picture = self.before(picture).to(features.dtype)
        # Joined in channels_last, which a picture of one channel would not tell `cat` to keep.
        rows = [part.permute(0, 2, 3, 1) for part in (features, picture)]
        return self.after(torch.cat(rows, dim=3).permute(0, 3, 1, 2))


def embedding(config: MSGGANConfig, spec: Pictures, outputs: int) -> tuple[EqualLinear | None, int]:
    """A linear map of conditions with outputs of unit deviation for a class, and their length."""
    size = spec.condition_size if config.conditional else 0
    if not size:
        return None, 0
    return EqualLinear(size, outputs, bias=False, gain=math.sqrt(size)), size


def at_full_size(images: Samples, transform: Callable[[Samples], Samples]) -> Samples:
    """What `transform` makes of all scales when it sees them in the size of the finest.

    Smaller pictures are enlarged by repeating pixels and averaged down again afterwards. A shift by s of
    the finest's pixels is then one of s / k pixels, between neighbours, where pixels are k times as
    large: scales that agreed do so after any transformation.
    """
    if not isinstance(images, tuple):
        return transform(images)
    height = images[-1].shape[2]
    by = [height // part.shape[2] for part in images]
    large = (
        part if k == 1 else F.interpolate(part, scale_factor=float(k), mode="nearest")
        for part, k in zip(images, by, strict=True)
    )
    return tuple(F.avg_pool2d(x, k) for x, k in zip(transform(tuple(large)), by, strict=True))


class MSGGAN(ImageGAN[MSGGANConfig]):
    """MSG-GAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = MSGGANConfig
    least_side = 16
    normalises_latents = True
    half_life = 11_000.0  # .999 a step of 16 pictures
    training: ClassVar = {"batch": 16}
    sizes: ClassVar = {
        "tiny": {"fmap_base": 256, "fmap_max": 64, "latent": 64},
        "small": {"fmap_base": 512, "fmap_max": 128, "latent": 128},
        "base": {"fmap_base": 4096, "fmap_max": 256, "latent": 256, "batch": 32},
        "large": {"fmap_base": 8192, "fmap_max": 512, "latent": 512, "batch": 32},
    }
    presets: ClassVar = {
        "paper": {
            "fmap_base": 8192,
            "fmap_max": 512,
            "latent": 512,
            "loss": "wasserstein",
            "gradient_penalty": 10.0,
            "drift": 0.001,
            "batch": 16,
        },
    }

    def __init__(self, config: MSGGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.scales = Scales.of(config, spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    def generate(
        self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock
    ) -> tuple[Tensor, ...]:
        return self.nets["generator"](z, condition, scales=True)

    def reals(self, batch: Batch, clock: Clock) -> tuple[Tensor, ...]:
        """Real pictures and their means over squares of pixels, coarsest first."""
        finest = filled(batch["images"], self.scales.size)
        steps = len(self.scales.channels) - 1
        return (*(F.avg_pool2d(finest, 2**step) for step in range(steps, 0, -1)), finest)

    def augmented(self, images: Samples, draws: Draws, clock: Clock) -> Samples:
        if self.config.augment == "none":
            return images
        return at_full_size(
            images, lambda large: super(MSGGAN, self).augmented(large, draws, clock)
        )

    def transformed(self, images: Samples, draws: Draws) -> Samples:
        return at_full_size(images, lambda large: super(MSGGAN, self).transformed(large, draws))
