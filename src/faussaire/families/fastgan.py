"""FastGAN: a light GAN for a few hundred pictures.

Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis. Bingchen Liu,
Yizhe Zhu, Kunpeng Song, Ahmed Elgammal. 2021. arXiv 2101.04775.

- Skip-layer excitation (section 3.1, equation 1): y = F(x_low, W) * x_high. A small map, pooled to 4x4
  and brought to one number per channel, gates the channels of a map sixteen times as large. It
  shortens the way of the gradient, and lets z steer late layers.
- The generator has one convolution per resolution, two at every other one, with gated linear units,
  batch norm, and noise whose strength is learnt.
- The discriminator encodes reals so that small decoders can rebuild them (section 3.2, equation 2):
  L_recons = E |G(f) - T(x)|, from its last map the whole picture, from the map before a random
  quarter of it. It then keeps what a picture shows, where a discriminator of few pictures would know
  them by some detail.
- Hinge losses (equations 3 and 4), DiffAugment (Zhao et al. 2020, arXiv 2006.10738), spectral norm of
  every convolution; in the authors' code the hinge's margin is drawn from U(.8, 1) for every logit.

`--discriminator projected` exchanges the discriminator for that of

Projected GANs Converge Faster. Axel Sauer, Kashyap Chitta, Jens Müller, Andreas Geiger. 2021. arXiv
2111.01007: a frozen network that knows natural pictures (here SqueezeNet 1.1) gives maps at four
scales, frozen random convolutions mix their channels and scales (section 3.2), and four small
discriminators judge them (equation 4, hinge).

Where this leaves the papers:
- The paper's nets begin at 256 pixels. From 16 up here, of any shape: the number of doublings follows
  from the smaller side, widths are those that the paper has at equal distance from the 4x4 map in the
  generator and from the last map in the discriminator. Where sixteen-fold maps are lacking (below 64
  pixels) the first map gates the last one.
- Rebuilt pictures are compared by L1, where the authors use LPIPS, whose weights cannot be assumed;
  `reconstruction="perceptual"` takes SqueezeNet's stages (`metrics.perceptual`), fetched if need be.
- The quarter to rebuild is drawn for each picture, not for each batch.
- Conditions, which the paper has not: they join z in the generator; each of the discriminator's heads
  adds the inner product of the condition's embedding and its map (projection, Miyato and Koyama 2018,
  arXiv 1802.05637).
- SqueezeNet, the projected discriminator's eye, is smaller than the paper's EfficientNet-lite1. The
  preset `projected` has the plain hinge and all of DiffAugment, as that paper does.
- The defaults are for CPUs: a quarter of the paper's width, and batches of 16. `--preset paper` has 64
  and 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Pictures
from faussaire.game import GameConfig, ImageGAN, LossName
from faussaire.losses import Critic, Samples
from faussaire.metrics.perceptual import PerceptualDistance, open_perceptual
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import base_size, cut, doublings
from faussaire.nn.spectral import converge, spectral


@dataclass(frozen=True, kw_only=True)
class FastGANConfig(GameConfig):
    """Settings of FastGAN.

    Attributes:
        latent: numbers in z, N(0, 1).
        width: channels of the generator's map at 128 pixels; the other maps have multiples of it. The
            paper has 64, for a GPU.
        discriminator_width: the same of the discriminator; None: width.
        discriminator: `fastgan`, or `projected`: judge features of a frozen network of natural
            pictures, whose weights (5 MB) are downloaded once.
        reconstruction: what compares rebuilt pictures with real ones: `l1`, or `perceptual`, with the
            same frozen network.
        margin_noise: width of the range, up to 1, from which the hinge's margin is drawn; 0: always 1.
        augment: as in every image family; DiffAugment of colour and place here.
    """

    latent: int = 256
    width: int = 16
    discriminator_width: int | None = None
    discriminator: Literal["fastgan", "projected"] = "fastgan"
    reconstruction: Literal["l1", "perceptual"] = "l1"
    margin_noise: float = 0.2
    loss: LossName = "hinge"
    augment: Literal["none", "diffaugment", "ada"] = "diffaugment"
    augment_policy: str = "color,translation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, latent=(1, 100_000), width=(4, 1024), margin_noise=(0, 1))
        if self.discriminator_width is not None:
            check_range(self, discriminator_width=(4, 1024))


# ---- Generator ----

_GENERATOR = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)
"""Width multipliers of the generator's maps of 4, 8, ... 1024 pixels (figure 3's table in the code)."""

_SMALL = (
    5  # doublings to the smaller of the two pictures that the discriminator looks at: 128 pixels
)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    return spectral(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False))


class Gate(nn.Module):
    """Batch norm, then a gated linear unit: (N, 2 C, H, W) to (N, C, H, W), a * sigmoid(b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNormAct2d(2 * channels, negative_slope=1.0)  # slope 1: no activation

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(x).chunk(2, dim=1)
        return a * b.sigmoid()  # F.glu's backward takes four times as long in channels_last


class Noise(nn.Module):
    """x + w * noise, w learnt from 0: (N, C, H, W) and noise (N, 1, H, W), or None for none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x + self.weight.to(x.dtype) * noise.to(x.dtype)


class Up(nn.Module):
    """Twice the size: (N, inputs, H, W) to (N, outputs, 2H, 2W).

    With `deep`, a second convolution follows, and both get noise.
    """

    def __init__(self, inputs: int, outputs: int, *, deep: bool) -> None:
        super().__init__()
        self.first = _convolution(inputs, 2 * outputs, 3, padding=1)
        self.gate = Gate(outputs)
        self.noises = nn.ModuleList([Noise(), Noise()] if deep else [])
        self.second = _convolution(outputs, 2 * outputs, 3, padding=1) if deep else None
        self.last_gate = Gate(outputs) if deep else None

    def forward(self, x: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        x = self.first(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if self.second is None or self.last_gate is None:
            return self.gate(x)
        early, late = noise or (None, None)
        x = self.gate(self.noises[0](x, early))
        return self.last_gate(self.noises[1](self.second(x), late))


class Excitation(nn.Module):
    """Skip-layer excitation's gate: a small map (N, low, h, w) to one number per channel of a large one.

    Equation 1 and figure 3: pooled to 4x4, a 4x4 convolution, Swish in the authors' code (LeakyReLU in
    the paper), a 1x1 convolution and a sigmoid: (N, high, 1, 1).
    """

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.gather = _convolution(low, high, 4)
        self.choose = _convolution(high, high, 1)

    def forward(self, low: Tensor) -> Tensor:
        return self.choose(F.silu(self.gather(F.adaptive_avg_pool2d(low, 4)))).sigmoid()


class Generator(nn.Module):
    """z (N, latent) to pictures (N, C, H, W) in [-1, 1], and a smaller copy made by a head of its own.

    Attributes:
        noise_shapes: (1, h, w) of each noise map, in the order of `noise`.
    """

    def __init__(self, config: FastGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        # Rounded up, so that the doubled size covers the picture; `forward` crops the rest.
        base = base_size(spec.height, spec.width, steps)
        self.conditions = spec.condition_size if config.conditional else 0
        multiples = [*_GENERATOR, *[_GENERATOR[-1]] * steps][: steps + 1]
        widths = [max(1, int(config.width * multiple)) for multiple in multiples]
        self.start = spectral(
            nn.ConvTranspose2d(config.latent + self.conditions, 2 * widths[0], base, bias=False)
        )
        self.start_gate = Gate(widths[0])
        # Two convolutions at 8, 32, 128 pixels, one at 16, 64, 256.
        self.ups = nn.ModuleList(
            Up(low, high, deep=step % 2 == 0) for step, (low, high) in enumerate(pairwise(widths))
        )
        self.noise_shapes = [
            (1, base[0] * 2 ** (step + 1), base[1] * 2 ** (step + 1))
            for step in range(0, steps, 2)
            for _ in range(2)
        ]
        # Map 4 gates 64, 8 gates 128, 16 gates 256, 32 gates 512.
        self.reach = min(4, steps)
        self.skips = nn.ModuleList(
            Excitation(widths[low], widths[low + self.reach])
            for low in range(min(4, steps + 1 - self.reach))
        )
        self.small_step = min(_SMALL, steps - 1)
        self.small_size = small_size(spec)
        self.to_small = _convolution(widths[self.small_step], spec.channels, 1)
        self.to_picture = _convolution(widths[-1], spec.channels, 3, padding=1)
        initialise(self)

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        *,
        small: bool = False,
    ) -> Samples:
        """Pictures; with `small`, a pair of pictures and smaller ones.

        Args:
            z: (N, latent).
            condition: (N, K).
            noise: (N, *shape) for each of `noise_shapes`; None for none.
            small: whether the smaller ones are wanted.
        """
        if self.conditions and condition is not None:
            z = torch.cat([z, condition], dim=1)
        maps = [self.start_gate(self.start(z[:, :, None, None]))]
        taken = 0
        for step, up in enumerate(self.ups, start=1):
            own = None
            if step % 2 == 1 and noise is not None:
                own, taken = noise[taken : taken + 2], taken + 2
            x = up(maps[-1], own)
            low = step - self.reach
            if 0 <= low < len(self.skips):
                x = x * self.skips[low](maps[low])
            maps.append(x)
        picture = cut(self.to_picture(maps[-1]), self.size).tanh()
        if not small:
            return picture
        return picture, cut(self.to_small(maps[self.small_step]), self.small_size).tanh()


def small_size(spec: Pictures) -> tuple[int, int]:
    """Height and width of the smaller pictures: 128 where the paper has them, else half."""
    steps = doublings(spec.height, spec.width)
    by = 2 ** (steps - min(_SMALL, steps - 1))
    return spec.height // by, spec.width // by


# ---- Discriminator ----

_HALVINGS = 5  # at 256 pixels; larger pictures are halved more often on the way in


class Down(nn.Module):
    """Half the size: (N, inputs, H, W) to (N, outputs, H/2, W/2).

    With `deep`, the mean of two paths: 4x4 and 3x3 convolutions, and pooling with a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, deep: bool) -> None:
        super().__init__()
        layers = [_convolution(inputs, outputs, 4, 2, 1), _norm(outputs)]
        if deep:
            layers += [_convolution(outputs, outputs, 3, padding=1), _norm(outputs)]
        self.body = nn.Sequential(*layers)
        self.side = (
            nn.Sequential(nn.AvgPool2d(2), _convolution(inputs, outputs, 1), _norm(outputs))
            if deep
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if self.side is None else (self.body(x) + self.side(x)) * 0.5


def _norm(channels: int) -> BatchNormAct2d:
    return BatchNormAct2d(channels, negative_slope=0.2)


class Head(nn.Module):
    """Logits of a map's 4x4 windows, (N, C, h, w) to (N, L); after a 1x1 convolution if `hidden`."""

    def __init__(self, channels: int, conditions: int, hidden: int = 0) -> None:
        super().__init__()
        self.hidden = (
            nn.Sequential(_convolution(channels, hidden, 1), _norm(hidden)) if hidden else None
        )
        self.judge = _convolution(hidden or channels, 1, 4)
        self.embed = spectral(nn.Linear(conditions, channels, bias=False)) if conditions else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        logits = self.judge(x if self.hidden is None else self.hidden(x)).flatten(1)
        if self.embed is not None and condition is not None:
            logits = logits + (self.embed(condition) * x.mean((2, 3))).sum(1, keepdim=True)
        return logits


class Decoder(nn.Module):
    """A map (N, C, h, w) to a picture (N, channels, h 2^doublings, w 2^doublings) in [-1, 1]."""

    def __init__(self, inputs: int, width: float, channels: int, doublings: int) -> None:
        super().__init__()
        widths = [inputs, *(max(1, int(width * m)) for m in (4, 2, 2, 1)[4 - doublings :])]
        self.ups = nn.Sequential(*(Up(low, high, deep=False) for low, high in pairwise(widths)))
        self.to_picture = _convolution(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_picture(self.ups(x)).tanh()


class Discriminator(nn.Module):
    """Pictures, or pairs of pictures and smaller ones, to logits (N, L), one for each window.

    A deep branch sees the pictures, a shallow one the smaller copies. Maps early in the deep branch
    excite late ones.
    """

    def __init__(self, config: FastGANConfig, spec: Pictures) -> None:
        super().__init__()
        width = config.discriminator_width or config.width
        conditions = spec.condition_size if config.conditional else 0
        side = min(spec.height, spec.width)
        halvings = int(math.log2(side / 8))  # to a last map of 8..15 pixels
        deep = min(_HALVINGS, halvings)
        channels = [_width(width, 8, left) for left in range(halvings, -1, -1)]
        entry = halvings - deep
        self.enter = nn.Sequential(
            _convolution(spec.channels, channels[1], 4, 2, 1)
            if entry
            else _convolution(spec.channels, channels[0], 3, padding=1),
            nn.LeakyReLU(0.2),
            *(Down(low, high, deep=False) for low, high in pairwise(channels[1 : entry + 1])),
        )
        channels = channels[entry:]
        self.downs = nn.ModuleList(Down(low, high, deep=True) for low, high in pairwise(channels))
        self.reach = min(3, deep)
        self.skips = nn.ModuleList(
            Excitation(channels[low], channels[low + self.reach])
            for low in range(deep + 1 - self.reach)
        )
        self.head = Head(channels[-1], conditions, hidden=_width(width, 4, 0))

        self.small_size = small_size(spec)
        few = int(math.log2(min(self.small_size) / 8))
        small = [_width(width, 4, left) for left in range(few, -1, -1)]
        if few:
            entrance = [_convolution(spec.channels, small[1], 4, 2, 1)]
            small = small[1:]
        else:
            entrance = [_convolution(spec.channels, small[0], 3, padding=1)]
        self.small = nn.Sequential(
            *entrance,
            nn.LeakyReLU(0.2),
            *(Down(low, high, deep=False) for low, high in pairwise(small)),
        )
        self.small_head = Head(small[-1], conditions)

        up = min(4, max(1, deep - 1))
        self.decode = Decoder(channels[-1], width / 2, spec.channels, up)
        self.decode_part = Decoder(channels[-2], width / 2, spec.channels, up)
        self.decode_small = Decoder(small[-1], width / 2, spec.channels, up)
        initialise(self)

    def forward(
        self, images: Samples, condition: Tensor | None = None, part: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits; with `part`, also what the decoders make of the pictures.

        Args:
            images: (N, C, H, W), or a pair with the smaller pictures.
            condition: (N, K).
            part: (N,) of 0 to 3, the quarter that each picture's part is rebuilt of: top left, top
                right, bottom left, bottom right.

        Returns:
            Logits (N, L), or these, the rebuilt pictures, the rebuilt quarters and the rebuilt
            smaller pictures.
        """
        large, small = images if isinstance(images, tuple) else (images, self.shrunk(images))
        maps = [self.enter(large)]
        for step, down in enumerate(self.downs, start=1):
            x = down(maps[-1])
            if step >= self.reach:
                x = x * self.skips[step - self.reach](maps[step - self.reach])
            maps.append(x)
        little = self.small(small)
        logits = torch.cat(
            [self.head(maps[-1], condition), self.small_head(little, condition)], dim=1
        )
        if part is None:
            return logits
        return (
            logits,
            self.decode(maps[-1]),
            self.decode_part(quarter(maps[-2], part)),
            self.decode_small(little),
        )

    def shrunk(self, images: Tensor) -> Tensor:
        """The pictures in the size that the shallow branch sees."""
        return shrink(images, self.small_size)


def _width(width: int, most: int, left: int) -> int:
    """Channels of a map that is still to be halved `left` times."""
    return max(1, width * most // 2**left)


def shrink(images: Tensor, size: Sequence[int]) -> Tensor:
    """Pictures (N, C, H, W) averaged down to (N, C, *size)."""
    return F.interpolate(images, tuple(size), mode="area")


def quarter(x: Tensor, part: Tensor) -> Tensor:
    """One quarter of each map: (N, C, H, W) and (N,) of 0 to 3 to (N, C, ceil(H/2), ceil(W/2))."""
    height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    below, right = ((part >= 2).view(-1, 1, 1, 1), (part % 2 == 1).view(-1, 1, 1, 1))
    rows = torch.where(below, x[:, :, -height:], x[:, :, :height])
    return torch.where(right, rows[..., -width:], rows[..., :width])


def initialise(net: nn.Module) -> None:
    """Weights from N(0, .02) (spectral norm leaves nothing of the .02), norms' gains from N(1, .02)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, BatchNormAct2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    converge(net)


# ---- Projected discriminator ----

_SIGHT = 128  # pixels of the smaller side that the frozen network is shown at least
_SCALES = (0, 1, 2, 6)  # of SqueezeNet's stages: a half, quarter, eighth and sixteenth of the side
_SEEN = (64, 128, 256, 512)  # their channels, which the random projections keep
_LEVELS = (
    34.0,
    59.0,
    51.0,
    12.0,
)  # their root mean squares on photographs (60 of BSDS500, 128 pixels)


class Pyramid:
    """Frozen features of pictures at four scales, their channels and scales mixed at random.

    Section 3.2 of Sauer et al. 2021: cross-channel mixing by random 1x1 convolutions; cross-scale mixing
    from the coarsest map up, by random 3x3 convolutions and bilinear enlargement; Kaiming's
    initialisation, never trained. The random weights are those of a fixed seed, so nothing of this
    needs a place in a checkpoint. No `nn.Module`, so that nobody trains or saves it.
    """

    def __init__(self) -> None:
        self._eye: Callable[[Tensor], list[Tensor]] | None = None
        self._mean = self._deviation = torch.zeros(())
        generator = torch.Generator().manual_seed(2111_01007)

        def kaiming(*shape: int) -> Tensor:
            weight = torch.randn(shape, generator=generator, device="cpu")
            return weight / math.sqrt(math.prod(shape[1:]))  # gain 1: no rectifier follows

        self._channels = [kaiming(c, c, 1, 1) for c in _SEEN]
        self._scales = [kaiming(fine, coarse, 3, 3) for fine, coarse in pairwise(_SEEN)]

    def sides(self, spec: Pictures) -> list[int]:
        """Smaller sides of the four maps, in pixels."""
        side = (max(_SIGHT, min(spec.height, spec.width)) - 3) // 2 + 1
        found = [side]
        for _ in range(3):
            side = -(-(side - 3) // 2) + 1
            found.append(side)
        return found

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Four maps (N, C, h, w), finest first, of pictures (N, 1, 3 or 4, H, W) in [-1, 1].

        Raises:
            UserError: the frozen network's weights cannot be had.
        """
        if self._eye is None:
            self._open(images.device)
        factor = _SIGHT / min(images.shape[2:])
        if factor > 1.0:
            size = [max(_SIGHT, round(side * factor)) for side in images.shape[2:]]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        assert self._eye is not None
        stages = self._eye(self._shown(images))
        mixed = [
            F.conv2d(stages[scale] / level, weight)
            for scale, level, weight in zip(_SCALES, _LEVELS, self._channels, strict=True)
        ]
        for fine in reversed(range(3)):
            coarse = F.conv2d(mixed[fine + 1], self._scales[fine], padding=1)
            size = mixed[fine].shape[2:]
            enlarged = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
            mixed[fine] = mixed[fine] + enlarged
        return mixed

    def _open(self, device: torch.device) -> None:
        """Read the frozen network, and have all weights here, in the layout that convolutions want."""
        perceptual = open_perceptual(device=str(device))
        layout = torch.channels_last
        if isinstance(perceptual.net, nn.Module):
            perceptual.net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        self._eye = perceptual.net.stages
        self._mean, self._deviation = (
            torch.tensor(value, device=device)[:, None, None]
            for value in (perceptual.mean, perceptual.deviation)
        )
        self._channels, self._scales = (
            [weight.to(device, memory_format=layout) for weight in weights]
            for weights in (self._channels, self._scales)
        )

    def _shown(self, images: Tensor) -> Tensor:
        """Pictures as the network wants them; not clamped, which would hide them from the gradient."""
        x = (images + 1.0) / 2.0
        if x.shape[1] == 4:  # transparent pictures lie on white
            x = x[:, :3] * x[:, 3:] + (1.0 - x[:, 3:])
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return (x - self._mean) / self._deviation


class ProjectedDiscriminator(nn.Module):
    """Pictures to logits (N, L): four small discriminators, one for each scale of frozen features.

    Each chooses among the channels by a 1x1 convolution, halves its map to 4..7 pixels and judges the
    4x4 windows.
    """

    def __init__(self, config: FastGANConfig, spec: Pictures) -> None:
        super().__init__()
        width = config.discriminator_width or config.width
        conditions = spec.condition_size if config.conditional else 0
        self.pyramid = Pyramid()
        self.bodies, self.heads = nn.ModuleList(), nn.ModuleList()
        for side, seen in zip(self.pyramid.sides(spec), _SEEN, strict=True):
            halvings = int(math.log2(side / 4))
            widths = [_width(width, 8, left) for left in range(halvings, -1, -1)]
            # No norm here, as in the pixels' discriminator: batch norm would hide what all pictures of
            # a batch share, such as a background of the wrong colour.
            self.bodies.append(
                nn.Sequential(
                    _convolution(seen, widths[0], 1),
                    nn.LeakyReLU(0.2),
                    *(Down(low, high, deep=False) for low, high in pairwise(widths)),
                )
            )
            self.heads.append(Head(widths[-1], conditions))
        initialise(self)

    def forward(self, images: Samples, condition: Tensor | None = None) -> Tensor:
        """Logits of pictures (N, C, H, W); of a pair, the smaller ones are not looked at."""
        images = images[0] if isinstance(images, tuple) else images
        found = zip(self.pyramid(images), self.bodies, self.heads, strict=True)
        return torch.cat([head(body(maps), condition) for maps, body, head in found], dim=1)


# ---- The game ----


class FastGAN(ImageGAN[FastGANConfig]):
    """FastGAN on pictures of any size from 16x16 up."""

    Config = FastGANConfig
    least_side = 16
    half_life = 5_500.0  # the authors' .999 at each step of 8 pictures
    # The paper has 8. On a CPU about half of such a step goes to weights (spectral norm, casts, Adam,
    # averages), whatever the batch.
    training: ClassVar = {"batch": 16}
    presets: ClassVar = {
        "paper": {"width": 64, "batch": 8},
        # The plain hinge, DiffAugment whole, and Adam as in Sauer et al. 2021.
        "projected": {
            "discriminator": "projected",
            "margin_noise": 0.0,
            "augment_policy": "color,translation,cutout",
            "beta1": 0.0,
            "beta2": 0.99,
            "batch": 16,
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 8},
        "small": {"width": 16},
        "base": {"width": 64},
        "large": {"width": 96},
    }

    def __init__(self, config: FastGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        generator = Generator(config, spec)
        projected = config.discriminator == "projected"
        self.nets = {
            "generator": generator,
            "discriminator": (
                ProjectedDiscriminator(config, spec) if projected else Discriminator(config, spec)
            ),
        }
        self.noise_shapes = generator.noise_shapes
        self.small_size = generator.small_size
        self._perceptual: PerceptualDistance | None = None

    # ---- What the players see ----

    def noise(self, draws: Draws) -> list[Tensor]:
        """The generator's noise maps for these rows."""
        return [draws.normal(*shape) for shape in self.noise_shapes]

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Samples:
        small = self.config.discriminator == "fastgan"
        return self.nets["generator"](z, condition, self.noise(draws), small=small)

    def reals(self, batch: Batch, clock: Clock) -> Samples:
        images = batch["images"]
        if self.config.discriminator == "projected":
            return images
        return images, shrink(images, self.small_size)

    def critic(self, batch: Batch, clock: Clock) -> Critic:
        """One critic for both phases of a batch: the discriminator's phase asks it what it rebuilt."""
        return batch.shared("critic", lambda: Look(self, batch, clock))

    # ---- Losses ----

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Hinge and equation 2: what the decoders make of reals against the reals."""
        look = self.critic(batch, clock)
        assert isinstance(look, Look)
        with look.detecting():
            terms = super().discriminator_loss(batch, clock)
        if self.config.margin_noise and self.config.loss == "hinge":
            real, fake = look.judged
            terms["adversarial"] = self.hinge(real, fake, batch)
        if look.rebuilt is not None:
            terms["reconstruction"] = self.reconstruction_loss(*look.rebuilt)
        return terms

    def hinge(self, real: Tensor, fake: Tensor, batch: Batch) -> Tensor:
        """The hinge with a margin m = 1 - u U(0, 1) for every logit: max(0, m - D) for reals.

        Only here: penalties, consistency, ADA and what is observed see the logits as they are.
        """
        noise, logits = self.config.margin_noise, real.shape[1]
        return self.game.discriminator(
            real + noise * batch.uniform(logits), fake - noise * batch.uniform(logits)
        )

    def reconstruction_loss(
        self, images: Tensor, part: Tensor, rebuilt: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Equation 2, summed over the three decoders: the whole, a quarter, and the smaller picture."""
        whole, quarters, small = rebuilt
        pairs = ((whole, images), (quarters, quarter(images, part)), (small, images))
        losses = [self.distance(made, shrink(true, made.shape[2:])) for made, true in pairs]
        return torch.stack(losses).sum()

    def distance(self, made: Tensor, true: Tensor) -> Tensor:
        """Mean difference of pictures, (): absolute, or to the eyes of a network."""
        if self.config.reconstruction == "l1":
            return (made - true).abs().mean()
        if self._perceptual is None:
            self._perceptual = open_perceptual(device=str(made.device))
        least = 64 / min(made.shape[2:])
        if least > 1.0:  # the network's last stages need some pixels to see anything
            made, true = (
                F.interpolate(x, scale_factor=least, mode="bilinear", align_corners=False)
                for x in (made, true)
            )
        return self._perceptual(made, true).mean()

    # ---- Sampling ----

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Samples. Where latents are given, noise is the same for all: pictures depend on them alone."""
        z = self.beginning(draws, latents, truncation)
        condition = self.chosen(draws, labels)
        noise = self.noise(draws if latents is None else RowDraws.counted(0, 1, device=z.device))
        noise = [part.expand(len(z), -1, -1, -1) for part in noise]
        return self.nets["generator"](z, condition, noise)


class Look:
    """D behind its augmentation, for one batch.

    In the discriminator's phase it also has the quarters and pictures rebuilt that it is shown first,
    the reals, and keeps its logits.

    Attributes:
        rebuilt: augmented reals, which quarters, and what the decoders made of them.
        judged: logits of the reals and of the fakes, (N, L) each.
    """

    def __init__(self, family: FastGAN, batch: Batch, clock: Clock) -> None:
        self.family, self.batch, self.clock = family, batch, clock
        self.rebuilt: tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]] | None = None
        self.judged: list[Tensor] = []
        self._detecting = False

    @contextmanager
    def detecting(self) -> Iterator[None]:
        """Within it, the first pictures shown are reals and the second ones fakes."""
        self.judged, self._detecting = [], True
        try:
            yield
        finally:
            self._detecting = False

    def __call__(self, images: Samples) -> Tensor:
        family, draws = self.family, self.batch.draws
        condition = family.condition(self.batch)
        seen = family.augmented(images, draws, self.clock)
        discriminator = family.nets["discriminator"]
        if self._detecting and not self.judged and family.config.discriminator == "fastgan":
            part = draws.integers(4)
            logits, *rebuilt = discriminator(seen, condition, part)
            self.rebuilt = (seen[0], part, tuple(rebuilt))
        else:
            logits = discriminator(seen, condition)
        if self._detecting and len(self.judged) < 2:
            self.judged.append(logits)
        return logits
