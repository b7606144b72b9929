"""`faussaire sample RUN` of what makes pictures of words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from faussaire.cli.console import out, parse, warn
from faussaire.core.errors import UserError
from faussaire.core.quantity import parse_seeds


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make pictures of words with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        text: what to make pictures of; may be given several times. None: captions of the training data.
        texts: a file with such a text in each line, besides.
        count: how many pictures of each text.
        seed: names an endless sequence of pictures; the same seed gives the same ones of a text.
        seeds: pictures of these seeds in place of count and seed, such as 0-31 or 3,7,100-103.
        grid: write all as one picture to this PNG file, each text above its pictures.
        out: write each to its own PNG file, in a folder for each text in this one.
        truncation: keeps latent numbers within this bound, for more typical pictures: 0.7, say.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace files of the same names.
    """

    run: Annotated[Path, tyro.conf.Positional]
    text: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    texts: Path | None = None
    count: int = 16
    seed: int = 0
    seeds: str | None = None
    grid: Path | None = None
    out: Path | None = None
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
    texts = [*options.text, *(() if options.texts is None else read_texts(options.texts))]
    target = options.grid
    if target is None and options.out is None:
        target = Path("samples.png")
    if target is not None and target.exists() and not options.overwrite:
        raise UserError(f"'{target}' exists.", "Add --overwrite, or name another file.")

    from faussaire.model import load
    from faussaire.report.captioned import captioned_grid
    from faussaire.report.pictures import grid, save_each, save_png, to_uint8

    model = load(options.run, checkpoint=options.checkpoint, device=options.device)
    for remark in model.remarks(texts):
        warn(remark)
    made = model.sample(
        options.count,
        text=texts or None,
        seed=options.seed,
        seeds=seeds,
        truncation=options.truncation,
    )
    pictures = to_uint8(made * 2.0 - 1.0)
    rows = np.split(pictures, max(1, len(texts)))
    if target is not None:
        save_png(captioned_grid(rows, texts) if texts else grid(pictures), target)
        out.print(f"{len(pictures)} pictures in {target}", markup=False)
    if options.out is not None:
        for number, row in enumerate(rows):
            folder = options.out / folder_name(number, texts[number]) if texts else options.out
            save_each(row, folder, seed=options.seed, seeds=seeds, overwrite=options.overwrite)
        out.print(f"{len(pictures)} pictures in {options.out}/", markup=False)
    return 0


def read_texts(path: Path) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    from faussaire.texts.corpus import read_text

    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def folder_name(number: int, text: str) -> str:
    """A folder for a text that every system takes: `03 a red car`."""
    plain = "".join(letter if letter.isalnum() else " " for letter in text)
    return f"{number:02d} {' '.join(plain.split())[:40]}".strip()
