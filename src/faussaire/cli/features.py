"""`faussaire features RUN PICTURES --out FILE`: what a run sees, for one's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import Reading, err, out, parse, print_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """Frozen features of pictures, a row for each, by file name.

    Of a run of pretext, or of the discriminator of a run of dcgan, sngan or biggan. Train any classifier
    on them, such as scikit-learn's LogisticRegression: few labels go far.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        pictures: a folder, an archive, an array or a table, as for `faussaire train`; prepared as the
            run's training pictures were.
        out: the file to write: .npz (names, features, and labels where there are classes), .csv or
            .parquet (columns file, label, f0, f1, ...).
        classes: where class names come from: `folders`, `none`, `auto` (labels.csv, a label column), or
            a column.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to run.
        overwrite: replace the file.
        json: print what was written as JSON.
    """

    run: Annotated[Path, tyro.conf.Positional]
    pictures: Annotated[str, tyro.conf.Positional]
    out: Path
    classes: str = "auto"
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Extract, write, and say what was left out; 1 where something was."""
    options = parse("features", Options, arguments)
    from faussaire.features import expect_target, extract

    expect_target(options.out, overwrite=options.overwrite)
    reading = Reading()
    try:
        found = extract(
            options.run,
            options.pictures,
            classes=options.classes,
            checkpoint=options.checkpoint,
            device=options.device,
            progress=reading,
            told=lambda done, total: reading("looking", done, total),
        )
    finally:
        reading.close()
    found.save(options.out, overwrite=options.overwrite)
    count, size = found.values.shape
    left = [{"file": one["name"], "reason": one["reason"]} for one in found.left_out]
    if options.json:
        written = {"file": str(options.out), "pictures": count, "features": size}
        print_json({**written, "classes": list(found.classes), "left_out": left})
        return 1 if left else 0
    out.print(f"{count:,} pictures, {size:,} features each, in {options.out}", markup=False)
    for one in left:
        err.print(f"left out: {one['file']}: {one['reason']}", markup=False)
    return 1 if left else 0
