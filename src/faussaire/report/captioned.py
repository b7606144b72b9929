"""Grids whose rows have a caption above them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faussaire.report.pictures import GAP, grid

_HEIGHT = 14  # pixels of the letters
_GROUND, _INK = (22, 22, 22), (235, 235, 235)


@functools.cache
def _font() -> Any:
    """A font of many scripts where the system has one; else Pillow's own, which is Latin."""
    for name in ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf"):
        try:
            return ImageFont.truetype(name, _HEIGHT)
        except OSError:
            continue
    return ImageFont.load_default(_HEIGHT)


def captioned_grid(rows: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Pictures in rows, each under its caption, which is cut where it does not fit.

    Args:
        rows: for each caption (K, H, W, C) uint8, K > 0; C is 1, 3 or 4.
        captions: one for each row.
    """
    columns = max(len(row) for row in rows)
    strips = [grid(row, columns=min(columns, 16)).convert("RGBA") for row in rows]
    width = max(strip.width for strip in strips)
    above = _HEIGHT + 6
    height = sum(strip.height + above + GAP for strip in strips)
    canvas = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for strip, caption in zip(strips, captions, strict=True):
        draw.text((3, top + 2), _fitting(draw, caption, width - 6), font=_font(), fill=_INK)
        top += above
        canvas.paste(strip, (0, top), strip)
        top += strip.height + GAP
    return canvas


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """As much of a text as has room, with an ellipsis where something is cut."""
    text = " ".join(text.split())
    if draw.textlength(text, font=_font()) <= width:
        return text
    while text and draw.textlength(text + "…", font=_font()) > width:
        text = text[:-1]
    return text.rstrip() + "…"
