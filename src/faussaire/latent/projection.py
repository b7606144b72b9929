"""The code of a picture, by optimisation: what of a model's own would look like this?

Analyzing and Improving the Image Quality of StyleGAN. Karras, Laine, Aittala, Hellsten, Lehtinen, Aila.
2020. arXiv 1912.04958, appendix D. From the mean w, Adam lowers the perceptual distance between picture
and sample for 1,000 steps. The rate rises to 0.1 within the first 5 %, and falls along a cosine in the
last 25 %. Noise of 0.05 sigma_w t^2 is added to w, t going from 1 to 0 in the first 75 %, so that it
looks around before it settles; sigma_w is the root of E|w - mean|^2. Where a generator has noise, its
planes are sought too, kept at mean 0 and deviation 1 after each step, and kept from having signals
hidden in them by a penalty on their autocorrelation at all scales, with the weight 1e5.

In W+ each layer has a w of its own (Image2StyleGAN, arXiv 1904.03189): closer to any picture, and less
willing to be edited.

What is added, and what differs:
- The squared difference of pixels beside the perceptual distance, as Image2StyleGAN has it (section 4):
  of pictures of 32 or 64 pixels the networks see little.
- The rate is relative to the codes' own spread by number, with which the paper's is about as large: W
  of a small model is a tenth as wide.
- Families without W are sought in z, where the mean shows no picture of theirs: the nearest of some
  samples is the start, and codes longer than usual cost something (Bora et al. 2017, "Compressed Sensing
  using Generative Models", arXiv 1703.03208, section 3).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.latent.likeness import Likeness, pixels, psnr
from faussaire.latent.space import Space

TICK = 0.5
"""Seconds between reports."""
TRIED = 256
"""Samples of which the nearest is where a search in z begins."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How codes are sought.

    Attributes:
        steps: of the optimiser.
        rate: of Adam, in deviations of a code's numbers.
        wander: noise added to codes at first, relative to sigma; the paper's 0.05.
        perceptual_weight: of the perceptual distance.
        pixel_weight: of the mean squared difference of pixels in [-1, 1].
        noise_weight: of the penalty on what noise planes have in common with themselves, moved.
        prior_weight: of a code's mean square, where it is sought in z.
        batch: pictures that are sought at once; each is sought as it would be alone.
    """

    steps: int = 1000
    rate: float = 0.1
    wander: float = 0.05
    perceptual_weight: float = 1.0
    pixel_weight: float = 10.0
    noise_weight: float = 1e5
    prior_weight: float = 1e-3
    batch: int = 8

    def __post_init__(self) -> None:
        check_range(
            self,
            steps=(1, 1_000_000),
            rate=(0, None),
            wander=(0, None),
            perceptual_weight=(0, None),
            pixel_weight=(0, None),
            noise_weight=(0, None),
            prior_weight=(0, None),
            batch=(1, 4096),
        )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a search has come.

    Attributes:
        what: is being done: `project`, `tune`.
        step, steps: done, and in all.
        losses: means over the pictures at hand.
        elapsed, remaining: seconds.
    """

    what: str
    step: int
    steps: int
    losses: Mapping[str, float]
    elapsed: float
    remaining: float

    @property
    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1]."""
        return self.step / self.steps


Watcher = Callable[[Moment], None]


class Telling:
    """Tells a watcher of a job's steps, twice a second and at the end."""

    def __init__(self, watch: Watcher | None, what: str, steps: int) -> None:
        self._watch, self._what, self._steps = watch, what, steps
        self._began = self._last = time.monotonic()
        self._done = 0

    def __call__(self, losses: Mapping[str, Tensor]) -> None:
        self._done += 1
        now = time.monotonic()
        ended = self._done >= self._steps
        if self._watch is None or not (ended or now - self._last >= TICK):
            return
        self._last = now
        elapsed = now - self._began
        self._watch(
            Moment(
                what=self._what,
                step=self._done,
                steps=self._steps,
                losses={name: float(value) for name, value in losses.items()},
                elapsed=elapsed,
                remaining=elapsed / self._done * (self._steps - self._done),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """Codes of pictures, on the CPU.

    Attributes:
        space: `z`, `w` or `w+`.
        codes: (N, layers, numbers).
        noise: (N, numbers of all noise planes), or None.
        labels: (N,) class numbers of a conditional model, or None.
        made: what the model makes of them, (N, C, H, W) in [-1, 1].
        psnr: decibels against the pictures, (N,).
        perceptual: distances through the network, (N,).
    """

    space: str
    codes: Tensor
    noise: Tensor | None
    labels: Tensor | None
    made: Tensor
    psnr: Tensor
    perceptual: Tensor


def project(
    space: Space,
    targets: Tensor,
    likeness: Likeness,
    search: Search | None = None,
    *,
    start: Tensor | None = None,
    seed: int = 0,
    watch: Watcher | None = None,
) -> Found:
    """Seek the codes of pictures.

    Args:
        space: where.
        targets: (N, C, H, W) in [-1, 1], as the model's own are.
        likeness: what is lowered.
        search: how.
        start: (N, layers, numbers) to begin with, such as an encoder's; None: the mean.
        seed: of the noise, by picture: a picture is sought alike alone and among others.
        watch: sees how it goes.

    Raises:
        UserError: a loss is not a number.
    """
    search = search or Search()
    batches = -(-len(targets) // search.batch)
    telling = Telling(watch, "project", search.steps * batches)
    parts = []
    for first in range(0, len(targets), search.batch):
        rows = slice(first, first + search.batch)
        draws = RowDraws(
            [mix(seed, "project", row) for row in range(len(targets))[rows]], device=space.device
        )
        begin = None if start is None else start[rows].to(space.device)
        goal = targets[rows].to(space.device)
        parts.append(_sought(space, goal, likeness, search, begin, draws, telling))
    return joined(parts)


def _sought(
    space: Space,
    targets: Tensor,
    likeness: Likeness,
    search: Search,
    start: Tensor | None,
    draws: RowDraws,
    telling: Telling,
) -> Found:
    """`project` of one batch."""
    count, spread = len(targets), space.spread
    with torch.no_grad():
        wanted = likeness.seen(targets)
        labels = space.labels(count)
        if start is None:
            start = space.mean if space.name != "z" else _nearest(space, targets, wanted, likeness)
        codes = start.expand(count, space.layers, -1).clone()
    planes = space.family.noise_planes if space.name != "z" else ()
    total = sum(height * width for height, width in planes)
    noise = _normalised(draws.normal(total), planes) if total else None
    moving = [codes.requires_grad_()]
    if noise is not None:
        moving.append(noise.requires_grad_())
    each = spread.sigma / math.sqrt(space.width)  # deviation of one number
    optimiser = torch.optim.Adam(
        [
            {"params": [codes], "scale": each},
            *([{"params": [noise], "scale": 1.0}] if noise is not None else []),
        ]
    )
    for step in range(search.steps):
        done = step / search.steps
        for group in optimiser.param_groups:
            group["lr"] = search.rate * group["scale"] * ramp(done)
        fading = max(0.0, 1.0 - done / 0.75)
        wandering = search.wander * spread.sigma * fading**2
        around = codes + wandering * draws.normal(*codes.shape[1:]) if wandering else codes
        made = space.render(around, noise, labels)
        terms = {}
        if wanted and search.perceptual_weight:
            terms["perceptual"] = search.perceptual_weight * likeness.perceptual(
                likeness.seen(made), wanted
            )
        if search.pixel_weight or not wanted:
            terms["pixels"] = (search.pixel_weight or 1.0) * pixels(made, targets)
        if noise is not None and search.noise_weight:
            terms["noise"] = search.noise_weight * autocorrelation(noise, planes)
        if space.name == "z" and search.prior_weight:
            long = ((codes - spread.mean) / each).square().mean((1, 2))
            terms["prior"] = search.prior_weight * long
        # Summed over pictures: none of them feels how many there are.
        loss = torch.stack([term.sum() for term in terms.values()]).sum()
        for parameter, gradient in zip(moving, torch.autograd.grad(loss, moving), strict=True):
            parameter.grad = gradient
        optimiser.step()
        if noise is not None:
            with torch.no_grad():
                noise.copy_(_normalised(noise, planes))
        if not math.isfinite(float(loss.detach())):
            raise UserError(
                f"The search became NaN at step {step + 1}.", "Try a smaller --rate, such as 0.02."
            )
        telling({name: term.detach().mean() for name, term in terms.items()})
    return measured(space, codes.detach(), noise, labels, targets, likeness)


@torch.no_grad()
def measured(
    space: Space,
    codes: Tensor,
    noise: Tensor | None,
    labels: Tensor | None,
    targets: Tensor,
    likeness: Likeness,
) -> Found:
    """Codes with what the model makes of them, beside what was wanted (N, C, H, W)."""
    noise = None if noise is None else noise.detach()
    made = space.show(codes, noise, labels).to(targets.device)
    apart = likeness.perceptual(likeness.seen(made), likeness.seen(targets))
    return Found(
        space=space.name,
        codes=codes.cpu(),
        noise=None if noise is None else noise.cpu(),
        labels=None if labels is None else labels.cpu(),
        made=made.cpu(),
        psnr=psnr(made, targets).cpu(),
        perceptual=apart.expand(len(codes)).cpu(),
    )


def joined(parts: list[Found]) -> Found:
    """Several, as one."""

    def every(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    names = ("codes", "noise", "labels", "made", "psnr", "perceptual")
    return Found(space=parts[0].space, **{name: every(name) for name in names})  # pyright: ignore


def ramp(done: float) -> float:
    """The rate relative to its highest when a share of the steps is done."""
    falling = min(1.0, (1.0 - done) / 0.25)
    return min(1.0, done / 0.05 + 1e-3) * 0.5 * (1.0 - math.cos(math.pi * falling))


@torch.no_grad()
def _nearest(space: Space, targets: Tensor, wanted: list[Tensor], likeness: Likeness) -> Tensor:
    """The code (N, 1, numbers) of the sample that is most like each picture."""
    codes = space.draw(TRIED, mix("starts"))
    best = torch.full((len(targets),), torch.inf, device=targets.device)
    chosen = codes[:1].repeat(len(targets), 1, 1)
    for first in range(0, TRIED, 32):
        some = codes[first : first + 32]
        made = space.show(some).to(targets.device)
        seen = likeness.seen(made)
        for row in range(len(targets)):
            apart = pixels(made, targets[row : row + 1])
            if wanted:
                apart = apart + likeness.perceptual(seen, [one[row : row + 1] for one in wanted])
            least = int(apart.argmin())
            if apart[least] < best[row]:
                best[row], chosen[row] = apart[least], some[least]
    return chosen


def autocorrelation(noise: Tensor, planes: list[tuple[int, int]] | tuple) -> Tensor:
    """Penalty on noise that has a shape, (N,). Appendix D, "noise regularization".

    At each scale, from a plane's own size to 8 pixels by averages of 2x2 times 2 (which keeps the
    deviation of white noise at 1), the squares of the mean products with the neighbours to the right and
    below, around the edges.
    """
    total = torch.zeros(len(noise), device=noise.device)
    parts = noise.split([height * width for height, width in planes], dim=1)
    for part, (height, width) in zip(parts, planes, strict=True):
        plane = part.view(-1, 1, height, width)
        while True:
            for axis in (2, 3):
                product = plane * plane.roll(1, dims=axis)
                total = total + product.mean((1, 2, 3)).square()
            if min(plane.shape[2:]) <= 8:
                break
            plane = 2.0 * torch.nn.functional.avg_pool2d(plane, 2)
    return total


def _normalised(noise: Tensor, planes: list[tuple[int, int]] | tuple) -> Tensor:
    """Each plane at mean 0 and deviation 1."""
    parts = noise.split([height * width for height, width in planes], dim=1)
    even = [part - part.mean(1, keepdim=True) for part in parts]
    return torch.cat(
        [part / part.square().mean(1, keepdim=True).sqrt().clamp(min=1e-8) for part in even], dim=1
    )
