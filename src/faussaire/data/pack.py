"""Pictures of any kind -> one memory-mapped uint8 array of one shape, built once.

```
<cache>/packs/<key>/pixels.npy   uint8 (N, H, W, C), in the order of the source
                    labels.npy   int64 (N,), where pictures have classes; -1: this one has none
                    meta.json    names, classes, options, what was left out and why
<cache>/stamps/<stamp>.json      what this source, untouched since, was packed to
```
The key is a hash of the contents, names, labels and options, so a folder that moves is not packed
again, and a changed file is. The stamp spares the next start from reading any content.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.cache import (
    cache_dir,
    locked,
    need_space,
    new_folder,
    read_json,
    remember,
    sweep,
    writable,
)
from faussaire.data.decode import Fault, decode, decoding
from faussaire.data.fit import fit, from_array, tiles, to_array, to_channels
from faussaire.data.parallel import Progress, cores, ordered
from faussaire.data.plan import FORMAT, PackOptions, Plan, make_plan
from faussaire.data.scan import Scan, scan
from faussaire.data.source import Source, content_digest, digest
from faussaire.data.sources import open_source

__all__ = ["Images", "PackOptions", "load", "pack"]

_TILES_BYTES = 512 << 20  # of tiles that wait to be written


@dataclass(frozen=True, slots=True)
class Images:
    """Packed pictures.

    Args:
        pixels: uint8 (N, H, W, C), read-only and memory-mapped.
        labels: int64 (N,) indices into `classes`, or None; of a `partial` source -1 where a picture has
            no label.
        classes: class names; empty without labels.
        names: each picture's name in its source; of tiles, `name#row,column`.
        key: of the content and the options; equal keys mean equal arrays.
        meta: everything in meta.json, with "resolution_why", "notes" and "left_out"; of tiles also
            "pictures", the number of pictures that they were cut of.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    classes: list[str]
    names: list[str]
    key: str
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return self.pixels.shape[3]

    @property
    def mode(self) -> str:
        """L, RGB or RGBA."""
        return self.meta["mode"]

    @property
    def left_out(self) -> list[dict[str, str]]:
        """Pictures that could not be used: [{"name", "kind", "reason"}]."""
        return self.meta["left_out"]

    @property
    def notes(self) -> list[str]:
        """What the user should know of the packing, as sentences."""
        return self.meta["notes"]


def pack(
    source: Source | str | Path,
    options: PackOptions | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Images:
    """Pack a source, or find it packed.

    Args:
        source: an opened source, or what `open_source` takes.
        workers: threads; all cores if None.
        progress: called as progress(what, done, total).
        cache: the cache folder; `FAUSSAIRE_CACHE` or the platform's if None.

    Raises:
        UserError: no picture is usable, the disk is full, the cache cannot be written.
    """
    if not isinstance(source, Source):
        with open_source(source) as opened:
            return pack(opened, options, workers=workers, progress=progress, cache=cache)
    options = options or PackOptions()
    root = cache or cache_dir()
    packs = root / "packs"
    stamp = digest(str(FORMAT), source.stamp(), json.dumps(asdict(options)))
    stamp_file = root / "stamps" / f"{stamp}.json"
    known = read_json(stamp_file)
    if known is not None and (found := load(packs / str(known.get("key")))) is not None:
        return found
    seen = scan(source, workers=workers, progress=progress, cache=root)
    source.block(0, 1)  # an array has remarks to make of its values, once it is read
    plan = make_plan(source, seen, options)
    key = plan.key(source, seen)
    images = load(packs / key)  # before the lock: a cache that is only readable serves what it has
    if images is None:
        writable(packs)
        with locked(packs / f"{key}.lock", progress):
            images = load(packs / key)  # another process may have built it meanwhile
            if images is None:
                sweep(packs, key)
                _build(packs / key, source, seen, plan, workers, progress)
                images = load(packs / key)
    if images is None:
        raise UserError(
            f"The pack '{packs / key}' was written but cannot be read back.",
            "Check the disk, or set FAUSSAIRE_CACHE to another folder.",
        )
    remember(stamp_file, json.dumps({"key": key}).encode())
    return images


def load(folder: Path) -> Images | None:
    """Open a pack; None if it is absent or damaged (a wrong size, or headers that disagree)."""
    meta = read_json(folder / "meta.json")
    if meta is None or meta.get("format") != FORMAT:
        return None
    try:
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        labels = None
        if meta["labelled"]:
            labels = np.load(folder / "labels.npy", allow_pickle=False)
        size = (folder / "pixels.npy").stat().st_size
    except (OSError, ValueError, EOFError, KeyError):
        return None
    right = pixels.dtype == np.uint8 and list(pixels.shape) == meta["shape"]
    whole = size == meta["bytes"] and (labels is None or labels.shape == pixels.shape[:1])
    if not (right and whole):
        return None
    return Images(pixels, labels, meta["classes"], meta["names"], folder.name, meta)


def _build(
    folder: Path,
    source: Source,
    seen: Scan,
    plan: Plan,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Write a pack; hold its lock."""
    needed = int(np.prod(plan.shape, dtype=np.int64)) + 8 * plan.shape[0]
    need_space(folder.parent, needed)
    labels = source.listing.labels
    with new_folder(folder, needed) as temporary:
        # Written as a plain file: on a full disk a memory map would die of SIGBUS, not raise.
        with (temporary / "pixels.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": plan.shape}
            np.lib.format.write_array_header_2_0(file, header)
            write_pixels(file, source, seen, plan, workers, progress)
            size = file.tell()
        if plan.classes:
            index = {name: i for i, name in enumerate(plan.classes)}
            own = (labels[r] for r in plan.rows.tolist())
            values = [-1 if label is None else index[label] for label in own]
            values = np.repeat(np.array(values, np.int64), plan.counts)
            np.save(temporary / "labels.npy", values, allow_pickle=False)
        meta = {
            "format": FORMAT,
            "shape": plan.shape,
            "bytes": size,
            "mode": plan.mode,
            "labelled": bool(plan.classes),
            "classes": plan.classes,
            "class_counts": _class_counts(plan, labels),
            "source": {"kind": source.kind, "path": source.path, "classes": source.classes},
            "options": asdict(plan.options),
            "resolution_why": plan.why,
            "notes": plan.notes,
            "left_out": plan.left_out,
            "names": plan.names(source),
        }
        if plan.grids is not None:
            meta["pictures"] = len(plan.rows)
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="ascii")


def _class_counts(plan: Plan, labels: Sequence[str | None]) -> list[int]:
    counts: Counter[str | None] = Counter()
    for row, count in zip(plan.rows.tolist(), plan.counts.tolist(), strict=True):
        counts[labels[row]] += count
    return [counts[name] for name in plan.classes]


def write_pixels(
    file: BinaryIO,
    source: Source,
    seen: Scan,
    plan: Plan,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Append every planned picture to the file, in order."""
    rows = plan.rows
    in_array = source.block(0, 1) is not None
    as_is = in_array and bool(
        (seen.sizes[rows] == plan.size).all() and source.block(0, 1).shape[3] == plan.shape[3]  # pyright: ignore
    )

    def make(start: int, stop: int) -> tuple[int, bytes]:
        part = rows[start:stop].tolist()
        if as_is and len(part) == part[-1] - part[0] + 1:
            block = source.block(part[0], part[-1] + 1)
            assert block is not None
            return stop, block.tobytes()
        return stop, b"".join(_one(source, row, seen, plan).tobytes() for row in part)

    # Large pictures in small portions, so that memory stays small and the bar moves.
    each = max(1, int(np.prod(plan.shape[1:])) * int(plan.counts.max()))
    if plan.grids is not None:
        # All tiles of a picture come at once, about three times a worker: a bound for large ones.
        workers = min(workers or cores(), max(1, _TILES_BYTES // (3 * each)))
    chunk = max(1, min(1024 if as_is else 64, (8 << 20) // each))
    if in_array and plan.rows.size and int(seen.sizes[rows].prod(1).max()) <= 64 * 64:
        workers = 1  # nothing to decode and little to resize: threads only wait for each other
    with decoding():
        for done, data in ordered(make, len(rows), chunk, workers):
            file.write(data)
            if progress is not None:
                progress("packing", done, len(rows))
    file.flush()
    os.fsync(file.fileno())


def _one(source: Source, row: int, seen: Scan, plan: Plan) -> np.ndarray:
    """One finished picture, uint8 (H, W, C), or all its tiles, uint8 (n, H, W, C)."""
    item = source[row]
    try:
        raw = item.raw()
        # The key promises this very content, so a file that changed since the scan must not pass.
        if content_digest(raw) != seen.digests[row]:
            raise Fault("unreadable", "its content changed")
        image = from_array(raw) if isinstance(raw, np.ndarray) else decode(raw).image
    except Fault as fault:
        raise UserError(
            f"'{item.name}' changed while the pictures were packed ({fault.reason}).",
            "Start again when nothing writes to the pictures any more.",
        ) from fault
    background = plan.options.background
    image = to_channels(image, plan.mode, background)
    if plan.options.fit == "tiles":
        return tiles(image, plan.size)
    return to_array(fit(image, plan.size, plan.options.fit, background))
