"""What a sound family is told of its data, and how recordings are read: settings. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faussaire.core.config import DataConfig, check_range
from faussaire.core.errors import UserError

LENGTHS = (4096, 8192, 16384, 32768, 65536)
"""Samples that a clip can have."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The form of a clip: one channel of samples in [-1, 1].

    Attributes:
        rate: samples a second.
        length: samples in a clip, one of `LENGTHS`.
        classes: class names in the order of their label numbers; empty where there are no labels.
    """

    rate: int
    length: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SoundData(DataConfig):
    """How recordings are read.

    Attributes:
        rate: samples a second to train at; recordings of other rates are resampled. None: their own,
            if all have the same.
        length: samples in a clip: 4096, 8192, 16384, 32768 or 65536. None: the smallest that holds nine
            of ten recordings whole.
        slices: `all` cuts long recordings into clips one after the other, `first` takes the beginning
            of each. What is shorter than a clip ends in silence.
        overlap: share of a clip that the next one of the same recording repeats.
        loudness: `kept`, or `peak` brings every recording to full scale.
        classes: where class names come from: `folders` takes sub-folders, `prefix` what stands before
            the first _ or - in a file's name, `none` ignores all, `auto` takes a labels.csv where there
            is one.
        labels: a CSV file with the columns file and label.
    """

    rate: int | None = None
    length: int | None = None
    slices: Literal["all", "first"] = "all"
    overlap: float = 0.0
    loudness: Literal["kept", "peak"] = "kept"
    classes: Literal["auto", "folders", "prefix", "none"] = "auto"
    labels: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, overlap=(0, 0.95))
        if self.rate is not None:
            check_range(self, rate=(1000, 192_000))
        if self.length is not None and self.length not in LENGTHS:
            known = ", ".join(map(str, LENGTHS))
            raise UserError(f"length cannot be {self.length}.", f"It must be one of {known}.")
