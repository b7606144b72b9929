"""`faussaire doctor RUN`: does it learn, what is wrong, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.markup import escape

from faussaire.cli.console import out, parse, print_json
from faussaire.core.quantity import format_count
from faussaire.core.run import Run
from faussaire.doctor.remedies import advice
from faussaire.doctor.verdicts import MEANINGS, Verdict, diagnose_run
from faussaire.report.history import read_events

ILL = 3
"""The exit code that says that something is wrong."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say whether a run learns, what is wrong with it, and what to do, while it trains or later.

    Exit code 0: nothing is wrong, or it is too early to tell. 3: something is wrong. 2: no such run.

    Attributes:
        run: the run's folder.
        json: print JSON.
    """

    run: Annotated[Path, tyro.conf.Positional]
    json: bool = False


def run(arguments: list[str]) -> int:
    """Read, diagnose, print."""
    options = parse("doctor", Options, arguments)
    patient = Run.find(options.run)
    history, settings = read_events(patient.events), patient.config()
    verdicts = diagnose_run(history.looks, history.outcome)
    code = ILL if verdicts[0].ill else 0
    if options.json:
        print_json(
            {
                "run": str(patient.path),
                "ill": verdicts[0].ill,
                "looks": len(history.looks),
                "verdicts": [
                    {**verdict.record(), "advice": advice(verdict, settings)}
                    for verdict in verdicts
                ],
                "signs": dict(history.looks[-1].signs) if history.looks else {},
            }
        )
        return code
    for verdict in verdicts:
        _print(verdict, settings)
    if not history.looks:
        out.print("The doctor has not looked: the run was begun with --doctor off, or just now.")
    else:
        looks, seen = len(history.looks), format_count(history.looks[-1].examples)
        out.print(
            f"[dim]{looks} looks, the last after {seen} examples; docs/doctor.md explains.[/]"
        )
    return code


def _print(verdict: Verdict, settings: dict[str, Any]) -> None:
    """One verdict with all that belongs to it."""
    colour = "red" if verdict.ill else "yellow" if verdict.name == "warming up" else "green"
    out.print(f"[bold {colour}]{escape(verdict.title)}[/]: {MEANINGS[verdict.name]}.")
    if verdict.evidence:
        since = (
            f"since {format_count(verdict.since)} examples" if verdict.since else "from the start"
        )
        out.print(f"  {since}, confidence {verdict.confidence:.0%}", highlight=False)
        for one in verdict.evidence:
            out.print(f"  - {one}", markup=False)
    for sentence in advice(verdict, settings):
        out.print(f"  > {sentence}", markup=False)
