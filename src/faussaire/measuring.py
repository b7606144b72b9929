"""Figures of one set of pictures against another in one pass; what measuring is told and finds."""

from __future__ import annotations

import dataclasses
import json
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
from faussaire.core.config import Settings
from faussaire.core.device import Device, DeviceName, keep_memory
from faussaire.core.errors import UserError
from faussaire.core.figures import (
    METRICS,
    OF_SETS,
    Figure,
    append_figures,
    choose_metrics,
    metrics_of,
)
from faussaire.core.files import replace_file, write_error
from faussaire.core.run import Run
from faussaire.data.parallel import Progress
from faussaire.metrics.bench import FEATURE_METRICS, METERS, Bench, rarest
from faussaire.metrics.extractors import Extractor, open_extractor
from faussaire.metrics.perceptual import open_perceptual
from faussaire.metrics.pictures import PictureSet, Samples
from faussaire.metrics.resize import How
from faussaire.report.pictures import grid, save_png

_NOT_OF_SETS = {
    "pairs": (
        "compares each picture with the one that it should be, and there are no pairs",
        "runs of pix2pix, superres and their like have pairs",
    ),
    "classes": (
        "is of models that tell classes, and nothing here does",
        "runs of sgan have it",
    ),
    "latents": (
        "asks an encoder of pictures, and here are only pictures",
        "runs of vae and vaegan have encoders",
    ),
}
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
class Inquiry:
    """What is to be measured of a run.

    Attributes:
        run: its folder.
        model: one of its checkpoints, loaded.
        settings: the run's.
        options: what to measure, and how.
        against: a source to compare with in place of the training data.
        target: what the pictures of `against` should become, or the second set.
        classes: where the classes of `against` come from; None: as in training, where that fits.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.
    """

    run: Run
    model: Any
    settings: Settings
    options: Options
    against: str | None = None
    target: str | None = None
    classes: str | None = None
    progress: Progress | None = None
    note: Callable[[str], None] | None = None

    def teller(self) -> tuple[list[str], Callable[[str], None]]:
        """A list of remarks, and what adds a sentence to it and passes it on to `note`."""
        remarks: list[str] = []

        def tell(text: str) -> None:
            remarks.append(text)
            if self.note is not None:
                self.note(text)

        return remarks, tell

    def refuse_pictures(self, noun: str) -> None:
        """Refuse what can be asked of pictures alone.

        Raises:
            UserError: with the first thing asked that does not apply.
        """
        plain = Options()
        for name in ("reference_count", "extractor", "weights", "resize"):
            if getattr(self.options, name) != getattr(plain, name):
                flag = name.replace("_", "-")
                raise UserError(
                    f"--{flag} is about pictures, and {self.settings.family} makes {noun}.",
                    "Leave it out.",
                )
        for name in ("target", "classes"):
            if getattr(self, name) is not None:
                raise UserError(
                    f"--{name} is about pictures, and {self.settings.family} makes {noun}.",
                    "Leave it out.",
                )


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Something to look at beside figures.

    Attributes:
        name: of its file: `curve.svg`, `samples.png`, `sentences.txt`.
        content: of the file.
        caption: what it shows, in words.
    """

    name: str
    content: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures, and what to look at beside them.

    Attributes:
        title: what was measured, in words.
        against: with what it was compared, in words.
        figures: in the order asked for.
        notes: what the reader should know, as sentences.
        neighbours: the samples that lie closest to real pictures, each with its three nearest.
        answers: of what makes pictures from pictures: inputs, answers and true ones, best to worst.
        sheets: what else to look at.
        run: the run's folder, where there is one.
        seconds: time taken.
    """

    title: str
    against: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    neighbours: Image.Image | None = None
    answers: Image.Image | None = None
    sheets: tuple[Sheet, ...] = ()
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
        """Add the figures to `metrics.jsonl`, and what to look at to `evaluation/`.

        `sheets.json` there holds the captions of what has no place of its own in the report.

        Raises:
            UserError: the folder cannot be written.
        """
        append_figures(folder / "metrics.jsonl", self.figures)
        for name, image in (("neighbours", self.neighbours), ("answers", self.answers)):
            if image is not None:
                save_png(image, folder / "evaluation" / f"{name}.png")
        if self.sheets:
            save_sheets(self.sheets, folder / "evaluation")


def save_sheets(sheets: Sequence[Sheet], folder: Path) -> None:
    """Write sheets, and their captions to `sheets.json`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in sheets:
            (folder / one.name).write_bytes(one.content)
    except OSError as error:
        raise write_error(error, folder, "What was measured could not be written") from error
    captions = {one.name: one.caption for one in sheets}
    replace_file(folder / "sheets.json", json.dumps(captions, indent=1, ensure_ascii=False))


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
    require_modality(asked, "pictures", "pictures")
    for name in asked:
        if METRICS[name].of != "sets":
            why, way = _NOT_OF_SETS[METRICS[name].of]
            raise UserError(f"{name} {why}.", f"Leave it out of --metrics; {way}.")
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
    facts = facts_of(circumstances, options, seconds, device)
    height, width, _ = reals.shape
    return Evaluation(
        title=f"{len(fakes):,} samples",
        against=f"{len(reals):,} pictures of {reals.name}, {width}x{height}",
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in figures),
        notes=(*notes, *bench.notes),
        neighbours=closest_pairs(bench) if "authenticity" in names else None,
        seconds=seconds,
    )


def require_modality(names: Sequence[str], modality: str, noun: str) -> None:
    """Refuse metrics of other kinds of data.

    Args:
        names: of metrics.
        modality: of the model that is measured.
        noun: what it makes.

    Raises:
        UserError: with the first that does not apply.
    """
    for name in names:
        if METRICS[name].modality != modality:
            raise UserError(
                f"{name} measures {METRICS[name].modality}, and this makes {noun}.",
                f"There are: {', '.join(metrics_of(modality))}.",
            )


def facts_of(
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
    return tuple(name for name in OF_SETS if name in chosen)


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


def place_of(run: Run, examples: int, dataset: str) -> dict[str, Any]:
    """Where in which run samples were made, as figures store it."""
    checkpoint = f"{examples:012d}"
    return {
        "run": run.path.name,
        "checkpoint": checkpoint,
        "examples": examples,
        "dataset": dataset,
    }
