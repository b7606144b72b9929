"""Where a run stands, counted in examples seen: the only time that training knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Clock:
    """An instant of a run.

    Attributes:
        examples: examples (pictures, rows, sentences) drawn from the data so far, over all
            processes. Also the position of the data stream.
        rounds: rounds of the loop completed so far; lazy phases count these.
        total: examples the whole run is planned for; schedules that end somewhere end there.
        stage: name of the current stage.
    """

    examples: int = 0
    rounds: int = 0
    total: int = 1
    stage: str = ""

    @property
    def progress(self) -> float:
        """Share of the planned run that is done, in [0, 1]."""
        return min(1.0, self.examples / max(1, self.total))
