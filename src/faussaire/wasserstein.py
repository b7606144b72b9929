"""WGAN-GP as families of music and sound play it: several steps of a critic for one of the generator.

Improved Training of Wasserstein GANs. Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. 2017. arXiv
1704.00028, algorithm 1. Nothing here knows what an example is; families of pictures have the larger
choice of `game.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import Schedule, linear


@dataclass(frozen=True, kw_only=True)
class WassersteinConfig:
    """Settings of the game between generator and critic.

    Attributes:
        lr: learning rate of both.
        decay_from: share of the run after which the rate falls to 0 in a straight line; 1: never.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        critic_steps: updates of the critic in a round.
        gradient_penalty: lambda of E(|grad D| - 1)^2 between reals and fakes.
    """

    lr: float = 1e-4
    decay_from: float = 1.0
    beta1: float = 0.5
    beta2: float = 0.9
    critic_steps: int = 5
    gradient_penalty: float = 10.0

    def __post_init__(self) -> None:
        check_range(
            self,
            lr=(0, None),
            decay_from=(0, 1),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
            critic_steps=(1, 1000),
            gradient_penalty=(0, None),
        )


ConfigT = TypeVar("ConfigT", bound=WassersteinConfig)


class WassersteinGAN(Family[ConfigT]):
    """A generator and a critic, `nets["generator"]` and `nets["critic"]`.

    A family says what reals are (`reals`), how fakes are made (`generate`) and judged (`judge`), and
    what z is (`latents`).
    """

    averaged = ("generator",)

    # ---- What a family says ----

    def reals(self, batch: Batch) -> Tensor:
        """Real examples in the form of `generate`'s."""
        raise NotImplementedError

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        """G(z, y) in training."""
        raise NotImplementedError

    def judge(self, x: Tensor, condition: Tensor | None, draws: Draws) -> Tensor:
        """D(x, y), (N,)."""
        raise NotImplementedError

    # ---- The plan ----

    @property
    def rate(self) -> float | Schedule:
        """The learning rate over the run."""
        config = self.config
        if config.decay_from >= 1.0:
            return config.lr
        return linear(config.lr, 0.0, begin=config.decay_from)

    def optimisers(self) -> dict[str, OptimiserSpec]:
        betas = (self.config.beta1, self.config.beta2)
        return {net: Adam(nets=(net,), lr=self.rate, betas=betas) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (Stage(name="adversarial", phases=self.phases()),)

    def phases(self) -> tuple[Phase, ...]:
        """A round: critic steps, each on a batch of its own, then the generator's."""
        return (
            Phase(
                name="critic",
                nets=("critic",),
                loss=self.critic_loss,
                repeat=self.config.critic_steps,
            ),
            Phase(name="generator", nets=("generator",), loss=self.generator_loss),
        )

    # ---- Losses ----

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """E[D(G(z))] - E[D(x)], and the penalty between them: equation 3."""
        condition = self.condition(batch)
        real = self.reals(batch)
        with torch.no_grad():
            fake = self.generate(self.latents(batch.draws), condition, batch.draws, clock)

        def critic(x: losses.Samples) -> Tensor:
            assert isinstance(x, Tensor)
            return self.judge(x, condition, batch.draws)

        mix = batch.uniform()
        at_real, at_fake = critic(real), critic(fake)
        batch.observe({"critic(x)": at_real, "critic(G(z))": at_fake})
        terms = {"wasserstein": losses.critic_wasserstein(at_real, at_fake)}
        if self.config.gradient_penalty:
            penalty = losses.gradient_penalty(critic, real, fake, mix)
            terms["gradient_penalty"] = self.config.gradient_penalty * penalty
        return terms

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """-E[D(G(z))]."""
        condition = self.condition(batch)
        fake = self.generate(self.latents(batch.draws), condition, batch.draws, clock)
        judged = self.judge(fake, condition, batch.draws)
        return {"wasserstein": losses.generator_wasserstein(judged)}

    # ---- Conditions ----

    @property
    def conditional(self) -> bool:
        """Whether it learns by class."""
        return bool(getattr(self.config, "conditional", False))

    def condition(self, batch: Batch) -> Tensor | None:
        """The classes of the reals as one-hot rows (N, K), which fakes take over; None without any."""
        return self.encoded(batch["labels"]) if self.conditional else None

    def encoded(self, labels: Tensor) -> Tensor:
        """Class numbers (N,) as one-hot rows (N, K)."""
        return F.one_hot(labels, len(self.spec.classes)).float()

    def chosen(self, draws: Draws, labels: Tensor | None) -> Tensor | None:
        """The classes to sample with: those asked for, else drawn at random."""
        if not self.conditional:
            return None
        return self.encoded(draws.integers(len(self.spec.classes)) if labels is None else labels)

    def require_classes(self) -> None:
        """Refuse to learn by class what has none.

        Raises:
            UserError: there are fewer than two classes.
        """
        if self.conditional and len(self.spec.classes) < 2:
            raise UserError(
                f"--conditional needs at least two classes; the data have {len(self.spec.classes)}.",
                "Put each class in a sub-folder and add --classes folders, or give a labels.csv.",
            )

    # ---- For the doctor ----

    def glimpse(self, x: Tensor) -> Tensor:
        """Examples as rows (N, D) in which distance means something: for the doctor."""
        return x.flatten(1)

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return self.glimpse(self.reals(batch))

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.judge(self.reals(batch), self.condition(batch), batch.draws)

    def examined(self, batch: Batch, clock: Clock) -> Look:
        condition = self.condition(batch)
        reals = self.reals(batch)
        fakes = self.generate(self.latents(batch.draws), condition, batch.draws, clock)
        return Look(
            reals=self.glimpse(reals),
            fakes=self.glimpse(fakes),
            real_logits=self.judge(reals, condition, batch.draws),
            fake_logits=self.judge(fakes, condition, batch.draws),
            levelled=False,
        )

    def latents(self, draws: Draws) -> Tensor:
        raise NotImplementedError
