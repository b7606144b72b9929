"""Pairs of pictures: an input and its target, from two sets or from pictures side by side.

A pair is two sources of equal length whose rows belong together, so that all that reads one set
(`scan`, `check`, `pack`) reads each side:
```
with open_pair("photos", "masks") as pair:
    for_inputs, for_targets = aligned_options(pair, PackOptions(resolution=256))
    inputs, targets = pack(pair.inputs, for_inputs), pack(pair.targets, for_targets)
```
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.decode import Fault, decode
from faussaire.data.fit import to_array
from faussaire.data.matching import Match, examples, match, match_and_say
from faussaire.data.parallel import Progress
from faussaire.data.plan import PackOptions, as_pair, choose_resolution, usable
from faussaire.data.scan import Scan, scan
from faussaire.data.source import Closing, Listing, Source, content_digest, digest
from faussaire.data.sources import open_source

__all__ = ["Halves", "Match", "Pair", "Subset", "aligned_options", "match", "open_pair"]

_SINGLE = 1.4  # width:height below which a picture is one picture: 4:3 is, two portraits are not
_DOUBLE = (1.8, 2.2)  # width:height of two squares side by side, or nearly
_SAME_SHAPE = 0.02  # by how much the proportions of partners may differ unnoticed


class Subset(Source):
    """Chosen rows of another source, in a given order. Closes with it.

    Args:
        source: the whole.
        rows: which of its items, each at most once.
        digests: the content hashes of these rows when they were chosen. If given, the part is
            complete: each row must have its content still, and `pack` raises rather than leave any
            of them out.

    Raises:
        ValueError: a row that the source does not have, or one twice.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[int] | np.ndarray,
        *,
        digests: Sequence[str] | None = None,
    ) -> None:
        super().__init__(source.path, source.classes)
        self.kind = source.kind
        self.source = source
        self.rows = np.array(rows, np.int64).reshape(-1)
        self.digests = (
            None if digests is None else dict(zip(self.rows.tolist(), digests, strict=True))
        )
        self.complete = digests is not None or source.complete
        # The source's own lists, because it adds to them when it is first read.
        self.notes, self.skipped = source.notes, source.skipped
        if len(np.unique(self.rows)) < len(self.rows):
            raise ValueError("a row is chosen twice, and names of a source differ")
        if len(self.rows) and (self.rows.min() < 0 or self.rows.max() >= len(source)):
            raise ValueError(f"rows {self.rows.min()}..{self.rows.max()} of {len(source)} items")

    @property
    def identity(self) -> str:
        return digest("subset", self.source.identity, self.rows.tobytes())

    @property
    def scanned_as(self) -> tuple[str, ...]:
        return (self.source.identity, *self.source.scanned_as)

    def _list(self) -> Listing:
        whole, rows = self.source.listing, self.rows.tolist()
        return Listing(
            [whole.names[row] for row in rows],
            [whole.labels[row] for row in rows],
            [whole.tokens[row] for row in rows],
            rows,
        )

    def _raw(self, place: int) -> bytes | np.ndarray:
        raw = self.source[place].raw()
        # Halves of a picture are scanned on their own, each at its time, and must be of one content.
        if self.digests is not None and content_digest(raw) != self.digests[place]:
            raise Fault("unreadable", "its content changed")
        return raw

    def _stamp(self) -> Iterable[str]:
        return (self.source.stamp(),)

    def block(self, start: int, stop: int) -> np.ndarray | None:
        rows = self.rows[start:stop]
        if len(rows) == 0:
            return None
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        parts: list[np.ndarray] = []
        for run in np.split(rows, ends):  # neighbours in the source are read at once
            part = self.source.block(int(run[0]), int(run[-1]) + 1)
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        super().close()
        self.source.close()


class Halves(Source):
    """The left or the right half of every picture of a source, as pix2pix's sets store pairs.

    The middle column of an odd width belongs to neither half. Closes with its source.

    Args:
        source: pictures side by side.
        side: which half.
    """

    def __init__(self, source: Source, side: Literal["left", "right"]) -> None:
        if side not in ("left", "right"):
            raise ValueError(f"a picture has a left and a right half, not '{side}'")
        super().__init__(source.path, source.classes)
        self.kind = source.kind
        self.source, self.side = source, side
        self.complete = source.complete
        self.notes, self.skipped = source.notes, source.skipped

    @property
    def identity(self) -> str:
        return digest("half", self.side, self.source.identity)

    def _list(self) -> Listing:
        whole = self.source.listing
        return replace(whole, places=list(range(len(whole.names))))

    def _half(self, pixels: np.ndarray) -> np.ndarray:
        """(..., H, W, C) -> (..., H, W // 2, C), contiguous."""
        half = pixels.shape[-2] // 2
        cut = slice(half) if self.side == "left" else slice(pixels.shape[-2] - half, None)
        return np.ascontiguousarray(pixels[..., cut, :])

    def _raw(self, place: int) -> np.ndarray:
        raw = self.source[place].raw()
        pixels = raw if isinstance(raw, np.ndarray) else to_array(decode(raw).image)
        if pixels.shape[1] < 2:
            raise Fault("unreadable", "is 1 pixel wide, so it has no halves")
        return self._half(pixels)

    def _stamp(self) -> Iterable[str]:
        return (self.source.stamp(),)

    def block(self, start: int, stop: int) -> np.ndarray | None:
        whole = self.source.block(start, stop)
        return None if whole is None else self._half(whole)

    def close(self) -> None:
        super().close()
        self.source.close()


@dataclass(frozen=True, slots=True)
class Pair(Closing):
    """Inputs and targets of equal length, aligned row by row.

    Args:
        inputs, targets: complete sources: `pack` of either has all its rows, or raises.
        seen: what was found of the inputs and of the targets, row by row; with `halves`, of the
            whole pictures, but for the sizes.
        alone: pictures without a usable partner: [{"name", "side", "reason"}], side "input" or
            "target".
        notes: sentences for the user.
    """

    inputs: Source
    targets: Source
    seen: tuple[Scan, Scan]
    alone: list[dict[str, str]]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.inputs)

    def close(self) -> None:
        """Close both sides."""
        self.inputs.close()
        self.targets.close()


def open_pair(
    source: Source | str | Path,
    target: Source | str | Path | None = None,
    *,
    halves: bool = False,
    classes: str = "none",
    workers: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Pair:
    """Open inputs and their targets, and read each picture once to know that it can be used.

    Args:
        source: the inputs, as `open_source` takes them or opened; closed with the pair.
        target: the targets, paired by name with `match`. None with `halves`.
        halves: the left half of each picture of `source` is the input, the right one its target.
        classes: as in `open_source`, of the inputs; targets have no classes.
        workers, progress, cache: as in `scan`.

    Raises:
        UserError: a side without pictures, one set given as both sides, no pairs, none that can be
            read, or halves of pictures that are not side by side.
    """
    if (target is None) != halves:
        raise UserError(
            "Both targets and halves were given."
            if halves
            else f"'{_path(source)}' was given without targets.",
            "Give a second set of pictures with the same names, or halves=True where each picture "
            "shows input and target side by side.",
        )
    with contextlib.ExitStack() as opened:

        def open_side(side: Source | str | Path, of: str) -> Source:
            if not isinstance(side, Source):
                side = open_source(side, classes=of)
            opened.enter_context(side)
            if len(side) == 0:
                raise UserError(f"'{side.path}' holds no pictures.", "Give a set with some.")
            return side

        if target is None:
            whole = open_side(source, classes)
            pair = _halved(whole, scan(whole, workers=workers, progress=progress, cache=cache))
        else:
            _not_twice(source, target)
            a, b = open_side(source, classes), open_side(target, "none")
            matched, notes = _match(a, b)
            seen = [scan(s, workers=workers, progress=progress, cache=cache) for s in (a, b)]
            pair = _joined((a, b), (seen[0], seen[1]), matched, notes)
        opened.pop_all()  # from here on the pair closes them
    return pair


def aligned_options(pair: Pair, options: PackOptions) -> tuple[PackOptions, PackOptions]:
    """Options for both sides that keep partners alike: one resolution; channels stay each side's.

    Where none is asked for, the targets decide, for they are what is made: their own size where
    all are alike and small, else the usual one.

    Raises:
        UserError: tiles of partners that differ in size, which would not show the same places.
    """
    size = as_pair(options.resolution)
    if size is None:
        size, _ = choose_resolution(pair.seen[1], np.arange(len(pair)), None)
    if options.fit == "tiles":
        inputs, targets = pair.seen[0].sizes, pair.seen[1].sizes
        other = np.flatnonzero((inputs != targets).any(1))
        if len(other):
            row = int(other[0])
            raise UserError(
                f"fit=tiles needs partners of one size, and {len(other):,} of {len(pair):,} pairs "
                f"have two: {_sizes_of(pair, row)}.",
                "Choose fit=crop, pad or squash, or give pictures of equal size.",
            )
    aligned = replace(options, resolution=size)
    return aligned, aligned


def _path(source: Source | str | Path) -> str:
    return source.path if isinstance(source, Source) else str(source)


def _not_twice(source: Source | str | Path, target: Source | str | Path) -> None:
    a, b = _path(source), _path(target)
    here, there = Path(a).expanduser(), Path(b).expanduser()
    if source is target or a == b or (here.exists() and there.exists() and here.samefile(there)):
        raise UserError(
            f"'{a}' was given as inputs and as targets.",
            "Give two sets, or halves=True where each picture shows both side by side.",
        )


def _match(a: Source, b: Source) -> tuple[Match, list[str]]:
    """Pairs by name. A side that lies in a folder of the other's is not part of the other."""
    inner = [_inside(outer, other) for outer, other in ((a, b), (b, a))]
    names = [
        [name for name in side.listing.names if prefix is None or not name.startswith(prefix)]
        for side, prefix in zip((a, b), inner, strict=True)
    ]
    found, notes = match_and_say(names[0], names[1])
    if len(found.rows_a) == 0:
        reasons = [r for r in found.alone_a.values() if not r.startswith("no picture")]
        because = f" ({reasons[0]})" if reasons else ""
        raise UserError(
            f"No picture of '{a.path}' has a partner in '{b.path}'{because}: the inputs are called "
            f"{examples(names[0]) or 'nothing'}, the targets {examples(names[1]) or 'nothing'}.",
            "Give the two pictures of a pair the same name, or names that end in _A and _B.",
        )
    if inner == [None, None]:
        return found, notes
    back = [
        np.flatnonzero(
            [prefix is None or not name.startswith(prefix) for name in side.listing.names]
        )
        for side, prefix in zip((a, b), inner, strict=True)
    ]
    alone = [
        {int(back[i][row]): why for row, why in side.items()}
        for i, side in enumerate((found.alone_a, found.alone_b))
    ]
    return Match(back[0][found.rows_a], back[1][found.rows_b], alone[0], alone[1]), notes


def _inside(outer: Source, inner: Source) -> str | None:
    """How the names of `outer` begin that are pictures of `inner`, if it lies within."""
    if outer.kind != "folder" or inner.kind != "folder":
        return None
    here, there = Path(outer.path).resolve(), Path(inner.path).resolve()
    return f"{there.relative_to(here).as_posix()}/" if there.is_relative_to(here) else None


def _joined(
    sides: tuple[Source, Source], seen: tuple[Scan, Scan], found: Match, notes: list[str]
) -> Pair:
    """The matched rows of which both pictures can be used."""
    listed = (sides[0].listing.names, sides[1].listing.names)
    words = ("input", "target")
    alone = [
        {"name": listed[i][row], "side": words[i], "reason": reason}
        for i, reasons in enumerate((found.alone_a, found.alone_b))
        for row, reason in sorted(reasons.items())
    ]
    if alone:
        notes.append(
            f"{len(alone):,} pictures have no partner; the first is {alone[0]['side']} "
            f"'{alone[0]['name']}': {alone[0]['reason']}."
        )
    bad = [_unusable(side, scanned) for side, scanned in zip(sides, seen, strict=True)]
    kept: list[tuple[int, int]] = []
    broken: list[dict[str, str]] = []
    for pair in zip(found.rows_a.tolist(), found.rows_b.tolist(), strict=True):
        reasons = [bad[i].get(row) for i, row in enumerate(pair)]
        if reasons == [None, None]:
            kept.append(pair)
            continue
        for i, row in enumerate(pair):
            reason = reasons[i] or f"its partner '{listed[1 - i][pair[1 - i]]}' cannot be used"
            broken.append({"name": listed[i][row], "side": words[i], "reason": reason})
    if broken:
        first = next(entry for entry in broken if not entry["reason"].startswith("its partner"))
        notes.append(
            f"{len(found.rows_a) - len(kept):,} pairs were left out, because one picture cannot be "
            f"used; the first is {first['side']} '{first['name']}': {first['reason']}."
        )
        if not kept:
            raise UserError(
                f"None of the {len(found.rows_a):,} pairs of '{sides[0].path}' and "
                f"'{sides[1].path}' can be used ('{first['name']}': {first['reason']}).",
                "Run `faussaire check` on each of them for the whole list.",
            )
    rows = np.array(kept, np.int64)
    taken = [_take(seen[i], rows[:, i]) for i in (0, 1)]
    chosen = [Subset(sides[i], rows[:, i], digests=taken[i].digests) for i in (0, 1)]
    pair = Pair(chosen[0], chosen[1], (taken[0], taken[1]), alone + broken, notes)
    notes += _shape_notes(pair)
    return pair


def _halved(whole: Source, seen: Scan) -> Pair:
    """Pictures side by side -> their left halves and their right ones."""
    bad = _unusable(whole, seen)
    for row in np.flatnonzero(seen.good & (seen.sizes[:, 1] < 2)).tolist():
        bad[row] = "it is 1 pixel wide, so it has no halves"
    names = whole.listing.names
    alone = [
        {"name": names[row], "side": side, "reason": bad[row]}
        for row in sorted(bad)
        for side in ("input", "target")
    ]
    rows = np.array([row for row in range(len(names)) if row not in bad], np.int64)
    if len(rows) == 0:
        first = alone[0]
        raise UserError(
            f"None of the {len(names):,} pictures of '{whole.path}' can be used "
            f"('{first['name']}': {first['reason']}).",
            "Run `faussaire check` on it for the whole list.",
        )
    notes: list[str] = []
    if alone:
        notes.append(
            f"{len(bad):,} pictures were left out; the first is '{alone[0]['name']}': "
            f"{alone[0]['reason']}."
        )
    sizes = seen.sizes[rows]
    ratio = sizes[:, 1] / sizes[:, 0]
    low, high = _DOUBLE
    odd = np.flatnonzero((ratio < low) | (ratio > high))
    if len(odd):
        tall, wide = sizes[odd[0]].tolist()
        words = (
            f"{len(odd):,} of {len(rows):,} pictures of '{whole.path}' are not about twice as wide "
            f"as tall (the first is '{names[rows[odd[0]]]}', {wide}x{tall} pixels)"
        )
        if float(np.median(ratio)) < _SINGLE:
            raise UserError(
                f"{words}, so they hardly show an input and its target side by side.",
                "Give inputs and targets as two sets with the same names.",
            )
        notes.append(f"{words}; look whether each shows an input and its target side by side.")
    taken = _take(seen, rows)
    chosen = Subset(whole, rows, digests=taken.digests)
    half = replace(taken, sizes=np.stack([sizes[:, 0], sizes[:, 1] // 2], 1).astype(np.int32))
    return Pair(Halves(chosen, "left"), Halves(chosen, "right"), (half, half), alone, notes)


def _unusable(source: Source, seen: Scan) -> dict[int, str]:
    """row -> why it cannot be used, as `pack` would say."""
    rows, left_out = usable(source, seen)
    reasons = {entry["name"]: entry["reason"] for entry in left_out}
    good = set(rows.tolist())
    return {row: reasons[n] for row, n in enumerate(source.listing.names) if row not in good}


def _take(seen: Scan, rows: np.ndarray) -> Scan:
    """A scan's rows, none of which has a fault."""
    picked = rows.tolist()
    return Scan(
        [seen.digests[row] for row in picked],
        [seen.modes[row] for row in picked],
        seen.sizes[rows],
        seen.flags[rows],
        seen.thumbs[rows],
        {},
    )


def _shape_notes(pair: Pair) -> list[str]:
    """What is odd about partners that can all be used."""
    notes: list[str] = []
    inputs, targets = pair.seen
    if inputs.digests == targets.digests:
        notes.append("Inputs and targets are the same pictures, so there is nothing to learn.")
    ratio = [s.sizes[:, 1] / s.sizes[:, 0] for s in pair.seen]
    differ = np.flatnonzero(np.abs(ratio[0] / ratio[1] - 1) > _SAME_SHAPE)
    if len(differ):
        notes.append(
            f"In {len(differ):,} of {len(pair):,} pairs the two pictures differ in shape "
            f"({_sizes_of(pair, int(differ[0]))}), so that cropped they may show different parts."
        )
    return notes


def _sizes_of(pair: Pair, row: int) -> str:
    """'a.png' 40x30 and 'a.jpg' 64x64: the partners of a row, width first."""
    words: list[str] = []
    for source, seen in zip((pair.inputs, pair.targets), pair.seen, strict=True):
        tall, wide = seen.sizes[row].tolist()
        words.append(f"'{source.listing.names[row]}' {wide}x{tall}")
    return " and ".join(words)
