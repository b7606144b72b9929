"""StackGAN: pictures of words in two stages, a small sketch and a finished picture.

StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial Networks. Han
Zhang, Tao Xu, Hongsheng Li, Shaoting Zhang, Xiaogang Wang, Xiaolei Huang, Dimitris Metaxas. 2017. ICCV.
arXiv 1612.03242.

*Conditioning augmentation* (section 3.2): of a sentence's vector e a dense layer makes mu(e) and
sigma(e), and c = mu + sigma * eps, eps from N(0, 1), is what the generator gets. So few captions
fill the space between them, and

    KL(N(mu(e), sigma(e)^2) || N(0, 1))                                              (equation 2)

keeps it from falling apart.

*Stage I* (3.3) draws rough shapes and colours at a low resolution, from c and noise z; *stage II* (3.4)
takes the sketch of the finished stage I, brings it down to a few pixels, puts its own c of the same
words beside it, and goes through residual blocks up to the full resolution:

    L_D0 = -E log D0(I0, e) - E log(1 - D0(G0(z, c0), e))                            (equation 3)
    L_G0 = E log(1 - D0(G0(z, c0), e)) + lambda KL(...)                              (equation 4)

and the same of D and G(s0, c) for s0 = G0(z, c0) (equations 5, 6). Both discriminators are
matching-aware: to them real pictures beside wrong captions are fakes, too. D brings pictures down to
4x4 pixels, puts the compressed sentence at each of them, and ends with a 1x1 convolution and a dense
layer. Upsampling is by nearest neighbours and a 3x3 convolution, with batch normalisation and ReLU;
downsampling by 4x4 convolutions of stride 2, batch normalisation and LeakyReLU (section 3.5). Adam, rate
2e-4; the run's stages are `words` (`captions/encoder.py`), `sketch` and `refine`.

Where this goes beyond the paper or leaves it:
- L_G is the non-saturating form, -E log D, as in the authors' released code, as are lambda = 2, KL as a
  mean over the numbers of c, and beta1 = .5. The rate is not halved on the way (`lr_decay=linear` lowers
  it over the whole run).
- Sentences come from this project's own reader or a ready encoder; the paper takes char-CNN-RNN.
- Any resolution from 16 up, non-square too: the sketch has a half of the side, a quarter from 128 pixels
  on, as from 64 to 256 in the paper.
- Samples are made with averaged weights; before stage II begins they are enlarged sketches.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.captions.game import CaptionedConfig, CaptionedGAN
from faussaire.captions.spec import Captioned
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Look
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import Schedule
from faussaire.losses import Samples
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import base_size, cut, doublings, filled

Level = Literal["sketch", "refine"]


@dataclass(frozen=True, kw_only=True)
class StackGANConfig(CaptionedConfig):
    """Settings of StackGAN, besides those of every game with words.

    Attributes:
        latent: numbers in the noise vector z.
        augmented: numbers in c, what conditioning augmentation makes of a sentence. The paper has 128.
        compressed: numbers that a discriminator makes of a sentence. The paper has 128.
        kl: lambda, the weight of the Kullback-Leibler term.
        width: channels next to the picture, in all networks; they double with each halving, up to eight
            times. The paper's generators have 96, its discriminators 64.
        blocks: residual blocks of stage II.
        factor: how many times as large as the sketch the finished picture is, 2 or 4; None: 4 from 128
            pixels on, else 2.
        sketch_share: share of the run's examples for stage I.
    """

    latent: int = 100
    augmented: int = 64
    compressed: int = 64
    kl: float = 2.0
    width: int = 32
    blocks: int = 2
    factor: int | None = None
    sketch_share: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, latent=(1, 100_000), augmented=(1, 65_536), compressed=(1, 65_536))
        check_range(self, kl=(0, None), width=(1, 8192), blocks=(1, 64))
        check_range(self, sketch_share=(0.01, 0.99 - self.words_share))
        if self.factor is not None:
            check_range(self, factor=(2, 4))


def widths(config: StackGANConfig, steps: int) -> list[int]:
    """Channels at each resolution, from the picture's down."""
    return [config.width * min(8, 2**step) for step in range(steps + 1)]


@dataclass(frozen=True)
class Plan:
    """Sizes that the stages work at.

    Attributes:
        size: height and width of finished pictures.
        sketch: of sketches.
        downs: halvings of a sketch before stage II goes through its blocks.
        ups: doublings after them.
    """

    size: tuple[int, int]
    sketch: tuple[int, int]
    downs: int
    ups: int

    @classmethod
    def of(cls, config: StackGANConfig, spec: Captioned) -> Plan:
        factor = config.factor or (4 if min(spec.height, spec.width) >= 128 else 2)
        factor = 4 if factor > 2 else 2
        sketch = base_size(spec.height, spec.width, factor // 2)
        downs = 2 if min(sketch) >= 32 else 1
        return cls((spec.height, spec.width), sketch, downs, downs + factor // 2)


class Augmentation(nn.Module):
    """Sentences (N, D) to mu and log sigma^2, (N, A) each: section 3.2."""

    def __init__(self, sentence: int, augmented: int) -> None:
        super().__init__()
        self.dense = nn.Linear(sentence, 2 * augmented)

    def forward(self, sentence: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.dense(sentence).float().chunk(2, dim=1)
        return mean, log_variance


def drawn(mean: Tensor, log_variance: Tensor, eps: Tensor) -> Tensor:
    """c = mu + sigma eps, (N, A)."""
    return mean + (0.5 * log_variance).exp() * eps


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Equation 2, a mean over the numbers of c and over the batch, ()."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


def _up(wide: int, narrow: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2.0, mode="nearest"),
        nn.Conv2d(wide, narrow, 3, padding=1, bias=False),
        BatchNormAct2d(narrow),
    ]


def _down(narrow: int, wide: int, slope: float) -> list[nn.Module]:
    return [
        nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
        BatchNormAct2d(wide, slope),
    ]


class Sketcher(nn.Module):
    """G0: noise (N, latent + augmented), eps at its end, and sentences (N, D) to sketches (N, C, h, w).

    Without noise it says mu and log sigma^2 of the sentences.
    """

    def __init__(self, config: StackGANConfig, spec: Captioned) -> None:
        super().__init__()
        self.size = Plan.of(config, spec).sketch
        steps = doublings(*self.size)
        self.base = base_size(*self.size, steps)
        self.augmented = config.augmented
        self.augment = Augmentation(config.sentence, config.augmented)
        channels = widths(config, steps)[::-1]
        area = self.base[0] * self.base[1]
        self.project = nn.Linear(config.latent + config.augmented, channels[0] * area, bias=False)
        layers: list[nn.Module] = [BatchNormAct2d(channels[0])]
        for wide, narrow in itertools.pairwise(channels):
            layers += _up(wide, narrow)
        layers += [nn.Conv2d(channels[-1], spec.channels, 3, padding=1), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor | None, condition: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        told = self.augment(condition)
        if z is None:
            return told
        noise, eps = z[:, : -self.augmented], z[:, -self.augmented :]
        x = self.project(torch.cat([noise, drawn(*told, eps)], dim=1)).unflatten(
            1, (-1, *self.base)
        )
        return cut(self.body(x.contiguous(memory_format=torch.channels_last)), self.size)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNormAct2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNormAct2d(channels, 1.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Refiner(nn.Module):
    """G: eps (N, augmented), sentences (N, D) and sketches (N, C, h, w) to pictures (N, C, H, W).

    Without eps it says mu and log sigma^2 of the sentences. `begun` is 1 once training it has begun.
    """

    begun: Tensor

    def __init__(self, config: StackGANConfig, spec: Captioned) -> None:
        super().__init__()
        plan = Plan.of(config, spec)
        self.size = plan.size
        step = 2**plan.downs
        self.room = tuple(-(-side // step) * step for side in plan.sketch)
        self.augment = Augmentation(config.sentence, config.augmented)
        channels = widths(config, plan.ups)
        # The sketch's own resolution is `ups - downs` halvings below the picture's.
        first = channels[plan.ups - plan.downs :]
        layers: list[nn.Module] = [
            nn.Conv2d(spec.channels, first[0], 3, padding=1),
            nn.ReLU(),
        ]
        for narrow, wide in itertools.pairwise(first):
            layers += _down(narrow, wide, 0.0)
        self.look = nn.Sequential(*layers)
        inner = channels[-1]
        self.join = nn.Sequential(
            nn.Conv2d(inner + config.augmented, inner, 3, padding=1, bias=False),
            BatchNormAct2d(inner),
        )
        layers = [Residual(inner) for _ in range(config.blocks)]
        for wide, narrow in zip(channels[::-1], channels[-2::-1], strict=False):
            layers += _up(wide, narrow)
        layers += [nn.Conv2d(channels[0], spec.channels, 3, padding=1), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.register_buffer("begun", torch.zeros(()))

    def forward(
        self, eps: Tensor | None, condition: Tensor, sketch: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        told = self.augment(condition)
        if eps is None or sketch is None:
            return told
        seen = self.look(filled(sketch, self.room))  # pyright: ignore[reportArgumentType]
        said = drawn(*told, eps).to(seen.dtype)[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        return cut(self.body(self.join(torch.cat([seen, said], dim=1))), self.size)


class Discriminator(nn.Module):
    """D0 and D: pictures of `size` (N, C, h, w) and sentences (N, D) to logits (N,)."""

    def __init__(self, config: StackGANConfig, spec: Captioned, size: tuple[int, int]) -> None:
        super().__init__()
        steps = doublings(*size)
        base = base_size(*size, steps)
        self.room = (base[0] * 2**steps, base[1] * 2**steps)
        channels = widths(config, steps)
        layers: list[nn.Module] = [
            nn.Conv2d(spec.channels, channels[0], 3, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for narrow, wide in itertools.pairwise(channels):
            layers += _down(narrow, wide, 0.2)
        self.body = nn.Sequential(*layers)
        self.compress = nn.Sequential(
            nn.Linear(config.sentence, config.compressed), nn.LeakyReLU(0.2)
        )
        wide = channels[-1]
        self.compare = nn.Sequential(
            nn.Conv2d(wide + config.compressed, wide, 1, bias=False), BatchNormAct2d(wide, 0.2)
        )
        self.classify = nn.Conv2d(wide, 1, base)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        seen = self.body(filled(x, self.room))
        said = self.compress(condition).to(seen.dtype)
        said = said[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        return self.classify(self.compare(torch.cat([seen, said], dim=1))).flatten()


class StackGAN(CaptionedGAN[StackGANConfig]):
    """StackGAN on pictures with captions, of any size from 16x16 up.

    Each of its two games is played by a view (`at`) whose `nets` have a generator and a discriminator.
    """

    Config = StackGANConfig
    averaged = ("sketcher", "refiner")
    least_side = 16
    level: Level | None = None
    presets: ClassVar = {
        "paper": {
            **{"width": 64, "augmented": 128, "compressed": 128, "sentence": 256, "blocks": 4},
            **{"factor": 4, "sketch_share": 0.4, "batch": 64},
        },
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "sentence": 64, "reader_width": 64, "eye_width": 16},
        "small": {"width": 24},
        "base": {"width": 32},
        "large": {"width": 64, "augmented": 128, "compressed": 128, "sentence": 256, "blocks": 4},
    }

    def __init__(self, config: StackGANConfig, spec: Captioned) -> None:
        super().__init__(config, spec)
        self.plan = Plan.of(config, spec)
        self.nets |= {
            "sketcher": Sketcher(config, spec),
            "sketch_discriminator": Discriminator(config, spec, self.plan.sketch),
            "refiner": Refiner(config, spec),
            "refine_discriminator": Discriminator(config, spec, self.plan.size),
        }

    # ---- Two games ----

    def at(self, level: Level) -> Self:
        """A view that plays one of the two games."""
        view = copy.copy(self)
        view.level = level
        generator = "sketcher" if level == "sketch" else "refiner"
        view.nets = {
            **self.nets,
            "generator": self.nets[generator],
            "discriminator": self.nets[f"{level}_discriminator"],
        }
        return view

    def now(self, clock: Clock) -> Self:
        """The view of the game that is being played."""
        return self.at("refine" if self.stage(clock) == "refine" else "sketch")

    def rate(self, player: str) -> float | Schedule:
        return super().rate("discriminator" if player.endswith("discriminator") else "generator")

    def played(self, begin: int, total: int) -> tuple[Stage, ...]:
        until = begin + max(1, round(self.config.sketch_share * total))
        sketch, refine = (self.rounds(level) for level in ("sketch", "refine"))
        return (
            Stage(name="sketch", phases=sketch, until=until),
            Stage(name="refine", phases=refine),
        )

    def rounds(self, level: Level) -> tuple[Phase, ...]:
        """The phases of one game, on its own nets."""
        game = self.at(level)
        own = {"generator": "sketcher" if level == "sketch" else "refiner"}
        return tuple(
            Phase(
                name=f"{level}_{phase.name}",
                nets=tuple(own.get(net, f"{level}_{net}") for net in phase.nets),
                loss=phase.loss,
                every=phase.every,
                repeat=phase.repeat,
                fresh=phase.fresh,
            )
            for phase in game.phases()
        )

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        assert condition is not None
        first, eps = z[:, : -self.config.augmented], z[:, -self.config.augmented :]
        if self.level == "sketch":
            return self.nets["sketcher"](first, condition)
        with torch.no_grad():
            sketch = self.nets["sketcher"](first, condition)
        return self.nets["refiner"](eps, condition, sketch)

    def reals(self, batch: Batch, clock: Clock) -> Samples:
        if self.level == "sketch":
            return F.adaptive_avg_pool2d(batch["images"], self.plan.sketch)
        return batch["images"]

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 3 or 5, with wrong captions among what is refused."""
        if self.level == "refine":
            refiner = self.nets["refiner"]
            assert isinstance(refiner, Refiner)
            refiner.begun = torch.ones_like(refiner.begun)
        return super().discriminator_loss(batch, clock)

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 4 or 6."""
        terms = super().generator_loss(batch, clock)
        told = self.nets["generator"](None, self.condition(batch))
        return {**terms, "kl": self.config.kl * divergence(*told)}

    # ---- Looks from outside ----

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        return super(StackGAN, self.now(clock)).examined(batch, clock)

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return super(StackGAN, self.now(clock)).judged(batch, clock)

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return super(StackGAN, self.now(clock)).shown(batch, clock)

    @property
    def refines(self) -> bool:
        """Whether stage II has begun."""
        return bool(self.nets["refiner"].begun)  # pyright: ignore[reportArgumentType]

    def scores(self, images: Tensor, captions: Tensor) -> Tensor:
        if self.refines:
            return super(StackGAN, self.at("refine")).scores(images, captions)
        small = F.adaptive_avg_pool2d(images, self.plan.sketch)
        return super(StackGAN, self.at("sketch")).scores(small, captions)

    # ---- Sampling ----

    def latents(self, draws: Draws) -> Tensor:
        """z, and eps of both stages: (N, latent + 2 augmented)."""
        return draws.normal(self.config.latent + 2 * self.config.augmented)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        z = self.beginning(draws, latents, truncation)
        condition = self.chosen(draws, labels)
        if self.refines:
            return self.at("refine").generate(z, condition, draws, Clock()).clamp(-1.0, 1.0)
        sketch = self.at("sketch").generate(z, condition, draws, Clock())
        return F.interpolate(sketch, size=self.plan.size, mode="nearest").clamp(-1.0, 1.0)
