"""The doctor of one run: it looks, remembers, says what is new, and ends a run where it was told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from faussaire.core.events import Diagnosed, Examined
from faussaire.core.loop import Order
from faussaire.doctor.chart import Entry
from faussaire.doctor.remedies import advice
from faussaire.doctor.verdicts import MEANINGS, Diagnostician, Verdict

StopWhen = Literal["never", "collapsed", "finished"]
CERTAIN = 0.95
"""Confidence at which a run may be ended: five looks that say the same."""


class Watch:
    """What `core.loop.Loop` takes for a doctor.

    Args:
        examine: a look, as `Examiner` has it.
        settings: the run's, flat, for advice that names them.
        stop_when: end the run where it has `collapsed` (or diverges), or has `finished` learning.
        past: looks of the run before this process.
    """

    def __init__(
        self,
        examine: Callable[[], Mapping[str, float]],
        settings: Mapping[str, Any],
        stop_when: StopWhen = "never",
        past: Sequence[Entry] = (),
    ) -> None:
        self.examine = examine
        self._settings, self._stop_when = settings, stop_when
        self._mind = Diagnostician()
        self._said: Verdict | None = None
        for entry in past:
            self._said = self._mind.see(entry)

    def diagnose(self, look: Examined) -> Diagnosed | None:
        """The verdict after this look, where it is not the one before."""
        entry = Entry(examples=look.examples, progress=look.progress, signs=look.signs)
        before, now = self._said, self._mind.see(entry)
        self._said = now
        if before is not None and before.title == now.title:
            return None
        return diagnosed(now, self._settings, examples=look.examples, elapsed=look.elapsed)

    @property
    def order(self) -> Order:
        """`stop` or `finish`, where that was wanted and is certain."""
        verdict = self._said
        if verdict is None or verdict.confidence < CERTAIN:
            return "go on"
        if self._stop_when == "collapsed" and verdict.name in ("collapse", "diverging"):
            return "stop"
        if self._stop_when == "finished" and verdict.name in ("finished", "stalled"):
            return "finish"
        return "go on"


def diagnosed(
    verdict: Verdict, settings: Mapping[str, Any], *, examples: int, elapsed: float
) -> Diagnosed:
    """A verdict as an event."""
    return Diagnosed(
        examples=examples,
        elapsed=elapsed,
        verdict=verdict.title,
        name=verdict.name,
        ill=verdict.ill,
        meaning=MEANINGS[verdict.name],
        since=verdict.since,
        confidence=round(verdict.confidence, 3),
        evidence=[str(one) for one in verdict.evidence],
        advice=advice(verdict, settings),
    )
