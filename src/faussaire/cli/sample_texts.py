"""`faussaire sample RUN` of what writes sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import out, parse
from faussaire.core.errors import UserError
from faussaire.core.files import replace_file, require_folder
from faussaire.core.quantity import parse_seeds


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write sentences with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        count: how many sentences.
        seed: names an endless sequence of sentences; the same seed gives the same ones.
        seeds: sentences of these seeds in place of count and seed, such as 0-31 or 3,7,100-103: the
            first of each seed's sequence.
        temperature: 0 writes the likeliest sentence, 1 as was learnt, more is wilder; none: the run's
            own.
        out: a text file to write them to, a line each; none: they are printed.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace a file of the same name.
    """

    run: Annotated[Path, tyro.conf.Positional]
    count: int = 64
    seed: int = 0
    seeds: str | None = None
    temperature: float | None = None
    out: Path | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Sample, and print or write."""
    options = parse("sample", Options, arguments)
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    if options.count < 1:
        raise UserError(f"--count {options.count} makes no sentence.", "Ask for at least one.")
    target = options.out
    if target is not None and target.exists() and not options.overwrite:
        raise UserError(f"'{target}' exists.", "Add --overwrite, or name another file.")

    from faussaire.model import load

    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    sentences = model.sample(
        options.count, seed=options.seed, seeds=seeds, temperature=options.temperature
    )
    if target is None:
        # Plain print: what stands in a pipe must be sentences and nothing else.
        print("\n".join(sentences))
        return 0
    require_folder(target.parent)
    replace_file(target, "\n".join(sentences) + "\n")
    out.print(f"{len(sentences)} sentences in {target}", markup=False)
    return 0
