"""What a search is to do, and what it has found, as plain data. No torch and no Optuna here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faussaire.core.config import Settings, resolve
from faussaire.core.errors import UserError
from faussaire.core.figures import METRICS, Figure, Metric, choose_metrics
from faussaire.families import load_family
from faussaire.tuning.space import Space

#: Settings that say what a value of this search means.
_MEASURE = ("evaluate_metrics", "evaluate_count", "extractor")
#: Settings of training that best.yaml leaves to the run that is made with it.
_PASSING = {
    *("examples", "for", "device", "compile", "micro", "preview_every", "save_every", "keep"),
    *("evaluate_every", "evaluate_metrics", "evaluate_count", "extractor", "weights", "doctor"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search.

    Attributes:
        settings: of every trial, where the space does not say otherwise; their budget (examples, or
            seconds of training) is each trial's own. `evaluate_every` 0: `rungs` times a trial.
        space: what is searched.
        out: the search's folder.
        trials: how many, those of other processes counted.
        storage: of the study, as Optuna takes it; None: `study.db` in the folder.
        allow_changes: go on although settings or space have changed.
        pictures: in the source.
        per_second: examples a second of the settings as they are, about.
        rungs: how many times in a trial its figure is compared with that of others.
    """

    settings: Settings
    space: Space
    out: Path
    trials: int
    storage: str | None = None
    allow_changes: bool = False
    pictures: int = 0
    per_second: float = 1.0
    rungs: int = 5

    def __post_init__(self) -> None:
        training = self.settings.training
        if (training.examples is None) == (training.duration is None):
            raise UserError(
                "A trial needs one budget, of examples or of time.",
                "Give --for, --for-each or --examples.",
            )

    @property
    def metric(self) -> Metric:
        """What decides: the first of the metrics measured."""
        asked = self.settings.training.evaluate_metrics
        if asked == "auto":
            asked = load_family(self.settings.family).judged_by(self.settings.model)
        return METRICS[choose_metrics(asked)[0]]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """As Optuna has it."""
        return "maximize" if self.metric.better == "higher" else "minimize"

    def loss(self, objective: float | None) -> float:
        """What to rank by: smaller is better whatever the metric; infinite for none."""
        if objective is None:
            return math.inf
        return -objective if self.direction == "maximize" else objective

    def objective(self, figure: Figure) -> float:
        """What is searched for the least or the most of: the figure, or its distance to the real one."""
        return figure.distance() if self.metric.better == "real" else figure.value

    def share(self, examples: int, elapsed: float) -> float:
        """Share of its budget that a trial has had, in [0, 1]."""
        training = self.settings.training
        if training.duration is not None:
            return min(1.0, elapsed / training.duration)
        assert training.examples is not None
        return min(1.0, examples / training.examples)

    def rung(self, examples: int, elapsed: float) -> int:
        """Which comparison a measurement serves: 1 to `rungs`, or 0 for one that comes too early.

        A trial is measured after a number of examples, and in a budget of time that number is a
        guess: what comes a fifth of a rung too early still serves it.
        """
        return math.floor(self.share(examples, elapsed) * self.rungs + 0.2)

    def interval(self, per_second: float) -> int:
        """Examples between measurements of a trial of this speed."""
        training = self.settings.training
        if training.evaluate_every:
            return training.evaluate_every
        total = training.examples or per_second * (training.duration or 0.0)
        return max(1, math.ceil(total / self.rungs))

    def record(self) -> dict[str, Any]:
        """As tune.yaml keeps it."""
        flat = self.settings.flat()
        return {
            **{key: flat[key] for key in ("family", "source", "examples", "for")},
            "space": self.space.text(),
            "pictures": self.pictures,
            "per_second": round(self.per_second, 2),
            "settings": {
                key: value
                for key, value in flat.items()
                if key not in ("family", "source", "examples", "for", "weights")
            },
        }

    def require_same(self, stored: Mapping[str, Any], where: str, *, here: bool) -> None:
        """Refuse to mix trials that were begun with something else.

        Args:
            stored: a plan's `record`.
            where: whose it is, in words.
            here: whether it is of this folder; on another machine, data may lie elsewhere.

        Raises:
            UserError: with each difference.
        """
        mine = self.record()
        changes = [
            f"{key} is {stored.get(key)}, not {mine[key]}"
            for key in ("family", "source", "examples", "for")
            if stored.get(key) != mine[key] and (here or key != "source")
        ]
        for part in ("settings", "space"):
            before, now = dict(stored.get(part) or {}), mine[part]
            changes += [
                f"{key} is {before.get(key)}, not {now.get(key)}"
                for key in dict.fromkeys((*before, *now))
                if before.get(key) != now.get(key)
            ]
        known = dict(stored.get("settings") or {})
        remeasured = any(known.get(key) != mine["settings"][key] for key in _MEASURE)
        other = stored.get("family") != mine["family"]
        if changes and (remeasured or other or not self.allow_changes):
            hint = "or choose another --out: figures measured in another way cannot be ranked."
            if not (remeasured or other):
                hint = "add --allow-changes to go on with the new ones, or choose another --out."
            raise UserError(
                f"{where} was begun with other settings: {'; '.join(changes)}.",
                f"Give the same command again, {hint}",
            )

    def best_settings(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What `faussaire train --config` needs to train as a trial did, for as long as one likes.

        That is what differs from the family's defaults, and what was searched.
        """
        family, source = self.settings.family, self.settings.source
        kind = load_family(family)
        plain = resolve(family, source, kind.Config, kind.training).flat()
        flat = self.settings.flat()
        searched = self.space.settings(point, flat)
        kept = {
            key: value
            for key, value in {**flat, **searched}.items()
            if key not in _PASSING and (key in searched or plain.get(key) != value)
        }
        return {"family": family, "source": source, **kept}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial.

    Attributes:
        number: as Optuna counts.
        state: `complete`, `pruned`, `failed`, `running` or `waiting`.
        value: the figure at the end, or where it was pruned the last one; None: none was measured.
        objective: what was compared, smaller or larger as the metric wants it.
        point: a value for each dimension.
        settings: the same as settings: ratios are multiplied out.
        reason: why it ended before its time.
        examples: seen.
        seconds: of training.
        start: whether it trained the settings as they are without a search.
        run: its folder; on another machine, that machine's.
        course: (share of the budget, figure) at each measurement.
    """

    number: int
    state: str
    value: float | None = None
    objective: float | None = None
    point: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    examples: int = 0
    seconds: float = 0.0
    start: bool = False
    run: str = ""
    course: tuple[tuple[float, float], ...] = ()

    @property
    def name(self) -> str:
        """As its folder is called: that of the first try, where it was done again."""
        return Path(self.run).name or f"{self.number:04d}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has found so far.

    Attributes:
        plan: the search.
        study: its name.
        rows: trials by rank: complete ones from the best on, then the others as they came. A trial
            that was begun again in a later one is left out.
        figure: the full name of the figure; empty while none was measured.
        importances: share of the difference between good trials and others that a dimension makes, by
            name; empty where there are too few trials to say.
        notes: what the reader should know, as sentences.
    """

    plan: Plan
    study: str
    rows: tuple[Row, ...] = ()
    figure: str = ""
    importances: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Row | None:
        """The best complete trial."""
        return self.rows[0] if self.rows and self.rows[0].state == "complete" else None

    @property
    def start(self) -> Row | None:
        """The trial of the settings as they are without a search."""
        return next((row for row in self.rows if row.start), None)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        plan = self.plan
        return {
            **plan.record(),
            "study": self.study,
            "out": str(plan.out),
            "trials": plan.trials,
            "figure": self.figure,
            "better": plan.metric.better,
            "importances": dict(self.importances),
            "notes": list(self.notes),
            "found": [dataclasses.asdict(row) for row in self.rows],
        }
