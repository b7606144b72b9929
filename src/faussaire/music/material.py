"""What a music run trains on: phrases of packed piano rolls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from faussaire.core.errors import UserError
from faussaire.core.loop import Stream
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
from faussaire.material import split
from faussaire.music.notes import (
    JSON,
    MIDI,
    Song,
    choose_pitches,
    choose_tracks,
    read_json,
    read_midi,
    roll,
)
from faussaire.music.spec import MusicData, Score

_FORMAT = "music 1"


@dataclass(frozen=True, kw_only=True)
class MusicMaterial:
    """Packed piano rolls, and the phrases in them.

    Attributes:
        packed: values uint8 (T, pitches, tracks) of 0 and 1; whole bars of each piece.
        spec: the form of a phrase.
        stride: bars from one phrase to the next.
        asked: whether the preflight was.
    """

    packed: Packed
    spec: Score
    stride: int
    asked: bool = True

    @cached_property
    def phrases(self) -> tuple[np.ndarray, np.ndarray]:
        """For each phrase its piece and its first step in the values, (N,) int64 each."""
        bar = self.spec.steps
        owners, begins = [], []
        for piece, (start, length) in enumerate(
            zip(self.packed.starts.tolist(), self.packed.lengths.tolist(), strict=False)
        ):
            last = length - self.spec.length
            firsts = np.arange(start, start + last + 1, bar * self.stride)
            begins.append(firsts)
            owners.append(np.full(len(firsts), piece))
        return np.concatenate(owners), np.concatenate(begins).astype(np.int64)

    @cached_property
    def rolls(self) -> Windows:
        """The phrases as uint8 (N, bars, steps, pitches, tracks)."""
        begins = self.phrases[1]
        ends = begins + self.spec.length
        return Windows(self.packed.values, begins, ends, self.spec.length, self.spec.shape)

    @property
    def key(self) -> str:
        """Of the contents, and of how they are cut."""
        return f"{self.packed.key}-{self.spec.bars}-{self.stride}"

    @property
    def notes(self) -> list[str]:
        """What the user should know of it, as sentences."""
        facts = self.packed.facts
        said = [f"Tracks: {', '.join(self.spec.tracks)}."]
        if outside := facts["outside"]:
            last = self.spec.lowest + self.spec.pitches - 1
            said.append(
                f"{outside:,} of {facts['notes']:,} notes lie outside the pitches {self.spec.lowest} to "
                f"{last} and are left out (--lowest, --pitches)."
            )
        return said

    @property
    def warnings(self) -> list[str]:
        """What the preflight found odd, as sentences."""
        if not self.asked:
            return []
        found = told_left_out(self.packed.left_out, "pieces")
        for track, name in enumerate(self.spec.tracks):
            share = self._sounding[track]
            if share < 0.02:
                found.append(
                    f"Track {name} plays in {share:.1%} of the bars: it will hardly be learnt."
                )
        if len(self) < 200:
            found.append(f"{len(self)} phrases are few: a discriminator learns them by heart.")
        return found

    @cached_property
    def _sounding(self) -> np.ndarray:
        """The share of bars in which each track plays, (tracks,)."""
        values = self.packed.values
        sounding = values.any(axis=1).reshape(-1, self.spec.steps, values.shape[2])
        return sounding.any(axis=1).mean(axis=0)

    def __len__(self) -> int:
        return len(self.phrases[0])

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The phrases that are trained on and those held out; those of a piece stay together."""
        counts = np.bincount(self.phrases[0], minlength=len(self.packed))
        return [split(len(self), holdout, counts[counts > 0])]

    def one_table(self, holdout: float | None) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """The data by field name, and rows that are trained on and held out: for the doctor."""
        return {"rolls": self.rolls}, *self.split(holdout)[0]

    def stream(self, data: MusicData, *, seed: int, rank: int, world: int) -> Stream:
        """The endless stream of one process."""
        rows = self.split(data.holdout)[0][0]
        return WindowStream({"rolls": self.rolls}, rows=rows, seed=seed, rank=rank, world=world)

    def settled(self, data: MusicData) -> MusicData:
        """These settings with what was left to choose filled in."""
        return dataclasses.replace(
            data,
            lowest=self.spec.lowest,
            pitches=self.spec.pitches,
            tempo=self.spec.tempo,
            tracks=self.packed.facts["chosen"],
            holdout=data.share(len(self.split(data.holdout)[0][1]), len(self)),
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        return {
            "source": source,
            "kind": "music",
            "count": len(self),
            "pieces": len(self.packed),
            "tracks": list(self.spec.tracks),
            "pitches": [self.spec.lowest, self.spec.lowest + self.spec.pitches - 1],
            "key": self.key,
            "left_out": self.packed.left_out,
            "warnings": self.warnings,
            "notes": self.notes,
        }

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "phrases": len(self),
            "pieces": len(self.packed),
            "left_out": len(self.packed.left_out),
            "tracks": list(self.spec.tracks),
            "bars": self.spec.bars,
            "steps": self.spec.steps,
            "pitches": self.spec.pitches,
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        spec = self.spec
        return (
            f"{len(self):,} phrases of {spec.bars} bars of {spec.steps} steps from "
            f"{len(self.packed):,} pieces, {len(spec.tracks)} tracks ({', '.join(spec.tracks)}) of "
            f"{spec.pitches} pitches from {spec.lowest}{self.packed.missed()}"
        )


def read_music(
    source: str,
    data: MusicData,
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> MusicMaterial:
    """The phrases of MIDI files, or of JSON piano rolls.

    Args:
        source: a folder, or one file.
        data: how to read it.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd.

    Raises:
        UserError: nothing usable, or a setting that does not fit.
    """
    files = find_files(source, (*MIDI, *JSON), "MIDI or JSON files")
    if any(path.suffix.lower() in MIDI for _, path in files):  # beside these, JSON tells of them
        files = [(name, path) for name, path in files if path.suffix.lower() in MIDI]
    asked = {**dataclasses.asdict(data), "holdout": None, "stride": None, "tempo": None}

    def read() -> Contents:
        return _read(source, files, data, progress)

    packed = pack_pieces(stamp_of(files, _FORMAT, json.dumps(asked)), read, progress=progress)
    facts = packed.facts
    spec = Score(
        tracks=tuple(facts["tracks"]),
        programs=tuple(facts["programs"]),
        bars=data.bars,
        beats=data.beats,
        beat_steps=data.beat_steps,
        pitches=facts["pitches"],
        lowest=facts["lowest"],
        tempo=data.tempo or facts["tempo"],
    )
    return MusicMaterial(packed=packed, spec=spec, stride=data.stride, asked=preflight)


def _read(source: str, files: list[Any], data: MusicData, progress: Progress | None) -> Contents:
    """Every piece, on rolls of one form."""
    songs: list[Song] = []
    left_out: list[dict[str, str]] = []
    for index, (name, path) in enumerate(files):
        if progress is not None:
            progress("reading", index, len(files))
        try:
            if path.suffix.lower() in JSON:
                songs += read_json(path, name, data)
            else:
                songs.append(read_midi(path, name, data))
        except Unusable as error:
            left_out.append({"name": name, "reason": str(error)})
    if not songs:
        left_out = left_out or [{"name": files[0][0], "reason": "has no notes"}]
        raise nothing_usable(source, left_out, "files")
    tracks = choose_tracks(songs, data.tracks)
    lowest, pitches = choose_pitches(songs, data)
    bar = data.beats * data.beat_steps
    kept: list[Song] = []
    outside = total = 0
    for song in songs:
        placed = tracks.place(song)
        steps = max((int(notes[:, 1].max()) for _, notes in placed if len(notes)), default=0)
        if not steps:
            left_out.append({"name": song.name, "reason": "plays none of the tracks"})
        elif -(-steps // bar) < data.bars:
            reason = f"has {-(-steps // bar)} bars, fewer than {data.bars} (--bars)"
            left_out.append({"name": song.name, "reason": reason})
        else:
            kept.append(song)
            sounding = np.concatenate([notes[:, 2] for _, notes in placed])
            total += len(sounding)
            outside += int(((sounding < lowest) | (sounding >= lowest + pitches)).sum())
    if not kept:
        raise nothing_usable(source, left_out, "pieces")
    if outside == total:
        raise UserError(
            f"All {total:,} notes of '{source}' lie outside the pitches {lowest} to "
            f"{lowest + pitches - 1}.",
            "Leave --lowest and --pitches out.",
        )
    tempi = [song.tempo for song in kept if song.tempo]
    facts = {
        "tracks": list(tracks.names),
        "programs": list(tracks.programs),
        "chosen": "order" if tracks.groups is None else _named(data.tracks),
        "lowest": lowest,
        "pitches": pitches,
        "tempo": round(float(np.median(tempi)), 2) if tempi else 120.0,
        "notes": total,
        "outside": outside,
    }

    def pieces() -> Iterator[Piece]:
        for index, song in enumerate(kept):
            if progress is not None:
                progress("packing", index, len(kept))
            yield Piece(name=song.name, values=roll(song, tracks, lowest, pitches, bar)[0])

    return Contents(pieces=pieces(), facts=facts, left_out=left_out)


def _named(wanted: str) -> str:
    """`auto` as what it became."""
    return "band" if wanted.strip().lower() == "auto" else wanted
