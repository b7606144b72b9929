"""inpaint: what is missing of a picture, learnt from whole ones.

Holes are drawn at random (`nn/masks.py`); the network sees the rest of the picture and where the hole
is, and what it makes is put into the hole: known pixels are always the picture's own. Two generators:

`fourier`: Resolution-robust Large Mask Inpainting with Fourier Convolutions (LaMa). Roman Suvorov,
Elizaveta Logacheva, Anton Mashikhin, Anastasia Remizova, Arsenii Ashukha, Aleksei Silvestrov, Naejin
Kong, Harshith Goka, Kiwoong Park, Victor Lempitsky. 2022. arXiv 2109.07161. Three halvings, residual
blocks of fast Fourier convolutions, three doublings. A quarter of a block's channels is local, with 3x3
convolutions; the rest is global: a 1x1 convolution of the map's spectrum sees all places at once
(section 2.1), so that a hole wider than any kernel is filled from everything around it.

`gated`: Free-Form Image Inpainting with Gated Convolution (DeepFill v2). Jiahui Yu, Zhe Lin, Jimei Yang,
Xiaohui Shen, Xin Lu, Thomas Huang. 2019. arXiv 1806.03589. Every convolution decides, by place and
channel, what passes: y = f(W_f * x) sigmoid(W_g * x) (equation 3, f is ELU). A first network makes a
draft, a second one sees the picture with the draft in its hole, and refines it (section 3.5).

The discriminator judges patches of the filled picture beside the hole, all its layers with spectral
norm (section 3.3 of the latter). With x the picture, m the hole, and G the filled picture:

    adversarial: hinge, or any other game, R1 by `--r1`; weight lambda_gan
    known, missing: E|x - G| of what the network makes, over known places and over the hole's
    matching: E|D_i(x) - D_i(G)| over D's layers (arXiv 1711.11585, equation 4); lambda_matching
    perceptual: distance in the layers of SqueezeNet 1.1; lambda_perceptual

Where this leaves the papers: sizes of the networks follow `width`; LaMa's discriminator calls real the
patches that touch no hole, which here are equal on both sides and cancel; its perceptual loss has a
segmentation network with a wide field of view, in whose place stands SqueezeNet (5 MB, fetched if need
be; off by default); DeepFill's contextual attention, which copies patches from elsewhere, is left out.
Any size: pictures are mirrored beyond their edges and cut back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Look, Pictures
from faussaire.core.phase import Phase
from faussaire.game import GameConfig, LossName
from faussaire.metrics.perceptual import PerceptualDistance, open_perceptual
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.masks import holes
from faussaire.nn.patch import fitting_halvings
from faussaire.nn.sizes import cut, mirrored, multiple_of
from faussaire.nn.spectral import spectral
from faussaire.translation import Translator


@dataclass(frozen=True, kw_only=True)
class InpaintConfig(GameConfig):
    """Settings of inpaint, besides those of every game.

    Attributes:
        loss: what the two players lower.
        generator: `fourier` (LaMa) or `gated` (DeepFill v2).
        masks: holes to train with: `wide` ones, as LaMa has them, or `thin` ones.
        lambda_known: weight of the error at known places, which nobody sees: it keeps what is made
            fitting at the hole's edge.
        lambda_missing: weight of the error in the hole; LaMa has 0, for of all that could be there
            the error prefers the middle, which is blurred.
        lambda_gan: weight of the adversarial loss in G's; 0: no game at all.
        lambda_matching: weight of feature matching.
        lambda_perceptual: weight of the perceptual distance; above 0 it needs SqueezeNet's weights.
        width: channels of the first layer of the generator.
        discriminator_width: channels of the discriminator's first layer.
        blocks: residual blocks of `fourier`.
        share_global: share of the channels in its blocks that go through the spectrum.
        patch_halvings: of the discriminator: 3 judges patches of 70x70 pixels, 2 of 34, 1 of 16.
    """

    loss: LossName = "hinge"
    generator: Literal["fourier", "gated"] = "fourier"
    masks: Literal["wide", "thin"] = "wide"
    lambda_known: float = 5.0
    lambda_missing: float = 20.0
    lambda_gan: float = 0.1
    lambda_matching: float = 5.0
    lambda_perceptual: float = 0.0
    width: int = 32
    discriminator_width: int = 32
    blocks: int = 6
    share_global: float = 0.75
    patch_halvings: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            lambda_known=(0, None),
            lambda_missing=(0, None),
            lambda_gan=(0, None),
            lambda_matching=(0, None),
            lambda_perceptual=(0, None),
            width=(2, 1024),
            discriminator_width=(1, 1024),
            blocks=(1, 100),
            share_global=(0.05, 0.95),
            patch_halvings=(1, 6),
        )


# ---- LaMa ----


class Spectrum(nn.Module):
    """A 1x1 convolution of the spectrum, (N, C, h, w) to the same. arXiv 2109.07161, section 2.1.

    Real FFT, real and imaginary parts as channels, convolution, batch norm, ReLU, and back: every
    place sees every other. In float32 whatever is around it: FFTs know no bf16, and the
    lowest frequency is a sum over all places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.norm = BatchNormAct2d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            found = torch.fft.rfftn(x.float(), dim=(2, 3), norm="ortho")
            parts = self.norm(self.mix(torch.cat([found.real, found.imag], dim=1)))
            real, imaginary = parts.float().chunk(2, dim=1)
            made = torch.complex(real.contiguous(), imaginary.contiguous())
            return torch.fft.irfftn(made, s=size, dim=(2, 3), norm="ortho").to(x.dtype)


class Global(nn.Module):
    """From global channels to global channels: half as many, their spectrum beside them, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.narrow = nn.Conv2d(channels, half, 1, bias=False)
        self.norm = BatchNormAct2d(half)
        self.spectrum = Spectrum(half)
        self.widen = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.narrow(x))
        return self.widen(x + self.spectrum(x))


class FourierConv(nn.Module):
    """A fast Fourier convolution: local and global maps, each made from both. Figure 2 of LaMa.

    Args:
        local, spread: channels of either.
    """

    def __init__(self, local: int, spread: int) -> None:
        super().__init__()
        self.near = _mirror(local, local)
        self.gather = _mirror(spread, local)
        self.scatter = _mirror(local, spread)
        self.far = Global(spread)
        self.local_norm, self.spread_norm = BatchNormAct2d(local), BatchNormAct2d(spread)

    def forward(self, local: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        near = self.local_norm(self.near(local) + self.gather(spread))
        return near, self.spread_norm(self.scatter(local) + self.far(spread))


class FourierBlock(nn.Module):
    """Two fast Fourier convolutions, beside which x (N, C, h, w) passes."""

    def __init__(self, channels: int, share: float) -> None:
        super().__init__()
        self.local = min(channels - 1, max(1, round(channels * (1.0 - share))))
        sizes = (self.local, channels - self.local)
        self.one, self.two = FourierConv(*sizes), FourierConv(*sizes)

    def forward(self, x: Tensor) -> Tensor:
        local, spread = x[:, : self.local], x[:, self.local :]
        return x + torch.cat(self.two(*self.one(local, spread)), dim=1)


class FourierGenerator(nn.Module):
    """(N, C + 1, H, W), the picture without its hole and the hole, to one picture (N, C, H, W)."""

    HALVINGS = 3

    def __init__(self, channels: int, width: int, blocks: int, share: float) -> None:
        super().__init__()
        widths = [width * 2**step for step in range(self.HALVINGS + 1)]
        layers: list[nn.Module] = [_mirror(channels + 1, width, 7), BatchNormAct2d(width)]
        for narrow, wide in pairwise(widths):
            layers += [_mirror(narrow, wide, stride=2), BatchNormAct2d(wide)]
        layers += [FourierBlock(widths[-1], share) for _ in range(blocks)]
        for wide, narrow in pairwise(widths[::-1]):
            up = nn.ConvTranspose2d(wide, narrow, 3, 2, 1, output_padding=1, bias=False)
            layers += [up, BatchNormAct2d(narrow)]
        layers += [_mirror(width, channels, 7, bias=True), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        size = (x.shape[2], x.shape[3])
        least = max(size[0], 16), max(size[1], 16)  # mirrored borders need pixels to mirror
        whole = multiple_of(*least, 2**self.HALVINGS)
        return (cut(self.body(mirrored(x, whole)), size),)


def _mirror(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    padding = kernel // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, padding_mode="reflect", bias=bias)


# ---- DeepFill v2 ----


class GatedConv(nn.Module):
    """ELU(W_f * x) sigmoid(W_g * x): what passes is learnt, by place and channel. Equation 3."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, stride, padding, dilation)

    def forward(self, x: Tensor) -> Tensor:
        features, gates = self.conv(x).chunk(2, dim=1)
        return F.elu(features) * torch.sigmoid(gates)


class Stage(nn.Module):
    """One of the two networks: two halvings, dilated gated convolutions, two doublings."""

    def __init__(self, inputs: int, channels: int, width: int) -> None:
        super().__init__()
        wide, half = 4 * width, max(1, width // 2)
        self.body = nn.Sequential(
            GatedConv(inputs, width, 5),
            GatedConv(width, 2 * width, stride=2),
            GatedConv(2 * width, 2 * width),
            GatedConv(2 * width, wide, stride=2),
            GatedConv(wide, wide),
            GatedConv(wide, wide),
            *(GatedConv(wide, wide, dilation=step) for step in (2, 4, 8, 16)),
            GatedConv(wide, wide),
            GatedConv(wide, wide),
            nn.Upsample(scale_factor=2, mode="nearest"),
            GatedConv(wide, 2 * width),
            GatedConv(2 * width, 2 * width),
            nn.Upsample(scale_factor=2, mode="nearest"),
            GatedConv(2 * width, width),
            GatedConv(width, half),
            nn.Conv2d(half, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class GatedGenerator(nn.Module):
    """As `FourierGenerator`, but to two pictures: a draft and the result."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.draft = Stage(channels + 1, channels, width)
        self.refine = Stage(channels + 1, channels, width)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        size = (x.shape[2], x.shape[3])
        x = mirrored(x, multiple_of(*size, 4))
        draft = self.draft(x)
        place = x[:, -1:]
        filled = torch.where(place > 0.0, draft.to(x.dtype), x[:, :-1])
        result = self.refine(torch.cat([filled, place], dim=1))
        return cut(draft, size), cut(result, size)


# ---- The other player ----


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) beside holes (N, 1, H, W) to logits of patches (N, 1, h, w).

    4x4 convolutions with spectral norm and without any other, leaky ReLU of slope .2.
    """

    def __init__(self, channels: int, width: int, halvings: int) -> None:
        super().__init__()
        widths = [channels + 1, *(min(2**step, 8) * width for step in range(halvings + 1))]
        strides = [2] * halvings + [1]
        self.layers = nn.ModuleList(
            spectral(nn.Conv2d(narrow, wide, 4, stride, padding=1))
            for (narrow, wide), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.judge = spectral(nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        """The logits, then the maps of each layer."""
        maps = []
        x = torch.cat([x, hole], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return self.judge(x), *maps


class Inpaint(Translator[InpaintConfig]):
    """Holes of pictures of any size are filled; trained on whole ones from 16x16 up."""

    Config = InpaintConfig
    panels = ("with a hole", "filled", "whole")
    least_side = 16
    fills = True
    training: ClassVar = {"batch": 8, "margin": 0.1171875}
    presets: ClassVar = {
        "lama": {
            **{"generator": "fourier", "width": 64, "blocks": 9, "discriminator_width": 64},
            **{"loss": "nonsaturating", "r1": 0.001, "lr": 1e-3, "discriminator_lr": 1e-4},
            **{"lambda_known": 10.0, "lambda_missing": 0.0, "lambda_gan": 10.0, "batch": 10},
            **{"lambda_matching": 100.0, "lambda_perceptual": 30.0, "beta1": 0.9},
            **{"patch_halvings": 4, "resolution": 256},
        },
        "deepfill": {
            **{"generator": "gated", "width": 48, "discriminator_width": 64, "masks": "thin"},
            **{"lambda_known": 1.0, "lambda_missing": 1.0, "lambda_gan": 1.0, "batch": 16},
            **{"lambda_matching": 0.0, "lr": 1e-4, "resolution": 256},
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "discriminator_width": 16, "blocks": 4},
        "small": {"width": 32, "discriminator_width": 32, "blocks": 6},
        "base": {"width": 64, "discriminator_width": 64, "blocks": 9},
        "large": {"width": 64, "discriminator_width": 64, "blocks": 18},
    }

    def __init__(self, config: InpaintConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        width = config.width
        if config.generator == "gated":
            made = GatedGenerator(spec.channels, width)
        else:
            made = FourierGenerator(spec.channels, width, config.blocks, config.share_global)
        halvings = fitting_halvings(min(spec.height, spec.width), config.patch_halvings)
        self.nets = {
            "generator": made,
            "discriminator": Discriminator(spec.channels, config.discriminator_width, halvings),
        }
        self._perceptual: PerceptualDistance | None = None

    @classmethod
    def makes(cls, config: InpaintConfig, channels: int) -> int:
        return channels + 1

    # ---- Training ----

    def inputs(self, batch: Batch) -> Tensor:
        """Pictures without their holes, and the holes as -1 and 1: (N, C + 1, H, W)."""
        return batch.shared("inputs", lambda: self.emptied(batch["images"], batch.draws))

    def emptied(self, x: Tensor, draws: Draws) -> Tensor:
        """Pictures (N, C, H, W) with holes drawn at random, as `inputs` has them."""
        return without(x, holes(draws, x.shape[2], x.shape[3], self.config.masks))

    def condition(self, batch: Batch) -> Tensor:
        return self.inputs(batch)[:, -1:]

    def judge(self, images: losses.Samples, condition: Tensor | None, clock: Clock) -> Tensor:
        return self.nets["discriminator"](images, condition)[0]

    def pictures(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the generator makes, the last of which is the result, (N, C, H, W) each."""
        # A discriminator that trains several times sees fakes of its own, without a graph.
        name = "pictures" if torch.is_grad_enabled() else "still pictures"
        return batch.shared(name, lambda: self.nets["generator"](self.inputs(batch)))

    def made(self, batch: Batch, clock: Clock) -> Tensor:
        return filled(self.inputs(batch), self.pictures(batch)[-1])

    def phases(self) -> tuple[Phase, ...]:
        return super().phases() if self.config.lambda_gan else super().phases()[-1:]

    def comparison(self, batch: Batch, fake: Tensor, clock: Clock) -> dict[str, Tensor]:
        config, real = self.config, batch["images"]
        hole = (self.condition(batch) + 1.0) / 2.0
        terms: dict[str, Tensor] = {}
        errors = [(made - real).abs().mean(dim=1, keepdim=True) for made in self.pictures(batch)]
        error = torch.stack(errors).sum(dim=0)
        if config.lambda_known:
            terms["known"] = config.lambda_known * _mean(error, 1.0 - hole)
        if config.lambda_missing:
            terms["missing"] = config.lambda_missing * _mean(error, hole)
        if config.lambda_gan and config.lambda_matching:
            place = self.condition(batch)
            with torch.no_grad():
                wanted = self.nets["discriminator"](real, place)[1:]
            found = self.nets["discriminator"](fake, place)[1:]
            matching = losses.feature_matching(found, wanted) / len(found)
            terms["matching"] = config.lambda_matching * matching
        if config.lambda_perceptual:
            if self._perceptual is None:
                self._perceptual = open_perceptual(device=str(fake.device))
            distance = self._perceptual(fake, real).mean()
            terms["perceptual"] = config.lambda_perceptual * distance
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
    def compares(cls, config: InpaintConfig) -> tuple[str, ...]:
        return ("l1_hole", "psnr_hole", "l1", "psnr", "perceptual")

    @classmethod
    def judged_by(cls, config: InpaintConfig) -> tuple[str, ...]:
        return ("perceptual", "l1_hole")

    @property
    def exam_name(self) -> str:
        return self.config.masks

    def unlearnt(self, x: Tensor) -> Tensor:
        """Holes filled with the mean of what is known."""
        known = (x[:, -1:] <= 0.0).to(x.dtype)
        share = known.mean((2, 3), keepdim=True).clamp(min=1e-6)
        mean = (x[:, :-1] * known).mean((2, 3), keepdim=True) / share
        return torch.where(known > 0.0, x[:, :-1], mean)

    # ---- Use ----

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """The picture with its hole in grey, filled, and whole."""
        x = self.inputs(batch)
        return x[:, :-1], self.apply(x, batch.draws), batch["images"]

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        emptied = without(x[:, :-1], (x[:, -1:] > 0.0).to(x.dtype))
        return filled(emptied, self.nets["generator"](emptied)[-1]).clamp(-1.0, 1.0)


def without(x: Tensor, hole: Tensor) -> Tensor:
    """Pictures (N, C, H, W) with 0 where `hole` (N, 1, H, W) is 1, and the hole as -1 and 1 behind."""
    return torch.cat([x * (1.0 - hole), 2.0 * hole - 1.0], dim=1)


def filled(emptied: Tensor, made: Tensor) -> Tensor:
    """What was made in the hole, and the picture itself, bit for bit, elsewhere: (N, C, H, W)."""
    return torch.where(emptied[:, -1:] > 0.0, made, emptied[:, :-1])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of (N, 1, H, W) values where the mask is 1: of each picture, then of all.

    Pictures in which it is nowhere 1 count as 0.
    """
    inside = mask.sum(dim=(1, 2, 3)).clamp(min=1.0)
    return ((values * mask).sum(dim=(1, 2, 3)) / inside).mean()
