"""Single photographs and paintings, read from files: what a manner is given to, or taken from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.data.decode import Fault, decode, decoding, normalise
from faussaire.report.pictures import to_image, to_uint8

Picture = str | Path | Image.Image


@dataclass(frozen=True)
class Original:
    """A picture that was read: (1, 3, H, W) in [-1, 1] on white, and its transparency, if any."""

    tensor: Tensor
    alpha: Image.Image | None

    def like(self, painted: Tensor) -> Image.Image:
        """A painted picture as an image, transparent where this one was."""
        image = to_image(to_uint8(painted)[0])
        if self.alpha is not None:
            image.putalpha(self.alpha.resize(image.size, Image.Resampling.LANCZOS))
        return image


def read_picture(source: Picture) -> Original:
    """A picture from a file or from Pillow, upright, in RGB.

    Raises:
        UserError: it is missing or damaged.
    """
    if isinstance(source, Image.Image):
        image, what = source, "The picture"
    else:
        path = Path(source).expanduser()
        what = f"'{path}'"
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{what} cannot be read ({error.strerror or error}).", "Give the path of a picture."
            ) from error
    try:
        with decoding():
            image = normalise(source) if isinstance(source, Image.Image) else decode(raw).image
    except Fault as fault:
        raise UserError(
            f"{what} cannot be used: {fault.reason}.", "Give another picture."
        ) from fault
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
        alpha = alpha if np.asarray(alpha).min() < 255 else None
    pixels = np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1.0
    return Original(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], alpha)


def no_larger(picture: Tensor, shorter: int) -> Tensor:
    """A picture (1, 3, H, W) in [-1, 1], shrunk until its shorter side is `shorter` pixels.

    A smaller one stays as it is: enlarged, it would teach blurred strokes.
    """
    scale = shorter / min(picture.shape[2:])
    if scale >= 1.0:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[2:]]
    return F.interpolate(picture, size, mode="bicubic", antialias=True).clamp(-1.0, 1.0)
