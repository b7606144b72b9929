"""The FID Inception network, fast, with the same features.

`fast` takes an `Inception2015` and gives a function of the same meaning:

- on a CPU with AMX and a C++ compiler: the convolutions of ``inception_kernels.cpp``, three bf16
  products for one of float32, about 17 bits of mantissa in place of 24. Features differ by 6e-6 of
  their norm under He-scaled weights, and by up to 6e-4 where batch norm was fitted to pictures with
  random convolutions, which magnifies errors most (bf16 alone: 2e-1); see
  benchmarks/inception_speed.txt.
- elsewhere: batch norm folded into the convolutions, channels_last, ReLU in place, in float32.

``FAUSSAIRE_KERNELS=0`` in the environment keeps the kernels off.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial, reduce
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from faussaire.core import native
from faussaire.metrics.inception import (
    AVERAGE,
    FEATURES,
    GRAPH,
    SHRINK,
    SIZE,
    Block,
    Conv,
    Inception2015,
    Step,
    Unit,
)
from faussaire.metrics.precision import full_precision

Reader = Callable[[Tensor], tuple[Tensor, Tensor]]

LANES = 32  # channels of a group: the depth of an AMX tile in bf16
PORTION = 8  # pictures that pass the network together: weights are read once for all of them


def fast(net: Inception2015, device: str = "cpu") -> Reader:
    """A function equal to `net` within 1e-3 of a feature vector's norm, and faster.

    Args:
        net: the network; it is left as it is. Later changes to it do not reach the function.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.

    Returns:
        x (N, 3, 299, 299) in [-1, 1] -> features (N, 2048), logits (N, 1008), both float32, on
        `device`. No gradients pass.
    """
    library = kernels() if torch.device(device).type == "cpu" else None
    if library is not None:
        return _Tiled(net, library)
    return folded(net, device)


def folded(net: Inception2015, device: str = "cpu") -> Reader:
    """The network with batch norm folded into its convolutions, in plain torch."""
    lean = copy.deepcopy(net)
    for name, unit in list(lean.named_modules()):
        if isinstance(unit, Unit):
            parent, _, own = name.rpartition(".")
            setattr(lean.get_submodule(parent), own, _Folded(unit))
    lean.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def read(x: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(torch.device(device).type):
            return lean(x.to(device, torch.float32, memory_format=torch.channels_last))

    return read


def fold(unit: Unit) -> tuple[Tensor, Tensor]:
    """Weight (O, C, h, w) and bias (O,) of a convolution that does what convolution and norm did."""
    bn = unit.bn
    assert bn.running_var is not None
    assert bn.running_mean is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    weight = unit.conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return weight.float().detach(), bias.float().detach()


class _Folded(nn.Module):
    def __init__(self, unit: Unit) -> None:
        super().__init__()
        weight, bias = fold(unit)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.padding = unit.conv.stride, unit.conv.padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()  # pyright: ignore


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None where the CPU, the system or the compiler cannot have them."""
    needed = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    if not all(bool(getattr(torch.cpu, name, bool)()) for name in needed):
        return None
    library = native.load(Path(__file__).with_name("inception_kernels.cpp"))
    if library is None or not library.faussaire_amx_allow():
        return None
    at, long, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    signatures = {
        "large_pages": [at, long],
        "convolve": [at, long, at, integer, integer, at, at, number, integer, at, long, at, long],
        "pool": [at, long, at, integer, at, at, long, at, long],
        "mean": [at, long, integer, long, long, at],
        "patches": [at, long, long, long, long, long, long, at],
    }
    for name, arguments in signatures.items():
        function = getattr(library, f"faussaire_amx_{name}")
        threads = [] if name == "large_pages" else [integer]
        function.argtypes, function.restype = arguments + threads, None
    return library


@dataclass(frozen=True)
class _Grid:
    """Where the pixels of `count` pictures lie in memory.

    Rows follow rows and pictures pictures, with `pad_x` pixels of zeros after each row and `pad_y`
    rows of zeros after each picture: a tap that leaves a picture reads zeros, and sixteen pixels in
    a row of memory can be read as one tile whatever the width. With `halves`, the four pictures of
    even and odd rows and columns lie one after the other, so that stride 2 is stride 1 in each.
    """

    count: int
    height: int
    width: int
    pad_y: int = 0
    pad_x: int = 0
    halves: bool = False

    @property
    def pitch(self) -> int:
        """Pixels from a row to the next."""
        return (self.width + 1) // 2 if self.halves else self.width + self.pad_x

    @property
    def rows(self) -> int:
        """Rows from a picture to the next."""
        return (self.height + 1) // 2 if self.halves else self.height + self.pad_y

    @property
    def plane(self) -> int:
        """Pixels of all pictures, or of one half of all of them."""
        return self.count * self.rows * self.pitch

    @property
    def pixels(self) -> int:
        return self.plane * (4 if self.halves else 1)

    @property
    def slack(self) -> int:
        """Pixels that a tap may lie before the first or past the last."""
        return self.pad_y * self.pitch + self.pad_x + 2 * self.pitch + 64

    @cached_property
    def index(self) -> NDArray[np.int32]:
        """(count, height, width): the place of each pixel."""
        n, y, x = np.ogrid[: self.count, : self.height, : self.width]
        if self.halves:
            inside = (n * self.rows + y // 2) * self.pitch + x // 2
            return ((y % 2 * 2 + x % 2) * self.plane + inside).astype(np.int32)
        return ((n * self.rows + y) * self.pitch + x).astype(np.int32)


class _Buffer:
    """Pixels of a grid with room for `channels`, as hi and lo: see the kernels' source."""

    def __init__(self, grid: _Grid, channels: int, library: ctypes.CDLL) -> None:
        self.grid, self.channels = grid, channels
        self.groups = -(-channels // LANES)
        # Many groups in a power of two would put a column of pixels in one set of the cache.
        step = self.groups | 1 if self.groups >= 8 else self.groups
        self.pitch = step * 4 * LANES  # bytes
        before = grid.slack * self.pitch
        self.memory = _memory(grid.pixels * self.pitch + 2 * before, library).zero_()
        self.address = self.memory.data_ptr() + before

    def at(self, channel: int) -> int:
        """Address of a channel of the first pixel, where a path's output begins."""
        assert channel % LANES == 0, "a path begins in the middle of a group"
        return self.address + channel // LANES * 4 * LANES


def _memory(size: int, library: ctypes.CDLL) -> Tensor:
    """`size` bytes that begin a cache line, in large pages if the system has them; not written."""
    room = torch.empty(size + 64, dtype=torch.uint8)
    library.faussaire_amx_large_pages(room.data_ptr(), size + 64)
    return room[-room.data_ptr() % 64 :][:size]


class _Packed:
    """A convolution's folded weights in the order that the kernel reads them."""

    def __init__(self, weight: Tensor, bias: Tensor, library: ctypes.CDLL) -> None:
        filters, channels, height, width = weight.shape
        self.panels, self.groups = -(-filters // LANES), -(-channels // LANES)
        full = torch.zeros(self.panels * LANES, self.groups * LANES, height * width)
        full[:filters, :channels] = weight.flatten(2)
        # A tile of weights has 16 rows of two inputs each, and 16 outputs: two tiles for 32 outputs.
        tiles = full.view(self.panels, 2, 16, self.groups, 16, 2, -1).permute(0, 6, 3, 1, 4, 2, 5)
        hi = tiles.bfloat16()
        lo = (tiles - hi.float()).bfloat16()
        both = torch.stack([hi, lo], 3).contiguous().view(torch.uint8).flatten()
        self.weight = _memory(both.numel(), library).copy_(both)
        self.bias = torch.zeros(self.panels * LANES)
        self.bias[:filters] = bias


def _on_patches(weight: Tensor) -> Tensor:
    """The first convolution's weight, in full float32 by two taps: bf16, and the rest as hi and lo.

    (O, 3, 3, 3) -> (O, 64, 1, 2), for the two groups of a patch.
    """
    coarse = weight.bfloat16().float()
    once = torch.stack([coarse, weight - coarse], -1).flatten(1, 3)  # (O, 27, 2)
    whole = weight.new_zeros(len(weight), 2, LANES, 2)
    whole[:, :, : once.shape[1]] = once[:, None]
    return whole.flatten(1, 2)[:, :, None]


class _Plan:
    """The calls of the kernels that take `count` pictures through the network, and their memory."""

    def __init__(self, count: int, packed: dict[str, _Packed], library: ctypes.CDLL) -> None:
        self.count, self._packed, self._library = count, packed, library
        self._calls: list[Callable[[int], None]] = []
        self._kept: list[object] = []  # what the calls point to
        self._free: dict[tuple[_Grid, int], list[_Buffer]] = {}
        side = (SIZE - 3) // 2 + 1
        self._patches = x = self._take(_Grid(count, side, side), 2 * LANES)
        first = GRAPH[0]
        assert isinstance(first, Conv)
        graph = (Conv(first.name, first.filters), *GRAPH[1:])  # on patches, one product a pixel
        for step, after in zip(graph, (*graph[1:], ()), strict=True):
            readers = _readers(after)
            if isinstance(step, str | Conv):
                y = self._take(_behind(x.grid, step, readers), _width(step, x.channels))
                self._step(x, step, "", y, 0)
            else:
                y = self._mixed(x, *step, readers)
            self._give(x)
            x = y
        self._last = x

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features (count, 2048) of pictures (count, 3, 299, 299), float32, of any strides."""
        threads = torch.get_num_threads()
        self._library.faussaire_amx_patches(
            pictures.data_ptr(),
            *pictures.stride(),
            self.count,
            SIZE,
            self._patches.address,
            threads,
        )
        for call in self._calls:
            call(threads)
        last, features = self._last, torch.empty(self.count, FEATURES)
        self._library.faussaire_amx_mean(
            last.address, last.pitch, last.groups,
            self.count, last.grid.height * last.grid.width, features.data_ptr(), threads,
        )  # fmt: skip
        return features

    def _mixed(self, x: _Buffer, name: str, block: Block, readers: Readers) -> _Buffer:
        """All paths of a block, side by side in one buffer."""
        ends = [reduce(lambda wide, step: _width(step, wide), path, x.channels) for path in block]
        # The last path begins with the pool, which says whether the block changes the size.
        y = self._take(_behind(x.grid, block[-1][0], readers), sum(ends))
        for path, start in zip(block, accumulate(ends, initial=0), strict=False):
            if path[0] == AVERAGE:
                # A 1x1 convolution and a mean may change places: fewer channels are left to average.
                (conv,) = _fork(path[1])
                assert isinstance(conv, Conv)
                packed = self._packed[f"{name}.{conv.name}"]
                between = self._take(_behind(x.grid, AVERAGE, ()), conv.filters)
                self._convolve(x, conv, packed, between, 0, finished=False)
                self._pool(between, AVERAGE, y, start, packed.bias)
                self._give(between)
                continue
            here = x
            for i, step in enumerate(path):
                if i + 1 == len(path):
                    there, at = y, start
                else:
                    grid = _behind(here.grid, step, _readers(path[i + 1]))
                    there, at = self._take(grid, _width(step, here.channels)), 0
                for one in _fork(step):
                    self._step(here, one, f"{name}.", there, at)
                    at += _width(one, here.channels)
                if here is not x:
                    self._give(here)
                here = there
        return y

    def _step(self, x: _Buffer, step: str | Conv, prefix: str, y: _Buffer, at: int) -> None:
        """Write one step's output into the channels of `y` from `at` on."""
        if isinstance(step, str):
            self._pool(x, step, y, at)
        else:
            self._convolve(x, step, self._packed[prefix + step.name], y, at)

    def _convolve(
        self, x: _Buffer, spec: Conv, packed: _Packed, y: _Buffer, at: int, finished: bool = True
    ) -> None:
        """Write a convolution into `y` from channel `at` on; with bias and ReLU, unless unfinished."""
        grid, (height, width) = x.grid, (y.grid.height, y.grid.width)
        dy, dx = np.ogrid[: spec.kernel[0], : spec.kernel[1]]
        if spec.stride == 2:
            taps = (dy % 2 * 2 + dx % 2) * grid.plane + dy // 2 * grid.pitch + dx // 2
            rows = replace(grid, halves=False, height=grid.rows, width=grid.pitch).index
        else:
            taps = (dy - spec.padding[0]) * grid.pitch + dx - spec.padding[1]
            rows = grid.index
        rows = rows[:, :height, :width]
        target = np.full(-(-(rows.max() + 1) // LANES) * LANES, -1, np.int32)
        target[rows] = y.grid.index
        if x is self._patches:
            taps = np.zeros(2)  # read twice: see _on_patches
        offsets = np.ascontiguousarray(taps.ravel(), np.int32)
        bias = packed.bias if finished else torch.zeros_like(packed.bias)
        self._kept += [target, offsets, packed, bias, x, y]
        self._calls.append(
            partial(
                self._library.faussaire_amx_convolve,
                x.address, x.pitch, offsets.ctypes.data, offsets.size, x.groups,
                packed.weight.data_ptr(), bias.data_ptr(), 0.0 if finished else -math.inf,
                packed.panels, y.at(at), y.pitch, target.ctypes.data, target.size,
            )
        )  # fmt: skip

    def _pool(self, x: _Buffer, kind: str, y: _Buffer, at: int, bias: Tensor | None = None) -> None:
        """Write a pool into `y` from channel `at` on; a mean has bias and ReLU of a convolution."""
        assert (kind == AVERAGE) == (bias is not None)
        n, up, left = np.ogrid[: y.grid.count, : y.grid.height, : y.grid.width]
        first, stride = (0, 2) if kind == SHRINK else (-1, 1)
        around = []
        for dy in range(3):
            for dx in range(3):
                row, column = np.broadcast_arrays(
                    up * stride + dy + first, left * stride + dx + first
                )
                inside = (
                    (row >= 0) & (row < x.grid.height) & (column >= 0) & (column < x.grid.width)
                )
                place = x.grid.index[n, row * inside, column * inside]
                around.append(np.where(inside, place, -1).ravel())
        source = np.ascontiguousarray(np.stack(around, 1), np.int32)
        target = np.ascontiguousarray(y.grid.index.ravel())
        self._kept += [source, target, bias, x, y]
        self._calls.append(
            partial(
                self._library.faussaire_amx_pool,
                x.address, x.pitch, source.ctypes.data, x.groups,
                None if bias is None else bias.data_ptr(),
                y.at(at), y.pitch, target.ctypes.data, target.size,
            )
        )  # fmt: skip

    def _take(self, grid: _Grid, channels: int) -> _Buffer:
        """A buffer that no later step needs, or a new one; of equal grids, so the zeros hold."""
        free = self._free.setdefault((grid, channels), [])
        return free.pop() if free else _Buffer(grid, channels, self._library)

    def _give(self, buffer: _Buffer) -> None:
        self._free[buffer.grid, buffer.channels].append(buffer)


class _Tiled:
    """The network on the kernels. One thread calls it at a time: its buffers are its own."""

    def __init__(self, net: Inception2015, library: ctypes.CDLL) -> None:
        self._library = library
        self._packed = {}
        for name, unit in net.named_modules():
            if isinstance(unit, Unit):
                weight, bias = fold(unit)
                if name == GRAPH[0][0]:
                    weight = _on_patches(weight)
                self._packed[name] = _Packed(weight, bias, library)
        self._classes = net.fc.weight.detach().float().clone()
        self._plan = cache(lambda count: _Plan(count, self._packed, library))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to("cpu", torch.float32)
        assert x.shape[1:] == (3, SIZE, SIZE)
        parts, whole = [], len(x) - len(x) % PORTION
        for start in range(0, whole, PORTION):
            parts.append(self._plan(PORTION)(x[start : start + PORTION]))
        for start in range(whole, len(x)):
            parts.append(self._plan(1)(x[start : start + 1]))
        features = torch.cat(parts) if parts else x.new_empty(0, FEATURES)
        with full_precision("cpu"):
            return features, F.linear(features, self._classes)


Readers = tuple[str | Conv, ...]


def _fork(step: Step) -> Readers:
    return (step,) if isinstance(step, str | Conv) else step


def _readers(step: str | Conv | tuple) -> Readers:
    """The convolutions and pools that read what lies before `step`, a step of a path or the graph."""
    if len(step) == 2 and not isinstance(step, str | Conv) and isinstance(step[0], str):
        return tuple(one for path in step[1] for one in _fork(path[0]))
    return _fork(step)


def _width(step: Step, channels: int) -> int:
    """Channels after a step that is given `channels`."""
    return sum(channels if isinstance(one, str) else one.filters for one in _fork(step))


def _behind(grid: _Grid, step: Step, readers: Readers) -> _Grid:
    """The grid after a step, with the padding or the halves that its readers need."""
    one = _fork(step)[0]
    height, width = grid.height, grid.width
    if one == SHRINK or (isinstance(one, Conv) and one.stride == 2):
        height, width = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    elif isinstance(one, Conv) and not one.padded:
        height, width = height - one.kernel[0] + 1, width - one.kernel[1] + 1
    convs = [reader for reader in readers if isinstance(reader, Conv)]
    return _Grid(
        grid.count,
        height,
        width,
        pad_y=max((conv.padding[0] for conv in convs), default=0),
        pad_x=max((conv.padding[1] for conv in convs), default=0),
        halves=any(conv.stride == 2 for conv in convs),
    )
