"""Using a model that makes pictures from pictures: on one, or on a folder of them.

Outputs are as large as inputs (times the model's scale), whatever size the model was trained at.
Pictures larger than memory likes are gone through in tiles that overlap and fade into each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faussaire.core.batch import Draws, RowDraws, mix
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.data.decode import EXTENSIONS, Fault, decode, decode_deep, decoding
from faussaire.nn.degrade import grey
from faussaire.rebuilding import fitted
from faussaire.report.files import whole
from faussaire.video import ENDINGS as VIDEOS
from faussaire.video import convert, require_reader, target_ending

TILE = 1024
"""Pixels a side that are handled at once, where the user does not say."""
OVERLAP = 32
"""Pixels of the input in which two tiles fade into each other."""

_OWN = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


# ---- One picture ----


@dataclass(frozen=True)
class Opened:
    """A picture as numbers.

    Attributes:
        colour: float32 (1, C, H, W) in [-1, 1], C 1 or 3.
        alpha: float32 (1, 1, H, W) in [-1, 1]; None: it is opaque.
        deep: its file has 16 bits a value.
        hole: float32 (1, 1, H, W), 1 where something is missing and -1 elsewhere; None: nobody said.
    """

    colour: Tensor
    alpha: Tensor | None
    deep: bool
    hole: Tensor | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Opened:
        """A picture of mode L, RGB or RGBA."""
        pixels = torch.from_numpy(np.array(image))
        if pixels.dim() == 2:
            pixels = pixels[:, :, None]
        # In place from here on: of a picture of 40 megapixels each copy is half a gigabyte.
        rows = pixels.permute(2, 0, 1)[None].float().div_(127.5).sub_(1.0)
        return cls(rows[:, :3], rows[:, 3:] if rows.shape[1] == 4 else None, False)

    @classmethod
    def read(cls, path: Path) -> Opened:
        """A file, upright as its EXIF data say.

        Raises:
            Fault: it cannot be read; the reason is in words.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise Fault("unreadable", error.strerror or str(error)) from error
        with decoding():
            found = decode(raw)
            if found.mode.startswith("I;16"):
                values = torch.from_numpy(decode_deep(raw).astype(np.float32))
                return cls(values[None, None] / 32767.5 - 1.0, None, True)
        return cls.of(found.image)

    def image(self) -> Image.Image:
        """As Pillow has it: I;16 where it is deep, else L, RGB or RGBA."""
        if self.deep and self.colour.shape[1] == 1 and self.alpha is None:
            values = (self.colour[0, 0] + 1.0) * 32767.5
            return Image.fromarray(values.round().clamp(0, 65535).numpy().astype(np.uint16))
        parts = [self.colour]
        if self.alpha is not None:
            parts = [self.colour.expand(-1, 3, -1, -1), self.alpha]
        levels = torch.cat(parts, dim=1)[0].add_(1.0).mul_(127.5).round_().clamp_(0, 255)
        pixels = levels.to(torch.uint8).permute(1, 2, 0).numpy()
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def as_channels(colour: Tensor, alpha: Tensor | None, channels: int) -> Tensor:
    """Colour (N, 1 or 3, H, W), and alpha or none, as a net wants them: 1, 3 or 4 channels."""
    if channels == 1:
        return grey(colour)
    colour = colour.expand(-1, 3, -1, -1) if colour.shape[1] == 1 else colour
    if channels == 3:
        return colour
    return torch.cat([colour, torch.ones_like(colour[:, :1]) if alpha is None else alpha], dim=1)


def answer(
    family: Family, device: Device, opened: Opened, *, seed: int = 0, tile: int | None = None
) -> Opened:
    """What a model makes of a picture.

    Args:
        family: trained, its nets in evaluation mode.
        device: where it runs.
        opened: the picture.
        seed: of what the model draws at random, where it does.
        tile: pixels a side that are handled at once; 0: all; None: all up to 1024x1024 or where
            the family sees pictures whole, else 1024.

    Raises:
        UserError: the family fills holes, and nothing says where they are.
    """
    if family.rebuilds:
        y = translated(family, device, fitted(family, opened), seed=seed, tile=0)
        return Opened(y[:, :3], y[:, 3:] if y.shape[1] == 4 else None, False)
    x = as_channels(opened.colour, opened.alpha, family.takes - family.fills)
    if family.fills:
        if opened.hole is None:
            raise UserError(
                f"{type(family).__name__.lower()} fills holes, and nothing says where they are.",
                "Give --masks FOLDER, --mask-colour '#ff00ff' or --mask-alpha; in Python, `mask`.",
            )
        x = torch.cat([x, opened.hole], dim=1)
    y = translated(family, device, x, seed=seed, tile=tile)
    alpha = opened.alpha
    made = y[:, 3:] if y.shape[1] == 4 else None
    y = y[:, :3]
    if family.faithful and opened.colour.shape[1] == 1:
        y = grey(y)
    if made is not None:
        opaque = family.faithful and alpha is None
        return Opened(y, None if opaque else made, opened.deep)
    if alpha is not None and alpha.shape[2:] != y.shape[2:]:
        size = (y.shape[2], y.shape[3])
        alpha = F.interpolate(alpha, size=size, mode="bicubic", align_corners=False, antialias=True)
    return Opened(y, alpha, opened.deep)


def translated(
    family: Family[Any], device: Device, x: Tensor, *, seed: int, tile: int | None = None
) -> Tensor:
    """What a family makes of pictures (N, K, h, w), (N, C, H, W) on the CPU, in tiles where large.

    Args:
        family, device, seed, tile: as in `answer`.
        x: what it takes.
    """
    height, width = x.shape[2:]
    if tile is None:
        tile = TILE if family.tiles and height * width > TILE * TILE else 0
    with torch.no_grad():
        if not tile:
            return _run(family, device, x, mix(seed, 0, 0))
        return tiled(
            lambda part, at: _run(family, device, part, mix(seed, *at)), x, tile, reach=family.reach
        )


def _run(family: Family, device: Device, x: Tensor, seed: int) -> Tensor:
    draws: Draws = RowDraws([mix(seed, row) for row in range(len(x))], device=device.name)
    return family.apply(x.to(device.name), draws).float().cpu()


def tiled(
    run: Callable[[Tensor, tuple[int, int]], Tensor],
    x: Tensor,
    tile: int,
    overlap: int = OVERLAP,
    *,
    reach: int = 0,
) -> Tensor:
    """`run` over overlapping tiles of (N, C, H, W), which fade into each other linearly.

    Args:
        run: (N, C, h, w) and the tile's place to (N, K, s h, s w), for a whole s.
        x: the pictures.
        tile: pixels a side of a tile, at least four times what neighbours share.
        overlap: pixels in which neighbours fade into each other.
        reach: pixels at a tile's edge that are not used, where `run` sees too little; neighbours
            share twice as many besides.

    Raises:
        UserError: the tile is too small for its overlap.
    """
    shared = overlap + 2 * reach
    if tile < 4 * shared:
        raise UserError(
            f"Tiles of {tile} pixels have too little beside their overlap of {shared}.",
            f"Ask for {4 * shared} pixels or more, or for 0: no tiles.",
        )
    height, width = x.shape[2:]
    rows, columns = (_places(side, tile, shared) for side in (height, width))
    total = None
    # All tiles' weights are a product of one factor for each row and one for each column.
    weights: tuple[Tensor, Tensor] | None = None
    for top, bottom in rows:
        for left, right in columns:
            y = run(x[:, :, top:bottom, left:right], (top, left))
            scale = y.shape[2] // (bottom - top)
            down, across = (
                _fade(begin, end, side, overlap * scale, reach * scale, scale)
                for begin, end, side in ((top, bottom, height), (left, right, width))
            )
            if total is None or weights is None:
                total = torch.zeros(*y.shape[:2], height * scale, width * scale)
                weights = torch.zeros(height * scale, 1), torch.zeros(width * scale)
            high, wide = slice(top * scale, bottom * scale), slice(left * scale, right * scale)
            total[:, :, high, wide] += y * torch.outer(down, across)
            if left == 0:
                weights[0][high, 0] += down
            if top == 0:
                weights[1][wide] += across
    assert total is not None
    assert weights is not None
    return total.div_(weights[0]).div_(weights[1])


def _places(side: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Beginnings and ends of equal tiles that cover a side."""
    if side <= tile:
        return [(0, side)]
    count = math.ceil((side - overlap) / (tile - overlap))
    starts = np.linspace(0, side - tile, count).round().astype(int).tolist()
    return [(start, start + tile) for start in starts]


def _fade(begin: int, end: int, side: int, overlap: int, reach: int, scale: int) -> Tensor:
    """Weights of a tile along one side, (scale (end - begin),): less where there is a neighbour.

    From its edge 0 for `reach` pixels of the result, then rising for `overlap`.
    """
    length = (end - begin) * scale
    place = torch.arange(length) + 0.5 - reach
    rise = torch.ones(length)
    if begin > 0:
        rise = torch.minimum(rise, place / overlap)
    if end < side:
        rise = torch.minimum(rise, (length - 2 * reach - place) / overlap)
    return rise.clamp(min=0.0)


# ---- Many ----


@dataclass(frozen=True)
class Job:
    """One file to make."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Failed:
    """A file that was not made, and why."""

    source: Path
    reason: str


def gather(words: Sequence[Path], out: Path, ending: str | None = None) -> list[Job]:
    """The files that are meant, and what is to become of each.

    Args:
        words: files, folders (with all pictures below them) or patterns such as `photos/*.jpg`. Videos
            are taken where they are named, not out of folders.
        out: the folder of results; below it names are those below the folders. What lies in it is no
            input, where it is inside one of them: earlier results would be taken for pictures.
        ending: of all pictures made, such as `png`; None: as the inputs', or PNG.

    Raises:
        UserError: nothing there, or no picture.
    """
    found: list[tuple[Path, Path]] = []
    for word in words:
        found.extend(meant(word, out))
    if not found:
        raise UserError(
            f"There are no pictures in {', '.join(map(str, words))}.",
            "Name PNG, JPEG, WebP, TIFF or GIF files, or folders of them.",
        )
    jobs: dict[Path, Job] = {}
    for source, name in found:
        suffix = name.suffix.lower() if ending is None else f".{ending.lstrip('.')}"
        target = out / name.with_suffix(suffix if suffix in _OWN else ".png")
        if is_video(source):
            target = out / name.with_suffix(target_ending(name.suffix.lower()))
        plain, number = target, 1
        while target in jobs and jobs[target].source != source:  # a.gif and a.png, x/a and y/a
            stem = name.name if number == 1 else f"{plain.stem}-{number}"
            target, number = plain.with_name(f"{stem}{plain.suffix}"), number + 1
        jobs[target] = Job(source, target)
    return list(jobs.values())


def is_video(path: Path) -> bool:
    """Whether its name says that a file is a video."""
    return path.suffix.lower() in VIDEOS


def meant(word: Path, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """Files, each with its name below what was named.

    Args:
        word: a file, a folder or a pattern.
        out: a folder of results, whose files are left out where it lies inside.

    Raises:
        UserError: nothing there.
    """
    if word.is_dir():
        own: tuple[str, ...] = ()
        if out is not None and out.resolve().is_relative_to(word.resolve()):
            own = out.resolve().relative_to(word.resolve()).parts
        for path in sorted(word.rglob("*")):
            below = path.relative_to(word)
            hidden = any(part.startswith(".") for part in below.parts)
            made = bool(own) and below.parts[: len(own)] == own
            if path.suffix.lower() in EXTENSIONS and path.is_file() and not (hidden or made):
                yield path, below
    elif word.is_file():
        yield word, Path(word.name)
    else:
        matches = sorted(word.parent.glob(word.name)) if word.parent.is_dir() else []
        if not matches:
            raise UserError(
                f"There is nothing at '{word}'.", "Check the name; folders and patterns work, too."
            )
        for path in matches:
            yield path, Path(path.name)


def work(
    jobs: Sequence[Job],
    transform: Callable[[Opened], Opened],
    *,
    overwrite: bool = False,
    done: Callable[[Job], None] = lambda job: None,
    told: Callable[[Job, int, int], None] = lambda job, frames, total: None,
    find: Callable[[Job, Opened], Opened] = lambda job, opened: opened,
) -> list[Failed]:
    """Make every file; one that fails does not keep the others from being made.

    Args:
        jobs: what to make of what.
        transform: what to do to each.
        overwrite: replace files that are there.
        done: told after each, made or not.
        told: of videos, told after each frame of how many.
        find: what else belongs to a picture, such as its hole; may raise a Fault.

    Returns:
        Those that failed, with reasons.

    Raises:
        UserError: a result is there already, or videos cannot be read here (then nothing is made), or
            the disk is full.
    """
    taken = [job.target for job in jobs if job.target.exists()]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} others" if len(taken) > 1 else ""
        raise UserError(
            f"'{taken[0]}'{more} would be overwritten.",
            "Choose another --out, or add --overwrite or --skip.",
        )
    if any(is_video(job.source) for job in jobs):
        require_reader()
    failed = []
    for job in jobs:
        try:
            made = None
            if is_video(job.source):
                _film(job, transform, find, told)
            else:
                made = transform(find(job, Opened.read(job.source)))
        except Fault as fault:
            failed.append(Failed(job.source, fault.reason))
        except (UserError, ValueError) as error:
            failed.append(Failed(job.source, str(error)))
        else:
            if made is not None:
                save(made, job.target)
        done(job)
    return failed


def _film(
    job: Job,
    transform: Callable[[Opened], Opened],
    find: Callable[[Job, Opened], Opened],
    told: Callable[[Job, int, int], None],
) -> None:
    """A video of a video. Frames are answered alike, and what is drawn for them does not flicker.

    Raises:
        Fault: it cannot be read.
    """

    def frame(image: Image.Image) -> Image.Image:
        return transform(find(job, Opened.of(image))).image().convert("RGB")

    def counted(frames: int, total: int) -> None:
        told(job, frames, total)

    convert(job.source, job.target, frame, told=counted)


def save(made: Opened, path: Path) -> None:
    """Write a picture in the format that its name says; JPEG has no alpha, and shows it on white.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    image = made.image()
    how: dict[str, Any] = {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
        how = {"quality": 95}
    if image.mode == "I;16" and path.suffix.lower() not in (".png", ".tif", ".tiff"):
        image = Opened(made.colour, None, False).image()
    with whole(path) as temporary:
        image.save(temporary, **how)
