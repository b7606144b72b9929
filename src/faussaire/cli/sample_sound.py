"""`faussaire sample RUN` of what makes sound."""

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
    """Make clips of sound with the averaged weights of a run: WAV files and a picture of them.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        count: how many clips.
        seed: names an endless sequence of clips; the same seed gives the same ones.
        seeds: clips of these seeds in place of count and seed, such as 0-31 or 3,7,100-103.
        out: the folder for them.
        label: only this class, by name (class-conditional runs).
        truncation: what the noise is multiplied by, up to 1: less gives more typical clips.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace files of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    count: int = 16
    seed: int = 0
    seeds: str | None = None
    out: Path = Path("made")
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
        raise UserError(f"--count {options.count} makes no clip.", "Ask for at least one.")

    from faussaire.model import load

    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    written = model.save(  # pyright: ignore[reportAttributeAccessIssue]
        options.out,
        options.count,
        seed=options.seed,
        seeds=seeds,
        truncation=options.truncation,
        label=options.label,
        overwrite=options.overwrite,
    )
    count = sum(path.suffix == ".wav" for path in written)
    out.print(f"{count} clips in {options.out}/, and spectrograms.png shows them", markup=False)
    return 0
