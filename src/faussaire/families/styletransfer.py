"""Style transfer: a photograph painted anew in the manner of a painting.

A Neural Algorithm of Artistic Style. Leon A. Gatys, Alexander S. Ecker, Matthias Bethge. 2015. arXiv
1508.06576; and Image Style Transfer Using Convolutional Neural Networks, the same, CVPR 2016.

The only net is the picture: its pixels move to lower (equation 7)

    L = alpha L_content + beta L_style + gamma TV

where a frozen network that knows natural pictures looks at the picture x, the content p and the style a:
L_content compares maps of a deep layer place by place (equation 1), L_style the Gram matrices of maps of
several layers (equations 3 to 5), which say what is seen together wherever it is, and TV, the total
variation (Mahendran and Vedaldi 2015, arXiv 1412.0035), keeps neighbouring pixels alike.

Where this goes beyond the paper or leaves it:
- The terms are measured by the content's and the style's own (`losses.style_loss`), so that weights mean
  the same for every network, layer and size.
- Several styles: their Gram matrices are averaged by shares. Of |G - A_s|^2 summed over styles s by
  shares, the gradient is that of |G - mean A_s|^2.
- Coarse to fine (Gatys et al. 2017, arXiv 1611.07865, section 6): each scale begins with what the one
  before painted, enlarged. So strokes are as large as the painting's, and few steps do. The picture is a
  pyramid: a scale is a net that holds what it adds to the scales below, and a stage that moves it alone.
- The picture is looked at through a window that shifts by some pixels from step to step (Mordvintsev et
  al. 2015, "Inceptionism"): where a network looks at every second pixel only, the others would be
  painted as a grid.
- The result is the average of the last steps' pictures, which Adam leaves noisy.

It trains nothing that could be used again, so there is no run folder, nor `faussaire train`: what does
the work is `faussaire transfer` (`faussaire/stylisation.py`), with the engine's rounds on this family.
The papers' L-BFGS is there as `optimiser="lbfgs"`; its steps are made in groups, which count each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.optim import LBFGS, Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.metrics.maps import FeatureMaps

LEAST_SIDE = 32  # pixels that networks want


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which layers of a network are looked at, with which weights.

    Attributes:
        content: by layer, for the content loss.
        style: by layer, for the style loss.
    """

    content: Mapping[str, float]
    style: Mapping[str, float]


#: By network. VGG-19: the layers of the paper.
RECIPES = {
    "vgg19": Recipe(
        content={"relu4_2": 1.0},
        style=dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 0.2),
    ),
    "squeezenet1.1": Recipe(
        content={"fire5": 1.0},
        style=dict.fromkeys(("relu1", "fire3", "fire5", "fire7", "fire9"), 0.2),
    ),
}


@dataclass(frozen=True, kw_only=True)
class StyleTransferConfig:
    """Settings of style transfer.

    Attributes:
        content_weight: alpha.
        style_weight: beta.
        tv_weight: gamma, of the total variation with pixels in [-1, 1].
        content_layers, style_layers: layers and their weights, by name.
        start: `content` begins with the photograph, `noise` with noise in the style's colours.
        noise: standard deviation of that noise, pixels being in [-1, 1].
        optimiser: `adam`, or the papers' `lbfgs`.
        lr: of Adam, in pixel values a step; of L-BFGS, 1 is the whole step.
        steps: at each scale; at the first, twice as many.
        smallest: pixels of the longer side at the first scale.
        growth: of the sides from scale to scale, at most.
        half_life: of the average of iterates, in steps; 0: the last one is taken.
        shift: pixels by which the window on the picture shifts at most; 0: it stands still.
    """

    content_weight: float = 1.0
    style_weight: float = 10.0
    tv_weight: float = 0.1
    content_layers: Mapping[str, float] = field(
        default_factory=lambda: RECIPES["squeezenet1.1"].content
    )
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: RECIPES["squeezenet1.1"].style
    )
    start: Literal["content", "noise"] = "content"
    noise: float = 0.3
    optimiser: Literal["adam", "lbfgs"] = "adam"
    lr: float = 0.03
    steps: int = 100
    smallest: int = 128
    growth: float = math.sqrt(2.0)
    half_life: float = 20.0
    shift: int = 4

    def __post_init__(self) -> None:
        check_range(
            self,
            content_weight=(0.0, 1e6),
            style_weight=(0.0, 1e6),
            tv_weight=(0.0, 1e6),
            noise=(0.0, 10.0),
            lr=(1e-6, 100.0),
            steps=(1, 1_000_000),
            smallest=(LEAST_SIDE, 100_000),
            growth=(1.01, 100.0),
            half_life=(0.0, 1e6),
            shift=(0, 16),
        )
        if not self.content_weight + self.style_weight + self.tv_weight:
            raise UserError(
                "All weights are 0, so nothing is to be painted.",
                "Give --style-weight and --content-weight.",
            )


@dataclass(frozen=True, kw_only=True)
class Originals:
    """What a picture is painted after.

    Attributes:
        content: the photograph, (1, 3, H, W) in [-1, 1]; the picture has its size.
        styles: paintings, (1, 3, h, w) each.
        shares: of each, summing to 1.
        maps: the frozen network that looks at them; pictures (N, 3, H, W) in [-1, 1] to maps.
    """

    content: Tensor
    styles: tuple[Tensor, ...]
    shares: tuple[float, ...]
    maps: FeatureMaps


class Level(nn.Module):
    """What one scale adds to the picture: (1, 3, H, W)."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.pixels = nn.Parameter(pixels)

    def forward(self) -> Tensor:
        return self.pixels


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a scale's picture should agree with.

    Attributes:
        content: the photograph at this scale, (1, 3, H, W).
        grams: of the styles, by layer, (1, C, C).
    """

    content: Tensor
    grams: Mapping[str, Tensor]


class StyleTransfer(Family[StyleTransferConfig]):
    """One picture, from coarse to fine; its spec is `Originals`."""

    Config = StyleTransferConfig
    modality: ClassVar[str] = "none"
    group: ClassVar[int] = 10  # steps of L-BFGS in a round

    def __init__(self, config: StyleTransferConfig, spec: Originals) -> None:
        super().__init__(config, spec)
        self.half_life = config.half_life  # pyright: ignore
        height, width = spec.content.shape[2:]
        self.sizes_px = scales(height, width, config.smallest, config.growth)
        self.nets = {
            f"{size[1]}x{size[0]}": Level(
                self._beginning(size) if not index else torch.zeros(1, 3, *size)
            )
            for index, size in enumerate(self.sizes_px)
        }
        self.averaged = tuple(self.nets)  # pyright: ignore
        self._targets: dict[int, Targets] = {}
        self._seen: dict[tuple[int, ...], dict[str, Tensor]] = {}

    def _beginning(self, size: tuple[int, int]) -> Tensor:
        if self.config.start == "content":
            return resized(self.spec.content, size).cpu()
        colour = sum(
            share * style.mean((2, 3), keepdim=True)
            for share, style in zip(self.spec.shares, self.spec.styles, strict=True)
        )
        return torch.as_tensor(colour).cpu() + self.config.noise * torch.randn(1, 3, *size)

    def optimisers(self) -> dict[str, OptimiserSpec]:
        if self.config.optimiser == "lbfgs":
            return {
                net: LBFGS(nets=(net,), lr=self.config.lr, iterations=self.group)
                for net in self.nets
            }
        return {net: Adam(nets=(net,), lr=self.config.lr, betas=(0.9, 0.99)) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        """A stage a scale, of which the first is twice as long as each other."""
        count, found = len(self.nets) + 1, []
        for index, net in enumerate(self.nets):
            loss = partial(self.loss, index)
            found.append(
                Stage(
                    name=net,
                    phases=(Phase(name="paint", nets=(net,), loss=loss),),
                    until=total * (index + 2) // count,
                    batch=self.group if self.config.optimiser == "lbfgs" else 1,
                )
            )
        return tuple(found)

    @property
    def steps(self) -> int:
        """Steps at all scales together."""
        return self.config.steps * (len(self.nets) + 1)

    def picture(self, level: int) -> Tensor:
        """The picture as it stands, at a scale: (1, 3, H, W), of which [-1, 1] can be shown."""
        x: Tensor | None = None
        for net in list(self.nets.values())[: level + 1]:
            own = net()
            x = own if x is None else resized(x, own.shape[2:]) + own
        assert x is not None
        return Bounded.apply(x)

    def loss(self, level: int, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 7, its three terms apart, each with its weight."""
        config = self.config
        picture = self.picture(level)
        shift = self._shift(batch)
        maps = self.spec.maps(shifted(picture, shift, config.shift))
        targets = self.targets(level)
        grams = {name: losses.gram(maps[name]) for name in config.style_layers}
        terms = {
            "content": config.content_weight
            * losses.content_loss(maps, self._content(level, shift), config.content_layers),
            "style": config.style_weight
            * losses.style_loss(grams, targets.grams, config.style_layers),
            "tv": config.tv_weight * losses.total_variation(picture),
        }
        return terms

    def _shift(self, batch: Batch) -> tuple[int, int]:
        if not self.config.shift:
            return 0, 0
        down, right = batch.shared("shift", lambda: batch.draws.integers(4, 2)[0].tolist())
        return down, right

    def targets(self, level: int) -> Targets:
        """What the picture should agree with at a scale, kept while it lasts."""
        if level not in self._targets:
            size = self.sizes_px[level]
            content = resized(self.spec.content, size)
            grams: dict[str, Tensor] = {}
            with torch.no_grad():
                for share, style in zip(self.spec.shares, self.spec.styles, strict=True):
                    maps = self.spec.maps(resized(style, fitted(style, max(size))))
                    for name in self.config.style_layers:
                        grams[name] = grams.get(name, 0.0) + share * losses.gram(maps[name])
            self._targets = {level: Targets(content=content, grams=grams)}
            self._seen = {}
        return self._targets[level]

    def _content(self, level: int, shift: tuple[int, int]) -> dict[str, Tensor]:
        key = (level, *shift)
        if key not in self._seen:
            content = self.targets(level).content
            with torch.no_grad():
                maps = self.spec.maps(shifted(content, shift, self.config.shift))
            self._seen[key] = {name: maps[name] for name in self.config.content_layers}
        return self._seen[key]

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        return self.picture(len(self.nets) - 1).expand(draws.size, -1, -1, -1)


class Bounded(torch.autograd.Function):
    """x clamped to [-1, 1], with a gradient that leads back in from outside, and none further out."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # noqa: ANN001
        (x,) = ctx.saved_tensors
        return torch.where(x * gradient < 0, gradient * (x.abs() <= 1.0), gradient)


def scales(height: int, width: int, smallest: int, growth: float) -> list[tuple[int, int]]:
    """Sizes (height, width) from coarse to fine, in equal steps of at most `growth`."""
    longer = max(height, width)
    count = max(0, math.ceil(math.log(longer / smallest) / math.log(growth) - 1e-9))
    found = []
    for index in range(count + 1):
        side = longer if index == count else smallest * (longer / smallest) ** (index / count)
        size = tuple(max(LEAST_SIDE, round(s * side / longer)) for s in (height, width))
        found.append(size if index < count else (height, width))
    return found


def fitted(picture: Tensor, longer: int) -> tuple[int, int]:
    """(height, width) of a picture (N, C, H, W) whose longer side shall be `longer` pixels."""
    height, width = picture.shape[2:]
    scale = longer / max(height, width)
    return max(LEAST_SIDE, round(height * scale)), max(LEAST_SIDE, round(width * scale))


def resized(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    """A picture (N, C, H, W) at another (height, width)."""
    if tuple(picture.shape[2:]) == tuple(size):
        return picture
    return F.interpolate(picture, tuple(size), mode="bicubic", antialias=True)


def shifted(picture: Tensor, shift: tuple[int, int], margin: int) -> Tensor:
    """The picture through a window that is shifted down and right, what is beyond it mirrored."""
    if not margin:
        return picture
    height, width = picture.shape[2:]
    wide = F.pad(picture, (margin,) * 4, mode="reflect")
    return wide[..., shift[0] : shift[0] + height, shift[1] : shift[1] + width]
