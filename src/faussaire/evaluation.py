"""Measuring a run, or one folder of pictures against another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.asking import OfEncoder, answers, divide, questions
from faussaire.core.config import Settings, resolve
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import (
    METRICS,
    choose_metrics,
    metrics_of,
)
from faussaire.core.run import Run
from faussaire.data.pack import Images, PackOptions, pack
from faussaire.data.parallel import Progress
from faussaire.data.scan import scan
from faussaire.data.source import Source
from faussaire.data.sources import open_source
from faussaire.examination import prepare
from faussaire.families import load_family
from faussaire.marking import choose_tools, examine
from faussaire.material import read_material
from faussaire.measuring import (
    Evaluation,
    Inquiry,
    Options,
    measure,
    place_of,
    require_modality,
)
from faussaire.metrics.pictures import Packed, PictureSet, Samples, labels_like
from faussaire.modality import load_modality
from faussaire.model import Model
from faussaire.model import load as load_model
from faussaire.rebuilding import refuse_latents

# ---- What to measure ----


def evaluate_run(
    path: Path,
    options: Options,
    *,
    checkpoint: str = "latest",
    against: str | None = None,
    target: str | None = None,
    classes: str | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a run against its own data, or others read in the same way.

    What makes pictures from pictures is measured on those that were held out.

    Args:
        path: the run, or one of its checkpoints.
        options: what to measure, and how.
        checkpoint: `latest`, a mark, or a number of examples.
        against: a source to compare with in place of the training data.
        target: what the pictures of `against` should become, or the second set.
        classes: where the classes of `against` come from; None: as in training, where that fits.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.

    Raises:
        UserError: no run, no checkpoint, no data, or a figure that would mean nothing.
    """
    run = Run.around(path)
    model = load_model(path, checkpoint=checkpoint, device=options.device)
    config = run.config()
    source = str(config.get("source", "")) if against is None else against
    kind = load_family(str(config["family"]))
    settings = resolve(str(config["family"]), source, kind.Config, config)
    inquiry = Inquiry(
        run=run,
        model=model,
        settings=settings,
        options=options,
        against=against,
        target=target,
        classes=classes,
        progress=progress,
        note=note,
    )
    return load_modality(kind).evaluate(inquiry)


def evaluate_pictures(inquiry: Inquiry) -> Evaluation:
    """Measure a run that makes pictures, of noise or of pictures.

    Raises:
        UserError: no pictures, or a figure that would mean nothing.
    """
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    against, progress, note = inquiry.against, inquiry.progress, inquiry.note
    kind = type(model.family)
    if kind.applies:
        return _evaluate_translator(
            run,
            model,
            settings,
            options,
            against,
            inquiry.target,
            progress=progress,
            note=note,
        )
    if inquiry.target is not None:
        raise UserError(
            f"{settings.family} makes pictures of noise, and --target names what others become.",
            "Leave --target out.",
        )
    if against is not None:  # what names classes in the settings belongs to the run's own pictures
        data = dataclasses.replace(
            settings.data,
            labels=None,
            classes=inquiry.classes or _classes_of(against, settings.data.classes),
            resolution=(model.spec.height, model.spec.width),
            **({"labels_only": None, "holdout": 0.0} if kind.partly_labelled else {}),
        )
        settings = dataclasses.replace(settings, data=data)
    material = read_material(settings, kind, progress=progress, preflight=False)
    images = material.images
    notes: list[str] = []
    trained_on = run.read("data.json").get("key")
    if against is None and trained_on not in (None, images.key):
        notes.append(
            f"The pictures in '{settings.source}' have changed since the run was trained, and they are "
            "measured as they are now."
        )
    name = "train" if against is None else split_name(against)
    place = place_of(run, model.examples, trained_on or "")
    wanted = divide(model.family, options.metrics)
    asked = questions(
        model.family,
        material,
        settings,
        wanted,
        other=None if against is None else name,
        seed=options.seed,
    )
    remarks, tell = inquiry.teller()
    if any(isinstance(one, OfEncoder) and one.known.name == "train" for one in asked):
        tell(
            "No pictures were held out, so the encoder is asked of those that it was trained on, which "
            "it knows best. Train with --holdout 0.1, or compare with --against others."
        )
    told = answers(
        asked, model.family, model.device, options, circumstances=place, progress=progress
    )
    options = dataclasses.replace(options, metrics=wanted.sets)
    count = options.samples(model.device)
    title = f"{run.path} at {model.examples:,} examples, {count:,} samples, seed {options.seed}"
    found = Evaluation(title=title, against=asked[0].pictures if asked else "", figures=())
    if wanted.sets != ():
        reals = Packed(images, name, options.reference(model.device))
        fakes = samples_like(model.family, model.device, reals, count, options.seed)
        found = measure(
            fakes,
            reals,
            options,
            device=model.device,
            circumstances=place,
            progress=progress,
            note=note,
        )
    figures = (*told.figures, *found.figures)
    answered = None
    if wanted.pairs:
        rebuilt = _evaluate_translator(
            run,
            model,
            settings,
            dataclasses.replace(options, metrics=wanted.pairs, count=None),
            against,
            None,
            progress=progress,
            note=None,
        )
        figures, answered = (*figures, *rebuilt.figures), rebuilt.answers
    return dataclasses.replace(
        found,
        figures=figures,
        sheets=(*told.sheets, *found.sheets),
        answers=answered,
        neighbours=found.neighbours if against is None else None,
        title=title,
        notes=(*notes, *remarks, *found.notes),
        run=run.path,
    )


def _evaluate_translator(
    run: Run,
    model: Model,
    settings: Settings,
    options: Options,
    against: str | None,
    target: str | None,
    *,
    progress: Progress | None,
    note: Callable[[str], None] | None,
) -> Evaluation:
    """Measure a run that makes pictures from pictures.

    Raises:
        UserError: no pictures, or a figure that would mean nothing.
    """
    family, device, kind = model.family, model.device, type(model.family)
    notes: list[str] = []

    def tell(text: str) -> None:
        notes.append(text)
        if note is not None:
            note(text)

    asked = () if options.metrics in (None, "all") else choose_metrics(options.metrics)
    require_modality(asked, "pictures", "pictures")
    refuse_latents(family, asked)
    needs = kind.needs(settings.model)
    if against is None and target is not None:
        raise UserError(
            "--target names what the pictures of --against become, and there is no --against.",
            "Give both, or none.",
        )
    if against is not None:
        other: dict[str, Any] = {"labels": None, "holdout": 0.0}
        if settings.data.fit != "tiles":
            other["resolution"] = (model.spec.height, model.spec.width)
        if hasattr(settings.data, "target"):
            other["target"] = target
        elif target is not None:
            raise UserError(
                f"{settings.family} makes its inputs itself, and --target {target} was given.",
                "Leave --target out.",
            )
        if target is not None and hasattr(settings.data, "halves"):
            other["halves"] = False
        data = dataclasses.replace(settings.data, **other)
        settings = dataclasses.replace(settings, source=against, data=data)
        # Whoever asks for pairs' figures of what learns without pairs has pairs to test it with.
        if needs == "two" and any(
            METRICS[name].of == "pairs" and name != "cycle_l1" for name in asked
        ):
            needs = "pair"
    material = read_material(settings, kind, needs=needs, progress=progress, preflight=False)
    trained_on = run.read("data.json").get("key")
    if against is None and trained_on not in (None, material.key):
        tell(
            f"The pictures in '{settings.source}' have changed since the run was trained, and they are "
            "measured as they are now."
        )
    for left in material.pair_notes:
        tell(left)
    examination = prepare(
        material,
        settings,
        kind,
        scale=family.scale,
        name=None if against is None else split_name(against),
        count=options.count,
        progress=progress,
    )
    for remark in examination.notes:
        tell(remark)
    names = asked or kind.compares(settings.model)
    if options.metrics == "all":
        every = (name for name in metrics_of("pictures") if METRICS[name].of in ("sets", "pairs"))
        names = (*names, *(name for name in every if name not in names))
    tools = choose_tools(
        family, device, examination, options, names, must=bool(asked), tell=tell, progress=progress
    )
    found = examine(
        family,
        device,
        examination,
        tools,
        options,
        circumstances=place_of(run, model.examples, trained_on or ""),
        progress=progress,
        note=tell,
        look=True,
    )
    return dataclasses.replace(
        found,
        title=f"{run.path} at {model.examples:,} examples, seed {options.seed}",
        notes=tuple(notes),
        run=run.path,
    )


def evaluate_sources(
    fake: str,
    real: str,
    options: Options,
    *,
    resolution: tuple[int, int] | None = None,
    channels: str = "auto",
    classes: str = "auto",
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure one set of pictures against another.

    Args:
        fake, real: sources, as `open_source` takes them.
        options: what to measure, and how.
        resolution: (height, width) to bring both to; None: their own, which must be one.
        channels: `grey`, `rgb` or `rgba`; `auto`: colour where one of the two has colour.
        classes: where class names come from.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.

    Raises:
        UserError: a source is none, sizes differ, or a figure would mean nothing.
    """
    how = {"resolution": resolution, "classes": classes, "progress": progress}
    fakes = read_as_they_are(fake, channels=channels, **how)
    reals = read_as_they_are(real, channels=channels, **how)
    if channels == "auto" and fakes.channels != reals.channels:
        fakes = read_as_they_are(fake, channels="rgb", **how)
        reals = read_as_they_are(real, channels="rgb", **how)
    device = Device.choose(options.device, "auto")
    samples = Packed(fakes, split_name(fake), options.samples(device))
    found = measure(
        samples,
        Packed(reals, split_name(real), options.reference(device)),
        options,
        device=device,
        circumstances={"dataset": reals.key, "samples": fakes.key},
        progress=progress,
        note=note,
    )
    return dataclasses.replace(found, title=f"{len(samples):,} pictures of {fake}")


def read_as_they_are(
    source: str,
    *,
    resolution: tuple[int, int] | None,
    channels: str,
    classes: str,
    progress: Progress | None,
) -> Images:
    """Pictures of a source at their own size, whatever it is, or at the one asked for.

    Raises:
        UserError: they have several sizes, and none is asked for.
    """
    mode = {"auto": "auto", "grey": "L", "rgb": "RGB", "rgba": "RGBA"}[channels]
    with open_source(source, classes=classes) as opened:
        if resolution is None:
            resolution = own_size(opened, progress)
        options = PackOptions(resolution=resolution, channels=mode)  # pyright: ignore
        return pack(opened, options, progress=progress)


def own_size(source: Source, progress: Progress | None = None) -> tuple[int, int]:
    """(height, width) of the pictures of a source, which must all have it.

    Raises:
        UserError: they have several sizes, or none can be read.
    """
    seen = scan(source, progress=progress)
    sizes = np.unique(seen.sizes[seen.good], axis=0)
    if len(sizes) == 1:
        return int(sizes[0, 0]), int(sizes[0, 1])
    if len(sizes) == 0:
        raise UserError(
            f"None of the {len(source)} pictures of '{source.path}' can be read.",
            "Run `faussaire check` on it.",
        )
    (h1, w1), (h2, w2) = sizes[0].tolist(), sizes[-1].tolist()
    raise UserError(
        f"The pictures of '{source.path}' have {len(sizes)} sizes, from {w1}x{h1} to {w2}x{h2}.",
        "Bring them to one size with --resolution, such as --resolution 256.",
    )


def samples_like(
    family: Family[Any], device: Device, reals: PictureSet, count: int, seed: int
) -> Samples:
    """Samples of a family, of classes in the proportions of the real pictures."""
    labels = None
    classes = len(family.spec.classes)
    if getattr(family.config, "conditional", False):
        known = reals.labels is not None and reals.classes == tuple(family.spec.classes)
        even = np.arange(max(count, classes)) % classes
        labels = labels_like(reals.labels if known else even, count, classes)  # pyright: ignore
    return Samples(family, device.name, count, seed, labels)


def _classes_of(source: str, trained: str) -> str:
    """Where the classes of another source come from: folders only if it has any."""
    folder = Path(source)
    flat = folder.is_dir() and not any(path.is_dir() for path in folder.iterdir())
    return "auto" if trained == "folders" and (flat or not folder.is_dir()) else trained


def split_name(source: str) -> str:
    """A reference's name in figures: the last part of its path, without what figures use."""
    name = source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or source
    return name.translate(str.maketrans("[],/: ", "______"))
