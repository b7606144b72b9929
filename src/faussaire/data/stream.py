"""An infinite, seekable stream of examples whose whole state is one integer.

Example p of a table of N rows is row permutation_e[p mod N] of epoch e = p // N, and every epoch's
permutation follows from (seed, table, e) alone. So reading at any position, in any portions, on any
number of processes gives the same examples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

Table = Mapping[str, np.ndarray]

_EPOCHS_KEPT = 4


class Stream:
    """Shuffled examples without end.

    Args:
        tables: each maps field names to arrays with equal first axes: pictures and their labels
            are one table, the two domains of CycleGAN are two. Field names differ over all tables.
        seed: of the order and the mirroring, 0 <= seed < 2**64.
        flip: picture fields (N, H, W, ...) to mirror left-right with probability 1/2. The fields
            of one table are mirrored together, so that a picture and its mask stay a pair.
        rows: for each table the rows that are drawn, (K,) int64; None, or no list: all.
        rank, world: this process and their number; each reads its own share of every batch.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        *,
        seed: int,
        flip: Collection[str] = (),
        rows: Sequence[np.ndarray | None] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not among {world} processes")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed} is outside 0..2**64-1")
        # Plain views: indexing np.memmap objects costs Python code for each batch.
        self._tables = [{name: np.asarray(f) for name, f in table.items()} for table in tables]
        self._chosen = list(rows) if rows is not None else [None] * len(self._tables)
        self.lengths = [
            _length(table) if chosen is None else len(chosen)
            for table, chosen in zip(self._tables, self._chosen, strict=True)
        ]
        names = [name for table in self._tables for name in table]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"field names must be present and differ, not {names}")
        if unknown := set(flip) - set(names):
            raise ValueError(f"flip names {sorted(unknown)}, the fields are {names}")
        if flat := [n for t in self._tables for n in t if n in flip and t[n].ndim < 3]:
            raise ValueError(f"flip names {flat}, which have no width")
        self.fields = names
        self.flip = frozenset(flip)
        self.seed, self.rank, self.world = seed, rank, world
        self._orders: list[dict[int, np.ndarray]] = [{} for _ in self._tables]

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        """This rank's share of examples position..position+count-1, as new contiguous arrays.

        Returns:
            field -> (count / world, ...), of the field's own type.
        """
        if position < 0 or count < 1:
            raise ValueError(f"cannot read {count} examples at {position}")
        if count % self.world:
            raise ValueError(f"{count} examples cannot be shared equally by {self.world} processes")
        share = count // self.world
        first = position + self.rank * share
        batch: dict[str, np.ndarray] = {}
        for index, table in enumerate(self._tables):
            rows = self.rows(index, first, share)
            mirrored = self._mirrored(index, first, share) if self.flip & table.keys() else None
            for name, field in table.items():
                batch[name] = _gather(field, rows, mirrored if name in self.flip else None)
        return batch

    def rows(self, table: int, position: int, count: int) -> np.ndarray:
        """(count,) int64: which rows of a table stand at position..position+count-1."""
        length = self.lengths[table]
        parts: list[np.ndarray] = []
        while count > 0:
            epoch, start = divmod(position, length)
            part = self._order(table, epoch)[start : start + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        chosen = self._chosen[table]
        return found if chosen is None else chosen[found]

    def _order(self, table: int, epoch: int) -> np.ndarray:
        """The permutation of one epoch; the latest few are kept for batches across a border."""
        kept = self._orders[table]
        if epoch not in kept:
            if len(kept) >= _EPOCHS_KEPT:
                del kept[next(iter(kept))]
            # Sorting raw draws rather than `Generator.permutation`: NumPy keeps the former equal
            # over versions, and an interrupted run may resume under another version.
            key = np.array([self.seed, (table << 48) | epoch], np.uint64)
            draws = np.random.Philox(key=key).random_raw(self.lengths[table])
            kept[epoch] = np.argsort(draws, kind="stable")
        return kept[epoch]

    def _mirrored(self, table: int, position: int, count: int) -> np.ndarray:
        """(count,) bool from a hash of (seed, table, position), whatever the batch or rank."""
        counter = np.arange(position, position + count, dtype=np.uint64)
        salt = np.array([self.seed, table + 1], np.uint64)
        mixed = _mix(counter + _mix(salt[:1] + _mix(salt[1:])))
        return (mixed >> np.uint64(63)).astype(bool)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): uint64 -> uint64, wrapping."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _length(table: Table) -> int:
    lengths = {name: len(field) for name, field in table.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"the fields of a table need one equal length above 0, not {lengths}")
    return next(iter(lengths.values()))


def _gather(field: np.ndarray, rows: np.ndarray, mirrored: np.ndarray | None) -> np.ndarray:
    """field[rows], with the width (axis 2) reversed where `mirrored`."""
    out = field.take(rows, axis=0)
    if mirrored is not None:
        # A pixel's channels are moved as one value, which is 2.6 to 7 times as fast.
        whole = out.ndim == 4 and out.shape[3] > 1
        pixels = out.view(f"V{out.itemsize * out.shape[3]}")[..., 0] if whole else out
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
    return out
