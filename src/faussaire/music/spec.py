"""What a music family is told of its data, and how music is read: settings. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from faussaire.core.config import DataConfig, check_range

DRUMS = -1
"""Stands for a program where a track is drums."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The form of a phrase: piano rolls of several tracks over some bars.

    Attributes:
        tracks: their names.
        programs: General MIDI's number of each track's instrument, 0 to 127; -1: drums.
        bars: in a phrase.
        beats: quarter notes in a bar.
        beat_steps: time steps in a beat; 4: sixteenths.
        pitches: semitones that are shown; whole octaves.
        lowest: MIDI's number of the lowest.
        tempo: in beats a minute, for who plays it.
        classes: always empty: music is learnt without classes.
    """

    tracks: tuple[str, ...]
    programs: tuple[int, ...]
    bars: int
    beats: int
    beat_steps: int
    pitches: int
    lowest: int
    tempo: float = 120.0
    classes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Time steps in a bar."""
        return self.beats * self.beat_steps

    @property
    def octaves(self) -> int:
        """Octaves that are shown."""
        return self.pitches // 12

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(bars, steps, pitches, tracks)."""
        return self.bars, self.steps, self.pitches, len(self.tracks)

    @property
    def length(self) -> int:
        """Time steps in a phrase."""
        return self.bars * self.steps


@dataclass(frozen=True, kw_only=True)
class MusicData(DataConfig):
    """How music is read.

    Attributes:
        tracks: what becomes a track of its own. `auto`: the instruments in their order where all files
            have equally many, up to eight, else `band`. `order` asks for the former; `band` is drums,
            piano, guitar, bass and strings, which take all other melodic instruments; `one` puts all
            but drums into one track. Else names of General MIDI's groups with commas between, of
            drums, piano, chromatic, organ, guitar, bass, strings, ensemble, brass, reed, pipe, lead,
            pad, effects, ethnic, percussive and sound.
        bars: in a phrase.
        beats: quarter notes in a bar; files in another time are left out.
        beat_steps: time steps in a beat; 4 are sixteenths, 12 know triplets, too.
        stride: bars from one phrase of a piece to the next; phrases overlap where it is less than bars.
        lowest: MIDI's number of the lowest pitch shown, 60 is the middle C; None: as the data need.
        pitches: semitones shown, a multiple of 12; None: as the data need, 96 at most.
        part: of a JSON file that has several (train, valid, test), the one to read.
        tempo: beats a minute of what is written; None: as in the data, or 120.
    """

    tracks: str = "auto"
    bars: int = 4
    beats: int = 4
    beat_steps: Literal[2, 3, 4, 6, 8, 12, 24] = 4
    stride: int = 1
    lowest: int | None = None
    pitches: int | None = None
    part: str = "train"
    tempo: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, bars=(1, 64), beats=(1, 16), stride=(1, 64))
        if self.lowest is not None:
            check_range(self, lowest=(0, 116))
        if self.pitches is not None:
            check_range(self, pitches=(12, 120))
        if self.tempo is not None:
            check_range(self, tempo=(10, 500))
