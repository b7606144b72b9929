"""What happens to photographs before they are found on the net: blur, shrinking, noise and JPEG, twice.

Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data. Xintao Wang, Liangbin
Xie, Chao Dong, Ying Shan. 2021. arXiv 2107.10833, section 3; ranges and probabilities are those of its
published training.

    x = shrink_s(JPEG_2(noise_2(resize_2(blur_2(JPEG_1(noise_1(resize_1(blur_1(y)))))))))

with a sinc filter, the ringing of over-sharpened pictures, before or after the last JPEG. Pictures are
float32 (C, H, W) in [0, 1] inside, one at a time: each has sizes of its own. Each has a random number
generator of its own, too, so that a picture's degradation does not depend on those beside it.

Where this leaves the authors' program: resizing is antialiased, as that of the programs that photographs
went through; Poisson noise always counts 256 levels; qualities of JPEG are whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from faussaire.core.batch import Draws
from faussaire.nn.degrade import LUMA, rounded, shrunk
from faussaire.nn.jpeg import jpeg
from faussaire.nn.sizes import mirrored


@dataclass(frozen=True, kw_only=True)
class Order:
    """Ranges of one of the two rounds.

    Attributes:
        blurred: probability of a blur.
        sigma: deviations of its kernel, in pixels.
        resized: probabilities of enlarging, shrinking and leaving the size.
        factors: least and greatest factor.
        gaussian: deviations of Gaussian noise, in levels of 255.
        poisson: factors on Poisson noise.
    """

    blurred: float
    sigma: tuple[float, float]
    resized: tuple[float, float, float]
    factors: tuple[float, float]
    gaussian: tuple[float, float]
    poisson: tuple[float, float]


FIRST = Order(
    blurred=1.0,
    sigma=(0.2, 3.0),
    resized=(0.2, 0.7, 0.1),
    factors=(0.15, 1.5),
    gaussian=(1.0, 30.0),
    poisson=(0.05, 3.0),
)
SECOND = Order(
    blurred=0.8,
    sigma=(0.2, 1.5),
    resized=(0.3, 0.4, 0.3),
    factors=(0.3, 1.2),
    gaussian=(1.0, 25.0),
    poisson=(0.05, 2.5),
)
KINDS = ("plain", "generalised", "plateau")
KIND_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Probabilities of kernels by kind, those with equal and those with different axes in turn."""
SHAPES = {"plain": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}
"""Ranges of the exponent beta of each kind (section 3.1)."""
SIDES = range(7, 22, 2)
"""Sides of kernels."""
SINC = 0.1
"""Probability that a blur is a sinc filter."""
FINAL_SINC = 0.8
"""Probability of a sinc filter in the end."""
GREY_NOISE = 0.4
"""Probability that noise is the same in all colours."""
GAUSSIAN = 0.5
"""Probability that noise is Gaussian; else it is Poisson noise."""
QUALITY = (30, 95)
MODES = ("area", "bilinear", "bicubic")


def photo(x: Tensor, draws: Draws, scale: int) -> Tensor:
    """Degraded small pictures of large ones.

    Args:
        x: (N, C, H, W) in [-1, 1]; of four channels the last is alpha, which is only shrunk.
        draws: randomness for N rows.
        scale: by how much pictures are shrunk in the end.

    Returns:
        (N, C, H / scale, W / scale) in [-1, 1], values that 8 bits can hold.
    """
    seeds = draws.integers(2**62).tolist()
    colour = x[:, :3] if x.shape[1] == 4 else x
    rows = []
    for picture, seed in zip(colour, seeds, strict=True):
        chance = Chance(Generator(x.device).manual_seed(seed))
        rows.append(degrade((picture + 1.0) / 2.0, chance, scale))
    small = torch.stack(rows) * 2.0 - 1.0
    if x.shape[1] == 4:
        small = torch.cat([small, shrunk(x[:, 3:], scale)], dim=1)
    return rounded(small)


class Chance:
    """Random numbers of one picture."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        drawn = torch.rand((), generator=self.generator, device=self.generator.device)
        return low + (high - low) * float(drawn)

    def happens(self, probability: float) -> bool:
        """Whether something does that has this probability."""
        return self.between(0.0, 1.0) < probability

    def choose(self, shares: tuple[float, ...]) -> int:
        """A place, each with its probability."""
        at = self.between(0.0, sum(shares))
        for place, share in enumerate(shares):
            at -= share
            if at < 0:
                return place
        return len(shares) - 1

    def pick(self, several: tuple[str, ...]) -> str:
        """One of these."""
        return several[int(self.between(0.0, len(several)))]


def degrade(x: Tensor, chance: Chance, scale: int) -> Tensor:
    """A picture (C, H, W) in [0, 1] through both rounds, as (C, H / scale, W / scale)."""
    height, width = x.shape[1:]
    x = once(x, chance, FIRST, (height, width))
    x = jpeg(x[None].clamp(0.0, 1.0), quality(chance))[0]
    small = (height // scale, width // scale)
    x = once(x, chance, SECOND, small)
    compressed_first = chance.happens(0.5)
    if compressed_first:
        x = jpeg(x[None].clamp(0.0, 1.0), quality(chance))[0]
    x = resized(x, small, chance.pick(MODES))
    if chance.happens(FINAL_SINC):
        side = SIDES[int(chance.between(0, len(SIDES)))]
        x = filtered(x, sinc(side, chance.between(math.pi / 3, math.pi)))
    if not compressed_first:
        x = jpeg(x[None].clamp(0.0, 1.0), quality(chance))[0]
    return x.clamp(0.0, 1.0)


def once(x: Tensor, chance: Chance, order: Order, size: tuple[int, int]) -> Tensor:
    """Blur, another size, noise.

    Args:
        x: (C, H, W).
        chance: its random numbers.
        order: ranges.
        size: that factors of resizing are of.
    """
    if chance.happens(order.blurred):
        x = filtered(x, kernel(chance, order.sigma))
    least, most = order.factors
    how = chance.choose(order.resized)
    factor = (chance.between(1.0, most), chance.between(least, 1.0), 1.0)[how]
    tall, wide = (max(1, round(side * factor)) for side in size)
    x = resized(x, (tall, wide), chance.pick(MODES))
    return noisy(x, chance, order).clamp(0.0, 1.0)


def quality(chance: Chance) -> int:
    """Of a JPEG."""
    return int(chance.between(QUALITY[0], QUALITY[1] + 1))


def resized(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """A picture (C, H, W) as (C, *size)."""
    if tuple(x.shape[1:]) == size:
        return x
    if mode == "area":
        return F.interpolate(x[None], size=size, mode="area")[0]
    return F.interpolate(x[None], size=size, mode=mode, align_corners=False, antialias=True)[0]


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """A picture (C, H, W) convolved with (k, k), mirrored beyond its edges."""
    side = kernel.shape[0]
    around = mirrored(x[None], (x.shape[1] + side - 1, x.shape[2] + side - 1))
    weight = kernel.to(x).expand(x.shape[0], 1, side, side)
    return F.conv2d(around, weight, groups=x.shape[0])[0]


def noisy(x: Tensor, chance: Chance, order: Order) -> Tensor:
    """Gaussian or Poisson noise on a picture (C, H, W), of each colour or of all alike."""
    gaussian, alike = chance.happens(GAUSSIAN), chance.happens(GREY_NOISE)
    shape = (1 if alike else x.shape[0], *x.shape[1:])
    generator = chance.generator
    if gaussian:
        sigma = chance.between(*order.gaussian) / 255.0
        return x + sigma * torch.randn(shape, generator=generator, device=x.device)
    light = x.clamp(0.0, 1.0)
    if alike and x.shape[0] == 3:
        light = (light * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(0, keepdim=True)
    caught = torch.poisson(light * 256.0, generator=generator) / 256.0
    return x + chance.between(*order.poisson) * (caught - light)


# ---- Kernels ----


def kernel(chance: Chance, sigma: tuple[float, float]) -> Tensor:
    """A random blur, (k, k), of sum 1 (section 3.1): Gaussian, generalised, plateau-shaped, or sinc."""
    side = SIDES[int(chance.between(0, len(SIDES)))]
    if chance.happens(SINC):
        least = math.pi / 3 if side < 13 else math.pi / 5
        return sinc(side, chance.between(least, math.pi))
    place = chance.choose(KIND_SHARES)
    kind, round_ = KINDS[place // 2], place % 2 == 0
    across = chance.between(*sigma)
    down = across if round_ else chance.between(*sigma)
    angle = 0.0 if round_ else chance.between(-math.pi, math.pi)
    low, high = SHAPES[kind]
    # Values below 1 and above are equally likely, wherever 1 lies in the range.
    beta = chance.between(low, 1.0) if chance.happens(0.5) else chance.between(1.0, high)
    return bell(side, across, down, angle, beta, plateau=kind == "plateau")


def bell(
    side: int, across: float, down: float, angle: float, beta: float, *, plateau: bool = False
) -> Tensor:
    """exp(-q^beta / 2), or 1 / (1 + q^beta) with a plateau, of sum 1; (side, side).

    q = d^T Sigma^-1 d of the place d, Sigma having the deviations `across` and `down` along axes that
    are turned by `angle` (Real-ESRGAN, section 3.1; Liu et al. 2020 for the plateau).
    """
    at = torch.arange(side) - (side - 1) / 2.0
    y, x = torch.meshgrid(at, at, indexing="ij")
    along = (x * math.cos(angle) + y * math.sin(angle)) / across
    beside = (y * math.cos(angle) - x * math.sin(angle)) / down
    q = (along.square() + beside.square()) ** beta
    weights = 1.0 / (1.0 + q) if plateau else torch.exp(-0.5 * q)
    return weights / weights.sum()


def sinc(side: int, cutoff: float) -> Tensor:
    """w J1(w r) / (2 pi r) with cutoff w in radians a pixel, of sum 1: a circular low-pass.

    (side, side), as in Real-ESRGAN's equation 6; where r is 0 its limit, w^2 / (4 pi).
    """
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2.0
    r = torch.hypot(at[:, None], at[None, :])
    ring = cutoff * torch.special.bessel_j1(cutoff * r) / (2.0 * math.pi * r.clamp(min=1e-9))
    ring[side // 2, side // 2] = cutoff**2 / (4.0 * math.pi)
    return (ring / ring.sum()).float()
