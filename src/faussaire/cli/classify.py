"""`faussaire classify RUN PICTURES --out predictions.csv`: the classes that a trained run tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from faussaire.cli.console import Reading, err, out, parse, print_json, warn
from faussaire.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Tell the classes of pictures with the averaged weights of a run.

    Attributes:
        run: the run's folder, or one of its checkpoints.
        pictures: a folder, archive, array or table as training takes them; or files and patterns.
        out: a CSV to write: file, class, probability, and the label where it is known. None: print it.
        probabilities: add a column for each class.
        labels: true classes, to say how often the model is right: a CSV with the columns file and label;
            of an array, its labels.
        classes: where true classes come from otherwise: `folders`, a column of a table, `none`, or
            `auto`: what the pictures come with (labels.csv, an array's labels).
        fit: how pictures reach the model's size: `crop`, `pad` or `squash`; None: as in training.
        checkpoint: `latest`, a mark such as `best`, or a number of examples seen.
        device: where to run.
        overwrite: replace a CSV that is there.
        json: print the accuracy and the table of confusions as JSON.
    """

    run: Annotated[Path, tyro.conf.Positional]
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path | None = None
    probabilities: bool = False
    labels: Path | None = None
    classes: str = "auto"
    fit: Literal["crop", "pad", "squash"] | None = None
    checkpoint: str = "latest"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    overwrite: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Classify, and say what could not be read; 1 where something could not."""
    options = parse("classify", Options, arguments)
    if not options.pictures:
        raise UserError(
            "No pictures were named.", "faussaire classify RUN pictures/ --out predictions.csv"
        )
    if options.out is not None and options.out.exists() and not options.overwrite:
        raise UserError(
            f"'{options.out}' would be overwritten.", "Choose another --out, or add --overwrite."
        )
    if options.json and options.out is None:
        raise UserError("--json prints figures, and the classes need a file.", "Add --out FILE.csv")
    from PIL import ImageColor

    from faussaire import classification
    from faussaire.core.files import replace_file, require_folder
    from faussaire.core.run import Run
    from faussaire.model import load_pictures

    model = load_pictures(options.run, checkpoint=options.checkpoint, device=options.device)
    if not model.family.classifies:
        model.family.classify(None)  # pyright: ignore[reportArgumentType]  (which refuses in a sentence)
    if options.out is not None:
        require_folder(options.out.parent)
    asked = classification.questions(
        options.pictures, labels=options.labels, classes=options.classes
    )
    settings = Run.around(options.run).config()
    trained = str(settings.get("fit", "crop"))
    background = ImageColor.getrgb(str(settings.get("background", "white")))[:3]
    reading = Reading()
    try:
        told, failed = classification.tell(
            model.family,
            model.device,
            asked,
            how=options.fit or (trained if trained != "tiles" else "crop"),  # pyright: ignore
            background=background,  # pyright: ignore[reportArgumentType]
            progress=reading,
        )
    finally:
        reading.close()
    classes = model.spec.classes
    text = classification.written(told, classes, every=options.probabilities)
    if options.out is None:
        print(text, end="")
    else:
        replace_file(options.out, text)
    tally, notes = None, []
    if any(one.label is not None for one in told):
        tally, notes = classification.Tally.known(told, classes)
    if options.json:
        left = [{"file": str(one.source), "reason": one.reason} for one in failed]
        facts = {} if tally is None else tally.record()
        print_json({"classified": len(told), "failed": left, "notes": notes, **facts})
        return 1 if failed else 0
    say = out if options.out is not None else err
    if options.out is not None:
        say.print(f"{len(told):,} pictures in {options.out}", markup=False)
    if tally is not None:
        say.print(
            f"{tally.accuracy:.1%} of {tally.count:,} pictures with a label are right "
            f"(± {tally.error:.1%}); always '{tally.usual}' would be {tally.no_skill:.1%}",
            markup=False,
        )
        if tally.accuracy < 1.0:
            say.print("true classes down, told ones across:", markup=False)
            for line in tally.lines():
                say.print(line, markup=False, soft_wrap=True)
    for note in notes:
        warn(note)
    for one in failed:
        err.print(f"not classified: {one.source}: {one.reason}", markup=False)
    return 1 if failed else 0
