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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

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
from faussaire.metrics.maps import FeatureMaps, Recipe

LEAST_SIDE = 32  # pixels, which the networks halve five times


#: By network. Those of VGG-19 are the papers'. SqueezeNet's were chosen by eye: its first layers, which
#: look at few pixels, keep strokes clean and colours those of the painting.
RECIPES = {
    "vgg19": Recipe(
        content={"relu4_2": 1.0},
        style=dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 0.2),
    ),
    "squeezenet1.1": Recipe(
        content={"fire4": 1.0},
        style={
            "relu1": 0.5,
            "fire2": 0.25,
            "fire3": 0.25,
            "fire4": 0.2,
            "fire5": 0.2,
            "fire7": 0.1,
        },
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
        start: `content` begins with the photograph, `noise` with noise around the style's mean colour.
        noise: standard deviation of that noise, pixels being in [-1, 1].
        optimiser: `adam`, or the papers' `lbfgs` (with the preset of that name).
        lr: of Adam, in pixel values a step; of L-BFGS, 1 is the whole step.
        steps: at each scale; at the first, twice as many.
        smallest: pixels of the longer side at the first scale.
        growth: of the sides from scale to scale, at most.
        half_life: of the average of iterates, in steps; 0: the last one is taken.
        shift: pixels by which the window on the picture shifts at most; 0: it stands still.
    """

    content_weight: float = 1.0
    style_weight: float = 20.0
    tv_weight: float = 5.0
    content_layers: Mapping[str, float]
    style_layers: Mapping[str, float]
    start: Literal["content", "noise"] = "content"
    noise: float = 0.3
    optimiser: Literal["adam", "lbfgs"] = "adam"
    lr: float = 0.04
    steps: int = 100
    smallest: int = 128
    growth: float = math.sqrt(2.0)
    half_life: float = 20.0
    shift: int = 3

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
        for kind, weight in (("content", self.content_weight), ("style", self.style_weight)):
            layers = getattr(self, f"{kind}_layers")
            if weight and not layers:
                raise UserError(f"No layer is named for the {kind} loss.", f"Give {kind}_layers.")
            if layers and not (min(layers.values()) >= 0 and sum(layers.values()) > 0):
                raise UserError(
                    f"{kind}_layers cannot be {dict(layers)}.",
                    "Weights are at least 0, and one of them above.",
                )
        if not self.content_weight + self.style_weight + self.tv_weight:
            raise UserError("All weights are 0, so nothing would be painted.", "Raise one of them.")


@dataclass(frozen=True, kw_only=True)
class Originals:
    """What a picture is painted after.

    Attributes:
        content: the photograph, (1, 3, H, W) in [-1, 1]; the picture has its size.
        styles: paintings, (1, 3, h, w) each in [-1, 1], in the size that they have at the last scale.
        shares: of each, summing to 1.
        maps: the frozen network that looks at them, with all layers that the settings name.
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


class StyleTransfer(Family[StyleTransferConfig]):
    """One picture, from coarse to fine. Its spec is `Originals`, and an example is a step.

    Attributes:
        sizes_px: (height, width) of each scale, from coarse to fine.
    """

    Config = StyleTransferConfig
    modality: ClassVar[str] = "none"
    # The line search of L-BFGS wants one and the same loss at each look.
    presets: ClassVar = {"lbfgs": {"optimiser": "lbfgs", "lr": 1.0, "shift": 0, "half_life": 0.0}}
    group: ClassVar[int] = 10  # steps of L-BFGS in a round

    def __init__(self, config: StyleTransferConfig, spec: Originals) -> None:
        super().__init__(config, spec)
        height, width = spec.content.shape[2:]
        self.sizes_px = scales(height, width, config.smallest, config.growth)
        first, *others = self.sizes_px
        self.nets = {_name(first): Level(self._beginning(first))}
        self.nets |= {_name(size): Level(torch.zeros(1, 3, *size)) for size in others}
        self.averaged = tuple(self.nets)  # pyright: ignore[reportAttributeAccessIssue]
        self._grams: dict[int, dict[str, Tensor]] = {}
        self._contents: dict[tuple[int, int, int], dict[str, Tensor]] = {}

    def _beginning(self, size: tuple[int, int]) -> Tensor:
        if self.config.start == "content":
            return resized(self.spec.content, size).cpu().clone()
        means = torch.stack([style.mean((2, 3), keepdim=True) for style in self.spec.styles])
        shares = torch.tensor(self.spec.shares, device=means.device)
        colour = (shares.view(-1, 1, 1, 1, 1) * means).sum(0).cpu()
        return colour + self.config.noise * torch.randn(1, 3, *size)

    @property
    def steps(self) -> int:
        """Steps at all scales together."""
        return self.config.steps * (len(self.nets) + 1)

    def optimisers(self) -> dict[str, OptimiserSpec]:
        lr = self.config.lr
        if self.config.optimiser == "lbfgs":
            return {net: LBFGS(nets=(net,), lr=lr, iterations=self.group) for net in self.nets}
        return {net: Adam(nets=(net,), lr=lr, betas=(0.9, 0.99)) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        """A stage a scale, of which the first is twice as long as each other."""
        return tuple(
            Stage(
                name=net,
                phases=(Phase(name="paint", nets=(net,), loss=partial(self.loss, level)),),
                until=total * (level + 2) // (len(self.nets) + 1),
                batch=self.group if self.config.optimiser == "lbfgs" else 1,
            )
            for level, net in enumerate(self.nets)
        )

    def picture(self, level: int) -> Tensor:
        """The picture as it stands at a scale, (1, 3, H, W) in [-1, 1]."""
        x, *additions = [net() for net in list(self.nets.values())[: level + 1]]
        for addition in additions:
            x = resized(x, addition.shape[2:]) + addition
        bounded = Bounded.apply(x)
        assert isinstance(bounded, Tensor)
        return bounded

    def loss(self, level: int, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 7: its terms, each with its weight."""
        config = self.config
        picture = self.picture(level)
        down, right = 0, 0
        if config.shift:
            # Whoever asks again in this round looks through the same window.
            draw = batch.shared("shift", lambda: batch.draws.integers(config.shift + 1, 2)[0])
            down, right = draw.tolist()
        maps = self.spec.maps(shifted(picture, down, right, config.shift))
        terms = {}
        if config.content_weight:
            target = self._content(level, down, right)
            terms["content"] = config.content_weight * losses.content_loss(
                maps, target, config.content_layers
            )
        if config.style_weight:
            grams = {name: losses.gram(maps[name]) for name in config.style_layers}
            terms["style"] = config.style_weight * losses.style_loss(
                grams, self.grams(level), config.style_layers
            )
        variation = losses.total_variation(picture)
        batch.observe({"variation": variation})
        if config.tv_weight:
            terms["tv"] = config.tv_weight * variation
        return terms

    @torch.no_grad()
    def grams(self, level: int) -> dict[str, Tensor]:
        """The styles' mixed Gram matrices at a scale, by layer, (1, C, C) each."""
        if level not in self._grams:
            share_of_size = max(self.sizes_px[level]) / max(self.sizes_px[-1])
            found: dict[str, Tensor] = {}
            for share, style in zip(self.spec.shares, self.spec.styles, strict=True):
                size = fitted(style, round(max(style.shape[2:]) * share_of_size))
                maps = self.spec.maps(resized(style, size))
                for name in self.config.style_layers:
                    own = share * losses.gram(maps[name])
                    found[name] = found[name] + own if name in found else own
            self._grams = {level: found}  # the scales before are not needed again
        return self._grams[level]

    @torch.no_grad()
    def _content(self, level: int, down: int, right: int) -> dict[str, Tensor]:
        """The content's maps at a scale, through a shifted window."""
        key = (level, down, right)
        if key not in self._contents:
            photo = resized(self.spec.content, self.sizes_px[level])
            maps = self.spec.maps(shifted(photo, down, right, self.config.shift))
            kept = {key: maps for key, maps in self._contents.items() if key[0] == level}
            self._contents = {
                **kept,
                key: {name: maps[name] for name in self.config.content_layers},
            }
        return self._contents[key]

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
    """x clamped to [-1, 1]; from outside, a gradient that leads back in is passed on, no other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        # A step goes against the gradient: where both have one sign, it leads back in.
        further_out = (x.abs() > 1.0) & (x * gradient < 0.0)
        return gradient.masked_fill(further_out, 0.0)


def _name(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def scales(height: int, width: int, smallest: int, growth: float) -> list[tuple[int, int]]:
    """Sizes (height, width) from coarse to fine, in equal steps of at most `growth`.

    Args:
        height, width: of the last.
        smallest: pixels of the first one's longer side; more, where the shorter one would be too short.
        growth: above 1.
    """
    longer, shorter = max(height, width), min(height, width)
    first = max(smallest, LEAST_SIDE * longer / shorter)
    count = max(0, math.ceil(math.log(longer / first) / math.log(growth) - 1e-9))
    sides = [first * (longer / first) ** (index / count) for index in range(count)]
    return [(round(height * s / longer), round(width * s / longer)) for s in sides] + [
        (height, width)
    ]


def fitted(picture: Tensor, longer: int) -> tuple[int, int]:
    """(height, width) of a picture (N, C, H, W) whose longer side shall be `longer` pixels.

    The shorter one is as long as networks want it at least.
    """
    scale = longer / max(picture.shape[2:])
    height, width = (max(LEAST_SIDE, round(side * scale)) for side in picture.shape[2:])
    return height, width


def resized(picture: Tensor, size: Sequence[int]) -> Tensor:
    """A picture (N, C, H, W) at another (height, width)."""
    if tuple(picture.shape[2:]) == tuple(size):
        return picture
    return F.interpolate(picture, tuple(size), mode="bicubic", antialias=True)


def shifted(picture: Tensor, down: int, right: int, margin: int) -> Tensor:
    """The picture through a window of its size that lies further down and right, of at most `margin`.

    Beyond its edges it goes on mirrored.
    """
    if not margin:
        return picture
    height, width = picture.shape[2:]
    wide = F.pad(picture, (margin,) * 4, mode="reflect")
    return wide[..., down : down + height, right : right + width]
