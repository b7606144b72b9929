"""Videos through a model that makes pictures from pictures: frame by frame, the sound kept.

FFmpeg's libraries read and write (PyAV, the extra `video`), so no frame is written to disk, and each
keeps its own time: odd rates such as 30000/1001 and rates that vary stay what they are, and sound, whose
packets are copied untouched, stays in step.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.data.decode import Fault
from faussaire.report.files import whole
from faussaire.report.film import CODECS, even, set_up, to_yuv

ENDINGS = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
    ]
)
"""What counts as a video by name."""

_CONTAINERS = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mp4", ".webm": ".webm"}
"""Endings that stay, by what is written into them; all others become Matroska, which takes any sound."""

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".mkv": "matroska"}

Frame = Callable[[Image.Image], Image.Image]


def target_ending(ending: str) -> str:
    """The ending of what is made of a video."""
    return ending if ending in _CONTAINERS or ending == ".mkv" else ".mkv"


def require_reader() -> None:
    """Make sure that videos can be read and written.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UserError(
            "Videos need PyAV, which has FFmpeg's libraries in it and is not installed.",
            "Install it: pip install 'faussaire[video]'; or cut the video into pictures yourself: "
            "ffmpeg -i film.mp4 frames/%06d.png",
        ) from error


def convert(
    source: Path,
    target: Path,
    transform: Frame,
    *,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make a video of a video.

    Args:
        source: what to read.
        target: what to write; its ending is `target_ending` of the source's.
        transform: makes a frame of a frame, both upright, all results of one size.
        told: called as told(frames done, frames in all, or 0 where nobody knows).

    Raises:
        Fault: it cannot be read, or has no moving picture; the reason is in words.
        UserError: the disk is full, or the folder cannot be written.
    """
    import av

    # A video that is cut short, or no video at all, fails in many ways, all of one family.
    with _faults(), av.open(str(source)) as reader:
        if not reader.streams.video:
            raise Fault("unreadable", "it has no moving picture")
        with whole(target) as temporary:
            flags = {"movflags": "+faststart"} if target.suffix != ".mkv" else {}
            format = _FORMATS[target.suffix]
            with _faults(), av.open(str(temporary), "w", format=format, options=flags) as writer:
                _copy(reader, writer, target.suffix, transform, told)


def frames_of(source: Path) -> Iterator[Image.Image]:
    """The frames of a video in order, upright, RGB.

    Raises:
        Fault: it cannot be read, or has no moving picture.
    """
    import av

    with _faults(), av.open(str(source)) as reader:
        if not reader.streams.video:
            raise Fault("unreadable", "it has no moving picture")
        moving = reader.streams.best("video")
        moving.thread_type = "AUTO"  # pyright: ignore
        for frame in reader.decode(moving):
            yield _upright(frame)


def _copy(
    reader: Any, writer: Any, ending: str, transform: Frame, told: Callable[[int, int], None]
) -> None:
    """Every frame through `transform`, every packet of sound as it is."""
    moving = reader.streams.best("video")  # a cover is a video of one frame, too
    moving.thread_type = "AUTO"
    codec, options = CODECS[_CONTAINERS.get(ending, ".mp4")]
    rate = moving.guessed_rate or moving.average_rate or 25
    made = writer.add_stream(codec, rate=rate, options=options)
    made.codec_context.time_base = moving.time_base
    sounds = {}
    for sound in reader.streams.audio:
        name = sound.codec_context.codec.canonical_name
        if name not in writer.supported_codecs:
            raise Fault(
                "unreadable",
                f"its sound ({name}) does not fit into {ending} files; convert it to .mkv first",
            )
        sounds[sound.index] = writer.add_stream_from_template(sound)
    total = moving.frames
    if not total and reader.duration:
        total = round(float(rate) * reader.duration / 1_000_000)
    early: list[Any] = []  # sound that comes before the size of the first frame is known
    done = 0
    for packet in reader.demux(moving, *(reader.streams[index] for index in sounds)):
        if packet.stream.index in sounds:
            if packet.dts is not None:
                packet.stream = sounds[packet.stream.index]
                early.append(packet)
        else:
            for frame in packet.decode():
                shown = to_yuv(even(transform(_upright(frame))))
                if not done:
                    set_up(made, shown)
                    _shape(made, moving, frame)
                shown.pts, shown.time_base = frame.pts, frame.time_base
                if frame.pts is None:
                    shown.pts = round(done / (rate * moving.time_base))
                    shown.time_base = moving.time_base
                writer.mux(made.encode(shown))
                done += 1
                told(done, max(done, total))
        if done:
            for waiting in early:
                writer.mux(waiting)
            early.clear()
    if not done:
        raise Fault("unreadable", "none of its frames can be read")
    told(done, done)  # how many there are was an estimate
    writer.mux(made.encode(None))


def _upright(frame: Any) -> Image.Image:
    """A frame as it should be seen: telephones store them lying, with a word on how to turn them."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # anticlockwise, as NumPy turns
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))


def _shape(made: Any, moving: Any, frame: Any) -> None:
    """Pixels that are no squares stay so."""
    ratio = moving.codec_context.sample_aspect_ratio
    if ratio and ratio != 1:
        lying = round(frame.rotation / 90) % 2
        made.codec_context.sample_aspect_ratio = 1 / ratio if lying else ratio


@contextmanager
def _faults() -> Iterator[None]:
    """FFmpeg's errors as faults of the file; but that the disk is full is no fault of it."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror) from error  # `whole` has words for it
        raise Fault("unreadable", f"the video is damaged ({error.strerror or error})") from error
