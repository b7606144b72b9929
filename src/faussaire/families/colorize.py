"""colorize: from grey to colour, learnt from any colour pictures.

The game is that of Image-to-Image Translation with Conditional Adversarial Networks. Phillip Isola,
Jun-Yan Zhu, Tinghui Zhou, Alexei A. Efros. 2017. arXiv 1611.07004. What is made is the colour alone, in
CIE Lab, as in Colorful Image Colorization. Richard Zhang, Phillip Isola, Alexei A. Efros. 2016. arXiv
1603.08511.

A picture is its lightness L and its colours a and b (`nn/lab.py`). The U-Net sees x = L / 50 - 1 and
nothing else, and gives y = (a, b) / 110; the discriminator judges patches of (x, y). With y of the
picture and G(x) of the network:

    L_cGAN(G, D), non-saturating                      (Isola et al., equation 1)
    L_L1(G) = E|y - G(x)|, weight lambda_l1           (equation 3)
    L_colour(G) = max(0, 1 - E M(G) / (s E M(y)))     weight lambda_colour

M is how colourful a picture is (Hasler and Süsstrunk 2003, `metrics/paired.py`). An error is least for
colours that are the middle of all that could be: brown. The adversarial loss alone takes long to defeat
that. DDColor (Kang et al. 2023, arXiv 2212.11613) lowers 1 - M(G) / 100; here the term ends where the
batch's results are as colourful as a share s of real pictures (`vivid`), so that loud colours win
nothing. Zhang's rebalancing of rare colours, the other way, is left out.

What comes out has the lightness of what went in, exactly and in full resolution: the network
works with the picture brought to about the size that it was trained at (`work_resolution`), and the
colours are enlarged along the picture's own edges (`guided`). A colour that sRGB lacks at this
lightness becomes less colourful, not lighter.

Dropout in three layers, which is z in Isola et al., is there in training and not in use: one grey
picture has one result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Look, Pictures
from faussaire.core.phase import Phase
from faussaire.game import GameConfig
from faussaire.metrics.paired import colourfulness
from faussaire.nn.degrade import rounded
from faussaire.nn.lab import in_gamut, lab_to_rgb, rgb_to_lab
from faussaire.nn.patch import PatchDiscriminator, fitting_halvings
from faussaire.nn.unet import UNet, fitting_unet
from faussaire.translation import Translator

LIGHT, COLOUR = 50.0, 110.0
"""What L - 50, and a and b, are divided by."""


@dataclass(frozen=True, kw_only=True)
class ColorizeConfig(GameConfig):
    """Settings of colorize, besides those of every game.

    Attributes:
        lambda_l1: weight of |y - G(x)|, colours over 110.
        lambda_gan: weight of the adversarial loss in G's; 0: no game at all.
        lambda_colour: weight of the term against brown; 0: none.
        vivid: how colourful results should be on average, as a share of real pictures.
        width: channels of the layers next to the picture, in both networks.
        halvings: of the U-Net; None: as many as the smaller side allows, up to 8.
        patch_halvings: of the discriminator: 3 judges patches of 70x70 pixels, 2 of 34, 1 of 16.
        work_resolution: pixels of the shorter side at which colours are made when the model is used;
            None: as it was trained; 0: the picture's own.
        guide: pixels at that size within which colours follow the lightness when they are enlarged,
            which keeps them inside edges and evens out dots; 0: they are just enlarged.
    """

    lambda_l1: float = 100.0
    lambda_gan: float = 1.0
    lambda_colour: float = 10.0
    vivid: float = 0.8
    width: int = 64
    halvings: int | None = None
    patch_halvings: int = 2
    work_resolution: int | None = None
    guide: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            lambda_l1=(0, None),
            lambda_gan=(0, None),
            lambda_colour=(0, None),
            vivid=(0.01, 2),
            width=(1, 1024),
            patch_halvings=(1, 6),
            guide=(0, 100),
        )
        if self.halvings is not None:
            check_range(self, halvings=(1, 10))
        if self.work_resolution is not None:
            check_range(self, work_resolution=(0, 100_000))


class Colorize(Translator[ColorizeConfig]):
    """Colour for grey pictures of any size; trained on colour pictures from 16x16 up."""

    Config = ColorizeConfig
    panels = ("grey", "coloured", "real")
    least_side = 16
    beside = False  # L is a channel of what the discriminator sees
    tiles = False  # colours of one picture must agree
    training: ClassVar = {"batch": 8, "margin": 0.1171875}
    presets: ClassVar = {"paper": {"batch": 1, "resolution": 256, "flip": True, "lambda_colour": 0}}
    sizes: ClassVar = {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 64},
        "large": {"width": 96},
    }

    def __init__(self, config: ColorizeConfig, spec: Pictures) -> None:
        if spec.channels < 3:
            raise UserError(
                "colorize learns from colour pictures, and these are grey.",
                "Name a folder of colour pictures; grey ones are what the trained model is given: "
                "faussaire apply RUN grey/ --out colour/",
            )
        super().__init__(config, spec)
        size = (spec.height, spec.width)
        halvings = config.halvings or fitting_unet(*size)
        self.nets = {
            "generator": UNet(1, 2, config.width, halvings),
            "discriminator": PatchDiscriminator(
                2, 1, config.width, fitting_halvings(min(size), config.patch_halvings)
            ),
        }

    @classmethod
    def makes(cls, config: ColorizeConfig, channels: int) -> int:
        return 1

    @property
    def takes(self) -> int:
        return 3  # whatever colour there is goes when L is taken

    @property
    def gives(self) -> int:
        return 3

    # ---- Training ----

    def lab(self, batch: Batch) -> Tensor:
        """The batch's pictures as (x, y), (N, 3, H, W), alpha left aside."""
        return batch.shared("lab", lambda: normalised(rgb_to_lab(batch["images"][:, :3])))

    def inputs(self, batch: Batch) -> Tensor:
        return self.lab(batch)[:, :1]

    def reals(self, batch: Batch, clock: Clock) -> Tensor:
        return self.lab(batch)

    def translate(self, x: Tensor, draws: Draws) -> Tensor:
        """(x, G(x)), (N, 3, H, W), of lightness x (N, 1, H, W)."""
        net = self.nets["generator"]
        y = net(x, net.noise(draws, *x.shape[2:]))  # pyright: ignore[reportCallIssue]
        return torch.cat([x, y], dim=1)

    def phases(self) -> tuple[Phase, ...]:
        return super().phases() if self.config.lambda_gan else super().phases()[-1:]

    def comparison(self, batch: Batch, fake: Tensor, clock: Clock) -> dict[str, Tensor]:
        config = self.config
        difference = (fake - self.lab(batch))[:, 1:].abs().mean()
        terms = {"l1": config.lambda_l1 * difference}  # equation 3
        made = colourfulness(lab_to_rgb(restored(fake)), eps=1e-3)
        with torch.no_grad():
            real = batch.mean(colourfulness(batch["images"]))
        share = batch.mean(made) / real.clamp(min=1.0)
        batch.observe({"colourfulness": share})
        if config.lambda_colour:
            terms["colour"] = config.lambda_colour * F.relu(1.0 - share / config.vivid)
        return terms

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if self.config.lambda_gan:
            terms = super().generator_loss(batch, clock)
            return terms | {"adversarial": self.config.lambda_gan * terms["adversarial"]}
        return self.comparison(batch, self.made(batch, clock), clock)

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        return super().examined(batch, clock) if self.config.lambda_gan else None

    # ---- How it is measured ----

    @classmethod
    def compares(cls, config: ColorizeConfig) -> tuple[str, ...]:
        return ("psnr", "l1", "colourfulness", "perceptual")

    def exam(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The picture without its colours, in whole levels as a file has them, and with them."""
        return rounded(greyed(batch["images"])), batch["images"][:, :3]

    # ---- Use ----

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """The grey picture, the result, and the picture."""
        grey = greyed(batch["images"])
        return grey[:, :1], self.apply(grey, batch.draws), batch["images"]

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        lightness = rgb_to_lab(x)[:, :1]
        light = lightness / LIGHT - 1.0
        small = resized(light, self.working_size(x.shape[2], x.shape[3]))
        colours = guided(self.nets["generator"](small), small, light, self.config.guide)
        return lab_to_rgb(in_gamut(torch.cat([lightness, COLOUR * colours], dim=1)))

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which a picture of this size is coloured."""
        side = self.config.work_resolution
        if side is None:
            side = min(self.spec.height, self.spec.width)
        scale = side / min(height, width) if side else 1.0
        return max(1, round(scale * height)), max(1, round(scale * width))


def greyed(x: Tensor) -> Tensor:
    """The lightness of pictures (N, 3 or 4, H, W) without any colour, as RGB (N, 3, H, W)."""
    lab = rgb_to_lab(x[:, :3])
    return lab_to_rgb(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], dim=1))


def normalised(lab: Tensor) -> Tensor:
    """L, a, b (N, 3, H, W) as (x, y) in about [-1, 1]."""
    return torch.cat([lab[:, :1] / LIGHT - 1.0, lab[:, 1:] / COLOUR], dim=1)


def restored(x: Tensor) -> Tensor:
    """The inverse of `normalised`."""
    return torch.cat([LIGHT * (x[:, :1] + 1.0), COLOUR * x[:, 1:]], dim=1)


def guided(colours: Tensor, small: Tensor, light: Tensor, radius: int) -> Tensor:
    """Colours (N, 2, h, w) enlarged so that they change where the lightness does, (N, 2, H, W).

    He and Sun 2015, "Fast Guided Filter", arXiv 1505.00996, algorithm 2: around each place colours are
    taken as p L + q, p and q by least squares over a square with a penalty on p, evened out, enlarged,
    and applied to the large picture's L.

    Args:
        colours: of the small picture.
        small, light: lightness of the small picture (N, 1, h, w) and of the large one (N, 1, H, W).
        radius: the square has 2 radius + 1 pixels a side; 0: colours are just enlarged.
    """
    size = (light.shape[2], light.shape[3])
    if not radius:
        return resized(colours, size)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    middle, level = mean(small), mean(colours)
    spread = mean(small.square()) - middle.square()
    together = mean(small * colours) - middle * level
    slope = together / (spread.clamp(min=0.0) + 0.01)
    offset = level - slope * middle
    return resized(mean(slope), size) * light + resized(mean(offset), size)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) as (N, C, *size), filtered where it gets smaller."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
