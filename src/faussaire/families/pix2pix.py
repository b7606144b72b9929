"""pix2pix: from one kind of picture to another, learnt from pairs.

Image-to-Image Translation with Conditional Adversarial Networks. Phillip Isola, Jun-Yan Zhu, Tinghui
Zhou, Alexei A. Efros. 2017. arXiv 1611.07004.

The generator is a U-Net from x to y, the discriminator sees x beside y or G(x) and judges every patch
of 70x70 pixels (sections 3.2.1 and 3.2.2). Their game is

    L_cGAN(G, D) = E[log D(x, y)] + E[log(1 - D(x, G(x, z)))]      (equation 1)
    L_L1(G) = E|y - G(x, z)|                                       (equation 3)
    G* = arg min_G max_D L_cGAN(G, D) + lambda L_L1(G)             (equation 4)

with lambda 100 and the non-saturating form for G. Of z nothing is left but dropout in three layers of
the generator, which stays on when it is used. Adam with rate 2e-4 and beta1 .5, weights from N(0, .02),
batches of 1 to 10; pictures are enlarged to 286 and cut to 256 at random, and mirrored (appendix 6.2;
`--margin` and `--flip`).

Where this goes beyond the paper or leaves it:
- Any size: there are as many halvings as the smaller side allows, up to the paper's eight, and
  other sides are mirrored beyond their edges and cut back.
- Normalisation is instance normalisation, which the paper's batch normalisation over batches of one
  is; so a picture's translation does not depend on those beside it. As the authors' erratum says,
  the innermost layer has none.
- Dropout is drawn from the run's own random numbers: a seed gives the same picture again.
- The discriminator's loss is not halved: Adam's steps do not depend on a loss's scale.
- Pairs may be made on the fly (`--make`): the input is what is left of each picture.
- `--lambda-gan 0` is the paper's comparison, L1 alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import PairData, check_range
from faussaire.core.family import Look, Pictures
from faussaire.core.phase import Phase
from faussaire.game import GameConfig
from faussaire.nn.degrade import degraded, degraded_channels
from faussaire.nn.patch import PatchDiscriminator, fitting_halvings
from faussaire.nn.unet import UNet, fitting_unet
from faussaire.translation import Translator


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig(GameConfig):
    """Settings of pix2pix, besides those of every game.

    Attributes:
        lambda_l1: weight of |y - G(x)| (lambda in equation 4), pictures in [-1, 1].
        lambda_gan: weight of the adversarial loss in G's; 0: L1 alone, without any game.
        width: channels of the layers next to the picture, in both networks.
        halvings: of the U-Net; None: as many as the smaller side allows, up to 8.
        make: with one source alone, what is made of each picture to be its input: its `edges`, its
            `grey` version, a `mask`ed one with holes, or a `small` one, a quarter a side, enlarged.
        direct: the generator adds its input to what it paints, so that it begins as a copy: for inputs
            that have the colours of what they should become, such as segments in their mean colours.
            Not in the paper.
        patch_halvings: of the discriminator: 3 judges patches of 70x70 pixels, 2 of 34, 1 of 16.
    """

    Data: ClassVar[type] = PairData
    lambda_l1: float = 100.0
    lambda_gan: float = 1.0
    width: int = 64
    halvings: int | None = None
    make: Literal["none", "edges", "grey", "mask", "small"] = "none"
    direct: bool = False
    patch_halvings: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            lambda_l1=(0, None),
            lambda_gan=(0, None),
            width=(1, 1024),
            patch_halvings=(1, 6),
        )
        if self.halvings is not None:
            check_range(self, halvings=(1, 10))


class Pix2Pix(Translator[Pix2PixConfig]):
    """pix2pix on pairs of any size from 16x16 up."""

    Config = Pix2PixConfig
    sources = "pair"
    least_side = 16
    training: ClassVar = {"batch": 4, "margin": 0.1171875}
    presets: ClassVar = {"paper": {"batch": 1, "resolution": 256, "flip": True}}
    sizes: ClassVar = {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 64},
        "large": {"width": 96},
    }

    def __init__(self, config: Pix2PixConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        size = (spec.height, spec.width)
        self.nets = {
            "generator": UNet(
                spec.input_channels,
                spec.channels,
                config.width,
                config.halvings or fitting_unet(*size),
                direct=config.direct,
            ),
            "discriminator": PatchDiscriminator(
                spec.channels,
                spec.input_channels,
                config.width,
                fitting_halvings(min(size), config.patch_halvings),
            ),
        }

    @classmethod
    def needs(cls, config: Pix2PixConfig) -> Literal["one", "pair"]:
        return "pair" if config.make == "none" else "one"

    @classmethod
    def makes(cls, config: Pix2PixConfig, channels: int) -> int:
        return degraded_channels(config.make, channels)

    def inputs(self, batch: Batch) -> Tensor:
        make = self.config.make
        if make == "none":
            return batch["inputs"]
        return batch.shared("inputs", lambda: degraded(make, batch["images"], batch.draws))

    @property
    def exam_name(self) -> str:
        return "" if self.config.make == "none" else self.config.make

    def phases(self) -> tuple[Phase, ...]:
        return super().phases() if self.config.lambda_gan else super().phases()[-1:]

    def translate(self, x: Tensor, draws: Draws) -> Tensor:
        net = self.nets["generator"]
        return net(x, net.noise(draws, *x.shape[2:]))  # pyright: ignore[reportCallIssue]

    def comparison(self, batch: Batch, fake: Tensor, clock: Clock) -> dict[str, Tensor]:
        return {"l1": self.config.lambda_l1 * (fake - batch["images"]).abs().mean()}  # equation 3

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if self.config.lambda_gan:
            terms = super().generator_loss(batch, clock)
            return terms | {"adversarial": self.config.lambda_gan * terms["adversarial"]}
        return self.comparison(batch, self.made(batch, clock), clock)

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        return super().examined(batch, clock) if self.config.lambda_gan else None
