"""BigGAN: many classes at once, by large networks and large batches; z acts at every resolution.

Large Scale GAN Training for High Fidelity Natural Image Synthesis. Andrew Brock, Jeff Donahue, Karen
Simonyan. 2019. arXiv 1809.11096.

On the networks of SAGAN (spectral normalisation in both, hinge loss, projection discriminator,
self-attention at 64 pixels) it builds (section 3 and appendix B):
- a class embedding shared by all of the generator's conditional batch norms, each of which maps it
  linearly to gains and biases;
- hierarchical z: one chunk goes into the first layer, one joins the embedding in each block;
- orthogonal initialisation, and for truncation orthogonal regularisation of the generator,
  beta |W W^T (1 - I)|^2 (equation 3: filters need not have length 1, only be at right angles);
- truncation: z drawn anew where it exceeds a threshold, for less variety and finer pictures;
- standing statistics: after training, batch norm's mean and variance are averaged over many batches
  of the averaged generator (`settle`);
- rates 5e-5 and 2e-4, two discriminator steps, Adam with beta1 0, beta2 .999 and epsilon 1e-6.

When it is the wrong choice: BigGAN was made for a million pictures in a thousand classes and batches of
2048. The authors' runs all collapse in the end, small batches and few pictures (below some
thousands for each class) make it collapse early, and without classes it has little over `sngan`. For
one's own folder take `stylegan2`, `r3gan` or, of a few hundred pictures, `fastgan`. Where it is used
nevertheless: `--augment diffaugment`, `--evaluate-every`, and the best checkpoint rather than the last.

Where this goes beyond the paper or leaves it:
- Any resolution from 16 to 1023, non-square too. The appendix has tables for 128, 256 and 512; 64 is
  the authors' code's, 16 and 32 are 64 without its widest blocks; `flat` has the code's networks for
  CIFAR-10 in their place.
- Without classes the conditional batch norms see z's chunks alone.
- Fakes take the classes of the reals in their batch; the paper draws them.
- Attention's keys and values are max-pooled, and gains of conditional batch norm centred on 1, as in
  the authors' code. By default one discriminator step at 4e-4 (the code's) goes with one of the
  generator's at 2e-4 (twice the code's): for runs of hours, not weeks.
- Modulations are free by default and begin small (`spectral_modulation`): our default networks are
  narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.game import Asked, GameConfig, ImageGAN, LossName
from faussaire.nn.conditional import ConditionalBatchNormAct2d, standing_statistics
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import base_size, cut, doublings
from faussaire.nn.spectral import converge, spectral
from faussaire.nn.turns import QUARTERS


@dataclass(frozen=True, kw_only=True)
class BigGANConfig(GameConfig):
    """Settings of BigGAN, besides those of every game.

    Attributes:
        chunk: numbers of z for the first layer, and for each block.
        shared: numbers in the class embedding that all blocks share.
        width: the paper's ch: layers have 1 to 16 times as many channels.
        flat: 4 x width channels everywhere, the authors' networks for 32 pixels.
        attention: resolution at which pixels attend to each other, in both networks; the nearest
            that the networks have is taken. 0: none. The paper has 64.
        orthogonal: weight beta of orthogonal regularisation of the generator; 0: none.
        spectral_modulation: normalise the linear maps to the batch norms' gains and biases spectrally,
            as the paper's networks have it. Their largest singular value is then always 1, which a
            layer of a thousand channels hardly feels; of 32 channels it moves every gain by .8, and
            z becomes noise. Without it they begin small.
        standing_batches: batches of 64 samples over which a finished generator's batch norm
            statistics are averaged; 0: the running averages of training stay.
    """

    loss: LossName = "hinge"
    discriminator_lr: float | None = 4e-4
    beta1: float = 0.0
    eps: float = 1e-6
    chunk: int = 20
    shared: int = 128
    width: int = 16
    flat: bool = False
    attention: int = 0
    orthogonal: float = 1e-4
    spectral_modulation: bool = False
    standing_batches: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            chunk=(1, 10_000),
            shared=(1, 65536),
            width=(1, 4096),
            attention=(0, 1024),
            orthogonal=(0, None),
            standing_batches=(0, 100_000),
        )


#: Channels after each of the generator's blocks as multiples of `width`, by the number of doublings.
GENERATOR_TABLES: dict[int, tuple[int, ...]] = {
    2: (4, 2),
    3: (8, 4, 2),
    4: (16, 8, 4, 2),
    5: (16, 8, 4, 2, 1),
    6: (16, 8, 8, 4, 2, 1),
    7: (16, 8, 8, 4, 2, 1, 1),
}
#: The same of the discriminator's blocks, the last of which keeps its resolution.
DISCRIMINATOR_TABLES: dict[int, tuple[int, ...]] = {
    2: (2, 4, 4),
    3: (2, 4, 8, 8),
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}

SMALL = 0.1
"""What free modulations begin as, of orthogonal matrices: gains of 1 +- .08 among 32 channels."""


def nearest_side(wanted: int, sides: list[int]) -> int | None:
    """Index of the side nearest to `wanted` as a ratio; None where nothing is wanted."""
    if not wanted:
        return None
    return min(range(len(sides)), key=lambda index: abs(math.log(sides[index] / wanted)))


class SelfAttention(nn.Module):
    """y = x + gamma W_v sum_j a_j h(x_j), a = softmax_j <f(x_i), g(x_j)>. The paper's non-local block.

    x, y: (N, C, H, W). f and g have C/8 channels, h has C/2; j goes over a grid pooled by two. gamma
    begins at 0: the network first learns without. Zhang et al. 2019, arXiv 1805.08318.
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
    """Appendix B: norm, ReLU, doubling, 3x3; norm, ReLU, 3x3; beside them 1x1 and doubling.

    x: (N, wide, H, W) and the block's condition (N, K) to (N, narrow, 2H, 2W). The 1x1 convolution
    comes before the doubling, which gives the same for a quarter of the work.
    """

    def __init__(self, wide: int, narrow: int, condition_size: int, *, spectral_norm: bool) -> None:
        super().__init__()
        self.norm1 = modulated_norm(wide, condition_size, spectral_norm)
        self.conv1 = spectral(nn.Conv2d(wide, narrow, 3, padding=1))
        self.norm2 = modulated_norm(narrow, condition_size, spectral_norm)
        self.conv2 = spectral(nn.Conv2d(narrow, narrow, 3, padding=1))
        self.shortcut = spectral(nn.Conv2d(wide, narrow, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(double(self.norm1(x, condition)))
        y = self.conv2(self.norm2(y, condition))
        return y + double(self.shortcut(x))


class DiscriminatorBlock(nn.Module):
    """Appendix B: ReLU, 3x3, ReLU, 3x3, average pooling by two if `halve`; beside them pooling, 1x1.

    The first block has no ReLU before its first convolution: it would hide the dark half of the
    picture.
    """

    def __init__(self, narrow: int, wide: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = spectral(nn.Conv2d(narrow, wide, 3, padding=1))
        self.conv2 = spectral(nn.Conv2d(wide, wide, 3, padding=1))
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
    """z (N, latent) and conditions (N, K) or None to pictures (N, C, H, W) in [-1, 1]."""

    def __init__(self, config: BigGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        # Rounded up, so that the doubled size covers the picture; `forward` crops the rest.
        self.base = base_size(spec.height, spec.width, steps)
        table = (4,) * steps if config.flat else GENERATOR_TABLES[steps]
        widths = [config.width * multiple for multiple in table]
        size = spec.condition_size if config.conditional else 0
        self.shared = nn.Linear(size, config.shared, bias=False) if size else None
        self.chunk, self.spectral_modulation = config.chunk, config.spectral_modulation
        self.project = spectral(nn.Linear(config.chunk, widths[0] * self.base[0] * self.base[1]))
        modulation = config.chunk + (config.shared if size else 0)
        self.blocks = nn.ModuleList(
            GeneratorBlock(wide, narrow, modulation, spectral_norm=config.spectral_modulation)
            for wide, narrow in zip([widths[0], *widths], widths, strict=False)
        )
        sides = [min(self.base) * 2 ** (step + 1) for step in range(steps)]
        self.attend_after = nearest_side(config.attention, sides)
        if self.attend_after is not None:
            self.attention = SelfAttention(widths[self.attend_after])
        self.norm = BatchNormAct2d(widths[-1])
        self.colour = spectral(nn.Conv2d(widths[-1], spec.channels, 3, padding=1))
        initialise(self)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        first, *others = z.split(self.chunk, dim=1)
        if self.shared is not None and condition is not None:
            embedding = self.shared(condition).to(z.dtype)
            others = [torch.cat([embedding, chunk], dim=1) for chunk in others]
        x = self.project(first).unflatten(1, (-1, *self.base))
        x = x.contiguous(memory_format=torch.channels_last)
        for index, (block, modulation) in enumerate(zip(self.blocks, others, strict=True)):
            x = block(x, modulation)
            if index == self.attend_after:
                x = self.attention(x)
        x = torch.tanh(self.colour(self.norm(x)))
        return cut(x, self.size)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,).

    Or to logits of quarter turns, (N, 4), or to the sums of its last maps, (N, F).
    """

    def __init__(self, config: BigGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        table = (4,) * (steps + 1) if config.flat else DISCRIMINATOR_TABLES[steps]
        halvings = steps - 1 if config.flat else steps
        widths = [config.width * multiple for multiple in table]
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


def modulated_norm(
    channels: int, condition_size: int, spectral_norm: bool
) -> ConditionalBatchNormAct2d:
    """Conditional batch norm and ReLU, whose linear maps may be spectrally normalised."""
    layer = ConditionalBatchNormAct2d(channels, condition_size)
    if spectral_norm:
        spectral(layer.gain)
        spectral(layer.bias)
    return layer


def double(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), every pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def initialise(net: nn.Module) -> None:
    """Every weight matrix orthogonal (Saxe et al. 2014, arXiv 1312.6120), biases 0. Section 3."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if isinstance(net, Generator) and not net.spectral_modulation:
        for layer in net.modules():
            if isinstance(layer, ConditionalBatchNormAct2d):
                nn.init.orthogonal_(layer.gain.weight, SMALL)
                nn.init.orthogonal_(layer.bias.weight, SMALL)
    converge(net)


def orthogonal_penalty(net: nn.Module) -> Tensor:
    """Sum over weights of |W W^T (1 - I)|^2, W with a row for each filter. Equation 3 without beta.

    The class embedding stays out of it: similar classes may have similar vectors.
    """
    shared = getattr(net, "shared", None)
    terms = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not shared:
            rows = layer.weight.flatten(1)
            gram = rows @ rows.t()
            terms.append(gram.square().sum() - gram.diagonal().square().sum())
    return torch.stack(terms).sum()


class BigGAN(ImageGAN[BigGANConfig]):
    """BigGAN on pictures of any size from 16x16 up, by class or not.

    The wrong choice for small batches and for one's own few pictures: see the module's text.
    """

    Config = BigGANConfig
    least_side = 16
    exposes = True
    training: ClassVar = {"batch": 32}
    presets: ClassVar = {
        # The paper's settings for ImageNet. They need a cluster: on one machine training collapses.
        # Weights are averaged with .9999 at each of the generator's steps. Every step of the
        # discriminator draws a batch, so such a round is critic_steps x batch examples, and the
        # half-life critic_steps x batch x ln 2 / -ln .9999.
        "imagenet": {
            "conditional": True,
            "width": 96,
            "attention": 64,
            "spectral_modulation": True,
            "lr": 5e-5,
            "discriminator_lr": 2e-4,
            "critic_steps": 2,
            "batch": 2048,
            "half_life": 28_390_000,
        },
        # The authors' code on CIFAR-10, for tens of thousands of small pictures in classes.
        "cifar": {
            "conditional": True,
            "width": 64,
            "flat": True,
            "spectral_modulation": True,
            "lr": 2e-4,
            "discriminator_lr": 2e-4,
            "critic_steps": 4,
            "orthogonal": 0.0,
            "batch": 50,
            "half_life": 1_386_000,
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 8},
        "small": {"width": 16},
        "base": {"width": 32, "attention": 64},
        "large": {"width": 96, "attention": 64},
    }

    def __init__(self, config: BigGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if not 16 <= min(spec.height, spec.width) < 1024:
            raise UserError(
                "biggan needs pictures whose smaller side has 16 to 1023 pixels, not "
                f"{spec.width}x{spec.height}.",
                "Choose another --resolution; small pictures are enlarged.",
            )
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    @property
    def latent(self) -> int:
        return self.config.chunk * (doublings(self.spec.height, self.spec.width) + 1)

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, clock)
        if self.config.orthogonal:
            penalty = orthogonal_penalty(self.nets["generator"])
            terms["orthogonal"] = self.config.orthogonal * penalty
        return terms

    def cautions(self, count: int, batch: int) -> list[str]:
        found = []
        if count < 20_000:
            found.append(
                f"BigGAN was made for a million pictures; of {count:,} it is known to collapse early. "
                "stylegan2 (or fastgan, below 2,000) is the better choice, "
                "--augment diffaugment and --evaluate-every the least precautions."
            )
        if batch < 256:
            found.append(
                f"BigGAN was made for batches of 2,048; with {batch} it is known to be unstable. "
                "Keep the best checkpoint rather than the last (--evaluate-every)."
            )
        if not self.config.conditional:
            found.append("Without classes BigGAN is sngan with z in every block; that is simpler.")
        return found

    def settle(self, draws: Draws) -> None:
        """Standing statistics; not for condition vectors, which cannot be drawn."""
        if self.config.conditional and not self.spec.classes:
            return
        generator = self.nets["generator"]
        standing_statistics(
            generator,
            lambda: generator(self.latents(draws), self.chosen(draws, None)),
            self.config.standing_batches,
        )
