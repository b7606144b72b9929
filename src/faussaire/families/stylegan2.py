"""StyleGAN2: a mapped latent that sets the style of every layer; the best on one kind of picture.

Analyzing and Improving the Image Quality of StyleGAN. Tero Karras, Samuli Laine, Miika Aittala, Janne
Hellsten, Jaakko Lehtinen, Timo Aila. 2020. arXiv 1912.04958. What it keeps of StyleGAN is in Karras et
al. 2019, arXiv 1812.04948; what it needs for few data in Training Generative Adversarial Networks with
Limited Data, Karras et al. 2020, arXiv 2006.06676 (ADA, whose settings are our defaults).

A mapping network turns z into w; w scales the inputs of every convolution, whose outputs are scaled
back to unit deviation by statistics of the weights alone (2020, equations 1 to 3); noise of a learnt
strength is added for what is random in a picture; each resolution adds its own RGB picture to the
filtered enlargement of the last (section 4). The discriminator is residual, ends in the minibatch's
standard deviation, and is regularised by R1 in one round of 16 (section 3.1). In one round of 4 the
generator is asked to move pictures equally far for equal steps of w (section 3.2, equation 4). Two
latents share a picture in nine of ten cases (2019, section 3.1). Samples may be drawn towards the mean
w, which costs variety and removes the worst (2019, appendix B).

Where this leaves the papers:
- Any resolution from 16 up, non-square too: the smaller side starts from 4 to 7 pixels, and the
  picture is cropped where sides are not divisible.
- The small sizes, made for runs of minutes and hours, have no noise, no mixed styles and no path length
  (nor have the authors the last two for CIFAR-10), twice the rate, and 1 for gamma of R1. All four
  were measured: docs/families/stylegan2.md. `--size base` and `large`, and the presets built on them,
  are the papers'; there `r1: none` takes 2e-4 pixels / batch, the rule of ADA's released settings.
- The factor sqrt(2) of an activation multiplies the weights before it, as in ProGAN. In the
  discriminator it does not multiply the bias, whose steps are that much smaller.
- Conditions enter as in ADA's released settings: an embedding beside z, and in the discriminator the
  dot product with a mapped condition (Miyato and Koyama 2018, arXiv 1802.05637).
- `sample(latents=...)` takes one fixed noise for all pictures, so that a film shows w moving and
  nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.device import precise
from faussaire.core.family import Pictures
from faussaire.core.phase import Phase
from faussaire.game import GameConfig, ImageGAN
from faussaire.losses import Samples
from faussaire.nn.equal import EqualConv2d, EqualLinear, minibatch_stddev, pixel_norm
from faussaire.nn.resample import blur, downsample, upsample, upsample_conv
from faussaire.nn.sizes import base_size, cut, doublings

ROOT2 = math.sqrt(2.0)


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Config(GameConfig):
    """Settings of StyleGAN2.

    Attributes:
        latent: numbers in z.
        style: numbers in w.
        mapping_layers: layers from z to w.
        mapping_rate: learning rate of the mapping relative to the rest.
        width: channels at 4 pixels, were it not for max_width; they halve with each doubling.
        max_width: where the channels end, towards small resolutions.
        critic: `residual`, or `plain` convolutions one after the other (CIFAR-10).
        stddev_group: pictures whose deviation from each other the discriminator sees.
        noise: add noise to every layer.
        mixing: share of training pictures that two latents make.
        r1: gamma of gamma/2 E|grad D(x)|^2; None: 2e-4 pixels / batch.
        path_length: weight of the path length penalty; 0: none.
        path_every: rounds between path length penalties.
        path_decay: share of a new batch in the mean path length.
    """

    latent: int = 256
    style: int = 256
    mapping_layers: int = 2
    mapping_rate: float = 0.01
    width: int = 128
    max_width: int = 128
    critic: Literal["residual", "plain"] = "residual"
    stddev_group: int = 4
    noise: bool = False
    mixing: float = 0.0
    lr: float = 0.005
    beta1: float = 0.0
    beta2: float = 0.99
    r1: float | None = 1.0
    penalty_every: int = 16
    path_length: float = 0.0
    path_every: int = 4
    path_decay: float = 0.01
    augment: Literal["none", "diffaugment", "ada"] = "ada"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            latent=(1, 100_000),
            style=(1, 100_000),
            mapping_layers=(1, 100),
            mapping_rate=(0, None),
            width=(1, 1_000_000),
            max_width=(1, 65_536),
            stddev_group=(1, None),
            mixing=(0, 1),
            path_length=(0, None),
            path_every=(1, 1000),
            path_decay=(0, 1),
        )


_PAPER = {"noise": True, "mixing": 0.9, "path_length": 2.0, "r1": None, "lr": 0.0025}
"""Training as the papers have it: for days on a GPU."""


def levels(config: StyleGAN2Config, spec: Pictures) -> list[int]:
    """Channels by resolution, from 4 pixels at the smaller side (4 to 7) to the picture's."""
    steps = doublings(spec.height, spec.width)
    return [max(1, min(config.width // 2**level, config.max_width)) for level in range(steps + 1)]


def leaky(x: Tensor) -> Tensor:
    """The activation, without its gain; in place of x, which no layer here needs again."""
    return F.leaky_relu(x, 0.2, inplace=True)


# ---- The generator ----


class Mapping(nn.Module):
    """z (N, latent), a condition (N, K), or both, to w (N, style)."""

    def __init__(self, latent: int, conditions: int, style: int, layers: int, rate: float) -> None:
        super().__init__()
        self.embed = EqualLinear(conditions, style) if conditions else None
        sizes = [latent + (style if conditions else 0), *[style] * layers]
        self.layers = nn.ModuleList(
            EqualLinear(inputs, outputs, gain=ROOT2, rate=rate)
            for inputs, outputs in pairwise(sizes)
        )

    def forward(self, z: Tensor | None, condition: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [pixel_norm(z)]
        if self.embed is not None and condition is not None:
            parts.append(pixel_norm(self.embed(condition)))
        w = torch.cat(parts, dim=1)
        for layer in self.layers:
            w = leaky(layer(w))
        return w


class LatentMapping(Mapping):
    """The generator's mapping, which knows the mean of the w that it made in training."""

    mean: Tensor

    def __init__(self, config: StyleGAN2Config, conditions: int) -> None:
        super().__init__(
            config.latent, conditions, config.style, config.mapping_layers, config.mapping_rate
        )
        self.register_buffer("mean", torch.zeros(config.style))

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """Move the mean w towards that of a batch, (N, style), at the decay .998."""
        self.mean.lerp_(w.detach().float().mean(dim=0), 1.0 - 0.998)


def demodulation(weight: Tensor, scales: Tensor) -> Tensor:
    """1 / sqrt(sum_{i,t} (s_i w_{oit})^2 + 1e-8): (N, out), in the weight's own precision. Equation 3.

    What the outputs of a convolution must be multiplied by to have unit deviation again, its inputs
    being independent and of unit deviation before they were scaled.

    Args:
        weight: (out, in, k, k).
        scales: s, (N, in).
    """
    with torch.autocast(weight.device.type, enabled=False):
        energy = weight.square().sum(dim=(2, 3))
        return (scales.to(energy.dtype).square() @ energy.T + 1e-8).rsqrt()


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels w scales; equations 1 to 3 without a kernel per picture.

    Scaling a kernel's input channels is scaling the input, and scaling its output channels is scaling
    the output: all pictures share one convolution. The factor for the output is returned beside it,
    for what comes next to apply in one pass over memory.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel.
        style: numbers in w.
        demodulate: whether the factor for the output exists.
        grow: double height and width.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        style: int,
        *,
        demodulate: bool = True,
        grow: bool = False,
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(style, inputs, bias_init=1.0)
        # (in, out, k, k) where it grows: as the transposed convolution reads it.
        shape = (inputs, outputs) if grow else (outputs, inputs)
        self.weight = nn.Parameter(torch.randn(*shape, kernel, kernel))
        self.scale = 1.0 / math.sqrt(inputs * kernel**2)
        self.demodulate, self.grow = demodulate, grow

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (N, in, H, W) and w (N, style) to y (N, out, H, W) and its factor (N, out) or None."""
        scales = self.affine(w) * self.scale
        x = x * scales.to(x.dtype)[:, :, None, None]
        weight = self.weight
        factor = None
        if self.demodulate:
            factor = demodulation(weight.transpose(0, 1) if self.grow else weight, scales)
        if self.grow:
            return upsample_conv(x, weight), factor
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2), factor


class StyledLayer(nn.Module):
    """Modulated convolution, demodulation, noise, bias, leaky ReLU with gain sqrt(2)."""

    def __init__(
        self, inputs: int, outputs: int, config: StyleGAN2Config, *, grow: bool = False
    ) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 3, config.style, grow=grow)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(())) if config.noise else None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x (N, in, h, w), w (N, style), noise (N, 1, H, W) or None to (N, out, H, W)."""
        y, factor = self.convolution(x, w)
        assert factor is not None  # this layer's convolution demodulates
        # sqrt(2) leaky(a) = leaky(sqrt(2) a): the gain goes into what is small.
        factor, bias = factor * ROOT2, self.bias * ROOT2
        y = torch.addcmul(
            bias.to(y.dtype)[None, :, None, None], y, factor.to(y.dtype)[:, :, None, None]
        )
        if self.strength is not None and noise is not None:
            y = y + (noise * (self.strength * ROOT2)).to(y.dtype)
        return leaky(y)


class ToRGB(nn.Module):
    """Features to a picture in float32: a modulated 1x1 convolution, not demodulated."""

    def __init__(self, inputs: int, channels: int, style: int) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, channels, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y, _ = self.convolution(x, w)
        return y.float() + self.bias[:, None, None]


class Synthesis(nn.Module):
    """Styles and noise to pictures (N, C, H, W), not bounded.

    Attributes:
        styles: layers that have a w of their own. An RGB layer shares the one of the convolution
            that follows it, so there are 18 at 1024 pixels.
        noise_sizes: (H, W) of each convolution's noise.
    """

    def __init__(self, config: StyleGAN2Config, spec: Pictures) -> None:
        super().__init__()
        widths = levels(config, spec)
        steps = len(widths) - 1
        self.size = (spec.height, spec.width)
        # Rounded up, so that the doubled size covers the picture; `forward` crops the rest.
        base = base_size(spec.height, spec.width, steps)
        self.constant = nn.Parameter(torch.randn(1, widths[0], *base))
        self.layers = nn.ModuleList([StyledLayer(widths[0], widths[0], config)])
        for wide, narrow in pairwise(widths):
            self.layers.append(StyledLayer(wide, narrow, config, grow=True))
            self.layers.append(StyledLayer(narrow, narrow, config))
        self.to_rgb = nn.ModuleList(ToRGB(width, spec.channels, config.style) for width in widths)
        self.styles = len(self.layers) + 1
        # The first level has one convolution, the others two.
        self.noise_sizes = [
            (base[0] * 2**level, base[1] * 2**level)
            for level in range(steps + 1)
            for _ in range(2 if level else 1)
        ]

    @property
    def noise_size(self) -> int:
        """Random numbers in a picture's noise."""
        return sum(height * width for height, width in self.noise_sizes)

    def forward(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pictures (N, C, H, W).

        Args:
            w: (N, style) for all layers, or (N, styles, style).
            noise: (N, noise_size) standard normal numbers; None: no noise.
        """
        each = [w] * self.styles if w.dim() == 2 else list(w.unbind(1))
        planes: list[Tensor | None] = [None] * len(self.layers)
        if noise is not None:
            parts = noise.split([height * width for height, width in self.noise_sizes], dim=1)
            planes = [
                part.unflatten(1, (1, *size))
                for part, size in zip(parts, self.noise_sizes, strict=True)
            ]
        x = self.constant.expand(len(w), -1, -1, -1)
        picture = None
        for index, layer in enumerate(self.layers):
            x = layer(x, each[index], planes[index])
            if index % 2 == 0:
                made = self.to_rgb[index // 2](x, each[index + 1])
                picture = made if picture is None else upsample(picture) + made
        assert picture is not None  # the first layer has made one
        return cut(picture, self.size)


# ---- The discriminator ----


class Halving(nn.Module):
    """Two convolutions, the second to half the size; where residual, beside a filtered shortcut."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.look = EqualConv2d(inputs, inputs, 3, gain=ROOT2)
        # The sum of two is divided by sqrt(2), which goes into the gains of both.
        gain = 1.0 if residual else ROOT2
        self.narrow = EqualConv2d(inputs, outputs, 3, gain=gain, stride=2, padding=0)
        self.shortcut = (
            EqualConv2d(inputs, outputs, 1, bias=False, gain=1 / ROOT2) if residual else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, floor(H / 2), floor(W / 2))."""
        y = leaky(self.narrow(blur(leaky(self.look(x)), padding=2)))
        return y if self.shortcut is None else y + self.shortcut(downsample(x))


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,)."""

    def __init__(self, config: StyleGAN2Config, spec: Pictures, conditions: int) -> None:
        super().__init__()
        widths = levels(config, spec)[::-1]
        steps = len(widths) - 1
        end = (spec.height // 2**steps) * (spec.width // 2**steps)
        last = widths[-1]
        self.group = config.stddev_group
        self.from_rgb = EqualConv2d(spec.channels, widths[0], 1, gain=ROOT2)
        self.body = nn.Sequential(
            *(
                Halving(wide, narrow, residual=config.critic == "residual")
                for wide, narrow in pairwise(widths)
            )
        )
        self.last = EqualConv2d(last + 1, last, 3, gain=ROOT2)
        self.dense = EqualLinear(last * end, last, gain=ROOT2)
        size = config.style if conditions else 1
        self.classify = EqualLinear(last, size)
        self.mapping = (
            Mapping(0, conditions, size, config.mapping_layers, config.mapping_rate)
            if conditions
            else None
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.body(leaky(self.from_rgb(x)))
        x = leaky(self.last(minibatch_stddev(x, self.group)))
        logits = self.classify(leaky(self.dense(x.flatten(1))))
        if self.mapping is not None and condition is not None:
            wanted = self.mapping(None, condition)
            logits = (logits * wanted).sum(dim=1, keepdim=True) / math.sqrt(wanted.shape[1])
        return logits.squeeze(1)


# ---- The family ----


class StyleGAN2(ImageGAN[StyleGAN2Config]):
    """StyleGAN2 on pictures of any size from 16x16 up, unconditional or by class."""

    Config = StyleGAN2Config
    averaged = ("mapping", "synthesis")
    spaces = ("w", "w+", "z")
    least_side = 16
    training: ClassVar = {"batch": 16}
    sizes: ClassVar = {
        "tiny": {"latent": 64, "style": 64, "width": 64, "max_width": 64},
        "small": {},
        "base": {
            **_PAPER,
            "latent": 512,
            "style": 512,
            "mapping_layers": 8,
            "width": 4096,
            "max_width": 512,
            "batch": 32,
        },
        "large": {
            **_PAPER,
            "latent": 512,
            "style": 512,
            "mapping_layers": 8,
            "width": 8192,
            "max_width": 512,
            "batch": 32,
        },
    }
    presets: ClassVar = {
        # Configuration F of the paper: no augmentation.
        "paper": {**sizes["large"], "augment": "none", "r1": 10.0, "lr": 0.002},
        # The settings that ADA's authors released, by the size of their pictures.
        "paper256": {
            **sizes["base"],
            "r1": 1.0,
            "batch": 64,
            "stddev_group": 8,
            "half_life": 20_000,
        },
        "paper512": {
            **sizes["large"],
            "r1": 0.5,
            "batch": 64,
            "stddev_group": 8,
            "half_life": 20_000,
        },
        "ffhq1024": {**sizes["large"], "r1": 2.0, "lr": 0.002},
        "cifar": {
            **_PAPER,
            "latent": 512,
            "style": 512,
            "width": 8192,
            "max_width": 512,
            "critic": "plain",
            "r1": 0.01,
            "batch": 64,
            "stddev_group": 32,
            "half_life": 500_000,
            "path_length": 0.0,
            "mixing": 0.0,
        },
        # Under 2,000 pictures: D overfits within minutes, so ADA may move five times as fast.
        "few": {"ada_span": 100_000},
    }

    def __init__(self, config: StyleGAN2Config, spec: Pictures) -> None:
        super().__init__(config, spec)
        conditions = spec.condition_size if config.conditional else 0
        synthesis = Synthesis(config, spec)
        self.nets = {
            "mapping": LatentMapping(config, conditions),
            "synthesis": synthesis,
            "discriminator": Discriminator(config, spec, conditions),
        }
        self.styles = synthesis.styles
        self.noise_size = synthesis.noise_size if config.noise else 0
        self._rows: int = self.training["batch"]
        self.mean_path = torch.zeros(())
        self._mapped = torch.zeros(())

    @property
    def r1(self) -> float:
        """gamma of R1: the one asked for, or 2e-4 pixels / batch."""
        if self.config.r1 is not None:
            return self.config.r1
        return 2e-4 * self.spec.height * self.spec.width / self._rows

    def phases(self) -> tuple[Phase, ...]:
        """A round: discriminator, lazy R1, generator, lazy path length."""
        *judges, forge = super().phases()
        players = ("mapping", "synthesis")
        forge = dataclasses.replace(forge, nets=players)
        path = Phase(name="path", nets=players, loss=self.path_loss, every=self.config.path_every)
        return (*judges, forge, path) if self.config.path_length else (*judges, forge)

    # ---- Losses ----

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        self._rows = batch.whole
        return super().discriminator_loss(batch, clock)

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        """G(z, y) with noise and mixed styles; the mean w follows."""
        if not self.config.mixing:
            w = self.nets["mapping"](z, condition)
            self._mapped = w.detach()
            return self.nets["synthesis"](w, self.noise(draws))
        twice = None if condition is None else torch.cat([condition, condition])
        both = self.nets["mapping"](torch.cat([z, self.latents(draws)]), twice)
        w, other = both.chunk(2)
        self._mapped = w.detach()
        return self.nets["synthesis"](self.mixed(w, other, draws), self.noise(draws))

    def mixed(self, w: Tensor, other: Tensor, draws: Draws) -> Tensor:
        """Styles by layer, (N, styles, style), of which those behind a random one are another's.

        Karras et al. 2019, section 3.1. Each picture has its own crossover; `mixing` of them have one.
        """
        crossover = 1 + draws.integers(self.styles - 1)
        crossover = torch.where(draws.uniform() < self.config.mixing, crossover, self.styles)
        own = torch.arange(self.styles, device=w.device) < crossover[:, None]
        return torch.where(own[:, :, None], w[:, None], other[:, None])

    def noise(self, draws: Draws) -> Tensor | None:
        """(N, noise_size), or None for a generator without."""
        return draws.normal(self.noise_size) if self.noise_size else None

    def made(self, batch: Batch, clock: Clock) -> Samples:
        images = super().made(batch, clock)
        if (rows := batch.collect("w", self._mapped)) is not None:
            mapping = self.nets["mapping"]
            assert isinstance(mapping, LatentMapping)
            mapping.track(rows)
        return images

    def path_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """E[(|J_w' y| - a)^2], a the mean length so far. Equation 4; appendix B.

        On every second picture of the batch. y is noise of N(0, 1 / (H W)) and lengths are taken per
        layer, their mean square over layers: in these units the paper's weight, ln 2 / (r^2 (ln r -
        ln 2)) for a square of side r, is 2 at every resolution.
        """
        draws, condition = batch.draws, self.condition(batch)
        half = slice(None, None, 2)
        z, noise = self.latents(draws)[half], self.noise(draws)
        direction = draws.normal(*self.spec.shape)[half]
        direction = direction / math.sqrt(self.spec.height * self.spec.width)
        with precise():
            w = self.nets["mapping"](z, None if condition is None else condition[half])
            w = w[:, None].expand(-1, self.styles, -1)
            images = self.nets["synthesis"](w, None if noise is None else noise[half])
            (moved,) = torch.autograd.grad((images * direction).sum(), w, create_graph=True)
        lengths = moved.square().sum(dim=2).mean(dim=1).sqrt()
        self.mean_path = self.mean_path.to(lengths.device)
        if (rows := batch.collect("path", lengths)) is not None:
            self.mean_path = self.mean_path.lerp(rows.mean(), self.config.path_decay)
        batch.observe({"path length": lengths})
        return {"length": self.config.path_length * (lengths - self.mean_path).square().mean()}

    # ---- State and sampling ----

    def extra_state(self) -> dict[str, Tensor]:
        found = super().extra_state()
        return {**found, "mean_path": self.mean_path} if self.config.path_length else found

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        super().load_extra_state(state)
        if "mean_path" in state:
            self.mean_path = state["mean_path"].clone()

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Samples; `truncation` psi takes w to mean + psi (w - mean): 1 changes nothing, 0.7 is usual.

        Where latents are given, noise is the same for all, and pictures depend on them alone.
        """
        z = self.latents(draws) if latents is None else latents
        mapping = self.nets["mapping"]
        assert isinstance(mapping, LatentMapping)
        w = mapping(z, self.chosen(draws, labels))
        if truncation is not None:
            w = torch.lerp(mapping.mean, w, truncation)
        noise = self.noise(draws) if latents is None else None
        return self.synthesised(w, noise).clamp(-1.0, 1.0)

    def mapped(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.nets["mapping"](z, None if labels is None else self.encoded(labels))

    def synthesised(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:  # one for all pictures, which then depend on w alone
            noise = self.noise(RowDraws.counted(0, 1, device=w.device))
            noise = None if noise is None else noise.expand(len(w), -1)
        return self.nets["synthesis"](w, noise)

    @property
    def noise_planes(self) -> list[tuple[int, int]]:
        synthesis = self.nets["synthesis"]
        assert isinstance(synthesis, Synthesis)
        return synthesis.noise_sizes if self.config.noise else []

    def affines(self) -> list[Tensor]:
        """What w changes in the styles of each convolution, and of the last layer's RGB.

        A factor that all styles of a layer share is undone by demodulation (equation 3). So what its
        map has along the styles of the mean w is no change of the picture, and is left out: in
        trained models it is what the map has most of.
        """
        mapping, synthesis = self.nets["mapping"], self.nets["synthesis"]
        assert isinstance(mapping, LatentMapping)
        assert isinstance(synthesis, Synthesis)
        found = []
        for layer in (*synthesis.layers, synthesis.to_rgb[-1]):
            convolution = layer.convolution
            assert isinstance(convolution, ModulatedConv2d)
            affine = convolution.affine
            change = affine.weight.detach() * affine.scale
            if convolution.demodulate:
                with torch.no_grad():
                    usual = F.normalize(affine(mapping.mean[None])[0], dim=0)
                change = change - torch.outer(usual, usual @ change)
            found.append(change)
        return found
