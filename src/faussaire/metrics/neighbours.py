"""Nearest neighbours of feature vectors, and what they say of two sets: precision, recall, density,
coverage.

Distances are Euclidean. They are first found in tiles as |x|^2 + |y|^2 - 2 x.y, by a float32 product
of vectors centred on their common mean (a large offset would cancel, and take the digits with it).
That is true to `_slack`. Whatever could turn out otherwise within it, the few nearest of each
vector and comparisons that are nearly equal, is settled by sums of squared differences in float64.
So results are those of float64, at the price of float32, and memory holds a few tiles. Only
neighbours closer together than about 1e-7 of the longest vector, which products in float64 cannot
tell apart either, may be taken for one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from faussaire.metrics.inputs import require_features, require_same_space

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""

_ROWS, _COLUMNS = 1024, 4096
_SPARE = 4
"""Neighbours found in float32 beyond those asked for, to choose from in float64."""
_PAIRS = 1 << 22
"""Numbers in a block of differences in float64."""


def prdc(
    real: Tensor,
    fake: Tensor,
    *,
    precision_k: int = 3,
    density_k: int = 5,
    real_reaches: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Precision, recall, density and coverage, from one pass over the distances between the sets.

    With B_k(x) the closed ball around x that reaches to its k-th nearest neighbour in its own set:

    - precision: share of fakes in the union of B_k over the reals; recall: share of reals in the
      union of B_k over the fakes. Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric
      for Assessing Generative Models", arXiv 1904.06991, equations 1 and 2; k = 3.
    - density: how many B_k of reals hold a fake, on average, over k; it can exceed 1. Coverage:
      share of reals whose B_k holds a fake. Naeem et al. 2020, "Reliable Fidelity and Diversity
      Metrics for Generative Models", arXiv 2002.09797, section 3.2; k = 5.

    Args:
        real, fake: features (n, D) and (m, D).
        precision_k: k of precision and recall.
        density_k: k of density and coverage.
        real_reaches: `reaches(real, k)` for the larger k or more, where they are known already.
        progress: told of tiles of distances.

    Returns:
        By name: `precision`, `recall` and `coverage` in [0, 1], `density` from 0.

    Raises:
        UserError: a set has not more than k vectors, NaN or infinity, or different D.
    """
    x = require_features(real, max(precision_k, density_k) + 1)
    y = require_features(fake, precision_k + 1)
    require_same_space(x, y)
    own = _tiles(x, x) if real_reaches is None else 0
    tell = _counter(progress, own + _tiles(y, y) + _tiles(x, y))
    if real_reaches is None:
        real_reaches, _ = _nearest(x, x, max(precision_k, density_k), tell, alone=True)
    real_narrow, real_wide = (real_reaches[:, k - 1].to(x.device) for k in (precision_k, density_k))
    fake_narrow = _nearest(y, y, precision_k, tell, alone=True)[0][:, -1]

    precise = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    recalled, covered = torch.zeros(2, len(x), dtype=torch.bool, device=x.device)
    held = 0
    distances = _Distances.between(x, y)
    for rows in _ranges(len(x), _ROWS):
        for columns in _ranges(len(y), _COLUMNS):
            tile = distances.tile(rows, columns)
            in_wide = tile.within(real_wide[rows, None])
            precise[columns] |= tile.within(real_narrow[rows, None]).any(dim=0)
            recalled[rows] |= tile.within(fake_narrow[None, columns]).any(dim=1)
            covered[rows] |= in_wide.any(dim=1)
            held += int(in_wide.count_nonzero())
            tell()
    return {
        "precision": float(precise.double().mean()),
        "recall": float(recalled.double().mean()),
        "density": held / (density_k * len(y)),
        "coverage": float(covered.double().mean()),
    }


def reaches(x: Tensor, k: int, *, progress: Progress | None = None) -> Tensor:
    """Squared distances of each vector to its k nearest other ones, nearest first, (n, k) float64.

    A vector is not its own neighbour; an equal one elsewhere in the set is, at distance 0.

    Args:
        x: features (n, D).
        k: from 1 to n - 1.
        progress: told of tiles of distances.

    Raises:
        UserError: k or fewer vectors, NaN or infinity.
    """
    x = require_features(x, k + 1)
    return _nearest(x, x, k, _counter(progress, _tiles(x, x)), alone=True)[0]


def knn_radii(x: Tensor, k: int, *, progress: Progress | None = None) -> Tensor:
    """Distance of each vector to the k-th nearest other one, (n,) float32: see `reaches`."""
    return reaches(x, k, progress=progress)[:, -1].sqrt().float()


def nearest(
    x: Tensor, y: Tensor, k: int, *, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """The k vectors of y nearest to each vector of x, nearest first.

    Args:
        x, y: features (n, D) and (m, D).
        k: from 1 to m.
        progress: told of tiles of distances.

    Returns:
        Distances (n, k) float32 and rows of y (n, k) int64.

    Raises:
        UserError: fewer than k vectors in y, NaN or infinity, or different D.
    """
    x, y = require_features(x, 1), require_features(y, k)
    require_same_space(x, y)
    squared, rows = _nearest(x, y, k, _counter(progress, _tiles(x, y)))
    return squared.sqrt().float(), rows


# ---- Distances in tiles ----


@dataclass(frozen=True)
class _Tile:
    """Squared distances of some vectors to some others.

    Attributes:
        x, y: these vectors, (r, D) and (c, D).
        squared: (r, c), true to `slack`; may lie below 0 by as much.
        slack: the largest error.
    """

    x: Tensor
    y: Tensor
    squared: Tensor
    slack: float

    def within(self, reach: Tensor) -> Tensor:
        """Is the squared distance at most `reach`? reach: (r, 1) or (1, c), float64 -> (r, c)."""
        perhaps = self.squared <= (reach + self.slack).to(self.squared.dtype)
        surely = self.squared <= (reach - self.slack).to(self.squared.dtype)
        if not torch.equal(perhaps, surely):
            i, j = (perhaps ^ surely).nonzero(as_tuple=True)
            perhaps[i, j] = _exact(self.x, i, self.y, j) <= reach.expand(perhaps.shape)[i, j]
        return perhaps


@dataclass(frozen=True)
class _Distances:
    """All squared distances of two sets, tile by tile.

    Attributes:
        x, y: (n, D) and (m, D).
        centre: (D,) float64, near the common mean.
        x_norms, y_norms: squared lengths after centring, (n,) and (m,) float64.
        dtype: of products.
    """

    x: Tensor
    y: Tensor
    centre: Tensor
    x_norms: Tensor
    y_norms: Tensor
    dtype: torch.dtype

    @classmethod
    def between(cls, x: Tensor, y: Tensor) -> _Distances:
        """Of x (n, D) and y (m, D), by the quickest product that is true."""
        centre = torch.stack([v.sum(dim=0, dtype=torch.float64) for v in (x, y)]).sum(dim=0)
        centre /= len(x) + len(y)
        # As the vectors hold it: lengths and products must be taken about the same point.
        centre = centre.to(torch.promote_types(x.dtype, y.dtype)).double()
        x_norms = _norms(x, centre)
        y_norms = x_norms if y is x else _norms(y, centre)
        found = cls(x, y, centre, x_norms, y_norms, torch.float32)
        return found if found._product_is_true() else found.in_float64()

    def in_float64(self) -> _Distances:
        """The same by products in float64."""
        return replace(self, dtype=torch.float64)

    def tile(self, rows: slice | Tensor, columns: slice) -> _Tile:
        """Distances of x[rows] to y[columns]."""
        a, b = self.x[rows], self.y[columns]
        left, right = (_centred(v, self.centre, self.dtype) for v in (a, b))
        row_norms, column_norms = self.x_norms[rows], self.y_norms[columns]
        squared = torch.addmm(column_norms.to(self.dtype), left, right.T, alpha=-2.0)
        squared += row_norms[:, None].to(self.dtype)
        longest = float(row_norms.max() + column_norms.max())
        return _Tile(a, b, squared, _slack(longest, a.shape[1], self.dtype))

    def _product_is_true(self) -> bool:
        """Whether float32 holds these squares, and its products are within `_slack` here.

        torch can be set to multiply float32 in TF32 or bfloat16, which the bound does not cover.
        """
        longest = float(self.x_norms.max() + self.y_norms.max())
        if not 1e-30 < longest < 1e30:
            return False
        few = slice(0, 256)
        rough = self.tile(few, few)
        true = self.in_float64().tile(few, few)
        return float((rough.squared - true.squared).abs().max()) <= rough.slack


def _slack(longest: float, dimensions: int, dtype: torch.dtype) -> float:
    """Bound on the error of a tile, `longest` being the largest |x|^2 + |y|^2 in it.

    Errors of summing D products one after the other would grow as sqrt(D) / 3; libraries sum in
    blocks, and the largest error seen for D from 2 to 2,048 was 6 eps.
    """
    return (8.0 + 0.5 * dimensions**0.5) * torch.finfo(dtype).eps * longest


def _centred(block: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(block.dtype, dtype)
    return (block.to(wide) - centre.to(wide)).to(dtype)


def _norms(x: Tensor, centre: Tensor) -> Tensor:
    """Squared lengths after centring, (n,) float64."""
    return torch.cat(
        [_centred(block, centre, torch.float64).square().sum(dim=1) for block in x.split(_ROWS)]
    )


def _exact(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """|x[i] - y[j]|^2 in float64, (p,), for row numbers i and j, (p,)."""
    step = max(1, _PAIRS // x.shape[1])
    return torch.cat(
        [
            (x[a].double() - y[b].double()).square().sum(dim=1)
            for a, b in zip(i.split(step), j.split(step), strict=True)
        ]
    )


# ---- Neighbours ----


def _nearest(
    x: Tensor, y: Tensor, k: int, tell: Callable[[], None], *, alone: bool = False
) -> tuple[Tensor, Tensor]:
    """Squared distances (n, k) float64, nearest first, and rows of y (n, k).

    Args:
        x, y: (n, D) and (m, D).
        k: neighbours.
        tell: called after each tile.
        alone: x is y, and no vector is its own neighbour.
    """
    distances = _Distances.between(x, y)
    squared = torch.empty(len(x), k, dtype=torch.float64, device=x.device)
    found = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for rows in _ranges(len(x), _ROWS):
        numbers = torch.arange(rows.start, rows.stop, device=x.device)
        squared[rows], found[rows], sure = _nearest_of(distances, numbers, k, alone, tell)
        if not bool(sure.all()):  # many lie so near that float32 cannot tell them apart
            again = numbers[~sure]
            exact = distances.in_float64()
            squared[again], found[again], _ = _nearest_of(exact, again, k, alone, lambda: None)
    return squared, found


def _nearest_of(
    distances: _Distances, numbers: Tensor, k: int, alone: bool, tell: Callable[[], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for rows `numbers` (r,) of x, and whether no other vector can be nearer, (r,)."""
    others = len(distances.y) - alone
    kept = min(k + _SPARE, others)
    best = torch.empty(len(numbers), 0, dtype=distances.dtype, device=numbers.device)
    found = torch.empty(len(numbers), 0, dtype=torch.int64, device=numbers.device)
    slack = 0.0
    for columns in _ranges(len(distances.y), _COLUMNS):
        tile = distances.tile(numbers, columns)
        slack = max(slack, tile.slack)
        if alone:
            own = ((numbers >= columns.start) & (numbers < columns.stop)).nonzero()[:, 0]
            tile.squared[own, numbers[own] - columns.start] = torch.inf
        values, places = tile.squared.topk(min(kept, tile.squared.shape[1]), largest=False)
        best = torch.cat([best, values], dim=1)
        found = torch.cat([found, places + columns.start], dim=1)
        best, order = best.topk(min(kept, best.shape[1]), largest=False)
        found = found.gather(1, order)
        tell()
    i = torch.arange(len(numbers), device=numbers.device).repeat_interleave(kept)
    exact = _exact(distances.x[numbers], i, distances.y, found.flatten()).view(found.shape)
    exact, order = exact.sort(dim=1, stable=True)
    sure = (best[:, -1] - slack >= exact[:, k - 1]) | (kept == others)
    return exact[:, :k], found.gather(1, order)[:, :k], sure


def _ranges(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _tiles(x: Tensor, y: Tensor) -> int:
    return len(_ranges(len(x), _ROWS)) * len(_ranges(len(y), _COLUMNS))


def _counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Tells `progress` of one tile more at each call."""
    done = count(1)

    def tell() -> None:
        if progress is not None:
            progress(next(done), total)

    return tell
