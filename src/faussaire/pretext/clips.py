"""Clips for the order of time: strips, folders of frames or videos, packed; and triplets of frames.

Shuffle and Learn: Unsupervised Learning using Temporal Order Verification. Ishan Misra, C. Lawrence
Zitnick, Martial Hebert. 2016. arXiv 1603.08561. Section 3.1: of five frames a < b < c < d < e, (b, c, d)
is in order, and (b, a, d) and (b, e, d) are not; all three begin and end alike, and may be reversed.
d - b is `span`, a and e lie `apart` at least beyond. Windows with motion are preferred.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from faussaire.core.batch import mix
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.quantity import format_resolution
from faussaire.data.decode import EXTENSIONS, Fault, decode, decoding
from faussaire.data.fit import fit, to_array, to_channels
from faussaire.data.packing import (
    Contents,
    Packed,
    Piece,
    Unusable,
    find_files,
    nothing_usable,
    pack_pieces,
    stamp_of,
    told_left_out,
)
from faussaire.data.parallel import Progress
from faussaire.material import split
from faussaire.pretext.spec import PretextData
from faussaire.video import ENDINGS as VIDEOS
from faussaire.video import frames_of, require_reader

_FORMAT = "clips 1"
_LEAST_FRAMES = 3
_LARGEST, _USUAL = 128, 64
"""Frames up to this side keep their size where no resolution is asked for; larger ones get the other."""
_LONGEST = 60  # the paper's span
_MODES = {"grey": "L", "rgb": "RGB", "rgba": "RGBA", "auto": "RGB"}
FRAMES = ("first", "inside", "last", "outside")
"""What an example of a triplet stream has: b, c, d, and a or e."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Where one clip's frames come from.

    Attributes:
        name: unique within the source.
        files: a strip, a video, or frames in their order.
        kind: `strip`, `frames` or `video`.
    """

    name: str
    files: tuple[Path, ...]
    kind: str

    def frames(self) -> Iterator[Image.Image]:
        """The frames in order, upright, in mode L, RGB or RGBA.

        Raises:
            Unusable: they cannot be read; the reason is in words.
        """
        try:
            if self.kind == "video":
                yield from frames_of(self.files[0])
            elif self.kind == "strip":
                strip = _picture(self.files[0])
                for left in range(0, strip.width - strip.height + 1, strip.height):
                    yield strip.crop((left, 0, left + strip.height, strip.height))
            else:
                for path in self.files:
                    yield _picture(path)
        except (Fault, OSError) as error:
            raise Unusable(f"cannot be read ({error})") from error


def _picture(path: Path) -> Image.Image:
    with decoding():
        return decode(path.read_bytes()).image


def find_clips(source: str, kind: str) -> list[Clip]:
    """The clips of a source, in the order of their names.

    Args:
        source: a folder, nested at will, or one file.
        kind: `strips`, `folders`, `videos` or `auto`: videos where there are any; else strips, if the
            first picture is three times as wide as high at least; else folders of frames.

    Raises:
        UserError: no such place, or nothing there.
    """
    endings = {"videos": VIDEOS, "auto": EXTENSIONS | VIDEOS}.get(kind, EXTENSIONS)
    files = find_files(source, sorted(endings), "clips")
    if kind == "auto":
        moving = [one for one in files if one[1].suffix.lower() in VIDEOS]
        kind = "videos" if moving else "strips" if _is_strip(files[0][1]) else "folders"
        files = moving or files
    if kind == "videos":
        require_reader()
    if kind in ("videos", "strips"):
        return [Clip(name=name, files=(path,), kind=kind[:-1]) for name, path in files]
    folders: dict[str, list[tuple[str, Path]]] = {}
    for name, path in files:
        folders.setdefault(name.rpartition("/")[0], []).append((name, path))
    return [
        Clip(
            name=folder or Path(source).name,
            files=tuple(path for _, path in sorted(some, key=lambda one: _numbered(one[0]))),
            kind="frames",
        )
        for folder, some in folders.items()
    ]


def _numbered(name: str) -> list[tuple[int, str]]:
    """Sorts frame 2 before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _is_strip(path: Path) -> bool:
    try:
        with decoding(), Image.open(path) as image:
            width, height = image.size
    except (Fault, OSError):
        return False
    return width >= _LEAST_FRAMES * height


@dataclass(frozen=True, kw_only=True)
class ClipMaterial:
    """Packed clips, and the windows in them that triplets are drawn from.

    Attributes:
        packed: values uint8 (T, H, W, C).
        span: frames from the first to the last of three.
        apart: frames by which a wrong middle lies beyond them at least.
        asked: whether the preflight was.
    """

    packed: Packed
    span: int
    apart: int
    asked: bool = True

    @property
    def window(self) -> int:
        """Frames from the earliest that a triplet can have to the latest."""
        return self.span + 4 * self.apart + 1

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """For each window its clip and its first frame, (N,) int64 each."""
        rows = [
            (clip, start + offset)
            for clip, (start, size) in enumerate(
                zip(self.packed.starts.tolist(), self.packed.lengths.tolist(), strict=False)
            )
            for offset in range(size - self.window + 1)
        ]
        clips, begins = np.array(rows, np.int64).reshape(-1, 2).T
        return clips, begins

    @cached_property
    def motion(self) -> np.ndarray:
        """How much changes from frame to frame in each window, mean levels, (N,) float64, above 0."""
        values, window = self.packed.values, self.window
        change = np.zeros(len(values))
        for frame in range(1, len(values)):  # of neighbours in different clips nobody asks
            now, before = values[frame].astype(np.int16), values[frame - 1].astype(np.int16)
            change[frame] = np.abs(now - before).mean()
        sums = np.concatenate([[0.0], change.cumsum()])
        begins = self.windows[1]
        return (sums[begins + window] - sums[begins + 1]) / (window - 1) + 1e-6

    @property
    def spec(self) -> Pictures:
        """What the family is told: the form of a frame."""
        height, width, channels = self.packed.values.shape[1:]
        return Pictures(channels=channels, height=height, width=width)

    @property
    def key(self) -> str:
        """Of the contents, and of how triplets are drawn."""
        return f"{self.packed.key}-{self.span}-{self.apart}"

    @property
    def notes(self) -> list[str]:
        """What the user should know of it, as sentences."""
        return [
            f"Three frames span {self.span}, and a wrong middle lies {self.apart} to {2 * self.apart} "
            "frames beyond them."
        ]

    @property
    def warnings(self) -> list[str]:
        """What the preflight found odd, as sentences."""
        if not self.asked:
            return []
        found = told_left_out(self.packed.left_out, "clips")
        if len(self.packed) < 20:
            found.append(
                f"{len(self.packed)} clips are few; they will be known by heart, and the answers on "
                "those held out tell how soon."
            )
        if (still := float((self.motion < 0.05).mean())) > 0.5:
            found.append(
                f"In {still:.0%} of the windows nothing moves: their order cannot be told. A larger "
                "--every or --span helps where the motion is slow."
            )
        return found

    def __len__(self) -> int:
        return len(self.windows[0])

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The windows that are trained on and those held out; those of a clip stay together."""
        counts = np.bincount(self.windows[0], minlength=len(self.packed))
        return [split(len(self), holdout, counts)]

    def one_table(self, holdout: float | None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Frames by field name, and those at which windows begin: for the doctor."""
        train, unseen = self.split(holdout)[0]
        begins = self.windows[1]
        return {"images": self.packed.values}, begins[train], begins[unseen]

    def stream(self, data: PretextData, *, seed: int, rank: int, world: int) -> TripletStream:
        """The endless stream of one process."""
        return TripletStream(
            self, self.split(data.holdout)[0][0], seed=seed, rank=rank, world=world
        )

    def settled(self, data: PretextData) -> PretextData:
        """These settings with what was left to choose filled in."""
        return dataclasses.replace(
            data,
            resolution=(self.spec.height, self.spec.width),
            channels={1: "grey", 3: "rgb", 4: "rgba"}[self.spec.channels],
            span=self.span,
            apart=self.apart,
            holdout=data.share(len(self.split(data.holdout)[0][1]), len(self)),
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        return {
            "source": source,
            "kind": "clips",
            "count": len(self),
            "clips": len(self.packed),
            "frames": len(self.packed.values),
            "resolution": format_resolution(self.spec.height, self.spec.width),
            "channels": self.spec.channels,
            "key": self.key,
            "left_out": self.packed.left_out,
            "warnings": self.warnings,
            "notes": self.notes,
        }

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "windows": len(self),
            "clips": len(self.packed),
            "frames": len(self.packed.values),
            "left_out": len(self.packed.left_out),
            "resolution": format_resolution(self.spec.height, self.spec.width),
            "channels": self.spec.channels,
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        facts = self.facts()
        return (
            f"{facts['clips']:,} clips of {facts['frames']:,} frames as {facts['resolution']} x "
            f"{facts['channels']}, {facts['left_out']} left out"
        )


class TripletStream:
    """The endless stream of frames to make triplets of: b, c, d, and one of a and e.

    Example p follows from (seed, p) alone. Windows are drawn in proportion to their motion, where the
    paper takes optical flow and this the change from frame to frame.

    Args:
        material: the clips.
        rows: windows that are drawn from, (K,) int64.
        seed: of all that is drawn.
        rank, world: this process and their number.
    """

    def __init__(
        self, material: ClipMaterial, rows: np.ndarray, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self._values = np.asarray(material.packed.values)
        self._begins = material.windows[1][rows]
        self._shares = np.cumsum(material.motion[rows])
        self._span, self._apart = material.span, material.apart
        self._key, self._rank, self._world = mix(seed, "triplets"), rank, world

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        """This rank's share of examples position..position+count-1: uint8 (n, H, W, C) by field."""
        share = count // self._world
        places = self.places(position + self._rank * share, share)
        return {name: self._values[place] for name, place in zip(FRAMES, places, strict=True)}

    def places(self, position: int, count: int) -> tuple[np.ndarray, ...]:
        """Which frames these are, four times (count,) int64."""
        # A block of the counter gives four numbers: one example's.
        raw = np.random.Philox(key=self._key, counter=position).random_raw(4 * count)
        window, inside, outside, back = (raw >> np.uint64(11)).reshape(count, 4).T / 2.0**53
        row = np.searchsorted(self._shares, window * self._shares[-1], side="right")
        first = self._begins[np.minimum(row, len(self._begins) - 1)] + 2 * self._apart
        last = first + self._span
        middle = first + 1 + (inside * (self._span - 1)).astype(np.int64)
        # One number for the side and how far: apart to twice apart before b, or behind d.
        steps = self._apart + 1
        far = (outside * 2 * steps).astype(np.int64)
        beyond = np.where(far < steps, first - self._apart - far, last + self._apart + far - steps)
        turned = back < 0.5
        return np.where(turned, last, first), middle, np.where(turned, first, last), beyond


def read_clips(
    source: str,
    data: PretextData,
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> ClipMaterial:
    """The clips of a source.

    Args:
        source: a folder of strips, of folders of frames, or of videos; or one file.
        data: how to read it.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd.

    Raises:
        UserError: nothing usable, clips that are too short, or a setting that does not fit.
    """
    if data.fit == "tiles":
        raise UserError("--fit tiles cuts pictures into pieces, and clips have none.", "Use crop.")
    try:
        background = ImageColor.getrgb(data.background)[:3]
    except ValueError as error:
        raise UserError(
            f"'{data.background}' is not a colour.", "Write white, black or #rrggbb."
        ) from error
    clips = find_clips(source, data.clips)
    files = [
        (f"{clip.name}/{number}", path) for clip in clips for number, path in enumerate(clip.files)
    ]
    how = (data.resolution, data.channels, data.fit, data.background, data.every, data.clips)

    def read() -> Contents:
        return _read(source, clips, data, background, progress)  # pyright: ignore[reportArgumentType]

    packed = pack_pieces(stamp_of(files, _FORMAT, json.dumps(how)), read, progress=progress)
    span, apart = _reach(packed.lengths, data)
    material = ClipMaterial(packed=packed, span=span, apart=apart, asked=preflight)
    if not any(packed.lengths >= material.window):
        raise UserError(
            f"No clip of '{source}' has the {material.window} frames that --span {span} and --apart "
            f"{apart} need: the longest has {packed.lengths.max()}.",
            "Choose a smaller --span.",
        )
    return material


def _reach(lengths: np.ndarray, data: PretextData) -> tuple[int, int]:
    """Frames between the first and the last of three, and how far beyond a wrong middle lies."""
    usual = int(np.quantile(lengths, 0.1))
    span = data.span or max(2, min(_LONGEST, usual // 2 - 1))
    return span, data.apart or max(1, span // 4)


def _read(
    source: str,
    clips: list[Clip],
    data: PretextData,
    background: tuple[int, int, int],
    progress: Progress | None,
) -> Contents:
    """Every clip at one size and with the same channels."""
    left_out: list[dict[str, str]] = []
    size: list[tuple[int, int]] = [] if data.resolution is None else [data.resolution]
    resize = "crop" if data.fit == "tiles" else data.fit

    def frame(image: Image.Image) -> np.ndarray:
        if not size:
            own = image.height, image.width
            size.append(own if max(own) <= _LARGEST else (_USUAL, _USUAL))
        image = to_channels(image, _MODES[data.channels], background)
        return to_array(fit(image, size[0], resize, background))

    def pieces() -> Iterator[Piece]:
        kept = 0
        for index, clip in enumerate(clips):
            if progress is not None:
                progress("reading", index, len(clips))
            try:
                shown = enumerate(clip.frames())
                values = [frame(image) for number, image in shown if number % data.every == 0]
            except Unusable as error:
                left_out.append({"name": clip.name, "reason": str(error)})
                continue
            if len(values) < _LEAST_FRAMES:
                reason = f"has {len(values)} frames, and an order needs three"
                left_out.append({"name": clip.name, "reason": reason})
                continue
            kept += 1
            yield Piece(name=clip.name, values=np.stack(values))
        if not kept:
            raise nothing_usable(source, left_out, "clips")

    return Contents(pieces=pieces(), left_out=left_out)
