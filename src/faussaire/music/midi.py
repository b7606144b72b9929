"""Piano rolls -> MIDI files, and sound by a soft synth where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from faussaire.core.errors import UserError
from faussaire.music.notes import require_pretty_midi
from faussaire.music.spec import DRUMS, Score
from faussaire.report.files import whole

_LOUDNESS = 90
_SOUNDFONTS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts")


def notes_of(roll: np.ndarray) -> np.ndarray:
    """The notes of a track's roll, (T, pitches): (K, 3) int64 first step, step behind the last, row."""
    line = np.pad(roll.astype(np.int8), ((1, 1), (0, 0)))
    change = np.diff(line, axis=0).T  # (pitches, T + 1): one row after the other, in order of time
    pitch, start = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)
    table = np.stack([start, end, pitch], axis=1).astype(np.int64)
    return table[np.lexsort((table[:, 2], table[:, 0]))]


def write_midi(path: Path, roll: np.ndarray, score: Score) -> None:
    """Write a phrase as MIDI, a track for each; whole or not at all.

    Notes that a roll shows without a gap between them are one.

    Args:
        path: of the file.
        roll: (bars, steps, pitches, tracks) of 0 and 1.
        score: its form.

    Raises:
        UserError: pretty_midi is not installed, or the file cannot be written.
    """
    pretty_midi = require_pretty_midi()
    resolution = 24 * score.beat_steps
    midi = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=score.tempo)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(score.beats, 4, 0.0))
    step = 60.0 / (score.tempo * score.beat_steps)
    lines = roll.reshape(score.length, score.pitches, len(score.tracks))
    for track, (name, program) in enumerate(zip(score.tracks, score.programs, strict=True)):
        instrument = pretty_midi.Instrument(
            program=max(0, program), is_drum=program == DRUMS, name=name
        )
        for start, end, row in notes_of(lines[..., track]).tolist():
            instrument.notes.append(
                pretty_midi.Note(
                    velocity=_LOUDNESS,
                    pitch=score.lowest + row,
                    start=start * step,
                    end=end * step,
                )
            )
        midi.instruments.append(instrument)
    with whole(path) as temporary:
        midi.write(str(temporary))


def find_synth() -> list[str] | None:
    """The command of a soft synth, up to the names of its files; None where none is installed.

    FluidSynth with a sound font (`FAUSSAIRE_SOUNDFONT`, or one where Linux keeps them), else TiMidity++.
    """
    fluid = shutil.which("fluidsynth")
    if fluid is not None:
        font = os.environ.get("FAUSSAIRE_SOUNDFONT", "")
        places = [Path(font)] if font else []
        places += [
            found for folder in _SOUNDFONTS for found in sorted(Path(folder).glob("*.sf[23]"))
        ]
        for place in places:
            if place.is_file():
                return [fluid, "-ni", "-q", "-r", "44100", str(place)]
    timidity = shutil.which("timidity")
    return None if timidity is None else [timidity, "-Ow", "--quiet"]


def play(midi: Path, wave: Path, synth: list[str]) -> None:
    """Have a soft synth play a MIDI file into a WAV.

    Raises:
        UserError: it fails, with what it says.
    """
    with whole(wave) as temporary:
        where = ["-F", str(temporary), str(midi)]
        if Path(synth[0]).name.startswith("timidity"):
            where = ["-o", str(temporary), str(midi)]
        if Path(synth[0]).name.startswith("fluidsynth"):
            where = ["-F", str(temporary), synth[-1], str(midi)]
            synth = synth[:-1]
        done = subprocess.run([*synth, *where], capture_output=True, text=True, timeout=600)
        if done.returncode or not temporary.exists():
            raise UserError(
                f"The soft synth {Path(synth[0]).name} could not play '{midi.name}': "
                f"{(done.stderr or done.stdout).strip()[-200:] or f'exit code {done.returncode}'}.",
                "Leave the sound out with --wav off.",
            )
