"""Sound files -> samples: WAV, FLAC and what else libsndfile reads; resampling; writing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.packing import Unusable
from faussaire.report.files import whole

EXTENSIONS = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3", ".au")
_LOBES = 16
_ENDLESS = (0, 0xFFFFFFFF)  # sizes in headers that were written to a pipe


def require_soundfile() -> Any:
    """The library that reads and writes sound.

    Raises:
        UserError: it is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: it finds no libsndfile
        raise UserError(
            f"Sound files need the library soundfile, which cannot be used here ({error}).",
            'Install it: pip install "faussaire[sound]"',
        ) from error
    return soundfile


def rate_of(path: Path) -> int:
    """Samples a second of a file.

    Raises:
        Unusable: it is damaged.
        UserError: soundfile is not installed.
    """
    soundfile = require_soundfile()
    try:
        return int(soundfile.info(str(path)).samplerate)
    except (OSError, RuntimeError) as error:
        raise Unusable(f"is no sound file that can be read ({_plain(error, path)})") from error


def read_wave(path: Path) -> tuple[np.ndarray, int]:
    """The samples of a file, its channels averaged, float32 (T,) in [-1, 1], and its rate.

    Raises:
        Unusable: it is damaged, truncated or empty.
        UserError: soundfile is not installed.
    """
    soundfile = require_soundfile()
    missing = _missing(path)
    if missing:
        raise Unusable(f"is truncated: {missing:,} bytes of its samples are missing")
    try:
        with soundfile.SoundFile(str(path)) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise Unusable(f"is no sound file that can be read ({_plain(error, path)})") from error
    if not len(samples):
        raise Unusable("has no samples")
    if len(samples) < promised:
        raise Unusable(
            f"is truncated: {promised - len(samples):,} of {promised:,} samples are missing"
        )
    if not np.isfinite(samples).all():
        raise Unusable("has samples that are not numbers")
    return samples.mean(axis=1), int(rate)


def _missing(path: Path) -> int:
    """Bytes that a WAV's header promises and the file does not have; libsndfile passes over it."""
    if path.suffix.lower() != ".wav":
        return 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
                return 0
            at = 12
            while len(chunk := file.read(8)) == 8:
                length = int.from_bytes(chunk[4:], "little")
                at += 8
                if chunk[:4] == b"data":
                    return 0 if length in _ENDLESS else max(0, at + length - size)
                at += length + length % 2
                file.seek(at)
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror})") from error
    return 0


def _plain(error: BaseException, path: Path) -> str:
    """An error's words without the path that they repeat."""
    return str(error).replace(f"Error opening '{path}': ", "").rstrip(".")


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples (T,) at another rate, band-limited: (ceil(T wanted / rate),) float32.

    A windowed sinc (Kaiser, beta 9; 16 zero crossings a side) at the lower of both rates' Nyquist
    frequencies, evaluated at the rational instants (Smith, "Digital Audio Resampling").
    """
    if rate == wanted:
        return samples.astype(np.float32)
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    cutoff = min(1.0, up / down)
    half = math.ceil(_LOBES / cutoff)
    count = -(-len(samples) * up // down)
    padded = np.pad(samples.astype(np.float64), (half, half + 1))
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    out = np.empty(count, np.float32)
    offsets = np.arange(-half, half + 1)
    for phase in range(min(up, count)):
        which = np.arange(phase, count, up)
        base, rest = divmod(phase * down, up)
        at = (
            offsets - rest / up
        )  # distance of each sample from the instant, in samples of the input
        window = np.i0(9.0 * np.sqrt(np.clip(1.0 - (at / (half + 1)) ** 2, 0.0, None))) / np.i0(9.0)
        taps = cutoff * np.sinc(cutoff * at) * window
        bases = base + down * np.arange(len(which))
        out[which] = views[bases] @ taps
    return out


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as int16, 32,768 being full scale; what lies outside is clipped."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def write_wave(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples (T,) in [-1, 1] as WAV of 16 bits, or FLAC by the ending; whole or not at all.

    Raises:
        UserError: soundfile is not installed, or the file cannot be written.
    """
    soundfile = require_soundfile()
    with whole(path) as temporary:
        try:
            soundfile.write(str(temporary), to_int16(samples), rate, subtype="PCM_16")
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"'{path.name}' could not be written: {error}.", "Write .wav or .flac."
            ) from error
