"""`faussaire sample RUN` of what makes music."""

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
    """Make phrases of music with the averaged weights of a run: MIDI files and a picture of them.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        count: how many phrases.
        seed: names an endless sequence of phrases; the same seed gives the same ones.
        seeds: phrases of these seeds in place of count and seed, such as 0-31 or 3,7,100-103.
        out: the folder for them.
        wav: `auto` writes sound, too, where a soft synth is installed (fluidsynth, timidity); `on`
            insists, `off` does not.
        truncation: what the noise is multiplied by; below 1 for more typical phrases.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace files of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    count: int = 16
    seed: int = 0
    seeds: str | None = None
    out: Path = Path("made")
    wav: Literal["auto", "on", "off"] = "auto"
    truncation: float | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Sample, and write what was asked for."""
    options = parse("sample", Options, arguments)
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    if options.count < 1:
        raise UserError(f"--count {options.count} makes no phrase.", "Ask for at least one.")

    from faussaire.model import load

    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    written = model.save(  # pyright: ignore[reportAttributeAccessIssue]
        options.out,
        options.count,
        seed=options.seed,
        seeds=seeds,
        truncation=options.truncation,
        wav=options.wav,
        overwrite=options.overwrite,
    )
    count = sum(path.suffix == ".mid" for path in written)
    out.print(f"{count} phrases in {options.out}/, and rolls.png shows them", markup=False)
    return 0
