"""Measuring a run, or one folder of pictures against another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.classification import LEAST, Tally, Test
from faussaire.core.config import Settings, resolve
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import (
    METRICS,
    OF_SETS,
    Figure,
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
from faussaire.material import PictureMaterial, read_material
from faussaire.measuring import (
    Evaluation,
    Inquiry,
    Options,
    Sheet,
    facts_of,
    measure,
    place_of,
    require_modality,
)
from faussaire.metrics.pictures import Packed, PictureSet, Samples, labels_like
from faussaire.modality import load_modality
from faussaire.model import Model
from faussaire.model import load as load_model

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
    reals = Packed(images, name, options.reference(model.device))
    count = options.samples(model.device)
    fakes = samples_like(model.family, model.device, reals, count, options.seed)
    place = place_of(run, model.examples, trained_on or "")
    asked = () if options.metrics is None else choose_metrics(options.metrics, OF_SETS)
    told: list[Figure] = []
    sheets: list[Sheet] = []
    must = "accuracy" in asked
    if must or (kind.classifies and material.labelling is not None):
        test = labelled_test(model.family, material, None if against is None else name)
        if must or (len(test.rows) >= LEAST and options.metrics in (None, "all")):
            figure, tally = accuracy(model.family, model.device, test, options, place, progress)
            told.append(figure)
            sheets.append(tally.sheet())
    rest = tuple(name for name in asked if name != "accuracy")
    if must and rest:
        options = dataclasses.replace(options, metrics=rest)
    title = f"{run.path} at {model.examples:,} examples"
    if must and not rest:
        against_what = f"{told[0].provenance.count:,} labelled pictures"
        found = Evaluation(title=title, against=against_what, figures=())
    else:
        title = f"{title}, {count:,} samples, seed {options.seed}"
        found = measure(
            fakes,
            reals,
            options,
            device=model.device,
            circumstances=place,
            progress=progress,
            note=note,
        )
    return dataclasses.replace(
        found,
        figures=(*told, *found.figures),
        sheets=(*sheets, *found.sheets),
        neighbours=found.neighbours if against is None else None,
        title=title,
        notes=(*notes, *found.notes),
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
        if needs == "two" and any(METRICS[name].pairs and name != "cycle_l1" for name in asked):
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
        names = (*names, *(name for name in metrics_of("pictures") if name not in names))
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


def labelled_test(family: Family[Any], material: PictureMaterial, name: str | None = None) -> Test:
    """Labelled pictures to ask a family that tells classes for.

    Args:
        family: that is asked.
        material: the pictures.
        name: in figures, of a set of which all labelled pictures are asked; None: those held out.

    Raises:
        UserError: the family tells no classes.
    """
    if not family.classifies or material.labelling is None:
        raise UserError(
            "accuracy is of models that tell the classes of labelled pictures, and "
            f"{'no picture here has a label' if family.classifies else 'this one tells none'}.",
            "Leave it out of the metrics, or give pictures with labels to a run of sgan.",
        )
    labelling, classes = material.labelling, material.images.classes
    # Of another set, which may have fewer classes, or others: those of the model alone count.
    numbers = {name: number for number, name in enumerate(family.spec.classes)}
    known = np.array([numbers.get(name, -1) for name in classes])
    rows = labelling.tests if name is None else labelling.told
    rows = rows[known[labelling.labels[rows]] >= 0]
    return Test(
        pixels=material.images.pixels,
        rows=rows,
        labels=known[labelling.labels[rows]],
        classes=tuple(family.spec.classes),
        name=name or "held-out",
        key=material.key,
    )


def accuracy(
    family: Family[Any],
    device: Device,
    test: Test,
    options: Options,
    place: Mapping[str, Any],
    progress: Progress | None,
) -> tuple[Figure, Tally]:
    """The share of a test's pictures whose class a family tells, and which it takes for which.

    Raises:
        UserError: too few pictures.
    """
    began = time.monotonic()
    figure, tally = test.measure(family, device, progress)
    facts = facts_of(place, options, time.monotonic() - began, device)
    return dataclasses.replace(figure, circumstances=facts), tally


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
