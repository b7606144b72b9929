"""`faussaire apply RUN PICTURES --out FOLDER`: what a trained run makes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from faussaire.cli.console import err, out, parse, print_json
from faussaire.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from faussaire.application import Job
    from faussaire.core.family import Family
    from faussaire.holes import Finder
    from faussaire.model import Model


@dataclass(frozen=True, kw_only=True)
class Options:
    """Turn pictures, or the frames of videos, into others with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints; or a file of weights of ESRGAN or Real-ESRGAN
            (.safetensors, .pth), which enlarges pictures.
        pictures: files, folders or patterns; also videos (mp4, mov, mkv, webm ...), frame by frame
            and with their sound, for which `pip install "faussaire[video]"` is needed.
        out: the folder of results; names are kept.
        seed: of what the model draws at random, where it does.
        tile: pixels a side that are handled at once, in tiles that fade into each other; 0: whole
            pictures; None: tiles of 1024 for those that are larger.
        inverse: the way back, which cyclegan has.
        work_resolution: pixels of the shorter side at which colorize makes colours, which are then
            enlarged; 0: the picture's own; None: as it was trained.
        style: for adain, a painting, or several to be mixed.
        share: of each painting in the mixture, as numbers: 2 1 takes two thirds of the first.
        strength: 0 to 1, from the picture's own manner to the paintings'; or how many times the
            difference of --plus and --minus is added.
        plus: for vae and vaegan, a folder of pictures that have something, such as smiles, which the
            others of --minus have not: the difference of their mean latents is added to each picture's.
        minus: those that have it not.
        masks: for inpaint, what is missing: a folder with a mask for each picture, by name, or one mask
            for all; light places are missing.
        mask_colour: missing is what has this colour, as a name or #rrggbb.
        mask_tolerance: levels, of 255, by which each of red, green and blue may differ from it.
        mask_alpha: missing is what is transparent.
        format: ending of all pictures made, such as png; None: as the inputs'.
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
    work_resolution: int | None = None
    style: tuple[Path, ...] = ()
    share: tuple[float, ...] = ()
    strength: float = 1.0
    plus: Path | None = None
    minus: Path | None = None
    masks: Path | None = None
    mask_colour: str | None = None
    mask_tolerance: int = 8
    mask_alpha: bool = False
    format: Literal["png", "jpg", "webp", "tif"] | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False
    skip: bool = False
    json: bool = False


def _finder(options: Options, jobs: Sequence[Job], family: Family[Any]) -> Finder:
    """What finds the hole of each picture, where the family fills holes.

    Raises:
        UserError: nothing says where holes are, two things do, or the family fills none.
    """
    from faussaire import holes

    given = {
        "--masks": options.masks is not None,
        "--mask-colour": options.mask_colour is not None,
        "--mask-alpha": options.mask_alpha,
    }
    named = [flag for flag, there in given.items() if there]
    name = type(family).__name__.lower()
    if not family.fills:
        if named:
            raise UserError(
                f"{name} fills no holes, and {named[0]} says where they are.",
                f"Leave {named[0]} out, or give a run of inpaint.",
            )
        return lambda job, opened: opened
    if len(named) != 1:
        what = " and ".join(named) if named else "nothing"
        raise UserError(
            f"{name} must be told in one way what is missing, and {what} was given.",
            "Give --masks FOLDER, --mask-colour '#ff00ff' or --mask-alpha.",
        )
    if options.masks is not None:
        return holes.by_files(jobs, options.masks)
    if options.mask_colour is not None:
        return holes.by_colour(options.mask_colour, options.mask_tolerance)
    return holes.by_alpha


def _attribute(options: Options, model: Model) -> Tensor | None:
    """What the pictures of --plus have and those of --minus have not, as latents.

    Raises:
        UserError: one of the two is missing, or the model has no encoder.
    """
    if options.plus is None and options.minus is None:
        return None
    if options.plus is None or options.minus is None:
        given, other = ("--plus", "--minus") if options.minus is None else ("--minus", "--plus")
        raise UserError(
            f"{given} was given without {other}, and what is added is the difference of two folders.",
            f"Name a folder of pictures for {other}, too.",
        )
    from faussaire import rebuilding
    from faussaire.application import gather

    sides = [
        [job.source for job in gather([folder], options.out)]
        for folder in (options.plus, options.minus)
    ]
    return rebuilding.attribute(model.family, model.device, *sides)


def run(arguments: list[str]) -> int:
    """Apply, and say what could not be done; 1 where something could not."""
    options = parse("apply", Options, arguments)
    if not options.pictures:
        raise UserError("No pictures were named.", "faussaire apply RUN photos/ --out results/")
    from rich.progress import Progress, TaskID

    from faussaire import application
    from faussaire.model import load_pictures

    jobs = application.gather(options.pictures, options.out, options.format)
    waiting = [job for job in jobs if not (options.skip and job.target.exists())]
    model = load_pictures(options.run, checkpoint=options.checkpoint, device=options.device)
    shift = _attribute(options, model)
    # Once, for what cannot be would be said for every file, and paintings read for each.
    family = model.answers(
        inverse=options.inverse,
        work_resolution=options.work_resolution,
        style=options.style or None,
        share=options.share or None,
        strength=options.strength,
        shift=shift,
    )
    if family.rebuilds:
        channels, height, width = family.spec.shape
        kind = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
        err.print(
            f"Pictures are brought to {width}x{height} {kind}, the size that this was trained at; "
            "results have it, too."
        )
    find = _finder(options, jobs, family)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("files", total=len(waiting))
        films: dict[application.Job, TaskID] = {}

        def done(job: application.Job) -> None:
            progress.update(task, advance=1, description=job.source.name)
            if job in films:
                progress.remove_task(films.pop(job))

        def told(job: application.Job, frames: int, total: int) -> None:
            if job not in films:
                films[job] = progress.add_task(job.source.name)
            progress.update(films[job], completed=frames, total=total)

        failed = application.work(
            waiting,
            lambda opened: application.answer(
                family, model.device, opened, seed=options.seed, tile=options.tile
            ),
            overwrite=options.overwrite,
            done=done,
            told=told,
            find=find,
        )
    if options.json:
        lost = {one.source for one in failed}
        made = [str(job.target) for job in waiting if job.source not in lost]
        left = [{"file": str(one.source), "reason": one.reason} for one in failed]
        print_json({"made": made, "failed": left, "skipped": len(jobs) - len(waiting)})
        return 1 if failed else 0
    moving = sum(application.is_video(job.source) for job in waiting)
    what = "pictures" if not moving else "videos" if moving == len(waiting) else "files"
    out.print(f"{len(waiting) - len(failed)} {what} in {options.out}/", markup=False)
    if len(jobs) > len(waiting):
        out.print(f"{len(jobs) - len(waiting)} were there already", markup=False)
    for one in failed:
        err.print(f"not made: {one.source}: {one.reason}", markup=False)
    return 1 if failed else 0
