"""The game that image families share: a generator against a discriminator, with every loss and cure.

A family file says what its paper says: networks, and which of these settings the paper plays with. What
the settings mean stands here, once: the losses by name (`losses.GAMES`), penalties on the
discriminator's gradient, every step or lazily, several critic steps, two rates, weight clipping, LeCam
and consistency regularisation, augmentation of what the discriminator sees, and conditions.

A condition is one idea for all: a row of numbers per picture, (N, K) float32. A class is its one-hot
row, so a linear map of it is an embedding of the class; text or attributes are vectors as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import Schedule, linear
from faussaire.losses import Samples
from faussaire.nn.augment import AdaController, ada_augment, diff_augment
from faussaire.nn.turns import turned

LossName = Literal[
    "nonsaturating",
    "minimax",
    "least-squares",
    "wasserstein",
    "hinge",
    "relativistic",
    "relativistic-average",
    "relativistic-average-hinge",
]

Asked = Literal["logits", "turns", "features"]
"""What a discriminator that `exposes` is asked: to judge, to tell quarter turns, or what it sees."""


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Settings of the game between generator and discriminator.

    Attributes:
        loss: what the two players lower. The averages of the relativistic-average ones are those of
            the rows handled at once (`micro`).
        conditional: learn one picture distribution for each class (or vector) of the data.
        lr: learning rate of the generator, and of the discriminator where it has none of its own.
        discriminator_lr: learning rate of the discriminator (two time-scale rule); None: lr.
        lr_decay: `linear` lowers both rates to 0 over the run.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        eps: Adam's epsilon.
        critic_steps: updates of the discriminator in a round.
        generator_steps: updates of the generator in a round; more than one holds the discriminator
            back.
        r1: gamma of gamma/2 E|grad D(x)|^2 at reals; 0: none.
        r2: gamma of the same at fakes; 0: none.
        penalty_every: take r1 and r2 every so many rounds, with so many times the weight.
        gradient_penalty: lambda of WGAN-GP, lambda E(|grad D| - 1)^2 between reals and fakes.
        dragan: lambda of DRAGAN, the same around reals.
        drift: weight of E[D(x)^2], which keeps a Wasserstein critic near 0 (ProGAN).
        clip: bound of the discriminator's weights (the first WGAN); 0: none.
        lecam: weight of LeCam regularisation, for few data; 0: none (paper: 0.1 to 0.5).
        consistency: weight of balanced consistency, D(T(x)) = D(x) on reals and fakes (paper: 10).
        rotation: weight of a second task of the discriminator, to tell by how many quarters a real
            picture was turned (SS-GAN; paper: 1), lest it forget what pictures show; 0: none. Of
            dcgan, sngan and biggan, for square pictures.
        rotation_generator: weight of the same of turned fakes, in the generator's loss (paper: 0.2).
        augment: what is done to pictures before the discriminator sees them, reals and fakes alike:
            `diffaugment` for small data, `ada` raises its probability while D overfits.
        augment_policy: DiffAugment's kinds, of color, translation and cutout.
        ada_target: E[sign D(x)] that ADA keeps.
        ada_span: examples in which ADA's probability can rise from 0 to 1.
    """

    loss: LossName = "nonsaturating"
    conditional: bool = False
    lr: float = 2e-4
    discriminator_lr: float | None = None
    lr_decay: Literal["none", "linear"] = "none"
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8
    critic_steps: int = 1
    generator_steps: int = 1
    r1: float | None = 0.0
    r2: float | None = 0.0
    penalty_every: int = 1
    gradient_penalty: float = 0.0
    dragan: float = 0.0
    drift: float = 0.0
    clip: float = 0.0
    lecam: float = 0.0
    consistency: float = 0.0
    rotation: float = 0.0
    rotation_generator: float = 0.2
    augment: Literal["none", "diffaugment", "ada"] = "none"
    augment_policy: str = "color,translation,cutout"
    ada_target: float = 0.6
    ada_span: float = 500_000.0

    def __post_init__(self) -> None:
        check_range(
            self,
            lr=(0, None),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
            eps=(0, None),
            critic_steps=(1, 1000),
            generator_steps=(1, 1000),
            penalty_every=(1, 1000),
            gradient_penalty=(0, None),
            dragan=(0, None),
            drift=(0, None),
            clip=(0, None),
            lecam=(0, None),
            consistency=(0, None),
            rotation=(0, None),
            rotation_generator=(0, None),
            ada_target=(-1, 1),
            ada_span=(1, None),
        )
        for name in ("r1", "r2", "discriminator_lr"):
            if getattr(self, name) is not None:
                check_range(self, **{name: (0, None)})
        kinds = set(self.augment_policy.split(","))
        if unknown := kinds - {"color", "translation", "cutout"}:
            raise UserError(
                f"augment_policy cannot be '{self.augment_policy}': {', '.join(sorted(unknown))}.",
                "Write some of color, translation and cutout, with commas between.",
            )


ConfigT = TypeVar("ConfigT", bound=GameConfig)


class ImageGAN(Family[ConfigT]):
    """A generator and a discriminator of pictures, playing with the settings of `GameConfig`.

    A family gives `nets["generator"]`, (z, condition) -> pictures, and `nets["discriminator"]`,
    (pictures, condition) -> logits (N,), and overrides what its paper does otherwise. Pictures may be
    a tuple of tensors where a family works at several scales at once.
    """

    averaged = ("generator",)
    fresh_reals: ClassVar[bool] = False
    """Whether the generator's phase draws a batch of its own; else both players share fakes."""
    normalises_latents: ClassVar[bool] = False
    """Whether the generator brings z to a length of its own, so that truncating z does nothing."""
    exposes: ClassVar[bool] = False
    """Whether the discriminator takes a third argument, `Asked`, and a head for turns on demand."""

    def __init__(self, config: ConfigT, spec: Pictures) -> None:
        super().__init__(config, spec)
        least = self.least_side
        if min(spec.height, spec.width) < least:
            raise UserError(
                f"{type(self).__name__.lower()} needs pictures of at least {least}x{least}, not "
                f"{spec.width}x{spec.height}.",
                "Choose a larger --resolution; small pictures are enlarged.",
            )
        if config.conditional and spec.condition_size < 2:
            raise UserError(
                f"--conditional needs at least two classes; the data have {len(spec.classes)}.",
                "Put each class in a sub-folder and add --classes folders, or give a labels.csv.",
            )
        if config.rotation:
            self._expect_turns()
        self.game = losses.GAMES[config.loss]
        if config.augment == "ada" and not self.game.levelled:
            raise UserError(
                f"--augment ada cannot be steered with the loss {config.loss}: it reads the sign of "
                "D(x), and to this loss only differences of D matter.",
                "Use --augment diffaugment, or another --loss.",
            )
        self.ada = AdaController(target=config.ada_target, span=config.ada_span)
        self.levels = Levels()

    def _expect_turns(self) -> None:
        """Refuse to turn pictures where nothing is there to tell how, or their shape would.

        Raises:
            UserError: no such head, or pictures that are not square.
        """
        name = type(self).__name__.lower()
        if not self.exposes:
            raise UserError(
                f"--rotation {self.config.rotation:g} needs a discriminator that can tell turned "
                f"pictures, and that of {name} cannot.",
                "Leave it out, or train dcgan, sngan or biggan.",
            )
        if self.spec.height != self.spec.width:
            raise UserError(
                f"--rotation {self.config.rotation:g} turns pictures by quarters, and these are "
                f"{self.spec.width}x{self.spec.height}: their shape would tell which were turned.",
                f"Give a square --resolution, such as {min(self.spec.height, self.spec.width)}.",
            )

    # ---- The plan ----

    @property
    def latent(self) -> int:
        """Numbers in z."""
        return self.config.latent  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def r1(self) -> float:
        """gamma of R1; a family whose `r1` may be None says here what that means."""
        return self.config.r1 or 0.0

    def gammas(self, clock: Clock) -> tuple[float, float]:
        """gamma of R1 and of R2 at this instant."""
        return self.r1, self.config.r2 or 0.0

    @property
    def penalised(self) -> tuple[bool, bool]:
        """Whether R1 and R2 are taken: what begins at 0 stays out."""
        r1, r2 = self.gammas(Clock())
        return r1 > 0, r2 > 0

    @property
    def shares_fakes(self) -> bool:
        """Whether both players see the same fakes, so that the generator runs once a round."""
        steps = (self.config.critic_steps, self.config.generator_steps)
        return not self.fresh_reals and steps == (1, 1)

    def rate(self, player: str) -> float | Schedule:
        """The learning rate of `generator` or `discriminator`."""
        config = self.config
        own = config.discriminator_lr if player == "discriminator" else None
        rate = config.lr if own is None else own
        return linear(rate, 0.0) if config.lr_decay == "linear" else rate

    def optimisers(self) -> dict[str, OptimiserSpec]:
        config = self.config
        betas = (config.beta1, config.beta2)
        return {
            net: Adam(nets=(net,), lr=self.rate(net), betas=betas, eps=config.eps)
            for net in self.nets
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (Stage(name="adversarial", phases=self.phases()),)

    def phases(self) -> tuple[Phase, ...]:
        """A round: critic steps, the lazy penalty where it is due, generator steps."""
        config = self.config
        judge = Phase(
            name="discriminator",
            nets=("discriminator",),
            loss=self.discriminator_loss,
            repeat=config.critic_steps,
        )
        lazy = Phase(
            name="penalty",
            nets=("discriminator",),
            loss=self.penalty_loss,
            every=config.penalty_every,
        )
        forge = Phase(
            name="generator",
            nets=("generator",),
            loss=self.generator_loss,
            repeat=config.generator_steps,
            fresh=self.fresh_reals,
        )
        late = config.penalty_every > 1 and any(self.penalised)
        return (judge, lazy, forge) if late else (judge, forge)

    # ---- What a paper may do otherwise ----

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Samples:
        """G(z, y) in training."""
        return self.nets["generator"](z, condition)

    def reals(self, batch: Batch, clock: Clock) -> Samples:
        """Real pictures in the form that `generate` gives."""
        return batch["images"]

    def judge(self, images: Samples, condition: Tensor | None, clock: Clock) -> Tensor:
        """D(x, y): logits (N,)."""
        return self.nets["discriminator"](images, condition)

    # ---- Losses ----

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The discriminator's loss, with the penalties that are taken at every step."""
        config = self.config
        self.clip_weights()
        real = self.reals(batch, clock)
        fake = self.still_fakes(batch, clock)
        critic = self.critic(batch, clock)
        r1, r2 = self.gammas(clock)
        on_reals, on_fakes = self.penalised if config.penalty_every == 1 else (False, False)
        terms: dict[str, Tensor] = {}
        if on_reals:
            real_logits, penalty = losses.judged_with_penalty(critic, real)
            terms["r1"] = r1 * penalty
        else:
            real_logits = critic(real)
        if on_fakes:
            fake_logits, penalty = losses.judged_with_penalty(critic, fake)
            terms["r2"] = r2 * penalty
        else:
            fake_logits = critic(fake)
        adversarial = self.refused(batch, clock, real, real_logits, fake_logits)
        terms = {"adversarial": adversarial, **terms}
        if config.gradient_penalty:
            mix = batch.uniform()
            penalty = losses.gradient_penalty(critic, real, fake, mix)
            terms["gradient_penalty"] = config.gradient_penalty * penalty
        if config.dragan:
            terms["dragan"] = config.dragan * losses.dragan_penalty(
                critic, real, self.dragan_noise(batch, real)
            )
        if config.drift:
            terms["drift"] = config.drift * real_logits.square().mean()
        if config.lecam:
            terms["lecam"] = config.lecam * losses.lecam(
                real_logits, fake_logits, self.levels.real, self.levels.fake
            )
            both = batch.collect("lecam", torch.stack([real_logits, fake_logits], dim=1))
            if both is not None:
                self.levels.update(*both.reshape(len(both), 2, -1).mean(dim=(0, 2)).unbind())
        if config.consistency:
            both = (
                self.inconsistency(images, logits, batch, clock)
                for images, logits in ((real, real_logits), (fake, fake_logits))
            )
            terms["consistency"] = config.consistency * torch.stack([*both]).sum()
        if config.rotation:
            lost, right = self.turns_lost(real, batch)
            terms["rotation"] = config.rotation * lost
            batch.observe({"turns told": right})
        if config.augment == "ada":
            signs = batch.collect("ada", real_logits.sign())
            if signs is not None:
                self.ada.update(signs, batch.whole)
            batch.observe({"ada p": self.ada.p})
        self.observe(batch, real_logits, fake_logits)
        return terms

    def penalty_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """R1 and R2 where they are taken lazily (Karras et al. 2020, arXiv 1912.04958, section 3.1)."""
        critic = self.critic(batch, clock)
        (r1, r2), (on_reals, on_fakes) = self.gammas(clock), self.penalised
        terms: dict[str, Tensor] = {}
        if on_reals:
            terms["r1"] = r1 * losses.zero_centred_penalty(critic, self.reals(batch, clock))
        if on_fakes:
            fake = self.still_fakes(batch, clock)
            terms["r2"] = r2 * losses.zero_centred_penalty(critic, fake)
        return terms

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The generator's answer."""
        config = self.config
        self.clip_weights()
        critic = self.critic(batch, clock)
        fake_logits = critic(self.fakes(batch, clock))
        real_logits = fake_logits
        if self.game.relativistic:
            with torch.no_grad():  # the reals do not depend on the generator
                real_logits = critic(self.reals(batch, clock))
        terms = {"adversarial": self.game.generator(real_logits, fake_logits, **self.means(batch))}
        if config.rotation and config.rotation_generator:
            lost, _ = self.turns_lost(self.fakes(batch, clock), batch)
            terms["rotation"] = config.rotation_generator * lost
        return terms

    # ---- Their parts ----

    def refused(
        self, batch: Batch, clock: Clock, real: Samples, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        """The adversarial part of the discriminator's loss, by its logits for `real` and for fakes."""
        return self.game.discriminator(real_logits, fake_logits, **self.means(batch))

    def means(self, batch: Batch) -> dict[str, losses.Mean]:
        """What a loss needs that compares with the average logit."""
        return {"mean": batch.mean} if self.game.average else {}

    def condition(self, batch: Batch) -> Tensor | None:
        """The conditions of the reals, (N, K), which the fakes take over; None without any."""
        if not self.config.conditional:
            return None
        return self.encoded(batch["labels"])

    def encoded(self, labels: Tensor) -> Tensor:
        """Class numbers (N,) or vectors (N, K) as conditions (N, K)."""
        if labels.is_floating_point():
            return labels
        return F.one_hot(labels, self.spec.condition_size).float()

    def fakes(self, batch: Batch, clock: Clock) -> Samples:
        """G(z, y) for this batch, computed once however many phases ask."""
        return batch.shared("fakes", lambda: self.made(batch, clock))

    def still_fakes(self, batch: Batch, clock: Clock) -> Samples:
        """Fakes for the discriminator's step, without their history."""
        if self.shares_fakes:
            return detached(self.fakes(batch, clock))
        with torch.no_grad():
            return batch.shared("still fakes", lambda: self.made(batch, clock))

    def made(self, batch: Batch, clock: Clock) -> Samples:
        """Fresh fakes."""
        z = self.latents(batch.draws)
        return self.generate(z, self.condition(batch), batch.draws, clock)

    def critic(self, batch: Batch, clock: Clock) -> losses.Critic:
        """D behind its augmentation, for the conditions of this batch."""
        condition = self.condition(batch)
        draws = batch.draws
        return lambda images: self.judge(self.augmented(images, draws, clock), condition, clock)

    def augmented(self, images: Samples, draws: Draws, clock: Clock) -> Samples:
        """What D is shown of pictures (N, C, H, W), or of each scale alike."""
        if self.config.augment == "none":
            return images
        if self.config.augment == "ada":
            p = self.ada.p.to(_first(images).device)
            return _each(images, draws, lambda part, some: ada_augment(part, some, p))
        return self.transformed(images, draws)

    def inconsistency(self, images: Samples, logits: Tensor, batch: Batch, clock: Clock) -> Tensor:
        """E[(D(x) - D(T(x)))^2] of the discriminator without its augmentation."""
        condition = self.condition(batch)
        if self.config.augment != "none":
            logits = self.judge(images, condition, clock)
        changed = self.transformed(images, batch.draws)
        return losses.consistency(logits, self.judge(changed, condition, clock))

    def turns_lost(self, images: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """-E log Q_D(R = r | x^r), (), and whether the likeliest r is right, (N,).

        Self-Supervised GANs via Auxiliary Rotation Loss. Chen, Zhai, Ritter, Lucic, Houlsby. 2019.
        arXiv 1811.11212, section 3. What is turned meets this head alone: D judges upright pictures, or
        turned fakes would pass for real. Nothing else is done to them, for ADA turns pictures, too. In
        place of a quarter of the batch turned in all four ways, each picture is turned in one: as
        many, and a row depends on none of the others.
        """
        x, quarters = turned(_finest(images), batch.draws.rows.start)
        told = self.nets["discriminator"](x, None, "turns")
        return F.cross_entropy(told, quarters), (told.argmax(dim=1) == quarters).float()

    def features(self, x: Tensor) -> Tensor:
        """What the discriminator sees in pictures before it judges, without any condition."""
        return (
            self.nets["discriminator"](x, None, "features") if self.exposes else super().features(x)
        )

    def transformed(self, images: Samples, draws: Draws) -> Samples:
        """DiffAugment of pictures (N, C, H, W), or of each scale alike."""
        policy = self.config.augment_policy
        return _each(images, draws, lambda part, some: diff_augment(part, some, policy))

    def dragan_noise(self, batch: Batch, real: Samples) -> Samples:
        """delta of DRAGAN: half of a picture's standard deviation times U[0, 1).

        The authors' code takes the deviation of the batch; each picture's own is the same on one
        process and on many.
        """
        parts = real if isinstance(real, tuple) else (real,)
        noise = tuple(
            0.5 * part.std(dim=(1, 2, 3), keepdim=True) * batch.uniform(*part.shape[1:])
            for part in parts
        )
        return noise if isinstance(real, tuple) else noise[0]

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Every weight of the critic into [-c, c] (Arjovsky et al. 2017, algorithm 1)."""
        if self.config.clip:
            for parameter in self.nets["discriminator"].parameters():
                parameter.clamp_(-self.config.clip, self.config.clip)

    def observe(self, batch: Batch, real: Tensor, fake: Tensor) -> None:
        """What D thinks of reals and fakes: probabilities where the loss gives them, else logits."""
        if self.game.probability:
            batch.observe({"D(x)": real.sigmoid(), "D(G(z))": fake.sigmoid()})
        else:
            batch.observe({"critic(x)": real, "critic(G(z))": fake})

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return _finest(self.reals(batch, clock))

    def examined(self, batch: Batch, clock: Clock) -> Look:
        condition = self.condition(batch)
        reals = self.reals(batch, clock)
        fakes = self.generate(self.latents(batch.draws), condition, batch.draws, clock)
        return Look(
            reals=_finest(reals),
            fakes=_finest(fakes),
            real_logits=self.judge(reals, condition, clock),
            fake_logits=self.judge(fakes, condition, clock),
            levelled=self.game.levelled,
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.judge(self.reals(batch, clock), self.condition(batch), clock)

    # ---- State ----

    def extra_state(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if self.config.augment == "ada":
            found |= {f"ada.{name}": value for name, value in self.ada.state().items()}
        if self.config.lecam:
            found |= {f"lecam.{name}": value for name, value in self.levels.state().items()}
        return found

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        for prefix, owner in (("ada.", self.ada), ("lecam.", self.levels)):
            own = {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
            if own:
                owner.load(own)

    # ---- Sampling ----

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(self.latent)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        z = self.beginning(draws, latents, truncation)
        return self.nets["generator"](z, self.chosen(draws, labels)).clamp(-1.0, 1.0)

    def beginning(self, draws: Draws, latents: Tensor | None, truncation: float | None) -> Tensor:
        """The z to sample from: those asked for, else drawn; and truncated, if that is asked for.

        Raises:
            UserError: a truncation that would change nothing, or leave nothing.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is None:
            return z
        if self.normalises_latents:
            raise UserError(
                f"{type(self).__name__.lower()} normalises z, so a truncation of {truncation} changes "
                "nothing.",
                "Leave --truncation out.",
            )
        return truncated(z, truncation)

    def chosen(self, draws: Draws, labels: Tensor | None) -> Tensor | None:
        """The conditions to sample with: those asked for, else classes drawn at random.

        Raises:
            UserError: the model was trained on vectors, and none were given.
        """
        if not self.config.conditional:
            return None
        if labels is None:
            if not self.spec.classes:
                raise UserError(
                    "This model was trained with condition vectors, and none were given.",
                    "Give `labels`, (N, K), to sample.",
                )
            labels = draws.integers(len(self.spec.classes))
        return self.encoded(labels)


class Levels:
    """Moving averages of E[D(x)] and E[D(G(z))] for LeCam, decay .99, unbiased from the start."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2)
        self._weight = torch.zeros(())

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Count in this batch's means, (), over all processes."""
        means = torch.stack([real, fake]).float()
        self._sums = self._sums.to(means.device).lerp(means, 0.01)
        self._weight = self._weight.to(means.device).lerp(torch.ones_like(self._weight), 0.01)

    @property
    def real(self) -> Tensor:
        """a_R, (), of the batches before; 0 before the first."""
        return self._sums[0] / self._weight.clamp(min=1e-12)

    @property
    def fake(self) -> Tensor:
        """a_F, (), of the batches before; 0 before the first."""
        return self._sums[1] / self._weight.clamp(min=1e-12)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"sums": self._sums, "weight": self._weight}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self._sums, self._weight = state["sums"].clone(), state["weight"].clone()


class Replay:
    """Draws that give the same numbers again at each turn: one transformation for all scales."""

    def __init__(self, draws: Draws) -> None:
        self.size = draws.size
        self._draws = draws
        self._drawn: list[Tensor] = []
        self._next = 0

    def rewind(self) -> None:
        """Begin again."""
        self._next = 0

    def _give(self, kind: str, *arguments: Any) -> Tensor:
        if self._next == len(self._drawn):
            self._drawn.append(getattr(self._draws, kind)(*arguments))
        self._next += 1
        return self._drawn[self._next - 1]

    def normal(self, *shape: int) -> Tensor:
        return self._give("normal", *shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._give("uniform", *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._give("integers", high, *shape)


def truncated(z: Tensor, threshold: float) -> Tensor:
    """Standard normal numbers moved into [-threshold, threshold], as if drawn anew until inside.

    The truncated normal distribution of BigGAN (Brock et al. 2019, section 3.1), reached by its
    quantiles, so that a seed's picture changes little with the threshold.

    Raises:
        UserError: the threshold is not positive.
    """
    if threshold <= 0:
        raise UserError(
            f"A truncation of {threshold} leaves no latent vectors.",
            "Write a number above 0: 0.5 gives typical pictures, 2 nearly all of them.",
        )
    below = 0.5 * (1.0 + math.erf(-threshold / math.sqrt(2.0)))
    exact = z.to("cpu", torch.float64)  # Apple's GPUs have no float64
    share = below + torch.special.ndtr(exact) * (1.0 - 2.0 * below)
    return torch.special.ndtri(share).to(z).clamp(-threshold, threshold)


def detached(images: Samples) -> Samples:
    """The same pictures without their history."""
    if isinstance(images, tuple):
        return tuple(part.detach() for part in images)
    return images.detach()


def _first(images: Samples) -> Tensor:
    return images[0] if isinstance(images, tuple) else images


def _finest(images: Samples) -> Tensor:
    return images[-1] if isinstance(images, tuple) else images


def _each(images: Samples, draws: Draws, transform: Any) -> Samples:
    """The same random transformation of pictures, or of all their scales."""
    if not isinstance(images, tuple):
        return transform(images, draws)
    replay, parts = Replay(draws), []
    for part in images:
        replay.rewind()
        parts.append(transform(part, replay))
    return tuple(parts)
