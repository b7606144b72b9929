"""One page that shows runs side by side, complete in itself."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faussaire.core.errors import UserError
from faussaire.core.quantity import format_count, format_duration
from faussaire.report.curves import line_chart
from faussaire.report.figures import (
    BETTER,
    Curve,
    as_series,
    course_of,
    examples_of,
    format_figure,
    format_measured,
    limits_of,
    real_line,
)
from faussaire.report.files import whole
from faussaire.report.page import Picture, date, embed, quoted, template

if TYPE_CHECKING:
    from faussaire.comparison import Comparison, Row, Side

# Bytes and pixels a side of each run's samples, at most.
_GRID = (1_200_000, 1600)


@dataclass(frozen=True)
class Cell:
    """One run's figure in words.

    Attributes:
        value: with its standard error; empty where there is none.
        mark: `best`, or `close` for less than two standard errors behind.
        at: examples seen when it was measured, where that is not the checkpoint compared.
    """

    value: str = ""
    mark: str = ""
    at: str = ""


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the page; returns its path.

    Raises:
        UserError: it cannot be written; nothing is left half-written.
    """
    check_target(path)
    html = render(comparison)
    with whole(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def check_target(path: Path) -> None:
    """Refuse what can be no file, before any time is spent on its content.

    Raises:
        UserError: it is a folder, or lies in something that is none.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder, and no page.", "Name a file, such as compare.html.")
    near = next(folder for folder in path.absolute().parents if folder.exists())
    if not near.is_dir():
        raise UserError(f"'{path}' cannot be written: '{near}' is no folder.", "Name another file.")


def render(comparison: Comparison, now: float | None = None) -> str:
    """The page's text.

    Args:
        comparison: the runs, with their samples where these are wanted.
        now: seconds since 1970, to be named as the date; None: the present.
    """
    sides = comparison.sides
    return template("comparison.html").render(
        names=comparison.names,
        runs=[(side.name, _headline(side), str(side.path)) for side in sides],
        notes=comparison.notes,
        grids=[(side.name, side.examples, _picture(side)) for side in sides if side.grid],
        on_samples=comparison.on_samples(),
        rows=[_row(comparison, row) for row in comparison.rows],
        sentences=[one.sentence() for one in comparison.incomparable],
        any_close=any(row.close for row in comparison.rows),
        curves=_curves(comparison),
        facts=facts(sides),
        settings=settings(comparison),
        commands=_commands(comparison),
        written=date(time.time() if now is None else now),
        version="",
    )


def cell(row: Row, side: Side) -> Cell:
    """A run's figure in words; empty where it has none of this provenance."""
    figure = row.figures.get(side.name)
    if figure is None:
        return Cell()
    mark = "best" if side.name in row.best else "close" if side.name in row.close else ""
    at = examples_of(figure)
    elsewhere = f"at {at:,}" if at is not None else "at an unknown point"
    return Cell(format_measured(figure), mark, "" if side.is_current(figure) else elsewhere)


def facts(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """What each run is, whether it differs or not: a word, and a value for each run."""
    nets = dict.fromkeys(net for side in sides for net in side.parameters)
    return [
        ("state", [side.state for side in sides]),
        ("examples seen", [f"{side.examples:,}" for side in sides]),
        ("training time", [format_duration(side.elapsed) for side in sides]),
        ("data key", [side.data_key[:12] or "-" for side in sides]),
        ("parameters", [_size(sum(side.parameters.values())) for side in sides]),
        *(
            (f"{net} parameters", [_size(side.parameters.get(net, 0)) for side in sides])
            for net in nets
        ),
    ]


def settings(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Settings that differ: key, and a value for each run; `-` where a run has no such setting."""
    return [
        (key, [setting(values[name]) if name in values else "-" for name in comparison.names])
        for key, values in comparison.settings.items()
    ]


def setting(value: Any) -> str:
    """A value as config.yaml has it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(setting, value)) if isinstance(value, list | tuple) else str(value)


def _size(parameters: int) -> str:
    return format_count(parameters) if parameters else "-"


def _headline(side: Side) -> str:
    """`dcgan on digits`: a folder's last part, for the rest of a path says little."""
    source = str(side.settings.get("source") or "").replace("\\", "/").rstrip("/")
    name = source.rsplit("/", 1)[-1] or source
    return str(side.settings.get("family") or "run") + (f" on {name}" if name else "")


def _picture(side: Side) -> Picture:
    """The samples as they stand in the page."""
    buffer = io.BytesIO()
    assert side.grid is not None
    side.grid.save(buffer, format="PNG")
    return embed(buffer.getvalue(), _GRID)


def _row(comparison: Comparison, row: Row) -> dict[str, Any]:
    """A figure's row; the first of a metric also says what it means."""
    first = next(one for one in comparison.rows if one.metric is row.metric) is row
    return {
        "title": row.metric.title,
        "name": row.provenance.name,
        "reading": row.metric.reading if first else "",
        "cells": [(side.name, cell(row, side)) for side in comparison.sides],
        "real": "" if row.real is None else format_figure(row.real),
        "better": BETTER[row.metric.better],
    }


def _curves(comparison: Comparison) -> list[Curve]:
    """A chart for each figure that some run has at two checkpoints or more, a line for each run."""
    curves = []
    for row in comparison.rows:
        courses: Mapping[str, Any] = {
            side.name: course
            for side in comparison.sides
            if (course := course_of(side.figures, row.provenance))
        }
        if not any(len(course) > 1 for course in courses.values()):
            continue
        chart = line_chart(
            [as_series(name, course) for name, course in courses.items()],
            title=row.metric.title,
            description=f"{row.provenance.name} over examples seen, a line for each run.",
            limits=limits_of([one for course in courses.values() for one in course.values()]),
            reference=real_line(next(iter(courses.values()))),
            smooth=False,
        )
        if chart is not None:
            reading = f"{row.provenance.name}; better: {BETTER[row.metric.better]}."
            curves.append(Curve(chart, reading))
    return curves


def _commands(comparison: Comparison) -> list[dict[str, str]]:
    """What to do next, ready to be copied."""
    steps = [
        {"what": f"Measure {side.name}", "command": f"faussaire evaluate {quoted(str(side.path))}"}
        for side in comparison.sides
        if not side.figures
    ]
    words = " ".join(quoted(str(side.path)) for side in comparison.sides)
    again = {"what": "Compare again", "command": f"faussaire compare {words}"}
    return [*steps, again]
