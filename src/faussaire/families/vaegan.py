"""VAE-GAN: an autoencoder whose likeness is judged by a discriminator's eye, not pixel by pixel.

Autoencoding beyond pixels using a learned similarity metric. Anders Boesen Lindbo Larsen, Søren Kaae
Sønderby, Hugo Larochelle, Ole Winther. 2016. arXiv 1512.09300.

Three players: an encoder q(z | x), a decoder that is a GAN's generator, too, and its discriminator,
whose layer l gives features Dis_l (sections 2.1 to 2.3):

    L_prior = KL(q(z | x) || p(z))
    L_llike = -E[log p(Dis_l(x) | z)],  p = N(Dis_l(x); Dis_l(x~), I)
    L_GAN   = log Dis(x) + log(1 - Dis(x~)) + log(1 - Dis(x_p))

with x~ = Dec(z), z ~ q(z | x), and x_p = Dec(z_p), z_p ~ N(0, I). Algorithm 1 sends gradients in three
ways ("limiting error signals to relevant networks"):

    encoder        down L_prior + L_llike: it never sees the game
    decoder        down gamma L_llike - L_GAN
    discriminator  up L_GAN: nobody asks it to find real and rebuilt pictures alike

Networks are those of table 1: convolutions that halve to 7 to 13 pixels (three times from 64), batch
norm, one wide dense layer in each. RMSProp with rate 3e-4, batches of 64, 128 latents.

Where this goes beyond the paper or leaves it:
- L_llike is a sum over features in the encoder's loss, as above. In the decoder's it is their mean
  square, so that `gamma` means the same for any size: the paper's gamma is 2 gamma over the number of
  features.
- The decoder lowers -log Dis(x~) - log Dis(x_p) in place of log(1 - Dis), as GANs do (Goodfellow et al.
  2014, section 3); `--loss minimax` is the paper's letter.
- RMSProp is Adam with beta1 0 and beta2 .9, with Adam's correction of the first steps.
- `beta` is 10. Features of unit variance tell thousands of nats a picture, and with the paper's 1 the
  encoder spends over a hundred on z (a VAE of the same pictures twenty): what it says lies where
  N(0, I) never does, and pictures of noise become worse as rebuilt ones become better
  (benchmarks/vae.txt).
- The players move one after the other: the discriminator, whose new features the others see, the
  encoder, the decoder.
- The discriminator sees reals, rebuilt and sampled pictures in one batch, so that batch norm cannot tell
  them apart, nor hide that all rebuilt pictures are too dark.
- Kernels are 4x4 where the size changes: 5x5 do not divide evenly by two.
- The authors' code also halts a player that is too far ahead, which the paper does not mention; this
  does not. `--warm-up` is not theirs: for so long the discriminator alone learns.
- Classes join z, the encoder and the discriminator as in `vae` and `dcgan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log2, prod
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.autoencoding import Autoencoder, divergence, drawn
from faussaire.core.batch import Batch
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.family import Look, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.nn.fused import BatchNormAct2d, UpConv2d
from faussaire.nn.sizes import base_size, cut, filled


@dataclass(frozen=True, kw_only=True)
class VAEGANConfig:
    """Settings of VAE-GAN.

    Attributes:
        gamma: weight of the mean square difference of features in the decoder's loss, beside the game.
        beta: weight of the divergence in the encoder's loss; the paper has 1.
        layer: l, the convolution of the discriminator after which pictures are compared, from 1; None:
            the last.
        loss: what the decoder lowers in the game.
        warm_up: share of the run in which the discriminator alone learns.
        conditional: learn one picture distribution for each class (or vector) of the data.
        latent: numbers in z.
        width: channels of the encoder's first convolution, from which all others follow.
        lr: rate of all three.
        discriminator_lr: of the discriminator; None: lr.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
    """

    gamma: float = 1.0
    beta: float = 10.0
    layer: int | None = None
    loss: Literal["nonsaturating", "minimax"] = "nonsaturating"
    warm_up: float = 0.0
    conditional: bool = False
    latent: int = 128
    width: int = 32
    lr: float = 3e-4
    discriminator_lr: float | None = None
    beta1: float = 0.0
    beta2: float = 0.9

    def __post_init__(self) -> None:
        check_range(
            self,
            gamma=(0, None),
            beta=(0, None),
            warm_up=(0, 0.9),
            latent=(1, 100_000),
            width=(2, 4096),
            lr=(0, 1),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
        )
        if self.layer is not None:
            check_range(self, layer=(1, 20))
        if self.discriminator_lr is not None:
            check_range(self, discriminator_lr=(0, 1))


def halvings(height: int, width: int) -> int:
    """How often 7 to 13 pixels double to reach the smaller side: 1 at 16, 2 at 28, 3 at 64."""
    return max(1, int(log2(min(height, width) / 7)))


class Dense(nn.Module):
    """A dense layer with batch norm and ReLU: (N, features) to (N, out)."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, out, bias=False)
        self.norm = BatchNormAct2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)[:, :, None, None])[:, :, 0, 0]


class Encoder(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to mean and log variance, (N, latent) each."""

    def __init__(self, config: VAEGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = halvings(spec.height, spec.width)
        base = base_size(spec.height, spec.width, steps)
        self.size = (base[0] * 2**steps, base[1] * 2**steps)
        wide = config.width
        widths = [min(4 * wide, wide * 2**step) for step in range(steps)]
        self.look = nn.Conv2d(spec.channels, widths[0], 4, stride=2, padding=1)
        size = spec.condition_size if config.conditional else 0
        self.embed = nn.Linear(size, widths[0], bias=False) if size else None
        layers: list[nn.Module] = [BatchNormAct2d(widths[0])]
        for narrow, broad in pairwise(widths):
            layers += [
                nn.Conv2d(narrow, broad, 4, stride=2, padding=1, bias=False),
                BatchNormAct2d(broad),
            ]
        self.body = nn.Sequential(*layers)
        self.dense = Dense(widths[-1] * prod(base), 32 * wide)
        self.end = nn.Linear(32 * wide, 2 * config.latent)
        self.apply(initialise)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = self.look(filled(x, self.size))
        if self.embed is not None and condition is not None:
            seen = seen + self.embed(condition)[:, :, None, None]
        mean, log_variance = self.end(self.dense(self.body(seen).flatten(1))).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """z (N, latent) and conditions (N, K) or None to pictures (N, C, H, W) in [-1, 1]."""

    def __init__(self, config: VAEGANConfig, spec: Pictures) -> None:
        super().__init__()
        self.size, wide = (spec.height, spec.width), config.width
        steps = halvings(spec.height, spec.width)
        self.base = base_size(*self.size, steps)
        size = config.latent + (spec.condition_size if config.conditional else 0)
        self.dense = Dense(size, 4 * wide * prod(self.base))
        widths = [max(wide // 2, 4 * wide // 2**step) for step in range(steps)] + [wide // 2]
        layers: list[nn.Module] = []
        for broad, narrow in pairwise(widths):
            layers += [UpConv2d(broad, narrow, bias=False), BatchNormAct2d(narrow)]
        layers += [nn.Conv2d(widths[-1], spec.channels, 5, padding=2), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            z = torch.cat([z, condition], dim=1)
        return cut(self.body(self.dense(z).reshape(len(z), -1, *self.base)), self.size)


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) and conditions (N, K) or None to logits (N,) and Dis_l, (N, c, h, w)."""

    def __init__(self, config: VAEGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = halvings(spec.height, spec.width)
        base = base_size(spec.height, spec.width, steps)
        self.size = (base[0] * 2**steps, base[1] * 2**steps)
        wide = config.width
        self.layer = min(config.layer or steps + 1, steps + 1)
        self.look = nn.Conv2d(spec.channels, wide // 2, 5, padding=2)
        size = spec.condition_size if config.conditional else 0
        self.embed = nn.Linear(size, wide // 2, bias=False) if size else None
        widths = [wide // 2, *(min(4 * wide, 2 * wide * 2**step) for step in range(steps))]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, broad, 4, stride=2, padding=1, bias=False), BatchNormAct2d(broad)
            )
            for narrow, broad in pairwise(widths)
        )
        self.dense = Dense(widths[-1] * prod(base), 8 * wide)
        self.end = nn.Linear(8 * wide, 1)
        self.apply(initialise)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = self.look(filled(x, self.size))
        if self.embed is not None and condition is not None:
            seen = seen + self.embed(condition)[:, :, None, None]
        maps = [seen.relu()]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        logits = self.end(self.dense(maps[-1].flatten(1))).flatten()
        return logits, maps[self.layer - 1]


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02) as in DCGAN, biases 0: first pictures are grey, not saturated noise."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class VAEGAN(Autoencoder[VAEGANConfig]):
    """VAE-GAN on pictures of any size from 16x16 up, unconditional or by class."""

    Config = VAEGANConfig
    least_side = 16
    training: ClassVar = {"batch": 64}
    presets: ClassVar = {"paper": {"width": 64, "loss": "minimax", "beta": 1.0, "resolution": 64}}
    sizes: ClassVar = {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 64},
        "large": {"width": 128, "latent": 256},
    }

    def __init__(self, config: VAEGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets = {
            "encoder": Encoder(config, spec),
            "decoder": Decoder(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    # ---- The plan ----

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        config = self.config
        own = {"discriminator": config.discriminator_lr}
        return {
            name: Adam(
                nets=(name,),
                lr=config.lr if own.get(name) is None else own[name],  # pyright: ignore
                betas=(config.beta1, config.beta2),
            )
            for name in self.nets
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        judge, encode, decode = (
            Phase(name=name, nets=(name,), loss=loss)
            for name, loss in (
                ("discriminator", self.discriminator_loss),
                ("encoder", self.encoder_loss),
                ("decoder", self.decoder_loss),
            )
        )
        game = Stage(name="adversarial", phases=(judge, encode, decode))
        until = self._until(total)
        if not until:
            return (game,)
        return (Stage(name="warm-up", phases=(judge,), until=until), game)

    def _until(self, total: int) -> int:
        """Examples seen at which the warm-up ends."""
        return round(self.config.warm_up * total)

    # ---- What they share ----

    def codes(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, log variance and z of q(z | x), with their history, once a batch."""

        def make() -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.posterior(batch["images"], self.condition(batch))
            return mean, log_variance, drawn(mean, log_variance, batch.normal(self.latent))

        return batch.shared("codes", make)

    def rebuilt(self, batch: Batch) -> Tensor:
        """x~ with its history back to the encoder, once a batch."""
        z = self.codes(batch)[2]
        return batch.shared("rebuilt", lambda: self.painted(z, self.condition(batch)))

    def fakes(self, batch: Batch) -> Tensor:
        """x_p with its history back to the decoder, once a batch."""
        return batch.shared(
            "fakes", lambda: self.painted(batch.normal(self.latent), self.condition(batch))
        )

    def judge(self, batch: Batch, *groups: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits (N,) and features of groups of pictures, all seen as one batch."""
        condition = self.condition(batch)
        if condition is not None:
            condition = condition.repeat(len(groups), 1)
        logits, features = self.nets["discriminator"](torch.cat(groups), condition)
        count = len(groups)
        return list(zip(logits.chunk(count), features.chunk(count), strict=True))

    # ---- Losses ----

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """-L_GAN of real, rebuilt and sampled pictures."""
        groups = (batch["images"], self.rebuilt(batch).detach(), self.fakes(batch).detach())
        (real, _), (rebuilt, _), (fake, _) = self.judge(batch, *groups)
        batch.observe(
            {"D(x)": real.sigmoid(), "D(x~)": rebuilt.sigmoid(), "D(G(z))": fake.sigmoid()}
        )
        return {
            "real": F.softplus(-real).mean(),
            "rebuilt": F.softplus(rebuilt).mean(),
            "sampled": F.softplus(fake).mean(),
        }

    def encoder_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """L_prior + L_llike, in nats a picture; nothing of the game."""
        mean, log_variance, _ = self.codes(batch)
        (_, true), (_, like) = self.judge(batch, batch["images"], self.rebuilt(batch))
        told = divergence(mean, log_variance)
        units = (told.detach().mean(0) > 0.01).float().sum()
        batch.observe({"active units": units})
        return {
            "divergence": self.config.beta * told.sum(1).mean(),
            "features": unlikeness(true, like).mean(),
        }

    def decoder_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """gamma L_llike - L_GAN; z is what the encoder said, which does not learn from this."""
        z, condition = self.codes(batch)[2].detach(), self.condition(batch)
        again = self.painted(z, condition)  # the graph of `rebuilt` went to the encoder
        groups = self.judge(batch, batch["images"], again, self.fakes(batch))
        (_, true), (rebuilt, like), (fake, _) = groups
        sides = [self.passed(logits) for logits in (rebuilt, fake)]
        return {
            "features": self.config.gamma * (true.detach() - like).square().mean(),
            "rebuilt": sides[0],
            "sampled": sides[1],
        }

    def passed(self, logits: Tensor) -> Tensor:
        """What the decoder lowers of pictures that should pass as real."""
        if self.config.loss == "minimax":
            return -F.softplus(logits).mean()  # log(1 - Dis)
        return F.softplus(-logits).mean()

    # ---- For the doctor ----

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return batch["images"]

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        if clock.examples < self._until(clock.total):
            return None  # nobody plays against the discriminator yet
        condition = self.condition(batch)
        fakes = self.painted(self.latents(batch.draws), condition)
        (real_logits, _), (fake_logits, _) = self.judge(batch, batch["images"], fakes)
        return Look(
            reals=batch["images"], fakes=fakes, real_logits=real_logits, fake_logits=fake_logits
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.judge(batch, batch["images"])[0][0]

    # ---- Use ----

    def affines(self) -> list[Tensor]:
        """The decoder's first layer, without what a condition adds."""
        weight = self.nets["decoder"].get_submodule("dense.linear").get_parameter("weight").detach()
        return [weight[:, : self.latent]]

    def painted(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return self.nets["decoder"](z, condition)

    def costs(
        self, x: Tensor, condition: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(x, condition)
        made = self.painted(drawn(mean, log_variance, noise), condition)
        judge = self.nets["discriminator"]
        true, like = judge(x, condition)[1], judge(made, condition)[1]
        return unlikeness(true, like), divergence(mean, log_variance).sum(1)

    @classmethod
    def compares(cls, config: Any) -> tuple[str, ...]:
        return ("perceptual", "l1", "psnr", "ssim_luma")


def unlikeness(true: Tensor, like: Tensor) -> Tensor:
    """-log N(true; like, I) of features (N, c, h, w) but for its constant, (N,), in nats."""
    return 0.5 * (true.detach() - like).square().flatten(1).sum(1)
