"""`faussaire report RUN`: write the page anew, from what the folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from faussaire.cli.console import out, parse
from faussaire.core.run import Run


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write `report.html` anew.

    Attributes:
        run: the run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]


def run(arguments: list[str]) -> int:
    """Write it."""
    options = parse("report", Options, arguments)
    from faussaire.report.page import write_report

    out.print(f"report in {write_report(Run.find(options.run).path)}", markup=False)
    return 0
