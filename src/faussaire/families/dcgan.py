"""DCGAN: the first convolutional GAN that trained stably.

Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks. Alec
Radford, Luke Metz, Soumith Chintala. 2015. arXiv 1511.06434.

The paper's guidelines (section 3): strided convolutions in place of pooling, batch normalisation in
both networks except at the generator's output and the discriminator's input, no hidden dense layers,
ReLU in the generator with tanh at its end, LeakyReLU of slope 0.2 in the discriminator; weights from
N(0, 0.02), Adam with rate 2e-4 and beta1 0.5 (section 4). The losses are those of the textbook GAN
(Goodfellow et al. 2014, arXiv 1406.2661), non-saturating.

Where this goes beyond the paper or leaves it:
- Kernels are 4x4 and z is normal, as in the authors' released code; the paper draws z uniformly
  (`noise="uniform"`).
- Any resolution from 16 up, non-square too: the number of doublings follows from the smaller side,
  and the generator's output is cropped where sides are not divisible.
- Classes, which the paper has not: the label joins the input of both players, as in Conditional
  Generative Adversarial Nets (Mirza and Osindero 2014, arXiv 1411.1784): one-hot beside z in the
  generator, constant maps beside the picture in the discriminator. (The projection discriminator of
  2018 let this small generator ignore z: on 1,797 digits each class became one picture.)
- `--rotation`: the discriminator also tells by how many quarters pictures were turned (SS-GAN, Chen et
  al. 2019, arXiv 1811.11212; see `game.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from faussaire.core.batch import Draws
from faussaire.core.config import check_range
from faussaire.core.family import Pictures
from faussaire.game import Asked, GameConfig, ImageGAN
from faussaire.nn.fused import BatchNormAct2d, UpConv2d
from faussaire.nn.sizes import base_size, cut, doublings
from faussaire.nn.turns import QUARTERS


@dataclass(frozen=True, kw_only=True)
class DCGANConfig(GameConfig):
    """Settings of DCGAN, besides those of every game.

    Attributes:
        latent: numbers in the noise vector z.
        noise: distribution of z: `normal` N(0, 1), or `uniform` in [-1, 1] as in the paper.
        width: channels of the layers next to the picture, in both networks; they double with each
            halving of the resolution. The paper's generator has 128, its released code 64.
        max_width: where the doubling ends.
    """

    latent: int = 100
    noise: Literal["normal", "uniform"] = "normal"
    width: int = 64
    max_width: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, latent=(1, 100_000), width=(1, 8192), max_width=(1, 65536))


class Generator(nn.Module):
    """Noise (N, latent) and conditions (N, K) or None to pictures (N, C, H, W) in [-1, 1]."""

    def __init__(self, config: DCGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        # Rounded up, so that the doubled size covers the picture; `forward` crops the rest.
        base = base_size(spec.height, spec.width, steps)
        widths = [min(config.max_width, config.width * 2**step) for step in reversed(range(steps))]
        size = spec.condition_size if config.conditional else 0
        # A dense layer onto 4x4 pixels is the paper's "project and reshape".
        self.project = nn.ConvTranspose2d(config.latent + size, widths[0], base, bias=False)
        layers: list[nn.Module] = [BatchNormAct2d(widths[0])]
        for narrow, wide in zip(widths[1:], widths, strict=False):
            layers += [UpConv2d(wide, narrow, bias=False), BatchNormAct2d(narrow)]
        layers += [UpConv2d(widths[-1], spec.channels), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            z = torch.cat([z, condition], dim=1)
        x = self.body(self.project(z[:, :, None, None]))
        return cut(x, self.size)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,).

    Or to logits of quarter turns, (N, 4), or to the means of its last maps, (N, F).
    """

    def __init__(self, config: DCGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        widths = [min(config.max_width, config.width * 2**step) for step in range(steps)]
        self.look = nn.Conv2d(spec.channels, widths[0], 4, stride=2, padding=1)
        # Convolving a constant map for each class is adding a bias that the class chooses.
        size = spec.condition_size if config.conditional else 0
        self.embed = nn.Linear(size, widths[0], bias=False) if size else None
        layers: list[nn.Module] = [nn.LeakyReLU(0.2)]
        for narrow, wide in pairwise(widths):
            layers += [
                nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
                BatchNormAct2d(wide, negative_slope=0.2),
            ]
        self.body = nn.Sequential(*layers)
        end = (spec.height // 2**steps, spec.width // 2**steps)
        self.classify = nn.Conv2d(widths[-1], 1, end, bias=False)
        self.turns = nn.Conv2d(widths[-1], QUARTERS, end) if config.rotation else None
        self.apply(initialise)

    def forward(
        self, x: Tensor, condition: Tensor | None = None, asked: Asked = "logits"
    ) -> Tensor:
        seen = self.look(x)
        if self.embed is not None and condition is not None:
            seen = seen + self.embed(condition)[:, :, None, None]
        maps = self.body(seen)
        if asked == "features":
            return maps.mean(dim=(2, 3))
        if asked == "turns":
            assert self.turns is not None
            return self.turns(maps).flatten(1)
        return self.classify(maps).flatten()


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02); batch normalisation's gains from N(1, 0.02). Section 4."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.08)  # a 4x4 kernel on a constant map sums 16 weights
    elif isinstance(module, BatchNormAct2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class DCGAN(ImageGAN[DCGANConfig]):
    """DCGAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = DCGANConfig
    least_side = 16
    exposes = True
    presets: ClassVar = {
        "paper": {"width": 128, "noise": "uniform", "batch": 128},
        "tiny": {"width": 32, "max_width": 256},
    }
    sizes: ClassVar = {
        "tiny": {"width": 32, "max_width": 256},
        "small": {"width": 64, "max_width": 512},
        "base": {"width": 64, "max_width": 1024},
        "large": {"width": 128, "max_width": 1024},
    }

    def __init__(self, config: DCGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    def latents(self, draws: Draws) -> Tensor:
        if self.config.noise == "uniform":
            return 2.0 * draws.uniform(self.config.latent) - 1.0
        return draws.normal(self.config.latent)

    def affines(self) -> list[Tensor]:
        """The dense layer onto the first pixels, without what a condition adds."""
        weight = self.nets["generator"].get_submodule("project").get_parameter("weight").detach()
        return [weight[: self.config.latent].flatten(1).T]
