"""TVAE: rows of a table from a variational autoencoder.

Modeling Tabular Data using Conditional GAN. Lei Xu, Maria Skoularidou, Alfredo Cuesta-Infante, Kalyan
Veeramachaneni. 2019. arXiv 1907.00503. Section 4.5.

Rows r are encoded as for CTGAN, with mode-specific normalisation. Two networks are trained with the
evidence lower bound (Kingma and Welling 2013, arXiv 1312.6114):

    q(z | r): h1 = ReLU(FC 128 (r)),  h2 = ReLU(FC 128 (h1))
              mu = FC 128 (h2),  sigma = exp(FC 128 (h2) / 2)
    p(r | z): h1 = ReLU(FC 128 (z)),  h2 = ReLU(FC 128 (h1))
              alpha ~ N(tanh(FC 1 (h2)), delta),  one-hot vectors ~ Cat(softmax(FC (h2)))

    loss = factor * E[-log p(r | z)] + KL(q(z | r) || N(0, I))

delta is learnt, one number for each column, between .01 and 1. The factor is 2, the rate 1e-3 with a
decay of 1e-5, batches have 500 rows.

Samples are drawn from p(r | z), alphas and categories alike, with z from N(0, I) and averaged weights.
The authors' code takes the likeliest category: `temperature` 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Family
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.tables.data import TableData
from faussaire.tables.rows import hard_rows, in_modes, log_shares, real_rows
from faussaire.tables.spec import TableSpec

LEAST, MOST = 0.01, 1.0
"""Bounds of the deviations of alphas."""


@dataclass(frozen=True, kw_only=True)
class TVAEConfig:
    """Settings of TVAE.

    Attributes:
        latent: numbers in z.
        width: of the two hidden layers of each network.
        factor: weight of the likelihood beside the divergence.
        lr: Adam's rate.
        decay: L2 decay of all weights.
        temperature: of categories in samples: 1 draws them as the paper does, less makes each row more
            typical of its z, 0 takes the likeliest.
    """

    Data: ClassVar[type] = TableData

    latent: int = 128
    width: int = 128
    factor: float = 2.0
    lr: float = 1e-3
    decay: float = 1e-5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range(
            self,
            latent=(1, 10_000),
            width=(1, 65_536),
            factor=(0, None),
            lr=(0, 1),
            decay=(0, 1),
            temperature=(0, 10),
        )


def layers(size: int, width: int, out: int) -> nn.Sequential:
    """Two hidden layers of ReLU: (N, size) to (N, out)."""
    return nn.Sequential(
        nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)
    )


class Encoder(nn.Module):
    """Rows (N, D) to mean and log variance of z, (N, latent) each."""

    def __init__(self, config: TVAEConfig, spec: TableSpec) -> None:
        super().__init__()
        self.body = layers(spec.width, config.width, 2 * config.latent)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.body(rows).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """z (N, latent) to what rows are drawn from, (N, D), and deviations of alphas, (A,)."""

    def __init__(self, config: TVAEConfig, spec: TableSpec) -> None:
        super().__init__()
        self.body = layers(config.latent, config.width, spec.width)
        # Bounded by a sigmoid: at a plain clamp's bound the gradient would vanish for good.
        begin = (0.1 - LEAST) / (MOST - LEAST)
        self.level = nn.Parameter(torch.full((spec.alphas,), math.log(begin / (1.0 - begin))))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(z), LEAST + (MOST - LEAST) * self.level.sigmoid()


class TVAE(Family[TVAEConfig]):
    """TVAE on tables of numbers, dates and categories."""

    Config = TVAEConfig
    modality = "tables"
    averaged = ("decoder",)
    half_life = 20_000.0
    adversarial = False
    training: ClassVar = {"batch": 500, "precision": "float32", "examples": 2_500_000}
    presets: ClassVar = {"paper": {"half_life": 1}}
    sizes: ClassVar = {
        "tiny": {"width": 32, "latent": 16},
        "small": {"width": 64, "latent": 64},
        "base": {"width": 128, "latent": 128},
        "large": {"width": 512, "latent": 128},
    }

    def __init__(self, config: TVAEConfig, spec: TableSpec) -> None:
        super().__init__(config, spec)
        self.nets = {"encoder": Encoder(config, spec), "decoder": Decoder(config, spec)}

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        config = self.config
        return {
            "both": Adam(
                nets=("encoder", "decoder"), lr=config.lr, betas=(0.9, 0.999), decay=config.decay
            )
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        phase = Phase(name="vae", nets=("encoder", "decoder"), loss=self.loss)
        return (Stage(name="elbo", phases=(phase,)),)

    def cautions(self, count: int, batch: int) -> list[str]:
        if count >= 500:
            return []
        return [f"{count} rows are few: samples may be near to them, and evaluate tells how near."]

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        rows, alphas = real_rows(batch, self.spec), self.spec.alphas
        mean, log_variance = self.nets["encoder"](rows)
        z = mean + (0.5 * log_variance).exp() * batch.normal(self.config.latent)
        out, deviation = self.nets["decoder"](z)
        # -log N(alpha; tanh(out), deviation), for alphas whose mode is Gaussian: points have none.
        error = (rows[:, :alphas] - out[:, :alphas].tanh()).square() / (2 * deviation.square())
        numbers = error + deviation.log() + 0.5 * math.log(2 * math.pi)
        numbers = numbers * in_modes(batch, self.spec)
        choices = -(rows[:, alphas:] * log_shares(out[:, alphas:], self.spec.blocks)).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return {
            "numbers": self.config.factor * (numbers.sum(1).mean()),
            "choices": self.config.factor * choices.mean(),
            "divergence": divergence.mean(),
        }

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(self.config.latent)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Encoded rows (N, width); every one-hot vector has a single 1.

        Args:
            draws: randomness for N rows.
            labels: not for this family.
            latents: (N, latent).
            truncation: bound of the numbers in z.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is not None:
            z = z.clamp(-truncation, truncation)
        out, deviation = self.nets["decoder"](z)
        count = self.spec.alphas
        alphas = out[:, :count].tanh() + deviation * draws.normal(count)
        noise = draws.uniform(self.spec.width - count)
        heat = self.config.temperature
        return hard_rows(alphas, out[:, count:], noise, self.spec, heat)
