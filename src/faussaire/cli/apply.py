"""`faussaire apply RUN PICTURES --out FOLDER`: what a trained run makes of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import err, out, parse, print_json
from faussaire.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Turn pictures into others with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints; or a file of weights of ESRGAN or Real-ESRGAN
            (.safetensors, .pth), which enlarges pictures.
        pictures: files, folders or patterns.
        out: the folder of results; names are kept.
        seed: of what the model draws at random, where it does.
        tile: pixels a side that are handled at once, in tiles that fade into each other; 0: whole
            pictures; None: tiles of 1024 for those that are larger.
        inverse: the way back, which cyclegan has.
        format: ending of all results, such as png; None: as the inputs'.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace results that are there.
        skip: leave results that are there as they are, and make the others.
        json: print what was made, and what was not, as JSON.
    """

    run: Annotated[Path, tyro.conf.Positional]
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    seed: int = 0
    tile: int | None = None
    inverse: bool = False
    format: Literal["png", "jpg", "webp", "tif"] | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False
    skip: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Apply, and say what could not be done; 1 where something could not."""
    options = parse("apply", Options, arguments)
    if not options.pictures:
        raise UserError("No pictures were named.", "faussaire apply RUN photos/ --out results/")
    from rich.progress import Progress

    from faussaire import application
    from faussaire.model import load

    jobs = application.gather(options.pictures, options.out, options.format)
    waiting = [job for job in jobs if not (options.skip and job.target.exists())]
    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    model.answers(inverse=options.inverse)  # or it would be said for every file
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("pictures", total=len(waiting))

        def done(job: application.Job) -> None:
            progress.update(task, advance=1, description=job.source.name)

        failed = application.work(
            waiting,
            lambda opened: model.answer(
                opened, seed=options.seed, tile=options.tile, inverse=options.inverse
            ),
            overwrite=options.overwrite,
            done=done,
        )
    if options.json:
        lost = {one.source for one in failed}
        made = [str(job.target) for job in waiting if job.source not in lost]
        left = [{"file": str(one.source), "reason": one.reason} for one in failed]
        print_json({"made": made, "failed": left, "skipped": len(jobs) - len(waiting)})
        return 1 if failed else 0
    out.print(f"{len(waiting) - len(failed)} pictures in {options.out}/", markup=False)
    if len(jobs) > len(waiting):
        out.print(f"{len(jobs) - len(waiting)} were there already", markup=False)
    for one in failed:
        err.print(f"not made: {one.source}: {one.reason}", markup=False)
    return 1 if failed else 0
