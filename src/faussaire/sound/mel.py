"""What an ear would look at: spectrograms on the mel scale, their statistics, and pictures of them.

In NumPy, so that nothing but NumPy is needed to look.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from faussaire.report.pictures import grid

WINDOW, HOP = 256, 64
FLOOR = -80.0
"""dB below full scale under which nothing is told apart."""
_MAP = np.array(
    [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21),
     (250, 193, 39), (252, 255, 164)], float
)  # fmt: skip


@cache
def mel_filters(rate: int, window: int = WINDOW, bands: int = 40) -> np.ndarray:
    """Triangles on the mel scale, (bands, window / 2 + 1), each of sum 1.

    mel(f) = 2595 log10(1 + f / 700), from 40 Hz to half of the rate. A band that is narrower than a bin
    takes the bin nearest to it.
    """
    frequencies = np.linspace(0.0, rate / 2, window // 2 + 1)
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (40.0, rate / 2))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, bands + 2) / 2595.0) - 1.0)
    found = np.zeros((bands, len(frequencies)))
    for band in range(bands):
        left, middle, right = edges[band : band + 3]
        rise = (frequencies - left) / (middle - left)
        fall = (right - frequencies) / (right - middle)
        found[band] = np.clip(np.minimum(rise, fall), 0.0, None)
        if found[band].sum() <= 0.0:
            found[band, np.abs(frequencies - middle).argmin()] = 1.0
    return found / found.sum(axis=1, keepdims=True)


def power(waves: np.ndarray, window: int = WINDOW, hop: int = HOP) -> np.ndarray:
    """The power spectrogram of waves (N, L) in [-1, 1]: (N, frames, window / 2 + 1); Hann windows.

    A sine of full scale has power 1 in its bin.
    """
    shape = np.hanning(window + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(waves, window, axis=1)[:, ::hop]
    spectrum = np.fft.rfft(frames * shape, axis=2)
    return (np.abs(spectrum) * (2.0 / shape.sum())) ** 2


def log_mel(waves: np.ndarray, rate: int, bands: int = 40) -> np.ndarray:
    """Mel spectrograms of waves (N, L) in dB, (N, frames, bands) float32, from `FLOOR` on."""
    parts = []
    for first in range(0, len(waves), 64):
        mel = power(waves[first : first + 64]) @ mel_filters(rate, bands=bands).T
        parts.append(10.0 * np.log10(np.maximum(mel, 10.0 ** (FLOOR / 10.0))))
    return np.concatenate(parts).astype(np.float32)


def statistics(waves: np.ndarray, rate: int) -> np.ndarray:
    """Mean and deviation over clips and time of each band, (2, bands) in dB."""
    mel = log_mel(waves, rate)
    flat = mel.reshape(-1, mel.shape[2]).astype(np.float64)
    return np.stack([flat.mean(axis=0), flat.std(axis=0)])


def mel_distance(one: np.ndarray, other: np.ndarray, rate: int) -> float:
    """The root mean square difference of two sets' `statistics`, in dB."""
    apart = statistics(one, rate) - statistics(other, rate)
    return float(np.sqrt(np.mean(apart**2)))


def nearest_distance(fakes: np.ndarray, reals: np.ndarray, rate: int) -> float:
    """The mean distance from each fake to the nearest real, as log-mel spectrograms, in dB a cell."""
    own = log_mel(fakes, rate).reshape(len(fakes), -1).astype(np.float64)
    known = log_mel(reals, rate).reshape(len(reals), -1).astype(np.float64)
    squares = (own**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2.0 * own @ known.T
    return float(np.sqrt(np.clip(squares.min(axis=1), 0.0, None) / own.shape[1]).mean())


def noise_like(waves: np.ndarray, count: int, seed: int) -> np.ndarray:
    """White noise as loud as the waves (N, L), each clip as one of them: (count, L) float32."""
    rng = np.random.default_rng(seed)
    loud = np.sqrt((waves.astype(np.float64) ** 2).mean(axis=1))[
        rng.integers(len(waves), size=count)
    ]
    return np.clip(loud[:, None] * rng.standard_normal((count, waves.shape[1])), -1, 1).astype(
        np.float32
    )


def paint(wave: np.ndarray, rate: int, bands: int = 64) -> np.ndarray:
    """A clip (L,) as a picture (H, W, 3) uint8: its spectrogram, low frequencies below, and its wave."""
    level = (log_mel(wave[None], rate, bands)[0].T[::-1] - FLOOR) / -FLOOR
    at = np.clip(level, 0.0, 1.0) * (len(_MAP) - 1)
    below = np.minimum(at.astype(int), len(_MAP) - 2)
    share = (at - below)[..., None]
    picture = (_MAP[below] * (1 - share) + _MAP[below + 1] * share).astype(np.uint8)
    width = picture.shape[1]
    high = bands // 2
    strip = np.full((high, width, 3), 16, np.uint8)
    edges = np.linspace(0, len(wave), width + 1).astype(int)
    for column in range(width):
        part = wave[edges[column] : max(edges[column + 1], edges[column] + 1)]
        top, bottom = (
            int(np.clip((1.0 - value) / 2.0 * (high - 1), 0, high - 1))
            for value in (float(part.max()), float(part.min()))
        )
        strip[top : bottom + 1, column] = (130, 190, 220)
    return np.concatenate([picture, strip])


def sheet(waves: np.ndarray, rate: int, columns: int = 4) -> Image.Image:
    """Clips (N, L) as one picture, row by row."""
    return grid(np.stack([paint(wave, rate) for wave in waves]), columns=columns, scale=2)
