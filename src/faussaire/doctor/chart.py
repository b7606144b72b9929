"""A patient's chart: what each look found, in the order of looking."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one look found.

    Attributes:
        examples: seen by then.
        rounds: played by then.
        progress: share of the run done, in [0, 1].
        signs: vital signs by name; one that could not be taken is absent.
    """

    examples: int
    rounds: int
    progress: float
    signs: Mapping[str, float]


class Chart:
    """Entries in order, and their signs as columns."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Take in the latest look."""
        self.entries.append(entry)

    def cut(self, examples: int) -> None:
        """Forget what came after `examples`: training went on from there."""
        del self.entries[bisect_right(self.entries, examples, key=lambda entry: entry.examples) :]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def progress(self) -> float:
        """Share of the run done at the last look; 0 before the first."""
        return self.entries[-1].progress if self.entries else 0.0

    @property
    def rounds(self) -> int:
        """Rounds played at the last look; 0 before the first."""
        return self.entries[-1].rounds if self.entries else 0

    def column(self, sign: str, last: int | None = None) -> np.ndarray:
        """The sign at each look, (K,), NaN where it could not be taken.

        Args:
            last: of the last so many looks only.
        """
        some = self.entries if last is None else self.entries[-last:]
        return np.array([entry.signs.get(sign, np.nan) for entry in some], np.float64)

    def usual(self, sign: str, last: int = 3) -> float:
        """Median of the sign over the last looks; NaN where none of them has it.

        One look is 128 samples of a generator in motion: a single one proves nothing.
        """
        values = self.column(sign, last)
        values = values[~np.isnan(values)]
        return float(np.median(values)) if len(values) else float("nan")

    def at_most(self, sign: str) -> float:
        """What the sign does not exceed, neither usually nor at the last look: for `too low`."""
        return float(np.fmax(self.usual(sign), self.column(sign, 1)[0]))

    def at_least(self, sign: str) -> float:
        """What the sign does not fall below, neither usually nor at the last look: for `too high`."""
        return float(np.fmin(self.usual(sign), self.column(sign, 1)[0]))
