"""CTGAN: rows of a table from a conditional generator, trained by sampling.

Modeling Tabular Data using Conditional GAN. Lei Xu, Maria Skoularidou, Alfredo Cuesta-Infante, Kalyan
Veeramachaneni. 2019. arXiv 1907.00503.

- A number is encoded by mode-specific normalisation: the mode it belongs to, one-hot, and where in it,
  alpha in [-1, 1] (section 4.2; `tables/modes.py`).
- A condition is one value of one discrete column, drawn by the logarithm of its frequency; the real
  rows of a batch are drawn to fulfil it (training by sampling, section 4.3; `tables/stream.py`). The
  generator loses the cross-entropy between the value asked for and the one it gives.
- Networks (section 4.4), z from N(0, 1) of 128 numbers:
    G: h1 = z + cond,  h2 = h1 + ReLU(BN(FC 256 (h1))),  h3 = h2 + ReLU(BN(FC 256 (h2)))   (+: joined)
       alpha = tanh(FC(h3)),  one-hot vectors = gumbel_0.2(FC(h3))
    C: packs of 10 rows with their conditions (PacGAN, Lin et al. 2017, arXiv 1712.04086)
       -> drop(leaky_0.2(FC 256)) -> drop(leaky_0.2(FC 256)) -> FC 1
- Wasserstein loss with gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, lambda 10, for each
  pack), Adam with rate 2e-4, batches of 500; the generator's weights decay by 1e-6.

Where this goes beyond the paper or leaves it:
- Values so common that they are modes of their own, and missing numbers, have places beside the
  Gaussian modes; long tails are squeezed before modes are fitted. See `tables/modes.py`.
- A value's chance of being asked for is log(1 + n); with the paper's log(n) a value of a single row
  would never be.
- Samples come from averaged weights, with batch norm's statistics taken again for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.nn.fused import BatchNormAct2d, alone
from faussaire.tables.data import TableData
from faussaire.tables.rows import hard_rows, log_shares, real_rows, soft_rows
from faussaire.tables.spec import TableSpec

SETTLING = 32
"""Rows for each of the draws by which batch norm's statistics are taken."""


@dataclass(frozen=True, kw_only=True)
class CTGANConfig:
    """Settings of CTGAN.

    Attributes:
        latent: numbers in the noise vector z.
        width: of each of the generator's hidden layers.
        blocks: hidden layers of the generator.
        critic_width: of the critic's two hidden layers.
        pac: rows that the critic judges together, so that it sees their variety.
        dropout: share of the critic's hidden numbers that are dropped.
        tau: temperature of the Gumbel-softmax.
        gradient_penalty: lambda of the penalty on the critic's gradient.
        critic_steps: steps of the critic for each of the generator's.
        lr: Adam's rate of the generator.
        critic_lr: Adam's rate of the critic.
        decay: L2 decay of the generator's weights.
    """

    Data: ClassVar[type] = TableData

    latent: int = 128
    width: int = 256
    blocks: int = 2
    critic_width: int = 256
    pac: int = 10
    dropout: float = 0.5
    tau: float = 0.2
    gradient_penalty: float = 10.0
    critic_steps: int = 1
    lr: float = 2e-4
    critic_lr: float = 2e-4
    decay: float = 1e-6

    def __post_init__(self) -> None:
        check_range(
            self,
            latent=(1, 10_000),
            width=(1, 65_536),
            blocks=(0, 16),
            critic_width=(1, 65_536),
            pac=(1, 1000),
            dropout=(0, 0.95),
            tau=(0.01, 10),
            gradient_penalty=(0, None),
            critic_steps=(1, 100),
            lr=(0, 1),
            critic_lr=(0, 1),
            decay=(0, 1),
        )


class Block(nn.Module):
    """x (N, D) to [ReLU(BN(FC(x))), x] (N, width + D)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width, bias=False)  # batch norm takes a bias away again
        self.norm = BatchNormAct2d(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.linear(x)[:, :, None, None])[:, :, 0, 0]
        return torch.cat([h, x], dim=1)


class Generator(nn.Module):
    """z (N, latent) and conditions (N, C) to what rows are made of, (N, width of a row)."""

    def __init__(self, config: CTGANConfig, spec: TableSpec) -> None:
        super().__init__()
        size = config.latent + spec.condition
        blocks = []
        for _ in range(config.blocks):
            blocks.append(Block(size, config.width))
            size += config.width
        self.blocks = nn.Sequential(*blocks)
        self.end = nn.Linear(size, spec.width)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        return self.end(self.blocks(torch.cat([z, condition], dim=1)))


class Critic(nn.Module):
    """Packs of rows and conditions, (N / pac, pac * D), to what it thinks of each pack, (N / pac,)."""

    def __init__(self, config: CTGANConfig, spec: TableSpec) -> None:
        super().__init__()
        wide, drop = config.critic_width, config.dropout
        self.body = nn.Sequential(
            nn.Linear(config.pac * (spec.width + spec.condition), wide),
            nn.LeakyReLU(0.2),
            nn.Dropout(drop),
            nn.Linear(wide, wide),
            nn.LeakyReLU(0.2),
            nn.Dropout(drop),
            # A bias at the end would change nothing: the loss is a difference.
            nn.Linear(wide, 1, bias=False),
        )

    def forward(self, packs: Tensor) -> Tensor:
        return self.body(packs).squeeze(1)


class CTGAN(Family[CTGANConfig]):
    """CTGAN on tables of numbers, dates and categories."""

    Config = CTGANConfig
    modality = "tables"
    conditions = True
    averaged = ("generator",)
    half_life = 150_000.0
    training: ClassVar = {"batch": 500, "precision": "float32", "examples": 2_500_000}
    presets: ClassVar = {"paper": {"half_life": 1}}
    sizes: ClassVar = {
        "tiny": {"width": 64, "critic_width": 64, "latent": 32},
        "small": {"width": 128, "critic_width": 128, "latent": 64},
        "base": {"width": 256, "critic_width": 256, "latent": 128},
        "large": {"width": 512, "critic_width": 512, "latent": 128},
    }

    def __init__(self, config: CTGANConfig, spec: TableSpec) -> None:
        super().__init__(config, spec)
        self.nets = {"generator": Generator(config, spec), "critic": Critic(config, spec)}

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        config = self.config
        return {
            "generator": Adam(
                nets=("generator",), lr=config.lr, betas=(0.5, 0.9), decay=config.decay
            ),
            "critic": Adam(nets=("critic",), lr=config.critic_lr, betas=(0.5, 0.9)),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        steps = self.config.critic_steps
        critic = Phase(name="critic", nets=("critic",), loss=self.critic_loss, repeat=steps)
        generator = Phase(name="generator", nets=("generator",), loss=self.generator_loss)
        return (Stage(name="adversarial", phases=(critic, generator)),)

    def cautions(self, count: int, batch: int) -> list[str]:
        found = []
        if batch % self.config.pac:
            found.append(
                f"Batches of {batch} rows leave {batch % self.config.pac} outside packs of "
                f"{self.config.pac}; the critic does not see them."
            )
        if count < 500:
            found.append(
                f"{count} rows are few: samples will often be near to them, and evaluate tells how near."
            )
        return found

    # ---- Playing ----

    def asked(self, batch: Batch) -> Tensor:
        """The batch's conditions, (N, C): those that were drawn, else one of each row's own values."""
        spec = self.spec
        hot = torch.zeros(batch.size, spec.condition, device=batch["places"].device)
        if not spec.discrete:
            return hot
        where = batch.get("condition")
        if where is None:  # the doctor's rows come without
            column = len(spec.numeric) + batch.draws.integers(len(spec.discrete))
            starts = torch.tensor(spec.starts, device=hot.device)
            own = batch["places"].long().gather(1, column[:, None])[:, 0]
            where = starts[column] + own - (sum(spec.blocks) - spec.condition)
        return hot.scatter_(1, where[:, None], 1.0)

    def made(self, batch: Batch, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What the generator gives for the conditions, and rows (N, width) of it."""
        logits = self.nets["generator"](batch.normal(self.config.latent), condition)
        noise = batch.uniform(self.spec.width - self.spec.alphas)
        return logits, soft_rows(logits, noise, self.spec, self.config.tau)

    def packed(self, rows: Tensor, condition: Tensor) -> Tensor:
        """Rows with their conditions in packs, (N / pac, pac * D); what is left over is dropped.

        Raises:
            UserError: there are fewer rows than a pack has.
        """
        pac = self.config.pac
        packs = len(rows) // pac
        if not packs:
            raise UserError(
                f"{len(rows)} rows at once are fewer than the {pac} of a pack.",
                "Choose a larger --batch (or --micro), or a smaller --pac.",
            )
        return torch.cat([rows, condition], dim=1)[: packs * pac].reshape(packs, -1)

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        critic, condition = self.nets["critic"], self.asked(batch)
        real = self.packed(real_rows(batch, self.spec), condition)
        with torch.no_grad():
            fake = self.packed(self.made(batch, condition)[1], condition)
        likes, dislikes = critic(torch.cat([real, fake])).chunk(2)
        batch.observe({"critic gap": likes - dislikes.mean()})
        terms = {"wasserstein": losses.critic_wasserstein(likes, dislikes)}
        if self.config.gradient_penalty:
            mix = batch.uniform()[: len(real) * self.config.pac : self.config.pac]
            penalty = losses.gradient_penalty(critic, real, fake, mix)
            terms["gradient penalty"] = self.config.gradient_penalty * penalty
        return terms

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        condition = self.asked(batch)
        logits, fake = self.made(batch, condition)  # other noise than the critic's phase had
        judged = self.nets["critic"](self.packed(fake, condition))
        terms = {"wasserstein": losses.generator_wasserstein(judged)}
        if self.spec.discrete:
            size = self.spec.condition
            given = log_shares(logits[:, -size:], self.spec.blocks[len(self.spec.numeric) :])
            terms["condition"] = -(given * condition).sum(1).mean()
        return terms

    # ---- Sampling ----

    def settle(self, draws: Draws) -> None:
        """Batch norm's statistics of the very weights that sample, from 32 rows for each of `draws`.

        Conditions are as frequent as in training, for which the layers after it were made.
        """
        generator = self.nets["generator"]
        z = draws.normal(SETTLING, self.config.latent).flatten(0, 1)
        condition = z.new_zeros(len(z), 0)
        if self.spec.discrete:
            condition = self.conditions_at(draws.uniform(SETTLING).flatten(), logarithmic=True)
        norms = [module for module in generator.modules() if isinstance(module, BatchNormAct2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        with alone():
            generator(z, condition)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(self.config.latent)

    def usual(self, draws: Draws) -> Tensor:
        """Conditions (N, C) as rows of the table have them: a column, and a value by its frequency."""
        return self.conditions_at(draws.uniform())

    def conditions_at(self, uniform: Tensor, *, logarithmic: bool = False) -> Tensor:
        """Conditions (N, C) by numbers (N,) uniform in [0, 1).

        Args:
            uniform: the draws.
            logarithmic: values by the logarithm of their frequency, as in training.
        """
        discrete, rows = self.spec.discrete, max(self.spec.rows, 1)
        shares: list[float] = []
        for column in discrete:
            weights = [
                math.log1p(share * rows) if logarithmic else share for share in column.shares
            ]
            shares += [weight / sum(weights) / len(discrete) for weight in weights]
        edges = torch.tensor(shares, dtype=torch.float64, device=uniform.device).cumsum(0)
        at = torch.searchsorted(edges, uniform.double(), right=True).clamp(max=len(edges) - 1)
        return nn.functional.one_hot(at, len(edges)).float()

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
            labels: conditions (N, C); None: as frequent as in the table.
            latents: (N, latent).
            truncation: bound of the numbers in z; those beyond are moved to it.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is not None:
            z = z.clamp(-truncation, truncation)
        if labels is None and self.spec.discrete:
            labels = self.usual(draws)
        condition = z.new_zeros(len(z), 0) if labels is None else labels.to(z)
        logits = self.nets["generator"](z, condition)
        noise = draws.uniform(self.spec.width - self.spec.alphas)
        alphas = self.spec.alphas
        return hard_rows(logits[:, :alphas].tanh(), logits[:, alphas:], noise, self.spec)

    # ---- For the doctor ----

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return real_rows(batch, self.spec)

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        condition = self.asked(batch)
        reals, fakes = real_rows(batch, self.spec), self.made(batch, condition)[1]
        critic = self.nets["critic"]
        return Look(
            reals=reals,
            fakes=fakes,
            real_logits=critic(self.packed(reals, condition)),
            fake_logits=critic(self.packed(fakes, condition)),
            levelled=False,
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.nets["critic"](self.packed(real_rows(batch, self.spec), self.asked(batch)))
