"""CycleGAN: from one kind of picture to another and back, learnt without pairs.

Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks. Jun-Yan Zhu, Taesung
Park, Phillip Isola, Alexei A. Efros. 2017. arXiv 1703.10593.

Two generators, G: X -> Y and F: Y -> X, and a discriminator for each side. The losses:

    L_GAN(G, D_Y), least squares: G lowers E[(D_Y(G(x)) - 1)^2],
        D_Y lowers E[(D_Y(y) - 1)^2] + E[D_Y(G(x))^2]; the same for F and D_X      (sections 3.1, 4)
    L_cyc = E|F(G(x)) - x| + E|G(F(y)) - y|, weight lambda                         (equation 2)
    L_identity = E|G(y) - y| + E|F(x) - x|, weight lambda_identity x lambda        (section 5.2)

Discriminators see fakes out of a pool of the last fifty, in place of half of the fresh ones (section 4).
The generators are Johnson's residual networks: c7s1-64, d128, d256, nine residual blocks (six below
256 pixels), u128, u64, c7s1-3, with instance normalisation and mirrored borders; discriminators judge
patches of 70x70 pixels (appendix 7.2). Adam with rate 2e-4 and beta1 .5, batches of 1, the rate constant
over half of the run and falling to 0 over the other (7.1); pictures are enlarged to 286, cut to 256 at
random, and mirrored.

`lambda_identity`: without it nothing keeps a generator from changing colours that need no change, for
the other can change them back: day turns to dusk in paintings, black to white. Too much of it (1 and
above) makes doing nothing the best answer. Where colours must change (digits to inverted digits), 0.

Where this leaves the paper: weights of the losses are those of equation 3 with the factor 1/2 of the
discriminators in it, which Adam does not feel; samples are made by averaged weights; any picture
size (mirrored to a multiple of 4 and cut back), and sides with different channels, which have no
identity loss.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import TwoData, check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import linear
from faussaire.nn.fused import InstanceNormAct2d
from faussaire.nn.patch import PatchDiscriminator, fitting_halvings, initialise, per_picture
from faussaire.nn.sizes import cut, mirrored, multiple_of


@dataclass(frozen=True, kw_only=True)
class CycleGANConfig:
    """Settings of CycleGAN.

    Attributes:
        loss: what each of the two games is about.
        lambda_cycle: weight of the cycle loss (lambda), pictures in [-1, 1].
        lambda_identity: weight of the identity loss as a share of lambda_cycle; 0: none.
        lr: learning rate of the generators.
        discriminator_lr: learning rate of the discriminators; None: lr.
        lr_decay_from: share of the run after which the rates fall to 0.
        beta1, beta2: of Adam.
        pool: past fakes of each side from which the discriminators see half of theirs; 0: none.
        width: channels of the generators' first layer.
        blocks: residual blocks; None: nine, or six below 256 pixels.
        discriminator_width: channels of the discriminators' first layer.
        patch_halvings: of the discriminators: 3 judges patches of 70x70 pixels, 2 of 34, 1 of 16.
    """

    Data: ClassVar[type] = TwoData
    loss: Literal["least-squares", "nonsaturating", "hinge"] = "least-squares"
    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    lr: float = 2e-4
    discriminator_lr: float | None = None
    lr_decay_from: float = 0.5
    beta1: float = 0.5
    beta2: float = 0.999
    pool: int = 50
    width: int = 64
    blocks: int | None = None
    discriminator_width: int = 64
    patch_halvings: int = 3

    def __post_init__(self) -> None:
        check_range(
            self,
            lambda_cycle=(0, None),
            lambda_identity=(0, None),
            lr=(0, None),
            lr_decay_from=(0, 1),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
            pool=(0, 100_000),
            width=(1, 1024),
            discriminator_width=(1, 1024),
            patch_halvings=(1, 6),
        )
        if self.discriminator_lr is not None:
            check_range(self, discriminator_lr=(0, None))
        if self.blocks is not None:
            check_range(self, blocks=(0, 100))


class Residual(nn.Module):
    """Two mirrored 3x3 convolutions with instance normalisation, beside which x passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            InstanceNormAct2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            InstanceNormAct2d(channels, 1.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """Pictures (N, K, H, W) to pictures (N, C, H, W) in [-1, 1]. Appendix 7.2."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 7, padding=3, padding_mode="reflect", bias=False),
            InstanceNormAct2d(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            InstanceNormAct2d(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False),
            InstanceNormAct2d(4 * width),
            *(Residual(4 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(
                4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1, bias=False
            ),
            InstanceNormAct2d(2 * width),
            nn.ConvTranspose2d(
                2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=False
            ),
            InstanceNormAct2d(width),
            nn.Conv2d(width, outputs, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        least = max(size[0], 8), max(size[1], 8)  # mirrored borders need pixels to mirror
        return cut(self.body(mirrored(x, multiple_of(*least, 4))), size)


class CycleGAN(Family[CycleGANConfig]):
    """CycleGAN between two sets of pictures of any size from 16x16 up."""

    Config = CycleGANConfig
    sources = "two"
    applies = True
    panels = (
        *("the first kind", "translated", "turned back"),
        *("the second kind", "translated", "turned back"),
    )
    averaged = ("generator", "inverse")
    least_side = 16
    training: ClassVar = {"batch": 4, "margin": 0.1171875}
    presets: ClassVar = {"paper": {"batch": 1, "resolution": 256, "flip": True}}
    sizes: ClassVar = {
        "tiny": {"width": 16, "discriminator_width": 16, "blocks": 4},
        "small": {"width": 32, "discriminator_width": 32, "blocks": 6},
        "base": {"width": 64, "discriminator_width": 64},
        "large": {"width": 96, "discriminator_width": 96},
    }

    def __init__(self, config: CycleGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        least = min(spec.height, spec.width)
        if least < self.least_side:
            raise UserError(
                f"cyclegan needs pictures of at least 16x16, not {spec.width}x{spec.height}.",
                "Choose a larger --resolution; small pictures are enlarged.",
            )
        x, y = spec.input_channels, spec.channels
        blocks = config.blocks if config.blocks is not None else 9 if least >= 256 else 6
        halvings = fitting_halvings(least, config.patch_halvings)
        wide = config.discriminator_width
        self.nets = {
            "generator": Generator(x, y, config.width, blocks),  # G
            "inverse": Generator(y, x, config.width, blocks),  # F
            "discriminator": PatchDiscriminator(y, 0, wide, halvings),  # D_Y
            "inverse discriminator": PatchDiscriminator(x, 0, wide, halvings),  # D_X
        }
        self.game = losses.GAMES[config.loss]
        size = (config.pool, spec.height, spec.width)
        self.pools = {
            "images": Pool(torch.zeros(size[0], y, *size[1:])),
            "inputs": Pool(torch.zeros(size[0], x, *size[1:])),
        }

    # ---- How it is measured ----

    @classmethod
    def compares(cls, config: CycleGANConfig) -> tuple[str, ...]:
        return ("fid", "cycle_l1")

    def exam(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return batch["inputs"], batch.get("images")

    # ---- The plan ----

    def optimisers(self) -> dict[str, OptimiserSpec]:
        config = self.config
        betas = (config.beta1, config.beta2)
        own = config.lr if config.discriminator_lr is None else config.discriminator_lr
        players = {
            "generators": (("generator", "inverse"), config.lr),
            "discriminators": (("discriminator", "inverse discriminator"), own),
        }
        return {
            name: Adam(nets=nets, lr=linear(lr, 0.0, begin=config.lr_decay_from), betas=betas)
            for name, (nets, lr) in players.items()
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        forge = Phase(name="generator", nets=("generator", "inverse"), loss=self.generator_loss)
        judge = Phase(
            name="discriminator",
            nets=("discriminator", "inverse discriminator"),
            loss=self.discriminator_loss,
        )
        return (Stage(name="adversarial", phases=(forge, judge)),)

    # ---- Losses ----

    def fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """G(x) and F(y)."""
        return batch.shared(
            "fakes",
            lambda: (
                self.nets["generator"](batch["inputs"]),
                self.nets["inverse"](batch["images"]),
            ),
        )

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        config, x, y = self.config, batch["inputs"], batch["images"]
        fake_y, fake_x = self.fakes(batch)
        judged = (self.nets["discriminator"](fake_y), self.nets["inverse discriminator"](fake_x))
        terms = {"adversarial": torch.stack([self.game.generator(j, j) for j in judged]).sum()}
        there_and_back = (self.nets["inverse"](fake_y) - x).abs().mean()
        back_and_there = (self.nets["generator"](fake_x) - y).abs().mean()
        terms["cycle"] = config.lambda_cycle * (there_and_back + back_and_there)  # equation 2
        if config.lambda_identity and x.shape[1] == y.shape[1]:
            same = (self.nets["generator"](y) - y).abs().mean()
            same = same + (self.nets["inverse"](x) - x).abs().mean()
            terms["identity"] = config.lambda_identity * config.lambda_cycle * same
        return terms

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = {}
        sides = zip(
            ("images", "inputs"), ("discriminator", "inverse discriminator"), self.fakes(batch),
            strict=True,
        )  # fmt: skip
        for side, name, fake in sides:
            shown = self.pools[side].exchange(fake.detach(), batch)
            real, fake_logits = self.nets[name](batch[side]), self.nets[name](shown)
            terms[f"adversarial {side}"] = self.game.discriminator(real, fake_logits)
            batch.observe({f"D({side})": real, f"D(fake {side})": fake_logits})
        return terms

    def extra_state(self) -> dict[str, Tensor]:
        if not self.config.pool:
            return {}
        return {
            f"{side}.{name}": value
            for side, pool in self.pools.items()
            for name, value in (("pictures", pool.pictures), ("filled", pool.filled))
        }

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        for side, pool in self.pools.items():
            if f"{side}.filled" in state:
                pool.pictures = state[f"{side}.pictures"].clone()
                pool.filled = state[f"{side}.filled"].clone()

    # ---- For the doctor, and to look at ----

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return batch["images"]

    def examined(self, batch: Batch, clock: Clock) -> Look:
        """The game of the way there; the way back is its mirror image."""
        fakes = self.nets["generator"](batch["inputs"])
        return Look(
            reals=batch["images"],
            fakes=fakes,
            real_logits=self.judged(batch, clock),
            fake_logits=per_picture(self.nets["discriminator"](fakes)),
            levelled=False,  # least squares decides at 1/2
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return per_picture(self.nets["discriminator"](batch["images"]))

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """x, G(x), F(G(x)), then y, F(y), G(F(y))."""
        x, y = batch["inputs"], batch["images"]
        fake_y, fake_x = self.nets["generator"](x), self.nets["inverse"](y)
        back_x, back_y = self.nets["inverse"](fake_y), self.nets["generator"](fake_x)
        return x, fake_y, back_x, y, fake_x, back_y

    # ---- Use ----

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        return self.nets["generator"](x)

    def inverse(self) -> Self:
        view = copy.copy(self)
        view.spec = dataclasses.replace(
            self.spec, channels=self.spec.input_channels, input_channels=self.spec.channels
        )
        view.nets = {
            **self.nets,
            "generator": self.nets["inverse"],
            "inverse": self.nets["generator"],
        }
        return view


class Pool:
    """The last fakes of one side (Shrivastava et al. 2017, arXiv 1612.07828, section 2.3).

    Attributes:
        pictures: (size, C, H, W).
        filled: how many of its places are taken, ().
    """

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        self.filled = torch.zeros((), dtype=torch.int64)

    def exchange(self, fakes: Tensor, batch: Batch) -> Tensor:
        """Fakes (N, C, H, W), about half of them swapped for earlier ones; the same pool everywhere."""
        size = len(self.pictures)
        if not size:
            return fakes
        self.pictures = self.pictures.to(fakes.device)
        rows = batch.gather(fakes).clone()
        chances = batch.gather(batch.uniform(2)).tolist()
        filled = int(self.filled)
        for row, (swap, where) in zip(rows, chances, strict=True):
            if filled < size:
                self.pictures[filled] = row
                filled += 1
            elif swap < 0.5:
                slot = int(where * size)
                old = self.pictures[slot].clone()
                self.pictures[slot] = row
                row.copy_(old)
        self.filled.fill_(filled)
        return batch.own(rows)
