"""Stacked digits: pictures whose modes are known, for every channel is a digit that can be read.

Luke Metz, Ben Poole, David Pfau, Jascha Sohl-Dickstein. 2016. "Unrolled generative adversarial
networks", arXiv 1611.02163; then VEEGAN (Srivastava et al. 2017, arXiv 1705.07761) and
PacGAN (Lin et al. 2018, arXiv 1712.04086, section 4.2), which counts 26,000 samples: three random
digits of MNIST are the channels of a picture, so there are 1,000 modes, and a classifier of digits
(`digits.py`) tells them apart. Two digits make 100 modes, which a CPU can learn.

The players are DCGAN's, without batch norm in the discriminator; the game is the one of the image
families (`game.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from faussaire.core.batch import mix
from faussaire.core.device import Device
from faussaire.core.family import Pictures
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.doctor.coverage import Coverage, tally
from faussaire.doctor.digits import CONFIDENT, Digits
from faussaire.doctor.modes import play, recipes
from faussaire.families.dcgan import DCGAN, DCGANConfig
from faussaire.metrics.pictures import Samples
from faussaire.nn.sizes import doublings

SAMPLES = 26_000
"""Samples that are judged, as PacGAN has them."""
BATCH = 64
GAMMA = 1.0
"""R3GAN's gamma for Stacked MNIST (table 5)."""
RECIPES: Mapping[str, Mapping[str, Any]] = recipes(gamma=GAMMA, penalty=10.0)
_AT_ONCE = 500


# ---- The pictures ----


class Stacks:
    """An endless stream of stacks: {"images": (n, H, W, k) uint8}, each channel a random digit."""

    def __init__(self, digits: Digits, rows: np.ndarray, count: int, *, seed: int) -> None:
        names = [str(channel) for channel in range(count)]
        self._stream = Stream(
            [{name: digits.images.pixels} for name in names], seed=seed, rows=[rows] * count
        )

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        return {"images": np.concatenate([*self._stream.read(position, count).values()], axis=3)}


# ---- Counting modes ----


def mode_of(told: np.ndarray, classes: int) -> np.ndarray:
    """Classes (N, k) of the digits of stacks -> the number (N,) of the mode, in [0, classes ** k)."""
    return told @ classes ** np.arange(told.shape[1])[::-1]


def shares(digits: Digits, count: int) -> np.ndarray:
    """(classes ** count,) of stacks of digits to learn from, by mode."""
    each = np.bincount(digits.labels[digits.taught], minlength=digits.classes) / len(digits.taught)
    return functools.reduce(np.multiply.outer, [each] * count).ravel()


def cover(told: np.ndarray, chances: np.ndarray, shares: np.ndarray, classes: int) -> Coverage:
    """Count the modes of stacks by what an eye told of them, (N, k) both.

    A stack touches a mode however it looks, as in the published counts; it is a good one where each
    of its digits is told with confidence.
    """
    return tally(
        mode_of(told, classes),
        chances.min(axis=1) >= CONFIDENT,
        shares,
        touching=np.ones(len(told), bool),
    )


# ---- The game ----


@dataclass(frozen=True, kw_only=True)
class StackedConfig(DCGANConfig):
    """Settings of a game on stacks, alike for all recipes: DCGAN's, with rates that fall to 0."""

    width: int = 32
    max_width: int = 256
    lr: float = 1e-3
    lr_decay: Literal["none", "linear"] = "linear"
    beta1: float = 0.0
    beta2: float = 0.99


class Judge(nn.Module):
    """DCGAN's discriminator without batch norm, under which a penalty on the gradient of one picture
    would be one on the others, too (Gulrajani et al. 2017, section 4)."""

    def __init__(self, config: DCGANConfig, spec: Pictures) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        widths = [min(config.max_width, config.width * 2**step) for step in range(steps)]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise([spec.channels, *widths]):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        end = (spec.height // 2**steps, spec.width // 2**steps)
        self.classify = nn.Linear(widths[-1] * end[0] * end[1], 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.classify(self.body(x).flatten(1)).squeeze(1)


class Stacked(DCGAN):
    """A GAN of stacks."""

    Config = StackedConfig

    def __init__(self, config: DCGANConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.nets["discriminator"] = Judge(config, spec)


def train(
    recipe: Mapping[str, Any],
    digits: Digits,
    count: int,
    *,
    examples: int,
    seed: int = 0,
    device: Device,
    told: Callable[[int], None] = lambda examples: None,
) -> State:
    """Train a recipe on stacks of so many digits.

    Args:
        told: called with the examples seen, now and then.
    """
    torch.manual_seed(mix(seed, "weights"))
    height, width = digits.images.resolution
    spec = Pictures(channels=count, height=height, width=width)
    state = State(Stacked(StackedConfig(**recipe), spec), device, total=examples)
    stream = Stacks(digits, digits.taught, count, seed=mix(seed, "order"))
    play(state, stream, batch=BATCH, seed=seed, told=told)
    return state


def samples(state: State, count: int = SAMPLES) -> np.ndarray:
    """Stacks (count, H, W, k) uint8 as users get samples: of the averaged generator."""
    with state.sampling(settle=True) as family:
        made = Samples(family, state.device.name, count, mix("stacks"))
        starts = range(0, count, _AT_ONCE)
        parts = [made.read(np.arange(count)[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate(parts)


def side_by_side(stacks: np.ndarray) -> np.ndarray:
    """Stacks (N, H, W, k) as grey pictures (N, H, k * W, 1), in which an eye reads each digit."""
    count, height, width, digits = stacks.shape
    return stacks.transpose(0, 1, 3, 2).reshape(count, height, digits * width, 1)
