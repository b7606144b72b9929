"""Classification accuracy score: a classifier learns from samples alone and is tested on real pictures.

Ravuri and Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models", arXiv
1905.10887. A model that drops part of a class, or draws it where it is not, teaches worse than real
pictures do, which the accuracy of the same classifier taught by real pictures shows beside it. The
paper trains a ResNet-50 on ImageNet; pictures here are of any kind and machines small, so it is a
residual network of eight layers and a thousand steps, and the figure says so in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import mix
from faussaire.core.device import Device
from faussaire.metrics.pictures import PictureSet, shuffled_rows

STEPS = 1000
BATCH = 128
_SIDE = 64  # larger pictures are shrunk to this
_TEST = 10_000
_ASKED = 256  # pictures at once
_RATE = 0.1

Progress = Callable[[str, int, int], None]


class _Block(nn.Module):
    """A residual block (He 2016, arXiv 1603.05027): norm, ReLU, convolution, twice."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(wide)
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(narrow, wide, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm1(x))
        out = self.conv2(F.relu(self.norm2(self.conv1(ready))))
        return out + self.skip(ready)


class SmallResNet(nn.Module):
    """Eight layers: (N, C, H, W) in [-1, 1] -> (N, classes) logits."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            _Block(width, width, 2),
            _Block(width, 2 * width, 2),
            _Block(2 * width, 4 * width, 2),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def teach(
    lessons: PictureSet,
    classes: int,
    *,
    rows: np.ndarray | None = None,
    steps: int | None = None,
    width: int = 32,
    device: Device,
    seed: int = 0,
    what: str = "classifier",
    progress: Progress | None = None,
) -> SmallResNet:
    """A classifier that has learned from labelled pictures, in evaluation mode.

    Args:
        lessons: labelled pictures.
        classes: how many there are.
        rows: the pictures to learn from; None: all.
        steps: of training, on BATCH pictures each; None: STEPS.
        width: channels of the first layers.
        device: where to train.
        seed: of weights and order.
        what: for the progress bar.
        progress: called as progress(what, done, total).
    """
    rows = np.arange(len(lessons)) if rows is None else rows
    steps = STEPS if steps is None else steps
    assert lessons.labels is not None
    net = untaught(lessons.shape[2], classes, width, device=device, seed=seed)
    optimiser = torch.optim.SGD(
        net.parameters(), lr=_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    pictures = _Shrunk(lessons, device)
    order = np.random.default_rng(mix(seed, "lessons"))
    for step in range(steps):
        chosen = order.choice(rows, BATCH)
        images = pictures(chosen)
        labels = torch.from_numpy(lessons.labels[chosen]).to(device.name)
        loss = F.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(what, step + 1, steps)
    return net.eval()


def untaught(
    channels: int, classes: int, width: int = 32, *, device: Device, seed: int = 0
) -> SmallResNet:
    """A classifier as it is before the first lesson, on its device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "classifier"))
        net = SmallResNet(channels, classes, width)
    device.prepare(net, compile=False)
    return net


@torch.no_grad()
def answers(net: SmallResNet, blocks: Iterable[Tensor]) -> Tensor:
    """Logits (N, classes), on the CPU, of pictures that come in blocks (n, C, H, W)."""
    return torch.cat([net(block).cpu() for block in blocks])


def accuracy(
    lessons: PictureSet,
    exam: PictureSet,
    *,
    taught: np.ndarray | None = None,
    asked: np.ndarray | None = None,
    device: Device,
    seed: int = 0,
    what: str = "classifier",
    progress: Progress | None = None,
) -> tuple[float, dict[str, float], int]:
    """Share of the exam that a classifier taught by the lessons gets right.

    Args:
        lessons, exam: labelled pictures of the same classes.
        taught, asked: the rows to use; None: all, of the exam 10,000 at most.
        device, seed, what, progress: as `teach` has them.

    Returns:
        Accuracy in [0, 1], accuracy by class name, and how many pictures were asked.
    """
    assert exam.labels is not None
    classes = len(exam.classes)
    net = teach(
        lessons, classes, rows=taught, device=device, seed=seed, what=what, progress=progress
    )
    questions = np.arange(len(exam)) if asked is None else asked
    questions = questions[shuffled_rows(len(questions))[:_TEST]]  # files lie class by class
    reading, starts = _Shrunk(exam, device), range(0, len(questions), _ASKED)
    said = answers(net, (reading(questions[start : start + _ASKED]) for start in starts))
    right = said.argmax(1).numpy() == exam.labels[questions]
    by_class = {
        name: float(right[exam.labels[questions] == number].mean())
        for number, name in enumerate(exam.classes)
        if (exam.labels[questions] == number).any()
    }
    return float(right.mean()), by_class, len(questions)


class _Shrunk:
    """Pictures of a set as tensors of at most 64 pixels a side, each read once."""

    def __init__(self, pictures: PictureSet, device: Device) -> None:
        self._pictures, self._device = pictures, device
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, rows: np.ndarray) -> Tensor:
        new = np.unique(np.array([row for row in rows.tolist() if row not in self._kept], np.int64))
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            for row, picture in zip(some.tolist(), self._small(some), strict=True):
                self._kept[row] = picture
        return self._device.put(np.stack([self._kept[row] for row in rows.tolist()]))

    def _small(self, rows: np.ndarray) -> np.ndarray:
        block = self._pictures.read(rows)
        if max(block.shape[1:3]) <= _SIDE:
            return block
        scale = _SIDE / max(block.shape[1:3])
        size = tuple(max(1, round(side * scale)) for side in block.shape[1:3])
        images = torch.from_numpy(block).permute(0, 3, 1, 2).float()
        small = F.interpolate(images, size, mode="area").round().to(torch.uint8)
        return small.permute(0, 2, 3, 1).contiguous().numpy()
