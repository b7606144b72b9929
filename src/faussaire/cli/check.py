"""`faussaire check SOURCE`: look at data before training. It never changes them."""

from __future__ import annotations

import shlex
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
from faussaire.kinds import for_pictures, kind_of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Count, measure and open every picture of a source; list what is wrong, by name.

    Tables, texts, MIDI files and recordings are read as they would be to train on them.

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

    def of_pictures(self) -> list[str]:
        """Flags given that only pictures understand."""
        usual = Options(source=self.source)
        names = ("resolution", "fit", "classes", "labels")
        return [f"--{name}" for name in names if getattr(self, name) != getattr(usual, name)]


def run(arguments: list[str]) -> int:
    """Check; exit code 1 where nothing can be trained on."""
    options = parse("check", Options, arguments)
    kind = kind_of(options.source)
    if kind != "pictures":
        return _others(options, kind)
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


def _others(options: Options, kind: str) -> int:
    """Data that are not pictures, as the family that would be advised reads them."""
    from faussaire.advice import OTHERS
    from faussaire.core.config import resolve
    from faussaire.families import load_family
    from faussaire.modality import load_modality
    from faussaire.training import layers

    for_pictures(options.source, kind, options.of_pictures())
    name = OTHERS[kind].family
    family = load_family(name)
    settings = resolve(name, options.source, family.Config, *layers(name, {}))
    reading = Reading()
    material = load_modality(family).read(settings, family, progress=reading)
    reading.close()
    if options.json:
        told = {"kind": kind, **material.facts()}
        print_json({**told, "notes": [*material.notes], "warnings": [*material.warnings]})
        return 0
    out.print(f"{options.source}: {material.told()}", markup=False)
    for note in material.notes:
        out.print(note, markup=False)
    for warning in material.warnings:
        out.print(f"warning: {warning}", style="yellow", markup=False)
    out.print(f"`faussaire advise {shlex.quote(options.source)}` says what to train on it.")
    return 0
