"""Photographs made like the pictures that a model was trained on: their size, their channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from faussaire.application import gather, is_video
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.data.decode import Fault, decode, decoding, normalise
from faussaire.data.fit import fit, to_array, to_channels

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_NAMES = {"L": "grey", "RGB": "RGB", "RGBA": "RGBA"}


def named(words: Sequence[Path]) -> list[Path]:
    """The pictures that files, folders and patterns mean.

    Raises:
        UserError: nothing there, no picture, or a video.
    """
    found = [job.source for job in gather(words, Path(".results"))]
    if films := [path for path in found if is_video(path)]:
        raise UserError(
            f"'{films[0]}' is a video, not a picture.", "Name pictures, or their folder."
        )
    return found


def read_photo(
    source: Path | Image.Image,
    spec: Pictures,
    settings: dict[str, Any],
    note: Callable[[str], None] = lambda sentence: None,
) -> Tensor:
    """A picture as the model's own are, (1, C, H, W) in [-1, 1].

    Args:
        source: a file, or a Pillow image.
        spec: of the model's pictures.
        settings: of its run: `fit` (of tiles the whole picture is cut) and `background`.
        note: hears, in a sentence, what was done to the picture.

    Raises:
        UserError: it cannot be read.
    """
    what = "the picture" if isinstance(source, Image.Image) else source.name
    try:
        with decoding():
            if isinstance(source, Image.Image):
                image = normalise(source)
            else:
                image = decode(source.read_bytes()).image
    except OSError as error:
        raise UserError(
            f"'{source}' cannot be read ({error.strerror or error}).", "Give the path of a picture."
        ) from error
    except Fault as fault:
        raise UserError(f"'{source}' cannot be used: {fault.reason}.", "Give another.") from fault
    mode = _MODES[spec.channels]
    background = ImageColor.getrgb(str(settings.get("background", "white")))[:3]
    done = []
    if image.mode != mode:
        done.append(f"made {_NAMES[mode]}")
    size = image.size
    image = to_channels(image, mode, background)  # pyright: ignore[reportArgumentType]
    how = str(settings.get("fit", "crop"))
    how = "crop" if how == "tiles" else how
    if size != (spec.width, spec.height):
        cut = size[0] * spec.height != size[1] * spec.width
        words = {"crop": "cut to its middle and ", "pad": "framed and ", "squash": ""}
        before = words[how] if cut else ""
        done.append(f"{before}resized from {size[0]}x{size[1]} to {spec.width}x{spec.height}")
        target = (spec.height, spec.width)
        image = fit(image, target, how, background)  # pyright: ignore[reportArgumentType]
        if size[0] < spec.width or size[1] < spec.height:
            done[-1] += ", which enlarges it"
    if done:
        note(f"{what} was {', '.join(done)}, as the training pictures were.")
    pixels = np.array(to_array(image))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1.0
