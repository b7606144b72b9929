"""What `events.jsonl` tells of a run, read so that no crash can spoil it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

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
        per_second: examples per second.
        stages: each stage once, in order.
        notes: all notes, those of dropped stretches too.
        resumed: examples seen at each restart from a checkpoint.
        outcome: `complete`, `interrupted`, `diverged`, or empty where training has not ended or
            could not say so.
        message: the sentence that came with the outcome.
        last: the latest tick's record, or None.
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
        return min(1.0, max(0.0, _number(self.last, "progress"))) if self.last else 0.0

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
    ticks: list[dict[str, Any]] = []
    stages: list[StageStart] = []
    notes: list[Note] = []
    resumed: list[int] = []
    started: dict[str, Any] = {}
    finished: dict[str, Any] = {}
    examples, elapsed, unreadable = 0, 0.0, 0
    for record in _records(text):
        if record is None:
            unreadable += 1
            continue
        kind, at, when = record["event"], int(record["examples"]), _number(record, "elapsed")
        if kind == "tick":
            ticks.append(record)
        elif kind == "started":
            started, finished = record, {}
            while ticks and ticks[-1]["examples"] > at:
                ticks.pop()
            while stages and stages[-1].examples > at:
                stages.pop()
            if at > 0:
                resumed.append(at)
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
        losses=_series(ticks, "losses"),
        signs=_series(ticks, "signs"),
        rates=_series(ticks, "rates"),
        per_second=_speed(ticks),
        stages=tuple(stages),
        notes=tuple(notes),
        resumed=tuple(resumed),
        outcome=str(finished.get("outcome", "")),
        message=str(finished.get("message", "")),
        last=ticks[-1] if ticks else None,
        examples=examples,
        elapsed=elapsed,
        unreadable=unreadable,
        written=written,
    )


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


def _series(ticks: list[dict[str, Any]], group: str) -> dict[str, Series]:
    """The group's series by name, in the order in which names first appeared."""
    columns: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for tick in ticks:
        values = tick.get(group)
        if not isinstance(values, dict):
            continue
        for name, value in values.items():
            if not isinstance(value, int | float):
                continue
            column = columns.get(name)
            if column is None:
                column = columns[name] = ([], [], [])
            column[0].append(tick["examples"])
            column[1].append(tick.get("elapsed") or 0.0)
            column[2].append(value)
    return {name: _arrays(name, *column) for name, column in columns.items()}


def _speed(ticks: list[dict[str, Any]]) -> Series | None:
    known = [tick for tick in ticks if isinstance(tick.get("per_second"), int | float)]
    if not known:
        return None
    return _arrays(
        "examples per second",
        [tick["examples"] for tick in known],
        [tick.get("elapsed") or 0.0 for tick in known],
        [tick["per_second"] for tick in known],
    )


def _arrays(name: str, examples: list[float], elapsed: list[float], values: list[float]) -> Series:
    return Series(
        name,
        np.asarray(examples, dtype=np.float64),
        np.asarray(elapsed, dtype=np.float64),
        np.asarray(values, dtype=np.float64),
    )
