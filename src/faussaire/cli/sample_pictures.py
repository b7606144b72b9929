"""`faussaire sample RUN` of what makes pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import out, parse
from faussaire.core.errors import UserError
from faussaire.core.quantity import parse_seeds


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make pictures with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        count: how many pictures.
        seed: names an endless sequence of pictures; the same seed gives the same ones.
        seeds: pictures of these seeds in place of count and seed, such as 0-31 or 3,7,100-103: the
            first of each seed's sequence.
        grid: write all as one picture to this PNG file.
        out: write each to its own PNG file in this folder.
        label: only this class, by name (class-conditional runs).
        truncation: less variety for more typical pictures: 0.7, say. For stylegan2 the share of the
            way from the mean picture; for the others the bound of the latent numbers.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace files of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    count: int = 64
    seed: int = 0
    seeds: str | None = None
    grid: Path | None = None
    out: Path | None = None
    label: Annotated[str | None, tyro.conf.arg(name="class")] = None
    truncation: float | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Sample, and write what was asked for."""
    options = parse("sample", Options, arguments)
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    if options.count < 1:
        raise UserError(f"--count {options.count} makes no picture.", "Ask for at least one.")
    target = options.grid
    if target is None and options.out is None:
        target = Path("samples.png")

    from faussaire.model import load_pictures
    from faussaire.report.pictures import grid, save_each, save_png, to_uint8

    model = load_pictures(options.run, checkpoint=options.checkpoint, device=options.device)
    how = {"label": options.label, "truncation": options.truncation}
    if seeds is None:
        rows = model.sample(options.count, seed=options.seed, **how)
    else:
        rows = model.sample(seeds=seeds, **how)
    pictures = to_uint8(rows * 2.0 - 1.0)
    count = len(pictures)
    if target is not None:
        if target.exists() and not options.overwrite:
            raise UserError(f"'{target}' exists.", "Add --overwrite, or name another file.")
        save_png(grid(pictures), target)
        out.print(f"{count} pictures in {target}", markup=False)
    if options.out is not None:
        save_each(
            pictures,
            options.out,
            seed=options.seed,
            seeds=seeds,
            overwrite=options.overwrite,
        )
        out.print(f"{count} pictures in {options.out}/", markup=False)
    return 0
