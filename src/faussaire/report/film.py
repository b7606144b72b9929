"""Films: moving pictures in GIF, MP4 and WebM, and walks through latent space to film."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.report.files import whole
from faussaire.report.pictures import to_image

# Codec and its options by ending. The crf values are visually near lossless; constant quality suits
# films whose content is anything.
CODECS = {
    ".mp4": ("libx264", {"crf": "16", "preset": "medium"}),
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"}),
}
_BT709 = 1  # libav's number of the usual colour standard, for matrix, primaries and transfer alike
_LIMITED_RANGE = 1


def write_film(frames: Iterable[np.ndarray], path: Path, *, fps: float) -> None:
    """Write frames as a film in the format that the path's ending names.

    GIF needs all frames in memory, since one palette serves them all; the other formats stream.

    Args:
        frames: each (H, W, C) uint8 of one size; C is 1, 3 or 4. Transparency is laid on white.
        path: ends in .gif, .mp4 or .webm; the last two need the extra `video`.
        fps: frames per second; a GIF cannot exceed 50.

    Raises:
        UserError: another ending, no frames, a speed that is none, PyAV missing, or a failed write.
    """
    ending = path.suffix.lower()
    if ending != ".gif" and ending not in CODECS:
        raise UserError(
            f"A film cannot be written as '{path.name}'.",
            "Use a name that ends in .gif, .mp4 or .webm.",
        )
    if not 0 < fps <= 1000:
        raise UserError(f"{fps:g} frames per second is no speed for a film.", "Try --fps 24.")
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise UserError("A film needs at least one frame.", "Ask for more frames.")
    images = _opaque(itertools.chain([first], rest), first.shape)
    with whole(path) as temporary:
        if ending == ".gif":
            _write_gif(images, temporary, fps)
        else:
            _write_video(images, temporary, ending, fps)


def _opaque(frames: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[Image.Image]:
    """Frames as grey or RGB pictures, all of one shape."""
    for frame in frames:
        if frame.shape != shape:
            raise ValueError(f"A film's frames are of one shape, not {shape} and {frame.shape}.")
        image = to_image(frame)
        if image.mode in ("RGBA", "LA"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        yield image if image.mode == "L" else image.convert("RGB")


def _write_gif(images: Iterable[Image.Image], path: Path, fps: float) -> None:
    """A looping GIF with one palette, so that colours do not flicker from frame to frame."""
    pictures = list(images)
    if pictures[0].mode == "RGB":
        palette = _palette(pictures)
        pictures = [picture.quantize(palette=palette) for picture in pictures]
    # GIF counts hundredths of a second, and browsers slow anything below two of them down to ten.
    duration = max(20, round(100 / fps) * 10)
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=duration,
        loop=0,
        optimize=False,
    )


def _palette(pictures: list[Image.Image]) -> Image.Image:
    """The 256 colours that suit up to 24 frames from all over the film."""
    chosen = pictures[:: -(-len(pictures) // 24)]
    width, height = chosen[0].size
    shrink = max(1, max(width, height) // 256)
    # Nearest neighbour: mixed colours at edges would take places in the palette.
    size = (max(1, width // shrink), max(1, height // shrink))
    sheet = Image.new("RGB", (size[0], size[1] * len(chosen)))
    for row, picture in enumerate(chosen):
        sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (0, row * size[1]))
    return sheet.quantize(256, method=Image.Quantize.MEDIANCUT)


def _write_video(images: Iterable[Image.Image], path: Path, ending: str, fps: float) -> None:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"Writing {ending} needs PyAV, which is not installed.",
            "Install it with pip install 'faussaire[video]', or write a .gif.",
        ) from error
    codec, options = CODECS[ending]
    if codec not in av.codecs_available:
        raise UserError(
            f"The installed PyAV cannot write {ending}: it lacks {codec}.",
            "Install PyAV's own wheel with pip install 'faussaire[video]', or write a .gif.",
        )
    rate = Fraction(fps).limit_denominator(1001)
    # The index goes first in an MP4, so that a browser can play it while it loads.
    container = av.open(
        str(path), "w", options={"movflags": "+faststart"} if ending == ".mp4" else {}
    )
    with container:
        # The type depends on the codec's name, which no checker can follow.
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        for index, image in enumerate(images):
            frame = to_yuv(even(image))
            if index == 0:
                set_up(stream, frame)
            frame.pts = index
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def to_yuv(pixels: np.ndarray) -> Any:
    """(H, W, 3) uint8 as a frame of PyAV's, in the only layout of colours that every browser plays."""
    import av

    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=_BT709)


def set_up(stream: Any, frame: Any) -> None:
    """Give a stream of PyAV's the size and the colours of its first frame."""
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE


def even(image: Image.Image) -> np.ndarray:
    """(H, W, 3) with even sides, as halved colour planes need; the last row or column repeats."""
    array = np.asarray(image.convert("RGB"))
    height, width = array.shape[:2]
    if height % 2 or width % 2:
        array = np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(array)


def slerp(a: np.ndarray, b: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    """The point at share `t` of the arc from `a` to `b`.

    Gaussian vectors of many dimensions all lie near a sphere; a straight line between two of them
    leaves it, and a generator has never seen its middle. Tom White, Sampling Generative Networks,
    2016, arXiv 1609.04468, section 2.1.

    Args:
        a, b: (..., D).
        t: in [0, 1]; a number, or an array that broadcasts against (..., 1).

    Returns:
        (..., D); `a` at 0 and `b` at 1. Where `a` and `b` are parallel or opposite, no single arc
        joins them, and the straight line is taken.
    """
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    cosine = (a * b).sum(axis=-1, keepdims=True) / np.where(lengths > 0, lengths, 1.0)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    straight = (sine < 1e-4) | (lengths == 0)
    sine = np.where(straight, 1.0, sine)
    share = np.asarray(t)
    from_a = np.where(straight, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    from_b = np.where(straight, share, np.sin(share * angle) / sine)
    return (from_a * a + from_b * b).astype(np.result_type(a, b), copy=False)


def walk(latents: np.ndarray, frames: int) -> np.ndarray:
    """A closed tour through K latent vectors: (K, D) -> (frames, D).

    It starts at the first, comes by all in order, and its last frame is one step before the first,
    so that a looping film has no jolt. Each latent is met where `frames` is a multiple of K.
    """
    count = len(latents)
    places = np.arange(frames) * (count / frames)
    begin = np.minimum(places.astype(np.int64), count - 1)
    share = (places - begin)[:, None]
    return slerp(latents[begin], latents[(begin + 1) % count], share)
