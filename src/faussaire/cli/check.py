"""`faussaire check SOURCE`: look at data before training. It never changes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from faussaire.cli.console import Reading, out, parse, print_json
from faussaire.core.config import Resolution
from faussaire.data.check import check
from faussaire.data.fit import Fit
from faussaire.data.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Options:
    """Count, measure and open every picture of a source; list what is wrong, by name.

    Attributes:
        source: a folder, archive, array, table, hf:owner/name or `digits`.
        resolution: what you mean to train at; smaller pictures are warned of.
        fit: how they would get that size: `crop`, `pad`, `squash` or `tiles`.
        classes: `auto`, `folders`, `none` or a column's name.
        labels: a CSV file with the columns file and label.
        json: print JSON.
    """

    source: Annotated[str, tyro.conf.Positional]
    resolution: Resolution | None = None
    fit: Fit = "crop"
    classes: str = "auto"
    labels: Path | None = None
    json: bool = False


def run(arguments: list[str]) -> int:
    """Check; exit code 1 where nothing can be trained on."""
    options = parse("check", Options, arguments)
    reading = Reading()
    with open_source(options.source, classes=options.classes, labels=options.labels) as source:
        report = check(source, options.resolution, fit=options.fit, progress=reading)
    reading.close()
    if options.json:
        print_json(report.to_dict())
    else:
        for line in report.lines():
            style = "yellow" if line.startswith("warning:") else None
            out.print(escape(line), style=style)
    return 0 if report.ok else 1
