"""Measuring what makes tables: usefulness, likeness and privacy, each beside what real rows get."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from faussaire.core.batch import RowDraws
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.errors import UserError, nearest
from faussaire.core.family import Family
from faussaire.core.figures import Figure, Provenance, choose_metrics
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.measurer import Measurer
from faussaire.measuring import Evaluation, Inquiry, Sheet, facts_of, require_modality
from faussaire.tables.charts import associations_svg, columns_svg
from faussaire.tables.data import TableData
from faussaire.tables.material import TableMaterial, encode_as, split_rows
from faussaire.tables.measures import (
    Privacy,
    Shape,
    associations,
    pair_difference,
    privacy,
    shapes,
)
from faussaire.tables.reading import read_frame
from faussaire.tables.scores import Learner, Plain, Score, Task, default_target, sklearn
from faussaire.tables.spec import TableSpec

NAMES = ("tstr", "augmented", "shapes", "pairs", "nearer", "exact-copies")
LEARNERS: tuple[Learner, ...] = ("linear", "trees")
REAL, MADE = "real rows (TRTR)", "synthetic rows (TSTR)"
BOTH, APART = "real and synthetic", "each column by itself"
_AT_ONCE = 1000


@dataclass(frozen=True)
class Bench:
    """Everything figures are made from; what takes long is found once.

    Attributes:
        spec: of the table.
        real: rows that were trained on.
        unseen: real rows that were not.
        made: synthetic rows.
        target: the column to be told.
        key: of the real rows' contents.
        seed: of the choice of rows.
        known: scores that were found.
    """

    spec: TableSpec
    real: Plain
    unseen: Plain
    made: Plain
    target: str
    key: str
    seed: int = 0
    known: dict[tuple[str, Learner], Score] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """What is told from what."""
        return Task(self.spec, self.target, self.real)

    @cached_property
    def privacy(self) -> Privacy:
        """Distances to the closest record."""
        return privacy(self.spec, self.real, self.unseen, self.made, seed=self.seed)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Likeness by column."""
        return shapes(self.spec, self.real, self.made, self.unseen)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Associations of training, held-out and synthetic rows."""
        return (
            associations(self.spec, self.real),
            associations(self.spec, self.unseen),
            associations(self.spec, self.made),
        )

    @cached_property
    def sets(self) -> Mapping[str, Plain]:
        """Rows to learn from, by words for them."""
        return {
            REAL: self.real,
            MADE: self.made,
            BOTH: self.real.joined(self.made),
            APART: self.made.shuffled(self.seed),
        }

    def learnt(self, rows: str, learner: Learner) -> Score:
        """How well held-out rows are told by who learns from one of `sets`; found once."""
        if (rows, learner) not in self.known:
            self.known[rows, learner] = self.task.score(self.sets[rows], self.unseen, learner)
        return self.known[rows, learner]

    def main(self, rows: str) -> float:
        """The number that counts, of a linear learner: F1, or R squared where a number is told."""
        score = self.learnt(rows, "linear")
        return score.f1 if self.task.classes else score.accuracy

    def figure(self, name: str) -> Figure:
        """One figure, beside what real rows get and what no skill gets."""
        base = Provenance(
            metric=name,
            count=len(self.made),
            reference="held-out",
            reference_count=len(self.unseen),
            reference_key=self.key,
        )
        counts = f"{len(self.unseen)}"
        if name in ("tstr", "augmented"):
            rows = MADE if name == "tstr" else BOTH
            parts = {
                f"{learner} {what}": value
                for learner in LEARNERS
                for what, value in self.named(self.learnt(rows, learner)).items()
            }
            return Figure(
                provenance=replace(base, details=f"target={_plain(self.target)}"),
                value=self.main(rows),
                real=self.main(REAL),
                real_counts=f"{len(self.real)}",
                given=self.main(APART if name == "tstr" else MADE),
                parts=parts,
            )
        if name == "shapes":
            return Figure(
                provenance=base,
                value=float(np.mean([one.value for one in self.shapes])),
                real=float(np.mean([one.unseen for one in self.shapes])),
                real_counts=counts,
                parts={one.name: one.value for one in self.shapes},
            )
        if name == "pairs":
            real, unseen, made = self.pairs
            nothing = np.eye(len(real))
            return Figure(
                provenance=base,
                value=pair_difference(real, made),
                real=pair_difference(real, unseen),
                real_counts=counts,
                given=pair_difference(real, nothing),
            )
        near = self.privacy
        if name == "nearer":
            parts = {
                "median to trained": near.trained,
                "median to held-out": near.unseen,
                "median of held-out to trained": near.real,
            }
            provenance = replace(base, count=near.rows)
            return Figure(
                provenance=provenance, value=near.nearer, real=0.5, real_counts=counts, parts=parts
            )
        return Figure(provenance=base, value=near.copies, real=near.usual, real_counts=counts)

    def named(self, score: Score) -> dict[str, float]:
        """A score's numbers by their names."""
        if not self.task.classes:
            return {"R squared": score.accuracy}
        found = {"accuracy": score.accuracy, "F1": score.f1}
        return found if np.isnan(score.auc) else {**found, "AUC": score.auc}


def _plain(name: str) -> str:
    """A name as figures may have it."""
    return name.translate(str.maketrans("[],/: ", "______"))


def evaluate(inquiry: Inquiry) -> Evaluation:
    """Measure a run that makes tables, against its held-out rows or another table's.

    Raises:
        UserError: no rows were held out, a column or metric does not exist, or scikit-learn is missing.
    """
    inquiry.refuse_pictures("tables")
    began = time.monotonic()
    options, settings, model = inquiry.options, inquiry.settings, inquiry.model
    names = NAMES if options.metrics in (None, "all") else choose_metrics(options.metrics, NAMES)
    require_modality(names, "tables", "tables")
    sklearn()
    data: TableData = settings.data
    real, unseen, key = _reals(model.spec, settings, inquiry.against)
    count = options.count or len(real)
    if inquiry.progress is not None:
        inquiry.progress("rows are made", 0, 1)
    made = Plain.decoded(model.spec, model.sample(count, seed=options.seed).encoded)
    bench = Bench(
        model.spec, real, unseen, made, target_of(model.spec, data.predict), key, options.seed
    )
    figures = []
    for index, name in enumerate(names):
        if inquiry.progress is not None:
            inquiry.progress("figures", index, len(names))
        figures.append(bench.figure(name))
    seconds = time.monotonic() - began
    facts = {"examples": model.examples, "family": settings.family, "run": str(inquiry.run.path)}
    facts = facts_of(facts, options, seconds, model.device)
    real_pairs, _, made_pairs = bench.pairs
    sheets = (
        Sheet(
            name="columns.svg",
            content=columns_svg(model.spec, real, made).encode(),
            caption="columns of real (grey) and synthetic rows (orange)",
        ),
        Sheet(
            name="associations.svg",
            content=associations_svg(model.spec, real_pairs, made_pairs).encode(),
            caption="how much pairs of columns have to do with each other",
        ),
        Sheet(
            name="figures.txt", content=table_of(bench, names).encode(), caption="figures by part"
        ),
    )
    return Evaluation(
        title=f"{len(made):,} synthetic rows",
        against=f"{len(unseen):,} real rows that were not trained on",
        figures=tuple(replace(one, circumstances=facts) for one in figures),
        notes=notes_of(bench, names),
        sheets=sheets,
        run=inquiry.run.path,
        seconds=seconds,
    )


def _reals(spec: TableSpec, settings: Settings, against: str | None) -> tuple[Plain, Plain, str]:
    """Rows that were trained on, rows that were not, and a key of both.

    Raises:
        UserError: there are none, or they do not fit.
    """
    data: TableData = settings.data
    frame = read_frame(settings.source, data.encoding)
    train, held = split_rows(len(frame), data.holdout)
    whole, key = encode_as(spec, frame)
    if against is not None:
        unseen, other = encode_as(spec, read_frame(against, data.encoding))
        return whole.take(train), unseen, f"{key}+{other}"
    if len(held) < 2:
        raise UserError(
            f"No rows of '{settings.source}' were held out, so there is nothing to measure against.",
            "Train with --holdout 0.2, or name a table of other rows: --against others.csv.",
        )
    return whole.take(train), whole.take(held), key


def target_of(spec: TableSpec, asked: str) -> str:
    """The column that is to be told.

    Raises:
        UserError: there is no such column, or it is not learnt.
    """
    if not asked:
        return default_target(spec)
    known = [column.name for column in (*spec.numeric, *spec.discrete)]
    if asked not in known:
        raise UserError(
            f"--predict names '{asked}', which is no column that is learnt.{nearest(asked, known)}",
            f"There are: {', '.join(known[:30])}.",
        )
    return asked


def table_of(bench: Bench, names: Sequence[str]) -> str:
    """Figures by part, as text."""
    out = []
    if {"tstr", "augmented"} & {*names}:
        out.append(f"Telling '{bench.target}' of {len(bench.unseen):,} held-out rows, learnt from")
        for name in bench.sets:
            words = []
            for learner in LEARNERS:
                parts = bench.named(bench.learnt(name, learner)).items()
                words.append(f"{learner}: " + ", ".join(f"{what} {x:.3f}" for what, x in parts))
            out.append(f"  {name:24}{'; '.join(words)}")
    out.append("")
    out.append("Column                          measure  synthetic  held-out")
    for one in bench.shapes:
        out.append(f"  {one.name[:28]:28}  {one.measure:7}  {one.value:9.3f}  {one.unseen:8.3f}")
    near = bench.privacy
    out += [
        "",
        f"Distance to the closest of as many rows (Gower; {near.rows:,} synthetic rows, medians)",
        f"  synthetic to trained     {near.trained:.4f}",
        f"  synthetic to held-out    {near.unseen:.4f}",
        f"  held-out to trained      {near.real:.4f}",
        f"  nearer to trained than to held-out: {near.nearer:.1%} (half: nothing is known by heart)",
        f"  exact copies of trained rows: {near.copies:.2%}; among held-out rows {near.usual:.2%}",
    ]
    return "\n".join(out) + "\n"


def notes_of(bench: Bench, names: Sequence[str]) -> tuple[str, ...]:
    """What the reader should know, as sentences."""
    found = []
    if "nearer" in names and bench.privacy.nearer > 0.55:
        found.append(
            f"{bench.privacy.nearer:.0%} of the synthetic rows are nearer to rows that were trained on "
            "than to others: some are known by heart."
        )
    if "exact-copies" in names and bench.privacy.copies > 2 * bench.privacy.usual + 0.001:
        found.append(
            f"{bench.privacy.copies:.1%} of the synthetic rows are exact copies of training rows; of "
            f"new real rows {bench.privacy.usual:.1%} are."
        )
    return tuple(found)


class TableMeasurer(Measurer):
    """Measures a run of a table while it trains.

    Raises:
        UserError: a metric does not apply, no rows are held out, or scikit-learn is missing.
    """

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: TableMaterial,
        settings: Settings,
        stop_asked: Callable[[], str],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        asked = settings.training.evaluate_metrics
        self._names = ("tstr", "shapes") if asked == "auto" else choose_metrics(asked, NAMES)
        require_modality(self._names, "tables", "tables")
        sklearn()
        train, held = material.split(settings.data.holdout)[0]
        if len(held) < 2:
            raise UserError(
                f"No rows of '{settings.source}' are held out, so nothing can be measured.",
                "Add --holdout 0.2, or leave --evaluate-every out.",
            )
        every = Plain.of(material.spec, material.alphas, material.places)
        self._real, self._unseen = every.take(train), every.take(held)
        self._count = min(len(train), settings.training.evaluate_count)
        self._key = material.key
        self._target = target_of(material.spec, settings.data.predict)
        self._seed = settings.training.seed

    @property
    def names(self) -> Sequence[str]:
        return self._names

    @property
    def count(self) -> int | None:
        return self._count

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        began = time.monotonic()
        device = self._state.device
        parts = []
        for first in range(0, self._count, _AT_ONCE):
            progress("rows", first, self._count)
            some = min(_AT_ONCE, self._count - first)
            draws = RowDraws.counted(self._seed, some, start=first, device=device.name)
            parts.append(family.sample(draws).float().cpu().numpy())
        made = Plain.decoded(family.spec, np.concatenate(parts))
        bench = Bench(
            family.spec, self._real, self._unseen, made, self._target, self._key, self._seed
        )
        found = []
        for index, name in enumerate(self._names):
            progress("figures", index, len(self._names))
            found.append(bench.figure(name))
        facts = {
            "examples": examples,
            "run": str(self._run.path),
            "seed": self._seed,
            "seconds": round(time.monotonic() - began, 1),
            "device": device.describe(),
        }
        return tuple(replace(one, circumstances=facts) for one in found)
