"""Piano rolls as pictures: a colour for each track, lines at bars and octaves. No torch here."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from faussaire.music.spec import Score
from faussaire.report.pictures import grid

_PAPER, _BAR, _BEAT, _OCTAVE = (18, 20, 26), (86, 90, 104), (36, 39, 48), (46, 50, 62)


def colours(tracks: int) -> list[tuple[int, int, int]]:
    """Colours that stand apart, one for each track."""
    found = []
    for index in range(tracks):
        red, green, blue = colorsys.hsv_to_rgb((0.11 + index / max(tracks, 1)) % 1.0, 0.62, 1.0)
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def paint(roll: np.ndarray, score: Score, *, wide: int = 4, tall: int = 3) -> np.ndarray:
    """A phrase (bars, steps, pitches, tracks) as a picture (H, W, 3) uint8, time to the right.

    Where tracks play the same note, the later one is seen above the earlier in half of the cell.
    """
    length, pitches = score.length, score.pitches
    canvas = np.empty((pitches * tall, length * wide, 3), np.uint8)
    canvas[:] = _PAPER
    lines = roll.reshape(length, pitches, len(score.tracks))[:, ::-1].astype(bool)
    for row in range(pitches):
        if (score.lowest + pitches - 1 - row) % 12 == 0:  # under a C
            canvas[(row + 1) * tall - 1] = _OCTAVE
    canvas[:, :: score.beat_steps * wide] = _BEAT
    canvas[:, :: score.steps * wide] = _BAR
    taken = np.zeros((length, pitches), bool)
    for track, colour in enumerate(colours(len(score.tracks))):
        cells = lines[..., track]
        for time, pitch in zip(*np.nonzero(cells), strict=True):
            top, left = pitch * tall, time * wide
            first = top + tall // 2 if taken[time, pitch] else top
            # A gap at a note's beginning tells two short ones from a long one.
            gap = 1 if time == 0 or not cells[time - 1, pitch] else 0
            canvas[first : top + tall, left + gap : left + wide] = colour
        taken |= cells
    return canvas


def sheet(rolls: np.ndarray, score: Score, columns: int = 2) -> Image.Image:
    """Phrases (N, bars, steps, pitches, tracks) as one picture, row by row."""
    return grid(np.stack([paint(roll, score) for roll in rolls]), columns=columns, scale=1)
