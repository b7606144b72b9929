"""SGAN: a classifier that learns from few labels and many pictures without.

Improved Techniques for Training GANs. Tim Salimans, Ian Goodfellow, Wojciech Zaremba, Vicki Cheung,
Alec Radford, Xi Chen. 2016. arXiv 1606.03498, sections 3.1 (feature matching), 5 (semi-supervised
learning), 6.1 and 6.2 (networks).

The discriminator tells K classes and, as class K + 1, fakes. Of K + 1 logits one is free, so that of
fakes is fixed at 0 (section 5). With l_k(x) the K others and

    Z(x) = sum_k exp l_k(x),    D(x) = Z(x) / (Z(x) + 1)    probability that x is real

the discriminator lowers

    L = E_labelled [log Z(x) - l_y(x)]                       the class, given that it is real
      + 1/2 E_unlabelled [softplus(log Z(x)) - log Z(x)]     -log D(x)
      + 1/2 E_z [softplus(log Z(G(z)))]                      -log (1 - D(G(z)))

and the generator matches the means of what the discriminator's last hidden layer f holds, equation (1):

    |E_unlabelled f(x) - E_z f(G(z))|^2

The generator's phase has pictures and noise of its own. The discriminator's layers are
weight-normalised, y = s V x / |V| + b (Salimans and Kingma 2016, arXiv 1602.07868), with s and b such
that y has mean 0 and deviation 1 in the first batch (its section 3). Classes are told with a moving
average of the weights, and without noise.

Two pairs of networks, with Adam of beta1 0.5 and batches of 100 labelled and 100 unlabelled pictures:
- dense, for small grey pictures (section 6.1, MNIST): the generator 100-500-500-pixels with softplus and
  batch normalisation, z uniform in [0, 1); the discriminator 1000-500-250-250-250-K with ReLU, and
  Gaussian noise on its input (0.3 where black is 0 and white 1) and after each hidden layer (0.5).
- convolutional, for others (section 6.2, CIFAR-10): nine layers with leaky ReLU 0.2, dropout of 0.2 on
  the input and 0.5 where pictures are halved, and a mean over all places; the generator of DCGAN's kind
  with four layers of 5x5 kernels.

Where this goes beyond the paper or leaves it:
- The feature distance is a mean over features, not a sum: Adam does not tell them apart.
- The scales s are learnt in all layers, and the generator's batch normalisation has gains; the released
  code learns the scale of the last layer alone, and has no gains.
- The average of the weights begins with the run and its half-life grows with it, so that short runs
  have one, too; the released code has a fixed decay of 1e-4 a step.
- Convolutional networks of pictures larger than 32 pixels halve (and double) more often.
- Noise and dropout are drawn with the batch, so that a resumed run is exact, and two processes draw
  what one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import PartlyLabelledData, check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import linear
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import base_size, cut, doublings

_DENSE_SIDE = 32
"""Grey pictures of up to so many pixels squared have dense networks, where the user does not say."""
_CONVOLUTIONAL_SIDE = 16
"""The least side of the convolutional networks."""

Noise = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class SGANConfig:
    """Settings of SGAN.

    Attributes:
        net: `dense` or `convolutional`; `auto`: dense for grey pictures of up to 32x32 pixels.
        latent: numbers in the noise vector z.
        hidden: units of the dense discriminator's hidden layers.
        generator_hidden: units of the dense generator's hidden layers.
        input_noise: deviation of the noise on the dense discriminator's input, black being 0, white 1.
        noise: deviation of the noise after each of its hidden layers.
        width: channels of the convolutional discriminator's first layers; later ones have twice as many.
        generator_width: channels of the convolutional generator next to the picture; they double
            with each halving of the resolution, up to four times as many.
        input_dropout: share of the convolutional discriminator's input that is dropped.
        dropout: share that is dropped where it halves pictures.
        unlabelled_weight: of the losses of unlabelled pictures and fakes, besides that of labels.
        lr: learning rate of both players where networks are dense; convolutional ones take a tenth
            of it, as the paper's do.
        lr_decay: `linear` lowers it to 0 over the run.
        beta1: Adam's first decay.
    """

    Data: ClassVar[type] = PartlyLabelledData

    net: Literal["auto", "dense", "convolutional"] = "auto"
    latent: int = 100
    hidden: str = "1000,500,250,250,250"
    generator_hidden: str = "500,500"
    input_noise: float = 0.3
    noise: float = 0.5
    width: int = 96
    generator_width: int = 128
    input_dropout: float = 0.2
    dropout: float = 0.5
    unlabelled_weight: float = 1.0
    lr: float = 3e-3
    lr_decay: Literal["none", "linear"] = "none"
    beta1: float = 0.5

    def __post_init__(self) -> None:
        check_range(
            self,
            latent=(1, 100_000),
            input_noise=(0, None),
            noise=(0, None),
            width=(1, 8192),
            generator_width=(1, 8192),
            input_dropout=(0, 0.99),
            dropout=(0, 0.99),
            unlabelled_weight=(0, None),
            lr=(0, None),
            beta1=(0, 0.9999),
        )
        for name in ("hidden", "generator_hidden"):
            units(getattr(self, name), name)


def units(text: str, name: str) -> list[int]:
    """Units of layers from `1000,500,250`.

    Raises:
        UserError: they are none.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(
            f"{name} cannot be '{text}'.", "Write the units of each layer: 1000,500,250."
        )
    return [int(word) for word in words]


# ---- Networks ----


class Normed(nn.Module):
    """y = s V x / |V| + b with a scale s, a direction V / |V| and a bias b for each output.

    Args:
        layer: `nn.Linear`, `nn.Conv2d` or `nn.ConvTranspose2d` without a bias, whose weight is V.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        assert layer.bias is None
        self.layer = layer
        self.axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        outputs = layer.weight.shape[self.axis]
        nn.init.normal_(layer.weight, 0.0, 0.1)
        self.scale = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def along(self, x: Tensor) -> Tensor:
        """V x / |V|."""
        others = [axis for axis in range(self.layer.weight.dim()) if axis != self.axis]
        length = self.layer.weight.square().sum(others).sqrt()
        return self.layer(x) / _broadcast(length, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.along(x) * _broadcast(self.scale, x) + _broadcast(self.bias, x)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Choose s and b such that y has mean 0 and deviation 1 over these inputs."""
        y = (
            self.along(x).transpose(0, 1).flatten(1)
        )  # an output's values at all pictures and places
        deviation = y.std(dim=1, correction=0).clamp(min=1e-6)
        self.scale.copy_(1.0 / deviation)
        self.bias.copy_(-y.mean(dim=1) / deviation)


def _broadcast(values: Tensor, x: Tensor) -> Tensor:
    """A number for each channel, (C,), in the shape that (N, C) or (N, C, H, W) asks for."""
    return values.view(-1, *[1] * (x.dim() - 2))


class Discriminator(nn.Module):
    """Pictures (N, C, H, W) in [-1, 1] and noise, or None, to K logits (N, K) and features (N, F)."""

    initialised: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def noise(self, draws: Draws) -> Noise:
        """What the layers are disturbed by, for each of the rows drawn for."""
        raise NotImplementedError

    @torch.no_grad()
    def initialise(self, x: Tensor, noise: Noise) -> None:
        """Choose scales and biases by what comes through the layers, the first one first."""

        def fit(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            assert isinstance(layer, Normed)
            layer.fit(*inputs)

        layers = [layer for layer in self.modules() if isinstance(layer, Normed)]
        hooks = [layer.register_forward_pre_hook(fit) for layer in layers]
        type(self).forward(self, x, noise)  # in float32, whatever the run's precision
        for hook in hooks:
            hook.remove()
        self.initialised.fill_(True)


class DenseDiscriminator(Discriminator):
    """Section 6.1: ReLU layers with Gaussian noise between them."""

    def __init__(self, config: SGANConfig, spec: Pictures) -> None:
        super().__init__()
        widths = [spec.channels * spec.height * spec.width, *units(config.hidden, "hidden")]
        self.widths = widths
        self.deviations = [config.input_noise, *[config.noise] * (len(widths) - 2)]
        self.hidden = nn.ModuleList(
            Normed(nn.Linear(wide, narrow, bias=False)) for wide, narrow in pairwise(widths)
        )
        self.classify = Normed(nn.Linear(widths[-1], len(spec.classes), bias=False))
        self.last = config.noise

    def noise(self, draws: Draws) -> Noise:
        deviations = [*self.deviations, self.last]
        return tuple(
            deviation * draws.normal(width)
            for deviation, width in zip(deviations, self.widths, strict=True)
        )

    def forward(self, x: Tensor, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        h = features = x.flatten(1).add(1.0).div(2.0)
        for index, layer in enumerate(self.hidden):
            if noise is not None:
                h = h + noise[index]
            h = features = F.relu(layer(h))
        if noise is not None:
            h = h + noise[-1]
        return self.classify(h), features


class ConvolutionalDiscriminator(Discriminator):
    """Section 6.2: blocks of three convolutions, the last of which halves; one of 3x3, two of 1x1.

    Pictures of 32 pixels are halved twice, larger ones until 8 to 15 pixels are left.
    """

    def __init__(self, config: SGANConfig, spec: Pictures) -> None:
        super().__init__()
        self.rates = (config.input_dropout, config.dropout)
        self.shapes = [spec.shape]
        blocks: list[nn.Module] = []
        channels, height, width = spec.shape
        for index in range(max(1, doublings(spec.height, spec.width) - 1)):
            wide = config.width if index == 0 else 2 * config.width
            blocks.append(
                nn.Sequential(
                    *_convolution(channels, wide),
                    *_convolution(wide, wide),
                    *_convolution(wide, wide, stride=2),
                )
            )
            channels, height, width = wide, -(-height // 2), -(-width // 2)
            self.shapes.append((channels, height, width))
        self.blocks = nn.ModuleList(blocks)
        last = 2 * config.width
        self.end = nn.Sequential(
            *_convolution(channels, last, padding=0),
            *_convolution(last, last, kernel=1, padding=0),
            *_convolution(last, last, kernel=1, padding=0),
        )
        self.classify = Normed(nn.Linear(last, len(spec.classes), bias=False))

    def noise(self, draws: Draws) -> Noise:
        rates = [self.rates[0], *[self.rates[1]] * len(self.blocks)]
        return tuple(
            (draws.uniform(*shape) >= rate) / (1.0 - rate)
            for rate, shape in zip(rates, self.shapes, strict=True)
        )

    def forward(self, x: Tensor, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        h = x if noise is None else x * noise[0]
        for index, block in enumerate(self.blocks):
            h = block(h)
            if noise is not None:
                h = h * noise[index + 1]
        features = self.end(h).mean(dim=(2, 3))
        return self.classify(features), features


def _convolution(
    narrow: int, wide: int, *, kernel: int = 3, stride: int = 1, padding: int = 1
) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(narrow, wide, kernel, stride=stride, padding=padding, bias=False)
    return Normed(layer), nn.LeakyReLU(0.2)


class DenseGenerator(nn.Module):
    """Noise (N, latent) to pictures (N, C, H, W) in [-1, 1]: softplus layers and a sigmoid."""

    def __init__(self, config: SGANConfig, spec: Pictures) -> None:
        super().__init__()
        widths = [config.latent, *units(config.generator_hidden, "generator_hidden")]
        self.shape = spec.shape
        self.hidden = nn.ModuleList(
            nn.Linear(narrow, wide, bias=False) for narrow, wide in pairwise(widths)
        )
        # A slope of 1 below 0: without an activation of its own.
        self.norms = nn.ModuleList(BatchNormAct2d(wide, 1.0) for wide in widths[1:])
        pixels = spec.channels * spec.height * spec.width
        self.paint = Normed(nn.Linear(widths[-1], pixels, bias=False))
        for layer in self.hidden:
            nn.init.normal_(layer.weight, 0.0, 0.05)  # pyright: ignore[reportArgumentType]

    def forward(self, z: Tensor) -> Tensor:
        h = z
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = F.softplus(norm(layer(h)[:, :, None, None])[:, :, 0, 0])
        return self.paint(h).sigmoid().mul(2.0).sub(1.0).unflatten(1, self.shape)


class ConvolutionalGenerator(nn.Module):
    """Noise (N, latent) to pictures (N, C, H, W) in [-1, 1]: 4x4 places, doubled by 5x5 kernels."""

    def __init__(self, config: SGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        self.size = (spec.height, spec.width)
        self.base = base_size(spec.height, spec.width, steps)  # `forward` crops what is over
        widths = [config.generator_width * min(4, 2**step) for step in reversed(range(steps))]
        project = nn.Linear(config.latent, widths[0] * self.base[0] * self.base[1], bias=False)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [_double(wide, narrow), BatchNormAct2d(narrow)]
        self.project, self.norm = project, BatchNormAct2d(widths[0])
        self.body = nn.Sequential(*layers)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.05)
        self.paint = Normed(_double(widths[-1], spec.channels))

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.project(z).unflatten(1, (-1, *self.base)))
        return cut(torch.tanh(self.paint(self.body(x))), self.size)


def _double(wide: int, narrow: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(wide, narrow, 5, stride=2, padding=2, output_padding=1, bias=False)


# ---- The game ----


class SGAN(Family[SGANConfig]):
    """A classifier by way of a GAN, of pictures of which some have a label."""

    Config = SGANConfig
    averaged = ("generator", "discriminator")
    half_life = 500_000.0
    partly_labelled = True
    classifies = True
    training: ClassVar = {"batch": 100}
    sizes: ClassVar = {
        "tiny": {
            **{"hidden": "250,120,60,60,60", "generator_hidden": "120,120"},
            **{"width": 24, "generator_width": 32},
        },
        "small": {
            **{"hidden": "500,250,120,120,120", "generator_hidden": "250,250"},
            **{"width": 48, "generator_width": 64},
        },
        "base": {
            **{"hidden": "1000,500,250,250,250", "generator_hidden": "500,500"},
            **{"width": 96, "generator_width": 128},
        },
        "large": {
            **{"hidden": "2000,1000,500,500,500", "generator_hidden": "1000,1000"},
            **{"width": 192, "generator_width": 256},
        },
    }

    def __init__(self, config: SGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if len(spec.classes) < 2:
            raise UserError(
                "sgan learns to tell classes, and these pictures have "
                f"{'one class' if spec.classes else 'no labels'}.",
                "Give some of them a class: --labels labels.csv (file,label), or --classes folders.",
            )
        self.dense = config.net == "dense" or (
            config.net == "auto"
            and spec.channels == 1
            and spec.height * spec.width <= _DENSE_SIDE**2
        )
        if not self.dense and min(spec.height, spec.width) < _CONVOLUTIONAL_SIDE:
            raise UserError(
                f"The convolutional sgan needs {_CONVOLUTIONAL_SIDE}x{_CONVOLUTIONAL_SIDE} pixels, and "
                f"these pictures have {spec.width}x{spec.height}.",
                "Add --net dense, or a larger --resolution.",
            )
        self.nets = {
            "generator": (DenseGenerator if self.dense else ConvolutionalGenerator)(config, spec),
            "discriminator": (DenseDiscriminator if self.dense else ConvolutionalDiscriminator)(
                config, spec
            ),
        }

    @classmethod
    def judged_by(cls, config: SGANConfig) -> tuple[str, ...]:
        return ("accuracy",)

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        config = self.config
        rate = config.lr if self.dense else config.lr / 10.0
        lr = linear(rate, 0.0) if config.lr_decay == "linear" else rate
        return {net: Adam(nets=(net,), lr=lr, betas=(config.beta1, 0.999)) for net in self.nets}

    def stages(self, total: int) -> Sequence[Stage]:
        judge = Phase(name="discriminator", nets=("discriminator",), loss=self.discriminator_loss)
        forge = Phase(name="generator", nets=("generator",), loss=self.generator_loss, fresh=True)
        return (Stage(name="adversarial", phases=(judge, forge)),)

    # ---- Losses ----

    def discriminator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Which class, and whether real. Section 5, the fake logit fixed at 0."""
        self.initialise(batch, clock)
        half = 0.5 * self.config.unlabelled_weight
        labels = batch["labels"].long()
        with torch.no_grad():
            forged = self.forge(batch.draws)
        labelled, *others = self.judged_together(
            (batch["labelled"], batch["images"], forged), batch.draws
        )
        real, fake = (logits.logsumexp(dim=1) for logits in others)
        batch.observe(
            {
                "D(x)": real.sigmoid(),
                "D(G(z))": fake.sigmoid(),
                "labels told": (labelled.argmax(dim=1) == labels).float(),
            }
        )
        return {
            "labelled": F.cross_entropy(labelled, labels),
            "unlabelled": half * (F.softplus(real) - real).mean(),
            "fake": half * F.softplus(fake).mean(),
        }

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The mean features of fakes are to be those of pictures. Equation (1)."""
        with torch.no_grad():
            wanted = batch.mean_row(self.judge(batch["images"], batch.draws)[1])
        found = batch.mean_row(self.judge(self.forge(batch.draws), batch.draws)[1])
        return {"features": (wanted - found).square().mean()}

    def initialise(self, batch: Batch, clock: Clock) -> None:
        """Before the first step: the discriminator's scales and biases, from the whole batch."""
        net = self.nets["discriminator"]
        assert isinstance(net, Discriminator)
        if clock.rounds == 0 and not net.initialised:
            noise = tuple(batch.gather(each) for each in net.noise(batch.draws))
            net.initialise(batch.gather(batch["images"]), noise)

    def judge(self, x: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and features (N, F); with noise where there are draws."""
        net = self.nets["discriminator"]
        assert isinstance(net, Discriminator)
        return net(x, None if draws is None else net.noise(draws))

    def judged_together(self, parts: Sequence[Tensor], draws: Draws) -> tuple[Tensor, ...]:
        """The logits (N, K) of several (N, C, H, W) in one pass, each with noise of its own."""
        net = self.nets["discriminator"]
        assert isinstance(net, Discriminator)
        noise = tuple(map(torch.cat, zip(*(net.noise(draws) for _ in parts), strict=True)))
        return net(torch.cat([*parts]), noise)[0].split([len(part) for part in parts])

    def evidence(self, x: Tensor, draws: Draws) -> Tensor:
        """log Z(x), (N,): the logit of D(x), with noise, as both players know it."""
        return self.judge(x, draws)[0].logsumexp(dim=1)

    def forge(self, draws: Draws) -> Tensor:
        """G(z)."""
        return self.nets["generator"](self.latents(draws))

    # ---- The doctor ----

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        return batch["images"]

    def examined(self, batch: Batch, clock: Clock) -> Look:
        reals, fakes = batch["images"], self.forge(batch.draws)
        return Look(
            reals=reals,
            fakes=fakes,
            real_logits=self.evidence(reals, batch.draws),
            fake_logits=self.evidence(fakes, batch.draws),
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return self.evidence(batch["images"], batch.draws)

    # ---- Using it ----

    def classify(self, x: Tensor) -> Tensor:
        return self.judge(x)[0].softmax(dim=1)

    def latents(self, draws: Draws) -> Tensor:
        return draws.uniform(self.config.latent)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        if truncation is not None:
            raise UserError(
                f"sgan draws z uniformly, which a truncation of {truncation} does not fit.",
                "Leave --truncation out.",
            )
        z = self.latents(draws) if latents is None else latents
        return self.nets["generator"](z).clamp(-1.0, 1.0)
