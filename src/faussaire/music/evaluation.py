"""Measuring what makes music: the figures of its phrases beside those of the data and of noise."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

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
from faussaire.music import metrics
from faussaire.music.material import MusicMaterial, read_music
from faussaire.music.picture import sheet
from faussaire.music.spec import Score
from faussaire.sampling import sample_rows, seeded_rows

_COUNT = 500
_REFERENCES = 2_000
_KEYS = {
    "empty-bars": "empty_bars",
    "pitch-classes": "used_pitch_classes",
    "qualified-notes": "qualified_notes",
    "polyphony": "polyphony",
    "drum-pattern": "drum_pattern",
    "tonal-distance": "tonal_distance",
}
assert {"music-gap", *_KEYS} == {*metrics_of("music")}


@dataclass(frozen=True)
class Reference:
    """Real phrases that samples are measured by.

    Attributes:
        name: `held-out`, `train`, or the name of another source.
        key: of the contents.
        score: their form.
        rolls: uint8 (N, bars, steps, pitches, tracks).
        whole: phrases that there are; `rolls` may be some of them.
    """

    name: str
    key: str
    score: Score
    rolls: np.ndarray
    whole: int

    @classmethod
    def of(cls, material: MusicMaterial, holdout: float | None) -> Reference:
        """The held-out phrases, or all of them where none are held out; at most 2,000."""
        train, unseen = material.split(holdout)[0]
        name, rows = ("held-out", unseen) if len(unseen) else ("train", train)
        some = rows[np.linspace(0, len(rows) - 1, min(_REFERENCES, len(rows))).astype(int)]
        return cls(name, material.key, material.spec, material.rolls[some], len(rows))

    @cached_property
    def figures(self) -> dict[str, dict[str, float]]:
        """Those of the real phrases."""
        return metrics.measure(self.rolls, self.score)

    @cached_property
    def noise(self) -> dict[str, dict[str, float]]:
        """Those of Bernoulli noise of each track's density."""
        return metrics.measure(metrics.noise_like(self.rolls, 200, seed=0), self.score)


def gap(
    found: Mapping[str, Mapping[str, float]],
    real: Mapping[str, Mapping[str, float]],
    noise: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """By figure, how far it lies from the data's in units of how far noise does.

    What is missing, a track that never plays, counts as noise. A figure by which noise and data do not
    differ is left out.
    """
    apart, unit = metrics.discrepancy(found, real), metrics.discrepancy(noise, real)
    return {
        name: apart[name] / unit[name] if math.isfinite(apart[name]) else 1.0
        for name in real
        if math.isfinite(unit[name]) and unit[name] > 1e-3
    }


def measure(
    family: Family[Any],
    device: Device,
    reference: Reference,
    names: Sequence[str],
    *,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Figure, ...]:
    """Figures of a family of music, in the order of their names.

    Args:
        family: with averaged nets, in evaluation mode.
        device: where it runs.
        reference: real phrases.
        names: of metrics.
        count: phrases that are sampled.
        seed: of the samples.
        progress: called as progress(what, done, total).
    """
    if progress is not None:
        progress("sampling", 0, 1)
    rolls = sample_rows(family, device, seeded_rows(count, seed, None, 0)).numpy().astype(np.uint8)
    if progress is not None:
        progress("measuring", 0, 1)
    found = metrics.measure(rolls, reference.score)

    def figure(name: str) -> Figure:
        provenance = Provenance(
            metric=name,
            count=count,
            reference=reference.name,
            reference_count=len(reference.rolls),
            reference_key=reference.key,
            whole=len(reference.rolls) == reference.whole,
            details=f"{reference.score.bars} bars",
        )
        if name == "music-gap":
            parts = gap(found, reference.figures, reference.noise)
            value = float(np.mean([*parts.values()])) if parts else 1.0
            return Figure(provenance=provenance, value=value, real=0.0, parts=parts)
        key = _KEYS[name]
        parts, real = found.get(key, {}), reference.figures[key]
        # A track that never plays has no such figure; where none does, it is said to be 0.
        value = float(np.mean([*parts.values()])) if parts else 0.0
        return Figure(
            provenance=provenance,
            value=value,
            real=float(np.mean([*real.values()])),
            real_counts=str(len(reference.rolls)),
            parts=parts,
        )

    return tuple(figure(name) for name in names)


def usable(reference: Reference) -> tuple[str, ...]:
    """The metrics that mean something for this music: drums need drums, distance two tracks."""
    return ("music-gap", *(name for name, key in _KEYS.items() if key in reference.figures))


def _chosen(asked: Any, reference: Reference) -> tuple[str, ...]:
    known = usable(reference)
    if asked in (None, "all", "auto"):
        return known
    names = choose_metrics(asked)
    require_modality(names, "music", "phrases")
    for name in names:
        if name not in known:
            raise UserError(
                f"{name} means nothing for the tracks {', '.join(reference.score.tracks)}.",
                f"There are: {', '.join(known)}.",
            )
    return names


class MusicMeasurer(Measurer):
    """Measures a run of music while it trains; the gap decides where nobody says otherwise."""

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: MusicMaterial,
        settings: Settings,
        stop_asked: Callable[[], str],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        self._reference = Reference.of(material, settings.data.holdout)
        self._names = _chosen(settings.training.evaluate_metrics, self._reference)
        self._count = min(settings.training.evaluate_count, _COUNT)

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
            progress=progress,
        )
        place = place_of(self._run, examples, self._reference.key)
        facts = facts_of(place, Options(), time.monotonic() - began, self._state.device)
        return tuple(dataclasses.replace(one, circumstances=facts) for one in figures)


def evaluate_music(inquiry: Inquiry) -> Evaluation:
    """Measure a run of music against phrases that were held out, or another source's.

    Raises:
        UserError: no music, or what is asked for belongs to other data.
    """
    inquiry.refuse_pictures("phrases")
    began = time.monotonic()
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    notes, tell = inquiry.teller()

    source = inquiry.against or settings.source
    material = read_music(source, settings.data, progress=inquiry.progress, preflight=False)
    if material.spec.shape != model.spec.shape or material.spec.tracks != model.spec.tracks:
        raise UserError(
            f"'{source}' has the tracks {', '.join(material.spec.tracks)} in phrases of "
            f"{material.spec.shape}, and the model makes {', '.join(model.spec.tracks)} in "
            f"{model.spec.shape}.",
            "Measure against music of the same tracks.",
        )
    if inquiry.against is None:
        trained_on = run.read("data.json").get("key")
        if trained_on not in (None, material.key):
            tell(
                f"The music in '{source}' has changed since the run was trained, and it is measured "
                "as it is now."
            )
        reference = Reference.of(material, settings.data.holdout)
    else:
        reference = dataclasses.replace(Reference.of(material, 0.0), name=Path(source).stem)
    names = _chosen(options.metrics, reference)
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
    beside = np.concatenate([model.sample(8, seed=options.seed), reference.rolls[:8]])
    sheet(beside, model.spec).save(picture, format="PNG")
    return Evaluation(
        title=f"{run.path} at {model.examples:,} examples, {count:,} phrases, seed {options.seed}",
        against=f"{len(reference.rolls):,} phrases ({reference.name})",
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in figures),
        notes=tuple(notes),
        sheets=(
            Sheet(
                name="rolls.png",
                content=picture.getvalue(),
                caption="eight phrases of the model, and below them eight of the data",
            ),
        ),
        run=run.path,
        seconds=seconds,
    )
