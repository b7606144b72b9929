"""Runs side by side: what was set differently, what was measured, and what they make.

Figures stand in one row, and are ranked, only where all that they depend on is equal; where it is
not, a sentence says what differs. No torch here until samples are asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faussaire.core.errors import UserError
from faussaire.core.figures import (
    METRICS,
    Figure,
    Metric,
    Provenance,
    differences,
    explain_differences,
    read_figures,
)
from faussaire.core.run import Run
from faussaire.report.figures import can_rank, examples_of
from faussaire.report.history import read_events

if TYPE_CHECKING:
    from PIL import Image

    from faussaire.core.device import DeviceName


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the runs compared.

    Attributes:
        name: the shortest end of its path that tells it from the others.
        path: its folder.
        state: `complete`, `interrupted`, `diverged`, `running`, `stopped`, or `waiting` where
            training has not begun.
        checkpoint: the checkpoint compared, as examples seen; None where none was saved yet.
        examples, elapsed: examples seen and seconds of training: at the checkpoint compared, or so
            far where there is none.
        parameters: of each network.
        data_key: content key of the pictures; empty where it is not on record.
        settings: as in config.yaml.
        figures: every measurement, oldest first.
        grid: samples, where they were asked for and there is a checkpoint.
    """

    name: str
    path: Path
    state: str
    checkpoint: int | None
    examples: int
    elapsed: float
    parameters: Mapping[str, int]
    data_key: str
    settings: Mapping[str, Any]
    figures: tuple[Figure, ...]
    grid: Image.Image | None = None

    def measured(self) -> dict[Provenance, Figure]:
        """Each figure once: as measured at the checkpoint compared, or else the newest."""
        found: dict[Provenance, Figure] = {}
        for figure in self.figures:
            before = found.get(figure.provenance)
            if before is None or self.is_current(figure) or not self.is_current(before):
                found[figure.provenance] = figure
        return found

    def is_current(self, figure: Figure) -> bool:
        """Whether a figure was measured at the checkpoint compared."""
        return self.checkpoint is not None and examples_of(figure) == self.checkpoint

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "path": str(self.path),
            "state": self.state,
            "checkpoint": self.checkpoint,
            "examples": self.examples,
            "elapsed": round(self.elapsed, 3),
            "parameters": dict(self.parameters),
            "data_key": self.data_key,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure at one run or more, all of equal provenance.

    Attributes:
        provenance: what the figure means.
        figures: by name of the run; runs without this figure are missing.
    """

    provenance: Provenance
    figures: Mapping[str, Figure]

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return METRICS[self.provenance.metric]

    @property
    def real(self) -> float | None:
        """The same for real pictures, where any run has it."""
        known = (figure.real for figure in self.figures.values())
        return next((value for value in known if value is not None), None)

    @property
    def best(self) -> tuple[str, ...]:
        """Names of the best runs; empty where there is no choice, or no telling what is better."""
        if not all(map(can_rank, self.figures.values())):
            return ()
        distances = {name: figure.distance() for name, figure in self.figures.items()}
        least = min(distances.values())
        names = tuple(name for name, distance in distances.items() if distance == least)
        return names if len(names) < len(distances) else ()

    @property
    def close(self) -> tuple[str, ...]:
        """Runs behind the best by less than two standard errors of the difference.

        Where a figure has no error of its own, nothing can be said of it.
        """
        if not self.best:
            return ()
        first = self.figures[self.best[0]]
        return tuple(
            name
            for name, figure in self.figures.items()
            if name not in self.best and _within_errors(first, figure)
        )

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.provenance.name,
            "metric": self.provenance.metric,
            "better": self.metric.better,
            "real": self.real,
            "best": list(self.best),
            "close_to_best": list(self.close),
            "values": {name: figure.record() for name, figure in self.figures.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Incomparable:
    """Figures of the same metrics that do not mean the same.

    Attributes:
        metrics: their names.
        left, right: names of the runs on either side.
        differences: what differs, with the values of the left and the right.
        explanation: the same in words.
    """

    metrics: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    differences: Mapping[str, tuple[Any, Any]]
    explanation: str

    def sentence(self) -> str:
        """`fid: a and b are not comparable: the extractor is squeezenet1.1 and pixels.`"""
        if len(self.left) == len(self.right) == 1:
            who = f"{self.left[0]} and {self.right[0]} are not comparable"
        else:
            verb = "is" if len(self.left) == 1 else "are"
            who = f"{listed(self.left)} {verb} not comparable with {listed(self.right)}"
        return f"{', '.join(self.metrics)}: {who}: {self.explanation}."

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "metrics": list(self.metrics),
            "left": list(self.left),
            "right": list(self.right),
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "sentence": self.sentence(),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs or more, side by side.

    Attributes:
        sides: the runs, in the order given.
        settings: those that differ: values by setting and name of the run; a run that has no such
            setting is missing.
        rows: figures, by metric in the order in which metrics are listed.
        incomparable: pairs of runs whose figures do not mean the same.
        notes: what the reader should know, as sentences.
        seed: of the samples.
        same_latents: whether equal seeds gave equal latent vectors; None without samples.
    """

    sides: tuple[Side, ...]
    settings: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    incomparable: tuple[Incomparable, ...]
    notes: tuple[str, ...] = ()
    seed: int = 0
    same_latents: bool | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(side.name for side in self.sides))

    def on_samples(self) -> str:
        """What the same place in two grids has in common."""
        if self.same_latents is None:
            return f"Samples of seed {self.seed}."
        if self.same_latents:
            return (
                f"The same place in each grid began with the same latent vector, of seed "
                f"{self.seed}; runs that began with other weights still make another picture of it."
            )
        return (
            f"Equal seeds (here {self.seed}) are not equal latent vectors where families or latent "
            "spaces differ, as they do here: the same place in two grids means nothing."
        )

    def record(self) -> dict[str, Any]:
        """As JSON has it: everything but the pictures."""
        return {
            "runs": [side.record() for side in self.sides],
            "settings": {key: dict(values) for key, values in self.settings.items()},
            "figures": [row.record() for row in self.rows],
            "incomparable": [one.record() for one in self.incomparable],
            "notes": list(self.notes),
        }

    def write_html(self, path: str | Path) -> Path:
        """Write one page that is complete in itself, over one that is there; returns its path.

        Raises:
            UserError: it cannot be written; nothing is left half-written.
        """
        from faussaire.report.comparison import write_page

        return write_page(self, Path(path))


def compare(
    paths: Iterable[str | Path],
    *,
    checkpoint: str = "latest",
    samples: int = 0,
    seed: int = 0,
    device: DeviceName = "auto",
) -> Comparison:
    """Put runs side by side.

    Args:
        paths: folders of two runs or more.
        checkpoint: `latest`, a mark such as `best`, or a number of examples seen, of each run.
        samples: how many pictures each run makes for `write_html`; 0 draws none and imports no
            torch.
        seed: of the samples, the same for each run.
        device: where samples are drawn.

    Raises:
        UserError: fewer than two runs, no run, one run twice, or no such checkpoint.
    """
    folders = _distinct([Path(path) for path in paths])
    if samples < 0:
        raise UserError(f"{samples} samples cannot be drawn.", "Give 0 to draw none.")
    sides = tuple(
        _side(Run(path), name, str(checkpoint))
        for path, name in zip(folders, _names(folders), strict=True)
    )
    rows = _rows(sides)
    notes = [*_notes_on_data(sides), *_notes_on_figures(sides)]
    same_latents = None
    if samples:
        sides, same_latents, told = _with_samples(sides, samples, seed, device)
        notes += told
    return Comparison(
        sides=sides,
        settings=_settings_that_differ(sides),
        rows=rows,
        incomparable=_incomparable(sides, rows),
        notes=tuple(notes),
        seed=seed,
        same_latents=same_latents,
    )


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# ---- Reading runs ----


def _distinct(paths: list[Path]) -> list[Path]:
    """The same paths, if they are two runs or more and none comes twice."""
    if len(paths) < 2:
        given = f"'{paths[0]}' alone" if paths else "no run at all"
        raise UserError(
            f"A comparison needs two runs or more, and was given {given}.",
            "Such as `faussaire compare runs/one runs/other`; `faussaire runs` lists them.",
        )
    seen: dict[Path, Path] = {}
    for path in paths:
        Run.find(path)
        before = seen.setdefault(path.resolve(), path)
        if before is not path:
            also = "" if str(before) == str(path) else f", also as '{before}'"
            raise UserError(f"The run '{path}' was given twice{also}.", "Name each run once.")
    return paths


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    length = 1
    while len({one[-length:] for one in parts}) < len(parts):
        length += 1
    return [Path(*one[-length:]).as_posix() for one in parts]


def _side(run: Run, name: str, which: str) -> Side:
    """What the folder of one run says."""
    history = read_events(run.events)
    checkpoint = _checkpoint(run, which)
    examples, elapsed = history.examples, history.elapsed
    if checkpoint is not None:
        examples, elapsed = checkpoint, _elapsed(run, checkpoint, elapsed)
    try:
        figures = read_figures(run.path / "metrics.jsonl")
    except OSError as error:
        raise UserError(
            f"'{run.path / 'metrics.jsonl'}' cannot be read: {error.strerror or error}.",
            "Check that it is a file and that you may read it.",
        ) from error
    return Side(
        name=name,
        path=run.path,
        state=history.standing() if history.written else "waiting",
        checkpoint=checkpoint,
        examples=examples,
        elapsed=elapsed,
        parameters=history.parameters,
        data_key=str(run.read("data.json").get("key") or ""),
        settings=run.config(),
        figures=tuple(figures),
    )


def _checkpoint(run: Run, which: str) -> int | None:
    """Examples seen at a checkpoint by name; None where there is no latest one yet.

    `Checkpoints.find` says the same, but must import torch.
    """
    saved = run.saved()
    if which == "latest":
        return saved[-1] if saved else None
    marks = _marks(run)
    name = marks.get(which, which)
    if name.isdecimal() and int(name) in saved:
        return int(name)
    known = ", ".join([*map(str, saved), *sorted(marks)])
    raise UserError(
        f"'{run.path}' has no checkpoint '{which}'.",
        f"It has: latest, {known}." if known else "It has none yet: train it for longer.",
    )


def _marks(run: Run) -> dict[str, str]:
    """Folder names of marked checkpoints by mark."""
    path = run.checkpoints / "marks.json"
    try:
        return {str(mark): str(name) for mark, name in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"'{path}' is damaged ({error}).", "Delete it: only marks are lost."
        ) from error


def _elapsed(run: Run, checkpoint: int, otherwise: float) -> float:
    """Seconds of training up to a checkpoint."""
    path = run.checkpoints / f"{checkpoint:012d}" / "state.json"
    try:
        return float(json.loads(path.read_text("utf-8"))["elapsed"])
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise  # samples need an intact checkpoint; settings and figures do not


def _settings_that_differ(sides: Sequence[Side]) -> dict[str, dict[str, Any]]:
    """Values by setting and run, of those settings that are not the same everywhere."""
    keys = dict.fromkeys(key for side in sides for key in side.settings)
    found = {}
    for key in keys:
        values = {side.name: side.settings[key] for side in sides if key in side.settings}
        first = next(iter(values.values()))
        if len(values) < len(sides) or any(value != first for value in values.values()):
            found[key] = values
    return found


# ---- Figures ----


def _rows(sides: Sequence[Side]) -> tuple[Row, ...]:
    """One row for each provenance, by metric."""
    measured = {side.name: side.measured() for side in sides}
    provenances = dict.fromkeys(one for found in measured.values() for one in found)
    order = list(METRICS)
    return tuple(
        Row(
            provenance=provenance,
            figures={
                name: found[provenance] for name, found in measured.items() if provenance in found
            },
        )
        for provenance in sorted(provenances, key=lambda one: order.index(one.metric))
    )


def _within_errors(one: Figure, other: Figure) -> bool:
    if one.error is None or other.error is None or one.provenance.metric == "is":
        return False  # the Inception Score's is a deviation over splits, and no standard error
    gap = abs(one.distance() - other.distance())
    return gap < 2.0 * (one.error**2 + other.error**2) ** 0.5


def _incomparable(sides: Sequence[Side], rows: Sequence[Row]) -> tuple[Incomparable, ...]:
    """Pairs of runs that share a metric but no row of it, joined where the reason is the same."""
    # Reason -> metric -> pair of runs. A metric's pairs with one reason make one statement, and so
    # do metrics whose pairs are the same.
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    facts: dict[str, dict[str, tuple[Any, Any]]] = {}
    for metric in dict.fromkeys(row.provenance.metric for row in rows):
        mine = [row for row in rows if row.provenance.metric == metric]
        for index, left in enumerate(sides):
            for right in sides[index + 1 :]:
                nearest = _nearest_rows(mine, left.name, right.name)
                if nearest is None:
                    continue
                names, pair = nearest
                reason = explain_differences(*pair)
                facts[reason] = differences(*pair)
                found.setdefault(reason, {}).setdefault(metric, []).append(names)
    statements = []
    for reason, by_metric in found.items():
        joined: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for metric, pairs in by_metric.items():
            joined.setdefault(tuple(pairs), []).append(metric)
        for pairs, metrics in joined.items():
            statements.append(
                Incomparable(
                    metrics=tuple(metrics),
                    left=tuple(dict.fromkeys(left for left, _ in pairs)),
                    right=tuple(dict.fromkeys(right for _, right in pairs)),
                    differences=facts[reason],
                    explanation=reason,
                )
            )
    return tuple(statements)


def _nearest_rows(
    rows: Sequence[Row], one: str, other: str
) -> tuple[tuple[str, str], tuple[Provenance, Provenance]] | None:
    """Of two runs' figures of one metric, those that differ least, and the runs in their order.

    None where the runs share a row, or one of them has no figure of this metric.
    """
    if any({one, other} <= row.figures.keys() for row in rows):
        return None
    # Upper row first, whichever run came first: so that equal reasons read alike.
    found = [
        ((first, second), (upper.provenance, _by_extractor(upper.provenance, lower.provenance)))
        for upper, lower in itertools.combinations(rows, 2)
        for first, second in ((one, other), (other, one))
        if first in upper.figures and second in lower.figures
    ]
    return min(found, key=lambda names_and_pair: len(differences(*names_and_pair[1])), default=None)


def _by_extractor(one: Provenance, other: Provenance) -> Provenance:
    """`other` without other weights, where these only come with another extractor."""
    if one.extractor == other.extractor:
        return other
    return dataclasses.replace(other, weights=one.weights)


# ---- Samples ----


def _with_samples(
    sides: Sequence[Side], count: int, seed: int, device: DeviceName
) -> tuple[tuple[Side, ...], bool | None, list[str]]:
    """The sides with grids from one seed, whether latent vectors were the same, and notes.

    Raises:
        UserError: no run that has a checkpoint can make samples.
    """
    import torch

    from faussaire.core.batch import RowDraws
    from faussaire.model import load_pictures
    from faussaire.report.pictures import grid, to_uint8

    drawn: list[Side] = []
    spaces: list[tuple[str, torch.Tensor | None]] = []
    notes: list[str] = []
    failures: list[UserError] = []
    columns = 0
    for side in sides:
        if side.checkpoint is None:
            notes.append(f"{side.name} has no checkpoint yet, so it makes no samples.")
            drawn.append(side)
            continue
        try:
            model = load_pictures(side.path, checkpoint=str(side.checkpoint), device=device)
            pictures = to_uint8(model.sample(count, seed=seed) * 2.0 - 1.0)
        except UserError as error:  # one damaged run must not hide the others
            failures.append(error)
            why = error.cause.splitlines()[0].rstrip(":. ")
            notes.append(f"{side.name} makes no samples: {why}.")
            drawn.append(side)
            continue
        # Places can be compared only where all grids have the same shape.
        columns = columns or _columns(count, *pictures.shape[1:3])
        drawn.append(dataclasses.replace(side, grid=grid(pictures, columns=columns)))
        latents = model.family.latents(RowDraws.counted(seed, 1))
        spaces.append((type(model.family).__name__, latents))
    if failures and not spaces:
        raise failures[0]
    if len(spaces) < 2:
        return tuple(drawn), None, notes
    return tuple(drawn), all(_same_space(spaces[0], other) for other in spaces[1:]), notes


def _columns(count: int, height: int, width: int) -> int:
    """Columns that make a grid about square."""
    return max(1, round((count * height / width) ** 0.5))


def _same_space(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Whether a seed means the same to two families."""
    (family, latents), (other_family, others) = one, other
    if family != other_family or latents is None or others is None:
        return False
    return latents.shape == others.shape and bool((latents == others).all())


# ---- Notes ----


def _notes_on_data(sides: Sequence[Side]) -> list[str]:
    keys = {side.name: side.data_key for side in sides if side.data_key}
    if len(set(keys.values())) < 2:
        return []
    groups = [
        [name for name, own in keys.items() if own == key] for key in dict.fromkeys(keys.values())
    ]
    which = "; ".join(listed(group) for group in groups)
    return [f"These runs were not trained on the same pictures: {which}."]


def _notes_on_figures(sides: Sequence[Side]) -> list[str]:
    return [
        f"{side.name} has no figures yet: `faussaire evaluate {shlex.quote(str(side.path))}` "
        "measures it."
        for side in sides
        if not side.figures
    ]
