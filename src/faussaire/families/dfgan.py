"""DF-GAN: pictures of words in one stage, the words going deep into the generator.

DF-GAN: A Simple and Effective Baseline for Text-to-Image Synthesis. Ming Tao, Hao Tang, Fei Wu,
Xiao-Yuan Jing, Bing-Kun Bao, Changsheng Xu. 2022. CVPR. arXiv 2008.05865.

The generator (section 3.2, figure 2): noise z through a dense layer onto 4x4 pixels, then one UPBlock
for each doubling: enlarge, then a residual block of two DFBlocks. A DFBlock (section 3.4) is

    Affine, ReLU, Affine, ReLU, convolution        AFF(x_i | e) = gamma_i x_i + beta_i

where gamma = MLP_1(e) and beta = MLP_2(e) come of the sentence vector e (equation 4), a number for each
channel. There is no batch normalisation anywhere.

The discriminator (section 3.2): DownBlocks to 4x4 pixels, the sentence repeated at every pixel beside
them, two convolutions onto one number: a one-way output, without a second for pictures regardless of
words (section 3.3.2). Its loss is the hinge, with a matching-aware gradient penalty (equation 3):

    L_D = -E min(0, D(x, e) - 1) - 1/2 E min(0, -D(G(z), e) - 1) - 1/2 E min(0, -D(x, e') - 1)
          + k E (|grad_x D(x, e)| + |grad_e D(x, e)|)^p          k = 2, p = 6
    L_G = -E D(G(z), e)

e' being a caption that is not x's. The penalty at real pictures beside their own captions makes these
the places where D is smooth, and so where the generator is drawn to. Adam with betas 0 and .9, rates
1e-4 for the generator and 4e-4 for the discriminator (section 4).

Where this goes beyond the paper or leaves it:
- Sentences come from this project's own reader or a ready encoder (`captions/`); the paper takes
  AttnGAN's encoder.
- Any resolution from 16 up, non-square too; the paper has 256.
- Averaged weights make the samples.
- The last convolution is the picture, without the paper's tanh: nothing is normalised here, and on
  pictures with a white ground the generator was at tanh's end after fifty steps, all white, where no
  gradient leads back from. Samples are clamped to [-1, 1].
- The rates are those of the paper in `--preset paper`; small networks and short runs take twice as much.

Written from the paper alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.captions.game import CaptionedConfig, CaptionedGAN
from faussaire.captions.spec import Captioned
from faussaire.core.batch import Batch
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.game import LossName
from faussaire.nn.sizes import base_size, cut, doublings, filled


@dataclass(frozen=True, kw_only=True)
class DFGANConfig(CaptionedConfig):
    """Settings of DF-GAN, besides those of every game with words.

    Attributes:
        latent: numbers in the noise vector z.
        width: channels next to the picture; they double with each halving of the resolution, up to
            eight times. The paper has 32.
        matching_penalty: k of the matching-aware gradient penalty; 0: none.
        matching_power: p of it.
    """

    latent: int = 100
    width: int = 32
    matching_penalty: float = 2.0
    matching_power: float = 6.0
    loss: LossName = "hinge"
    lr: float = 2e-4
    discriminator_lr: float | None = 8e-4
    beta1: float = 0.0
    beta2: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, latent=(1, 100_000), width=(1, 8192))
        check_range(self, matching_penalty=(0, None), matching_power=(1, 12))


def widths(config: DFGANConfig, steps: int) -> list[int]:
    """Channels at each resolution, from the picture's down to 4x4."""
    return [config.width * min(8, 2**step) for step in range(steps + 1)]


class Affine(nn.Module):
    """gamma x + beta: maps (N, C, H, W) and sentences (N, D) to (N, C, H, W). Equation 4.

    gamma begins at 1 and beta at 0, whatever the sentence.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.gamma = _perceptron(size, channels, 1.0)
        self.beta = _perceptron(size, channels, 0.0)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        gamma, beta = (
            net(sentence).to(x.dtype)[:, :, None, None] for net in (self.gamma, self.beta)
        )
        return torch.addcmul(beta, x, gamma)


def _perceptron(size: int, channels: int, begin: float) -> nn.Sequential:
    last = nn.Linear(channels, channels)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, begin)
    return nn.Sequential(nn.Linear(size, channels), nn.ReLU(), last)


class DFBlock(nn.Module):
    """Affine, ReLU, affine, ReLU, 3x3 convolution: (N, C, H, W) to (N, K, H, W). Section 3.4."""

    def __init__(self, wide: int, narrow: int, size: int) -> None:
        super().__init__()
        self.first, self.second = Affine(wide, size), Affine(wide, size)
        self.conv = nn.Conv2d(wide, narrow, 3, padding=1)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        x = F.relu(self.first(x, sentence))
        return self.conv(F.relu(self.second(x, sentence)))


class UpBlock(nn.Module):
    """Two DFBlocks with a shortcut, after enlarging to twice the size where asked."""

    def __init__(self, wide: int, narrow: int, size: int, *, enlarge: bool) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.blocks = nn.ModuleList([DFBlock(wide, narrow, size), DFBlock(narrow, narrow, size)])
        self.shortcut = nn.Conv2d(wide, narrow, 1) if wide != narrow else nn.Identity()

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        if self.enlarge:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        fused = x
        for block in self.blocks:
            fused = block(fused, sentence)
        return self.shortcut(x) + fused


class Generator(nn.Module):
    """Noise (N, latent) and sentences (N, D) to pictures (N, C, H, W), about within [-1, 1]."""

    def __init__(self, config: DFGANConfig, spec: Captioned) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        self.base = base_size(spec.height, spec.width, steps)
        channels = widths(config, steps)[::-1]
        self.project = nn.Linear(config.latent, channels[0] * self.base[0] * self.base[1])
        self.blocks = nn.ModuleList(
            UpBlock(channels[max(0, step - 1)], width, config.sentence, enlarge=step > 0)
            for step, width in enumerate(channels)
        )
        self.paint = nn.Conv2d(channels[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        x = self.project(z).unflatten(1, (-1, *self.base))
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, condition)
        return cut(self.paint(F.leaky_relu(x, 0.2)), self.size)


class DownBlock(nn.Module):
    """Two convolutions with a shortcut, to half the size: (N, C, H, W) to (N, K, H / 2, W / 2)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.shortcut = nn.Conv2d(narrow, wide, 1) if narrow != wide else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.shortcut(x), 2) + self.body(x)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and sentences (N, D) to logits (N,)."""

    def __init__(self, config: DFGANConfig, spec: Captioned) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        base = base_size(spec.height, spec.width, steps)
        self.size = (base[0] * 2**steps, base[1] * 2**steps)
        channels = widths(config, steps)
        self.look = nn.Conv2d(spec.channels, channels[0], 3, padding=1)
        pairs = itertools.pairwise(channels)
        self.blocks = nn.Sequential(*(DownBlock(narrow, wide) for narrow, wide in pairs))
        narrow = max(1, config.width * 2)
        self.compare = nn.Conv2d(channels[-1] + config.sentence, narrow, 3, padding=1, bias=False)
        self.classify = nn.Conv2d(narrow, 1, base, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        seen = self.blocks(self.look(filled(x, self.size)))
        said = condition.to(seen.dtype)[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        both = F.leaky_relu(self.compare(torch.cat([seen, said], dim=1)), 0.2)
        return self.classify(both).flatten()


class DFGAN(CaptionedGAN[DFGANConfig]):
    """DF-GAN on pictures with captions, of any size from 16x16 up."""

    Config = DFGANConfig
    least_side = 16
    training: ClassVar = {"batch": 32}
    presets: ClassVar = {
        "paper": {"width": 32, "sentence": 256, "lr": 1e-4, "discriminator_lr": 4e-4, "batch": 32},
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "sentence": 64, "reader_width": 64, "eye_width": 16},
        "small": {"width": 24},
        "base": {"width": 32},
        "large": {"width": 64, "sentence": 256},
    }

    def __init__(self, config: DFGANConfig, spec: Captioned) -> None:
        super().__init__(config, spec)
        self.nets |= {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The matching-aware hinge with its penalty: equation 3."""
        terms = super().discriminator_loss(batch, clock)
        if self.config.matching_penalty:
            draws = batch.draws
            penalty = losses.matching_penalty(
                lambda images, sentence: self.judge(
                    self.augmented(images, draws, clock), sentence, clock
                ),
                batch["images"],
                self.condition(batch),
                self.config.matching_power,
            )
            terms["matching_penalty"] = self.config.matching_penalty * penalty
        return terms
