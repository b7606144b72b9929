"""Verdicts: what a run suffers from, if anything, from its vital signs alone.

Pure functions of a chart. Each rule reads like what it looks for; its numbers stand in `Limits`, were
chosen on one half of the runs of `benchmarks/doctor` and are reported on the other (docs/doctor.md).

A rule must hold at `Limits.looks` looks in a row before it becomes a verdict: one look is 128 samples
of a generator in motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from faussaire.doctor.chart import Chart, Entry

Name = Literal[
    "warming up",
    "healthy",
    "finished",
    "stalled",
    "collapse",
    "partial collapse",
    "discriminator too strong",
    "discriminator too weak",
    "oscillating",
    "diverging",
    "memorising",
    "labels ignored",
    "labels unfit",
]

ILL: tuple[Name, ...] = (
    "diverging",
    "discriminator too weak",
    "collapse",
    "discriminator too strong",
    "memorising",
    "partial collapse",
    "labels unfit",
    "labels ignored",
    "oscillating",
    "stalled",
)
"""What is wrong: where several hold, the first is named, which is rather a cause than what follows."""

MEANINGS: dict[Name, str] = {
    "warming up": "it is too early to tell",
    "healthy": "it learns",
    "finished": "it has learnt what it will: more training will change little",
    "stalled": "it has stopped learning far from the data: more training will not help",
    "collapse": "the generator makes the same few things over and over",
    "partial collapse": "the generator leaves out part of the data",
    "discriminator too strong": "the discriminator wins so clearly that it teaches nothing",
    "discriminator too weak": "the discriminator misses what is plain to see: it teaches nothing",
    "oscillating": "the generator runs in circles instead of getting closer",
    "diverging": "numbers grow without end; it will break down",
    "memorising": "it learns the training pictures by heart",
    "labels ignored": "what is made does not depend on the class that is asked for",
    "labels unfit": "the labels do not fit the pictures",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A sign that led to a verdict.

    Attributes:
        sign: its name; see docs/doctor.md.
        value: as it is now.
        limit: beyond which it counts.
    """

    sign: str
    value: float
    limit: float

    def __str__(self) -> str:
        side = "below" if self.value < self.limit else "above"
        return f"{self.sign} {self.value:.3g}, {side} {self.limit:.3g}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run suffers from, or does not.

    Attributes:
        name: see `MEANINGS`.
        subject: the class that collapsed, where it is one; else empty.
        since: examples seen when it began.
        confidence: in [0, 1], 1 - 2^-n after n looks in a row that say so.
        evidence: the signs that led to it.
    """

    name: Name
    subject: str = ""
    since: int = 0
    confidence: float = 0.0
    evidence: tuple[Evidence, ...] = ()

    @property
    def ill(self) -> bool:
        """Whether something is wrong."""
        return self.name in ILL

    @property
    def title(self) -> str:
        """`collapse of class 7`, or the name."""
        return f"{self.name} of class {self.subject}" if self.subject else self.name

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {**asdict(self), "ill": self.ill, "meaning": MEANINGS[self.name]}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where signs begin to count. Tuned on one half of `benchmarks/doctor`, reported on the other.

    Attributes:
        looks: in a row (but one) that must say the same before it is said aloud.
        young: rounds before which, while twice `early` has not passed either, nothing can be said but
            that numbers explode.
        early: progress before which a generator may still look like anything.
        late: progress by which diversity must have come.
        led: progress by which samples must follow their labels.
        far: distance to the data above which samples are plainly not like them.
        lost: distance at which samples are further from the data than these are wide.
        blown: largest logit, over what it was, that comes before NaN.
        alike: diversity below which samples are all one thing.
        poor: diversity (and rank) below which part of the data is missing.
        twins: share of duplicates that makes a generator a stamp.
        certain: win rate of a discriminator that is never wrong.
        clear: margin of the same.
        blind: win rate of one that sees nothing.
        still: a distance that has fallen to no less than this share of what it was has not fallen.
        frozen: path of a generator that stands still.
        enough: progress after which a generator that is far and stays far will stay so.
        unbeaten: measurements in a row, none of which was the best, after which none will be.
        swing: spread of the distance over its median, of a generator that runs in circles.
        copied: copying below which samples are copies.
        learnt: rise of the overfit sign that shows learning by heart.
        told: how well reals must tell their labels for labels to be judged at all.
        kept: share of it that samples must reach.
    """

    looks: int = 2
    young: int = 100
    early: float = 0.1
    late: float = 0.25
    led: float = 0.2
    far: float = 0.15
    lost: float = 3.0
    blown: float = 100.0
    alike: float = 0.3
    poor: float = 0.6
    twins: float = 0.3
    certain: float = 0.98
    clear: float = 2.5
    blind: float = 0.4
    still: float = 0.9
    frozen: float = 0.05
    enough: float = 0.5
    unbeaten: float = 4.0
    swing: float = 1.0
    copied: float = 0.7
    learnt: float = 0.25
    told: float = 0.1
    kept: float = 0.3


Key = tuple[Name, str]
Found = Iterator[tuple[Key, tuple[Evidence, ...]]]


# ---- The rules: what holds at the latest look ----


def findings(chart: Chart, limits: Limits) -> Found:
    """Everything that holds at the latest look of a chart, with its evidence."""
    if not len(chart):
        return
    yield from _diverging(chart, limits)
    if len(chart) < 3:
        return
    for rule in _RULES:
        yield from rule(chart, limits)


def _say(name: Name, *evidence: Evidence, subject: str = "") -> tuple[Key, tuple[Evidence, ...]]:
    return (name, subject), evidence


def _sign(name: str, value: float, limit: float) -> Evidence:
    return Evidence(sign=name, value=value, limit=limit)


def _diverging(chart: Chart, limits: Limits) -> Found:
    """Logits a hundred times what they were, or samples outside the data by far."""
    logits = chart.column("largest logit")
    if len(logits) >= 4:
        before = max(1.0, float(np.median(logits[: len(logits) // 2])))
        now = chart.at_least("largest logit")
        if now > limits.blown * before:
            yield _say("diverging", _sign("largest logit", now, limits.blown * before))
            return
    # Where nobody shows it the way, a generator runs off: that is no breakdown (`_too_weak`).
    distance, taught = chart.at_least("distance"), _wins(chart) >= limits.blind
    if taught and len(chart) >= 3 and distance > limits.lost:
        yield _say("diverging", _sign("distance", distance, limits.lost))


def _collapse(chart: Chart, limits: Limits) -> Found:
    """Samples are all alike, all at once or within a class."""
    diversity, twins = chart.at_most("diversity"), chart.at_least("duplicates")
    blot = diversity < limits.alike and not _fallen(chart, limits)  # its samples are twins, too
    if diversity < limits.alike and not blot:
        yield _say("collapse", _sign("diversity", diversity, limits.alike))
    elif twins > limits.twins and not blot:
        yield _say("collapse", _sign("duplicates", twins, limits.twins))
    else:
        for name in chart.entries[-1].signs:
            of = name.removeprefix("diversity of ")
            if of != name and (within := chart.at_most(name)) < limits.alike:
                yield _say("collapse", _sign(name, within, limits.alike), subject=of)


def _partial(chart: Chart, limits: Limits) -> Found:
    """Samples differ, but less than the data do."""
    for sign in ("diversity", "rank"):
        value = chart.at_most(sign)
        if value < limits.poor and not _rising(chart, sign):
            yield _say("partial collapse", _sign(sign, value, limits.poor))
            return


def _too_weak(chart: Chart, limits: Limits) -> Found:
    """What the doctor sees at a glance the discriminator does not."""
    wins = _wins(chart)
    distance = chart.at_least("distance")
    if wins < limits.blind and distance > limits.far:
        yield _say(
            "discriminator too weak",
            _sign("win rate", wins, limits.blind),
            _sign("distance", distance, limits.far),
        )


def _wins(chart: Chart) -> float:
    """The best win rate of three looks: a Wasserstein critic turns about at first."""
    return float(chart.column("win rate", 3).max())


def _too_strong(chart: Chart, limits: Limits) -> Found:
    """It is never wrong, by far, and samples do not get closer."""
    wins, margin = chart.at_least("win rate"), chart.at_least("margin")
    distance = chart.at_least("distance")
    if wins < limits.certain or margin < limits.clear or distance < limits.far:
        return
    if _still(chart, limits):
        yield _say(
            "discriminator too strong",
            _sign("win rate", wins, limits.certain),
            _sign("margin", margin, limits.clear),
            _sign("distance", distance, limits.far),
        )


def _oscillating(chart: Chart, limits: Limits) -> Found:
    """The distance swings, and its level does not fall; or it has broken out and not come back."""
    start, now = chart.entries[:2], chart.at_least("distance")
    outbreaks = [
        entry.signs.get("distance", 0.0) for entry in chart.entries[-6:] if entry not in start
    ]
    if now > limits.far and outbreaks and (worst := max(outbreaks)) > limits.lost:
        yield _say("oscillating", _sign("distance of late", worst, limits.lost))
        return
    distance = chart.column("distance", 8)
    distance = distance[~np.isnan(distance)]
    if len(distance) < 5:
        return
    level = float(np.median(distance))
    low, high = np.quantile(distance, [0.1, 0.9])
    swing = float(high - low) / max(level, 1e-6)
    if min(level, now) > limits.far and swing > limits.swing and _still(chart, limits):
        yield _say(
            "oscillating",
            _sign("swing of the distance", swing, limits.swing),
            _sign("distance", level, limits.far),
        )


def _stalled(chart: Chart, limits: Limits) -> Found:
    """Far from the data and no closer than before, late in the run; or it does not move at all."""
    distance, path = chart.at_least("distance"), chart.at_most("path")
    if distance < limits.far or not _still(chart, limits):
        return
    if path < limits.frozen:
        yield _say(
            "stalled",
            _sign("path", path, limits.frozen),
            _sign("distance", distance, limits.far),
        )
    elif chart.progress > limits.enough:
        yield _say("stalled", _sign("distance", distance, limits.far))


def _memorising(chart: Chart, limits: Limits) -> Found:
    """Samples are copies, or the discriminator knows its pictures from others."""
    copying = chart.at_most("copying")
    if copying < limits.copied:
        yield _say("memorising", _sign("copying", copying, limits.copied))
        return
    # The pictures are the same at each look, so where it began is chance, and the rise is not.
    overfit = chart.column("overfit")
    overfit = overfit[~np.isnan(overfit)]
    if len(overfit) >= 4:
        rise = float(np.median(overfit[-3:])) - float(np.median(overfit[:2]))
        if rise > limits.learnt:
            yield _say("memorising", _sign("rise of overfit", rise, limits.learnt))


def _labels(chart: Chart, limits: Limits) -> Found:
    """Whether classes look different, and whether samples follow."""
    told = chart.usual("labels told")
    if math.isnan(told):
        return
    if told < limits.told:
        yield _say("labels unfit", _sign("labels told", told, limits.told))
        return
    # Labels are learnt after looks: samples may follow them later.
    kept = chart.at_most("labels kept")
    if chart.progress > limits.led and kept < limits.kept * told:
        yield _say("labels ignored", _sign("labels kept", kept, limits.kept * told))


def _well(chart: Chart, limits: Limits) -> Found:
    """Close to the data, or getting closer; finished, where measured figures get no better either.

    The doctor's eye is too coarse to say so alone: the FID still falls long after it sees no change.
    """
    distance, still = chart.usual("distance"), _still(chart, limits)
    unbeaten = chart.column("unbeaten", 1)[0]
    if distance < limits.far and still and unbeaten >= limits.unbeaten:
        yield _say(
            "finished", _sign("measurements without a better one", unbeaten, limits.unbeaten)
        )
    elif distance < limits.far or (distance >= limits.far and not still):
        yield _say("healthy", _sign("distance", distance, limits.far))


_RULES: tuple[Callable[[Chart, Limits], Found], ...] = (
    _collapse,
    _partial,
    _too_weak,
    _too_strong,
    _oscillating,
    _stalled,
    _memorising,
    _labels,
    _well,
)


def _still(chart: Chart, limits: Limits) -> bool:
    """Whether samples are hardly closer to the data than they were half the way ago."""
    known = [
        entry for entry in chart.entries if not math.isnan(entry.signs.get("distance", math.nan))
    ]
    then = [entry for entry in known if entry.progress <= 0.5 * chart.progress]
    some = max(1, len(known) // 4)
    if len(known) < 3 or not then:
        return False

    def level(entries: Sequence[Entry]) -> float:
        return float(np.median([entry.signs["distance"] for entry in entries]))

    return level(known[-some:]) > limits.still * level(then[-some:])


def _fallen(chart: Chart, limits: Limits) -> bool:
    """Whether diversity is half of what it was, or has not come in a long time.

    A generator begins with one blot for all latents: that it has no diversity yet is no collapse.
    """
    diversity = chart.column("diversity")
    diversity = diversity[~np.isnan(diversity)]
    most = max(
        (float(np.median(diversity[i : i + 3])) for i in range(len(diversity) - 2)), default=0.0
    )
    late = chart.progress > limits.late and _still(chart, limits)  # else it is on its way
    return float(np.median(diversity[-3:])) < 0.5 * most or late


def _rising(chart: Chart, sign: str) -> bool:
    """Whether the sign is higher than it was some looks ago."""
    values = chart.column(sign, 6)
    values = values[~np.isnan(values)]
    if len(values) < 4:
        return True
    return float(np.median(values[-2:])) > 1.1 * float(np.median(values[:2]))


# ---- Over time ----


@dataclass
class _Streak:
    """How long a rule has held: its beginning, looks that said so, and looks in a row that did not."""

    since: int
    looks: int = 0
    missed: int = 0
    evidence: tuple[Evidence, ...] = ()


@dataclass
class Diagnostician:
    """Follows a chart as it grows, and knows what holds now."""

    limits: Limits = field(default_factory=Limits)
    chart: Chart = field(default_factory=Chart)
    _streaks: dict[Key, _Streak] = field(default_factory=dict)

    def see(self, entry: Entry) -> Verdict:
        """Take in a look; the verdict after it."""
        self.chart.add(entry)
        holding = dict(findings(self.chart, self.limits))
        for key, evidence in holding.items():
            streak = self._streaks.setdefault(key, _Streak(since=entry.examples))
            streak.looks += 1
            streak.missed, streak.evidence = 0, evidence
        for key in [key for key in self._streaks if key not in holding]:
            self._streaks[key].missed += 1
            # One look that does not say so may be chance; two in a row are not.
            if self._streaks[key].missed > 1:
                del self._streaks[key]
        return self.verdicts()[0]

    def forget(self) -> None:
        """Let everything have to hold anew: what was true of other settings says little of these."""
        self._streaks.clear()

    @property
    def _young(self) -> bool:
        """Whether the run has hardly begun: then a generator may look like anything."""
        chart, limits = self.chart, self.limits
        few = chart.rounds < limits.young and chart.progress < 2.0 * limits.early
        return few or chart.progress < limits.early

    def verdicts(self) -> list[Verdict]:
        """All that hold, the one that matters most first; never empty."""
        found = [
            Verdict(
                name=name,
                subject=subject,
                since=streak.since,
                confidence=1.0 - 0.5**streak.looks,
                evidence=streak.evidence,
            )
            for (name, subject), streak in self._streaks.items()
            if streak.looks >= self.limits.looks and (name == "diverging" or not self._young)
        ]
        order = [*ILL, "finished", "healthy"]
        found.sort(key=lambda verdict: order.index(verdict.name))
        if any(verdict.ill for verdict in found):
            found = [verdict for verdict in found if verdict.ill]
        return found or [Verdict(name="warming up")]


def diagnose(entries: Sequence[Entry], limits: Limits | None = None) -> list[Verdict]:
    """The verdicts after the last of these looks, the one that matters most first."""
    doctor = Diagnostician(limits or Limits())
    for entry in entries:
        doctor.see(entry)
    return doctor.verdicts()


def diagnose_run(entries: Sequence[Entry], outcome: str = "") -> list[Verdict]:
    """The verdicts on a run, whether it trains or has ended.

    Args:
        outcome: `diverged` is a verdict in itself, whatever the last look saw.
    """
    verdicts = diagnose(entries)
    if outcome == "diverged" and all(verdict.name != "diverging" for verdict in verdicts):
        since = entries[-1].examples if entries else 0
        broken = Verdict(name="diverging", since=since, confidence=1.0)
        return [broken, *(verdict for verdict in verdicts if verdict.ill)]
    return verdicts
