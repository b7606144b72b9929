"""One encoded picture -> one upright Pillow picture in mode L, RGB or RGBA, or a reason why not.

Everything in this module treats the bytes as foreign: only known picture formats are tried (no
PostScript, no PDF), the declared size is judged before a pixel is decoded, a truncated file is a
fault rather than a half-grey picture, and the reason always ends up beside the file's name.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

FaultKind = Literal["unreadable", "truncated", "bomb", "unlabelled"]

# Pillow warns above 89 megapixels and refuses above 179; both count as bombs here.
MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 30

# What counts as a picture by name. HEIC is here so that it is reported, not silently skipped.
EXTENSIONS = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".avif",
        ".avifs",
        ".jp2",
        ".j2k",
        ".jpx",
        ".qoi",
        ".heic",
        ".heif",
    ]
)
_FORMATS = [
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "TGA",
    "AVIF",
    "JPEG2000",
    "QOI",
    "HEIF",
]
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Fault(Exception):
    """One picture that cannot be used; it is left out and listed, and the others go on."""

    def __init__(self, kind: FaultKind, reason: str) -> None:
        super().__init__(reason)
        self.kind: FaultKind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture and what its file said.

    Args:
        image: upright, mode L, RGB or RGBA.
        size: (height, width) of the upright picture as stored, whatever `image` was reduced to.
        mode: Pillow's mode of the file, before conversion.
        animated: more than one frame; `image` is the first.
    """

    image: Image.Image
    size: tuple[int, int]
    mode: str
    animated: bool


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Around every pass of `decode`: bombs are errors, Pillow's other remarks are silent.

    Warning filters belong to the process, so one block in the thread that starts the workers
    covers them, and no worker may open its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # corrupt EXIF, odd palettes: harmless here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(raw: bytes, *, reduce_to: int | None = None) -> Decoded:
    """Decode a whole picture; call inside `decoding()`.

    Args:
        raw: the encoded file.
        reduce_to: the caller needs only about this many pixels a side, so a JPEG may be decoded at
            1/2, 1/4 or 1/8. Its data is still read to the end, so truncation is still found.

    Raises:
        Fault: with the reason in words.
    """
    if not raw:
        raise Fault("truncated", "the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(raw), formats=_formats()) as image:
            return _load(image, reduce_to)
    except Fault:
        raise
    except Image.UnidentifiedImageError as error:
        raise Fault("unreadable", _not_a_picture(raw)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Fault("bomb", _bomb_words(str(error))) from error
    except Exception as error:
        # Decoders fed with foreign bytes raise nearly anything (struct.error, IndexError,
        # SyntaxError, ...). Whatever it was, this file is unusable, and its reason is reported.
        text = str(error) or type(error).__name__
        cut = "truncated" in text.lower() or "broken data stream" in text.lower()
        if cut:
            raise Fault("truncated", f"the file is cut short ({text})") from error
        raise Fault("unreadable", f"the picture is damaged ({text})") from error


def _load(image: Image.Image, reduce_to: int | None) -> Decoded:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Fault("bomb", _bomb_words(f"{width}x{height} pixels"))
    mode = image.mode
    animated = bool(getattr(image, "is_animated", False))
    if reduce_to is not None and image.format == "JPEG":
        image.draft(None, (reduce_to, reduce_to))
    image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)  # after load: TIFFs turn themselves there
    upright = turned(normalise(image), orientation)
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    return Decoded(upright, size, mode, animated)


def decode_deep(raw: bytes) -> np.ndarray:
    """A 16-bit grey picture, upright, that `decode` has read without a fault: uint16 (H, W)."""
    with Image.open(io.BytesIO(raw), formats=_formats()) as image:
        image.load()
        return np.array(turned(image, image.getexif().get(_ORIENTATION, 1)))


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Upright, of a picture that was stored in this of EXIF's eight orientations."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def normalise(image: Image.Image) -> Image.Image:
    """Any mode -> L, RGB or RGBA, keeping grey grey and transparency transparent."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if mode == "RGBA":
        return image
    if mode == "1":
        return image.convert("L")
    if mode.startswith("I") or mode == "F":
        return _deep_to_8_bit(image)
    if mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        straight = image.convert("LA") if mode == "La" else image
        return straight.convert("RGBA")
    return image.convert("RGB")  # P, CMYK, YCbCr, HSV, RGBX


def _deep_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey -> L, by fixed factors so that pictures stay comparable."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if low < 0.0 or high > 1.0 or low != low:
            raise Fault("unreadable", f"a float picture has values {low:g}..{high:g}, not 0..1")
        return Image.fromarray(np.rint(values * 255.0).astype(np.uint8))
    if low < 0 or high > 65535:
        raise Fault("unreadable", f"an integer picture has values {low:g}..{high:g}, not 0..65535")
    return Image.fromarray(np.rint(values / 257.0).astype(np.uint8))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _bomb_words(detail: str) -> str:
    return (
        f"declares more pixels than {MAX_PIXELS / 1e6:.0f} million ({detail}), "
        "as a decompression bomb does; it was not decoded"
    )


def _not_a_picture(raw: bytes) -> str:
    if raw[4:8] == b"ftyp" and raw[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "HEIC is not supported by Pillow; convert it to JPEG or PNG"
    if b"\0" not in raw[:512] and raw[:512].isascii():
        return "the file holds text, not a picture"
    return "not a picture in a format that is supported"
