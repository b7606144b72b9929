"""What is measured of phrases: empty bars, pitch classes, qualified notes, drums, tonal distance.

The five figures of MuseGAN (Dong et al. 2018, arXiv 1709.06298), from the text. The code that was
published with it, and pypianoroll after it, is not followed in two places: it sums blocks of adjacent
semitones where it means octaves (three Cs count as three pitch classes, C C# D D# as one), and its rate
of empty bars is that of bars which are not. Here a pitch class is the pitch modulo 12 and an empty bar
has no note, so published figures of pitch classes and tonal distance do not compare with these.

Rolls are uint8 or bool, (N, bars, steps, pitches, tracks); a figure of a track is (tracks,) float64, NaN
where it has no meaning (a track that never plays).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from faussaire.music.spec import DRUMS, Score

_RADII = (1.0, 1.0, 0.5)
_TURNS = (7 * math.pi / 6, 3 * math.pi / 2, 2 * math.pi / 3)


def empty_bars(rolls: np.ndarray) -> np.ndarray:
    """The share of bars in which a track has no note, (tracks,)."""
    return 1.0 - _sounding(rolls).mean(axis=(0, 1))


def used_pitch_classes(rolls: np.ndarray, lowest: int) -> np.ndarray:
    """The mean number of pitch classes, of 12, in the bars in which a track plays, (tracks,)."""
    used = chroma(rolls, lowest).any(axis=2).sum(axis=2)  # (N, bars, tracks)
    return _mean_where(used, _sounding(rolls))


def qualified_notes(rolls: np.ndarray, least: int = 2) -> np.ndarray:
    """The share of a track's notes that last `least` steps or more, (tracks,): few are fragments.

    Notes are followed over bar lines, and end with the phrase. The paper counts from 3 steps of 24 a
    beat on; 2 of 4 a beat are an eighth.
    """
    lines = _lines(rolls)  # (N, T, pitches, tracks)
    starts = _onsets(lines)
    long = np.ones_like(starts)
    for step in range(1, least):
        long[:, :-step] &= lines[:, step:]
        long[:, -step:] = False
    # What the phrase cuts off was not seen to its end: it counts neither way.
    seen = starts.copy()
    cut = lines[:, -1]
    for step in range(1, least):
        cut_here = lines[:, -step:].all(axis=1) & cut
        seen[:, -step] &= ~cut_here
    counted = seen.sum(axis=(0, 1, 2))
    good = (seen & long).sum(axis=(0, 1, 2))
    return np.divide(good, counted, out=np.full(len(good), np.nan), where=counted > 0)


def drum_pattern(rolls: np.ndarray, score: Score) -> np.ndarray:
    """The share of a track's onsets on a pattern of 8 or 16 beats a bar of 4/4, (tracks,).

    On sixteenths where steps are finer than that, else on eighths. NaN for what is no drum track.
    """
    grid = score.beat_steps // 4 if score.beat_steps % 4 == 0 else 1
    if grid == 1:
        grid = max(1, score.beat_steps // 2)
    starts = _onsets(_lines(rolls)).sum(axis=(0, 2))  # (T, tracks)
    total = starts.sum(axis=0)
    found = np.divide(
        starts[::grid].sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0
    )
    return np.where(np.array(score.programs) == DRUMS, found, np.nan)


def tonal_distance(
    rolls: np.ndarray, lowest: int, beat_steps: int, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """The mean distance of two tracks' tonal centroids, beat by beat, (pairs,): low is harmony.

    Harte, Sandler, Gasser 2006, "Detecting Harmonic Change in Musical Audio": pitch classes on
    circles of fifths, of minor and of major thirds. Of beats in which both play.
    """
    classes = chroma(rolls, lowest)
    count, bars, steps, _, tracks = classes.shape
    beats = classes.reshape(count, bars * steps // beat_steps, beat_steps, 12, tracks).sum(
        axis=2, dtype=np.float32
    )
    total = beats.sum(axis=2)  # (N, beats, tracks)
    weights = beats / np.maximum(total, 1e-12)[:, :, None]
    centroids = np.einsum("ck,nbkt->nbct", tonal_basis().astype(np.float32), weights, optimize=True)
    found = []
    for one, two in pairs:
        apart = np.linalg.norm(centroids[..., one] - centroids[..., two], axis=2)
        both = (total[..., one] > 0) & (total[..., two] > 0)
        found.append(apart[both].mean(dtype=np.float64) if both.any() else np.nan)
    return np.array(found)


def tonal_basis() -> np.ndarray:
    """(6, 12): where each pitch class lies on the three circles."""
    classes = np.arange(12)
    rows = []
    for radius, turn in zip(_RADII, _TURNS, strict=True):
        rows += [radius * np.sin(classes * turn), radius * np.cos(classes * turn)]
    return np.stack(rows)


def chroma(rolls: np.ndarray, lowest: int) -> np.ndarray:
    """Octaves added up: how many notes of each pitch class sound, (N, bars, steps, 12, tracks).

    Pitches are whole octaves.
    """
    count, bars, steps, pitches, tracks = rolls.shape
    octaves = rolls.reshape(count, bars, steps, pitches // 12, 12, tracks)
    full = octaves[:, :, :, 0].astype(np.uint8)
    for octave in range(1, pitches // 12):
        full += octaves[:, :, :, octave]
    return np.roll(full, lowest % 12, axis=3)


def polyphony(rolls: np.ndarray) -> np.ndarray:
    """The mean number of notes at once in the steps in which a track plays, (tracks,)."""
    notes = rolls.sum(axis=3, dtype=np.uint8)
    return _mean_where(notes, notes > 0)


def pairs_of(score: Score) -> list[tuple[int, int]]:
    """Every two melodic tracks."""
    melodic = [index for index, program in enumerate(score.programs) if program != DRUMS]
    return [(one, two) for at, one in enumerate(melodic) for two in melodic[at + 1 :]]


def measure(rolls: np.ndarray, score: Score) -> dict[str, dict[str, float]]:
    """All figures by name and by track, or by two (`soprano-bass`), but those without meaning.

    `empty_bars` in [0, 1], `used_pitch_classes` in [1, 12], `qualified_notes` in [0, 1], `polyphony` at
    least 1, `drum_pattern` in [0, 1], `tonal_distance` from 0 on.
    """
    rolls = np.asarray(rolls)
    pairs = pairs_of(score)
    by_track: Mapping[str, np.ndarray] = {
        "empty_bars": empty_bars(rolls),
        "used_pitch_classes": used_pitch_classes(rolls, score.lowest),
        "qualified_notes": qualified_notes(rolls),
        "polyphony": polyphony(rolls),
        "drum_pattern": drum_pattern(rolls, score),
    }
    melodic = np.array(score.programs) != DRUMS
    found: dict[str, dict[str, float]] = {}
    for name, values in by_track.items():
        meant = np.isfinite(values)
        if name in ("used_pitch_classes", "qualified_notes"):
            meant &= melodic
        found[name] = {
            track: float(value)
            for track, value, here in zip(score.tracks, values, meant, strict=True)
            if here
        }
    distances = tonal_distance(rolls, score.lowest, score.beat_steps, pairs)
    found["tonal_distance"] = {
        f"{score.tracks[one]}-{score.tracks[two]}": float(value)
        for (one, two), value in zip(pairs, distances, strict=True)
        if np.isfinite(value)
    }
    return {name: values for name, values in found.items() if values}


def discrepancy(
    measured: Mapping[str, Mapping[str, float]], real: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """How far each figure is from the data: mean |a - b| over tracks, infinite where one is missing."""
    return {
        name: float(
            np.mean([abs(measured.get(name, {}).get(t, math.inf) - v) for t, v in values.items()])
        )
        for name, values in real.items()
    }


# ---- What is no music, to compare with ----


def noise_like(rolls: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Bernoulli noise: each cell as often 1 as the track is in the data, (count, ...) uint8."""
    rng = np.random.default_rng(seed)
    share = rolls.mean(axis=(0, 1, 2, 3))
    return (rng.random((count, *rolls.shape[1:])) < share).astype(np.uint8)


def shuffled(rolls: np.ndarray, seed: int) -> np.ndarray:
    """The same bars, each track's in an order of its own over all phrases: voices that do not listen."""
    rng = np.random.default_rng(seed)
    count, bars, *_, tracks = rolls.shape
    flat = np.array(rolls).reshape(count * bars, *rolls.shape[2:])
    for track in range(tracks):
        flat[..., track] = flat[rng.permutation(len(flat))][..., track]
    return flat.reshape(rolls.shape)


def _sounding(rolls: np.ndarray) -> np.ndarray:
    """(N, bars, tracks): whether a track plays in a bar."""
    return np.asarray(rolls.any(axis=(2, 3)))


def _lines(rolls: np.ndarray) -> np.ndarray:
    """Bars one after the other: bool (N, T, pitches, tracks)."""
    count, bars, steps, pitches, tracks = rolls.shape
    return rolls.reshape(count, bars * steps, pitches, tracks).astype(bool)


def _onsets(lines: np.ndarray) -> np.ndarray:
    """Where notes begin, as `_lines`."""
    before = np.zeros_like(lines)
    before[:, 1:] = lines[:, :-1]
    return lines & ~before


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The mean over all axes but the last of what is counted, (tracks,); NaN where nothing is."""
    axes = tuple(range(values.ndim - 1))
    count = where.sum(axis=axes)
    total = (values * where).sum(axis=axes, dtype=np.float64)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
