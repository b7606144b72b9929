"""Super-resolution: pictures two or four times as large, with the detail that was likely there.

Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network. Christian
Ledig, Lucas Theis, Ferenc Huszár, Jose Caballero, Andrew Cunningham, Alejandro Acosta, Andrew Aitken,
Alykhan Tejani, Johannes Totz, Zehan Wang, Wenzhe Shi. 2017. arXiv 1609.04802 (SRResNet, SRGAN).
ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks. Xintao Wang, Ke Yu, Shixiang Wu,
Jinjin Gu, Yihao Liu, Chao Dong, Chen Change Loy, Yu Qiao, Xiaoou Tang. 2018. arXiv 1809.00219 (RRDB).
Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data. Xintao Wang, Liangbin
Xie, Chao Dong, Ying Shan. 2021. arXiv 2107.10833 (degradations, U-Net discriminator).

Inputs are made of the pictures themselves, which are cut into tiles at their own resolution: shrunk
by an antialiased bicubic filter, or with `--degradation photo` as photographs found anywhere are
(Real-ESRGAN, section 3; `nn/degrade_photo.py`). Training has two stages, as in all three papers:

    pixel        |y - G(x)|, or its square (`--pixel mse`, SRGAN's equation 4): high PSNR, but smooth
    adversarial  lambda_pixel |y - G(x)| + lambda_perceptual |phi(y) - phi(G(x))| + lambda_gan L_G

phi are the maps of a network that knows pictures (SRGAN, equation 5). L_G is any of the losses of
`losses.py`; that of ESRGAN is `--loss relativistic-average` (its equation 2), that of the others the
plain one. `--pixel-share` says how much of the run the first stage has, and `--lambda-gan 0` makes it
the whole: what SRGAN calls SRResNet, and the choice where pixels must be right.

Where this leaves the papers:
- G's answer is added to a bicubic enlargement (Kim, Lee, Lee 2016, arXiv 1511.04587), which is where
  training then begins: in short runs on a CPU nothing else comes near. `--no-residual` is the papers'.
- SRResNet is without its batch normalisation, as ESRGAN's section 3.1 advises, and by default its
  last convolution gives all pixels of a place at once (Shi et al. 2016, arXiv 1609.05158), so that all
  work is done on the small picture. `--tail steps` doubles the size as the papers do, `--kernel 9` has
  SRGAN's first and last convolutions.
- The discriminator is Real-ESRGAN's U-Net in all cases: it judges each pixel, at any size.
- Maps are those of SqueezeNet 1.1 (5 MB), compared as in `metrics/perceptual.py`; with
  `--perceptual vgg19` (550 MB) those of Real-ESRGAN's layers, but after the rectifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Look, Pictures
from faussaire.core.optim import OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import Schedule
from faussaire.game import GameConfig
from faussaire.metrics.maps import open_maps
from faussaire.metrics.perceptual import open_perceptual
from faussaire.metrics.weights import VGG_19, Unavailable, fill, obtain, read_tensors
from faussaire.nn.degrade import enlarged, rgb, rounded, shrunk
from faussaire.nn.degrade_photo import photo
from faussaire.nn.sizes import mirrored, multiple_of
from faussaire.nn.spectral import spectral
from faussaire.translation import Translator


@dataclass(frozen=True, kw_only=True)
class SuperResConfig(GameConfig):
    """Settings of super-resolution, besides those of every game.

    Attributes:
        scale: how many times as wide and as high pictures become.
        net: the generator: `srresnet` is fast, `rrdb` (ESRGAN's) better in long runs on a GPU.
        width: channels of the generator's layers.
        blocks: its residual blocks.
        grow: channels that each convolution of an RRDB's dense blocks adds.
        kernel: side of SRResNet's first and last convolutions; 9 in its paper.
        tail: how SRResNet enlarges: `direct`, all pixels of a place at once, or by doubling `steps`.
        residual: whether the generator's answer is added to a bicubic enlargement.
        unshuffle: RRDB works on pictures so many times smaller, with more channels; None: 2 at scale
            2, as Real-ESRGAN does, else 1.
        degradation: what inputs are: pictures shrunk by a `bicubic` filter, or blurred, noisy and
            compressed as `photo`graphs found anywhere are.
        pixel: how the first stage compares pixels: `l1` gives sharper edges than `mse`.
        pixel_share: share of the run that the first stage has.
        pixel_lr: learning rate of the first stage, which falls to a hundredth along half a cosine.
        lambda_pixel: weight of the pixels' comparison in the second stage, on a range of 0 to 1.
        lambda_perceptual: weight of the perceptual term.
        lambda_gan: weight of the adversarial term; 0: the first stage alone, without any game.
        perceptual: the network that the perceptual term looks through, whose weights are downloaded
            once (5 MB, 550 MB) or lie at FAUSSAIRE_WEIGHTS.
        discriminator_width: channels of the discriminator's first layer.
    """

    scale: Literal[2, 4] = 2
    net: Literal["srresnet", "rrdb"] = "srresnet"
    width: int = 32
    blocks: int = 8
    grow: int = 32
    kernel: int = 3
    tail: Literal["direct", "steps"] = "direct"
    residual: bool = True
    unshuffle: int | None = None
    degradation: Literal["bicubic", "photo"] = "bicubic"
    pixel: Literal["l1", "mse"] = "l1"
    pixel_share: float = 0.6
    pixel_lr: float = 1e-3
    lambda_pixel: float = 1.0
    lambda_perceptual: float = 0.1
    lambda_gan: float = 0.01
    perceptual: Literal["squeezenet1.1", "vgg19", "none"] = "squeezenet1.1"
    discriminator_width: int = 32
    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            width=(1, 1024),
            blocks=(1, 100),
            grow=(1, 1024),
            kernel=(1, 31),
            pixel_share=(0, 1),
            pixel_lr=(0, None),
            lambda_pixel=(0, None),
            lambda_perceptual=(0, None),
            lambda_gan=(0, None),
            discriminator_width=(1, 1024),
        )
        if self.kernel % 2 == 0:
            raise UserError(
                f"kernel cannot be {self.kernel}: a kernel needs a middle.", "Write an odd number."
            )
        if self.unshuffle is not None:
            check_range(self, unshuffle=(1, 4))

    @property
    def shuffled(self) -> int:
        """By how much RRDB's input is made smaller."""
        return self.unshuffle or (2 if self.scale == 2 else 1)


# ---- Generators ----


class Block(nn.Module):
    """SRResNet's residual block, (N, W, H, W') to the same: x + conv(PReLU(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = _convolution(width, width)
        self.act = nn.PReLU()
        self.two = _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.act(self.one(x)))


class SRResNet(nn.Module):
    """Pictures (N, C, h, w) to (N, C, s h, s w): SRGAN's figure 4, without batch normalisation.

    Args:
        channels: C.
        width, blocks, kernel: see the settings.
        scale: s, a power of two.
        steps: whether the size doubles step by step; else one convolution gives s x s pixels.
        residual: whether the answer is a difference: it is then 0 at first.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: int,
        scale: int,
        *,
        kernel: int = 3,
        steps: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.head = nn.Sequential(_convolution(channels, width, kernel), nn.PReLU())
        self.body = nn.Sequential(
            *(Block(width) for _ in range(blocks)), _convolution(width, width)
        )
        tail: list[nn.Module] = []
        if steps:
            for _ in range(int(math.log2(scale))):
                tail += [_convolution(width, 4 * width), nn.PixelShuffle(2), nn.PReLU()]
            tail.append(_convolution(width, channels, kernel))
        else:
            tail += [_convolution(width, channels * scale**2, kernel), nn.PixelShuffle(scale)]
        self.tail = nn.Sequential(*tail)
        for block in self.body[:-1]:  # pyright: ignore[reportGeneralTypeIssues]
            _scaled(block.two, 0.1)  # pyright: ignore[reportArgumentType]  # near x at first
        if residual:
            _scaled(self.tail[-1 if steps else -2], 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x + self.body(x))


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it gave; (N, W, H, W') to the same.

    ESRGAN's figure 4: leaky ReLU of slope .2, the answer times .2 added to x.
    """

    def __init__(self, width: int, grow: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            _convolution(width + step * grow, grow if step < 4 else width) for step in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        *early, last = self.convolutions
        for conv in early:
            seen.append(F.leaky_relu(conv(torch.cat(seen, dim=1)), 0.2))
        return x + 0.2 * last(torch.cat(seen, dim=1))


class RRDB(nn.Module):
    """Residual in residual dense blocks: pictures (N, C, h, w) to (N, C, s h, s w).

    ESRGAN's section 3.1; enlargement by nearest neighbours before convolutions, and for scale 2 a
    picture made four times as deep and half as large at first, are those of the authors' programs.
    Inside, pictures are in [0, 1], as in published weights.

    Args:
        channels: C.
        width, blocks, grow: see the settings.
        scale: s.
        unshuffle: by how much the picture is made smaller first.
        residual: whether the answer is a difference: it is then 0 at first.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: int,
        grow: int,
        scale: int,
        *,
        unshuffle: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.unshuffle, self.scale, self.residual = unshuffle, scale, residual
        self.head = _convolution(channels * unshuffle**2, width)
        self.body = nn.Sequential(
            *(nn.Sequential(*(DenseBlock(width, grow) for _ in range(3))) for _ in range(blocks))
        )
        self.bend = _convolution(width, width)
        doublings = int(math.log2(scale * unshuffle))
        self.up = nn.ModuleList(_convolution(width, width) for _ in range(doublings))
        self.fine = _convolution(width, width)
        self.paint = _convolution(width, channels)
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                _scaled(layer, 0.1)  # ESRGAN, section 3.1: smaller initialisation
        if residual:
            _scaled(self.paint, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        x = mirrored(x, multiple_of(*size, self.unshuffle)) if self.unshuffle > 1 else x
        top = (x.shape[2] - size[0]) // 2 * self.scale
        left = (x.shape[3] - size[1]) // 2 * self.scale
        x = self.head(F.pixel_unshuffle((x + 1.0) / 2.0, self.unshuffle))
        y = x
        for block in self.body:
            y = y + 0.2 * block(y)
        x = x + self.bend(y)
        for conv in self.up:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        y = self.paint(F.leaky_relu(self.fine(x), 0.2))
        y = y[:, :, top : top + self.scale * size[0], left : left + self.scale * size[1]]
        return 2.0 * y if self.residual else 2.0 * y - 1.0


def _convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size, He's initialisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, a=0.2)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


@torch.no_grad()
def _scaled(layer: nn.Module, factor: float) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.mul_(factor)


# ---- Discriminator ----


class UNetDiscriminator(nn.Module):
    """Pictures (N, C, H, W) of any size to a logit for each pixel, (N, 1, H, W).

    Real-ESRGAN's section 3.3 (after Schönfeld et al. 2020, arXiv 2002.12655): a U-Net of three halvings
    with spectral norm, leaky ReLU of slope .2, and sums where it meets itself. Its layers are those of
    the authors' program, 4.4 M parameters with a width of 64.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.look = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            spectral(nn.Conv2d(fine, coarse, 4, stride=2, padding=1, bias=False))
            for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral(nn.Conv2d(coarse, fine, 3, padding=1, bias=False))
            for fine, coarse in reversed([*pairwise(widths)])
        )
        self.judge = nn.ModuleList(
            spectral(nn.Conv2d(width, width, 3, padding=1, bias=False)) for _ in range(2)
        )
        self.say = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        size = (x.shape[2], x.shape[3])
        whole = multiple_of(*size, 8)
        top, left = ((large - small) // 2 for large, small in zip(whole, size, strict=True))
        seen = [F.leaky_relu(self.look(mirrored(x, whole)), 0.2)]
        for conv in self.down:
            seen.append(F.leaky_relu(conv(seen[-1]), 0.2))
        x = seen.pop()
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + seen.pop()
        for conv in self.judge:
            x = F.leaky_relu(conv(x), 0.2)
        return self.say(x)[:, :, top : top + size[0], left : left + size[1]]


# ---- The game ----


class SuperRes(Translator[SuperResConfig]):
    """SRResNet or RRDB, on pictures that they enlarge by two or four."""

    Config = SuperResConfig
    panels = ("enlarged by bicubic interpolation", "by the network", "real")
    beside = False
    faithful = True
    least_side = 16
    training: ClassVar = {
        "batch": 16,
        "fit": "tiles",
        "resolution": 96,
        "margin": 0.25,
        "flip": True,
    }
    presets: ClassVar = {
        "srgan": {
            "scale": 4,
            "width": 64,
            "blocks": 16,
            "kernel": 9,
            "tail": "steps",
            "residual": False,
            "pixel": "mse",
            "pixel_lr": 1e-4,
            "perceptual": "vgg19",
            "lambda_gan": 1e-3,
            "discriminator_width": 64,
        },
        "esrgan": {
            "scale": 4,
            "net": "rrdb",
            "width": 64,
            "blocks": 23,
            "residual": False,
            "pixel_lr": 2e-4,
            "loss": "relativistic-average",
            "perceptual": "vgg19",
            "lambda_pixel": 1e-2,
            "lambda_perceptual": 1.0,
            "lambda_gan": 5e-3,
            "discriminator_width": 64,
            "resolution": 128,
        },
        "photo": {
            "scale": 4,
            "net": "rrdb",
            "width": 64,
            "blocks": 23,
            "residual": False,
            "degradation": "photo",
            "pixel_lr": 2e-4,
            "perceptual": "vgg19",
            "lambda_perceptual": 1.0,
            "lambda_gan": 0.1,
            "discriminator_width": 64,
            "resolution": 256,
            "batch": 12,
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "blocks": 4, "discriminator_width": 16},
        "small": {"width": 32, "blocks": 8, "discriminator_width": 32},
        "base": {
            "width": 64,
            "blocks": 16,
            "tail": "steps",
            "discriminator_width": 64,
            "pixel_lr": 5e-4,
        },
        "large": {
            "net": "rrdb",
            "width": 64,
            "blocks": 23,
            "discriminator_width": 64,
            "pixel_lr": 2e-4,
        },
    }

    def __init__(self, config: SuperResConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if spec.height % config.scale or spec.width % config.scale:
            raise UserError(
                f"Pictures of {spec.width}x{spec.height} cannot be shrunk by {config.scale} to whole "
                "pixels.",
                f"Choose a --resolution that {config.scale} divides.",
            )
        self.nets = {
            "generator": self._generator(config, spec.channels),
            "discriminator": UNetDiscriminator(spec.channels, config.discriminator_width),
        }
        self._eye: Eye | None = None

    @staticmethod
    def _generator(config: SuperResConfig, channels: int) -> nn.Module:
        common = (channels, config.width, config.blocks)
        if config.net == "rrdb":
            return RRDB(
                *common,
                config.grow,
                config.scale,
                unshuffle=config.shuffled,
                residual=config.residual,
            )
        return SRResNet(
            *common,
            config.scale,
            kernel=config.kernel,
            steps=config.tail == "steps",
            residual=config.residual,
        )

    @classmethod
    def makes(cls, config: SuperResConfig, channels: int) -> int:
        return channels

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """RRDB with published weights of ESRGAN or Real-ESRGAN, whatever program they are from.

        Args:
            path: `.safetensors`, or `.pth`, of which nothing is executed.

        Raises:
            UserError: it cannot be read, or is of another network.
        """
        state = renamed(read_tensors(path), path)
        config, channels = _described(state, path)
        family = cls(
            config, Pictures(channels=channels, height=64, width=64, input_channels=channels)
        )
        fill(family.nets["generator"], state, path, _ONLY_RRDB)
        return family

    @property
    def scale(self) -> int:
        return self.config.scale

    @property
    def reach(self) -> int:
        config = self.config
        if config.net == "rrdb":
            return 32  # in principle hundreds, but what lies farther hardly matters
        return 2 * (config.kernel // 2) + 2 * config.blocks + 2 + config.scale // 2

    # ---- The plan ----

    def stages(self, total: int) -> tuple[Stage, ...]:
        pixel = Phase(name="pixel", nets=("generator",), loss=self.pixel_loss)
        if not self.config.lambda_gan:
            return (Stage(name="pixel", phases=(pixel,)),)
        return (
            Stage(name="pixel", phases=(pixel,), until=self._until(total)),
            Stage(name="adversarial", phases=self.phases()),
        )

    def _until(self, total: int) -> int:
        """Examples seen at which the first of two stages ends."""
        return round(self.config.pixel_share * total)

    def plays(self, clock: Clock) -> bool:
        """Whether there is a game by now."""
        return self.config.lambda_gan > 0 and clock.examples >= self._until(clock.total)

    def optimisers(self) -> dict[str, OptimiserSpec]:
        # Asked for as training is set up: that weights are missing must not be told hours later.
        if self.config.lambda_gan and self.config.lambda_perceptual and self._eye is None:
            self._eye = _open_eye(self.config.perceptual)
        return super().optimisers()

    def rate(self, player: str) -> float | Schedule:
        later = super().rate(player)
        if player == "discriminator":
            return later
        config = self.config
        share = config.pixel_share if config.lambda_gan else 1.0

        def value(clock: Clock) -> float:
            if self.plays(clock):
                return later(clock) if callable(later) else later
            done = min(1.0, clock.progress / share) if share else 1.0
            return config.pixel_lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))

        return value

    # ---- Pictures ----

    def inputs(self, batch: Batch) -> Tensor:
        return batch.shared("inputs", lambda: self.degraded(batch["images"], batch.draws))

    def degraded(self, images: Tensor, draws: Draws) -> Tensor:
        """Small pictures (N, C, H / s, W / s) of large ones, in steps of 1/255 as a file has them."""
        if self.config.degradation == "photo":
            return photo(images, draws, self.config.scale)
        return rounded(shrunk(images, self.config.scale))

    def translate(self, x: Tensor, draws: Draws) -> Tensor:
        y = self.nets["generator"](x)
        return enlarged(x, self.config.scale) + y if self.config.residual else y

    # ---- Losses ----

    def difference(self, batch: Batch, fake: Tensor) -> Tensor:
        """|y - G(x)| or its square, (), with pictures on a range of 0 to 1."""
        error = (fake - batch["images"]) / 2.0
        return error.square().mean() if self.config.pixel == "mse" else error.abs().mean()

    def pixel_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The first stage's: SRGAN's equation 4, or the same with absolute differences."""
        fake = self.made(batch, clock)
        return {self.config.pixel: self.difference(batch, fake)}

    def comparison(self, batch: Batch, fake: Tensor, clock: Clock) -> dict[str, Tensor]:
        config = self.config
        terms = {config.pixel: config.lambda_pixel * self.difference(batch, fake)}
        if self._eye is not None:
            distance = self._eye(fake, batch["images"])
            terms["perceptual"] = config.lambda_perceptual * distance
        return terms

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, clock)
        return terms | {"adversarial": self.config.lambda_gan * terms["adversarial"]}

    # ---- How it is measured ----

    @classmethod
    def compares(cls, config: SuperResConfig) -> tuple[str, ...]:
        own = ("psnr_luma", "ssim_luma", "perceptual")
        return (*own, "consistency") if config.degradation == "bicubic" else own

    @classmethod
    def judged_by(cls, config: SuperResConfig) -> tuple[str, ...]:
        # PSNR falls while pictures get better: it would choose the last checkpoint without a game.
        return ("perceptual",) if config.lambda_gan else ("psnr_luma",)

    @property
    def exam_name(self) -> str:
        return f"x{self.config.scale},{self.config.degradation}"

    def unlearnt(self, x: Tensor) -> Tensor:
        return enlarged(x, self.config.scale)

    def consistent(self, made: Tensor) -> Tensor:
        return rounded(shrunk(made, self.config.scale))

    # ---- To look at ----

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        return super().examined(batch, clock) if self.plays(clock) else None

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        x, y, target = super().demonstrated(batch)
        return enlarged(x, self.config.scale).clamp(-1.0, 1.0), y, target


# ---- Weights of others ----

_ONLY_RRDB = "Only RRDB networks of ESRGAN and Real-ESRGAN (such as RealESRGAN_x4plus) can be read."
_NAMES = (
    # BasicSR's and Real-ESRGAN's names, and those of ESRGAN's second program; then of its first, where
    # layers are numbered: 0 the first, 1 the body, 3, 6, ... those after enlargement.
    (r"conv_first\.|model\.0\.", "head."),
    (
        r"(?:body|RRDB_trunk|model\.1\.sub)\.(\d+)\.(?:rdb|RDB)(\d)\.conv(\d)\.(?:0\.)?",
        lambda found: f"body.{found[1]}.{int(found[2]) - 1}.convolutions.{int(found[3]) - 1}.",
    ),
    (r"(?:conv_body|trunk_conv|model\.1\.sub\.\d+)\.", "bend."),
    (r"(?:conv_up|upconv)(\d)\.", lambda found: f"up.{int(found[1]) - 1}."),
    (r"(?:conv_hr|HRconv)\.", "fine."),
    (r"conv_last\.", "paint."),
)


def renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A state dict of any of three programs with the names of `RRDB`.

    Args:
        state: tensors by name.
        path: for the words.

    Raises:
        UserError: a name is none of theirs.
    """
    numbers = sorted(
        {int(found[1]) for key in state if (found := re.match(r"model\.(\d+)\.", key))}
    )
    late = [f"up.{place}." for place in range(len(numbers) - 4)] + ["fine.", "paint."]
    numbered = {f"model.{n}.": name for n, name in zip(numbers[2:], late, strict=False)}
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        stem, kind = key[: key.rindex(".") + 1] if "." in key else "", key.rpartition(".")[2]
        name = numbered.get(stem)
        for pattern, replacement in _NAMES:
            if name is None and (found := re.fullmatch(pattern, stem)):
                name = replacement if isinstance(replacement, str) else replacement(found)
        if name is None:
            raise UserError(f"'{path}' holds '{key}', which is no part of an RRDB.", _ONLY_RRDB)
        result[name + kind] = value
    return result


def _described(state: Mapping[str, Tensor], path: Path) -> tuple[SuperResConfig, int]:
    """The settings that fit a state dict with our names, and channels of pictures.

    Raises:
        UserError: a layer is missing, or it enlarges by anything but 2 and 4.
    """
    try:
        head, paint = state["head.weight"], state["paint.weight"]
        grow = state["body.0.0.convolutions.0.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"'{path}' has no layer {error} of an RRDB.", _ONLY_RRDB) from error
    channels = paint.shape[0]
    unshuffle = math.isqrt(head.shape[1] // channels)
    scale = 2 ** sum(key.startswith("up.") and key.endswith("weight") for key in state) / unshuffle
    if scale not in (2, 4):
        raise UserError(f"'{path}' enlarges by {scale:g}.", "Only 2 and 4 are known here.")
    config = SuperResConfig(
        scale=2 if scale == 2 else 4,
        net="rrdb",
        width=head.shape[0],
        blocks=1 + max(int(key.split(".")[1]) for key in state if key.startswith("body.")),
        grow=grow,
        unshuffle=unshuffle,
        residual=False,
    )
    return config, channels


# ---- The perceptual term ----

_VGG_LAYERS = {"relu1_2": 0.1, "relu2_2": 0.1, "relu3_4": 1.0, "relu4_4": 1.0, "relu5_4": 1.0}
"""Weights of VGG-19's maps in Real-ESRGAN (section 4.1)."""

Eye = Callable[[Tensor, Tensor], Tensor]
"""How different pictures (N, C, H, W) look from others, (); differentiable."""


def _open_eye(name: str) -> Eye | None:
    """The network that the perceptual term looks through; None: there is no such term.

    Raises:
        UserError: its weights cannot be had.
    """
    if name == "none":
        return None
    try:
        return _squeezenet() if name == "squeezenet1.1" else _vgg19()
    except Unavailable as error:
        raise Unavailable(
            error.cause,
            f"{error.hint} Or train with --perceptual none, or without the second stage: "
            "--lambda-gan 0.",
        ) from error


def _squeezenet() -> Eye:
    """The distance of `metrics/perceptual.py`."""
    distance = open_perceptual()
    net = distance.net
    assert isinstance(net, nn.Module)

    def eye(fake: Tensor, real: Tensor) -> Tensor:
        net.to(fake.device)
        return distance(fake, real).mean()

    return eye


def _vgg19() -> Eye:
    """Mean absolute differences of VGG-19's maps, weighted as in Real-ESRGAN."""
    maps = open_maps("vgg19", obtain(VGG_19), _VGG_LAYERS)

    def eye(fake: Tensor, real: Tensor) -> Tensor:
        maps.to(fake.device)
        with torch.no_grad():
            targets = maps(rgb(real))
        found = maps(rgb(fake))
        terms = [w * (found[key] - targets[key]).abs().mean() for key, w in _VGG_LAYERS.items()]
        return torch.stack(terms).sum()

    return eye
