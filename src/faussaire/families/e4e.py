"""e4e: an encoder from pictures to the latents of a trained generator, for instant inversion.

Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation (pSp). Elad Richardson, Yuval
Alaluf, Or Patashnik, Yotam Nitzan, Yaniv Azar, Stav Shapiro, Daniel Cohen-Or. 2021. arXiv 2008.00951.
Designing an Encoder for StyleGAN Image Manipulation (e4e). Omer Tov, Yuval Alaluf, Yotam Nitzan, Or
Patashnik, Daniel Cohen-Or. 2021. arXiv 2102.02766.

The generator G stands still; an encoder E learns codes E(x) in W+ such that G(E(x)) looks like x. A
pyramid of features (pSp, section 3) gives coarse, middle and fine layers theirs from three resolutions,
each by a small convolutional head. Codes are w + Delta_i with one w for all layers, and relative to the
mean of W (pSp, equation 1). The encoder lowers

    L = lambda_2 |x - G(E(x))|^2 + lambda_lpips LPIPS(x, G(E(x)))       pixels and perception (pSp)
      + lambda_d sum_i |Delta_i|^2 + lambda_adv L_adv                   closeness to W (e4e)

A code that is close to W can be edited, and e4e pays for it in two ways: the Delta_i cost something
and are let go one after another, from coarse to fine ("progressive training"), and a critic on w, which
knows what the mapping makes of noise, judges each layer's code (non-saturating, with lazy R1).

Where this leaves the papers:
- Any generator with a latent: those without W get one code in z, without Delta.
- Pictures are small here, so the backbone is a residual network of the pyramid's own size in place of
  ResNet-50 with weights of face recognition, and Adam stands in place of Ranger.
- There is no identity loss: it needs a network that was trained to tell faces (or MoCo features), and
  there is none to download that everybody may use.
- The perceptual distance is that of `latent/likeness.py` in place of LPIPS.
- The offsets are let go between two shares of the run, not at counted steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.state import settling_draws
from faussaire.latent.likeness import LAYERS, Likeness, pixels, psnr
from faussaire.latent.space import Space
from faussaire.metrics.maps import FeatureMaps, Recipe, proved, settled
from faussaire.nn.equal import EqualConv2d, EqualLinear
from faussaire.nn.sizes import doublings
from faussaire.restoring import fingerprint, restore

ROOT2 = math.sqrt(2.0)
RECIPES = {
    name: Recipe(content=dict.fromkeys(layers, 1.0), style={}, pool="max")
    for name, layers in LAYERS.items()
}


@dataclass(frozen=True, kw_only=True)
class E4EConfig:
    """Settings of e4e.

    Attributes:
        generator: the run of the generator, or one of its checkpoints.
        generator_weights: fingerprint of its weights, which whoever uses the encoder must find again;
            None: filled in as a run begins, as are the next three.
        pictures: the size of its pictures, CHANNELSxHEIGHTxWIDTH.
        layers: codes of a picture: in W+ as many as the generator has layers.
        numbers: in a code.
        space: `w+`, `w` or `z`; auto: w+ where the generator has it, else z.
        l2_weight: lambda_2, of the mean squared difference of pixels in [-1, 1].
        perceptual_weight: lambda_lpips.
        delta_weight: lambda_d; 0: pSp.
        adversarial_weight: lambda_adv of the critic on codes; 0: none.
        r1: gamma of the critic's R1.
        penalty_every: rounds between its penalties.
        offsets_from, offsets_until: shares of the run at which the first and the last of the Delta_i
            are let go.
        perceptual: the frozen network; `auto`: vgg19 where its file is here or can be downloaded, else
            squeezenet1.1; `none`: pixels alone.
        perceptual_weights: fingerprint of its weights; None: filled in as a run begins.
        width: channels of the encoder at full resolution; they double with each halving.
        max_width: where the doubling ends.
        critic_width: of the critic's four layers.
        lr: Adam's rate, of the encoder.
        critic_lr: of the critic.
        beta1, beta2: of Adam.
    """

    generator: Path | None = None
    generator_weights: str | None = None
    pictures: str | None = None
    layers: int | None = None
    numbers: int | None = None
    space: Literal["auto", "w+", "w", "z"] = "auto"
    l2_weight: float = 1.0
    perceptual_weight: float = 0.8
    delta_weight: float = 2e-4
    adversarial_weight: float = 0.1
    r1: float = 10.0
    penalty_every: int = 16
    offsets_from: float = 0.1
    offsets_until: float = 0.5
    perceptual: Literal["auto", "vgg19", "squeezenet1.1", "none"] = "auto"
    perceptual_weights: str | None = None
    width: int = 32
    max_width: int = 256
    critic_width: int = 256
    lr: float = 1e-3
    critic_lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_range(
            self,
            l2_weight=(0, None),
            perceptual_weight=(0, None),
            delta_weight=(0, None),
            adversarial_weight=(0, None),
            r1=(0, None),
            penalty_every=(1, 1000),
            offsets_from=(0, 1),
            offsets_until=(0, 1),
            width=(1, 8192),
            max_width=(1, 65_536),
            critic_width=(1, 65_536),
            lr=(0, None),
            critic_lr=(0, None),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
        )
        if self.generator is not None:  # means the same when the run goes on from elsewhere
            object.__setattr__(self, "generator", self.generator.expanduser().absolute())


# ---- Networks ----


def leaky(x: Tensor) -> Tensor:
    """The activation, whose gain is in the weights."""
    return F.leaky_relu(x, 0.2)


class Halving(nn.Module):
    """Half the size beside an averaged shortcut: (N, in, H, W) to (N, out, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.look = EqualConv2d(inputs, inputs, 3, gain=ROOT2)
        self.narrow = EqualConv2d(inputs, outputs, 3, stride=2)
        self.shortcut = EqualConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky(self.narrow(leaky(self.look(x))))
        short = self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))
        return (y + short) / ROOT2


class Head(nn.Module):
    """One layer's code from one level of the pyramid: pSp's map2style."""

    def __init__(self, channels: int, size: tuple[int, int], numbers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while min(size) > 4:
            layers += [EqualConv2d(channels, channels, 3, gain=ROOT2, stride=2), nn.LeakyReLU(0.2)]
            size = (-(-size[0] // 2), -(-size[1] // 2))
        self.body = nn.Sequential(*layers)
        self.dense = EqualLinear(channels * size[0] * size[1], numbers)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.body(x).flatten(1))


class Encoder(nn.Module):
    """Pictures (N, C, H, W) to codes (N, layers, numbers), relative to the mean, in deviations.

    The first is w, the others Delta_i.
    """

    def __init__(self, config: E4EConfig, spec: Pictures) -> None:
        super().__init__()
        assert config.layers is not None
        assert config.numbers is not None
        steps = doublings(spec.height, spec.width)
        widths = [min(config.width * 2**step, config.max_width) for step in range(steps + 1)]
        sizes = [(spec.height, spec.width)]
        for _ in range(steps):
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
        self.look = EqualConv2d(spec.channels, widths[0], 3, gain=ROOT2)
        self.body = nn.ModuleList(Halving(wide, narrow) for wide, narrow in pairwise(widths))
        # Coarse layers look at the deepest level, fine ones at the shallowest of up to three.
        self.depth = min(3, steps + 1)
        levels = [*range(steps, steps - self.depth, -1)]
        inner = widths[-1]
        self.lateral = nn.ModuleList(EqualConv2d(widths[level], inner, 1) for level in levels)
        self.levels = levels
        self.of = [
            min(self.depth - 1, row * self.depth // config.layers) for row in range(config.layers)
        ]
        self.heads = nn.ModuleList(
            Head(inner, sizes[levels[place]], config.numbers) for place in self.of
        )

    def forward(self, x: Tensor) -> Tensor:
        x = leaky(self.look(x))
        found = [x]
        for layer in self.body:
            found.append(x := layer(x))
        pyramid: list[Tensor] = []
        for lateral, level in zip(self.lateral, self.levels, strict=True):
            y = lateral(found[level])
            if pyramid:
                above = F.interpolate(
                    pyramid[-1], y.shape[2:], mode="bilinear", align_corners=False
                )
                y = (y + above) / ROOT2
            pyramid.append(y)
        codes = [head(pyramid[place]) for head, place in zip(self.heads, self.of, strict=True)]
        return torch.stack(codes, dim=1)


class CodeCritic(nn.Module):
    """Codes (N, numbers), in deviations from the mean, to logits (N,)."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        sizes = [numbers, width, width, width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [EqualLinear(inputs, outputs, gain=ROOT2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, EqualLinear(width, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.body(w).squeeze(1)


# ---- The family ----


class E4E(Family[E4EConfig]):
    """An encoder for a trained generator.

    Attributes:
        target: the generator, opened when a state is made, or a picture encoded.
        maps: the frozen network of the perceptual distance, likewise.
    """

    Config = E4EConfig
    applies = True
    panels = ("picture", "what the generator makes of its code")
    adversarial = False
    averaged = ("encoder",)
    tiles = False
    least_side = 16
    training: ClassVar = {"batch": 8}
    presets: ClassVar = {
        # Without what e4e adds: closer to the picture, less willing to be edited.
        "psp": {
            "delta_weight": 0.0,
            "adversarial_weight": 0.0,
            "offsets_from": 0.0,
            "offsets_until": 0.0,
        }
    }
    sizes: ClassVar = {
        "tiny": {"width": 16, "max_width": 64, "critic_width": 64},
        "small": {"width": 32, "max_width": 256},
        "base": {"width": 64, "max_width": 512, "critic_width": 512},
        "large": {"width": 128, "max_width": 512, "critic_width": 512},
    }

    def __init__(self, config: E4EConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if config.generator is None:
            raise UserError(
                "e4e learns to encode for a trained generator, and none was given.",
                "Name its run: --generator runs/stylegan2-photos",
            )
        if config.layers is None or config.numbers is None:
            raise UserError(
                "e4e does not know how many numbers its generator takes.",
                "Begin the run with faussaire train, or faussaire.train, which finds out.",
            )
        if config.pictures is not None and config.pictures != _shape(spec):
            channels, height, width = config.pictures.split("x")
            kind = {"1": "grey", "3": "rgb", "4": "rgba"}[channels]
            raise UserError(
                f"The generator makes pictures of {config.pictures} (channels, height, width), and "
                f"these are of {_shape(spec)}.",
                f"Add --resolution {width}x{height} --channels {kind}",
            )
        self.nets = {"encoder": Encoder(config, spec)}
        if config.adversarial_weight:
            self.nets["critic"] = CodeCritic(config.numbers, config.critic_width)
        self.target: Family[Any] | None = None
        self.maps: FeatureMaps | None = None
        self._space: Space | None = None

    @classmethod
    def makes(cls, config: E4EConfig, channels: int) -> int:
        return channels

    # ---- What stands still ----

    @classmethod
    def completed(cls, config: E4EConfig, progress: Callable[[str, int, int], None]) -> E4EConfig:
        found: dict[str, Any] = {}
        if config.perceptual != "none":
            name, weights = settled(config.perceptual, config.perceptual_weights, RECIPES, progress)
            found |= {"perceptual": name, "perceptual_weights": weights}
        if config.generator is not None and config.generator_weights is None:
            target = _opened(config.generator)
            name = config.space
            if name == "auto":
                name = "w+" if "w+" in target.family.spaces else "z"
            space = Space(target.family, name)
            if space.conditional:
                raise UserError(
                    f"'{config.generator}' has classes, and an encoder would have to guess them.",
                    "Train one for an unconditional generator.",
                )
            found |= {
                "space": name,
                "generator_weights": _fingerprint(target.family),
                "pictures": _shape(target.spec),
                "layers": space.layers,
                "numbers": space.width,
            }
        return dataclasses.replace(config, **found)

    def prove(self, generator: Family[Any]) -> None:
        """Take a generator for the one that the encoder was trained for.

        Args:
            generator: with averaged weights, in evaluation mode, where it is to run.

        Raises:
            UserError: it is another.
        """
        known = self.config.generator_weights
        if known is not None and _fingerprint(generator) != known:
            raise UserError(
                "The encoder was trained for another generator, or for this one before it learnt more.",
                "Give the run and the checkpoint that it was trained for, or train an encoder anew.",
            )
        self.target, self._space = generator, None

    def frozen(self) -> Mapping[str, nn.Module]:
        """The generator, and the perceptual distance's network."""
        if self.target is None:
            assert self.config.generator is not None
            self.prove(_opened(self.config.generator).family)
        assert self.target is not None
        nets = {f"target.{name}": self.target.nets[name].eval() for name in self.target.averaged}
        for net in nets.values():
            net.requires_grad_(False)
        config = self.config
        if self.maps is None and config.perceptual != "none":
            recipe = RECIPES[config.perceptual]
            self.maps = proved(config.perceptual, config.perceptual_weights, recipe)
        return nets if self.maps is None else {**nets, "maps": self.maps}

    def _where(self, device: torch.device) -> Space:
        """The generator's space, on a device."""
        if self.target is None:  # a model that was loaded has it from now on
            for net in self.frozen().values():
                net.to(device)
        assert self.target is not None
        if self._space is None or self._space.device != str(device):
            self._space = Space(self.target, self.space, device=str(device))
        return self._space

    @property
    def space(self) -> str:
        """Where the codes are."""
        return "w+" if self.config.space == "auto" else self.config.space

    # ---- Codes ----

    def codes(self, x: Tensor, clock: Clock | None = None) -> Tensor:
        """Codes (N, layers, numbers) of pictures (N, C, H, W) as the generator's own are.

        Args:
            x: in [-1, 1].
            clock: in training, the instant, of which the offsets let go depend.
        """
        space = self._where(x.device)
        w, delta = self._parts(x, clock)
        each = space.spread.sigma / math.sqrt(space.width)
        return space.spread.mean + each * (w[:, None] + delta)

    def _parts(self, x: Tensor, clock: Clock | None) -> tuple[Tensor, Tensor]:
        """w (N, numbers) and Delta (N, layers, numbers), in deviations; the first Delta is 0."""
        found = self.nets["encoder"](x)
        free = self.free(clock)
        kept = (torch.arange(found.shape[1], device=x.device) < free).float()
        kept[0] = 0.0
        return found[:, 0], found * kept[:, None]

    def free(self, clock: Clock | None) -> int:
        """Layers that have a code of their own: 1 at first, and in the end all."""
        assert self.config.layers is not None
        if clock is None:
            return self.config.layers
        begin, end = self.config.offsets_from, self.config.offsets_until
        if clock.progress < begin:
            return 1
        share = 1.0 if end <= begin else min(1.0, (clock.progress - begin) / (end - begin))
        return 1 + math.ceil(share * (self.config.layers - 1))

    # ---- The training ----

    def optimisers(self) -> dict[str, OptimiserSpec]:
        config = self.config
        found: dict[str, OptimiserSpec] = {
            "encoder": Adam(nets=("encoder",), lr=config.lr, betas=(config.beta1, config.beta2))
        }
        if "critic" in self.nets:
            found["critic"] = Adam(nets=("critic",), lr=config.critic_lr, betas=(0.0, 0.99))
        return found

    def stages(self, total: int) -> tuple[Stage, ...]:
        phases = [Phase(name="encoder", nets=("encoder",), loss=self.loss)]
        if "critic" in self.nets:
            every = self.config.penalty_every
            phases.insert(0, Phase(name="critic", nets=("critic",), loss=self.critic_loss))
            if self.config.r1:
                phases.insert(
                    1, Phase(name="penalty", nets=("critic",), loss=self.penalty, every=every)
                )
        return (Stage(name="encoder", phases=tuple(phases)),)

    def _encoded(self, batch: Batch, clock: Clock) -> tuple[Tensor, Tensor]:
        return batch.shared("codes", lambda: self._parts(batch["images"], clock))

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """pSp's terms, and e4e's."""
        config, x = self.config, batch["images"]
        space = self._where(x.device)
        w, delta = self._encoded(batch, clock)
        each = space.spread.sigma / math.sqrt(space.width)
        codes = space.spread.mean + each * (w[:, None] + delta)
        made = space.render(codes)
        terms = {"l2": config.l2_weight * pixels(made, x).mean()}
        likeness = Likeness(self.maps)
        if self.maps is not None and config.perceptual_weight:
            with torch.no_grad():
                wanted = likeness.seen(x)
            apart = likeness.perceptual(likeness.seen(made), wanted).mean()
            terms["perceptual"] = config.perceptual_weight * apart
        if config.delta_weight and codes.shape[1] > 1:
            # Of codes as they are, not in deviations, summed over layers.
            size = (each * delta).square().sum(2).sum(1)
            terms["delta"] = config.delta_weight * size.mean()
        if "critic" in self.nets:
            rows = (w[:, None] + delta)[:, : self.free(clock)].flatten(0, 1)
            judged = losses.generator_nonsaturating(self.nets["critic"](rows))
            terms["adversarial"] = config.adversarial_weight * judged
        batch.observe({"psnr": psnr(made.detach().clamp(-1.0, 1.0), x)})
        return terms

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Codes that the mapping makes against those of the encoder."""
        with torch.no_grad():
            real = self._drawn(batch)
        w, delta = self._encoded(batch, clock)
        rows = (w[:, None] + delta)[:, : self.free(clock)].flatten(0, 1).detach()
        critic = self.nets["critic"]
        return {"adversarial": losses.discriminator_minimax(critic(real), critic(rows))}

    def penalty(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """R1 at the mapping's codes."""
        critic = self.nets["critic"]
        with torch.no_grad():
            real = self._drawn(batch)
        return {"r1": self.config.r1 * losses.zero_centred_penalty(critic, real)}  # pyright: ignore

    def _drawn(self, batch: Batch) -> Tensor:
        """What the mapping makes of noise, (N, numbers), in deviations."""
        space = self._where(batch["images"].device)
        z = space.family.latents(batch.draws)
        assert z is not None
        each = space.spread.sigma / math.sqrt(space.width)
        return (space.of_z(z, None)[:, 0] - space.spread.mean) / each

    # ---- Use ----

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """Pictures, and what the generator makes of their codes."""
        x = batch["images"]
        return x, self.apply(x, batch.draws)

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """What the generator makes of the codes of pictures of any size."""
        size = (self.spec.height, self.spec.width)
        small = x if x.shape[2:] == size else _resized(x, size)
        made = self._where(x.device).render(self.codes(small)).clamp(-1.0, 1.0)
        return made if x.shape[2:] == size else _resized(made, (x.shape[2], x.shape[3]))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _shape(spec: Pictures) -> str:
    return "x".join(map(str, spec.shape))


def _opened(path: Path) -> Any:
    """A generator from its run, in evaluation mode.

    Raises:
        UserError: there is none, or it has no latents.
    """
    found = restore(path)
    for net in found.family.nets.values():
        net.eval().requires_grad_(False)
    with torch.no_grad():
        found.family.settle(settling_draws("cpu"))
    return found


def _fingerprint(generator: Family[Any]) -> str:
    return fingerprint({name: generator.nets[name] for name in generator.averaged})
