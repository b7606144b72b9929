"""What a pack will be: which pictures, what size, which channels, and under what name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from faussaire.core.errors import UserError, nearest
from faussaire.data.fit import Colour, Fit, tile_grid
from faussaire.data.labels import class_order
from faussaire.data.scan import ALPHA, ANIMATED, GREY, Scan
from faussaire.data.source import Source, digest

FORMAT = 1
Channels = Literal["auto", "L", "RGB", "RGBA"]
_COUNT = {"L": 1, "RGB": 3, "RGBA": 4}
_SMALL = 256
_DEFAULT = (64, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackOptions:
    """How pictures become an array.

    Args:
        resolution: (height, width) in pixels, one number for a square, or None: the pictures' own
            size where all are alike and at most 256 a side, else 64x64.
        channels: "L", "RGB", "RGBA", or "auto": L where no picture has a colour, else RGB.
        fit: "crop" fills and cuts, "pad" shows all on the background, "squash" distorts; "tiles"
            does not resize but cuts each picture into as many tiles of the resolution as fit.
        background: red, green and blue (0..255) behind transparent pixels and beside padded ones.
    """

    resolution: tuple[int, int] | int | None = None
    channels: Channels = "auto"
    fit: Fit = "crop"
    background: Colour = (255, 255, 255)

    def __post_init__(self) -> None:
        _one_of("channels", self.channels, get_args(Channels))
        _one_of("fit", self.fit, get_args(Fit))
        size = as_pair(self.resolution)
        if size is None and self.fit == "tiles":
            raise UserError(
                "fit=tiles was asked for without the size of the tiles.",
                "Give a resolution, such as 64 or 128.",
            )
        if size is not None and not all(1 <= side <= 8192 for side in size):
            raise UserError(
                f"The resolution {size[0]}x{size[1]} is outside 1..8192 pixels a side.",
                "Give (height, width), or one number for a square.",
            )
        if len(self.background) != 3 or not all(0 <= v <= 255 for v in self.background):
            raise UserError(
                f"The background {self.background} is not a colour.",
                "Give red, green and blue, each 0..255.",
            )


def _one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(
            f"{what}='{value}' is unknown.{nearest(str(value), allowed)}",
            f"Give one of {', '.join(allowed)}.",
        )


def as_pair(resolution: tuple[int, int] | int | None) -> tuple[int, int] | None:
    """One number means a square."""
    if isinstance(resolution, int):
        return resolution, resolution
    return resolution if resolution is None else (int(resolution[0]), int(resolution[1]))


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be packed.

    Args:
        rows: items of the source, in its order.
        size: (height, width), and why.
        mode: L, RGB or RGBA.
        classes: names; empty without labels.
        left_out: [{"name", "kind", "reason"}].
        notes: sentences for the user.
        grids: (len(rows), 2) int64, rows and columns of tiles of each item; None for other fits.
    """

    rows: np.ndarray
    size: tuple[int, int]
    why: str
    mode: str
    options: PackOptions
    classes: list[str]
    left_out: list[dict[str, str]]
    notes: list[str]
    grids: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """(len(rows),) int64: how many pictures of the pack each item becomes."""
        return np.ones(len(self.rows), np.int64) if self.grids is None else self.grids.prod(1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return int(self.counts.sum()), *self.size, _COUNT[self.mode]

    def names(self, source: Source) -> list[str]:
        """N names: the items' own, or `name#row,column` for tiles."""
        own = [source.listing.names[row] for row in self.rows.tolist()]
        if self.grids is None:
            return own
        return [
            f"{name}#{row},{column}"
            for name, (rows, columns) in zip(own, self.grids.tolist(), strict=True)
            for row in range(rows)
            for column in range(columns)
        ]

    def key(self, source: Source, seen: Scan) -> str:
        """Names the pack: equal for equal contents, names, labels and options."""
        names, labels = source.listing.names, source.listing.labels
        rows = [[names[r], seen.digests[r], labels[r] or ""] for r in self.rows.tolist()]
        fit_how = [self.size, self.mode, self.options.fit, self.options.background]
        out = [[o["name"], o["kind"]] for o in self.left_out]
        labelled = bool(self.classes)
        return digest(json.dumps([FORMAT, rows, fit_how, out, labelled], ensure_ascii=True))


def usable(source: Source, seen: Scan) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Rows to use, and [{"name", "kind", "reason"}] of those to leave out.

    Where some pictures have a label, those without are left out, unless the source is `partial`.
    """
    names, labels = source.listing.names, source.listing.labels
    left_out = [
        {"name": names[row], "kind": kind, "reason": reason}
        for row, (kind, reason) in sorted(seen.faults.items())
    ]
    good = seen.good
    if not source.partial and any(label is not None for label in labels):
        unlabelled = np.array([label is None for label in labels]) & good
        left_out += [
            {"name": names[row], "kind": "unlabelled", "reason": "has no label"}
            for row in np.flatnonzero(unlabelled).tolist()
        ]
        good &= ~unlabelled
    return np.flatnonzero(good), left_out


def make_plan(source: Source, seen: Scan, options: PackOptions) -> Plan:
    """Decide everything from the scan, before any pixel is written."""
    names, labels = source.listing.names, source.listing.labels
    rows, left_out = usable(source, seen)
    if len(rows) == 0:
        first = left_out[0] if left_out else {"name": "none", "reason": "the source is empty"}
        raise UserError(
            f"None of the {len(names)} pictures of '{source.path}' can be used "
            f"('{first['name']}': {first['reason']}).",
            "Run `faussaire check` on it for the whole list.",
        )
    if source.complete and left_out:
        raise UserError(
            f"'{left_out[0]['name']}' of '{source.path}' could be read before and cannot now "
            f"({left_out[0]['reason']}).",
            "Start again when nothing writes to the pictures any more.",
        )
    mode = choose_channels(seen, rows, options.channels)
    size, why = choose_resolution(seen, rows, as_pair(options.resolution))
    notes = list(source.notes) + _notes(seen, rows, left_out, mode, options)
    classes = class_order([label for r in rows.tolist() if (label := labels[r]) is not None])
    grids = None
    if options.fit == "tiles":
        grids = tile_grids(seen, rows, size)
        notes += _tile_notes(seen, rows, size, grids)
    return Plan(rows, size, why, mode, options, classes, left_out, notes, grids)


def tile_grids(seen: Scan, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(len(rows), 2) int64: rows and columns of tiles of each item, as `fit.tile_grid` has them."""
    grids = [tile_grid((height, width), size) for height, width in seen.sizes[rows].tolist()]
    return np.array(grids, np.int64).reshape(-1, 2)


def _tile_notes(
    seen: Scan, rows: np.ndarray, size: tuple[int, int], grids: np.ndarray
) -> list[str]:
    height, width = size
    notes = [
        f"{int(grids.prod(1).sum()):,} tiles of {height}x{width} were cut of {len(rows):,} pictures."
    ]
    if small := int((seen.sizes[rows] < size).any(1).sum()):
        notes.append(f"{small:,} pictures are smaller than a tile and were enlarged to give one.")
    return notes


def choose_channels(seen: Scan, rows: np.ndarray, asked: Channels) -> str:
    """ "auto" loses no colour: L where all pictures are grey, else RGB. Never RGBA unasked."""
    if asked != "auto":
        return asked
    return "L" if (seen.flags[rows] & GREY).all() else "RGB"


def choose_resolution(
    seen: Scan, rows: np.ndarray, asked: tuple[int, int] | None
) -> tuple[tuple[int, int], str]:
    """(height, width) and the reason in words."""
    if asked is not None:
        return asked, "as asked"
    sizes = Counter(map(tuple, seen.sizes[rows].tolist()))
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) == 1 and max(height, width) <= _SMALL:
        return (height, width), f"all pictures have {height}x{width} pixels"
    if len(sizes) == 1:
        return _DEFAULT, f"the pictures' own {height}x{width} is large; ask for more if you want it"
    return _DEFAULT, f"the pictures have {len(sizes)} different sizes"


def _notes(
    seen: Scan,
    rows: np.ndarray,
    left_out: list[dict[str, str]],
    mode: str,
    options: PackOptions,
) -> list[str]:
    notes: list[str] = []
    if left_out:
        notes.append(
            f"{len(left_out)} pictures were left out; the first is '{left_out[0]['name']}': "
            f"{left_out[0]['reason']}."
        )
    clear = int(np.count_nonzero(seen.flags[rows] & ALPHA))
    if clear and mode != "RGBA":
        red, green, blue = options.background
        notes.append(
            f"{clear} pictures have transparent pixels, shown on the background "
            f"({red}, {green}, {blue}); channels=RGBA keeps them transparent."
        )
    moving = int(np.count_nonzero(seen.flags[rows] & ANIMATED))
    if moving:
        notes.append(f"Of {moving} animated pictures only the first frame is used.")
    return notes
