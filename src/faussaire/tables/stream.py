"""Training by sampling: a condition is drawn first, then a row that fulfils it.

Xu et al. 2019, arXiv 1907.00503, section 4.3: a discrete column is drawn uniformly, one of its values
by the logarithm of its frequency, and a real row among those that have it. So rare values are seen, and
the generator is asked for them, as often as their logarithm says.
"""

from __future__ import annotations

import numpy as np

from faussaire.tables.spec import TableSpec, uniform

_COLUMN, _VALUE, _ROW = range(3)


class ConditionStream:
    """Rows and conditions without end; example p is a function of (seed, p) alone.

    Args:
        spec: of the table, which has discrete columns.
        alphas: (rows, A) float32.
        places: (rows, blocks) int32: where the 1 of each one-hot vector is.
        rows: those that are drawn, (K,) int64; None: all.
        seed: of all draws.
        rank, world: this process and their number; each reads its own share of every batch.
    """

    def __init__(
        self,
        spec: TableSpec,
        alphas: np.ndarray,
        places: np.ndarray,
        *,
        seed: int,
        rows: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.seed, self.rank, self.world = seed, rank, world
        self._alphas, self._places = alphas, places
        self._rows = np.arange(len(places)) if rows is None else rows
        self._columns = len(spec.discrete)
        self._first = len(spec.numeric)
        # Of each value, in the order of conditions: its rows, its column's cumulated probabilities.
        widths = [column.places for column in spec.discrete]
        self._starts = np.cumsum([0, *widths])
        members, edges = [], []
        for index, width in enumerate(widths):
            places = self._places[self._rows, self._first + index]
            members.append(self._rows[np.argsort(places, kind="stable")])
            counts = np.bincount(places, minlength=width)
            # log(1 + n), as log n would never ask for a value that only one row has.
            logs = np.log1p(counts)
            edge = np.cumsum(logs) / logs.sum()
            edge[np.cumsum(counts) == len(self._rows)] = 1.0  # whatever rounding says
            edges.append((np.cumsum(counts) - counts, counts, edge))
        self._members = np.stack(members)
        self._begins = np.concatenate([begin for begin, _, _ in edges])
        self._counts = np.concatenate([count for _, count, _ in edges])
        # Column k's probabilities lie between k and k + 1: one search finds a value of any column.
        self._edges = np.concatenate([index + edge for index, (_, _, edge) in enumerate(edges)])

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        """This rank's share of examples position..position+count-1.

        Returns:
            `alphas` (N, A) float32, `places` (N, blocks) int32, and `condition` (N,) int64: which
            number of the condition vector is 1.
        """
        if position < 0 or count < 1:
            raise ValueError(f"cannot read {count} examples at {position}")
        if count % self.world:
            raise ValueError(f"{count} examples cannot be shared equally by {self.world} processes")
        share = count // self.world
        at = np.arange(position + self.rank * share, position + (self.rank + 1) * share)
        chance = uniform(self.seed, _ROW, at)
        column = (uniform(self.seed, _COLUMN, at) * self._columns).astype(np.int64)
        value = np.searchsorted(self._edges, column + uniform(self.seed, _VALUE, at), side="right")
        value = np.minimum(value, self._starts[column + 1] - 1)
        nth = self._begins[value] + (chance * self._counts[value]).astype(np.int64)
        rows = self._members[column, nth]
        return {"alphas": self._alphas[rows], "places": self._places[rows], "condition": value}
