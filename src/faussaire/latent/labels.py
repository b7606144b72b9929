"""Labels for a model's samples: a small network learns from two folders, and says what samples show.

So a boundary in latent space needs no photograph's latent, and thousands of samples may teach it:
InterFaceGAN, arXiv 2005.09635, section 4.1, which has a classifier for each attribute likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import mix
from faussaire.core.device import Device
from faussaire.data.parallel import Progress
from faussaire.metrics.classifier import SmallResNet, answers, teach

STEPS = 300
"""Of training, on 128 pictures each."""
WIDTH = 16
"""Channels of its first layers."""


@dataclass(frozen=True)
class Lessons:
    """Pictures for `metrics.classifier`.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: (N,), 1 for those that have something and 0 for those that have not.
    """

    pixels: np.ndarray
    labels: np.ndarray
    name: str = "lessons"
    key: str = ""
    whole: bool = True
    classes: tuple[str, ...] = ("without", "with")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.pixels.shape[1], self.pixels.shape[2], self.pixels.shape[3]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """These pictures, uint8 (n, H, W, C)."""
        return self.pixels[np.asarray(rows)]


def taught(
    lessons: Lessons,
    *,
    device: Device,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SmallResNet, float]:
    """A classifier of two kinds of pictures, and its accuracy on a fifth that it was not taught.

    Args:
        lessons: at least some of both.
        device: where to train.
        steps: of training; None: STEPS.
        seed: of the split, the weights and the order.
        progress: called as progress(what, done, total).
    """
    rows = np.random.default_rng(mix(seed, "exam")).permutation(len(lessons))
    exam, rest = np.split(rows, [max(2, len(rows) // 5)])
    net = teach(
        lessons,
        2,
        rows=rest,
        steps=STEPS if steps is None else steps,
        width=WIDTH,
        device=device,
        seed=seed,
        progress=progress,
    )
    said = scored(net, device.put(lessons.read(exam)))
    return net, float(((said > 0) == (lessons.labels[exam] == 1)).mean())


def scored(net: torch.nn.Module, pictures: Tensor) -> np.ndarray:
    """What a classifier makes of pictures (N, C, H, W) in [-1, 1]: logits of having it, (N,)."""
    said = answers(net, pictures.split(256))  # pyright: ignore[reportArgumentType]
    return (said[:, 1] - said[:, 0]).float().numpy()
