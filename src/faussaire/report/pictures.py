"""Pictures on disk: from what a generator gives to PNG files and grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.report.files import whole

if TYPE_CHECKING:
    from torch import Tensor

GAP = 2
_CELL = 64  # pixels a side that an eye can judge
_WHOLE = 2000  # pixels a side that screens and browsers show without pain
_GAP_GREY = 22  # dark, so that light and dark pictures both stand apart from it


def to_uint8(images: np.ndarray | Tensor) -> np.ndarray:
    """Pictures (N, C, H, W) in [-1, 1] to (N, H, W, C) uint8; values outside are clipped.

    Raises:
        UserError: a value is not a number, which only a diverged generator gives.
    """
    # A tensor is told by what it can do: importing torch to ask for its type would take seconds.
    array = images if isinstance(images, np.ndarray) else images.detach().float().cpu().numpy()
    if np.isnan(array).any():
        raise UserError(
            "The generator gives values that are not numbers: its training diverged.",
            "Use an older checkpoint with --checkpoint.",
        )
    levels = np.rint((np.clip(array, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def to_image(picture: np.ndarray) -> Image.Image:
    """One picture (H, W, C) uint8 as grey (C=1), grey with alpha (2), RGB (3) or RGBA (4)."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def grid(
    images: np.ndarray | Sequence[np.ndarray],
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Pictures side by side, row by row, two pixels apart.

    Args:
        images: (N, H, W, C) uint8, N > 0; C is 1 (grey), 3 (RGB) or 4 (RGBA, on a transparent gap).
        columns: pictures in a row; None: as many as make the whole about square.
        scale: whole factor by which each picture is enlarged, its pixels staying sharp. None: small
            pictures grow to about 64 pixels a side, large ones shrink where the whole would exceed
            about 2000.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    columns = min(max(1, columns), count)
    rows = -(-count // columns)
    if scale is None:
        room = min(
            (_WHOLE + GAP - columns * GAP) / (columns * width),
            (_WHOLE + GAP - rows * GAP) / (rows * height),
        )
        wanted = math.ceil(_CELL / math.sqrt(height * width))
        scale = max(1, min(wanted, int(room)))
        if room < 1.0:
            size = (max(1, int(width * room)), max(1, int(height * room)))
            images = np.stack([_shrunk(picture, size) for picture in images])
            width, height = size
    if scale > 1:
        images = images.repeat(scale, axis=1).repeat(scale, axis=2)
        height, width = height * scale, width * scale
    empty = 0 if channels in (2, 4) else _GAP_GREY
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels)
    canvas = np.full(shape, empty, np.uint8)
    for index, picture in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        canvas[top : top + height, left : left + width] = picture
    return to_image(canvas)


def beside(parts: Sequence[Tensor]) -> Image.Image:
    """Pictures of several kinds, (N, C, H, W) in [-1, 1] each, as a grid with a row for each example.

    Smaller ones are enlarged, their pixels staying sharp; grey becomes RGB where others have colour.
    """
    import torch.nn.functional as F  # only who has tensors waits for it

    height, width = (max(part.shape[axis] for part in parts) for axis in (2, 3))
    channels = max(part.shape[1] for part in parts)
    cells = []
    for part in parts:
        part = F.interpolate(part, size=(height, width), mode="nearest")
        if part.shape[1] == 1 and channels > 1:
            part = part.expand(-1, 3, -1, -1)
        if part.shape[1] == 3 and channels == 4:
            part = F.pad(part, (0, 0, 0, 0, 0, 1), value=1.0)
        cells.append(to_uint8(part))
    rows = np.stack(cells, axis=1)  # (N, kinds, H, W, C)
    return grid(rows.reshape(-1, *rows.shape[2:]), columns=len(parts) * max(1, 6 // len(parts)))


def stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    """Two pictures, one below the other, the second brought to the width of the first."""
    scale = above.width / below.width
    size = (above.width, max(1, round(below.height * scale)))
    below = below.resize(size, Image.Resampling.LANCZOS).convert(above.mode)
    gap = 8 * GAP
    ground = (0,) * 4 if above.mode == "RGBA" else "white"
    canvas = Image.new(above.mode, (above.width, above.height + gap + below.height), ground)
    canvas.paste(above, (0, 0))
    canvas.paste(below, (0, above.height + gap))
    return canvas


def _shrunk(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) at another (width, height), smoothly."""
    small = np.asarray(to_image(picture).resize(size, Image.Resampling.LANCZOS))
    return small.reshape(size[1], size[0], picture.shape[2])


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG so that whoever looks sees the old or the new file, never half of one.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with whole(path) as temporary:
        image.save(temporary, format="PNG")


def save_each(
    images: np.ndarray,
    folder: Path,
    *,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    start: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """One PNG file a picture, named after the seed and the row it came from: `seed0-00042.png`.

    Args:
        images: (N, H, W, C) uint8.
        folder: made if it does not exist.
        seed: the seed of the samples.
        seeds: the seed of each, where they are not rows of one seed's sequence.
        start: row number of the first picture, so that a large set can be written in parts.
        overwrite: replace files that exist.

    Returns:
        The N paths, in order.

    Raises:
        UserError: a file exists already (then none is written), or the disk is full.
    """
    rows = [(seed, start + row) for row in range(len(images))]
    if seeds is not None:
        rows = [(each, 0) for each in seeds]
    paths = [folder / f"seed{each}-{row:05d}.png" for each, row in rows]
    if not overwrite:
        taken = next((path for path in paths if path.exists()), None)
        if taken is not None:
            raise UserError(
                f"'{taken}' exists already.",
                "Choose another folder or seed, or allow overwriting with --overwrite.",
            )
    for path, picture in zip(paths, images, strict=True):
        save_png(to_image(picture), path)
    return paths
