"""`faussaire project RUN photo.png --out DIR`: photographs as latents of a trained run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from faussaire.cli.console import Reading, out, parse, print_json, warn
from faussaire.core.errors import UserError
from faussaire.core.quantity import format_duration

if TYPE_CHECKING:
    from faussaire.latent.editor import Projected
    from faussaire.latent.projection import Moment


@dataclass(frozen=True, kw_only=True)
class Options:
    """Find the latents of photographs, so that `faussaire edit` can change what they show.

    For each it leaves its latent (NAME.safetensors), what the model makes of it (NAME.png), and both
    beside the size of the error (NAME-compare.png).

    Attributes:
        run: the run's folder, or one of its checkpoints, of stylegan2 or another family with latents.
        photos: files, folders or patterns. They are cut and resized as the training pictures were.
        out: the folder of results.
        space: where to look: w (best to edit), w+ (closest to the photograph) or z; None: w where the
            family has it.
        steps: of the search; after an --encoder none unless asked for.
        rate: of the search, relative to the spread of latents.
        pixel_weight: of the difference of pixels beside the perceptual one.
        wander: noise on latents at first, which keeps the search from ending where it begins.
        batch: photographs at once.
        tune: move a copy of the generator until it makes the photographs (pivotal tuning), and save it
            as tuned.safetensors; the run is not touched.
        tune_steps: of tuning, at most.
        tune_rate: of tuning.
        encoder: the run of an encoder (`faussaire train e4e photos/ --generator RUN`): its guess in
            place of a search, or where one begins if --steps is given.
        extractor: the network that compares: vgg19, squeezenet1.1, none (pixels alone), or auto: the
            first that can be had.
        weights: a file or folder with its weights.
        label: the class that the photographs show (class-conditional runs).
        checkpoint: `latest`, a mark, or a number of examples seen.
        seed: of the search's noise.
        device: where to run.
        json: print what was found as JSON, and no progress.
        overwrite: replace files of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    space: Literal["w", "w+", "z"] | None = None
    steps: int | None = None
    rate: float = 0.1
    pixel_weight: float = 10.0
    wander: float = 0.05
    batch: int = 8
    tune: bool = False
    tune_steps: int = 350
    tune_rate: float = 3e-4
    encoder: Path | None = None
    extractor: str = "auto"
    weights: Path | None = None
    label: Annotated[str | None, tyro.conf.arg(name="class")] = None
    checkpoint: str = "latest"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    json: bool = False
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Project, perhaps tune, and write."""
    options = parse("project", Options, arguments)
    if not options.photos:
        raise UserError("No photographs were named.", "faussaire project RUN me.jpg --out found/")
    from faussaire.core.files import require_folder
    from faussaire.latent.editor import Editor, facts
    from faussaire.latent.photos import named
    from faussaire.latent.projection import Search
    from faussaire.latent.tuning import Tuning
    from faussaire.report.pictures import save_png, to_image, to_uint8

    files = named(options.photos)
    names = unlike([path.stem for path in files])
    tuned = options.out / "tuned.safetensors"
    taken = [options.out / f"{name}{end}" for name in names for end in _ENDS]
    refuse(([tuned] if options.tune else []) + taken, options.overwrite)
    search = None
    if options.encoder is None or options.steps is not None:
        search = Search(
            steps=1000 if options.steps is None else options.steps,
            rate=options.rate,
            pixel_weight=options.pixel_weight,
            wander=options.wander if options.encoder is None else 0.0,
            batch=options.batch,
        )
    tuning = Tuning(steps=options.tune_steps, rate=options.tune_rate)
    editor = Editor.open(
        options.run, checkpoint=options.checkpoint, device=options.device, label=options.label
    )
    require_folder(options.out)
    watching, reading = Watching(quiet=options.json), Reading()
    try:
        editor.likeness(options.extractor, options.weights, reading)
        reading.close()
        found = editor.project(
            files,
            space=options.space,
            search=search,
            encoder=options.encoder,
            seed=options.seed,
            watch=watching,
        )
        if options.tune:
            found = editor.tune(found, tuned, tuning=tuning, seed=options.seed, watch=watching)
    finally:
        reading.close()
        watching.close()
    for name, one in zip(names, found, strict=True):
        one.latent().save(options.out / f"{name}.safetensors")
        save_png(to_image(to_uint8(one.made)[0]), options.out / f"{name}.png")
        save_png(one.comparison(), options.out / f"{name}-compare.png")
    if options.json:
        results = [
            {"latent": str(options.out / f"{name}.safetensors"), **facts(one)}
            for name, one in zip(names, found, strict=True)
        ]
        print_json({"found": results, "notes": editor.notes})
        return 0
    for note in editor.notes:
        warn(note)
    for name, one in zip(names, found, strict=True):
        out.print(_said(name, one), markup=False)
    out.print(f"{len(found)} latents in {options.out}/, photographs beside them", markup=False)
    return 0


_ENDS = (".safetensors", ".png", "-compare.png")


def _said(name: str, one: Projected) -> str:
    return f"{name:<24} psnr {one.psnr:.1f} dB  perceptual {one.perceptual:.3f}  ({one.space})"


def unlike(names: list[str]) -> list[str]:
    """The names, with -2 ... behind those that were there before."""
    found: list[str] = []
    for name in names:
        plain, number = name, 1
        while name in found:
            number += 1
            name = f"{plain}-{number}"
        found.append(name)
    return found


def refuse(paths: list[Path], overwrite: bool) -> None:
    """Stop before the work where a result is there already.

    Raises:
        UserError: it is.
    """
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise UserError(f"'{taken[0]}' exists.", "Choose another --out, or add --overwrite.")


class Watching:
    """Shows how far a search is: a bar on a terminal, else a line now and then.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._tasks: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def __call__(self, moment: Moment) -> None:
        if self._quiet:
            return
        losses = "  ".join(f"{name} {value:.3g}" for name, value in moment.losses.items())
        words = f"{losses}  left {format_duration(moment.remaining)}"
        if not (out.is_terminal and sys.stdout.isatty()):
            due = self._next.get(moment.what, 2.0)
            if moment.elapsed >= due or moment.progress >= 1.0:
                self._next[moment.what] = moment.elapsed + min(30.0, max(2.0, moment.elapsed * 0.1))
                print(f"{moment.what:<8}{moment.progress:6.1%}  {words}", flush=True)
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>5.1f}%  {task.fields[words]}"),
                console=out,
                auto_refresh=False,
            )
            self._bar.start()
        if moment.what not in self._tasks:
            self._tasks[moment.what] = self._bar.add_task(moment.what, total=1.0, words="")
        task = self._tasks[moment.what]
        self._bar.update(task, completed=moment.progress, words=escape(words))  # pyright: ignore
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
