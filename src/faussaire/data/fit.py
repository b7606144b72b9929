"""Make one picture the size and the channels that a network wants."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

Resize = Literal["crop", "squash", "pad"]
Fit = Literal["crop", "squash", "pad", "tiles"]
"""How a picture gets its size: resized in one of three ways, or cut into tiles as it is."""
Colour = tuple[int, int, int]


def on_background(image: Image.Image, colour: Colour) -> Image.Image:
    """L, RGB or RGBA -> L or RGB: what is transparent shows the colour."""
    if image.mode != "RGBA":
        return image
    canvas = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def to_channels(image: Image.Image, channels: str, background: Colour) -> Image.Image:
    """-> exactly the mode `channels`: L, RGB or RGBA."""
    if channels != "RGBA":
        image = on_background(image, background)
    return image if image.mode == channels else image.convert(channels)


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box of the target's proportions: (left, top, right, bottom).

    Args:
        size, target: (height, width).
    """
    height, width = size
    scale = min(height / target[0], width / target[1])
    tall, wide = target[0] * scale, target[1] * scale
    left, top = (width - wide) / 2, (height - tall) / 2
    # Rounding must not push the box over the edge, which Pillow refuses.
    return max(left, 0.0), max(top, 0.0), min(left + wide, width), min(top + tall, height)


def fit(
    image: Image.Image, target: tuple[int, int], how: Resize, background: Colour
) -> Image.Image:
    """Resize to target = (height, width) with an antialiased Lanczos filter.

    "crop" fills the target and cuts what sticks out on two sides, "pad" shows everything on the
    background (transparent for RGBA), "squash" ignores proportions. Pillow resizes RGBA with
    premultiplied alpha, so the colour under transparent pixels does not bleed into edges.
    """
    height, width = target
    if image.size == (width, height):
        return image
    lanczos = Image.Resampling.LANCZOS
    if how == "squash":
        return image.resize((width, height), lanczos)
    if how == "crop":
        box = crop_box((image.height, image.width), target)
        return image.resize((width, height), lanczos, box=box)
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    fill = (0, 0, 0, 0) if image.mode == "RGBA" else background
    canvas = Image.new("RGB" if image.mode == "L" else image.mode, (width, height), fill)
    offset = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, lanczos), offset)
    return canvas.convert(image.mode)


def tile_grid(size: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of whole tiles in a picture; one tile of a picture that is too small.

    Args:
        size, tile: (height, width).
    """
    if size[0] < tile[0] or size[1] < tile[1]:
        return 1, 1
    return size[0] // tile[0], size[1] // tile[1]


def tiles(image: Image.Image, tile: tuple[int, int]) -> np.ndarray:
    """A picture cut at its own resolution into a centred grid of tiles, row after row.

    A picture smaller than a tile in either side is enlarged until it covers one, and cut as "crop"
    does.

    Returns:
        uint8 (rows * columns, h, w, C), see `tile_grid`.
    """
    height, width = tile
    rows, columns = tile_grid((image.height, image.width), tile)
    if image.height < height or image.width < width:
        image = fit(image, tile, "crop", (0, 0, 0))  # which leaves no border to colour
    pixels = to_array(image)
    top, left = (pixels.shape[0] - rows * height) // 2, (pixels.shape[1] - columns * width) // 2
    grid = pixels[top : top + rows * height, left : left + columns * width]
    grid = grid.reshape(rows, height, columns, width, -1).swapaxes(1, 2)
    return grid.reshape(rows * columns, height, width, -1)


def enlarged(resolution: tuple[int, int], margin: float) -> tuple[int, int]:
    """The (height, width) to keep for random cuts of `resolution`: larger by the share `margin`.

    (256, 256) and 0.117 give (286, 286), the jitter of pix2pix; a margin of 0 changes nothing.
    """
    height, width = resolution
    return round(height * (1 + margin)), round(width * (1 + margin))


def centre(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of every picture, as a view: what is looked at where nothing is cut at random.

    Args:
        pixels: (N, H, W, C).
        size: (h, w), at most (H, W).

    Returns:
        (N, h, w, C), without a copy.

    Raises:
        ValueError: the pictures are smaller than that.
    """
    (tall, wide), (height, width) = pixels.shape[1:3], size
    if not (1 <= height <= tall and 1 <= width <= wide):
        raise ValueError(f"pictures of {tall}x{wide} have no middle of {height}x{width}")
    top, left = (tall - height) // 2, (wide - width) // 2
    return pixels[:, top : top + height, left : left + width]


def to_array(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def from_array(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) with C = 1, 3 or 4 -> L, RGB or RGBA."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
