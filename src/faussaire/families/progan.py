"""ProGAN: both networks grow with the resolution, from 4x4 up, each new layer faded in.

Progressive Growing of GANs for Improved Quality, Stability, and Variation. Tero Karras, Timo Aila,
Samuli Laine, Jaakko Lehtinen. 2018. arXiv 1710.10196.

Training begins with the layers of 4x4 pixels; then each level doubles the resolution (section 2). A
new level's layers join as a residual whose weight alpha rises from 0 to 1, and the reals are faded
with it (figure 2, appendix A). Widths halve with each doubling from 64x64 on (table 2). Equalised
learning rates and pixel norm in the generator (section 4), the batch's standard deviation as one more
map at the discriminator's end (section 3), and samples from averaged weights (appendix A). The paper's
game is WGAN-GP with a drift term of .001 E[D(x)^2] and Adam of rate .001, beta1 0, beta2 .99.

Where this goes beyond the paper or leaves it:
- The small sizes, made for runs of minutes and hours, play MSG-GAN's game (Karnewar and Wang 2020,
  arXiv 1903.06048): relativistic average hinge, no penalty, rate .003. It costs half the time a picture
  and was far ahead after minutes. `--size base`, `large` and `--preset wgan-gp` play the paper's.
- Growing is a share of the run (`growth`), not 600,000 pictures a phase. The first level, and each
  fade and each rest after it, last equally long, as in the paper; what remains is trained at full size.
- Any resolution from 16 up, non-square too: the first level has the picture's sides halved until the
  smaller is 4 to 7 pixels, rounded up. The reals' edges are repeated where levels do not divide the
  sides, and samples are cut to them.
- The authors' code begins anew with Adam's moments at each level. Here they stay: a new layer has none
  yet, and those of the others are forgotten after some hundreds of steps (beta2 .99).
- The deviation of the batch is taken in groups of 4 neighbours, as in the authors' code; the paper has
  the whole batch.
- Classes, which the paper has not: an embedding beside z in the generator, and one that is added to
  the discriminator's last convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.phase import Stage
from faussaire.game import GameConfig, ImageGAN, LossName
from faussaire.nn.equal import EqualConv2d, EqualLinear, minibatch_stddev, pixel_norm
from faussaire.nn.resample import downsample
from faussaire.nn.sizes import base_size, cut, doublings, filled

ROOT2 = math.sqrt(2.0)
BOX = (1.0, 1.0)
"""Taps with which `downsample` is a mean of 2x2 pixels; a penalty's second derivatives stay lean."""


@dataclass(frozen=True, kw_only=True)
class ProGANConfig(GameConfig):
    """Settings of ProGAN.

    Attributes:
        latent: numbers in the noise vector z.
        fmap_base: channels at r pixels are `2 * fmap_base / r`, so that each level costs about the
            same. The paper has 8192.
        fmap_max: most channels of a layer. The paper has 512.
        growth: share of the run after which the last level is faded in; 0 trains all levels from the
            start.
        batches: batch from a resolution (of the smaller side) on, where it is not the run's, such as
            `256:14,512:6,1024:3`.
        stddev_group: pictures that the discriminator compares with each other.
    """

    latent: int = 128
    fmap_base: int = 512
    fmap_max: int = 128
    growth: float = 0.5
    batches: str = ""
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
            growth=(0, 1),
            stddev_group=(1, 1024),
        )
        batch_table(self.batches)


_WGAN_GP = {"loss": "wasserstein", "gradient_penalty": 10.0, "drift": 0.001, "lr": 1e-3}
"""The paper's game."""


def batch_table(text: str) -> dict[int, int]:
    """`"256:14,512:6"` as {256: 14, 512: 6}.

    Raises:
        UserError: it is written otherwise.
    """
    pairs = [part.split(":") for part in text.replace(" ", "").split(",") if part]
    if not all(len(pair) == 2 and all(p.isdecimal() and int(p) for p in pair) for pair in pairs):
        raise UserError(
            f"batches cannot be '{text}'.", "Write resolutions with batches, as 256:14,512:6."
        )
    return {int(side): int(batch) for side, batch in sorted(pairs, key=lambda pair: int(pair[0]))}


@dataclass(frozen=True)
class Levels:
    """The resolutions that the networks grow through.

    Attributes:
        steps: doublings of the first level.
        base: height and width of the first level; the smaller is 4 to 7, or 8 rounded up.
    """

    steps: int
    base: tuple[int, int]

    @classmethod
    def of(cls, spec: Pictures) -> Levels:
        steps = doublings(spec.height, spec.width)
        return cls(steps, base_size(spec.height, spec.width, steps))

    def size(self, level: int) -> tuple[int, int]:
        """Height and width of a level."""
        return self.base[0] * 2**level, self.base[1] * 2**level

    def span(self, growth: float, total: int) -> int:
        """Examples of the first level, of a fade and of a rest, in a run of `total`; 0: none."""
        return int(growth * total / (2 * self.steps))

    def at(self, growth: float, clock: Clock) -> tuple[int, float]:
        """The highest level in training and its alpha: a pure function of the examples seen."""
        span = self.span(growth, clock.total)
        turn = clock.examples // span if span else 2 * self.steps
        if turn >= 2 * self.steps:
            return self.steps, 1.0
        fading = turn % 2 == 1
        return (turn + 1) // 2, (clock.examples / span) % 1.0 if fading else 1.0


def widths(config: ProGANConfig, levels: Levels) -> list[int]:
    """Channels by level: table 2 of the paper at its `fmap_base` and `fmap_max`."""
    return [
        max(1, min(config.fmap_max, config.fmap_base // 2 ** (level + 1)))
        for level in range(levels.steps + 1)
    ]


class Growing(nn.Module):
    """A network that knows how far it is grown: 2.3 has its levels 0 to 2, and 30 % of level 3."""

    grown: Tensor

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.levels = levels
        # A buffer, for it is what a checkpoint, an average and a sample must know.
        self.register_buffer("grown", torch.zeros(()))


class Generator(Growing):
    """Noise (N, latent) and conditions (N, K) or None to pictures (N, C, H, W)."""

    def __init__(self, config: ProGANConfig, spec: Pictures) -> None:
        super().__init__(Levels.of(spec))
        self.size = (spec.height, spec.width)
        conditions = spec.condition_size if config.conditional else 0
        channels = widths(config, self.levels)
        area = self.levels.base[0] * self.levels.base[1]
        self.embed = (
            EqualLinear(conditions, config.latent, bias=False, gain=math.sqrt(conditions))
            if conditions
            else None
        )
        inputs = config.latent * (2 if conditions else 1)
        # The gain of a convolution with a 4x4 kernel on one pixel, which this layer is.
        self.project = EqualLinear(inputs, channels[0] * area, bias=False, gain=ROOT2 / 4)
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
        self, z: Tensor, condition: Tensor | None = None, level: int | None = None
    ) -> Tensor:
        """Pictures of this level's size for training, or finished ones where none is given.

        Their colours are the mixture that `grown` says of the last levels' pictures, enlarged by
        repeating pixels (figure 2b): sum_l max(0, 1 - |grown - l|) paint_l.
        """
        z = pixel_norm(z)
        if self.embed is not None and condition is not None:
            z = torch.cat([z, pixel_norm(self.embed(condition))], dim=1)
        x = self.project(z).unflatten(1, (-1, *self.levels.base))
        x = x.contiguous(memory_format=torch.channels_last)
        x = pixel_norm(F.leaky_relu(x + self.bias.to(x.dtype).view(-1, 1, 1), 0.2))
        top = self.levels.steps if level is None else level
        picture: Tensor | None = None
        for step in range(top + 1):
            if step:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            for conv in self.blocks[step]:  # pyright: ignore[reportGeneralTypeIssues]
                x = pixel_norm(F.leaky_relu(conv(x), 0.2))
            if picture is not None:
                picture = F.interpolate(picture, scale_factor=2.0, mode="nearest")
            if level is None or step >= level - 1:
                share = (1.0 - (self.grown - step).abs()).clamp(min=0.0)
                painted = share * self.paint[step](x).float()
                picture = painted if picture is None else picture + painted
        assert picture is not None
        return picture if level is not None else cut(picture, self.size)


class Discriminator(Growing):
    """Pictures (N, C, h, w) of any level's size and conditions (N, K) or None to logits (N,)."""

    def __init__(self, config: ProGANConfig, spec: Pictures) -> None:
        super().__init__(Levels.of(spec))
        self.group = config.stddev_group
        conditions = spec.condition_size if config.conditional else 0
        channels = widths(config, self.levels)
        first, area = channels[0], self.levels.base[0] * self.levels.base[1]
        self.look = nn.ModuleList(
            EqualConv2d(spec.channels, width, 1, gain=ROOT2) for width in channels
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    EqualConv2d(width, width, 3, gain=ROOT2),
                    EqualConv2d(width, below, 3, gain=ROOT2),
                ]
            )
            for below, width in pairwise(channels)
        )
        self.conclude = EqualConv2d(first + 1, first, 3, gain=ROOT2)
        self.embed = (
            EqualLinear(conditions, first, bias=False, gain=math.sqrt(conditions))
            if conditions
            else None
        )
        self.summarise = EqualLinear(first * area, first, gain=ROOT2)
        # A relativistic loss sees differences of logits, in which a bias cancels.
        bias = not config.loss.startswith("relativistic")
        self.classify = EqualLinear(first, 1, bias=bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        level = (x.shape[2] // self.levels.base[0]).bit_length() - 1
        seen = self.see(x, level)
        for step in range(level, 0, -1):
            for conv in self.blocks[step - 1]:  # pyright: ignore[reportGeneralTypeIssues]
                seen = F.leaky_relu(conv(seen), 0.2)
            seen = downsample(seen, BOX)
            if step == level:  # fade in what is new (figure 2b)
                alpha = (self.grown - (level - 1)).clamp(0.0, 1.0).to(seen.dtype)
                before = self.see(downsample(x, BOX), level - 1)
                seen = torch.lerp(before, seen, alpha)
        seen = self.conclude(minibatch_stddev(seen, self.group))
        if self.embed is not None and condition is not None:
            seen = seen + self.embed(condition)[:, :, None, None]
        seen = self.summarise(F.leaky_relu(seen, 0.2).flatten(1))
        return self.classify(F.leaky_relu(seen, 0.2)).flatten()

    def see(self, x: Tensor, level: int) -> Tensor:
        """Features of a picture of this level's size."""
        return F.leaky_relu(self.look[level](x), 0.2)


class ProGAN(ImageGAN[ProGANConfig]):
    """ProGAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = ProGANConfig
    least_side = 16
    normalises_latents = True
    half_life = 11_000.0  # .999 a step of 16 pictures
    training: ClassVar = {"batch": 16}
    sizes: ClassVar = {
        "tiny": {"fmap_base": 256, "fmap_max": 64, "latent": 64},
        "small": {"fmap_base": 512, "fmap_max": 128, "latent": 128},
        "base": {**_WGAN_GP, "fmap_base": 4096, "fmap_max": 256, "latent": 256, "batch": 32},
        "large": {**_WGAN_GP, "fmap_base": 8192, "fmap_max": 512, "latent": 512, "batch": 32},
    }
    presets: ClassVar = {
        "wgan-gp": _WGAN_GP,
        "paper": {
            **_WGAN_GP,
            "fmap_base": 8192,
            "fmap_max": 512,
            "latent": 512,
            "growth": 0.8,
            "batch": 16,
            "batches": "256:14,512:6,1024:3",
        },
    }

    def __init__(self, config: ProGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.plan = Levels.of(spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        """First the base, then a fade and a rest for each level; the last rests to the end."""
        phases, span = self.phases(), self.plan.span(self.config.growth, total)
        turns = range(2 * self.plan.steps + 1) if span else [2 * self.plan.steps]
        stages = []
        for turn in turns:
            level, fading = (turn + 1) // 2, turn % 2 == 1
            height, width = self.plan.size(level)
            stages.append(
                Stage(
                    name=f"{width}x{height}{' fade' if fading else ''}",
                    phases=phases,
                    until=(turn + 1) * span if turn < turns[-1] else None,
                    batch=self.batch(min(height, width)),
                )
            )
        return tuple(stages)

    def batch(self, side: int) -> int | None:
        """Pictures in a batch at this resolution; None: the run's."""
        table = batch_table(self.config.batches)
        return next((table[least] for least in reversed(table) if least <= side), None)

    def grow(self, clock: Clock) -> tuple[int, float]:
        """Tell both networks how far they are grown; the level and alpha."""
        level, alpha = self.plan.at(self.config.growth, clock)
        for net in self.nets.values():
            assert isinstance(net, Growing)
            # A new tensor, for a compiled network keeps this one for its backward pass.
            net.grown = torch.full_like(net.grown, level - 1 + alpha)
        return level, alpha

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        level, _ = self.grow(clock)
        return self.nets["generator"](z, condition, level)

    def reals(self, batch: Batch, clock: Clock) -> Tensor:
        """Real pictures of this level's size, faded as the generator's are (appendix A)."""
        level, alpha = self.plan.at(self.config.growth, clock)
        x = filled(batch["images"], self.plan.size(self.plan.steps))
        x = F.avg_pool2d(x, 2 ** (self.plan.steps - level))
        if alpha < 1.0:
            coarse = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="nearest")
            x = torch.lerp(coarse, x, alpha)
        return x

    def judge(self, images: Tensor, condition: Tensor | None, clock: Clock) -> Tensor:
        self.grow(clock)
        return self.nets["discriminator"](images, condition)
