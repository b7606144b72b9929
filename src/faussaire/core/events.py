"""What happened in a run, as immutable facts. Observers receive them and can never change training."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events: when, in examples seen and in seconds of training."""

    examples: int
    elapsed: float

    @property
    def kind(self) -> str:
        """The event's name in files: `Tick` is `tick`, `StageBegan` is `stage_began`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def record(self) -> dict[str, Any]:
        """As a flat, JSON-ready mapping."""
        return {"event": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training begins, or goes on from a checkpoint (`examples` > 0).

    Attributes:
        family: its name.
        total: examples planned; where time is the budget, an estimate.
        device: where and how, for people.
        parameters: trainable numbers by net.
        seconds: the budget of time, if that is what was given.
    """

    family: str
    total: int
    device: str
    parameters: Mapping[str, int]
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StageBegan(Event):
    """A new stage of the plan is in force."""

    stage: str


@dataclass(frozen=True, kw_only=True)
class Tick(Event):
    """Means since the last tick.

    Attributes:
        losses: loss terms by `<phase>.<term>`.
        signs: watched quantities by name, such as `D(x)`.
        rates: learning rates by optimiser.
        per_second: examples per second.
        remaining: seconds left, estimated.
        progress: share of the run done, in [0, 1].
        memory: peak memory in bytes.
    """

    rounds: int
    stage: str
    losses: Mapping[str, float] = field(default_factory=dict)
    signs: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    per_second: float = 0.0
    remaining: float = 0.0
    progress: float = 0.0
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class PreviewDue(Event):
    """Time to look at samples."""


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A checkpoint is safely on disk."""

    path: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measured(Event):
    """Samples of the checkpoint just saved were measured; `metrics.jsonl` has the whole record.

    Attributes:
        figures: values by full name, the one that decides which checkpoint is best first.
        best: whether no earlier checkpoint was better.
        seconds: time taken, which does not count as training time.
    """

    figures: Mapping[str, float]
    best: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Examined(Event):
    """The doctor looked at the players.

    Attributes:
        rounds: played by then.
        stage: of the training plan.
        progress: share of the run done, in [0, 1].
        signs: vital signs by name; see docs/doctor.md.
        seconds: time taken.
    """

    rounds: int
    stage: str
    progress: float
    signs: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Diagnosed(Event):
    """The doctor's verdict changed.

    Attributes:
        verdict: such as `healthy` or `collapse of class 7`.
        name: the verdict without its subject.
        ill: whether something is wrong.
        meaning: the verdict in a sentence's words.
        since: examples seen when it began.
        confidence: in [0, 1].
        evidence: the signs that led to it.
        advice: what to do, as sentences.
    """

    verdict: str
    name: str
    ill: bool
    meaning: str
    since: int
    confidence: float
    evidence: Sequence[str]
    advice: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Treated(Event):
    """Settings were changed on the way, as `--balance auto` asked for.

    Attributes:
        settings: new values by name.
        why: a sentence.
        from_examples: how far the run had come before it went back to `examples`; equal to it where
            it went on from where it was.
    """

    settings: Mapping[str, Any]
    why: str
    from_examples: int


@dataclass(frozen=True, kw_only=True)
class Noted(Event):
    """Something the user should know."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """Training ended: `complete`, `interrupted` or `diverged`."""

    outcome: str
    message: str = ""


class Observer(Protocol):
    """Sees every event; `close` is called once at the end, whatever the end is."""

    def see(self, event: Event) -> None:
        """Take note of `event`."""
        ...

    def close(self) -> None:
        """Let go of files and screens."""
        ...


class Audience:
    """All observers of a run."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.observers = list(observers)

    def tell(self, event: Event) -> None:
        """Show `event` to everyone, in order."""
        for observer in self.observers:
            observer.see(event)

    def close(self) -> None:
        """Close all observers, last to first."""
        with ExitStack() as stack:  # one that fails does not keep the others open
            for observer in self.observers:
                stack.callback(observer.close)
