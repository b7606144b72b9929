"""`faussaire edit RUN photo.png --smile 2 --out edited/`: latents moved along directions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from faussaire.cli.console import Reading, out, parse, print_json, print_table, warn
from faussaire.cli.project import Watching, refuse, unlike
from faussaire.core.errors import UserError, nearest
from faussaire.core.quantity import parse_seeds
from faussaire.core.run import Run

if TYPE_CHECKING:
    from faussaire.latent.editor import Editor
    from faussaire.latent.shelf import Latent


@dataclass(frozen=True, kw_only=True)
class Options:
    """Change what pictures show: find directions of a model's latent space, and move along them.

    A direction's name is an option: --smile 2 moves by two standard deviations. Without photographs it
    edits the model's own pictures of --seeds.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        pictures: photographs, which are projected first, or latents that `faussaire project` left
            (.safetensors); files, folders of photographs, or patterns.
        out: the folder of results.
        direction: NAME=STRENGTH, several: the same as --NAME STRENGTH.
        without: directions that are to stay as they are: what those moved have of them is taken away.
        strip: a row of pictures for each latent along this direction.
        strengths: of the strip; None: from -3 to 3.
        mix: mix the styles of the first two: coarse layers of the one, fine ones of the other, at every
            place between.
        film: write a walk through the latents, or along --strip, to this file: .gif, .mp4 or .webm.
        frames: of the film.
        fps: its frames a second.
        truncation: the share of the way from the mean that is left, after the edit (stylegan2).
        seeds: the model's own pictures of these seeds, such as 0-7 or 3,7.
        list: show the run's directions.
        find: find directions without labels: principal components (pca1 ...) or in closed form
            (sefa1 ...), and keep them with the run.
        count: how many to find; or samples that a classifier labels for --learn.
        layers: FIRST-LAST of the layers that --find is to move, from 0; None: all.
        learn: learn a direction of this name from pictures --yes and --no, and keep it.
        yes: files or folders of pictures that have it.
        no: files or folders of pictures that have not.
        by: how the labels get into the latent space: `classifier`: a small network learns to tell the
            pictures and labels the model's samples; `projection`: the pictures are projected (few
            pictures); `encoder`: they are encoded.
        share: of the labelled samples those at either end that count.
        space: where photographs are projected to, and directions are found.
        steps: of projecting a photograph.
        encoder: the run of an encoder, in place of the search.
        extractor: the network that compares photographs: vgg19, squeezenet1.1, none, or auto.
        weights: a file or folder with its weights.
        label: the class that pictures show (class-conditional runs).
        checkpoint: `latest`, a mark, or a number of examples seen.
        seed: of what is drawn.
        device: where to run.
        json: print what was done as JSON, and no progress.
        overwrite: replace files, and directions, of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    out: Path | None = None
    direction: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    strip: str | None = None
    strengths: tuple[float, ...] | None = None
    mix: bool = False
    film: Path | None = None
    frames: int = 60
    fps: int = 20
    truncation: float | None = None
    seeds: str | None = None
    list: bool = False
    find: Literal["pca", "sefa"] | None = None
    count: int | None = None
    layers: str | None = None
    learn: str | None = None
    yes: tuple[Path, ...] = ()
    no: tuple[Path, ...] = ()
    by: Literal["classifier", "projection", "encoder"] = "classifier"
    share: float = 0.1
    space: Literal["w", "w+", "z"] | None = None
    steps: int = 1000
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
    """List, find, learn or edit."""
    options = parse("edit", Options, spelled_out(arguments))
    if options.list:
        return _list(options)
    strengths = _strengths(options.direction)
    if options.find is None and options.learn is None:
        _expect_a_place(options)
    editor = _editor(options)
    if options.learn is not None or options.find is not None:
        return _found(editor, options)
    return _edited(editor, options, strengths)


# ---- Words ----


def spelled_out(words: Sequence[str]) -> list[str]:
    """`--smile 2` as `--direction smile=2`, for the names of the run's directions.

    The run is the first word that names one. What is an option of the command keeps its meaning.

    Raises:
        UserError: an option is neither.
    """
    known, options = _directions(words), reserved()
    flags = options | {f"no-{name}" for name in options}
    left: list[str] = []
    asked: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.replace("_", "-") in flags:
            left.append(word)
            continue
        if name not in known:
            has = f"Its directions are {', '.join(sorted(known))}." if known else ""
            raise UserError(
                f"--{name} is neither an option nor a direction of the run."
                f"{nearest(name, [*known, *flags])}",
                has or "It has no directions yet: --find pca, --find sefa, or --learn NAME.",
            )
        if not equals:
            value = next(rest, "")
        asked.append(f"{name}={value}")
    if not asked:
        return left
    # Those said by --direction come first, so that all are values of one option.
    place = left.index("--direction") if "--direction" in left else None
    if place is None:
        return [*left, "--direction", *asked]
    return [*left[: place + 1], *asked, *left[place + 1 :]]


def reserved() -> set[str]:
    """Names that no direction can have, for they are options."""
    names = {field.name.replace("_", "-") for field in dataclasses.fields(Options)}
    return (names - {"label"}) | {"class", "help"}


def _directions(words: Sequence[str]) -> set[str]:
    """Names of the directions of the run among the words; none where there is no run."""
    for word in words:
        if word.startswith("-"):
            continue
        try:
            folder = Run.around(Path(word)).path / "directions"
        except (UserError, OSError):
            continue  # the value of a flag, or a mistake that the command tells of
        return {path.stem for path in folder.glob("*.safetensors")}
    return set()


def _strengths(words: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            strength = float(value)
        except ValueError:
            strength = math.nan
        if not equals or not math.isfinite(strength):
            raise UserError(
                f"'{word}' is no direction with a strength.",
                "Write NAME=NUMBER, such as smile=2; a strength is in standard deviations.",
            )
        found[name] = strength
    return found


def _layers(words: str | None) -> tuple[int, int] | None:
    if words is None:
        return None
    first, dash, last = words.partition("-")
    if not first.isdigit() or not (last.isdigit() or not dash):
        raise UserError(f"--layers {words} names no layers.", "Write 0-3, or 5 for one of them.")
    return int(first), int(last if dash else first)


# ---- What is asked ----


def _expect_a_place(options: Options) -> None:
    if options.out is None and options.film is None:
        raise UserError(
            "Nothing says where results are to go.", "Add --out edited/ or --film a.gif"
        )
    if not options.pictures and options.seeds is None:
        raise UserError(
            "There is nothing to edit.",
            "Name photographs, or latents of `faussaire project`, or --seeds 0-7.",
        )


def _editor(options: Options) -> Editor:
    from faussaire.latent.editor import Editor

    return Editor.open(
        options.run, checkpoint=options.checkpoint, device=options.device, label=options.label
    )


def _list(options: Options) -> int:
    """The run's directions."""
    from faussaire.latent.shelf import Shelf

    shelf = Shelf(Run.around(options.run).path / "directions")
    found = shelf.all()
    if options.json:
        facts = [
            {
                "name": one.name,
                "space": one.space,
                "method": one.method,
                "layers": one.layers,
                "examples": one.examples,
                **one.facts,
            }
            for one in found
        ]
        print_json(facts)
        return 0
    if not found:
        out.print("no directions yet: --find pca, --find sefa, or --learn NAME --yes ... --no ...")
        return 0
    table = Table("direction", "found by")
    for one in found:
        table.add_row(one.name, one.said())
    print_table(table)
    return 0


def _found(editor: Editor, options: Options) -> int:
    """Find or learn directions."""
    from faussaire.latent.editor import SAMPLES
    from faussaire.latent.projection import Search
    from faussaire.latent.shelf import check_name

    if options.find is not None:
        found = editor.find(
            options.find,
            10 if options.count is None else options.count,
            space=options.space,
            layers=_layers(options.layers),
            seed=options.seed,
            overwrite=options.overwrite,
        )
    else:
        assert options.learn is not None
        check_name(options.learn)
        if options.learn in reserved():
            raise UserError(
                f"'{options.learn}' is an option of this command.",
                "Give the direction another name.",
            )
        if not options.overwrite and editor.shelf is not None and options.learn in editor.shelf:
            raise UserError(
                f"The run has a direction '{options.learn}' already.",
                "Add --overwrite, or choose another name.",
            )
        if not options.yes or not options.no:
            raise UserError(
                f"'{options.learn}' is learnt from pictures with it and pictures without.",
                "Name both: --yes smiling/ --no serious/",
            )
        watching, reading = Watching(quiet=options.json), Reading()
        try:
            if options.by != "classifier":
                editor.likeness(options.extractor, options.weights, reading)
            learnt = editor.learn(
                options.learn,
                options.yes,
                options.no,
                by=options.by,
                space=options.space,
                encoder=options.encoder,
                search=Search(steps=options.steps),
                count=SAMPLES if options.count is None else options.count,
                share=options.share,
                seed=options.seed,
                overwrite=options.overwrite,
                watch=watching,
                progress=reading,
            )
        finally:
            reading.close()
            watching.close()
        found = [learnt]
    if options.json:
        facts = [{"name": one.name, **one.facts} for one in found]
        print_json({"directions": facts, "notes": editor.notes})
        return 0
    for note in editor.notes:
        warn(note)
    for one in found:
        out.print(f"{one.name:<16} {one.said()}", markup=False)
    out.print(
        f"try: faussaire edit {options.run} --seeds 0-3 --strip {found[0].name} --out edited/"
    )
    return 0


def _edited(editor: Editor, options: Options, strengths: dict[str, float]) -> int:
    """Edit, and write."""
    from faussaire.report.film import write_film
    from faussaire.report.pictures import save_png

    for name in [*strengths, *options.without, *([options.strip] if options.strip else [])]:
        editor.direction(name)  # refused before photographs are projected
    latents = _latents(editor, options)
    edited = [
        editor.edit(one, strengths, without=options.without, truncation=options.truncation)
        for one in latents
    ]
    names = unlike([Path(one.source).stem or "picture" for one in latents])
    values = options.strengths or (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    written: list[Path] = []

    def place(name: str) -> Path:
        assert options.out is not None
        refuse([options.out / name], options.overwrite)
        return options.out / name

    if options.film is not None:
        refuse([options.film], options.overwrite)
        frames = max(2, options.frames)
        if options.strip is not None:
            low, high = min(values), max(values)
            steps = [low + (high - low) * row / (frames - 1) for row in range(frames)]
            path = editor.strip(edited[0], options.strip, steps, without=options.without)
        elif len(edited) > 1:
            path = [*editor.between(edited, frames, closed=True)]
        else:
            path = [*editor.between([latents[0], edited[0]], frames)]
        write_film(editor.frames(path), options.film, fps=options.fps)
        written.append(options.film)
    if options.out is not None and options.mix:
        if len(edited) < 2:
            raise UserError("Mixing takes two latents.", "Name two photographs, or --seeds 1,2.")
        depth = editor.space("w+").layers
        rows = [editor.mixed(edited[0], edited[1], depth - at) for at in range(depth + 1)]
        written.append(place("mixed.png"))
        save_png(editor.grid(rows, columns=len(rows)), written[-1])
    elif options.out is not None and options.strip is not None:
        for name, one in zip(names, edited, strict=True):
            row = editor.strip(one, options.strip, values, without=options.without)
            written.append(place(f"{name}-{options.strip}.png"))
            save_png(editor.grid(row, columns=len(row)), written[-1])
    elif options.out is not None:
        targets = [place(f"{name}{end}") for name in names for end in (".png", ".safetensors")]
        for name, one in zip(names, edited, strict=True):
            save_png(editor.picture(one), options.out / f"{name}.png")
            one.save(options.out / f"{name}.safetensors")
        written.extend(targets)
    if options.json:
        print_json({"written": [str(path) for path in written], "notes": editor.notes})
        return 0
    for note in editor.notes:
        warn(note)
    for path in written:
        out.print(str(path), markup=False)
    return 0


def _latents(editor: Editor, options: Options) -> list[Latent]:
    """Those named, and those of photographs and seeds."""
    from faussaire.latent.projection import Search
    from faussaire.latent.shelf import Latent

    known = [path for path in options.pictures if path.suffix.lower() == ".safetensors"]
    photos = [path for path in options.pictures if path not in known]
    found: list[Latent] = [Latent.load(path) for path in known]
    if photos:
        watching, reading = Watching(quiet=options.json), Reading()
        try:
            editor.likeness(options.extractor, options.weights, reading)
            found += editor.project(
                photos,
                space=options.space,
                search=None if options.encoder else Search(steps=options.steps),
                encoder=options.encoder,
                seed=options.seed,
                watch=watching,
            )
        finally:
            reading.close()
            watching.close()
    if options.seeds is not None:
        found += editor.samples(parse_seeds(options.seeds), space=options.space)
    return found
