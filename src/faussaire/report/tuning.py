"""One page that shows a search for settings, complete in itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from faussaire.core.quantity import format_duration, format_plain
from faussaire.report.curves import Chart
from faussaire.report.figures import BETTER, Curve, format_figure
from faussaire.report.files import whole
from faussaire.report.page import Picture, date, embed, quoted, template
from faussaire.report.scatter import Axis, Dot, scatter_chart

if TYPE_CHECKING:
    from faussaire.tuning.plan import Found, Row
    from faussaire.tuning.space import Dimension

# Bytes and pixels a side of each grid of samples, at most.
_GRID = (600_000, 1200)


@dataclass(frozen=True)
class Line:
    """One trial in a table.

    Attributes:
        rank: `1`, `2` ...; empty for what is not complete.
        name: `0003`, as its folder is called.
        value: the figure; in brackets where the trial did not come to its end.
        values: of what is searched, in the order of the space.
        end: how it ended, in words.
        seen: examples.
        best, start: whether it is the best, or the settings as they are without a search.
    """

    rank: str
    name: str
    value: str
    values: list[str]
    end: str
    seen: str
    best: bool
    start: bool


def table(found: Found) -> list[Line]:
    """The trials by rank, in words: for the console and the page."""
    lines = []
    for index, row in enumerate(found.rows):
        complete = row.state == "complete"
        value = "" if row.value is None else format_figure(row.value)
        end = row.state if complete or not row.reason else f"{row.state}: {row.reason}"
        if row.start:
            end = f"{end} (without a search)"
        lines.append(
            Line(
                rank=str(index + 1) if complete else "",
                name=row.name,
                value=value if complete or not value else f"({value})",
                values=[
                    format_plain(row.point[one.name]) if one.name in row.point else ""
                    for one in found.plan.space.dimensions
                ],
                end=end,
                seen=f"{row.examples:,}" if row.examples else "",
                best=row is found.best,
                start=row.start,
            )
        )
    return lines


def budget(found: Found) -> str:
    """What each trial gets, in words."""
    training = found.plan.settings.training
    if training.examples is not None:
        return f"{training.examples:,} examples"
    return format_duration(training.duration or 0.0)


def write_page(found: Found, path: Path) -> Path:
    """Write the page; returns its path.

    Raises:
        UserError: it cannot be written; nothing is left half-written.
    """
    html = render(found)
    with whole(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render(found: Found, now: float | None = None) -> str:
    """The page's text.

    Args:
        found: the search so far.
        now: seconds since 1970, to be named as the date; None: the present.
    """
    plan, rows = found.plan, found.rows
    ended = [row for row in rows if row.state not in ("running", "waiting")]
    settings = plan.settings
    source = settings.source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    facts = [
        ("trials", f"{len(ended)} of {plan.trials}"),
        ("complete", str(sum(row.state == "complete" for row in rows))),
        ("pruned", str(sum(row.state == "pruned" for row in rows))),
        ("of training each, at most", budget(found)),
        ("of training in all", format_duration(sum(row.seconds for row in rows))),
    ]
    pictures = [
        (words, row, picture)
        for words, row in (("The best trial", found.best), ("Without a search", found.start))
        if row is not None and (picture := _samples(Path(row.run))) is not None
    ]
    if found.best is found.start:
        pictures = pictures[:1]
    return template("tuning.html").render(
        family=settings.family,
        source=source,
        name=found.study,
        facts=facts,
        notes=found.notes,
        figure=found.figure,
        metric=plan.metric,
        better=BETTER[plan.metric.better],
        verdict=verdict(found),
        course=_course(found),
        pictures=pictures,
        scatters=[
            Curve(chart, _searched(one))
            for one in plan.space.dimensions
            if (chart := _scatter(found, one)) is not None
        ],
        importances=_importances(found),
        columns=[one.name for one in plan.space.dimensions],
        lines=table(found),
        commands=_commands(found),
        written=date(time.time() if now is None else now),
        version="",
    )


def verdict(found: Found) -> str:
    """The result in a sentence, for the console, too."""
    best, start = found.best, found.start
    if best is None or best.value is None:
        return "No trial is complete yet."
    name = found.plan.metric.name
    words = f"Best: {name} {format_figure(best.value)} in trial {best.name}"
    if start is None or start.value is None or start.state != "complete":
        return f"{words}."
    if start is best:
        return f"{words}, the settings as they are without a search: nothing better was found."
    rank = found.rows.index(start) + 1
    return f"{words}; without a search: {format_figure(start.value)}, rank {rank}."


def _searched(dimension: Dimension) -> str:
    """Where a dimension was searched, in words."""
    if dimension.choices:
        return f"Searched among {', '.join(map(format_plain, dimension.choices))}."
    how = ", every factor equally" if dimension.log else ""
    low, _, high = dimension.text().partition("..")
    return f"Searched from {low} to {high}{how}."


def _told(row: Row) -> str:
    """A trial's facts for who points at its dot."""
    value = "" if row.value is None else f" {format_figure(row.value)}"
    settings = ", ".join(f"{name} {format_plain(value)}" for name, value in row.point.items())
    return f"{row.name} {row.state}{value}: {settings}"


def _drawn(rows: Sequence[Row]) -> list[Row]:
    """Trials that have a value, the incomplete first, so that complete ones lie on top."""
    some = [row for row in rows if row.value is not None and row.state in ("complete", "pruned")]
    return sorted(some, key=lambda row: (row.state == "complete", row.start))


def _dot(row: Row, x: float) -> Dot:
    assert row.value is not None
    colour = 2 if row.start else 0
    return Dot(x, row.value, _told(row), colour, hollow=row.state != "complete")


def _course(found: Found) -> Chart | None:
    """Each trial's figure as they came, and the best so far."""
    rows = _drawn(found.rows)
    if not rows:
        return None
    plan = found.plan
    complete = sorted((row for row in rows if row.state == "complete"), key=lambda row: row.number)
    ranked = accumulate(
        complete, lambda one, two: min(one, two, key=lambda row: plan.loss(row.objective))
    )
    best = [(float(at.number), row.value) for at, row in zip(complete, ranked, strict=True)]
    last = float(max(row.number for row in rows))
    if best:
        best.append((last, best[-1][1]))
    return scatter_chart(
        [_dot(row, row.number) for row in rows],
        title=plan.metric.title,
        description=f"{found.figure} of each trial, as they came; the line is the best so far.",
        x=Axis(0.0, max(1.0, last)),
        y=Axis.around([row.value for row in rows if row.value is not None]),
        steps=[(at, value) for at, value in best if value is not None],
    )


def _scatter(found: Found, dimension: Dimension) -> Chart | None:
    """The figure against one thing that was searched."""
    rows = [row for row in _drawn(found.rows) if dimension.name in row.point]
    x, at = Axis(dimension.low, dimension.high, log=dimension.log), float
    if dimension.choices:
        x, at = Axis(words=tuple(map(format_plain, dimension.choices))), dimension.choices.index
    # After --allow-changes, trials may lie outside of what is searched now.
    rows = [row for row in rows if dimension.holds(row.point[dimension.name])]
    if not rows:
        return None
    return scatter_chart(
        [_dot(row, at(row.point[dimension.name])) for row in rows],
        title=dimension.name,
        description=f"{found.plan.metric.title} of each trial against {dimension.name}.",
        x=x,
        y=Axis.around([row.value for row in rows if row.value is not None]),
    )


def _importances(found: Found) -> list[dict[str, str]]:
    """Bars, the longest first."""
    shares = sorted(found.importances.items(), key=lambda item: -item[1])
    most = max((share for _, share in shares), default=0.0) or 1.0
    return [
        {"name": name, "width": f"{100 * share / most:.1f}", "share": f"{share:.0%}"}
        for name, share in shares
    ]


def _samples(run: Path) -> Picture | None:
    """The newest samples of a trial, where its run lies on this machine."""
    newest = sorted(path for path in run.glob("samples/*.png") if path.stem.isdecimal())
    if not newest:
        return None
    try:
        return embed(newest[-1].read_bytes(), _GRID)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # a disk that filled up


def _commands(found: Found) -> list[dict[str, str]]:
    """What to do next, ready to be copied."""
    plan, best, start = found.plan, found.best, found.start
    if best is None:
        return []
    words = f"faussaire train {plan.settings.family} {quoted(plan.settings.source)}"
    config = quoted(str(plan.out / "best.yaml"))
    steps = [
        {"what": "Train with the best settings", "command": f"{words} --config {config} --for 1h"},
        {
            "what": "See whether another seed agrees",
            "command": f"{words} --config {config} {_each(found)} --seed 1",
        },
    ]
    if start is not None and start is not best and best.run and start.run:
        pair = f"{quoted(best.run)} {quoted(start.run)}"
        steps.append(
            {"what": "Compare", "command": f"faussaire compare {pair} --html compare.html"}
        )
    return steps


def _each(found: Found) -> str:
    """A trial's budget as a flag."""
    training = found.plan.settings.training
    if training.duration is not None:
        return f"--for {training.duration:g}s"
    return f"--examples {training.examples}"
