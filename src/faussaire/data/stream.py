"""An infinite, seekable stream of examples whose whole state is one integer.

Example p of a table of N rows is row permutation_e[p mod N] of epoch e = p // N, and every epoch's
permutation follows from (seed, table, e) alone. So reading at any position, in any portions, on any
number of processes gives the same examples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Table = Mapping[str, np.ndarray]

_EPOCHS_KEPT = 4
_MIRROR, _CROP = 0, 1  # what a hash is for: mirroring must not follow from where a picture is cut


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the fields of one table are cut.

    Args:
        room: places that a cut can have in the smallest field, down and across.
        sizes: field -> (height, width) of its cut.
        times: field -> how many times it is as large as the smallest.
    """

    room: tuple[int, int]
    sizes: dict[str, tuple[int, int]]
    times: dict[str, int]


class Stream:
    """Shuffled examples without end.

    Args:
        tables: each maps field names to arrays with equal first axes: pictures and their labels
            are one table, the two domains of CycleGAN are two. Field names differ over all tables.
        seed: of the order and the mirroring, 0 <= seed < 2**64.
        flip: picture fields (N, H, W, ...) to mirror left-right with probability 1/2. The fields
            of one table are mirrored together, so that a picture and its mask stay a pair.
        crop: picture fields (N, H, W, ...) to cut to (h, w), each example at a random place, before
            mirroring. The fields of one table are cut at the same place; one that is m times as
            large as another, for super-resolution, is cut to m times the size at m times the place.
        rows: for each table the rows that are drawn, (K,) int64; None, or no list: all.
        rank, world: this process and their number; each reads its own share of every batch.

    Raises:
        ValueError: arguments that contradict each other or the fields.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        *,
        seed: int,
        flip: Collection[str] = (),
        crop: Mapping[str, tuple[int, int]] | None = None,
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
        if unknown := set(crop or ()) - set(names):
            raise ValueError(f"crop names {sorted(unknown)}, the fields are {names}")
        self._cuts = [_cut(table, crop or {}) for table in self._tables]
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
            cut = self._cuts[index]
            places = None if cut is None else self._places(index, cut, first, share)
            for name, field in table.items():
                if cut is None or places is None or name not in cut.sizes:
                    out = field.take(rows, axis=0)
                else:
                    out = _take_cut(field, rows, places * cut.times[name], cut.sizes[name])
                if mirrored is not None and name in self.flip:
                    _mirror(out, mirrored)
                batch[name] = out
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
        return (self._hash(_MIRROR, table, position, count) >> np.uint64(63)).astype(bool)

    def _places(self, table: int, cut: _Cut, position: int, count: int) -> np.ndarray:
        """(count, 2) int64: top and left of each cut in the table's smallest field."""
        mixed = self._hash(_CROP, table, position, count)
        halves = np.stack([mixed >> np.uint64(32), mixed & np.uint64(0xFFFFFFFF)], 1)
        # A 32-bit draw times the number of places, over 2**32: uniform to one part in 2**19.
        room = np.array(cut.room, np.uint64)
        return ((halves * room) >> np.uint64(32)).astype(np.int64)

    def _hash(self, purpose: int, table: int, position: int, count: int) -> np.ndarray:
        """(count,) uint64 from (seed, purpose, table, position)."""
        counter = np.arange(position, position + count, dtype=np.uint64)
        salt = np.array([self.seed, (purpose << 48) | (table + 1)], np.uint64)
        return _mix(counter + _mix(salt[:1] + _mix(salt[1:])))


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


def _cut(table: Table, crop: Mapping[str, tuple[int, int]]) -> _Cut | None:
    """How a table is cut; None where none of its fields is."""
    sizes = {name: (int(crop[name][0]), int(crop[name][1])) for name in table if name in crop}
    if not sizes:
        return None
    if flat := [name for name in sizes if table[name].ndim < 3]:
        raise ValueError(f"crop names {flat}, which have no height and width")
    whole = {name: (table[name].shape[1], table[name].shape[2]) for name in sizes}
    for name, (height, width) in sizes.items():
        tall, wide = whole[name]
        if not (1 <= height <= tall and 1 <= width <= wide):
            raise ValueError(f"'{name}' of {tall}x{wide} cannot be cut to {height}x{width}")
    least = min(whole, key=whole.__getitem__)
    times = {name: size[0] // whole[least][0] for name, size in whole.items()}
    for name, m in times.items():
        for what, of in (("size", whole), ("crop", sizes)):
            if of[name] != (of[least][0] * m, of[least][1] * m):
                raise ValueError(
                    f"fields of one table are cut at one place, and the {what} of '{name}', "
                    f"{of[name]}, is not that of '{least}', {of[least]}, or a multiple of it"
                )
    (tall, wide), (height, width) = whole[least], sizes[least]
    return _Cut((tall - height + 1, wide - width + 1), sizes, times)


def _take_cut(
    field: np.ndarray, rows: np.ndarray, places: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """field[rows], each cut to `size` at its place (top, left); nothing beside it is copied."""
    height, width = size
    out = np.empty((len(rows), height, width, *field.shape[3:]), field.dtype)
    for i, (row, (top, left)) in enumerate(zip(rows.tolist(), places.tolist(), strict=True)):
        out[i] = field[row, top : top + height, left : left + width]
    return out


def _mirror(pictures: np.ndarray, mirrored: np.ndarray) -> None:
    """Reverse the width (axis 2) where `mirrored`, in place."""
    # A pixel's channels are moved as one value, which is 2.6 to 7 times as fast.
    whole = pictures.ndim == 4 and pictures.shape[3] > 1
    pixels = (
        pictures.view(f"V{pictures.itemsize * pictures.shape[3]}")[..., 0] if whole else pictures
    )
    pixels[mirrored] = pixels[mirrored][:, :, ::-1]
