"""What is missing of pictures: told by files beside them, by a colour, or by transparency."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import ImageColor
from torch import Tensor

from faussaire.application import Job, Opened, gather
from faussaire.core.errors import UserError
from faussaire.data.decode import Fault
from faussaire.data.matching import match
from faussaire.nn.degrade import grey

Finder = Callable[[Job, Opened], Opened]
"""Gives a picture its hole. Raises Fault where it has none; the reason is in words."""


def by_files(jobs: Sequence[Job], masks: Path) -> Finder:
    """Holes are where masks are light: one mask for all pictures, or a folder of masks by name.

    Args:
        jobs: the pictures.
        masks: a file, or a folder whose files belong to pictures as `data.matching` finds: `a.png`
            or `a_mask.png` to `a.jpg`.

    Raises:
        UserError: nothing there, or no mask belongs to any picture.
    """
    if masks.is_file():
        return lambda job, opened: with_hole(opened, _read(masks), masks.name)
    found = [job.source for job in gather([masks], Path())]
    sources = [job.source for job in jobs]
    matched = match([path.as_posix() for path in sources], [path.as_posix() for path in found])
    partners = {
        sources[row]: found[other]
        for row, other in zip(matched.rows_a.tolist(), matched.rows_b.tolist(), strict=True)
    }
    if not partners:
        raise UserError(
            f"None of the {len(found)} masks in '{masks}' belongs to any of the {len(sources)} "
            "pictures.",
            f"Name each as its picture: {sources[0].stem}.png for {sources[0].name}.",
        )
    alone = {sources[row]: reason for row, reason in matched.alone_a.items()}

    def find(job: Job, opened: Opened) -> Opened:
        if job.source not in partners:
            why = alone.get(job.source, "no mask has its name")
            raise Fault("unreadable", f"it has no mask in '{masks}': {why}")
        mask = partners[job.source]
        return with_hole(opened, _read(mask), mask.name)

    return find


def by_colour(colour: str, tolerance: int) -> Finder:
    """Holes are where pictures have this colour.

    Args:
        colour: a name or #rrggbb.
        tolerance: levels of 255 by which each of red, green and blue may differ.

    Raises:
        UserError: that is no colour, or the tolerance is none.
    """
    try:
        levels = ImageColor.getrgb(colour)[:3]
    except ValueError as error:
        raise UserError(
            f"'{colour}' is not a colour.", "Write magenta, or #ff00ff in quotes."
        ) from error
    if not 0 <= tolerance <= 255:
        raise UserError(
            f"A tolerance of {tolerance} levels is none.", "Write a number from 0 to 255."
        )
    wanted = torch.tensor(levels, dtype=torch.float32).view(1, 3, 1, 1)

    def find(job: Job, opened: Opened) -> Opened:
        apart = ((opened.colour.expand(-1, 3, -1, -1) + 1.0) * 127.5 - wanted).abs()
        hole = apart.amax(dim=1, keepdim=True) <= tolerance + 0.5
        if not hole.any():
            raise Fault(
                "unreadable", f"it has nothing of the colour {colour}; raise --mask-tolerance"
            )
        return _with(opened, hole)

    return find


def by_alpha(job: Job, opened: Opened) -> Opened:
    """Holes are where the picture is not opaque; what is made of it is."""
    if opened.alpha is None:
        raise Fault("unreadable", "it has no transparency that could say what is missing")
    return _with(dataclasses.replace(opened, alpha=None), opened.alpha < 1.0)


def with_hole(opened: Opened, mask: Tensor, name: str) -> Opened:
    """A picture with the hole that a mask (1, 1, H, W) in [-1, 1] shows: where it is above 0.

    Where it is so nowhere, nothing is missing, and the picture stays what it is.

    Raises:
        Fault: the mask has another size, or shows that all is missing.
    """
    size, own = mask.shape[2:], opened.colour.shape[2:]
    if size != own:
        raise Fault(
            "unreadable",
            f"its mask {name} has {size[1]}x{size[0]} pixels, and the picture {own[1]}x{own[0]}",
        )
    return _with(opened, mask > 0.0)


def _with(opened: Opened, hole: Tensor) -> Opened:
    if bool(hole.all()):
        raise Fault(
            "unreadable",
            "all of it is missing, and nothing is left to go by; light places of masks are missing, so "
            "one that is meant the other way round must be inverted",
        )
    return dataclasses.replace(opened, hole=2.0 * hole.float() - 1.0)


def _read(path: Path) -> Tensor:
    """A mask's file, grey: (1, 1, H, W)."""
    try:
        return grey(Opened.read(path).colour)
    except Fault as fault:
        raise Fault(fault.kind, f"its mask {path.name} cannot be read: {fault.reason}") from fault
