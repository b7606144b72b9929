"""Measuring what makes sound: log-mel statistics, nearest recordings, and an own classifier's score."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, Provenance, choose_metrics, metrics_of
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.measurer import Measurer
from faussaire.measuring import (
    Evaluation,
    Inquiry,
    Options,
    Sheet,
    facts_of,
    place_of,
    require_modality,
)
from faussaire.sampling import sample_rows, seeded_rows
from faussaire.sound.classifier import BATCH, STEPS, Ear, inception_score, teach
from faussaire.sound.material import SoundMaterial, read_sound
from faussaire.sound.mel import mel_distance, nearest_distance, sheet

_COUNT = 500
_REFERENCES = 1_000
assert {"log-mel", "mel-nearest", "class-score", "class-kept"} == {*metrics_of("sound")}


@dataclass(frozen=True)
class Reference:
    """Real clips that samples are measured by.

    Attributes:
        name: `held-out`, `train`, or the name of another source.
        key: of the contents.
        material: the clips.
        known: rows that are trained on, (M,).
        judged: rows that samples are compared with, (N,).
    """

    name: str
    key: str
    material: SoundMaterial
    known: np.ndarray
    judged: np.ndarray

    @classmethod
    def of(cls, material: SoundMaterial, holdout: float | None) -> Reference:
        """Samples are compared with all clips that are trained on."""
        train, _ = material.split(holdout)[0]
        return cls("train", material.key, material, train, _some(train, _REFERENCES))

    @cached_property
    def waves(self) -> np.ndarray:
        """The clips that samples are compared with, (N, L) in [-1, 1]."""
        return self.clips(self.judged)

    def clips(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the data as float32 (K, L) in [-1, 1]."""
        return self.material.waves[rows].astype(np.float32) / np.float32(32768.0)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Real clips in two parts, between which figures are taken as of samples."""
        order = np.random.default_rng(0).permutation(len(self.waves))
        middle = len(order) // 2
        return self.waves[order[:middle]], self.waves[order[middle:]]

    def ear(self, progress: Progress | None = None) -> Ear:
        """A classifier taught three quarters of the clips, and tried on the rest."""
        labels = self.material.labels
        assert labels is not None
        rows = np.random.default_rng(1).permutation(self.known)
        cut = len(rows) // 4
        own, rest = rows[cut:], rows[:cut]
        return teach(
            self.clips(own),
            labels[own],
            len(self.material.spec.classes),
            self.material.spec.rate,
            test=(self.clips(rest), labels[rest]),
            steps=max(60, min(STEPS, 25 * len(own) // BATCH)),  # some 25 times through few clips
            progress=progress,
        )


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def measure(
    family: Family[Any],
    device: Device,
    reference: Reference,
    names: Sequence[str],
    *,
    count: int,
    seed: int,
    ear: Ear | None = None,
    progress: Progress | None = None,
) -> tuple[Figure, ...]:
    """Figures of a family of sound, in the order of their names.

    Args:
        family: with averaged nets, in evaluation mode.
        device: where it runs.
        reference: real clips.
        names: of metrics.
        count: clips that are sampled.
        seed: of the samples.
        ear: for the scores by class; None: one is taught, where they are asked for.
        progress: called as progress(what, done, total).
    """
    classes = reference.material.spec.classes
    labels = None
    if getattr(family.config, "conditional", False):
        labels = torch.arange(count) % len(classes)
    if progress is not None:
        progress("sampling", 0, 1)
    rows = seeded_rows(count, seed, None, 0)
    waves = sample_rows(family, device, rows, labels=labels).numpy()
    if {"class-score", "class-kept"} & {*names}:
        ear = ear or reference.ear(progress)
    if progress is not None:
        progress("measuring", 0, 1)

    def figure(name: str) -> Figure:
        rate, details = reference.material.spec.rate, ""
        one, two = reference.halves
        if name == "log-mel":
            value, real = mel_distance(waves, reference.waves, rate), mel_distance(one, two, rate)
            details = "dB"
        elif name == "mel-nearest":
            value = nearest_distance(waves, reference.waves, rate)
            real, details = nearest_distance(one[:200], two, rate), "dB"
        else:
            assert ear is not None
            told = ear(waves)
            details = f"own,{ear.accuracy:.0%} of {ear.unseen} right"
            if name == "class-score":
                value, real = inception_score(told), inception_score(ear(reference.waves))
            else:
                assert labels is not None
                value = float((told.argmax(axis=1) == labels.numpy()).mean())
                real = ear.accuracy
        return Figure(
            provenance=Provenance(
                metric=name,
                count=count,
                reference=reference.name,
                reference_count=len(reference.judged),
                reference_key=reference.key,
                whole=len(reference.judged) == len(reference.known),
                details=details,
            ),
            value=value,
            real=real,
            real_counts=f"{len(one)}/{len(two)}",
        )

    return tuple(figure(name) for name in names)


def usable(reference: Reference, family: Family[Any]) -> tuple[str, ...]:
    """The metrics that mean something here: scores by class need classes."""
    found = ["log-mel", "mel-nearest"]
    classes = reference.material.spec.classes
    if len(classes) > 1 and len(reference.known) >= 20 * len(classes):
        found.append("class-score")
        if getattr(family.config, "conditional", False):
            found.append("class-kept")
    return tuple(found)


def _chosen(asked: Any, reference: Reference, family: Family[Any]) -> tuple[str, ...]:
    known = usable(reference, family)
    if asked in (None, "all"):
        return known
    names = choose_metrics(asked)
    require_modality(names, "sound", "clips")
    for name in names:
        if name not in known:
            raise UserError(
                f"{name} needs classes, 20 clips of each at least, and class-kept a model that was "
                "trained by class.",
                f"There are: {', '.join(known)}.",
            )
    return names


class SoundMeasurer(Measurer):
    """Measures a run of sound while it trains; the log-mel distance decides unless told."""

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: SoundMaterial,
        settings: Settings,
        stop_asked: Callable[[], str],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        asked = settings.training.evaluate_metrics
        self._reference = Reference.of(material, settings.data.holdout)
        self._names = _chosen(
            "log-mel" if asked == "auto" else asked, self._reference, state.family
        )
        self._count = min(settings.training.evaluate_count, _COUNT)
        self._ear = None
        if {"class-score", "class-kept"} & {*self._names}:
            self._ear = self._reference.ear()

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def count(self, name: str) -> int:
        return self._count

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        began = time.monotonic()
        figures = measure(
            family,
            self._state.device,
            self._reference,
            self._names,
            count=self._count,
            seed=0,
            ear=self._ear,
            progress=progress,
        )
        place = place_of(self._run, examples, self._reference.key)
        facts = facts_of(place, Options(), time.monotonic() - began, self._state.device)
        return tuple(dataclasses.replace(one, circumstances=facts) for one in figures)


def evaluate_sound(inquiry: Inquiry) -> Evaluation:
    """Measure a run of sound against the recordings that it was trained on, or another source's.

    Raises:
        UserError: no recordings, or what is asked for belongs to other data.
    """
    inquiry.refuse_pictures("clips")
    began = time.monotonic()
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    notes, tell = inquiry.teller()

    source = inquiry.against or settings.source
    material = read_sound(source, settings.data, progress=inquiry.progress, preflight=False)
    if inquiry.against is None:
        trained_on = run.read("data.json").get("key")
        if trained_on not in (None, material.key):
            tell(
                f"The recordings in '{source}' have changed since the run was trained, and they are "
                "measured as they are now."
            )
        reference = Reference.of(material, settings.data.holdout)
    else:
        reference = dataclasses.replace(Reference.of(material, 0.0), name=Path(source).stem)
        if material.spec.classes != model.spec.classes:
            tell("The classes are not those of the model: no figure by class is taken.")
            bare = dataclasses.replace(material.spec, classes=())
            reference = dataclasses.replace(
                reference, material=dataclasses.replace(material, spec=bare)
            )
    names = _chosen(options.metrics, reference, model.family)
    count = options.count or _COUNT
    figures = measure(
        model.family,
        model.device,
        reference,
        names,
        count=count,
        seed=options.seed,
        progress=inquiry.progress,
    )
    seconds = time.monotonic() - began
    facts = facts_of(place_of(run, model.examples, material.key), options, seconds, model.device)
    picture = io.BytesIO()
    beside = np.concatenate([model.sample(8, seed=options.seed), reference.waves[:8]])
    sheet(beside, model.spec.rate).save(picture, format="PNG")
    return Evaluation(
        title=f"{run.path} at {model.examples:,} examples, {count:,} clips, seed {options.seed}",
        against=f"{len(reference.judged):,} clips ({reference.name})",
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in figures),
        notes=tuple(notes),
        sheets=(
            Sheet(
                name="spectrograms.png",
                content=picture.getvalue(),
                caption="eight clips of the model, and below them eight recordings",
            ),
        ),
        run=run.path,
        seconds=seconds,
    )
