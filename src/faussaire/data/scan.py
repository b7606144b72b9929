"""One reading of every picture: size, mode, content hash and a thumbnail, or what is wrong with it.

`check` words what a scan found, and `pack` needs it to choose channels and resolution and to name
its cache. A scan is remembered per source, item by item: adding ten pictures to 60,000 reads ten.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from faussaire.data.cache import cache_dir, npz_bytes, remember
from faussaire.data.decode import Decoded, Fault, FaultKind, decode, decoding
from faussaire.data.fit import from_array, on_background
from faussaire.data.parallel import Progress, ordered
from faussaire.data.source import Listing, Source, content_digest

FORMAT = 1
GREY, ALPHA, ANIMATED = 1, 2, 4
THUMB = (8, 9)
_ROW = 8 * 9 + 3
_FULL_ENOUGH = 128  # a JPEG may be read at a scale that keeps at least this many pixels a side


@dataclass(slots=True)
class Scan:
    """What was seen, one row an item, in the order of the source.

    Args:
        digests: content hash; "" where the bytes could not be had.
        modes: Pillow's mode as stored; "" for a fault.
        sizes: (N, 2) int32, height and width upright; 0 for a fault.
        flags: (N,) uint8 of GREY (no colour), ALPHA (some pixel is transparent), ANIMATED.
        thumbs: (N, 75) uint8: 8x9 grey on white, then the mean red, green and blue.
        faults: row -> (kind, reason).
    """

    digests: list[str]
    modes: list[str]
    sizes: np.ndarray
    flags: np.ndarray
    thumbs: np.ndarray
    faults: dict[int, tuple[FaultKind, str]]

    @property
    def good(self) -> np.ndarray:
        """(N,) bool: the rows without a fault."""
        mask = np.ones(len(self.digests), bool)
        mask[list(self.faults)] = False
        return mask


def scan(
    source: Source,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Scan:
    """Scan a source, or recall what an earlier scan found of it."""
    rows = source.listing
    store = (cache or cache_dir()) / "scans" / f"{source.identity}.npz"
    result = empty(len(rows.names))
    todo = np.arange(len(rows.names))
    for identity in (source.identity, *source.scanned_as):
        todo = _recall(store.with_name(f"{identity}.npz"), rows, result, todo)
    if len(todo) > 0:
        _read(source, todo, result, workers, progress)
        remember(store, _pack(rows, result))
    return result


def empty(count: int) -> Scan:
    """A scan of nothing yet."""
    return Scan(
        [""] * count,
        [""] * count,
        np.zeros((count, 2), np.int32),
        np.zeros(count, np.uint8),
        np.zeros((count, _ROW), np.uint8),
        {},
    )


def _read(
    source: Source,
    todo: np.ndarray,
    result: Scan,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Fill the rows `todo` of `result`."""
    in_array = source.block(0, 1) is not None
    chunk = 2048 if in_array else 32

    def look(start: int, stop: int) -> int:
        part = todo[start:stop]
        if in_array:
            _look_at_block(source, int(part[0]), int(part[-1]) + 1, result)
        else:
            for row in part.tolist():
                _look_at_file(source, row, result)
        return stop

    with decoding():
        for done in ordered(look, len(todo), chunk, workers):
            if progress is not None:
                progress("reading", done, len(todo))


def _look_at_file(source: Source, row: int, result: Scan) -> None:
    """Rows are written by one thread each, so no lock is needed."""
    try:
        raw = source[row].raw()
        result.digests[row] = content_digest(raw)
        if isinstance(raw, np.ndarray):  # cut from a picture
            image = from_array(raw)
            seen = Decoded(image, (image.height, image.width), image.mode, animated=False)
        else:
            seen = decode(raw, reduce_to=_FULL_ENOUGH)
    except Fault as fault:
        result.faults[row] = (fault.kind, fault.reason)
        return
    image = seen.image
    flags = (GREY if is_grey(image) else 0) | (ANIMATED if seen.animated else 0)
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:  # pyright: ignore
        flags |= ALPHA
    flat = on_background(image, (255, 255, 255))
    thumb = flat.convert("L").resize((THUMB[1], THUMB[0]), Image.Resampling.BOX)
    mean = flat.convert("RGB").resize((1, 1), Image.Resampling.BOX)
    result.modes[row] = seen.mode
    result.sizes[row] = seen.size
    result.flags[row] = flags
    result.thumbs[row] = np.frombuffer(thumb.tobytes() + mean.tobytes(), np.uint8)


def is_grey(image: Image.Image) -> bool:
    """Whether no pixel has a colour, in any mode."""
    if image.mode == "L":
        return True
    red, green, blue = image.split()[:3]
    return (
        ImageChops.difference(red, green).getbbox() is None
        and ImageChops.difference(green, blue).getbbox() is None
    )


def _look_at_block(source: Source, start: int, stop: int, result: Scan) -> None:
    pixels = source.block(start, stop)
    assert pixels is not None
    count, height, width, channels = pixels.shape
    rows = slice(start, stop)
    result.digests[rows] = [content_digest(picture) for picture in pixels]
    result.modes[rows] = [{1: "L", 3: "RGB", 4: "RGBA"}[channels]] * count
    result.sizes[rows] = (height, width)
    colours = pixels[..., :3].astype(np.float32)
    flags = np.zeros(count, np.uint8)
    if channels == 1:
        flags |= GREY
    else:
        same = pixels[..., :3] == pixels[..., :1]
        flags |= np.where(same.reshape(count, -1).all(1), GREY, 0).astype(np.uint8)
    if channels == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255.0
        colours = colours * alpha + 255.0 * (1.0 - alpha)
        seen = (pixels[..., 3].reshape(count, -1) < 255).any(1)
        flags |= np.where(seen, ALPHA, 0).astype(np.uint8)
    result.flags[rows] = flags
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey = colours[..., 0] if channels == 1 else colours @ weights  # (n, H, W)
    thumbs = _box(height, THUMB[0]) @ grey @ _box(width, THUMB[1]).T
    means = np.broadcast_to(colours.mean((1, 2)), (count, 3))
    joined = np.concatenate([thumbs.reshape(count, -1), means], 1)
    result.thumbs[rows] = np.rint(joined).clip(0, 255).astype(np.uint8)


def _box(size: int, cells: int) -> np.ndarray:
    """(cells, size) float32: the share of each pixel in the mean of each cell."""
    edges = np.arange(cells + 1) * (size / cells)
    pixel = np.arange(size)
    low = np.maximum(edges[:-1, None], pixel)
    high = np.minimum(edges[1:, None], pixel + 1)
    return (np.maximum(high - low, 0.0) * (cells / size)).astype(np.float32)


def _pack(rows: Listing, result: Scan) -> bytes:
    text = {
        "format": FORMAT,
        "names": rows.names,
        "tokens": rows.tokens,
        "digests": result.digests,
        "modes": result.modes,
        "faults": [[row, *fault] for row, fault in sorted(result.faults.items())],
    }
    blob = np.frombuffer(json.dumps(text).encode(), np.uint8)
    return npz_bytes(text=blob, sizes=result.sizes, flags=result.flags, thumbs=result.thumbs)


def _recall(store: Path, rows: Listing, result: Scan, todo: np.ndarray) -> np.ndarray:
    """Copy what is remembered of the rows `todo`, and still true, into `result`; return the rest."""
    if len(todo) == 0 or not store.is_file():
        return todo
    try:
        with np.load(io.BytesIO(store.read_bytes()), allow_pickle=False) as old:
            text = json.loads(old["text"].tobytes())
            sizes, flags, thumbs = old["sizes"], old["flags"], old["thumbs"]
            if text["format"] != FORMAT or thumbs.shape != (len(text["names"]), _ROW):
                return todo
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return todo  # damaged: read the pictures again
    here, there = _matches(rows, todo, text["names"], text["tokens"])
    result.sizes[here], result.flags[here], result.thumbs[here] = (
        sizes[there],
        flags[there],
        thumbs[there],
    )
    faults: dict[int, tuple[FaultKind, str]] = {f[0]: (f[1], f[2]) for f in text["faults"]}
    for new, old_row in zip(here.tolist(), there.tolist(), strict=True):
        result.digests[new] = text["digests"][old_row]
        result.modes[new] = text["modes"][old_row]
        if old_row in faults:
            result.faults[new] = faults[old_row]
    return np.setdiff1d(todo, here)


def _matches(
    rows: Listing, todo: np.ndarray, names: Sequence[str], tokens: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of (row now, row then) with the same name and token. "missing" is looked at again.

    Args:
        todo: the rows of now that are asked for.
    """
    then = {pair: i for i, pair in enumerate(zip(names, tokens, strict=True))}
    here: list[int] = []
    there: list[int] = []
    for i in todo.tolist():
        pair = rows.names[i], rows.tokens[i]
        if pair in then and pair[1] != "missing":
            here.append(i)
            there.append(then[pair])
    return np.array(here, np.int64), np.array(there, np.int64)
