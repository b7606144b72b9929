"""faststyle: photographs in the manner of one painting, each in a single pass.

Perceptual Losses for Real-Time Style Transfer and Super-Resolution. Justin Johnson, Alexandre Alahi, Li
Fei-Fei. 2016. arXiv 1603.08155.

A network f_W learns from a folder of photographs x what style transfer (Gatys et al. 2015) finds for
each by hundreds of steps: W moves to lower (equation 5)

    E_x [ lambda_c l_feat(f_W(x), x) + lambda_s l_style(f_W(x), y_s) + lambda_TV l_TV(f_W(x)) ]

through the eyes of a frozen network phi that knows natural pictures. l_feat compares maps of one layer
place by place (equation 2), l_style the Gram matrices of maps of several layers with those of the
painting y_s (equations 3 and 4), and l_TV keeps neighbouring pixels alike (section 3.2).

f_W (section 3.1 and the supplementary material): a 9x9 convolution to 32 channels, two that halve the
picture, five residual blocks of 128 channels without a rectifier after the sum (Gross and Wilber 2016),
two that double it, and a 9x9 convolution to a tanh. Adam with rate 1e-3, batches of 4, pictures of 256
pixels, two passes over 80,000 photographs (section 4.1).

Where this goes beyond the paper or leaves it:
- Instance normalisation in place of batch normalisation (Ulyanov, Vedaldi, Lempitsky 2016, arXiv
  1607.08022): a picture's contrast does not matter to its style. No bias stands before it, for it
  would be taken away again.
- Nearest neighbours and a convolution in place of a transposed convolution, whose overlapping kernels
  paint a chequered pattern (Odena, Dumoulin, Olah 2016, "Deconvolution and Checkerboard Artifacts").
- Every convolution mirrors the picture at its border; the paper mirrors 40 pixels around the whole.
- phi looks through a window that shifts by up to three pixels from batch to batch (as in
  `families/styletransfer.py`): f_W would else paint a grid where phi looks at every second pixel only.
- phi is VGG-19 with the layers that figure 2 names in VGG-16, or SqueezeNet 1.1 where that is not here.
- The terms are measured by the content's and the style's own (`losses.style_loss`), so that weights mean
  the same for both networks; weights are averaged over the last steps.

A checkpoint holds the painting's Gram matrices: a run goes on, bit for bit, although the painting is
gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws, mix
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.metrics.maps import FeatureMaps, Recipe, proved, settled
from faussaire.nn.degrade import rgb
from faussaire.nn.fused import InstanceNormAct2d
from faussaire.nn.sizes import cut, mirrored, multiple_of
from faussaire.originals import no_larger, read_picture

LEAST_SIGHT = 32
"""Pixels of the smaller side that the frozen networks are shown at least."""

SHIFT = 3
"""Pixels by which their window on a picture shifts at most."""

#: By network. SqueezeNet's layers were chosen by eye.
RECIPES = {
    "vgg19": Recipe(
        content={"relu3_3": 1.0},
        style=dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 0.25),
        pool="max",
    ),
    "squeezenet1.1": Recipe(
        content={"fire4": 1.0},
        style={
            "relu1": 0.5,
            "fire2": 0.25,
            "fire3": 0.25,
            "fire4": 0.2,
            "fire5": 0.2,
            "fire7": 0.1,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class FastStyleConfig:
    """Settings of faststyle.

    Attributes:
        style: the painting, a file.
        style_size: pixels of its shorter side when its manner is taken: more makes strokes larger.
            None: as photographs are trained on. It is never enlarged.
        content_weight: lambda_c.
        style_weight: lambda_s.
        tv_weight: lambda_TV, of the total variation with pixels in [-1, 1].
        perceptual: the frozen network; `auto`: VGG-19 where its file (550 MB) is here or can be
            downloaded, else SqueezeNet 1.1 (5 MB). FAUSSAIRE_WEIGHTS names copies.
        perceptual_weights: fingerprint of its weights, which a run that goes on must find again; None:
            filled in as a run begins.
        width: channels of the first layer; the residual blocks have four times as many.
        blocks: residual blocks.
        lr: Adam's learning rate.
        beta1, beta2: of Adam.
    """

    style: Path | None = None
    style_size: int | None = None
    content_weight: float = 1.0
    style_weight: float = 3.0
    tv_weight: float = 1.0
    perceptual: Literal["auto", "vgg19", "squeezenet1.1"] = "auto"
    perceptual_weights: str | None = None
    width: int = 32
    blocks: int = 5
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_range(
            self,
            content_weight=(0, None),
            style_weight=(0, None),
            tv_weight=(0, None),
            width=(1, 1024),
            blocks=(0, 100),
            lr=(0, None),
            beta1=(0, 0.9999),
            beta2=(0, 0.999999),
        )
        if self.style_size is not None:
            check_range(self, style_size=(16, 8192))
        if self.style is not None:  # means the same when the run goes on from elsewhere
            object.__setattr__(self, "style", self.style.expanduser().absolute())


# ---- The network ----


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that mirrors the picture at its border; a normalisation follows."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride,
        padding=kernel // 2,
        padding_mode="reflect",
        bias=False,
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside which x passes, (N, C, H, W) to the same; no rectifier at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels, 3),
            InstanceNormAct2d(channels),
            convolution(channels, channels, 3),
            InstanceNormAct2d(channels, 1.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Double(nn.Module):
    """Twice the size by repeated pixels, and a 3x3 convolution: (N, C, H, W) to (N, C', 2 H, 2 W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, 3)
        self.norm = InstanceNormAct2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))


class TransformNet(nn.Module):
    """f_W: pictures (N, 3, H, W) of any size to pictures (N, 3, H, W) in [-1, 1]."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")
        self.body = nn.Sequential(
            convolution(3, width, 9),
            InstanceNormAct2d(width),
            convolution(width, 2 * width, 3, 2),
            InstanceNormAct2d(2 * width),
            convolution(2 * width, 4 * width, 3, 2),
            InstanceNormAct2d(4 * width),
            *(Residual(4 * width) for _ in range(blocks)),
            Double(4 * width, 2 * width),
            Double(2 * width, width),
            last,
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        least = max(size[0], 8), max(size[1], 8)  # mirrored borders need pixels to mirror
        return cut(self.body(mirrored(x, multiple_of(*least, 4))), size)


# ---- The training ----


class FastStyle(Family[FastStyleConfig]):
    """A network for the manner of one painting, from photographs of any size from 16x16 up.

    Attributes:
        maps: the frozen network, opened when a state is made.
    """

    Config = FastStyleConfig
    applies = True
    panels = ("photograph", "what becomes of it")
    adversarial = False
    averaged = ("transformer",)
    tiles = False  # instance normalisation sees whole pictures: tiles would differ in tone
    least_side = 16
    training: ClassVar = {
        "batch": 4,
        "resolution": 256,
        "margin": 0.12,
        "flip": True,
        "holdout": 0.05,
    }
    presets: ClassVar = {
        # Two passes over COCO's photographs.
        "paper": {"perceptual": "vgg19", "width": 32, "blocks": 5, "examples": 160_000}
    }
    sizes: ClassVar = {
        "tiny": {"width": 8, "blocks": 3},
        "small": {"width": 16, "blocks": 5},
        "base": {"width": 32, "blocks": 5},
        "large": {"width": 64, "blocks": 8},
    }

    def __init__(self, config: FastStyleConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if min(spec.height, spec.width) < self.least_side:
            raise UserError(
                f"faststyle needs pictures of at least 16x16, not {spec.width}x{spec.height}.",
                "Choose a larger --resolution; small pictures are enlarged.",
            )
        if config.style is None:
            raise UserError(
                "faststyle learns the manner of one painting, and none was given.",
                "Name its file: --style painting.jpg",
            )
        self.nets = {"transformer": TransformNet(config.width, config.blocks)}
        self.maps: FeatureMaps | None = None
        self._grams: dict[str, Tensor] = {}

    @classmethod
    def makes(cls, config: FastStyleConfig, channels: int) -> int:
        return 3

    @property
    def takes(self) -> int:
        return 3  # a painting has colours, whatever the photographs are

    @property
    def gives(self) -> int:
        return 3

    # ---- The frozen network and the painting ----

    @classmethod
    def completed(
        cls, config: FastStyleConfig, progress: Callable[[str, int, int], None]
    ) -> FastStyleConfig:
        name, weights = settled(config.perceptual, config.perceptual_weights, RECIPES, progress)
        return dataclasses.replace(config, perceptual=name, perceptual_weights=weights)

    @property
    def recipe(self) -> Recipe:
        """How the frozen network is looked through."""
        return RECIPES[self.config.perceptual]

    def frozen(self) -> Mapping[str, nn.Module]:
        if self.maps is None:
            config = self.config
            self.maps = proved(config.perceptual, config.perceptual_weights, self.recipe)
        return {"maps": self.maps}

    def begin(self) -> None:
        if not self._grams:
            self.learn(self._painting())

    def _painting(self) -> Tensor:
        """The painting as its manner is taken, (1, 3, H, W) in [-1, 1].

        Raises:
            UserError: its file is missing or damaged.
        """
        assert self.config.style is not None
        size = self.config.style_size or min(self.spec.height, self.spec.width)
        return no_larger(read_picture(self.config.style).tensor, size)

    @torch.no_grad()
    def learn(self, painting: Tensor) -> None:
        """Take the manner of a painting, (1, 3, H, W) in [-1, 1]: its Gram matrices, (1, C, C) each."""
        assert self.maps is not None
        maps = self.seen(painting.to(self.maps.mean.device))
        self._grams = {name: losses.gram(maps[name]) for name in self.recipe.style}

    def seen(self, x: Tensor, down: int = 0, right: int = 0) -> dict[str, Tensor]:
        """Maps of pictures (N, 3, H, W) by layer, seen through a window shifted by some pixels.

        Small pictures are enlarged, or nothing would be left of them.
        """
        assert self.maps is not None
        factor = LEAST_SIGHT / min(x.shape[2:])
        if factor > 1.0:
            size = [max(LEAST_SIGHT, round(side * factor)) for side in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        edges = (right, SHIFT - right, down, SHIFT - down)
        return self.maps(F.pad(x, edges, mode="reflect"))

    def _mark(self) -> Tensor:
        """A number for all settings that decide the Gram matrices, ()."""
        config = self.config
        what = (config.style, config.style_size, config.perceptual, config.perceptual_weights)
        return torch.tensor(mix(repr(what), repr(self.recipe)))

    def extra_state(self) -> dict[str, Tensor]:
        self.begin()
        return {"mark": self._mark(), **{f"gram.{name}": g for name, g in self._grams.items()}}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        # Of another painting, which the user has asked for since, they are of no use.
        if "mark" in state and int(state["mark"]) == int(self._mark()):
            self._grams = {
                name.removeprefix("gram."): value
                for name, value in state.items()
                if name.startswith("gram.")
            }

    # ---- The training ----

    def optimisers(self) -> dict[str, OptimiserSpec]:
        lr = self.config.lr
        return {
            "transformer": Adam(
                nets=("transformer",), lr=lr, betas=(self.config.beta1, self.config.beta2)
            )
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        paint = Phase(name="style", nets=("transformer",), loss=self.loss)
        return (Stage(name="style", phases=(paint,)),)

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Equation 5: its terms, each with its weight."""
        config, recipe = self.config, self.recipe
        self.begin()  # where a run is only rehearsed, nobody else has done so
        x = rgb(batch["images"])
        y = self.nets["transformer"](x)
        # Of the instant alone: the same for all processes, and for the parts of a batch.
        down, right = divmod(mix("window", clock.examples) % (SHIFT + 1) ** 2, SHIFT + 1)
        maps = self.seen(y, down, right)
        terms = {}
        if config.content_weight:
            with torch.no_grad():
                targets = self.seen(x, down, right)
            content = losses.content_loss(maps, targets, recipe.content)  # equation 2
            terms["content"] = config.content_weight * content
        if config.style_weight:
            grams = {name: losses.gram(maps[name]) for name in recipe.style}  # equation 3
            style = losses.style_loss(grams, self._grams, recipe.style)  # equation 4
            terms["style"] = config.style_weight * style
        variation = losses.total_variation(y)
        batch.observe({"variation": variation})
        if config.tv_weight:
            terms["tv"] = config.tv_weight * variation
        return terms

    # ---- Use ----

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """Photographs, and what becomes of them."""
        x = rgb(batch["images"])
        return x, self.apply(x, batch.draws)

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        return self.nets["transformer"](x).clamp(-1.0, 1.0)
