"""Differentiable augmentation of what a discriminator sees, so that few pictures last longer.

- `diff_augment`: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training",
  arXiv 2006.10738. A fixed, moderate policy, always on.
- `ada_augment` and `AdaController`: Karras et al. 2020, "Training Generative Adversarial Networks with
  Limited Data", arXiv 2006.06676, sections 2.3 and 3, appendix B. A strong policy, each transformation
  with probability p, which the controller raises while the discriminator overfits.

Reals and fakes both pass through, in both players' steps: the generator is then judged on what an
augmentation leaves, and does not learn to make augmented pictures as long as enough pictures go through
unchanged (p below .8 in practice; section 2.2 of Karras 2020).

Pictures are (N, C, H, W), in [-1, 1] before (brightness may leave that range after), of any shape.
Colour acts on the first three channels of three or four, so alpha only moves; pictures of other
channel counts, grey ones first, have brightness and contrast. Everything is differentiable in the
pictures as often as one likes, draws all its parameters per sample, and never waits for a GPU.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Draws
from faussaire.core.errors import UserError, nearest

__all__ = ["POLICIES", "AdaController", "ada_augment", "diff_augment"]

POLICIES = ("color", "translation", "cutout")
"""The parts of DiffAugment's policy."""


# ---- DiffAugment ----


def diff_augment(images: Tensor, draws: Draws, policy: str = "color,translation,cutout") -> Tensor:
    """DiffAugment: (N, C, H, W) to (N, C, H, W).

    - `color`: brightness + U(-.5, .5), saturation x U(0, 2), contrast x U(.5, 1.5);
    - `translation`: up to an eighth of either side, in whole pixels, zeros coming in;
    - `cutout`: a rectangle of half the height and half the width, centred anywhere, becomes zero.

    Args:
        images: in [-1, 1].
        draws: randomness for these N rows; what is drawn depends on the policy alone.
        policy: parts, separated by commas; empty for none. They are applied in the order above.

    Raises:
        UserError: a part of the policy is unknown.
    """
    parts = _parts(policy)
    if "color" in parts:
        images = _recolour_moderately(images, draws)
    visible = None
    if "translation" in parts:
        images, visible = _shift(images, draws)
    if "cutout" in parts:
        kept = ~_rectangle(images, draws.uniform(2).to(images))
        visible = kept if visible is None else visible & kept
    return images if visible is None else images * visible


@cache
def _parts(policy: str) -> frozenset[str]:
    parts = [part.strip() for part in policy.split(",") if part.strip()]
    for part in parts:
        if part not in POLICIES:
            raise UserError(
                f"DiffAugment has no part '{part}'.{nearest(part, POLICIES)}",
                f"Its parts are: {', '.join(POLICIES)}.",
            )
    return frozenset(parts)


def _recolour_moderately(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, then saturation, then contrast about the picture's mean, as one affine map.

    Saturation keeps a pixel's mean over channels, so contrast's centre is mean(x) + b.
    """
    drawn = draws.uniform(3).to(images)
    brightness, saturation, contrast = drawn[:, 0] - 0.5, drawn[:, 1] * 2.0, drawn[:, 2] + 0.5
    colours = images[:, :3] if images.shape[1] in (3, 4) else images
    mean = colours.mean((1, 2, 3))
    offset = brightness + (1.0 - contrast) * mean
    mixing = contrast[:, None, None] * (
        saturation[:, None, None] * _eye(images) + (1.0 - saturation[:, None, None]) / 3.0
    )
    return _recolour(images, mixing, offset[:, None].expand(-1, 3), contrast, offset)


def _shift(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Each picture moved by whole pixels, and (N, 1, H, W) where it shows: the rest is not cleared."""
    height, width = images.shape[2:]
    u = draws.uniform(2).to(images)

    def places(u: Tensor, side: int) -> Tensor:
        """(N, side): from where each place takes its pixel, moved by -side/8 to side/8, all alike."""
        most = round(side / 8)
        by = (u * (2 * most + 1)).floor().long() - most
        return torch.arange(side, device=images.device) - by[:, None]

    rows, columns = places(u[:, 0], height), places(u[:, 1], width)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = source.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view(images.shape), inside[:, None]


# ---- ADA ----


def ada_augment(
    images: Tensor,
    draws: Draws,
    p: Tensor,
    *,
    blit: float = 1.0,
    geometry: float = 1.0,
    color: float = 1.0,
    cutout: float = 0.0,
) -> Tensor:
    """ADA's pipeline: (N, C, H, W) to (N, C, H, W).

    Each transformation is applied to each sample with the probability of its group:

    - `blit`: mirroring (half of the times), rotation by a multiple of 90 degrees (of 180 where the
      picture is not square), translation by whole pixels, up to an eighth of either side;
    - `geometry`: isotropic scaling by 2^N(0, .2^2), rotation by U(-pi, pi) before and after anisotropic
      scaling by 2^N(0, .2^2) (each of the two with probability 1 - sqrt(1 - p), so that one of them
      is applied with probability p), translation by N(0, .125^2) sides;
    - `color`: brightness + N(0, .2^2), contrast x 2^N(0, .5^2), luma flip (half of the times), hue
      rotation by U(-pi, pi), saturation x 2^N(0, 1);
    - `cutout`: a rectangle of half the height and half the width, centred anywhere, becomes zero.

    Grey pictures have brightness, contrast and luma flip of the colours.

    Blit and geometry are one resampling, with mirrored borders: the picture is interpolated to twice
    its resolution by a filter of 6 taps (Deslauriers and Dubuc 1989: midpoints exact for polynomials
    of degree 5), then read bilinearly. Pixels keep their values on the finer grid, so mirroring,
    quarter turns and whole pixels are exact. The paper interpolates with a sym6 wavelet and low-passes
    again on the way down; we leave out the latter, which matters only where a picture shrinks: this
    costs a third. What no transformation hits is returned bit for bit.

    Args:
        images: in [-1, 1].
        draws: randomness for these N rows; what is drawn does not depend on p.
        p: (), in [0, 1], on the pictures' device.
        blit, geometry, color, cutout: factors on p by group; 0 leaves a group out, and saves its time.
    """
    if blit > 0 or geometry > 0:
        images = _warp(images, draws, p * blit, p * geometry)
    if color > 0:
        images = _recolour_strongly(images, draws, p * color)
    if cutout > 0:
        drawn = draws.uniform(3).to(images)
        hidden = _rectangle(images, drawn[:, 1:]) & (drawn[:, 0] < p * cutout).view(-1, 1, 1, 1)
        images = images * ~hidden
    return images


def _warp(images: Tensor, draws: Draws, p_blit: Tensor, p_geometry: Tensor) -> Tensor:
    """Blit and geometry.

    An output pixel at offset o from the centre, in pixels, shows the input at A o + t. The maps are
    those of the inverse transformations, composed from the input's side: mirroring first.
    """
    count, _, height, width = images.shape
    chance, what, gauss = (
        draw.to(images).unbind(1) for draw in (draws.uniform(8), draws.uniform(6), draws.normal(4))
    )
    p_rotation = 1.0 - (1.0 - p_geometry).clamp_min(0.0).sqrt()

    mirrored = (chance[0] < p_blit) & (what[0] < 0.5)
    turning = chance[1] < p_blit
    quarters = (what[1] * 4).floor() if height == width else (what[1] * 2).floor() * 2
    quarters = torch.where(turning, quarters, 0.0)
    moving = (chance[2] < p_blit)[:, None]
    drift = [
        (u * 2 - 1) * (0.125 * side) for u, side in zip(what[2:4], (width, height), strict=True)
    ]
    whole = torch.stack(drift, 1).round() * moving

    zooming, stretching = chance[3] < p_geometry, chance[4] < p_geometry
    zoom = torch.where(zooming, torch.exp2(0.2 * gauss[0]), 1.0)
    stretch = torch.where(stretching, torch.exp2(0.2 * gauss[1]), 1.0)
    spinning = (chance[5] < p_rotation) | (chance[6] < p_rotation)
    before = torch.where(chance[5] < p_rotation, (what[4] * 2 - 1) * math.pi, 0.0)
    after = torch.where(chance[6] < p_rotation, (what[5] * 2 - 1) * math.pi, 0.0)
    sliding = (chance[7] < p_geometry)[:, None]
    fraction = torch.stack([gauss[2] * (0.125 * width), gauss[3] * (0.125 * height)], 1) * sliding

    one = torch.ones_like(zoom)
    inverse = _diagonal(torch.where(mirrored, -1.0, 1.0), one) @ _quarter_turns(quarters)
    shift = -(inverse @ whole[:, :, None])
    inverse = inverse @ _diagonal(1 / zoom, 1 / zoom) @ _rotation(before)
    inverse = inverse @ _diagonal(1 / stretch, stretch) @ _rotation(after)
    shift = shift - inverse @ fraction[:, :, None]

    # In units in which the picture reaches from -1 to 1 on both axes, as grids are given.
    (xx, xy), (yx, yy) = (row.unbind(1) for row in inverse.unbind(1))
    x, y = shift[:, 0, 0], shift[:, 1, 0]
    ratio = height / width
    theta = torch.stack([xx, xy * ratio, x * (2 / width), yx / ratio, yy, y * (2 / height)], 1)
    theta = theta.view(-1, 2, 3)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    fine = _finer(height, images.device, images.dtype) @ images
    fine = fine @ _finer(width, images.device, images.dtype).T
    hit = mirrored | turning | moving[:, 0] | zooming | stretching | spinning | sliding[:, 0]
    return torch.where(hit.view(-1, 1, 1, 1), _Sample.apply(fine, grid), images)


def _diagonal(x: Tensor, y: Tensor) -> Tensor:
    """(N, 2, 2) that scales the axes."""
    return torch.diag_embed(torch.stack([x, y], 1))


def _rotation(angle: Tensor) -> Tensor:
    """(N, 2, 2) that rotates by `angle` radians."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)


def _quarter_turns(count: Tensor) -> Tensor:
    """(N, 2, 2) that rotates by `count` times 90 degrees, in whole numbers."""
    return _rotation(count * (math.pi / 2)).round()


@cache
def _finer(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 side + 1, side): values at -1/2, 0, 1/2, ... side - 1/2 of a row mirrored at its borders.

    The first and the last row are the borders themselves, so that mirroring the finer row about its
    end points mirrors the picture.
    """
    with torch.inference_mode(False):
        rows = torch.zeros(2 * side + 1, side, dtype=torch.float64)
        rows[1::2] = torch.eye(side, dtype=torch.float64)
        for tap, weight in enumerate((3, -25, 150, 150, -25, 3)):
            source = (torch.arange(side + 1) - 3 + tap) % (2 * side)
            source = torch.minimum(source, 2 * side - 1 - source)
            rows[torch.arange(0, 2 * side + 1, 2), source] += weight / 256
        return rows.to(device, dtype)


class _Sample(torch.autograd.Function):
    """Bilinear sampling with mirrored borders, `F.grid_sample`, which torch differentiates but once.

    It is linear in the picture, so its derivative is its adjoint whatever the picture is, and the
    adjoint's derivative is the sampling itself: nothing else is needed for any order. The grid is
    taken as constant.
    """

    @staticmethod
    def forward(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(
            x, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, grid = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradient, grid, ctx.size), None


class _Spread(torch.autograd.Function):
    """The adjoint of `_Sample`: spreads values over the pixels that they would be read from."""

    @staticmethod
    def forward(y: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        like = y.new_zeros(()).expand(*y.shape[:2], *size)  # only its shape is read
        bilinear, reflection = 0, 2
        return torch.ops.aten.grid_sampler_2d_backward(
            y, like, grid, bilinear, reflection, True, [True, False]
        )[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradient, grid), None, None


def _recolour_strongly(images: Tensor, draws: Draws, p: Tensor) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation as one affine map of RGB.

    With v = (1, 1, 1) / sqrt(3), a flip is I - 2 v v', and saturation I + (s - 1)(I - v v').
    """
    drawn = draws.uniform(7).to(images)
    chance, what = drawn[:, :5] < p, drawn[:, 5:]
    gauss = draws.normal(3).to(images)
    brightness = 0.2 * gauss[:, 0] * chance[:, 0]
    contrast = torch.where(chance[:, 1], torch.exp2(0.5 * gauss[:, 1]), 1.0)
    flipped = chance[:, 2] & (what[:, 0] < 0.5)
    hue = torch.where(chance[:, 3], (what[:, 1] * 2 - 1) * math.pi, 0.0)[:, None, None]
    saturation = torch.where(chance[:, 4], torch.exp2(gauss[:, 2]), 1.0)[:, None, None]

    identity = _eye(images)
    luma = torch.full_like(identity, 1 / 3)
    # The cross product with v, which is what turns about it (Rodrigues' formula).
    turn = identity.roll(1, 0)  # red to green to blue
    cross = (turn - turn.T) / math.sqrt(3)
    chroma = identity - luma
    mixing = identity + (saturation - 1) * chroma
    mixing = mixing @ (identity + (hue.cos() - 1) * chroma + hue.sin() * cross)
    mixing = mixing @ (identity - 2 * flipped[:, None, None] * luma)
    mixing = mixing * contrast[:, None, None]
    offset = (mixing @ brightness[:, None, None].expand(-1, 3, 1)).squeeze(2)
    # A grey picture is one whose three channels are equal: hue and saturation do nothing to it.
    sign = torch.where(flipped, -contrast, contrast)
    recoloured = _recolour(images, mixing, offset, sign, sign * brightness)
    hit = (chance[:, 0] | chance[:, 1] | chance[:, 2] | chance[:, 3] | chance[:, 4]).view(
        -1, 1, 1, 1
    )
    return torch.where(hit, recoloured, images)


def _recolour(
    images: Tensor, mixing: Tensor, offset: Tensor, grey_gain: Tensor, grey_offset: Tensor
) -> Tensor:
    """mixing x + offset on RGB and RGB of RGBA; a gain and an offset for each picture elsewhere.

    Args:
        mixing: (N, 3, 3).
        offset: (N, 3).
        grey_gain, grey_offset: (N,).
    """
    if images.shape[1] not in (3, 4):
        return images * grey_gain.view(-1, 1, 1, 1) + grey_offset.view(-1, 1, 1, 1)
    mixed = torch.einsum("nij,njhw->nihw", mixing, images[:, :3]) + offset[:, :, None, None]
    return mixed if images.shape[1] == 3 else torch.cat([mixed, images[:, 3:]], 1)


def _eye(images: Tensor) -> Tensor:
    return torch.eye(3, device=images.device, dtype=images.dtype)


def _rectangle(images: Tensor, centre: Tensor) -> Tensor:
    """(N, 1, H, W), true within half the height and width about `centre`, (N, 2) in [0, 1)."""
    height, width = images.shape[2:]
    down = (torch.arange(height, device=images.device) + 0.5) / height - centre[:, :1]
    across = (torch.arange(width, device=images.device) + 0.5) / width - centre[:, 1:]
    return ((down.abs() < 0.25)[:, :, None] & (across.abs() < 0.25)[:, None, :])[:, None]


class AdaController:
    """Holds p where the discriminator is as sure of the reals as it should be, and no surer.

    r_t = E[sign(D(x))] is 0 for a discriminator that guesses and 1 for one that knows every real
    picture by heart. Every `interval` rounds, p moves by the examples seen since, over `span`: up where
    r_t has been above the target, down where below. Karras et al. 2020, section 3, equation 1.

    p stays in [0, 1]. Its state lives on the device of the signs: nothing waits for it.

    Args:
        target: of r_t.
        span: examples in which p can travel from 0 to 1.
        interval: rounds between changes.
        start: p at first.

    Attributes:
        p: (), the probability in force.
    """

    def __init__(
        self,
        *,
        target: float = 0.6,
        span: float = 500_000,
        interval: int = 4,
        start: float = 0.0,
    ) -> None:
        self.target, self.span, self.interval = target, span, interval
        self.p = torch.tensor(min(1.0, max(0.0, start)))
        self._sum = torch.zeros(())
        self._count = torch.zeros(())
        self._examples = 0
        self._rounds = 0

    def update(self, signs: Tensor, examples: int) -> None:
        """Hear of a round.

        Args:
            signs: signs of the discriminator's logits of reals, of all processes, any shape; logits
                themselves do as well.
            examples: seen in the round, over all processes.
        """
        device = signs.device
        self.p, self._sum, self._count = (
            value.to(device) for value in (self.p, self._sum, self._count)
        )
        self._sum = self._sum + signs.detach().sign().float().sum()
        self._count = self._count + signs.numel()
        self._examples += examples
        self._rounds += 1
        if self._rounds % self.interval == 0:
            above = torch.sign(self._sum / self._count - self.target)
            self.p = (self.p + above * (self._examples / self.span)).clamp(0.0, 1.0)
            self._sum, self._count = torch.zeros_like(self._sum), torch.zeros_like(self._count)
            self._examples = 0

    def state(self) -> dict[str, Tensor]:
        """All that a resume needs."""
        return {
            "p": self.p,
            "sum": self._sum,
            "count": self._count,
            "examples": torch.tensor(self._examples),
            "rounds": torch.tensor(self._rounds),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.p, self._sum, self._count = (
            state[name].float().clone() for name in ("p", "sum", "count")
        )
        self._examples, self._rounds = int(state["examples"]), int(state["rounds"])
