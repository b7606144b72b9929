"""The Inception network that FID and the Inception Score are defined by.

It is the TensorFlow graph of 2015-12-05 (Szegedy et al. 2015, "Rethinking the Inception
Architecture", arXiv 1512.00567), with which Heusel et al. 2017 (arXiv 1706.08500) introduced FID. It
differs from the networks that go by the name Inception v3 today: 1,008 classes; average pools that
leave padding out of the mean; a max pool in the last block; batch norm with eps 0.001. Weights are
those of the public conversion `pt_inception-2015-12-05-6726825d.pth`, whose names the attributes
here repeat.

Two conventions that figures depend on:

- *Inputs.* Pictures in 0..255 become (x - 128) / 128, as the graph has it and torch-fidelity and
  clean-fid keep it; pytorch-fid computes x / 127.5 - 1. `to_input` does either.
- *Logits.* The Inception Score of Salimans et al. 2016 (arXiv 1606.03498) takes the softmax of
  features times weights *without* the bias, an accident of its code that later scores kept.
  `forward` returns those logits (torch-fidelity's `logits_unbiased`); `net.fc(features)` is with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.metrics.resize import How
from faussaire.metrics.weights import fill, read_tensors

SIZE = 299  # pixels a side
FEATURES = 2048
CLASSES = 1008
EPSILON = 0.001  # of batch norm


def to_input(pictures: Tensor, how: How = "clean") -> Tensor:
    """Pictures (N, 3, 299, 299) in 0..255, float, scaled to [-1, 1] as the resizing's users do."""
    return pictures / 127.5 - 1.0 if how == "pytorch" else (pictures - 128.0) / 128.0


class Conv(NamedTuple):
    """A convolution without bias, then batch norm and ReLU: name, filters, kernel (h, w)."""

    name: str
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True  # by as much as keeps the size at stride 1

    @property
    def padding(self) -> tuple[int, int]:
        return (self.kernel[0] // 2, self.kernel[1] // 2) if self.padded else (0, 0)


# A block is a tuple of paths, whose results lie side by side in its output. A path is a chain of
# convolutions and pools; a tuple inside a path is a fork, whose results lie side by side as well.
Step = Conv | str | tuple[Conv, ...]
Block = tuple[tuple[Step, ...], ...]

AVERAGE, MAX, SHRINK = "average", "max", "shrink"  # pools of 3x3: two at stride 1, max at stride 2
_1x3, _3x1, _1x7, _7x1, _3x3, _5x5 = (1, 3), (3, 1), (1, 7), (7, 1), (3, 3), (5, 5)


def _a(pooled: int) -> Block:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, _5x5)),
        (Conv("branch3x3dbl_1", 64),
         Conv("branch3x3dbl_2", 96, _3x3), Conv("branch3x3dbl_3", 96, _3x3)),
        (AVERAGE, Conv("branch_pool", pooled)),
    )  # fmt: skip


def _b() -> Block:
    return (
        (Conv("branch3x3", 384, _3x3, 2, False),),
        (Conv("branch3x3dbl_1", 64),
         Conv("branch3x3dbl_2", 96, _3x3), Conv("branch3x3dbl_3", 96, _3x3, 2, False)),
        (SHRINK,),
    )  # fmt: skip


def _c(n: int) -> Block:
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", n),
         Conv("branch7x7_2", n, _1x7), Conv("branch7x7_3", 192, _7x1)),
        (Conv("branch7x7dbl_1", n),
         Conv("branch7x7dbl_2", n, _7x1), Conv("branch7x7dbl_3", n, _1x7),
         Conv("branch7x7dbl_4", n, _7x1), Conv("branch7x7dbl_5", 192, _1x7)),
        (AVERAGE, Conv("branch_pool", 192)),
    )  # fmt: skip


def _d() -> Block:
    return (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, _3x3, 2, False)),
        (Conv("branch7x7x3_1", 192),
         Conv("branch7x7x3_2", 192, _1x7), Conv("branch7x7x3_3", 192, _7x1),
         Conv("branch7x7x3_4", 192, _3x3, 2, False)),
        (SHRINK,),
    )  # fmt: skip


def _e(pool: str) -> Block:
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384),
         (Conv("branch3x3_2a", 384, _1x3), Conv("branch3x3_2b", 384, _3x1))),
        (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, _3x3),
         (Conv("branch3x3dbl_3a", 384, _1x3), Conv("branch3x3dbl_3b", 384, _3x1))),
        (pool, Conv("branch_pool", 192)),
    )  # fmt: skip


# Sides:           299 -> 149 -> 147 -> 147 -> 73 -> 73 -> 71 -> 35 ... 17 ... 8
GRAPH: tuple[Conv | str | tuple[str, Block], ...] = (
    Conv("Conv2d_1a_3x3", 32, _3x3, 2, False),
    Conv("Conv2d_2a_3x3", 32, _3x3, 1, False),
    Conv("Conv2d_2b_3x3", 64, _3x3),
    SHRINK,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, _3x3, 1, False),
    SHRINK,
    ("Mixed_5b", _a(32)),
    ("Mixed_5c", _a(64)),
    ("Mixed_5d", _a(64)),
    ("Mixed_6a", _b()),
    ("Mixed_6b", _c(128)),
    ("Mixed_6c", _c(160)),
    ("Mixed_6d", _c(160)),
    ("Mixed_6e", _c(192)),
    ("Mixed_7a", _d()),
    ("Mixed_7b", _e(AVERAGE)),
    ("Mixed_7c", _e(MAX)),  # where other Inceptions average: so it is in the graph that FID uses
)


class Unit(nn.Module):
    """One `Conv`: (N, C, H, W) -> (N, filters, h, w)."""

    def __init__(self, channels: int, spec: Conv) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, spec.filters, spec.kernel, spec.stride, spec.padding, bias=False
        )
        self.bn = nn.BatchNorm2d(spec.filters, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def pool(x: Tensor, kind: str) -> Tensor:
    """A pool of 3x3: `average` without the padding, `max`, or `shrink` (max at stride 2)."""
    if kind == AVERAGE:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return F.max_pool2d(x, 3, stride=1, padding=1) if kind == MAX else F.max_pool2d(x, 3, stride=2)


class Mixed(nn.Module):
    """One `Block`: paths side by side. (N, C, H, W) -> (N, width, h, w)."""

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.block = block
        self.width = 0
        for path in block:
            wide = channels
            for step in path:
                if isinstance(step, str):
                    continue
                fork = (step,) if isinstance(step, Conv) else step
                for spec in fork:
                    self.add_module(spec.name, Unit(wide, spec))
                wide = sum(spec.filters for spec in fork)
            self.width += wide

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._follow(path, x) for path in self.block], 1)

    def _follow(self, path: tuple[Step, ...], x: Tensor) -> Tensor:
        for step in path:
            if isinstance(step, str):
                x = pool(x, step)
            elif isinstance(step, Conv):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(spec.name)(x) for spec in step], 1)
        return x


class Inception2015(nn.Module):
    """The network of FID, for reading: always in eval mode, no gradients kept by its parameters."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for step in GRAPH:
            if isinstance(step, Conv):
                self.add_module(step.name, Unit(channels, step))
                channels = step.filters
            elif not isinstance(step, str):
                name, block = step
                mixed = Mixed(channels, block)
                self.add_module(name, mixed)
                channels = mixed.width
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Inception2015:
        """Stays in eval mode: batch statistics would make a feature depend on its neighbours."""
        return super().train(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 2048) and logits without bias (N, 1008) of x (N, 3, 299, 299) in [-1, 1]."""
        for step in GRAPH:
            if isinstance(step, str):
                x = pool(x, step)
            else:
                x = self.get_submodule(step[0])(x)
        features = x.mean(dim=(2, 3))
        return features, F.linear(features, self.fc.weight)

    @classmethod
    def from_file(cls, path: Path) -> Inception2015:
        """The network with the weights of `pt_inception-2015-12-05-6726825d.pth`.

        Args:
            path: a state dict saved by torch, or `.safetensors` with the same names.

        Raises:
            UserError: the file is missing, unreadable, of another network, or holds NaN.
        """
        net = cls()
        hint = "Use pt_inception-2015-12-05-6726825d.pth, the file that pytorch-fid publishes."
        fill(net, read_tensors(path), path, hint)
        return net
