"""`faussaire film RUN film.gif`: a walk through the latent space, or the training in time lapse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from faussaire.cli.console import out, parse
from faussaire.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write a film: .gif, or .mp4 and .webm with the extra `video`.

    Attributes:
        run: the run's folder.
        path: the film's file.
        kind: `walk` goes from picture to picture through the latent space and back to the first;
            `training` shows the same latents growing up.
        seconds: length of a walk.
        fps: frames a second.
        pictures: latent points that each cell of a walk passes.
        through: for vae and vaegan, pictures that the walk passes in place of --pictures latent points:
            two or more, from each to the next and back to the first. One cell then shows it.
        columns: cells in a row of a walk; there are as many rows.
        seed: of the latents.
        overwrite: replace the file.
    """

    run: Annotated[Path, tyro.conf.Positional]
    path: Annotated[Path, tyro.conf.Positional]
    kind: Literal["walk", "training"] = "walk"
    seconds: float = 6.0
    fps: int = 20
    pictures: int = 4
    through: tuple[Path, ...] = ()
    columns: int = 4
    seed: int = 0
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Render and write."""
    options = parse("film", Options, arguments)
    if options.path.exists() and not options.overwrite:
        raise UserError(f"'{options.path}' exists.", "Add --overwrite, or name another file.")
    if min(options.fps, options.pictures, options.columns) < 1 or options.seconds <= 0:
        raise UserError(
            "--fps, --pictures, --columns and --seconds must be positive.",
            "The defaults make a walk of six seconds.",
        )
    from faussaire.report.film import write_film

    if options.through:
        if options.kind == "training" or len(options.through) < 2:
            raise UserError(
                f"--through is for walks through two pictures or more, not {len(options.through)}.",
                "Name files: faussaire film RUN film.gif --through one.png two.png",
            )
        frames = _between(options)
    else:
        frames = _walk(options) if options.kind == "walk" else _training(options)
    write_film(frames, options.path, fps=options.fps)
    out.print(f"film in {options.path}", markup=False)
    return 0


def _walk(options: Options) -> Iterator[np.ndarray]:
    """Frames (H, W, C) of a closed walk; each cell of the grid has its own."""
    import torch

    from faussaire.model import load_pictures
    from faussaire.report.film import walk
    from faussaire.report.pictures import grid, to_uint8

    model = load_pictures(options.run)
    cells = options.columns**2
    frames = max(2, round(options.seconds * options.fps))
    points = model.latents(cells * options.pictures, seed=options.seed).flatten(1).numpy()
    paths = np.stack([walk(points[cell::cells], frames) for cell in range(cells)], axis=1)
    labels = None
    if model.conditional:
        labels = torch.arange(cells) % len(model.spec.classes)
    for moment in paths:
        shown = model.decode(torch.from_numpy(moment.astype(np.float32)), labels)
        picture = grid(to_uint8(shown * 2.0 - 1.0), columns=options.columns)
        yield np.asarray(picture.convert("RGB"))


def _between(options: Options) -> Iterator[np.ndarray]:
    """Frames (H, W, C) of a closed walk through given pictures."""
    import torch

    from faussaire.model import load_pictures
    from faussaire.report.film import walk
    from faussaire.report.pictures import grid, to_uint8

    model = load_pictures(options.run)
    points = model.encode(options.through)
    frames = max(2, round(options.seconds * options.fps))
    moments = walk(points.flatten(1).numpy(), frames).astype(np.float32)
    latents = torch.from_numpy(moments).reshape(frames, *points.shape[1:])
    labels = None
    if model.conditional:
        labels = torch.zeros(frames, dtype=torch.int64)  # as the first picture's, all the way
        labels += model.classes_of(options.through[:1])
    shown = model.decode(latents, labels)
    for pixels in to_uint8(shown * 2.0 - 1.0):
        yield np.asarray(grid(pixels[None]).convert("RGB"))


def _training(options: Options) -> Iterator[np.ndarray]:
    """The run's previews in order, each held for a moment, the last one longer."""
    from PIL import Image

    from faussaire.core.run import Run

    paths = sorted(Run.find(options.run).samples.glob("[0-9]*.png"))
    if not paths:
        raise UserError(f"'{options.run}' has no previews to show.", "Train it for longer.")
    hold = max(1, options.fps // 3)
    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            frame = np.asarray(picture.convert("RGB"))
        for _ in range(hold if index + 1 < len(paths) else options.fps * 2):
            yield frame
