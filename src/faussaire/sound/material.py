"""What a sound run trains on: clips of packed recordings."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from faussaire.core.errors import UserError
from faussaire.core.loop import Stream
from faussaire.data.labels import apply_table, from_table
from faussaire.data.packing import (
    Contents,
    Packed,
    Piece,
    Unusable,
    Windows,
    WindowStream,
    find_files,
    nothing_usable,
    pack_pieces,
    stamp_of,
    told_left_out,
)
from faussaire.data.parallel import Progress
from faussaire.data.source import file_token
from faussaire.material import split
from faussaire.sound.spec import LENGTHS, Sound, SoundData
from faussaire.sound.waves import EXTENSIONS, rate_of, read_wave, resample, to_int16

_FORMAT = "sound 2"
_LEAST = 0.25
"""Share of a clip that the last piece of a recording must fill to be one, where others came before."""


@dataclass(frozen=True, kw_only=True)
class SoundMaterial:
    """Packed recordings, and the clips in them.

    Attributes:
        packed: values int16 (T,).
        spec: the form of a clip.
        slices, overlap: how recordings are cut.
        said: remarks on the reading, as sentences.
        asked: whether the preflight was.
    """

    packed: Packed
    spec: Sound
    slices: str
    overlap: float
    said: tuple[str, ...] = ()
    asked: bool = True

    @cached_property
    def clips(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each clip its recording, its first sample and its recording's end, (N,) int64 each."""
        length = self.spec.length
        hop = max(1, round(length * (1.0 - self.overlap)))
        rows = []
        for piece, (start, size) in enumerate(
            zip(self.packed.starts.tolist(), self.packed.lengths.tolist(), strict=False)
        ):
            offsets = [0]
            if self.slices == "all":
                more = range(hop, size, hop)
                offsets += [offset for offset in more if size - offset >= _LEAST * length]
            rows += [(piece, start + offset, start + size) for offset in offsets]
        owners, begins, ends = np.array(rows, np.int64).T
        return owners, begins, ends

    @cached_property
    def waves(self) -> Windows:
        """The clips as int16 (N, length)."""
        _, begins, ends = self.clips
        return Windows(self.packed.values, begins, ends, self.spec.length)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class numbers of the clips, (N,) int64; None where there are no classes."""
        if not self.spec.classes:
            return None
        index = {name: number for number, name in enumerate(self.spec.classes)}
        numbers = np.array([index[str(label)] for label in self.packed.labels], np.int64)
        return numbers[self.clips[0]]

    @property
    def fields(self) -> dict[str, Any]:
        """The data by field name."""
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"waves": self.waves, **labels}

    @property
    def key(self) -> str:
        """Of the contents, and of how they are cut."""
        return f"{self.packed.key}-{self.spec.length}-{self.slices}-{self.overlap:g}"

    @property
    def notes(self) -> list[str]:
        """What the user should know of it, as sentences."""
        seconds = self.spec.length / self.spec.rate
        return [
            *self.said,
            f"Clips of {self.spec.length} samples at {self.spec.rate} Hz last {seconds:.2f} s.",
        ]

    @property
    def warnings(self) -> list[str]:
        """What the preflight found odd, as sentences."""
        if not self.asked:
            return []
        found = told_left_out(self.packed.left_out, "files")
        lengths = self.packed.lengths
        if (short := float((lengths < 0.5 * self.spec.length).mean())) > 0.5:
            found.append(
                f"{short:.0%} of the recordings fill less than half of a clip; a smaller --length would "
                "leave less silence to learn."
            )
        if self.slices == "first" and (lost := float((lengths > self.spec.length).mean())) > 0:
            found.append(f"{lost:.1%} of the recordings are longer than a clip, and are cut.")
        loudest = max(abs(int(v)) for v in (self.packed.values.min(), self.packed.values.max()))
        if loudest < 3277:
            found.append(
                f"The recordings reach {loudest / 32768:.1%} of full scale; --loudness peak uses all."
            )
        return found

    def __len__(self) -> int:
        return len(self.clips[0])

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The clips that are trained on and those held out; those of a recording stay together."""
        counts = np.bincount(self.clips[0], minlength=len(self.packed))
        return [split(len(self), holdout, counts)]

    def one_table(self, holdout: float | None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """The data by field name, and rows that are trained on and held out: for the doctor."""
        return self.fields, *self.split(holdout)[0]

    def stream(self, data: SoundData, *, seed: int, rank: int, world: int) -> Stream:
        """The endless stream of one process."""
        rows = self.split(data.holdout)[0][0]
        return WindowStream(self.fields, rows=rows, seed=seed, rank=rank, world=world)

    def settled(self, data: SoundData) -> SoundData:
        """These settings with what was left to choose filled in."""
        return dataclasses.replace(
            data,
            rate=self.spec.rate,
            length=self.spec.length,
            holdout=data.share(len(self.split(data.holdout)[0][1]), len(self)),
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        counts = Counter(self.packed.labels)
        return {
            "source": source,
            "kind": "sound",
            "count": len(self),
            "recordings": len(self.packed),
            "rate": self.spec.rate,
            "length": self.spec.length,
            "classes": list(self.spec.classes),
            "class_counts": {name: counts[name] for name in self.spec.classes},
            "key": self.key,
            "left_out": self.packed.left_out,
            "warnings": self.warnings,
            "notes": self.notes,
        }

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "clips": len(self),
            "recordings": len(self.packed),
            "left_out": len(self.packed.left_out),
            "rate": self.spec.rate,
            "length": self.spec.length,
            "classes": len(self.spec.classes),
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        classes = f" of {len(self.spec.classes)} classes" if self.spec.classes else ""
        return (
            f"{len(self):,} clips of {self.spec.length} samples at {self.spec.rate} Hz from "
            f"{len(self.packed):,} recordings{classes}{self.packed.missed()}"
        )


def read_sound(
    source: str,
    data: SoundData,
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> SoundMaterial:
    """The clips of a folder of recordings.

    Args:
        source: a folder, or one file.
        data: how to read it.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd.

    Raises:
        UserError: nothing usable, rates that differ, or a setting that does not fit.
    """
    files = find_files(source, EXTENSIONS, "sound files")
    table = _table(source, data)
    asked = (
        str(data.rate),
        data.loudness,
        data.classes,
        str(table),
        file_token(table) if table else "",
    )
    said: list[str] = []

    def read() -> Contents:
        return _read(source, files, data, table, progress)

    packed = pack_pieces(stamp_of(files, _FORMAT, json.dumps(asked)), read, progress=progress)
    folders = {name.split("/")[0] for name in packed.names if "/" in name}
    if data.classes == "auto" and table is None and len(folders) > 1:
        said.append(
            f"{len(folders)} sub-folders are read as one set; --classes folders makes them classes."
        )
    length = data.length
    if length is None:
        most = float(np.quantile(packed.lengths, 0.9))
        length = next((known for known in LENGTHS if known >= most), LENGTHS[-1])
    classes = tuple(sorted({label for label in packed.labels if label is not None}))
    spec = Sound(rate=packed.facts["rate"], length=length, classes=classes)
    return SoundMaterial(
        packed=packed,
        spec=spec,
        slices=data.slices,
        overlap=data.overlap,
        said=tuple(said),
        asked=preflight,
    )


def _table(source: str, data: SoundData) -> Path | None:
    """The table of labels that counts here."""
    if data.labels is not None:
        return data.labels
    found = Path(source).expanduser() / "labels.csv"
    return found if data.classes == "auto" and found.is_file() else None


def _classes(
    names: list[str], data: SoundData, source: str, table: Path | None
) -> list[str | None]:
    """The class of each file.

    Raises:
        UserError: a file has none.
    """
    if table is not None:
        labels, _ = apply_table(names, from_table(table, "auto"), table)
        return labels
    if data.classes == "folders":
        flat = next((name for name in names if "/" not in name), None)
        if flat is not None:
            raise UserError(
                f"--classes folders, but '{flat}' lies in no sub-folder of '{source}'.",
                "Put each class in a sub-folder of its own.",
            )
        return [name.split("/")[0] for name in names]
    if data.classes == "prefix":
        stems = [PurePosixPath(name).stem.replace("-", "_") for name in names]
        odd = next((name for name, stem in zip(names, stems, strict=True) if "_" not in stem), None)
        if odd is not None:
            raise UserError(
                f"--classes prefix, but '{odd}' has no _ or - in its name.",
                "Name files class_anything, or use sub-folders or a labels.csv.",
            )
        return [stem.partition("_")[0] for stem in stems]
    return [None] * len(names)


def _read(
    source: str,
    files: list[tuple[str, Path]],
    data: SoundData,
    table: Path | None,
    progress: Progress | None,
) -> Contents:
    """Every recording, at one rate."""
    left_out: list[dict[str, str]] = []
    usable: list[tuple[str, Path]] = []
    rates: dict[int, str] = {}
    for name, path in files:
        try:
            rates.setdefault(rate_of(path), name)
            usable.append((name, path))
        except Unusable as error:
            left_out.append({"name": name, "reason": str(error)})
    if not usable:
        raise nothing_usable(source, left_out, "files")
    if data.rate is None and len(rates) > 1:
        (one, first), (two, second), *_ = rates.items()
        raise UserError(
            f"The recordings have different rates: '{first}' has {one} Hz, '{second}' {two} Hz.",
            f"Say which to train at, such as --rate {min(rates)}; the others are resampled.",
        )
    rate = data.rate or next(iter(rates))
    labels = dict(
        zip(
            (name for name, _ in usable),
            _classes([name for name, _ in usable], data, source, table),
            strict=True,
        )
    )
    if table is not None:
        left_out += [
            {"name": name, "reason": f"has no label in '{table.name}'"}
            for name, _ in usable
            if labels[name] is None
        ]
        usable = [(name, path) for name, path in usable if labels[name] is not None]

    def pieces() -> Iterator[Piece]:
        kept = 0
        for index, (name, path) in enumerate(usable):
            if progress is not None:
                progress("reading", index, len(usable))
            try:
                samples, own = read_wave(path)
            except Unusable as error:
                left_out.append({"name": name, "reason": str(error)})
                continue
            samples = resample(samples, own, rate)
            if data.loudness == "peak":
                samples = samples / max(float(np.abs(samples).max()), 1e-4)
            kept += 1
            yield Piece(name=name, values=to_int16(samples), label=labels[name])
        if not kept:
            raise nothing_usable(source, left_out, "files")

    return Contents(pieces=pieces(), facts={"rate": rate}, left_out=left_out)
