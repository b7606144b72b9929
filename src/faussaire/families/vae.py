"""VAE: pictures and their latent vectors by maximum likelihood, no discriminator.

Auto-Encoding Variational Bayes. Diederik P. Kingma, Max Welling. 2014. arXiv 1312.6114.

A decoder says how likely pictures are given z ~ N(0, I), an encoder which z a picture may have had. Both
are trained at once by lowering, for each picture x in nats, minus the evidence lower bound

    -L(x) = -E[log p(x | z)] + KL(q(z | x) || p(z))                       (equation 3)
    q(z | x) = N(mu(x), sigma(x)^2 I),  z = mu + sigma * e,  e ~ N(0, I)  (section 2.4, equation 9)
    KL = 1/2 sum(mu^2 + sigma^2 - 1 - log sigma^2)                        (appendix B)
    log p(x | z) = sum x log y + (1 - x) log(1 - y)                       (Bernoulli, equation 11)
                or sum log N(x; y, s^2)                                   (Gaussian, equation 12)

with one draw of z for each picture, and y = sigmoid(decoder(z)); pixels are in [0, 1]. -L is an upper
bound of -log p(x): a figure that falls, and that tells which of two models knows unseen pictures better.

Networks are perceptrons with one hidden layer, as in the paper (`net="mlp"`; appendix C), or
convolutions. `beta` weighs the divergence (Higgins et al. 2017, "beta-VAE"): above 1 latents are tidier
and samples safer, below 1 pictures are rebuilt more sharply.

Where this goes beyond the paper or leaves it:
- Adam in place of Adagrad. ReLU where `activation` is not `tanh`.
- A grey value counts as a probability of white, as the field does on MNIST: then the Bernoulli's
  "likelihood" has no normalising constant. `binarise` draws black or white from it anew at each
  look, which makes the figure a likelihood of black and white pictures.
- The Gaussian's s is one learnt number for all pixels (Rybkin et al. 2021, "Simple and Effective VAE
  Training with Calibrated Decoders", arXiv 2006.13202), or one for each, as in the paper
  (`spread="pixel"`), or given. It is at least a level of 256, below which flat places would have
  any density one likes.
- Convolutions halve the picture to 4 to 7 pixels. There is no normalisation, so a picture's bound
  depends on it alone.
- Classes: one-hot, beside z in the decoder, and as maps (or numbers) beside the picture in the encoder
  (Sohn et al. 2015, "Learning Structured Output Representation using Deep Conditional Generative
  Models").
- `anneal` raises beta from 0 over a share of the run, which keeps latents from falling silent
  (Bowman et al. 2016, arXiv 1511.06349).
- Samples show the mean y, not draws of p(x | z), which would add the noise of single pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.autoencoding import Autoencoder, divergence, drawn
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import linear
from faussaire.nn.fused import UpConv2d
from faussaire.nn.sizes import base_size, cut, doublings, filled

LEAST = 1.0 / 256.0
"""The Gaussian's least deviation, pixels in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Settings of the VAE.

    Attributes:
        likelihood: of pixels in [0, 1]: `bernoulli` (cross-entropy), or `gaussian` (squared error, in
            units of a deviation).
        binarise: draw each pixel black or white, with its grey value as the probability of white.
        spread: of the Gaussian's deviation: `shared` is one learnt number, `pixel` the decoder's for
            each pixel, `fixed` that of `deviation`.
        deviation: the Gaussian's, pixels in [0, 1], at the beginning or for good.
        beta: weight of the divergence; 1: the evidence lower bound.
        anneal: share of the run over which beta rises from 0.
        conditional: learn one picture distribution for each class (or vector) of the data.
        net: `conv`, or `mlp` as in the paper, for small pictures.
        latent: numbers in z.
        width: channels of the convolutions next to the picture; they double with each halving.
        max_width: where the doubling ends.
        hidden: units of the perceptrons' hidden layer.
        activation: of the perceptrons' hidden layer.
        lr: Adam's rate.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
    """

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    binarise: bool = False
    spread: Literal["shared", "pixel", "fixed"] = "shared"
    deviation: float = 0.1
    beta: float = 1.0
    anneal: float = 0.0
    conditional: bool = False
    net: Literal["conv", "mlp"] = "conv"
    latent: int = 64
    width: int = 32
    max_width: int = 256
    hidden: int = 400
    activation: Literal["relu", "tanh"] = "relu"
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_range(
            self,
            deviation=(LEAST, 100),
            beta=(0, None),
            anneal=(0, 1),
            latent=(1, 100_000),
            width=(2, 8192),
            max_width=(2, 65536),
            hidden=(1, 1_000_000),
            lr=(0, 1),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
        )


class Encoder(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to mean and log variance of z.

    Both (N, latent).
    """

    def __init__(self, config: VAEConfig, spec: Pictures) -> None:
        super().__init__()
        conditions = spec.condition_size if config.conditional else 0
        self.flat = config.net == "mlp"
        # A map that is constant, convolved, is a bias that the class chooses.
        self.embed: nn.Linear | None = None
        if self.flat:
            self.first: nn.Module = nn.Linear(math.prod(spec.shape), config.hidden)
            self.body = nn.Sequential(_activation(config))
            features = first = config.hidden
        else:
            widths = _widths(config, spec)
            steps = len(widths)
            height, width = base_size(spec.height, spec.width, steps)
            self.size = (height * 2**steps, width * 2**steps)
            self.first = nn.Conv2d(spec.channels, widths[0], 4, stride=2, padding=1)
            layers: list[nn.Module] = [nn.ReLU()]
            for narrow, wide in pairwise(widths):
                layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.ReLU()]
            self.body = nn.Sequential(*layers)
            features, first = widths[-1] * height * width, widths[0]
        if conditions:
            self.embed = nn.Linear(conditions, first, bias=False)
        self.end = nn.Linear(features, 2 * config.latent)
        self.apply(initialise)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = self.first(x.flatten(1) if self.flat else filled(x, self.size))
        if self.embed is not None and condition is not None:
            told = self.embed(condition)
            seen = seen + (told if self.flat else told[:, :, None, None])
        mean, log_variance = self.end(self.body(seen).flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """z (N, latent) and conditions (N, K) or None to what pixels are told by.

    That is (N, C, H, W) logits of y, and what the Gaussian's deviation is made from (`deviation_of`):
    as many again, one number, or nothing that matters.
    """

    def __init__(self, config: VAEConfig, spec: Pictures) -> None:
        super().__init__()
        gaussian = config.likelihood == "gaussian"
        self.two = gaussian and config.spread == "pixel"
        self.shape, self.flat = spec.shape, config.net == "mlp"
        size = config.latent + (spec.condition_size if config.conditional else 0)
        channels = spec.channels * (2 if self.two else 1)
        if self.flat:
            self.project = nn.Linear(size, config.hidden)
            self.body = nn.Sequential(
                _activation(config),
                nn.Linear(config.hidden, channels * spec.height * spec.width),
            )
        else:
            widths = _widths(config, spec)[::-1]
            self.base = base_size(spec.height, spec.width, len(widths))
            self.project = nn.Linear(size, widths[0] * math.prod(self.base))
            layers: list[nn.Module] = [nn.ReLU()]
            for wide, narrow in pairwise([*widths, widths[-1] // 2]):
                layers += [UpConv2d(wide, narrow), nn.ReLU()]
            layers += [nn.Conv2d(widths[-1] // 2, channels, 3, padding=1)]
            self.body = nn.Sequential(*layers)
        self.apply(initialise)
        begin = _softplus_inverse(config.deviation - LEAST)
        last = self.body[-1]
        assert isinstance(last, nn.Linear | nn.Conv2d)
        if self.two:
            assert last.bias is not None
            nn.init.constant_(last.bias[len(last.bias) // 2 :], begin)
        level = torch.full((1,), begin)
        if gaussian and config.spread == "shared":
            self.level = nn.Parameter(level)
        else:
            self.register_buffer("level", level, persistent=False)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if condition is not None:
            z = torch.cat([z, condition], dim=1)
        seen = self.project(z)
        channels, height, width = self.shape
        if self.flat:
            out = self.body(seen).reshape(len(z), -1, height, width)
        else:
            out = cut(self.body(seen.reshape(len(z), -1, *self.base)), (height, width))
        if self.two:
            return out[:, :channels], out[:, channels:]
        return out, self.level


def deviation_of(level: Tensor) -> Tensor:
    """The Gaussian's deviation, above `LEAST`, from what the decoder gives, (1,) or (N, C, H, W)."""
    return LEAST + F.softplus(level)


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(max(value, 1e-4)))


def _widths(config: VAEConfig, spec: Pictures) -> list[int]:
    """Channels after each halving."""
    steps = max(1, doublings(spec.height, spec.width))
    return [min(config.max_width, config.width * 2**step) for step in range(steps)]


def _activation(config: VAEConfig) -> nn.Module:
    return nn.Tanh() if config.activation == "tanh" else nn.ReLU()


def initialise(module: nn.Module) -> None:
    """Weights that keep the size of signals through ReLU (He et al. 2015), biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose2d):
        # Of a 4x4 kernel at stride 2, four weights of each input channel reach a pixel.
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (4 * module.in_channels)))
    if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


class VAE(Autoencoder[VAEConfig]):
    """The VAE on pictures of any size from 8x8 up, unconditional or by class."""

    Config = VAEConfig
    adversarial = False
    likelihood = True
    least_side = 8
    half_life = 5_000.0
    training: ClassVar = {"batch": 128}
    presets: ClassVar = {
        "paper": {"net": "mlp", "hidden": 500, "latent": 20, "activation": "tanh", "batch": 100},
        "mlp": {"net": "mlp", "hidden": 400, "latent": 20, "batch": 128},
        "sharp": {"likelihood": "gaussian", "latent": 128},
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "max_width": 128, "latent": 32},
        "small": {"width": 32, "max_width": 256, "latent": 64},
        "base": {"width": 64, "max_width": 512, "latent": 128},
        "large": {"width": 128, "max_width": 512, "latent": 256},
    }

    def __init__(self, config: VAEConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets = {"encoder": Encoder(config, spec), "decoder": Decoder(config, spec)}

    @classmethod
    def judged_by(cls, config: Any) -> tuple[str, ...]:
        return ("elbo",)

    @property
    def measured_as(self) -> str:
        config = self.config
        return config.likelihood + (",binarised" if config.binarise else "")

    def cautions(self, count: int, batch: int) -> list[str]:
        if count >= 500:
            return []
        return [
            f"{count} pictures are few: it will rebuild these well, and others badly. Give some "
            "thousands, or take fastgan for samples."
        ]

    # ---- The plan ----

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        config = self.config
        betas = (config.beta1, config.beta2)
        return {"both": Adam(nets=("encoder", "decoder"), lr=config.lr, betas=betas)}

    def stages(self, total: int) -> tuple[Stage, ...]:
        phase = Phase(name="vae", nets=("encoder", "decoder"), loss=self.loss)
        return (Stage(name="elbo", phases=(phase,)),)

    def weight(self, clock: Clock) -> float:
        """beta at this instant."""
        config = self.config
        if not config.anneal:
            return config.beta
        return linear(0.0, config.beta, until=config.anneal)(clock)

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """-L(x) with its divergence weighted, in nats a picture (equation 10, one draw of z)."""
        x = self.regarded(batch["images"], batch.draws)
        condition = self.condition(batch)
        mean, log_variance = self.posterior(x, condition)
        z = drawn(mean, log_variance, batch.normal(self.latent))
        surprise = self.surprise(x, *self.nets["decoder"](z, condition))
        told = divergence(mean, log_variance)
        units = (told.detach().mean(0) > 0.01).float().sum()
        batch.observe({"nats": (surprise + told.sum(1)).mean(), "active units": units})
        return {
            "reconstruction": surprise.mean(),
            "divergence": self.weight(clock) * told.sum(1).mean(),
        }

    def regarded(self, x: Tensor, draws: Draws) -> Tensor:
        return black_or_white(x, draws.uniform(*x.shape[1:])) if self.config.binarise else x

    def surprise(self, x: Tensor, logits: Tensor, level: Tensor) -> Tensor:
        """-log p(x | z) of pictures (N, C, H, W) in [-1, 1] and what the decoder gives, (N,)."""
        target = (x + 1.0) / 2.0
        if self.config.likelihood == "bernoulli":
            pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            deviation = deviation_of(level)
            error = (target - logits.sigmoid()) / deviation
            pixels = 0.5 * error.square() + deviation.log() + 0.5 * math.log(2.0 * math.pi)
        return pixels.flatten(1).sum(1)

    # ---- Use ----

    def costs(
        self, x: Tensor, condition: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(x, condition)
        z = drawn(mean, log_variance, noise)
        surprise = self.surprise(x, *self.nets["decoder"](z, condition))
        return surprise, divergence(mean, log_variance).sum(1)

    def affines(self) -> list[Tensor]:
        """The decoder's first layer, without what a condition adds."""
        weight = self.nets["decoder"].get_submodule("project").get_parameter("weight").detach()
        return [weight[:, : self.latent]]

    def painted(self, z: Tensor, condition: Tensor | None) -> Tensor:
        logits, _ = self.nets["decoder"](z, condition)
        return 2.0 * logits.sigmoid() - 1.0


def black_or_white(x: Tensor, chance: Tensor) -> Tensor:
    """Each pixel of (N, C, H, W) in [-1, 1] as 1 or -1, with its grey value's probability of 1.

    Args:
        x: the pictures.
        chance: of the same shape, uniform in [0, 1).
    """
    return torch.where(chance < (x + 1.0) / 2.0, 1.0, -1.0)
