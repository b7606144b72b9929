"""The doctor of one run: it looks, remembers, says what is new, and acts where it was told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from faussaire.core.events import Diagnosed, Event, Examined, Measured
from faussaire.core.loop import Order
from faussaire.core.treatment import Treatment
from faussaire.doctor.balance import Balance
from faussaire.doctor.chart import Entry
from faussaire.doctor.examiner import Examiner
from faussaire.doctor.remedies import advice
from faussaire.doctor.verdicts import MEANINGS, Diagnostician, Verdict

StopWhen = Literal["never", "collapsed", "finished"]
CERTAIN = 0.95
"""Confidence at which a run may be ended, and is told again: five looks that say the same."""


class Watch:
    """What `core.loop.Loop` takes for a doctor.

    Args:
        examine: a look, as `Examiner` has it.
        settings: the run's, flat, for advice that names them.
        stop_when: end the run where it has `collapsed` (or diverges), or has `finished` learning.
        past: looks of the run before this process.
        balance: what changes settings; None: nothing does.
        every: examples between looks; 0: as often as the time allows. With `balance` it must be
            above 0: what decides on the course of a run must not depend on the clock on the wall.
    """

    def __init__(
        self,
        examine: Callable[[], Mapping[str, float]],
        settings: Mapping[str, Any],
        stop_when: StopWhen = "never",
        past: Sequence[Entry] = (),
        balance: Balance | None = None,
        every: int = 0,
    ) -> None:
        assert every > 0 or balance is None
        self.examine = examine
        self.every = every
        self._settings, self._stop_when, self._balance = settings, stop_when, balance
        self._treated: list[int] = []
        self._learn(past)

    def _learn(self, past: Sequence[Entry]) -> None:
        """Know these looks, and no others."""
        self._mind = Diagnostician()
        self._said: Verdict | None = None
        self._well = -1
        self._unbeaten: int | None = None
        treated = list(self._treated)
        for entry in past:
            while treated and entry.examples > treated[0]:
                self._mind.forget()
                del treated[0]
            self._see(entry)
            if "unbeaten" in entry.signs:
                self._unbeaten = int(entry.signs["unbeaten"])

    def _see(self, entry: Entry) -> Verdict:
        verdict = self._said = self._mind.see(entry)
        if self._found_well(verdict, entry.examples):
            self._well = entry.examples
        return verdict

    def hurry(self) -> None:
        """Look at fewer examples from now on."""
        if isinstance(self.examine, Examiner):
            self.examine.hurry()

    def see(self, event: Event) -> None:
        """Take note of what is measured, as an observer."""
        if isinstance(event, Measured):
            self._unbeaten = 0 if event.best else (self._unbeaten or 0) + 1

    def close(self) -> None:
        pass

    @property
    def looked_at(self) -> int:
        """Examples seen at the last look; -1 before the first."""
        entries = self._mind.chart.entries
        return entries[-1].examples if entries else -1

    def diagnose(self, look: Examined) -> Diagnosed | None:
        """The verdict after this look, where it is not the one before, or has become certain."""
        entry = Entry(
            examples=look.examples,
            rounds=look.rounds,
            progress=look.progress,
            signs=with_measurements(look.signs, self._unbeaten),
        )
        before, now = self._said, self._see(entry)
        if before is not None and before.title == now.title:
            certain = before.confidence < CERTAIN <= now.confidence
            if not (now.ill and certain):
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

    @property
    def well(self) -> bool:
        """Whether the last look found nothing wrong."""
        return self._said is not None and self._found_well(self._said, self.looked_at)

    def _found_well(self, verdict: Verdict, examples: int) -> bool:
        """Whether nothing is wrong; that it is too early to tell what came of a treatment is not it."""
        waits = verdict.name == "warming up" and any(at < examples for at in self._treated)
        return not verdict.ill and not waits

    def treat(self, checkpoints: Sequence[int]) -> Treatment | None:
        """What is to be changed after the last look."""
        if self._balance is None or self._said is None:
            return None
        progress = self._mind.chart.progress
        return self._done(self._balance.treat(self._said, checkpoints, self._well, progress))

    def rescue(self, checkpoints: Sequence[int]) -> Treatment | None:
        """What is to be changed after a breakdown."""
        if self._balance is None:
            return None
        return self._done(self._balance.rescue("broke down", checkpoints, self._well))

    def _done(self, treatment: Treatment | None) -> Treatment | None:
        """Begin a new count of what holds, and forget what a run that goes back never did."""
        if treatment is None:
            return None
        at = self.looked_at if treatment.back_to is None else treatment.back_to
        self._treated = [*(before for before in self._treated if before < at), at]
        if treatment.back_to is not None:
            chart = self._mind.chart
            chart.cut(treatment.back_to)
            self._learn(chart.entries)
        self._mind.forget()
        return treatment

    def record(self) -> dict[str, Any]:
        """What a resumed run must know to be treated as this one would be; empty without balance."""
        if self._balance is None:
            return {}
        looks = [asdict(entry) for entry in self._mind.chart.entries]
        found = {"balance": self._balance.record(), "every": self.every, "looks": looks}
        return {**found, "treated": list(self._treated)}

    def load(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` gave."""
        if self._balance is not None and record:
            self._balance.load(record["balance"])
            self.every = int(record["every"])
            self._treated = [int(at) for at in record["treated"]]
            self._learn([Entry(**look) for look in record["looks"]])


def with_measurements(signs: Mapping[str, float], unbeaten: int | None) -> dict[str, float]:
    """Signs, and how many measurements there were since the best one, where any were made."""
    return {**signs} if unbeaten is None else {**signs, "unbeaten": float(unbeaten)}


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
