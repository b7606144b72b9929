"""Measuring a run, a model in training, or one folder of pictures against another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from faussaire import __version__
from faussaire.core.config import Settings, resolve
from faussaire.core.device import Device, DeviceName, keep_memory
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import (
    METRICS,
    OF_SETS,
    Figure,
    append_figures,
    choose_metrics,
)
from faussaire.core.run import Run
from faussaire.data.pack import Images, PackOptions, pack
from faussaire.data.parallel import Progress
from faussaire.data.scan import scan
from faussaire.data.source import Source
from faussaire.data.sources import open_source
from faussaire.examination import (
    Examination,
    as_sets,
    compare_pairs,
    named_back,
    prepare,
    refusal,
)
from faussaire.families import load_family
from faussaire.material import read_material
from faussaire.metrics.bench import FEATURE_METRICS, METERS, Bench, rarest
from faussaire.metrics.extractors import Extractor, open_extractor
from faussaire.metrics.perceptual import PerceptualDistance, open_perceptual
from faussaire.metrics.pictures import Packed, PictureSet, Samples, labels_like
from faussaire.metrics.resize import How
from faussaire.metrics.weights import Unavailable
from faussaire.model import Model
from faussaire.model import load as load_model
from faussaire.report.pictures import grid, save_png

_USUAL = ("fid", "kid", "precision", "recall", "density", "coverage", "authenticity")
_PAPERS, _CPU = 50_000, 10_000
_EACH_CLASS = 100  # pictures, below which a class's Fréchet distance is not measured unasked
_SHOWN = 12  # samples beside their nearest real pictures


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and how.

    Attributes:
        metrics: names; None: the usual ones that fit the model and the extractor.
        count: samples; None: 50,000 on a GPU, 10,000 on a CPU. Of a model that makes pictures from
            pictures, how many of these at most; None: all.
        reference_count: pictures of the reference, a random choice; None: all on a GPU, 10,000 on a
            CPU.
        extractor: a name, `auto`, or an object that is an extractor.
        weights: a file or folder with weights of extractors.
        resize: how pictures are brought to the extractor's size: `clean`, `legacy` or `pytorch`.
        seed: of the samples.
        device: where networks run.
    """

    metrics: Sequence[str] | str | None = None
    count: int | None = None
    reference_count: int | None = None
    extractor: str | Extractor = "auto"
    weights: Path | None = None
    resize: How = "clean"
    seed: int = 0
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        for name, count in (("count", self.count), ("reference_count", self.reference_count)):
            if count is not None and count < 1:
                raise UserError(f"{name} cannot be {count}.", "Ask for some thousands.")

    def samples(self, device: Device) -> int:
        """How many samples: as asked, else what papers use, or what a CPU does in minutes."""
        return self.count or (_CPU if device.kind == "cpu" else _PAPERS)

    def reference(self, device: Device) -> int | None:
        """How many pictures of the reference; None: all."""
        return self.reference_count or (_CPU if device.kind == "cpu" else None)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures, and what to look at beside them.

    Attributes:
        title: what was measured, in words.
        against: with what it was compared, in words.
        figures: in the order asked for.
        notes: what the reader should know, as sentences.
        neighbours: the samples that lie closest to real pictures, each with its three nearest.
        run: the run's folder, where there is one.
        seconds: time taken.
    """

    title: str
    against: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    neighbours: Image.Image | None = None
    run: Path | None = None
    seconds: float = 0.0

    def __getitem__(self, metric: str) -> Figure:
        """The figure of a metric: `evaluation["fid"].value`."""
        for figure in self.figures:
            if figure.provenance.metric == metric:
                return figure
        measured = ", ".join(figure.provenance.metric for figure in self.figures)
        raise KeyError(f"{metric} was not measured; there are {measured}")

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "title": self.title,
            "against": self.against,
            "seconds": round(self.seconds, 1),
            "figures": [figure.record() for figure in self.figures],
            "notes": list(self.notes),
        }

    def save(self, folder: Path) -> None:
        """Add the figures to `metrics.jsonl`, and the pairs as `evaluation/neighbours.png`.

        Raises:
            UserError: the folder cannot be written.
        """
        append_figures(folder / "metrics.jsonl", self.figures)
        if self.neighbours is not None:
            save_png(self.neighbours, folder / "evaluation" / "neighbours.png")


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
    """Measure a run against its own training pictures, or others prepared in the same way.

    What makes pictures from pictures is measured on those that were held out.

    Args:
        path: the run, or one of its checkpoints.
        options: what to measure, and how.
        checkpoint: `latest`, a mark, or a number of examples.
        against: a source to compare with in place of the training pictures.
        target: what the pictures of `against` should become, or the second set.
        classes: where the classes of `against` come from; None: as in training, where that fits.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.

    Raises:
        UserError: no run, no checkpoint, no pictures, or a figure that would mean nothing.
    """
    inside = path.parent.name == "checkpoints" and (path / "state.json").exists()
    run = Run.find(path.parent.parent if inside else path)
    model = load_model(path, checkpoint=checkpoint, device=options.device)
    config = run.config()
    source = str(config.get("source", "")) if against is None else against
    kind = load_family(str(config["family"]))
    settings = resolve(str(config["family"]), source, kind.Config, config)
    if kind.applies:
        how = {"progress": progress, "note": note}
        return _evaluate_translator(run, model, settings, options, against, target, **how)
    if target is not None:
        raise UserError(
            f"{settings.family} makes pictures of noise, and --target names what others become.",
            "Leave --target out.",
        )
    if against is not None:  # what names classes in the settings belongs to the run's own pictures
        data = dataclasses.replace(
            settings.data,
            labels=None,
            classes=classes or _classes_of(against, settings.data.classes),
            resolution=(model.spec.height, model.spec.width),
        )
        settings = dataclasses.replace(settings, data=data)
    images = read_material(settings, kind, progress=progress, preflight=False).images
    notes: list[str] = []
    trained_on = run.read("data.json").get("key")
    if against is None and trained_on not in (None, images.key):
        notes.append(
            f"The pictures in '{source}' have changed since the run was trained, and they are "
            "measured as they are now."
        )
    name = "train" if against is None else _split(against)
    reals = Packed(images, name, options.reference(model.device))
    count = options.samples(model.device)
    fakes = samples_like(model.family, model.device, reals, count, options.seed)
    found = measure(
        fakes,
        reals,
        options,
        device=model.device,
        circumstances=place_of(run, model.examples, trained_on or ""),
        progress=progress,
        note=note,
    )
    return dataclasses.replace(
        found,
        neighbours=found.neighbours if against is None else None,
        title=f"{run.path} at {model.examples:,} examples, {count:,} samples, seed {options.seed}",
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
        name=None if against is None else _split(against),
        count=options.count,
        progress=progress,
    )
    for remark in examination.notes:
        tell(remark)
    names = asked or kind.compares(settings.model)
    if options.metrics == "all":
        names = (*names, *(name for name in METRICS if name not in names))
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
    samples = Packed(fakes, _split(fake), options.samples(device))
    found = measure(
        samples,
        Packed(reals, _split(real), options.reference(device)),
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


# ---- Measuring ----


def measure(
    fakes: PictureSet,
    reals: PictureSet,
    options: Options,
    *,
    device: Device,
    circumstances: Mapping[str, Any],
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    cache: Path | None = None,
) -> Evaluation:
    """Every figure asked for, in one pass over the samples.

    Args:
        fakes, reals: what is judged, and what it should be like.
        options: what to measure, and how.
        device: where generators and classifiers run.
        circumstances: facts to store with each figure.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.
        cache: the cache folder; None: the user's.

    Raises:
        UserError: a figure that was asked for would mean nothing.
    """
    began = time.monotonic()
    notes: list[str] = []
    if device.kind == "cpu":
        keep_memory()

    def tell(text: str) -> None:
        notes.append(text)
        if note is not None:
            note(text)

    asked = () if options.metrics is None else choose_metrics(options.metrics, OF_SETS)
    for name in asked:
        if METRICS[name].pairs:
            raise UserError(
                f"{name} compares each picture with the one that it should be, and there are no pairs.",
                "Leave it out of --metrics; runs of pix2pix, superres and their like have pairs.",
            )
    extractor = None
    if not asked or FEATURE_METRICS & {*asked}:
        extractor = find_extractor(options, device, tell, progress)
    bench = Bench(
        fakes,
        reals,
        extractor,
        device=device,
        perceptual=lambda: open_perceptual(options.weights, device.name),
        seed=options.seed,
        progress=progress,
        cache=cache,
    )
    names = asked or usual_metrics(bench)
    if options.metrics == "all":
        names = tuple(name for name in names if bench.fits(name))
        if left := [name for name in asked if name not in names]:
            tell(f"Left out, for they do not fit: {', '.join(left)}.")
    bench.refuse(names)
    bench.look_at_samples(names)
    figures = [METERS[name](bench) for name in names]
    if "authenticity" in names and not reals.whole:
        tell(
            f"Copies were looked for among {len(reals):,} of the reference's pictures only; "
            "--reference-count looks among more."
        )
    seconds = time.monotonic() - began
    facts = _facts(circumstances, options, seconds, device)
    height, width, _ = reals.shape
    return Evaluation(
        title=f"{len(fakes):,} samples",
        against=f"{len(reals):,} pictures of {reals.name}, {width}x{height}",
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in figures),
        notes=(*notes, *bench.notes),
        neighbours=closest_pairs(bench) if "authenticity" in names else None,
        seconds=seconds,
    )


@dataclass(frozen=True)
class Tools:
    """What pictures made from pictures are measured with.

    Attributes:
        names: of metrics, in order.
        extractor: of features, where one is needed.
        perceptual: the perceptual distance, where it is.
    """

    names: tuple[str, ...]
    extractor: Extractor | None
    perceptual: PerceptualDistance | None


def choose_tools(
    family: Family[Any],
    device: Device,
    examination: Examination,
    options: Options,
    names: Sequence[str],
    *,
    must: bool,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> Tools:
    """The metrics that can be measured, and what they need.

    Args:
        family: that is measured.
        device: where it runs.
        examination: what it is asked.
        options: extractor, weights, seed.
        names: of metrics that are wanted.
        must: whether one that cannot be measured is an error; else it is left out with a sentence.
        tell: called with sentences.
        progress: called as progress(what, done, total).

    Raises:
        UserError: a metric that must be cannot be measured, or none can.
    """
    left: dict[str, UserError] = {}
    hint = "Leave it out of --metrics; `faussaire evaluate --explain` says what each means."
    for name in names:
        if METRICS[name].pairs and (why := refusal(name, family, examination)):
            left[name] = UserError(why, hint)
    perceptual = extractor = None
    if "perceptual" in names and "perceptual" not in left:
        try:
            perceptual = open_perceptual(options.weights, device.name)
        except Unavailable as error:
            left["perceptual"] = error
    of_sets = [name for name in names if not METRICS[name].pairs]
    if FEATURE_METRICS & {*of_sets}:
        extractor = find_extractor(options, device, tell, progress)
    for way in examination.ways if of_sets else ():
        answering = family.inverse() if way.word else family
        try:
            bench = Bench(*as_sets(answering, device, way, options.seed), extractor, device=device)
        except UserError as error:
            left |= dict.fromkeys(of_sets, error)
            continue
        for name in of_sets:
            try:
                bench.refuse([name])
            except UserError as error:
                left[name] = error
    if must and left:
        raise next(iter(left.values()))
    chosen = tuple(name for name in names if name not in left)
    if not chosen:
        raise next(iter(left.values()))
    for name, error in left.items():
        if name in family.compares(
            family.config
        ):  # of all the others nobody asked for them by name
            tell(f"{name} is left out: {error.cause}")
    return Tools(chosen, extractor, perceptual)


def examine(
    family: Family[Any],
    device: Device,
    examination: Examination,
    tools: Tools,
    options: Options,
    *,
    circumstances: Mapping[str, Any],
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    cache: Path | None = None,
) -> Evaluation:
    """Every chosen figure of what makes pictures from pictures, for each way.

    Args:
        family: its nets in evaluation mode.
        device: where it runs.
        examination: what it is asked.
        tools: which figures.
        options: seed, counts.
        circumstances: facts to store with each figure.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.
        cache: the cache folder; None: the user's.

    Raises:
        UserError: the family gives values that are not numbers.
    """
    began = time.monotonic()
    if device.kind == "cpu":
        keep_memory()
    notes: list[str] = []
    found: list[Figure] = []
    of_pairs = [name for name in tools.names if METRICS[name].pairs]
    of_sets = [name for name in tools.names if not METRICS[name].pairs]
    for way in examination.ways:
        answering = family.inverse() if way.word else family
        figures: dict[str, Figure] = {}
        if of_pairs:
            figures |= compare_pairs(
                answering,
                device,
                way,
                of_pairs,
                seed=options.seed,
                perceptual=tools.perceptual,
                progress=progress,
            )
        if of_sets:
            bench = Bench(
                *as_sets(answering, device, way, options.seed),
                tools.extractor,
                device=device,
                seed=options.seed,
                progress=progress,
                cache=cache,
            )
            bench.look_at_samples(of_sets)
            figures |= {name: named_back(METERS[name](bench), way.word) for name in of_sets}
            notes += [remark for remark in bench.notes if remark not in notes]
        found += [figures[name] for name in tools.names]
    for one in found:
        for what, share in one.parts.items() if one.provenance.metric == "colourfulness" else ():
            notes.append(
                f"Colourfulness is {share:.0%} of {what.removeprefix('share of ')} pictures'."
            )
    for remark in notes if note is not None else ():
        note(remark)  # pyright: ignore[reportOptionalCall]
    seconds = time.monotonic() - began
    facts = _facts(circumstances, options, seconds, device)
    return Evaluation(
        title=examination.describe(),
        against=examination.describe(),
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in found),
        notes=tuple(notes),
        seconds=seconds,
    )


def _facts(
    circumstances: Mapping[str, Any], options: Options, seconds: float, device: Device
) -> dict[str, Any]:
    """What is stored with each figure."""
    return {
        **circumstances,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.describe(),
        "faussaire": __version__,
        "torch": torch.__version__,
    }


def find_extractor(
    options: Options,
    device: Device,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> Extractor:
    """The extractor that the options name."""
    return open_extractor(
        options.extractor,
        weights=options.weights,
        resize=options.resize,
        device=device.kind,  # pyright: ignore[reportArgumentType]
        note=tell,
        progress=progress,
    )


def usual_metrics(bench: Bench) -> tuple[str, ...]:
    """What is measured where nobody says: what is cheap and fits."""
    chosen = {*_USUAL, *(name for name in ("is", "swd", "ms-ssim") if bench.fits(name))}
    if bench.reals.name != "train" and isinstance(bench.fakes, Samples):
        chosen.remove("authenticity")  # copies are copies of the training pictures
    if bench.fits("class-fid"):
        labels = (p.labels for p in (bench.fakes, bench.reals) if p.labels is not None)
        if min(rarest(some, len(bench.reals.classes)) for some in labels) >= _EACH_CLASS:
            chosen.add("class-fid")
    return tuple(name for name in METRICS if name in chosen)


def closest_pairs(bench: Bench) -> Image.Image:
    """The samples that are most likely copies, each with its three nearest real pictures.

    Rows of two groups; a group is a sample followed by real pictures, nearest first.
    """
    distances, rows = bench.nearest_reals
    # Near is relative: a picture in a crowded place has near neighbours without being copied.
    share = distances[:, 0] / distances[:, -1].clamp_min(1e-12)
    chosen = torch.argsort(share)[:_SHOWN]
    strip = []
    for index in chosen.tolist():
        strip.append(bench.fakes.read([int(bench.fake.rows[index])]))
        strip.append(bench.reals.read(rows[index].numpy()))
    return grid(np.concatenate(strip), columns=2 * (1 + rows.shape[1]))


def _classes_of(source: str, trained: str) -> str:
    """Where the classes of another source come from: folders only if it has any."""
    folder = Path(source)
    flat = folder.is_dir() and not any(path.is_dir() for path in folder.iterdir())
    return "auto" if trained == "folders" and (flat or not folder.is_dir()) else trained


def place_of(run: Run, examples: int, dataset: str) -> dict[str, Any]:
    """Where in which run samples were made, as figures store it."""
    checkpoint = f"{examples:012d}"
    return {
        "run": run.path.name,
        "checkpoint": checkpoint,
        "examples": examples,
        "dataset": dataset,
    }


def _split(source: str) -> str:
    """A reference's name in figures: the last part of its path, without what figures use."""
    name = source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or source
    return name.translate(str.maketrans("[],/: ", "______"))
