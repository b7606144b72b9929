"""Mode-specific normalisation: a column of numbers as modes and places within them.

Xu et al. 2019, arXiv 1907.00503, section 4.2: a variational Gaussian mixture of at most ten modes is
fitted to the column; each number x belongs to one mode k, drawn by the modes' probabilities at x, and is
encoded as alpha = (x - mean_k) / (4 deviation_k) and the one-hot vector of k.

The mixture has stick-breaking weights (Blei and Jordan 2006, "Variational inference for Dirichlet
process mixtures", section 3) and Gaussian-Wishart components (Bishop 2006, "Pattern Recognition and
Machine Learning", section 10.2), in one dimension. It is fitted to different values and
their counts, which for most columns are far fewer than rows: milliseconds in place of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from faussaire.tables.inference import COMMON, TAIL, Found
from faussaire.tables.spec import WITHIN, Column, uniform

MODES = 10
"""Gaussian modes of a column at most, the paper's."""
LEAST_WEIGHT = 0.005
"""Of a mode that is kept."""
BINS = 2_000
"""Different values that a mixture is fitted to; where there are more, neighbours are joined."""
CONCENTRATION = 0.001
"""Of the stick-breaking prior: little, so that modes which are not needed get no weight."""
ROUNDS = 500
"""Of the fit, at most."""


def fit_modes(found: Found, codes: np.ndarray) -> Column:
    """The column with its modes.

    Args:
        found: a column of numbers or dates.
        codes: (rows,) which of its different values each row has.
    """
    column, values = found.column, found.numbers
    assert values is not None
    x = values[codes]
    x = x[~np.isnan(x)]
    known, counts = np.unique(x, return_counts=True)
    common = counts >= max(COMMON * len(x), 2)
    column = replace(column, points=tuple(known[common].tolist()))
    known, counts = known[~common], counts[~common].astype(float)
    if not len(known):
        return column
    sizes = np.abs(np.repeat(known, counts.astype(int)))
    median = float(np.median(sizes))
    if len(sizes) > 100 and 0.0 < median < sizes.max() / TAIL:
        column = replace(column, squeeze=median)
    y, counts = _binned(column.scaled(known), counts)
    centre = float(np.average(y, weights=counts))
    spread = float(np.sqrt(np.average((y - centre) ** 2, weights=counts)))
    spread = max(spread, 1e-9 * max(1.0, abs(centre)))
    mixture = Mixture.fit((y - centre) / spread, counts, min(MODES, len(y)))
    kept = mixture.weights > LEAST_WEIGHT
    deviations = mixture.deviations[kept] * spread
    if column.kind == "integer" and not column.squeeze:
        # A mode narrower than the steps between whole numbers would make alphas of rounding alone.
        deviations = np.maximum(deviations, 0.25)
    return replace(
        column,
        means=tuple((mixture.means[kept] * spread + centre).tolist()),
        deviations=tuple(deviations.tolist()),
        weights=tuple((mixture.weights[kept] / mixture.weights[kept].sum()).tolist()),
    )


def _binned(y: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values and counts, `BINS` at most: neighbours of about equal counts are joined."""
    if len(y) <= BINS:
        return y, counts
    before = np.cumsum(counts) - counts
    _, starts = np.unique((before / counts.sum() * BINS).astype(int), return_index=True)
    joined = np.add.reduceat(counts, starts)
    return np.add.reduceat(y * counts, starts) / joined, joined


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on a line.

    Attributes:
        weights, means, deviations: (K,) float64.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def fit(cls, y: np.ndarray, counts: np.ndarray, components: int) -> Mixture:
        """Fit to values of mean 0 and variance 1.

        Args:
            y: (M,) different values, sorted.
            counts: (M,) how often each occurs.
            components: K at most; those without use end with weights near 0.
        """
        shares = _begin(y, counts, components)
        before, rounds = -np.inf, 0
        while True:
            rounds += 1
            # Bishop's (10.51)-(10.63), with prior mean 0, precision 1, one degree of freedom, scale 1.
            size = (counts @ shares).clip(1e-10)
            mean = (counts * y) @ shares / size
            scatter = counts @ (shares * (y[:, None] - mean) ** 2)
            beta, freedom = 1.0 + size, 1.0 + size
            centre = size * mean / beta
            scale = 1.0 + scatter + size / beta * mean**2
            # Blei and Jordan: E[log v_k] and E[log(1 - v_k)] of the sticks that weights are broken from.
            rest = CONCENTRATION + size[::-1].cumsum()[::-1] - size
            sticks, total = 1.0 + size, 1.0 + size + rest
            left = _digamma(rest) - _digamma(total)
            log_weight = _digamma(sticks) - _digamma(total) + left.cumsum() - left
            log_precision = _digamma(freedom / 2) + np.log(2) - np.log(scale)
            distance = 1.0 / beta + freedom * (y[:, None] - centre) ** 2 / scale
            logs = log_weight + 0.5 * (log_precision - np.log(2 * np.pi) - distance)
            highest = logs.max(1, keepdims=True)
            shares = np.exp(logs - highest)
            norm = shares.sum(1, keepdims=True)
            shares /= norm
            likelihood = float(counts @ (highest + np.log(norm))[:, 0] / counts.sum())
            if abs(likelihood - before) < 1e-6 or rounds == ROUNDS:
                break
            before = likelihood
        broken = np.concatenate([[1.0], np.cumprod(1.0 - sticks / total)[:-1]])
        return cls(sticks / total * broken, centre, np.sqrt(scale / freedom))


def _begin(y: np.ndarray, counts: np.ndarray, components: int) -> np.ndarray:
    """(M, K) shares to begin with: k-means from evenly spaced quantiles, ten rounds."""
    ranks = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    centres = np.interp((np.arange(components) + 0.5) / components, ranks, y)
    shares = np.zeros((len(y), components))
    for _ in range(10):
        nearest = np.abs(y[:, None] - centres).argmin(1)
        shares[:] = nearest[:, None] == np.arange(components)
        sizes = counts @ shares
        used = sizes > 0
        centres[used] = ((counts * y) @ shares)[used] / sizes[used]
    return shares


def _digamma(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).digamma().numpy()


def encode_numbers(column: Column, x: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (rows,), NaN where missing, to alphas float32 and modes int32.

    A number's mode is drawn, once and for all, by the modes' probabilities at it.
    """
    alphas = np.zeros(len(x), np.float32)
    places = np.full(len(x), column.places - 1, np.int32)  # where missing
    gaussian = len(column.means)
    free = ~np.isnan(x)
    for index, point in enumerate(column.points):
        here = x == point
        places[here] = gaussian + index
        free &= ~here
    rows = np.flatnonzero(free)
    if not len(rows):
        return alphas, places
    mean, deviation = np.array(column.means), np.array(column.deviations)
    offset = (column.scaled(x[rows])[:, None] - mean) / deviation
    logs = np.log(column.weights) - np.log(deviation) - 0.5 * offset**2
    logs[np.abs(offset) > WITHIN] -= 1e6  # beyond alpha's reach, unless it is so for all
    shares = np.exp(logs - logs.max(1, keepdims=True))
    edges = np.cumsum(shares, axis=1)
    draws = uniform(seed, 0, rows) * edges[:, -1]
    mode = (edges <= draws[:, None]).sum(1).clip(max=gaussian - 1)
    places[rows] = mode
    alphas[rows] = np.clip(offset[np.arange(len(rows)), mode] / WITHIN, -1.0, 1.0)
    return alphas, places


def encode_categories(column: Column, values: tuple[str, ...], codes: np.ndarray) -> np.ndarray:
    """Categories of rows to places int32; what is not among the column's values is rare."""
    known = {value: place for place, value in enumerate(column.values)}
    places = np.array([known.get(value, len(column.values)) for value in values], np.int32)
    return places[codes]
