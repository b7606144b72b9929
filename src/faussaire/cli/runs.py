"""`faussaire runs`: what was trained, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.markup import escape
from rich.table import Table

from faussaire.cli.console import out, parse, print_json
from faussaire.core.errors import UserError
from faussaire.core.quantity import format_count, format_duration
from faussaire.core.run import Run
from faussaire.report.history import read_events


@dataclass(frozen=True, kw_only=True)
class Options:
    """List the runs below a folder.

    Attributes:
        folder: where to look.
        json: print JSON.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    json: bool = False


def summary(run: Run) -> dict[str, Any]:
    """The facts of one run that a table shows."""
    config, data = run.config(), run.read("data.json")
    history = read_events(run.events)
    last = history.last or {}
    return {
        "run": str(run.path),
        "family": config.get("family"),
        "source": config.get("source"),
        "resolution": data.get("resolution"),
        "examples": history.examples,
        "total": history.total,
        "elapsed": history.elapsed,
        "per_second": last.get("per_second"),
        "state": history.standing(),
    }


def _summary_or_damage(run: Run) -> dict[str, Any]:
    """One damaged run must not hide the others."""
    try:
        return summary(run)
    except UserError as error:
        blank = dict.fromkeys(("family", "source", "resolution", "per_second"), "?")
        counts = {"examples": 0, "total": 0, "elapsed": 0.0}
        return {"run": str(run.path), **blank, **counts, "state": f"damaged: {error.cause}"}


def run(arguments: list[str]) -> int:
    """Print the table, the most recent run last."""
    options = parse("runs", Options, arguments)
    paths = sorted(options.folder.glob("**/config.yaml"), key=lambda path: path.stat().st_mtime)
    found = [_summary_or_damage(Run(path.parent)) for path in paths]
    if options.json:
        print_json(found)
        return 0
    if not found:
        out.print(
            f"No runs below '{options.folder}'. `faussaire train FAMILY SOURCE` begins one.",
            markup=False,
        )
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "family", "source", "size", "seen", "time", "state"):
        table.add_column(column)
    for row in found:
        seen = f"{format_count(row['examples'])} of {format_count(row['total'] or 0)}"
        cells = (
            row["run"],
            row["family"],
            row["source"],
            row["resolution"],
            seen,
            format_duration(row["elapsed"]),
            row["state"],
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    out.print(table)
    return 0
