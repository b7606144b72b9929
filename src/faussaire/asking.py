"""What a trained model is asked about pictures, besides being looked at for its samples.

`faussaire evaluate` and measuring in training ask the same questions; both divide the metrics that are
wanted by what they are of (`Metric.of`), and leave those of sets of samples to `measuring.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from faussaire.classification import LEAST, Test
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import METRICS, Figure, choose_metrics
from faussaire.data.parallel import Progress
from faussaire.material import PictureMaterial
from faussaire.measuring import Options, Sheet, facts_of
from faussaire.rebuilding import OF_LATENTS, Known, known_pictures, latent_figures, refuse_latents


@dataclass(frozen=True)
class Told:
    """The answer to a question: figures, and what there is to look at beside them."""

    figures: tuple[Figure, ...]
    sheets: tuple[Sheet, ...] = ()


class Question(Protocol):
    """Figures that come of asking a model about given pictures."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its metrics."""
        ...

    @property
    def pictures(self) -> str:
        """Which pictures it is asked about, in words."""
        ...

    def __len__(self) -> int:
        """How many these are."""
        ...

    def ask(self, family: Family[Any], device: Device, progress: Progress | None) -> Told:
        """Ask a family whose nets are averaged and in evaluation mode.

        Raises:
            UserError: the answer would mean nothing.
        """
        ...


@dataclass(frozen=True)
class OfEncoder:
    """What an encoder knows of pictures: `elbo`, `active-units`."""

    names: tuple[str, ...]
    known: Known
    seed: int

    @property
    def pictures(self) -> str:
        return f"{len(self):,} pictures of {self.known.name}"

    def __len__(self) -> int:
        return len(self.known)

    def ask(self, family: Family[Any], device: Device, progress: Progress | None) -> Told:
        return Told(
            latent_figures(
                family,  # pyright: ignore[reportArgumentType]  (`divide` has seen to it)
                device,
                self.known,
                self.names,
                seed=self.seed,
                progress=progress,
            )
        )


@dataclass(frozen=True)
class OfClasses:
    """Which classes a model takes labelled pictures for: `accuracy`."""

    test: Test
    names: tuple[str, ...] = ("accuracy",)

    @property
    def pictures(self) -> str:
        return f"{len(self):,} labelled pictures"

    def __len__(self) -> int:
        return len(self.test.rows)

    def ask(self, family: Family[Any], device: Device, progress: Progress | None) -> Told:
        figure, tally = self.test.measure(family, device, progress)
        return Told((figure,), (tally.sheet(),))


@dataclass(frozen=True)
class Wanted:
    """Metrics that are wanted of a family, by what they are of.

    Attributes:
        sets: of samples beside real pictures, as asked for: names, `all`, or None for the usual.
        others: of classes and latents.
        pairs: of pictures that the family rebuilds, beside these pictures.
        must: whether somebody named them: then one that cannot be had is an error.
    """

    sets: Sequence[str] | str | None
    others: tuple[str, ...]
    pairs: tuple[str, ...]
    must: bool


def divide(family: Family[Any], asked: Sequence[str] | str | None) -> Wanted:
    """Metrics by what they are of.

    Where nobody names any, a model is asked what it can be, besides the usual metrics of samples.

    Args:
        family: that is measured.
        asked: names, `all`, or None: the usual.

    Raises:
        UserError: no metric has such a name, or an encoder is asked and there is none.
    """
    if asked is None or asked == "all":
        others: tuple[str, ...] = ()
        if family.rebuilds:
            likely = family.likelihood  # pyright: ignore[reportAttributeAccessIssue]
            others = tuple(name for name in OF_LATENTS if name != "elbo" or likely)
        if family.classifies:
            others = (*others, "accuracy")
        pairs = type(family).compares(family.config) if family.rebuilds and asked else ()
        return Wanted(asked, others, tuple(pairs), must=False)
    names = choose_metrics(asked)
    refuse_latents(family, names)
    others = tuple(name for name in names if METRICS[name].of in ("classes", "latents"))
    pairs = tuple(name for name in names if METRICS[name].of == "pairs") if family.rebuilds else ()
    sets = tuple(name for name in names if name not in others and name not in pairs)
    return Wanted(sets, others, pairs, must=True)


def questions(
    family: Family[Any],
    material: PictureMaterial,
    settings: Settings,
    wanted: Wanted,
    *,
    other: str | None,
    seed: int,
) -> list[Question]:
    """The questions of which the answers are some metrics of classes and latents.

    Args:
        family: that is asked.
        material: pictures.
        settings: by which these were read.
        wanted: the metrics.
        other: the name of the pictures, where they are none of the run's own, and all of them count;
            None: those count that were held out.
        seed: of what is drawn.

    Raises:
        UserError: a metric that must be cannot be had.
    """
    found: list[Question] = []
    latents = tuple(name for name in wanted.others if METRICS[name].of == "latents")
    if latents:
        found.append(OfEncoder(latents, known_pictures(material.images, settings, other), seed))
    if "accuracy" in wanted.others:
        able = family.classifies and material.labelling is not None
        test = labelled_test(family, material, other) if able or wanted.must else None
        if test is not None and wanted.must:
            test.require()
        if test is not None and (wanted.must or len(test.rows) >= LEAST):
            found.append(OfClasses(test))
    return found


def answers(
    asked: Sequence[Question],
    family: Family[Any],
    device: Device,
    options: Options,
    *,
    circumstances: Mapping[str, Any],
    progress: Progress | None = None,
) -> Told:
    """What a family tells, each figure with its circumstances.

    Args:
        asked: the questions.
        family: its averaged nets in evaluation mode.
        device: where it runs.
        options: what is measured and how.
        circumstances: facts to store with each figure.
        progress: called as progress(what, done, total).

    Raises:
        UserError: an answer would mean nothing.
    """
    figures: list[Figure] = []
    sheets: list[Sheet] = []
    for question in asked:
        began = time.monotonic()
        told = question.ask(family, device, progress)
        facts = facts_of(circumstances, options, time.monotonic() - began, device)
        figures += [replace(figure, circumstances=facts) for figure in told.figures]
        sheets += told.sheets
    return Told(tuple(figures), tuple(sheets))


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
