"""`faussaire sample RUN` of what makes rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import out, parse
from faussaire.core.errors import UserError
from faussaire.core.files import require_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make rows with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        count: how many rows.
        seed: names an endless sequence of rows; the same seed gives the same ones.
        where: what rows must fulfil, such as "income=>50K" or "sex=Female, age<30": column, one of
            =, !=, <, <=, >, >=, and a value; all of them where there are several.
        out: a CSV or .parquet file to write them to; none: they are printed.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace a file of the same name.
    """

    run: Annotated[Path, tyro.conf.Positional]
    count: int = 1000
    seed: int = 0
    where: str | None = None
    out: Path | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Sample, and print or write."""
    options = parse("sample", Options, arguments)
    if options.count < 1:
        raise UserError(f"--count {options.count} makes no row.", "Ask for at least one.")
    target = options.out
    if target is not None and target.exists() and not options.overwrite:
        raise UserError(f"'{target}' exists.", "Add --overwrite, or name another file.")

    from faussaire.model import load

    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    rows = model.sample(options.count, seed=options.seed, where=options.where)
    if target is None:
        # Plain print: what stands in a pipe must be the table and nothing else.
        print(rows.text(), end="")
        return 0
    require_folder(target.parent)
    rows.write(target)
    out.print(f"{len(rows):,} rows in {target}", markup=False)
    return 0
