"""`faussaire families [NAME]`: what can be trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import tyro

from faussaire import families
from faussaire.cli.console import out, parse, print_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """List the families, or show one: its paper, its equations and its settings.

    Attributes:
        name: a family.
        json: print JSON.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    json: bool = False


def run(arguments: list[str]) -> int:
    """Print one or all, without importing torch."""
    options = parse("families", Options, arguments)
    names = families.names() if options.name is None else [options.name]
    entries = [families.describe(name) for name in names]
    if options.json:
        print_json([dataclasses.asdict(entry) for entry in entries])
    elif options.name is None:
        summaries = {entry.name: entry.summary for entry in entries}
        for number, (heading, group) in enumerate(families.groups().items()):
            out.print(f"{chr(10) if number else ''}{heading}")
            for name in group:
                out.print(f"  {name:<10} {summaries[name]}", markup=False)
    else:
        out.print(entries[0].text, markup=False)
        settings = ", ".join(f"--{field.replace('_', '-')}" for field in entries[0].fields)
        out.print(f"\nSettings: {settings}", markup=False)
        out.print(f"`faussaire train {options.name} --help` explains them.", markup=False)
    return 0
