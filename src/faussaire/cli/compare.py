"""`faussaire compare RUN RUN ...`: settings, figures and samples side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from faussaire.cli.console import out, parse, print_json, print_table, warn
from faussaire.core.errors import UserError

if TYPE_CHECKING:
    from faussaire.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class Options:
    """Put runs side by side: settings that differ, figures, and (with --html) samples.

    Attributes:
        runs: folders of two runs or more.
        html: write a page with samples from the same seed to this file.
        checkpoint: `latest`, `best`, or a number of examples seen, of each run.
        samples: pictures of each run on the page.
        seed: of the samples, the same for each run.
        no_samples: leave samples out of the page, which then takes no time.
        device: where samples are drawn; `auto` takes a GPU where there is one.
        overwrite: replace the page where the file exists.
        json: print JSON.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    html: Path | None = None
    checkpoint: str = "latest"
    samples: int = 16
    seed: int = 0
    no_samples: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Compare, print, and write the page where one is asked for."""
    options = parse("compare", Options, arguments)
    from faussaire.comparison import compare

    if options.html is not None:
        from faussaire.report.comparison import check_target

        check_target(options.html)
        if options.html.exists() and not options.overwrite:
            raise UserError(f"'{options.html}' exists.", "Add --overwrite, or name another file.")
    found = compare(
        options.runs,
        checkpoint=options.checkpoint,
        samples=0 if options.html is None or options.no_samples else options.samples,
        seed=options.seed,
        device=options.device,
    )
    if options.html is not None:
        found.write_html(options.html)
    if options.json:
        print_json(found.record())
        return 0
    show(found)
    if options.html is not None:
        out.print(f"\npage in {options.html}", markup=False)
    return 0


def show(found: Comparison) -> None:
    """Print facts, settings and figures as tables, then what cannot be compared."""
    from faussaire.report.comparison import facts, settings

    differing = settings(found)
    runs = _table("", *found.names)
    for label, values in facts(found.sides):
        runs.add_row(Text(label), *map(Text, values))
    runs.add_row()
    runs.add_row(Text("settings that differ" if differing else "no setting differs", style="bold"))
    for label, values in differing:
        runs.add_row(Text(label), *map(Text, values))
    print_table(runs)
    if found.rows:
        out.print()
        print_table(_figures(found))
        if any(row.close for row in found.rows):
            out.print("(close: less than two standard errors behind the best)", style="dim")
    for one in found.incomparable:
        out.print(one.sentence(), markup=False)
    for note in found.notes:
        warn(note)
    if found.same_latents is False:
        warn(found.on_samples())


def _figures(found: Comparison) -> Table:
    """Figures of one provenance in a row, with the best marked in words."""
    from faussaire.report.comparison import cell
    from faussaire.report.figures import BETTER, format_figure

    table = _table("figure", *found.names, "real", "better")
    for row in found.rows:
        cells: list[RenderableType] = []
        for side in found.sides:
            one = cell(row, side)
            words = " ".join(filter(None, (one.value, one.mark, one.at and f"({one.at})")))
            cells.append(Text(words or "-", style="bold" if one.mark == "best" else ""))
        real = "-" if row.real is None else format_figure(row.real)
        table.add_row(
            Text(row.provenance.name), *cells, Text(real), Text(BETTER[row.metric.better])
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for header in headers:
        table.add_column(Text(header), no_wrap=True)
    return table
