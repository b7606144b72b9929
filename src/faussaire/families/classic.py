"""The textbook GAN.

Generative Adversarial Networks. Ian Goodfellow, Jean Pouget-Abadie, Mehdi Mirza, Bing Xu, David
Warde-Farley, Sherjil Ozair, Aaron Courville, Yoshua Bengio. 2014. arXiv 1406.2661.

Two players. The generator G turns noise z into a picture; the discriminator D gives the probability
that a picture is real. They play

    min_G max_D  E[log D(x)] + E[log(1 - D(G(z)))]                        (equation 1)

and G, in place of lowering E[log(1 - D(G(z)))], raises E[log D(G(z))], which pushes hardest when D is
winning (section 3). At the balance of the game D(x) = D(G(z)) = 1/2. The paper's own networks were
dense; the convolutional ones here are those that courses teach, at 64x64x3:

    z (100) -> dense 8192, ReLU -> 8x8x128 -> 16x16x256 -> 32x32x128 -> 64x64x64 -> 64x64x3, tanh

with batch normalisation and ReLU after each transposed convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look, Pictures
from faussaire.core.optim import SGD, Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.game import truncated
from faussaire.nn.fused import BatchNormAct2d, UpConv2d


@dataclass(frozen=True, kw_only=True)
class ClassicConfig:
    """Settings of the textbook GAN.

    Attributes:
        latent: numbers in the noise vector z, drawn from N(0, 1).
        loss: what the generator does: `nonsaturating` raises E[log D(G(z))], `minimax` lowers
            E[log(1 - D(G(z)))] as in equation 1, which learns slowly while D is winning.
        optimiser: `adam`, or plain `sgd` as in the paper's algorithm 1 (without its momentum).
        lr: the learning rate alpha of both players; with sgd try 0.01 to 0.1.
        beta1: Adam's first decay.
        critic_steps: updates of the discriminator for each of the generator (k in algorithm 1).
    """

    latent: int = 100
    loss: Literal["nonsaturating", "minimax"] = "nonsaturating"
    optimiser: Literal["adam", "sgd"] = "adam"
    lr: float = 2e-4
    beta1: float = 0.5
    critic_steps: int = 1

    def __post_init__(self) -> None:
        check_range(
            self, latent=(1, 100_000), lr=(0, None), beta1=(0, 0.9999), critic_steps=(1, 1000)
        )


class Generator(nn.Module):
    """Noise (N, latent) to pictures (N, C, H, W) in [-1, 1]; H and W are multiples of 8."""

    def __init__(self, latent: int, spec: Pictures) -> None:
        super().__init__()
        self.base = (128, spec.height // 8, spec.width // 8)
        self.project = nn.Linear(latent, self.base[0] * self.base[1] * self.base[2])
        # No biases before batch norm, which subtracts them again.
        self.body = nn.Sequential(
            UpConv2d(128, 256, bias=False),  # 16x16x256
            BatchNormAct2d(256),
            UpConv2d(256, 128, bias=False),  # 32x32x128
            BatchNormAct2d(128),
            UpConv2d(128, 64, bias=False),  # 64x64x64
            BatchNormAct2d(64),
            nn.Conv2d(64, spec.channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(torch.relu(self.project(z)).view(-1, *self.base))


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) to logits (N,); their sigmoid is the probability of being real."""

    def __init__(self, spec: Pictures) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(spec.channels, 64, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False),
            BatchNormAct2d(128, negative_slope=0.2),
            nn.Conv2d(128, 256, 4, stride=2, padding=1, bias=False),
            BatchNormAct2d(256, negative_slope=0.2),
        )
        self.classify = nn.Linear(256 * (spec.height // 8) * (spec.width // 8), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(x).flatten(1)).squeeze(1)


class Classic(Family[ClassicConfig]):
    """The textbook GAN on pictures whose sides are multiples of 8."""

    Config = ClassicConfig
    averaged = ("generator",)
    least_side = 16
    presets: ClassVar = {
        "algorithm1": {"loss": "minimax", "optimiser": "sgd", "lr": 0.02},
    }

    def __init__(self, config: ClassicConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if spec.height % 8 or spec.width % 8:
            raise UserError(
                f"The classic networks need sides that are multiples of 8, not "
                f"{spec.width}x{spec.height}.",
                "Choose --resolution 64, or the family dcgan, which takes any size.",
            )
        self.nets = {
            "generator": Generator(config.latent, spec),
            "discriminator": Discriminator(spec),
        }

    def optimisers(self) -> dict[str, OptimiserSpec]:
        def player(net: str) -> OptimiserSpec:
            if self.config.optimiser == "sgd":
                return SGD(nets=(net,), lr=self.config.lr)
            return Adam(nets=(net,), lr=self.config.lr, betas=(self.config.beta1, 0.999))

        return {net: player(net) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        # Algorithm 1: k steps of the discriminator, then one of the generator.
        judge = Phase(
            name="discriminator",
            nets=("discriminator",),
            loss=self.discriminator_loss,
            repeat=self.config.critic_steps,
        )
        forge = Phase(name="generator", nets=("generator",), loss=self.generator_loss)
        return (Stage(name="adversarial", phases=(judge, forge)),)

    def fakes(self, batch: Batch) -> Tensor:
        """G(z) for this batch: both players see the same fakes."""
        generator = self.nets["generator"]
        return batch.shared("fakes", lambda: generator(batch.normal(self.config.latent)))

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        discriminator = self.nets["discriminator"]
        real = discriminator(batch["images"])
        fake = discriminator(self.fakes(batch).detach())
        batch.observe({"D(x)": real.sigmoid(), "D(G(z))": fake.sigmoid()})
        return {"adversarial": losses.discriminator_minimax(real, fake)}

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        fake = self.nets["discriminator"](self.fakes(batch))
        if self.config.loss == "minimax":
            return {"adversarial": losses.generator_minimax(fake)}
        return {"adversarial": losses.generator_nonsaturating(fake)}

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return batch["images"]

    def examined(self, batch: Batch, clock: Clock) -> Look:
        discriminator, real, fake = self.nets["discriminator"], batch["images"], self.fakes(batch)
        return Look(
            reals=real,
            fakes=fake,
            real_logits=discriminator(real),
            fake_logits=discriminator(fake),
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.nets["discriminator"](batch["images"])

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
        z = self.latents(draws) if latents is None else latents
        return self.nets["generator"](z if truncation is None else truncated(z, truncation))
