"""Sliced Wasserstein distance between patches of pictures, at each level of a Laplacian pyramid.

Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
arXiv 1710.10196, section 5. The pyramid (Burt and Adelson 1983, "The Laplacian Pyramid as a Compact
Image Code") halves the picture down to 16 pixels; each level but the last holds what the next
coarser one lacks. From each picture and level come 128 random 7x7 patches; each set is normalised
by its own mean and standard deviation in each channel; the distance is the mean over 512 random
directions of the one-dimensional Wasserstein distance along them, times 1,000. Fine levels tell of
sharpness and noise, the coarsest of layout and colour.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics.inputs import require_pictures

_COARSEST = 16
_BLOCK = 1 << 16
_TOGETHER = 32
"""Directions projected on at once."""


class PatchCollector:
    """Random patches of the pictures that it is shown, for `sliced_wasserstein`.

    At most `pictures` pictures are held, a random choice of all that were shown (reservoir
    sampling, Vitter 1985, algorithm R). They take patches * size^2 * C * 2 bytes for each level: at
    the defaults and in colour, 0.6 GB a level; a 32x32 picture has two levels, one of 256x256 five.

    Args:
        shape: (H, W, C) of the pictures.
        pictures: how many to hold; 16,384 in the paper.
        patches: from each picture and level.
        size: of a patch, in pixels.
        seed: of the places and the choice; both depend on the order of pictures, not on blocks.

    Raises:
        UserError: pictures smaller than a patch.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        pictures: int = 16_384,
        patches: int = 128,
        size: int = 7,
        seed: int = 0,
    ) -> None:
        height, width, _ = shape
        if min(height, width) < size:
            raise UserError(
                f"Pictures of {height}x{width} are smaller than a patch of {size}x{size}.",
                "Leave out swd, or choose a higher resolution.",
            )
        self.shape, self.levels = shape, _level_sizes(height, width)
        self._limit, self._patches, self._size = pictures, patches, size
        self._draws = torch.Generator().manual_seed(seed)
        self._shown = 0
        # Of each level: held pictures' patches, each (patches, C, size, size) float16.
        self._held: list[list[Tensor]] = [[] for _ in self.levels]

    def __len__(self) -> int:
        """Pictures held."""
        return len(self._held[0])

    def add(self, pictures: np.ndarray | Tensor) -> None:
        """Look at a block of pictures, uint8 (N, H, W, C).

        Raises:
            UserError: another type or shape.
        """
        x = require_pictures(pictures, self.shape)
        # Drawn in one sequence, picture by picture: the same for any division into blocks.
        drawn = torch.rand(
            len(x),
            1 + 2 * len(self.levels) * self._patches,
            generator=self._draws,
            dtype=torch.float64,
        )
        slots = self._choose(drawn[:, 0])
        rows = torch.tensor(list(slots.values()), dtype=torch.int64)
        if len(rows) == 0:
            return
        places = drawn[rows, 1:].view(len(rows), len(self.levels), self._patches, 2).to(x.device)
        # Centred, so that float16 holds a level of grey to an eighth.
        chosen = x[rows.to(x.device)].permute(0, 3, 1, 2).float() - 127.5
        for level, picture in enumerate(laplacian_pyramid(chosen, len(self.levels))):
            found = _cut(picture, places[:, level], self._size).half()
            for slot, patches in zip(slots, found, strict=True):
                _put(self._held[level], slot, patches.clone())

    __call__ = add

    def _choose(self, chances: Tensor) -> dict[int, int]:
        """Slot -> row of this block that comes to lie there; chances: (N,) in [0, 1)."""
        slots = {}
        for row, chance in enumerate(chances.tolist()):
            slot = self._shown if self._shown < self._limit else int(chance * (self._shown + 1))
            if slot < self._limit:
                slots[slot] = row
            self._shown += 1
        return slots

    def descriptors(self, level: int) -> Tensor:
        """Patches of a level, 0 being the finest: (n, C, size * size) float16, not normalised."""
        return torch.stack(self._held[level]).flatten(0, 1).flatten(2)


def sliced_wasserstein(
    a: PatchCollector, b: PatchCollector, *, directions: int = 512, seed: int = 0
) -> dict[str, float]:
    """Distance times 1,000 at each level, finest first, by the level's size: `64x64`.

    The paper's figure for a picture is the mean over levels. Sets of different sizes are compared
    by their quantile functions, exactly: nothing is left out or interpolated.

    Args:
        a, b: patches of pictures of one shape.
        directions: random directions; 512 in the paper.
        seed: of the directions.

    Raises:
        UserError: different shapes, or no pictures.
    """
    if a.levels != b.levels or a.shape[2] != b.shape[2]:
        raise UserError(
            f"Patches come from pictures of {a.shape} and of {b.shape}.",
            "Bring both to one size and to the same colours.",
        )
    if not (len(a) and len(b)):
        raise UserError("There are no pictures to take patches from.", "Give at least one.")
    found = {}
    for level, (height, width) in enumerate(a.levels):
        value = _sliced(a.descriptors(level), b.descriptors(level), directions, seed)
        found[f"{height}x{width}"] = 1000.0 * value
    return found


# ---- The pyramid and its patches ----


def _level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(h, w) of each level: halved, rounded up, while the shorter side keeps 16 pixels."""
    sizes = [(height, width)]
    while min(height, width) >= 2 * _COARSEST - 1:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def laplacian_pyramid(pictures: Tensor, levels: int) -> list[Tensor]:
    """(N, C, H, W) float -> details of each level, and the coarsest picture; finest first."""
    pyramid = []
    for _ in range(levels - 1):
        coarse = _blur(pictures)[:, :, ::2, ::2]
        filled = torch.zeros_like(pictures)
        filled[:, :, ::2, ::2] = 4.0 * coarse
        pyramid.append(pictures - _blur(filled))
        pictures = coarse
    return [*pyramid, pictures]


def _blur(x: Tensor) -> Tensor:
    """The 5-tap binomial filter along both sides, mirrored at the border."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16.0
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def _cut(pictures: Tensor, places: Tensor, size: int) -> Tensor:
    """(N, C, h, w), places (N, p, 2) in [0, 1) -> patches (N, p, C, size, size)."""
    windows = pictures.unfold(2, size, 1).unfold(3, size, 1)
    top, left = ((places[..., i] * windows.shape[2 + i]).long() for i in (0, 1))
    each = torch.arange(len(pictures), device=pictures.device)[:, None]
    return windows[each, :, top, left]


def _put(held: list[Tensor], slot: int, patches: Tensor) -> None:
    if slot == len(held):
        held.append(patches)
    else:
        held[slot] = patches


# ---- The distance ----


def _sliced(a: Tensor, b: Tensor, directions: int, seed: int) -> float:
    """Mean over directions of the distance between descriptors (n, C, P) and (m, C, P)."""
    draws = torch.Generator().manual_seed(seed)
    matching = _matching(len(a), len(b), a.device)
    scales = [_mean_and_deviation(v) for v in (a, b)]
    total = 0.0
    for start in range(0, directions, _TOGETHER):
        few = min(_TOGETHER, directions - start)
        along = F.normalize(torch.randn(few, a[0].numel(), generator=draws), dim=1).to(a.device)
        left, right = (
            _sorted(_project(v, along, *scale)) for v, scale in zip((a, b), scales, strict=True)
        )
        total += _wasserstein(left, right, matching)
    return total / directions


def _mean_and_deviation(descriptors: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel over all descriptors (n, C, P) and pixels, (C,) float64."""
    count = len(descriptors) * descriptors.shape[2]
    mean = torch.zeros(descriptors.shape[1], dtype=torch.float64, device=descriptors.device)
    for block in descriptors.split(_BLOCK):
        mean += block.sum(dim=(0, 2), dtype=torch.float64) / count
    variance = torch.zeros_like(mean)
    for block in descriptors.split(_BLOCK):
        variance += (block - mean[:, None]).square().sum(dim=(0, 2)) / count
    # A channel that never changes has nothing to be divided by: it becomes 0 at every pixel.
    return mean, torch.where(variance > 0, variance.sqrt(), 1.0)


def _project(descriptors: Tensor, along: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Normalised descriptors (n, C, P) on directions (d, C * P) -> (d, n) float32."""
    each = along.double().unflatten(1, (len(mean), -1)) / deviation[:, None]
    offset = (each * mean[:, None]).sum(dim=(1, 2))[:, None].float()
    weights = each.flatten(1).float()
    blocks = (block.flatten(1).float() for block in descriptors.split(_BLOCK))
    return torch.cat([weights @ block.T - offset for block in blocks], dim=1)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in order. NumPy's sort takes a tenth of the time of torch's on a CPU with AVX-512."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows


_Matching = tuple[Tensor, Tensor, Tensor]
"""Rows of a, rows of b, and the weight of each pair, which sum to 1."""


def _matching(n: int, m: int, device: torch.device) -> _Matching | None:
    """How n sorted values of weight 1/n are moved to m of weight 1/m; None: one to one."""
    if n == m:
        return None
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    weights = (ends - starts).double() / (n * m)
    return (starts // m).to(device), (starts // n).to(device), weights.float().to(device)


def _wasserstein(a: Tensor, b: Tensor, matching: _Matching | None) -> float:
    """Sum over rows of the distance between sorted a (d, n) and b (d, m)."""
    if matching is None:
        return float((a - b).abs_().mean(dim=1, dtype=torch.float64).sum())
    i, j, weights = matching
    return sum(
        float(((p[i] - q[j]).abs_() * weights).sum(dtype=torch.float64))
        for p, q in zip(a, b, strict=True)
    )
