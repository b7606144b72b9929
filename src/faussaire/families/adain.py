"""adain: photographs in the manner of any painting, in a single pass.

Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization. Xun Huang, Serge Belongie.
2017. arXiv 1703.06868.

A frozen encoder f (VGG-19 as far as relu4_1) sees the photograph c and the painting s. Adaptive instance
normalisation gives each channel of the one the mean and the deviation that it has in the other

    AdaIN(x, y) = sigma(y) (x - mu(x)) / sigma(x) + mu(y)                        (equation 8)
    t = AdaIN(f(c), f(s)), and the picture is T(c, s) = g(t)                     (equations 9 and 10)

and the decoder g, the only net that learns, makes pictures of such maps. It lowers

    L = L_c + lambda L_s                                                         (equation 11)
    L_c = |f(g(t)) - t|                                                          (equation 12)
    L_s = sum_i |mu(phi_i(g(t))) - mu(phi_i(s))| + |sigma(phi_i(g(t))) - sigma(phi_i(s))|      (13)

with phi_i the encoder's relu1_1, relu2_1, relu3_1 and relu4_1. When it is used, a strength alpha leaves
some of the photograph, and several paintings are mixed by shares w_k:

    T(c, s, alpha) = g((1 - alpha) f(c) + alpha AdaIN(f(c), f(s)))               (equation 14)
    T(c, s_1..K, w_1..K) = g(sum_k w_k AdaIN(f(c), f(s_k)))                      (equation 15)

The decoder mirrors the encoder, with nearest neighbours for its poolings and without any normalisation,
which would give all pictures one style (section 6). Pictures are cut out at random, 256 of 512 pixels;
Adam, batches of 8 pairs (section 5 and appendix).

Where this goes beyond the paper or leaves it:
- f is torchvision's VGG-19; the paper has one whose channels were scaled to equal means. Where its
  file is not here, SqueezeNet 1.1 as far as fire4, whose maps are an eighth of the picture, too.
- So the terms are squares, as in the authors' program, and measured by the target's own
  (`losses.content_loss`): lambda means the same for both networks.
- Convolutions of f and g mirror the picture at its border, as the paper says; of SqueezeNet those that
  had no border get one, so that its maps lie on the picture as the decoder's do.
- The decoder's weights are averaged over the last steps.

The encoder comes from its weights file whenever it is needed. A run knows it by a fingerprint, and its
checkpoints hold the decoder alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import TwoData, check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import Schedule
from faussaire.metrics.maps import FeatureMaps, Recipe, proved, settled
from faussaire.nn.degrade import rgb
from faussaire.nn.sizes import cut, mirrored, multiple_of
from faussaire.originals import no_larger

EIGHTH = 8
"""How many times as wide and high as f(c) is the picture."""
LEAST_SIGHT = 16
"""Pixels a side that the encoder is shown at least: its border mirrors a map of two."""
STYLE_SIDE = 512
"""Pixels of a painting's shorter side when it is used; larger ones are shrunk, as the paper does."""

#: By network; the decoder begins with the maps of the content's layer.
RECIPES = {
    "vgg19": Recipe(
        content={"relu4_1": 1.0},
        style=dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1"), 0.25),
        pool="max",
    ),
    "squeezenet1.1": Recipe(
        content={"fire4": 1.0},
        style=dict.fromkeys(("relu1", "fire2", "fire3", "fire4"), 0.25),
    ),
}
CHANNELS = {"vgg19": 512, "squeezenet1.1": 256}
"""Of the content's maps."""
LEVELS = {"vgg19": 1.0, "squeezenet1.1": 55.0}
"""By what the decoder divides those maps: the root mean square of SqueezeNet's on photographs. Without
it the first pictures were fifty times too bright, and Adam's steps too long ever after."""


@dataclass(frozen=True, kw_only=True)
class AdaINConfig:
    """Settings of adain.

    Attributes:
        style_weight: lambda, of the style's loss beside the content's.
        perceptual: the frozen encoder; `auto`: VGG-19 where its file (550 MB) is here or can be
            downloaded, else SqueezeNet 1.1 (5 MB). FAUSSAIRE_WEIGHTS names copies.
        perceptual_weights: fingerprint of its weights, which whoever uses the run must have again; None:
            filled in as a run begins.
        width: channels of the decoder's last layers; those at an eighth of the size have four times
            as many.
        lr: Adam's learning rate.
        lr_half: examples after which it has fallen to a half, as lr / (1 + examples / lr_half).
        beta1, beta2: of Adam.
    """

    Data: ClassVar[type] = TwoData
    style_weight: float = 3.0
    perceptual: Literal["auto", "vgg19", "squeezenet1.1"] = "auto"
    perceptual_weights: str | None = None
    width: int = 64
    lr: float = 1e-3
    lr_half: float = 160_000.0
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_range(
            self,
            style_weight=(0, None),
            width=(1, 1024),
            lr=(0, None),
            lr_half=(1, None),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
        )


# ---- Adaptive instance normalisation ----


def moments(maps: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """mu and sigma of each channel of maps (N, C, h, w): (N, C, 1, 1) each. Equations 5 and 6."""
    mean = maps.mean((2, 3), keepdim=True)
    variance = (maps - mean).square().mean((2, 3), keepdim=True)
    return mean, (variance + eps).sqrt()


def adaptive_instance_norm(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Maps x (N, C, h, w) with another mean and deviation, (N or 1, C, 1, 1) each. Equation 8."""
    own_mean, own_deviation = moments(x)
    return (x - own_mean) / own_deviation * deviation + mean


def moments_loss(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Equation 13: sum_i w_i (|mu - mu_s|^2 + |sigma - sigma_s|^2), measured by the target's own.

    Args:
        maps: of the pictures, by layer, (N, C, h, w) each.
        targets: of the paintings, likewise, of any size.
        weights: w_i, by layer.
    """
    found, wanted = (
        {name: torch.cat(moments(side[name]), dim=1) for name in weights}
        for side in (maps, targets)
    )
    return losses.content_loss(found, wanted, weights)


# ---- The networks ----


class Decoder(nn.Module):
    """g: maps (N, C, h, w) to pictures (N, 3, 8 h, 8 w), the encoder of VGG-19 mirrored.

    Args:
        channels: C.
        width: of the last layers; 64 is the paper's.
        level: what the maps are divided by.
    """

    def __init__(self, channels: int, width: int, level: float = 1.0) -> None:
        super().__init__()
        self.level = level
        # Layers between two doublings, by their channels.
        sizes = (
            (4 * width,),
            (4 * width, 4 * width, 4 * width, 2 * width),
            (2 * width, width),
            (width, 3),
        )
        layers: list[nn.Module] = []
        for place, block in enumerate(sizes):
            if place:
                layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
            for wide in block:
                conv = nn.Conv2d(channels, wide, 3, padding=1, padding_mode="reflect")
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
                layers += [conv, nn.ReLU(inplace=True)]
                channels = wide
        self.body = nn.Sequential(*layers[:-1])  # pictures have no rectifier

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x / self.level)


def encoder(maps: FeatureMaps) -> FeatureMaps:
    """The same maps, whose convolutions mirror the picture at its border; in place."""
    for layer in maps.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding != (0, 0):
            layer.padding_mode = "reflect"
    return maps


class AdaIN(Family[AdaINConfig]):
    """A decoder for any style, from photographs and paintings of any size from 16x16 up.

    Attributes:
        maps: the frozen encoder, opened when a state is made, or a picture.
    """

    Config = AdaINConfig
    sources = "two"
    applies = True
    panels = ("photograph", "painting", "the one in the manner of the other")
    adversarial = False
    averaged = ("decoder",)
    stylises = True
    tiles = False  # means and deviations are those of whole pictures
    least_side = 16
    training: ClassVar = {"batch": 8, "resolution": 256, "margin": 1.0, "flip": True}
    presets: ClassVar = {
        "paper": {
            "perceptual": "vgg19",
            "style_weight": 10.0,
            "width": 64,
            "lr": 1e-4,
            "examples": 1_280_000,
        }
    }
    sizes: ClassVar = {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 64},
        "large": {"width": 128},
    }

    def __init__(self, config: AdaINConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if min(spec.height, spec.width) < self.least_side:
            raise UserError(
                f"adain needs pictures of at least 16x16, not {spec.width}x{spec.height}.",
                "Choose a larger --resolution; small pictures are enlarged.",
            )
        # Until a run begins with `auto`, nobody asks for the network.
        name = "vgg19" if config.perceptual == "auto" else config.perceptual
        self.nets = {"decoder": Decoder(CHANNELS[name], config.width, LEVELS[name])}
        self.maps: FeatureMaps | None = None
        self._manner: tuple[Tensor, Tensor] | None = None
        self._strength = 1.0

    @property
    def takes(self) -> int:
        return 3

    @property
    def gives(self) -> int:
        return 3

    # ---- The encoder ----

    @classmethod
    def completed(
        cls, config: AdaINConfig, progress: Callable[[str, int, int], None]
    ) -> AdaINConfig:
        name, weights = settled(config.perceptual, config.perceptual_weights, RECIPES, progress)
        return dataclasses.replace(config, perceptual=name, perceptual_weights=weights)

    @property
    def recipe(self) -> Recipe:
        """How the encoder is looked through."""
        return RECIPES[self.config.perceptual]

    def frozen(self) -> Mapping[str, nn.Module]:
        if self.maps is None:
            config = self.config
            self.maps = proved(config.perceptual, config.perceptual_weights, self.recipe)
        return {"maps": encoder(self.maps)}

    def seen(self, x: Tensor) -> dict[str, Tensor]:
        """phi_i of pictures (N, 3, 8 h, 8 w), by layer; of the content's layer (N, C, h, w)."""
        if self.maps is None:  # a model that was loaded has it from now on
            self.frozen()["maps"].to(x.device)
        assert self.maps is not None
        if self.config.perceptual == "squeezenet1.1":
            # Its first convolution and its poolings have no border: unit k of fire4 looks at 8 k + 7 in
            # the middle, and with four more pixels in front at 8 k + 3, as VGG-19 and the decoder do.
            x = F.pad(x, (4, 3, 4, 3), mode="reflect")
        return self.maps(x)

    def encoded(self, x: Tensor) -> Tensor:
        """f of pictures (N, 3, 8 h, 8 w): (N, C, h, w)."""
        (layer,) = self.recipe.content
        return self.seen(x)[layer]

    # ---- The training ----

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {
            "decoder": Adam(
                nets=("decoder",), lr=self.rate(), betas=(self.config.beta1, self.config.beta2)
            )
        }

    def rate(self) -> Schedule:
        """lr / (1 + examples / lr_half): the authors' 1 / (1 + 5e-5 t) at batches of 8 is 160,000."""
        config = self.config
        return lambda clock: config.lr / (1.0 + clock.examples / config.lr_half)

    def stages(self, total: int) -> tuple[Stage, ...]:
        decode = Phase(name="decoder", nets=("decoder",), loss=self.loss)
        return (Stage(name="decoder", phases=(decode,)),)

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 11: its terms, each with its weight."""
        photos, paintings = (_whole(rgb(batch[side])) for side in ("inputs", "images"))
        (layer,) = self.recipe.content
        with torch.no_grad():
            styles = self.seen(paintings)
            target = adaptive_instance_norm(self.encoded(photos), *moments(styles[layer]))
        maps = self.seen(self.nets["decoder"](target))
        content = losses.content_loss(maps, {layer: target}, self.recipe.content)
        style = moments_loss(maps, styles, self.recipe.style)
        return {"content": content, "style": self.config.style_weight * style}

    # ---- Use ----

    @torch.no_grad()
    def styled(
        self,
        paintings: Sequence[Tensor],
        shares: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Self:
        if not paintings:
            raise UserError("No painting was given.", "Give one, or several to be mixed.")
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"A strength of {strength} is none.", "Write a number from 0 to 1.")
        parts = [1.0] * len(paintings) if shares is None else [float(share) for share in shares]
        if len(parts) != len(paintings) or min(parts) < 0.0 or not 0.0 < sum(parts) < float("inf"):
            raise UserError(
                f"The shares {', '.join(map(str, parts))} do not fit {len(paintings)} styles.",
                "Give one number of at least 0 for each style.",
            )
        device = next(self.nets["decoder"].parameters()).device
        each = [
            moments(self.encoded(_whole(no_larger(painting, STYLE_SIDE).to(device))))
            for painting in paintings
        ]
        view = copy.copy(self)
        view.maps = self.maps
        # AdaIN is linear in the moments: mixing these is mixing its results (equation 15).
        view._manner = tuple(  # pyright: ignore[reportAttributeAccessIssue]
            torch.stack([part * one for part, one in zip(parts, side, strict=True)]).sum(0)
            / sum(parts)
            for side in zip(*each, strict=True)
        )
        view._strength = strength
        return view

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """Photographs, paintings, and the ones in the manner of the others."""
        photos, paintings = rgb(batch["inputs"]), rgb(batch["images"])
        manner = moments(self.encoded(_whole(paintings)))
        return photos, paintings, self._painted(photos, manner, 1.0)

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """Pictures (N, 3, H, W) in the manner given by `styled`; without one, g(f(c))."""
        return self._painted(x, self._manner, self._strength)

    def _painted(self, x: Tensor, manner: tuple[Tensor, Tensor] | None, strength: float) -> Tensor:
        maps = self.encoded(_whole(x))
        if manner is not None:
            maps = torch.lerp(maps, adaptive_instance_norm(maps, *manner), strength)  # equation 14
        return cut(self.nets["decoder"](maps), (x.shape[2], x.shape[3])).clamp(-1.0, 1.0)


def _whole(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) mirrored to sides that eight divides."""
    least = (max(x.shape[2], LEAST_SIGHT), max(x.shape[3], LEAST_SIGHT))
    return mirrored(x, multiple_of(*least, EIGHTH))
