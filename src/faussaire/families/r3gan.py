"""R3GAN: a plain modern GAN whose loss does the work of the tricks.

The GAN is dead; long live the GAN! A Modern GAN Baseline. Yiwen Huang, Aaron Gokaslan, Volodymyr
Kuleshov, James Tompkin. 2024. arXiv 2501.05441.

The loss is relativistic, judged in pairs (Jolicoeur-Martineau 2018, arXiv 1807.00734), and both sides
are regularised by zero-centred gradient penalties at every step (section 2):

    D lowers  E[softplus(-(D(x) - D(G(z))))] + gamma/2 E|grad D(x)|^2 + gamma/2 E|grad D(G(z))|^2
    G lowers  E[softplus(-(D(G(z)) - D(x)))]                                  R1            R2

Pairing keeps the generator from dropping modes; R1 and R2 together make the game converge locally,
where R1 alone diverges. What the loss makes superfluous is then left out (section 3): no norms, no
minibatch statistics, no mapping network, no noise, no style mixing, no path length.

    G: basis (4x4) x W [z, y]     per stage: [1x1, twice the size] block block     1x1 to RGB
    D: 1x1 from RGB               per stage: block block [half the size, 1x1]      4x4 depthwise, dense
    block: x + 1x1(C <- 2C) f 3x3 grouped f 1x1(2C <- C), f(x) = leaky ReLU(x + bias) of slope .2

Both are mirror images. Weights come from N(0, gain^2 / fan_in) with the gain of Fix-up (Zhang et al.
2019, arXiv 1901.09321) inside blocks, L^(-1/4) sqrt(2 / 1.04) for L blocks, and 0 at their ends, so
that every block begins as the identity (section 3.3). Resizing is bilinear, by [1, 3, 3, 1].

Over the first part of the run (burn-in) follow half a cosine: the learning rate (in the paper from 2e-4
to 5e-5), gamma (to a tenth), Adam's beta2 from .9 to .99, and the probability of augmentation from 0 to
its end (table 5, appendix D).

Where this goes beyond the paper or leaves it:
- Any resolution from 16 up, non-square too: stages follow from the smaller side, sizes are rounded up
  in the generator and cropped, and rounded down in the discriminator.
- Sizes for a laptop: full width up to `flat` pixels, halved with each doubling after. The paper's data
  sets have presets with its own widths.
- The defaults are those of short runs with small batches, on which docs/families/r3gan.md has figures:
  batches of 16, a rate of 1e-3 that stays, gamma four times what a line through the paper's values says
  (`usual_gamma`), of which half is left, no augmentation. The paper's own settings are in the presets,
  and `--size base` and `large` have its rates. Burn-in is a tenth of the run.
- The moving average begins as the engine has it, its half-life growing with the examples seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.schedule import Schedule, cosine
from faussaire.game import GameConfig, ImageGAN, LossName
from faussaire.losses import Samples
from faussaire.nn.augment import ada_augment
from faussaire.nn.resample import downsample, upsample
from faussaire.nn.sizes import base_size, cut, doublings


@dataclass(frozen=True, kw_only=True)
class R3GANConfig(GameConfig):
    """Settings of R3GAN, besides those of every game.

    Attributes:
        latent: numbers in z.
        width: channels of a stage up to `flat` pixels.
        flat: the size in pixels up to which stages have the full width; it halves with each doubling.
        blocks: residual blocks in a stage.
        group_width: channels in a group of the 3x3 convolutions.
        r1: gamma at reals at the beginning; None: gamma_factor times the paper's for this size,
            2 for 32x32 pictures.
        r2: gamma at fakes; None: that of the reals.
        gamma_factor: see r1; 4 did well in short runs with small batches.
        gamma_end: the share of gamma that is left after burn-in (paper: .1).
        burn_in: share of the run in which rates, gamma and augmentation change.
        lr: learning rate at the beginning (paper: 2e-4).
        lr_end: learning rate after burn-in (paper: 5e-5).
        beta2: Adam's second decay after burn-in; it begins at .9.
        augment_p: probability of ADA's transformations after burn-in (paper: .3 to .55); 0: none.
            Besides, `augment` may ask for another augmentation in its place.
    """

    loss: LossName = "relativistic"
    latent: int = 64
    width: int = 64
    flat: int = 8
    blocks: int = 2
    group_width: int = 16
    r1: float | None = None
    r2: float | None = None
    gamma_factor: float = 4.0
    gamma_end: float = 0.5
    burn_in: float = 0.1
    lr: float = 1e-3
    lr_end: float = 1e-3
    beta1: float = 0.0
    beta2: float = 0.99
    augment_p: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            latent=(1, 100_000),
            width=(1, 65536),
            flat=(4, 4096),
            blocks=(1, 100),
            group_width=(1, 4096),
            gamma_factor=(0, None),
            gamma_end=(0, None),
            lr=(1e-12, None),  # the rates' end is a share of it
            burn_in=(0, 1),
            lr_end=(0, None),
            augment_p=(0, 1),
        )
        if self.lr_decay != "none":
            raise UserError(
                f"lr_decay cannot be {self.lr_decay}: r3gan's rates go from lr to lr_end.",
                "Give --lr-end 0 --burn-in 1 for rates that fall to 0 at the end of the run.",
            )

    def widths(self, stages: int) -> list[int]:
        """Channels of the stages from the smallest picture to the largest.

        Multiples of half a group, so that the doubled channels of a block are whole groups.
        """
        step = max(1, self.group_width // 2)
        sides = [4 * 2**stage for stage in range(stages)]
        raw = [self.width * min(1.0, self.flat / side) for side in sides]
        return [max(step, step * round(width / step)) for width in raw]


GAMMAS = ((5, 0.5), (6, 2.0), (8, 150.0))
"""The paper's gammas by the logarithm of a picture's side: ImageNet-32, FFHQ-64 and FFHQ-256."""


def usual_gamma(height: int, width: int) -> float:
    """The paper's gamma for pictures of this size: straight lines through `GAMMAS` in logarithms.

    The side is that of a square of as many pixels; beyond the ends the lines go on.
    """
    level = 0.5 * math.log2(height * width)
    (low, least), (high, most) = GAMMAS[:2] if level < GAMMAS[1][0] else GAMMAS[1:]
    return least * (most / least) ** ((level - low) / (high - low))


_PAPER = {"lr": 2e-4, "lr_end": 5e-5, "gamma_factor": 1.0, "gamma_end": 0.1}


def convolution(
    inputs: int, outputs: int, kernel: int, *, gain: float, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution, its weights from N(0, gain^2 / fan_in), its bias 0."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)
    fan_in = inputs // groups * kernel * kernel
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(inputs: int, outputs: int, *, gain: float = 1.0) -> nn.Linear:
    """A dense layer without bias, its weights from N(0, gain^2 / inputs)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(inputs))
    return layer


class Block(nn.Module):
    """x + 1x1(f(3x3 grouped(f(1x1(x))))): an inverted bottleneck, (N, C, H, W) to the same.

    Args:
        channels: C.
        group_width: channels in a group of the 3x3 convolution, which has 2C.
        depth: L, blocks in the whole network.
    """

    def __init__(self, channels: int, group_width: int, depth: int) -> None:
        super().__init__()
        wide = 2 * channels
        gain = math.sqrt(2.0 / (1.0 + 0.2**2)) * depth**-0.25
        groups = max(1, wide // group_width)
        # The biases of f, the only ones of the networks, are those of the convolutions before it.
        self.expand = convolution(channels, wide, 1, gain=gain, bias=True)
        self.mix = convolution(wide, wide, 3, gain=gain, groups=groups, bias=True)
        self.project = convolution(wide, channels, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.leaky_relu(self.expand(x), 0.2)
        return x + self.project(F.leaky_relu(self.mix(wide), 0.2))


def blocks(config: R3GANConfig, widths: Sequence[int], stage: int) -> nn.Sequential:
    """The blocks of one stage."""
    depth = config.blocks * len(widths)
    return nn.Sequential(
        *(Block(widths[stage], config.group_width, depth) for _ in range(config.blocks))
    )


def count_stages(spec: Pictures) -> int:
    """Stages from 4..7 pixels at the smaller side: 4 at 32, 5 at 64."""
    return doublings(spec.height, spec.width) + 1


class Generator(nn.Module):
    """z (N, latent) and conditions (N, K) or None to pictures (N, C, H, W), unbounded."""

    def __init__(self, config: R3GANConfig, spec: Pictures) -> None:
        super().__init__()
        stages = count_stages(spec)
        widths = config.widths(stages)
        self.size = (spec.height, spec.width)
        base = base_size(spec.height, spec.width, stages - 1)
        self.basis = nn.Parameter(torch.randn(widths[0], *base))
        size = spec.condition_size if config.conditional else 0
        self.embed = dense(size, config.latent) if size else None
        self.project = dense(config.latent * (2 if size else 1), widths[0])
        self.steps = nn.ModuleList(
            convolution(before, after, 1, gain=1.0) if before != after else nn.Identity()
            for before, after in itertools.pairwise(widths)
        )
        self.stages = nn.ModuleList(blocks(config, widths, stage) for stage in range(stages))
        self.to_rgb = convolution(widths[-1], spec.channels, 1, gain=1.0)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.embed is not None and condition is not None:
            z = torch.cat([z, self.embed(condition)], dim=1)
        x = self.basis * self.project(z)[:, :, None, None]
        x = self.stages[0](x.contiguous(memory_format=torch.channels_last))
        for step, stage in zip(self.steps, list(self.stages)[1:], strict=True):
            x = stage(upsample(step(x)))
        x = self.to_rgb(x)
        return cut(x, self.size)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,)."""

    def __init__(self, config: R3GANConfig, spec: Pictures) -> None:
        super().__init__()
        stages = count_stages(spec)
        widths = config.widths(stages)
        self.from_rgb = convolution(spec.channels, widths[-1], 1, gain=1.0)
        self.stages = nn.ModuleList(
            blocks(config, widths, stage) for stage in reversed(range(stages))
        )
        falling = widths[::-1]
        self.steps = nn.ModuleList(
            convolution(before, after, 1, gain=1.0) if before != after else nn.Identity()
            for before, after in itertools.pairwise(falling)
        )
        scale = 2 ** (stages - 1)
        end = (spec.height // scale, spec.width // scale)
        # A weight for each place of each channel: a depthwise convolution as large as the picture.
        self.look = nn.Parameter(torch.randn(widths[0], *end) / math.sqrt(end[0] * end[1]))
        size = spec.condition_size if config.conditional else 0
        self.classify = dense(widths[0], widths[0] if size else 1)
        self.embed = dense(size, widths[0], gain=1.0 / math.sqrt(widths[0])) if size else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.stages[0](self.from_rgb(x))
        for step, stage in zip(self.steps, list(self.stages)[1:], strict=True):
            x = stage(step(downsample(x)))
        seen = self.classify((x.float() * self.look).sum(dim=(2, 3)))
        if self.embed is not None and condition is not None:
            return (seen.float() * self.embed(condition).float()).sum(dim=1)
        return seen.squeeze(1)


class R3GAN(ImageGAN[R3GANConfig]):
    """R3GAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = R3GANConfig
    least_side = 16
    fresh_reals = True  # each player's step draws reals and noise of its own
    half_life = 20_000.0
    training: ClassVar = {"batch": 16}
    presets: ClassVar = {
        # Table 5, and the widths of the authors' models. The paper counts one batch an iteration; here
        # each player's step draws one, so `examples` and `half_life` are twice the paper's.
        "stacked-mnist": {
            **_PAPER,
            **{"width": 768, "flat": 32, "r1": 1.0, "augment_p": 0.0, "burn_in": 0.2},
            **{"lr_end": 2e-4, "batch": 512, "half_life": 1_000_000, "examples": 20_000_000},
        },
        "cifar": {
            **_PAPER,
            **{"width": 768, "flat": 32, "r1": 0.05, "augment_p": 0.55, "burn_in": 0.08},
            **{"conditional": True, "batch": 512, "half_life": 10_000_000},
            **{"examples": 500_000_000},
        },
        "ffhq64": {
            **_PAPER,
            **{"width": 768, "flat": 32, "r1": 2.0, "augment_p": 0.3, "burn_in": 0.2},
            **{"batch": 256, "half_life": 1_000_000, "examples": 200_000_000},
        },
        "ffhq256": {
            **_PAPER,
            **{"width": 768, "flat": 32, "r1": 150.0, "augment_p": 0.3, "burn_in": 0.1},
            **{"batch": 256, "half_life": 1_000_000, "examples": 400_000_000},
        },
        "imagenet32": {
            **_PAPER,
            **{"width": 1536, "flat": 64, "group_width": 32, "r1": 0.5, "augment_p": 0.5},
            **{"conditional": True, "burn_in": 0.2, "batch": 4096, "half_life": 100_000_000},
            **{"examples": 2_000_000_000},
        },
        "imagenet64": {
            **_PAPER,
            **{"width": 1536, "flat": 64, "group_width": 32, "r1": 1.0, "augment_p": 0.4},
            **{"conditional": True, "burn_in": 0.2, "batch": 4096, "half_life": 100_000_000},
            **{"examples": 2_000_000_000},
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 32, "flat": 8},
        "small": {"width": 64, "flat": 8},
        # For days on a GPU: the paper's rates and gamma.
        "base": {"width": 384, "flat": 16, **_PAPER, "batch": 64, "augment_p": 0.3},
        "large": {"width": 768, "flat": 32, **_PAPER, "batch": 256, "augment_p": 0.3},
    }

    def __init__(self, config: R3GANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    @property
    def r1(self) -> float:
        if self.config.r1 is None:
            return self.config.gamma_factor * usual_gamma(self.spec.height, self.spec.width)
        return self.config.r1

    def gammas(self, clock: Clock) -> tuple[float, float]:
        r2 = self.r1 if self.config.r2 is None else self.config.r2
        left = self.after_burn_in(1.0, self.config.gamma_end)(clock)
        return self.r1 * left, r2 * left

    def after_burn_in(self, start: float, end: float) -> Schedule:
        """Half a cosine from `start` to `end` over the burn-in, then `end`."""
        return lambda clock: cosine(start, end, examples=round(self.config.burn_in * clock.total))(
            clock
        )

    def optimisers(self) -> dict[str, OptimiserSpec]:
        config = self.config
        beta2 = self.after_burn_in(min(0.9, config.beta2), config.beta2)
        own = config.discriminator_lr
        rates = {"generator": config.lr, "discriminator": config.lr if own is None else own}
        return {
            net: Adam(
                nets=(net,),
                lr=self.after_burn_in(rate, rate * config.lr_end / config.lr),
                betas=(config.beta1, beta2),
                eps=config.eps,
            )
            for net, rate in rates.items()
        }

    def augmented(self, images: Samples, draws: Draws, clock: Clock) -> Samples:
        """The paper's augmentation: ADA's, half of the colours, cutout, and no controller."""
        if self.config.augment != "none" or not self.config.augment_p:
            return super().augmented(images, draws, clock)
        assert isinstance(images, Tensor)
        p = self.after_burn_in(0.0, self.config.augment_p)(clock)
        # Filled where it is needed: a copy from the CPU would wait for the GPU.
        p = torch.full((), p, device=images.device)
        return ada_augment(images, draws, p, color=0.5, cutout=1.0)
