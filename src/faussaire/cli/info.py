"""`faussaire info RUN`: everything about one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from faussaire.cli.console import out, parse, print_json
from faussaire.cli.runs import summary
from faussaire.core.quantity import format_count, format_duration
from faussaire.core.run import Run
from faussaire.report.history import read_events


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show a run's settings, data, progress and checkpoints.

    Attributes:
        run: the run's folder.
        json: print JSON.
    """

    run: Annotated[Path, tyro.conf.Positional]
    json: bool = False


def run(arguments: list[str]) -> int:
    """Print what the folder says."""
    options = parse("info", Options, arguments)
    found = Run.find(options.run)
    history = read_events(found.events)
    saved = found.saved()
    facts = {
        **summary(found),
        "last": history.last,
        "notes": list(dict.fromkeys(note.message for note in history.notes)),
        "checkpoints": saved,
        "settings": found.config(),
        "data": found.read("data.json"),
        "environment": found.read("env.json"),
    }
    if options.json:
        print_json(facts)
        return 0
    lines = {
        "run": found.path,
        "family": facts["family"],
        "data": f"{facts['source']} ({facts['data'].get('count')} pictures as {facts['resolution']})",
        "state": f"{facts['state']}, {format_count(facts['examples'])} of "
        f"{format_count(facts['total'] or 0)} examples in {format_duration(facts['elapsed'])}",
        "checkpoints": ", ".join(f"{number:,}" for number in saved) or "none yet",
    }
    for name, value in lines.items():
        out.print(f"{name:<12} {value}", markup=False)
    last = history.last or {}
    for group in ("signs", "losses"):
        for name, value in last.get(group, {}).items():
            out.print(f"{name:<28} {value:.4g}", markup=False)
    for note in facts["notes"]:
        out.print(f"note: {note}", markup=False)
    changed = {key: value for key, value in facts["settings"].items() if value is not None}
    out.print("settings     " + ", ".join(f"{k} {v}" for k, v in changed.items()), markup=False)
    return 0
