"""Music files -> notes on a grid of time steps: MIDI (pretty_midi), and JSON of chords step by step."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.errors import UserError, nearest
from faussaire.data.packing import Unusable
from faussaire.music.spec import DRUMS, MusicData

MIDI = (".mid", ".midi")
JSON = (".json",)

GROUPS = (
    "piano", "chromatic", "organ", "guitar", "bass", "strings", "ensemble", "brass",
    "reed", "pipe", "lead", "pad", "effects", "ethnic", "percussive", "sound",
)  # fmt: skip
"""General MIDI's groups of eight programs each, in order."""
BAND = ("drums", "piano", "guitar", "bass", "strings")
"""The five tracks of the Lakh Pianoroll Dataset, on which MuseGAN was trained."""
_INSTRUMENT = {"piano": 0, "guitar": 25, "bass": 33, "strings": 48, "drums": DRUMS}
"""The program that plays a track of the band (MuseGAN's own choice); of others, the group's first."""
VOICES = ("soprano", "alto", "tenor", "bass")
_CHOIR = 52
_MOST = 8  # instruments that `auto` makes tracks of


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one instrument plays.

    Attributes:
        name: as the file has it; may be empty.
        program: 0 to 127, or `DRUMS`.
        notes: (K, 3) int64: the first step of each, the step behind its last, and its pitch.
    """

    name: str
    program: int
    notes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Song:
    """One piece of music.

    Attributes:
        name: unique within the source.
        parts: those that play at least a note, in order.
        tempo: beats a minute; None: nobody says.
    """

    name: str
    parts: list[Part] = field(default_factory=list)
    tempo: float | None = None


def require_pretty_midi() -> Any:
    """The library that reads and writes MIDI.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise UserError(
            "MIDI files need the library pretty_midi, which is not installed.",
            'Install it: pip install "faussaire[music]"',
        ) from error
    return pretty_midi


def read_midi(path: Path, name: str, data: MusicData) -> Song:
    """The notes of a MIDI file.

    Raises:
        Unusable: it is damaged, has no notes, or is in another time.
        UserError: pretty_midi is not installed.
    """
    pretty_midi = require_pretty_midi()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of tempo changes on odd tracks, which are read all the same
            midi = pretty_midi.PrettyMIDI(str(path))
    # What mido and pretty_midi raise at odd bytes is whatever Python raises there.
    except (
        OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    ) as error:  # fmt: skip
        raise Unusable(
            f"is no MIDI file that can be read ({error or type(error).__name__})"
        ) from error
    for signature in midi.time_signature_changes:
        if signature.numerator * 4 != data.beats * signature.denominator:
            quarters = f"{4 * signature.numerator / signature.denominator:g}"
            raise Unusable(
                f"is in {signature.numerator}/{signature.denominator}, {quarters} quarter notes a "
                f"bar and not {data.beats} (--beats)"
            )
    parts = []
    for instrument in midi.instruments:
        notes = [
            (_step(midi, note.start, data), _step(midi, note.end, data), note.pitch)
            for note in instrument.notes
        ]
        if notes:
            table = np.array(notes, np.int64)
            # A note that is shorter than half a step still sounds.
            table[:, 1] = np.maximum(table[:, 1], table[:, 0] + 1)
            program = DRUMS if instrument.is_drum else int(instrument.program)
            parts.append(Part(name=instrument.name.strip(), program=program, notes=table))
    if not parts:
        raise Unusable("has no notes")
    _, tempi = midi.get_tempo_changes()
    return Song(name=name, parts=parts, tempo=float(tempi[0]) if len(tempi) else None)


def _step(midi: Any, seconds: float, data: MusicData) -> int:
    """The nearest time step to an instant."""
    return round(midi.time_to_tick(seconds) * data.beat_steps / midi.resolution)


def read_json(path: Path, name: str, data: MusicData) -> list[Song]:
    """The pieces of a JSON file: lists of steps, each a list with the pitch of every voice.

    `{"train": [piece, ...], ...}`, or `[piece, ...]`, or `{name: piece, ...}` without such parts; a
    piece is `[[74, 70, 65, 58], ...]`. A pitch of null, 0 or less is a rest; where a step has fewer
    pitches than the piece has voices, the others rest.

    Raises:
        UserError: it is not such a file, with piece and step.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' is not UTF-8 text (byte {error.start}).", "Save it as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            "Mend the line it names.",
        ) from error
    label = name
    if isinstance(content, dict) and data.part in content:
        label, content = f"{name}/{data.part}", content[data.part]
    elif isinstance(content, dict) and {"train", "test", "valid"} & content.keys():
        raise UserError(
            f"'{path}' has no part '{data.part}'.{nearest(data.part, content)}",
            f"It has: {', '.join(content)}. Choose one with --part.",
        )
    if isinstance(content, dict):
        pieces = {f"{label}/{key}": piece for key, piece in content.items()}
    elif isinstance(content, list):
        pieces = {f"{label}/{index}": piece for index, piece in enumerate(content)}
    else:
        raise UserError(f"'{path}' holds no list of pieces.", "See docs/families/musegan.md.")
    songs = [_song(title, piece, path) for title, piece in pieces.items()]
    return [song for song in songs if song.parts]


def _song(title: str, piece: Any, path: Path) -> Song:
    """One piece of a JSON file.

    Raises:
        UserError: a step is no list of pitches.
    """
    if not isinstance(piece, list) or not piece:
        raise UserError(
            f"'{path}': piece {title} is no list of steps.", "See docs/families/musegan.md."
        )
    for number, step in enumerate(piece):
        if not isinstance(step, list):
            raise UserError(
                f"'{path}': piece {title}, step {number} is {str(step)[:40]}, not a list of pitches.",
                "Each step needs one pitch for every voice; null or 0 is a rest.",
            )
        for pitch in step:
            if not _is_pitch(pitch):
                raise UserError(
                    f"'{path}': piece {title}, step {number} has {str(pitch)[:40]}, which is no pitch.",
                    "Pitches are MIDI's numbers, 1 to 127; null or 0 is a rest.",
                )
    voices = max(len(step) for step in piece)
    grid = np.zeros((len(piece), voices), np.int64)
    last = np.zeros(voices, np.int64)
    for number, step in enumerate(piece):
        pitches = [_sounds(pitch) for pitch in step]
        singing = range(voices) if len(step) == voices else _singers(pitches, last)
        for voice, pitch in zip(singing, pitches, strict=True):
            grid[number, voice] = pitch
            last[voice] = pitch if pitch > 0 else last[voice]
    parts = []
    for voice in range(voices):
        label = VOICES[voice] if voices == len(VOICES) else f"voice {voice + 1}"
        parts.append(Part(name=label, program=_CHOIR, notes=held(grid[:, voice])))
    if not any(len(part.notes) for part in parts):
        return Song(name=title)
    return Song(name=title, parts=parts)


def _singers(pitches: Sequence[int], last: np.ndarray) -> tuple[int, ...]:
    """Who sings where a step has fewer pitches than voices: those who have the least way to go.

    Pitches stand from the first voice to the last; a voice that has not sung yet is taken last.
    """

    def way(voices: tuple[int, ...]) -> int:
        pairs = zip(voices, pitches, strict=True)
        return sum(abs(pitch - int(last[voice])) if last[voice] else 128 for voice, pitch in pairs)

    return min(combinations(range(len(last)), len(pitches)), key=way)


def _is_pitch(value: Any) -> bool:
    """Whether this is a pitch or a rest: a whole number up to 127 (67.0, too), null or NaN."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isnan(value) or (value <= 127 and value == int(value))


def _sounds(value: float | None) -> int:
    """A pitch, or 0 for a rest."""
    return 0 if value is None or math.isnan(value) else int(value)


def held(line: np.ndarray) -> np.ndarray:
    """The notes of a voice, (T,) pitches with rests at 0 or less: (K, 3) start, end, pitch."""
    line = np.maximum(line, 0)
    edges = np.flatnonzero(np.diff(line)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(line)]])
    table = np.stack([starts, ends, line[starts]], axis=1).astype(np.int64)
    return table[table[:, 2] > 0]


# ---- Which part becomes which track ----


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """The tracks of a whole source.

    Attributes:
        names: of each.
        programs: of each.
        groups: which of `drums` and `GROUPS` each takes; None: parts are tracks in their order.
    """

    names: tuple[str, ...]
    programs: tuple[int, ...]
    groups: tuple[frozenset[str], ...] | None = None

    def place(self, song: Song) -> list[tuple[int, np.ndarray]]:
        """(track, notes) of every part that has a track."""
        if self.groups is None:
            return [(index, part.notes) for index, part in enumerate(song.parts)]
        return [
            (track, part.notes)
            for part in song.parts
            for track, own in enumerate(self.groups)
            if group_of(part.program) in own
        ]


def group_of(program: int) -> str:
    """`drums`, or the group of a program."""
    return "drums" if program == DRUMS else GROUPS[program // 8]


def choose_tracks(songs: Sequence[Song], wanted: str) -> Tracks:
    """The tracks that a setting asks for.

    Raises:
        UserError: an unknown group, or `order` where files differ.
    """
    wanted = wanted.strip().lower()
    counts = Counter(len(song.parts) for song in songs)
    if wanted == "auto":
        # JSON has voices, and files of one kind have the same instruments throughout.
        wanted = "order" if len(counts) == 1 and max(counts) <= _MOST else "band"
    if wanted == "order":
        if len(counts) > 1:
            (usual, _), *_ = counts.most_common()
            odd = next(song for song in songs if len(song.parts) != usual)
            raise UserError(
                f"'{odd.name}' has {len(odd.parts)} instruments, and most pieces have {usual}.",
                "Take it out, or choose --tracks band.",
            )
        return _in_order(songs)
    if wanted == "one":
        melodic = frozenset(GROUPS)
        return Tracks(names=("music",), programs=(0,), groups=(melodic,))
    names = (
        BAND if wanted == "band" else tuple(filter(None, (w.strip() for w in wanted.split(","))))
    )
    known = ("drums", *GROUPS)
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no group of instruments '{name}'.{nearest(name, known)}",
                f"--tracks takes auto, order, band, one, or some of {', '.join(known)}.",
            )
    if not names or len({*names}) < len(names):
        raise UserError(f"--tracks {wanted} names no tracks, or one twice.", "Name each once.")
    groups = {name: frozenset({name}) for name in names}
    if wanted == "band":
        others = {"percussive", "sound", "ethnic", *BAND} - {"strings"}
        groups["strings"] = frozenset(GROUPS) - others
    elif "strings" in groups and "ensemble" not in groups:
        groups["strings"] = frozenset({"strings", "ensemble"})
    programs = tuple(
        _INSTRUMENT[name] if name in _INSTRUMENT else 8 * GROUPS.index(name) for name in names
    )
    return Tracks(names=names, programs=programs, groups=tuple(groups[name] for name in names))


def _in_order(songs: Sequence[Song]) -> Tracks:
    names, programs = [], []
    for index in range(len(songs[0].parts)):
        parts = [song.parts[index] for song in songs]
        (program, _), *_ = Counter(part.program for part in parts).most_common()
        (name, often), *_ = Counter(part.name for part in parts).most_common()
        common = name and 2 * often >= len(parts)
        plain = name if common else f"{group_of(program)} {index + 1}"
        names.append(plain if plain not in names else f"{plain} {index + 1}")
        programs.append(program)
    return Tracks(names=tuple(names), programs=tuple(programs))


# ---- Notes on a roll ----


def choose_pitches(songs: Sequence[Song], data: MusicData) -> tuple[int, int]:
    """(lowest pitch, number of pitches): whole octaves that hold all but one note in 2,000.

    From a C on where that holds them, too.

    Raises:
        UserError: the settings do not fit each other.
    """
    if data.pitches is not None and data.pitches % 12:
        raise UserError(f"--pitches {data.pitches} are no whole octaves.", "Give a multiple of 12.")
    all_notes = np.concatenate([part.notes[:, 2] for song in songs for part in song.parts])
    low, high = (int(v) for v in np.quantile(all_notes, [0.0005, 0.9995], method="nearest"))
    lowest = data.lowest
    span = high - (low if lowest is None else lowest) + 1
    pitches = data.pitches or min(96, max(12, 12 * -(-span // 12)))
    if lowest is None:
        from_c = low - low % 12
        lowest = from_c if from_c + pitches > high else low
        lowest = max(0, min(lowest, 128 - pitches))
    if lowest + pitches > 128:
        raise UserError(
            f"{pitches} pitches from {lowest} on end above 127, MIDI's highest.",
            "Give a smaller --lowest or --pitches.",
        )
    return lowest, pitches


def roll(song: Song, tracks: Tracks, lowest: int, pitches: int, bar: int) -> tuple[np.ndarray, int]:
    """A song as piano rolls of whole bars.

    Args:
        song: with its notes.
        tracks: of the source.
        lowest, pitches: what is shown.
        bar: steps in one.

    Returns:
        uint8 (T, pitches, tracks) of 0 and 1, T a multiple of `bar` (0 where no track plays), and the
        notes that lie outside the pitches.
    """
    placed = tracks.place(song)
    steps = max((int(notes[:, 1].max()) for _, notes in placed if len(notes)), default=0)
    found = np.zeros((bar * -(-steps // bar), pitches, len(tracks.names)), np.uint8)
    outside = 0
    for track, notes in placed:
        for start, end, pitch in notes.tolist():
            if lowest <= pitch < lowest + pitches:
                found[start:end, pitch - lowest, track] = 1
            else:
                outside += 1
    return found, outside
