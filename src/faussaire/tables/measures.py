"""How like real rows synthetic ones are, and how near to single real ones.

All of it takes `Plain` rows: numbers and places of categories, free of any family's encoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faussaire.tables.scores import Plain
from faussaire.tables.spec import TableSpec

_AT_ONCE = 256
"""Rows whose distances to others are computed together."""


@dataclass(frozen=True)
class Shape:
    """How like a real column a synthetic one is.

    Attributes:
        name: of the column.
        measure: `KS` for numbers (Kolmogorov and Smirnov: the largest distance between distribution
            functions), `TV` for categories (total variation: half the sum of differences of shares).
        value: 0 (alike) to 1; missing numbers count as a value below all others.
        unseen: the same between real rows that were trained on and those held out; NaN without any.
    """

    name: str
    measure: str
    value: float
    unseen: float


def shapes(spec: TableSpec, real: Plain, made: Plain, unseen: Plain | None = None) -> list[Shape]:
    """The likeness of each column that is learnt."""
    found = []
    for index, column in enumerate(spec.numeric):
        base = real.numbers[:, index]
        other = float("nan") if unseen is None else kolmogorov(base, unseen.numbers[:, index])
        value = kolmogorov(base, made.numbers[:, index])
        found.append(Shape(column.name, "KS", value, other))
    for index, column in enumerate(spec.discrete):
        base = real.codes[:, index]
        other = float("nan")
        if unseen is not None:
            other = total_variation(base, unseen.codes[:, index], column.places)
        value = total_variation(base, made.codes[:, index], column.places)
        found.append(Shape(column.name, "TV", value, other))
    return found


def kolmogorov(one: np.ndarray, two: np.ndarray) -> float:
    """The largest distance between the distribution functions of (N,) and (M,) numbers."""
    one, two = (np.sort(np.nan_to_num(x, nan=-np.inf, neginf=-np.inf)) for x in (one, two))
    at = np.concatenate([one, two])
    below = (np.searchsorted(x, at, side="right") / len(x) for x in (one, two))
    return float(np.abs(np.subtract(*below)).max())


def total_variation(one: np.ndarray, two: np.ndarray, places: int) -> float:
    """Half the sum of the differences of shares, of (N,) and (M,) codes below `places`."""
    shares = [np.bincount(codes, minlength=places) / len(codes) for codes in (one, two)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def associations(spec: TableSpec, rows: Plain) -> np.ndarray:
    """(K, K): how much each pair of learnt columns has to do with each other, numbers first.

    Two numbers: Pearson's correlation, -1 to 1. Two categories: Cramér's V, 0 to 1. A number and a
    category: the correlation ratio (eta), 0 to 1. Missing numbers are left out; 0 where a column does
    not vary.
    """
    numbers, count = rows.numbers, len(spec.numeric)
    total = count + len(spec.discrete)
    found = np.eye(total)
    for i in range(total):
        for j in range(i):
            if i < count:
                value = _pearson(numbers[:, i], numbers[:, j])
            elif j < count:
                value = _eta(
                    rows.codes[:, i - count], numbers[:, j], spec.discrete[i - count].places
                )
            else:
                first, second = spec.discrete[i - count], spec.discrete[j - count]
                codes = rows.codes[:, i - count] * second.places + rows.codes[:, j - count]
                table = np.bincount(codes, minlength=first.places * second.places)
                value = _cramer(table.reshape(first.places, second.places))
            found[i, j] = found[j, i] = value
    return found


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 2 or not x.std() or not y.std():
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _eta(codes: np.ndarray, x: np.ndarray, places: int) -> float:
    known = ~np.isnan(x)
    codes, x = codes[known], x[known]
    if len(x) < 2 or not (whole := float(((x - x.mean()) ** 2).sum())):
        return 0.0
    counts = np.bincount(codes, minlength=places)
    means = np.bincount(codes, weights=x, minlength=places) / np.maximum(counts, 1)
    return float(np.sqrt((counts * (means - x.mean()) ** 2).sum() / whole))


def _cramer(table: np.ndarray) -> float:
    """Cramér's V of counts (R, C), without rows and columns of none."""
    table = table[table.sum(1) > 0][:, table.sum(0) > 0].astype(float)
    if min(table.shape) < 2:
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    squared = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(squared / table.sum() / (min(table.shape) - 1)))


def pair_difference(one: np.ndarray, two: np.ndarray) -> float:
    """The mean absolute difference of two matrices of associations over pairs; 0 for one column."""
    upper = np.triu_indices(len(one), 1)
    return float(np.abs(one[upper] - two[upper]).mean()) if len(upper[0]) else 0.0


@dataclass(frozen=True)
class Privacy:
    """How near synthetic rows are to single real ones.

    Distances are Gower's (1971): the mean over columns of |x - y| / range for numbers, and of 0 or 1 for
    categories and for what is missing on one side.

    Attributes:
        rows: synthetic rows that were looked at.
        trained, unseen: median distance to the closest of as many training and held-out rows.
        real: the same from held-out rows to the closest training row: what a new real row has.
        nearer: share of synthetic rows whose closest row was trained on rather than held out (half for
            ties); .5 is what a model has that knows no row by heart.
        copies: share of synthetic rows that equal a training row.
        usual: share of held-out rows that equal a training row.
    """

    rows: int
    trained: float
    unseen: float
    real: float
    nearer: float
    copies: float
    usual: float


def privacy(
    spec: TableSpec, trained: Plain, unseen: Plain, made: Plain, *, most: int = 2000, seed: int = 0
) -> Privacy:
    """Distances to the closest record, against held-out rows.

    Args:
        spec: of the table.
        trained, unseen: real rows that were and were not trained on.
        made: synthetic rows.
        most: rows of each that are looked at; training rows of copies are all looked at.
        seed: of their choice.
    """
    rng = np.random.default_rng(seed)

    def some(rows: Plain, count: int) -> Plain:
        return rows.take(rng.permutation(len(rows))[:count])

    size = min(len(trained), len(unseen), 4 * most)
    looked = some(made, most)
    known, other = some(trained, size), some(unseen, size)
    spans = _spans(trained)
    to_known, to_other = (closest(looked, rows, spans) for rows in (known, other))
    new = closest(some(unseen, most), known, spans)
    ties = 0.5 * (to_known == to_other)
    return Privacy(
        rows=len(looked),
        trained=float(np.median(to_known)),
        unseen=float(np.median(to_other)),
        real=float(np.median(new)),
        nearer=float(((to_known < to_other) + ties).mean()),
        copies=copies(made, trained),
        usual=copies(unseen, trained),
    )


def copies(rows: Plain, of: Plain) -> float:
    """The share of rows that equal one of the others in all columns."""
    known = {*map(bytes, _bits(of))}
    return float(np.mean([bytes(row) in known for row in _bits(rows)])) if len(rows) else 0.0


def _bits(rows: Plain) -> np.ndarray:
    """(N, bytes): equal for equal rows."""
    numbers = np.nan_to_num(rows.numbers, nan=-np.inf, posinf=np.inf, neginf=-np.inf) + 0.0
    whole = np.concatenate([numbers, rows.codes.astype(np.float64)], axis=1)
    return np.ascontiguousarray(whole).view(np.uint8)


def _spans(rows: Plain) -> np.ndarray:
    """(A,) ranges of numbers; 1 where there is none."""
    if not rows.numbers.shape[1]:
        return np.ones(0)
    known = [x[~np.isnan(x)] for x in rows.numbers.T]
    low = np.array([x.min() if len(x) else 0.0 for x in known])
    high = np.array([x.max() if len(x) else 0.0 for x in known])
    return np.where(high > low, high - low, 1.0)


def closest(rows: Plain, others: Plain, spans: np.ndarray) -> np.ndarray:
    """(N,) Gower's distance of each row to the closest of the others."""
    columns = rows.numbers.shape[1] + rows.codes.shape[1]
    found = np.empty(len(rows))
    for first in range(0, len(rows), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        total = np.zeros((len(found[part]), len(others)), np.float32)
        for x, y, span in zip(rows.numbers[part].T, others.numbers.T, spans, strict=True):
            gaps = np.isnan(x)[:, None] != np.isnan(y)
            apart = np.abs((np.nan_to_num(x) / span)[:, None] - np.nan_to_num(y) / span)
            both = np.isnan(x)[:, None] & np.isnan(y)
            total += np.where(gaps, 1.0, np.where(both, 0.0, apart)).astype(np.float32)
        for x, y in zip(rows.codes[part].T, others.codes.T, strict=True):
            total += x[:, None] != y
        found[part] = total.min(1) / columns
    return found
