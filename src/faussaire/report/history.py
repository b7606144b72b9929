"""What `events.jsonl` tells of a run, read so that no crash can spoil it."""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.doctor.chart import Chart, Entry

# Ticks come every half minute at most and checkpoints take seconds, so this long a silence means
# that the process is gone.
_SILENCE = 600.0


@dataclass(frozen=True)
class Series:
    """One quantity over a run.

    Attributes:
        name: as the family named it.
        examples: (K,) examples seen, rising.
        elapsed: (K,) seconds of training.
        values: (K,) the quantity; may hold NaN and infinities.
    """

    name: str
    examples: np.ndarray
    elapsed: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        """The latest value."""
        return float(self.values[-1])


@dataclass(frozen=True)
class StageStart:
    """Where a stage of the training plan began."""

    name: str
    examples: int
    elapsed: float


@dataclass(frozen=True)
class Note:
    """Something that the run wanted its user to know."""

    message: str
    examples: int
    elapsed: float


@dataclass(frozen=True, kw_only=True)
class History:
    """A run's past. Everything is empty for a run that has just begun.

    Attributes:
        family, total, device, parameters: as training last announced them.
        losses, signs, rates: series by name.
        vitals: the doctor's vital signs by name.
        looks: the same by look, in order.
        per_second: examples per second.
        stages: each stage once, in order.
        notes: all notes, those of dropped stretches too.
        resumed: examples seen at each restart from a checkpoint.
        outcome: `complete`, `interrupted`, `diverged`, or empty where training has not ended or
            could not say so.
        message: the sentence that came with the outcome.
        last: the latest tick's record; None if there is none since the run began or went on.
        examples, elapsed: how far the run came.
        unreadable: lines that were torn or are no events.
        written: when the file last changed, in seconds since 1970.
    """

    family: str = ""
    total: int = 0
    device: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    losses: Mapping[str, Series] = field(default_factory=dict)
    signs: Mapping[str, Series] = field(default_factory=dict)
    rates: Mapping[str, Series] = field(default_factory=dict)
    vitals: Mapping[str, Series] = field(default_factory=dict)
    looks: tuple[Entry, ...] = ()
    per_second: Series | None = None
    stages: tuple[StageStart, ...] = ()
    notes: tuple[Note, ...] = ()
    resumed: tuple[int, ...] = ()
    outcome: str = ""
    message: str = ""
    last: Mapping[str, Any] | None = None
    examples: int = 0
    elapsed: float = 0.0
    unreadable: int = 0
    written: float = 0.0

    @property
    def progress(self) -> float:
        """Share of the run done, in [0, 1]."""
        if self.outcome == "complete":
            return 1.0
        if self.last is None:  # right after a resume
            return min(1.0, self.examples / self.total) if self.total else 0.0
        return min(1.0, max(0.0, _number(self.last, "progress")))

    @property
    def remaining(self) -> float:
        """Seconds left as last estimated; 0 where that is unknown."""
        return max(0.0, _number(self.last, "remaining")) if self.last else 0.0

    def standing(self, now: float | None = None) -> str:
        """The outcome, or `running`, or `stopped` where training fell silent without a word.

        Args:
            now: seconds since 1970; None: the present.
        """
        if self.outcome:
            return self.outcome
        present = time.time() if now is None else now
        return "stopped" if present - self.written > _SILENCE else "running"


def read_events(path: Path) -> History:
    """Read `events.jsonl`; a missing file is the history of a run that has not begun.

    Torn lines are skipped. Where training went on from a checkpoint at E examples, the curves and
    stages recorded beyond E before are dropped: the run as it is now never did them.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        written = path.stat().st_mtime
    except FileNotFoundError:
        return History()
    ticks, vitals, chart = _Ticks(), _Ticks(), Chart()
    stages: list[StageStart] = []
    notes: list[Note] = []
    resumed: list[int] = []
    started: dict[str, Any] = {}
    finished: dict[str, Any] = {}
    examples, elapsed, unreadable = 0, 0.0, 0
    unbeaten: int | None = None
    for record in _records(text):
        if record is None:
            unreadable += 1
            continue
        kind, at, when = record["event"], int(record["examples"]), _number(record, "elapsed")
        if kind == "tick":
            ticks.add(record, at, when)
        elif kind == "examined":
            vitals.add(record, at, when)
            signs = record.get("signs")
            if isinstance(signs, dict):
                numbers = {k: float(v) for k, v in signs.items() if isinstance(v, float | int)}
                if unbeaten is not None:
                    numbers["unbeaten"] = float(unbeaten)
                chart.add(
                    Entry(
                        examples=at,
                        rounds=int(_number(record, "rounds")),
                        progress=_number(record, "progress"),
                        signs=numbers,
                    )
                )
        elif kind == "started":
            started, finished = record, {}
            ticks.cut(at)
            vitals.cut(at)
            chart.cut(at)
            while stages and stages[-1].examples > at:
                stages.pop()
            if at > 0:
                resumed.append(at)
        elif kind == "measured":
            unbeaten = 0 if record.get("best") else (unbeaten or 0) + 1
        elif kind == "treated":
            notes.append(Note(_treatment(record), at, when))
            if _number(record, "from_examples") > at:  # it went back
                ticks.cut(at)
                vitals.cut(at)
                chart.cut(at)
                while stages and stages[-1].examples > at:
                    stages.pop()
        elif kind == "stage_began":
            name = str(record.get("stage", ""))
            if not stages or stages[-1].name != name:  # a resumed run announces its stage again
                stages.append(StageStart(name, at, when))
        elif kind == "noted":
            notes.append(Note(str(record.get("message", "")), at, when))
        elif kind == "finished":
            finished = record
        examples, elapsed = at, when
    parameters = started.get("parameters")
    return History(
        family=str(started.get("family", "")),
        total=int(_number(started, "total")),
        device=str(started.get("device", "")),
        parameters={str(net): size for net, size in parameters.items() if isinstance(size, int)}
        if isinstance(parameters, dict)
        else {},
        losses=ticks.series("losses"),
        signs=ticks.series("signs"),
        rates=ticks.series("rates"),
        vitals=vitals.series("signs"),
        looks=tuple(chart.entries),
        per_second=ticks.series("").get("examples per second"),
        stages=tuple(stages),
        notes=tuple(notes),
        resumed=tuple(resumed),
        outcome=str(finished.get("outcome", "")),
        message=str(finished.get("message", "")),
        last=ticks.last,
        examples=examples,
        elapsed=elapsed,
        unreadable=unreadable,
        written=written,
    )


def _treatment(record: Mapping[str, Any]) -> str:
    """What `--balance auto` did, in words."""
    return f"Balance: {record.get('why', '')}."


class _Ticks:
    """Ticks by column as they are read: a hundred thousand records would fill the memory."""

    def __init__(self) -> None:
        self.last: dict[str, Any] | None = None
        self._examples: list[int] = []
        self._elapsed: list[float] = []
        # Numbers of ticks and values, by group and name; dictionaries keep the order of arrival.
        self._columns: dict[str, dict[str, tuple[list[int], list[float]]]] = {
            group: {} for group in ("losses", "signs", "rates", "")
        }

    def add(self, record: dict[str, Any], examples: int, elapsed: float) -> None:
        """Take in one tick."""
        place = len(self._examples)
        self._examples.append(examples)
        self._elapsed.append(elapsed)
        self.last = record
        speed = record.get("per_second")
        for group, columns in self._columns.items():
            values = record.get(group) if group else {"examples per second": speed}
            if not isinstance(values, dict):
                continue
            for name, value in values.items():
                if isinstance(value, float | int):
                    column = columns.get(name)
                    if column is None:
                        column = columns[name] = ([], [])
                    column[0].append(place)
                    column[1].append(value)

    def cut(self, examples: int) -> None:
        """Forget what came after `examples`."""
        keep = bisect_right(self._examples, examples)
        if keep == len(self._examples):
            return
        self.last = None
        del self._examples[keep:], self._elapsed[keep:]
        for columns in self._columns.values():
            for places, values in columns.values():
                first = bisect_left(places, keep)
                del places[first:], values[first:]

    def series(self, group: str) -> dict[str, Series]:
        """The group's series by name."""
        examples = np.asarray(self._examples, dtype=np.float64)
        elapsed = np.asarray(self._elapsed, dtype=np.float64)
        return {
            name: Series(name, examples[places], elapsed[places], np.asarray(values, np.float64))
            for name, (places, values) in self._columns[group].items()
            if places
        }


def _records(text: str) -> Iterator[dict[str, Any] | None]:
    """Each line's record, None for a line that is none."""
    for line in text.split("\n"):
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            yield None
            # A resumed process appends to a torn line: its first record stands after the fragment.
            cut = line.rfind('{"event":')
            if cut > 0 and (record := _record(line[cut:])) is not None:
                yield record
            continue
        yield record


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "event" not in record:
        return None
    examples = record.get("examples")
    # Finite, for `int(nan)` is an error.
    finite = isinstance(examples, int | float) and abs(examples) < float("inf")
    return record if finite else None


def _number(record: Mapping[str, Any] | None, key: str) -> float:
    """A finite number of the record, 0 where there is none."""
    value = record.get(key) if record else None
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else 0.0
