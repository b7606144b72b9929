"""Measuring what makes pictures of words: the figures of pictures, and whether these follow captions."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from faussaire.captions.material import CaptionMaterial, read_captioned
from faussaire.captions.measures import (
    AMONG,
    EACH,
    Questions,
    Share,
    matched,
    names_measured,
    r_precision,
    seen_and_new,
    variety,
)
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import METRICS, OF_SETS, Figure, Provenance, choose_metrics, metrics_of
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
    find_extractor,
    measure,
    place_of,
    require_modality,
)
from faussaire.metrics.bench import FEATURE_METRICS, Bench
from faussaire.metrics.perceptual import open_perceptual
from faussaire.metrics.pictures import Packed, Samples, shuffled_rows
from faussaire.report.captioned import captioned_grid
from faussaire.report.pictures import to_uint8
from faussaire.sampling import sample_rows

_PICTURES = 1_000
"""Pictures that are made of captions that are trained on, and of others, where nobody says."""
_VARIED = 32
assert {*names_measured()} == {*metrics_of("captions")}


class Answers:
    """What a family makes of the captions of a set, and the figures of it.

    Args:
        family: with averaged nets, in evaluation mode.
        device: where it runs.
        material: the data.
        holdout: share of it that is held out.
        count: pictures to make of captions, of either kind.
        seed: of all draws.
        progress: called as progress(what, done, total).
    """

    def __init__(
        self,
        family: Any,
        device: Device,
        material: CaptionMaterial,
        holdout: float | None,
        *,
        count: int,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.family, self.device, self.material = family, device, material
        self.progress = progress
        self.seen, self.new = seen_and_new(material, holdout, count=count, seed=seed)

    @cached_property
    def of_seen(self) -> Tensor:
        """Pictures of captions that are trained on."""
        return self.seen.made(self.family, self.device, self.progress)

    @cached_property
    def of_new(self) -> Tensor:
        """Pictures of captions that are not."""
        assert self.new is not None
        return self.new.made(self.family, self.device, self.progress)

    def require(self, name: str) -> None:
        """Refuse a metric that cannot be measured, before any time is spent on it.

        Raises:
            UserError: there are no such captions, or too few.
        """
        if name.endswith("-new") and self.new is None:
            raise UserError(
                f"{name} is of captions that no trained picture has, and there are none.",
                "Hold out more pictures when training: --holdout 0.1.",
            )
        if name.startswith("r-precision"):
            self.seen.require(AMONG - 1)

    def figure(self, name: str) -> Figure:
        """One of the metrics of captions.

        Raises:
            UserError: there are no such captions, or too few.
        """
        self.require(name)
        new = name.endswith("-new")
        questions, pictures = self.seen, lambda: self.of_seen
        if new:
            assert self.new is not None
            questions, pictures = self.new, lambda: self.of_new
        if name == "caption-variety":
            captions = min(_VARIED, len(np.unique(questions.captions)))
            if captions < 2:
                raise UserError(
                    "caption-variety compares captions, and there is one.", "Give more."
                )
            value = variety(self.family, self.device, questions, captions)
            return Figure(
                provenance=self._provenance(name, captions * EACH, questions, f"{EACH} a caption"),
                value=value,
            )
        found: Share
        if name.startswith("r-precision"):
            found = r_precision(self.family, self.device, questions, pictures())
            details = f"1 of {AMONG}"
        else:
            found = matched(self.family, self.device, questions, pictures())
            details = ""
        return Figure(
            provenance=self._provenance(name, found.count, questions, details),
            value=found.value,
            error=found.error,
            real=found.real,
            real_counts=f"{found.count} real pictures",
        )

    def _provenance(self, name: str, count: int, questions: Questions, details: str) -> Provenance:
        height, width, channels = self.material.images.pixels.shape[1:]
        return Provenance(
            metric=name,
            # The ruler is the run's own eye, which other runs have not.
            extractor="own-eye" if name.startswith("r-precision") else "",
            count=count,
            reference="held-out" if name.endswith("-new") else "train",
            reference_count=len(questions.pool),
            reference_key=self.material.key,
            pictures=f"{height}x{width}x{channels}",
            details=details,
        )


def captioned_samples(
    family: Family[Any],
    device: Device,
    material: CaptionMaterial,
    rows: np.ndarray,
    count: int,
    seed: int,
) -> Samples:
    """Samples of a family, of captions of these pictures in a random order, one a picture."""
    order = rows[shuffled_rows(len(rows))]
    captions = material.which[order[np.arange(count) % len(order)], 0]
    return Samples(family, device.name, count, seed, material.texts[captions])


def _divided(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Metrics of sets of pictures, and those of captions.

    Raises:
        UserError: one is of other data, or of pairs.
    """
    of_words = tuple(name for name in names if METRICS[name].modality == "captions")
    of_sets = tuple(name for name in names if name not in of_words)
    require_modality(of_sets, "pictures", "pictures")
    return of_sets, of_words


def evaluate(inquiry: Inquiry) -> Evaluation:
    """Measure a run that makes pictures of words.

    Raises:
        UserError: no pictures, or a figure that would mean nothing.
    """
    began = time.monotonic()
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    if inquiry.target is not None or inquiry.classes is not None:
        flag = "target" if inquiry.target is not None else "classes"
        raise UserError(f"{settings.family} has captions, and no {flag}.", f"Leave --{flag} out.")
    if inquiry.against is not None:
        raise UserError(
            f"{settings.family} makes pictures of captions, and those of '{inquiry.against}' are not "
            "known.",
            "Leave --against out; `faussaire evaluate --fake made/ --real pictures/` compares folders.",
        )
    remarks, tell = inquiry.teller()
    spec = model.spec
    material = read_captioned(
        settings, type(model.family), progress=inquiry.progress, preflight=False, trained=spec
    )
    trained_on = run.read("data.json").get("key")
    if trained_on not in (None, material.key):
        tell(
            f"The pictures or captions of '{settings.source}' have changed since the run was trained, "
            "and they are measured as they are now."
        )
    everything = options.metrics == "all"
    asked = () if options.metrics is None else choose_metrics(options.metrics, _known())
    of_sets, of_words = _divided(asked)
    answers = Answers(
        model.family,
        model.device,
        material,
        settings.data.holdout,
        count=min(options.count or _PICTURES, 10_000),
        seed=options.seed,
        progress=inquiry.progress,
    )
    if not asked or everything:
        of_words = _possible(answers, tell)
    for name in of_words:
        answers.require(name)
    figures: list[Figure] = []
    notes: list[str] = []
    place = place_of(run, model.examples, trained_on or "")
    neighbours = None
    if of_sets or not asked:
        count = options.samples(model.device)
        train, _ = material.split(settings.data.holdout)[0]
        found = measure(
            captioned_samples(model.family, model.device, material, train, count, options.seed),
            Packed(material.images, "train", options.reference(model.device)),
            dataclasses.replace(options, metrics="all" if everything else of_sets or None),
            device=model.device,
            circumstances=place,
            progress=inquiry.progress,
            note=inquiry.note,
        )
        figures, neighbours = [*found.figures], found.neighbours
        notes += found.notes
    if of_words:
        words = [answers.figure(name) for name in of_words]
        facts = facts_of(place, options, time.monotonic() - began, model.device)
        figures += [dataclasses.replace(one, circumstances=facts) for one in words]
    return Evaluation(
        title=f"{run.path} at {model.examples:,} examples, seed {options.seed}",
        against=f"{len(material):,} pictures with {len(material.captions):,} captions",
        figures=tuple(figures),
        notes=(*remarks, *notes),
        neighbours=neighbours,
        sheets=_sheets(answers),
        run=run.path,
        seconds=time.monotonic() - began,
    )


def _known() -> tuple[str, ...]:
    return (*OF_SETS, *names_measured())


def _possible(answers: Answers, tell: Callable[[str], None]) -> tuple[str, ...]:
    """The metrics of captions that can be measured; why the others cannot is told."""
    found, told = [], set()
    for name in names_measured():
        try:
            answers.require(name)
        except UserError as error:
            if error.hint not in told:
                told.add(error.hint)
                tell(f"Left out: {error}")
        else:
            found.append(name)
    return tuple(found)


def _sheets(answers: Answers) -> tuple[Sheet, ...]:
    """Some captions of both kinds with what is made of them, a real picture first."""
    sheets = []
    for name, questions, what in (
        ("captions.png", answers.seen, "captions that are trained on"),
        ("new-captions.png", answers.new, "captions that no trained picture has"),
    ):
        if questions is None:
            continue
        rows, titles = [], []
        some = min(8, len(questions))
        device = answers.device
        for at in range(some):
            labels = questions.texts(questions.captions[at : at + 1])
            one = _several(answers.family, device, labels, questions.seed)
            rows.append(np.concatenate([to_uint8(questions.reals()[at : at + 1]), one]))
            titles.append(answers.material.captions[questions.captions[at]])
        file = io.BytesIO()
        captioned_grid(rows, titles).save(file, format="PNG")
        caption = f"Pictures of {what}; the first of each row is real."
        sheets.append(Sheet(name=name, content=file.getvalue(), caption=caption))
    return tuple(sheets)


def _several(family: Any, device: Device, label: Tensor, seed: int) -> np.ndarray:
    rows = [(seed, row) for row in range(7)]
    return to_uint8(sample_rows(family, device, rows, labels=label.repeat(7, 1)))


class CaptionMeasurer(Measurer):
    """Measures a run of words and pictures while it trains.

    Args:
        state, run, checkpoints, material, settings: of the run.
        stop_asked: tells whether training should end.
        progress: called as progress(what, done, total), at first.
        note: called with sentences, at first.

    Raises:
        UserError: what is asked for cannot be measured.
    """

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: CaptionMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        training = settings.training
        self._material, self._holdout = material, settings.data.holdout
        self._count = training.evaluate_count
        asked = training.evaluate_metrics
        names = choose_metrics("fid,r-precision" if asked == "auto" else asked, _known())
        self._of_sets, self._of_words = _divided(names)
        options = Options(
            metrics=self._of_sets,
            count=self._count,
            extractor=training.extractor,
            weights=training.weights,
        )
        extractor = None
        if FEATURE_METRICS & {*self._of_sets}:
            extractor = find_extractor(options, state.device, note, progress)
        self._options = dataclasses.replace(options, extractor=extractor or "auto")
        self._chosen = names
        self._reals = Packed(material.images, "train", options.reference(state.device))
        if self._of_sets:
            with state.sampling() as family:
                bench = Bench(
                    self._samples(family),
                    self._reals,
                    extractor,
                    device=state.device,
                    perceptual=lambda: open_perceptual(options.weights, state.device.name),
                    progress=progress,
                )
                bench.refuse(self._of_sets)
        if self._of_words:
            with state.sampling() as family:
                answers = Answers(family, state.device, material, self._holdout, count=1, seed=0)
                for name in self._of_words:
                    answers.require(name)

    def _samples(self, family: Family[Any]) -> Samples:
        train, _ = self._material.split(self._holdout)[0]
        return captioned_samples(
            family, self._state.device, self._material, train, self._count, self._options.seed
        )

    @property
    def names(self) -> Sequence[str]:
        return self._chosen

    @property
    def extractor(self) -> str:
        chosen = self._options.extractor
        return "" if isinstance(chosen, str) else chosen.name

    def count(self, name: str) -> int | None:
        if name == "caption-variety":
            return None
        return min(self._count, _PICTURES) if name in self._of_words else self._count

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        device = self._state.device
        place = place_of(self._run, examples, self._material.key)
        figures: dict[str, Figure] = {}
        if self._of_sets:
            found = measure(
                self._samples(family),
                self._reals,
                self._options,
                device=device,
                circumstances=place,
                progress=progress,
            )
            figures |= {one.provenance.metric: one for one in found.figures}
        if self._of_words:
            began = time.monotonic()
            answers = Answers(
                family,
                device,
                self._material,
                self._holdout,
                count=min(self._count, _PICTURES),
                seed=self._options.seed,
                progress=progress,
            )
            words = [answers.figure(name) for name in self._of_words]
            facts = facts_of(place, self._options, time.monotonic() - began, device)
            figures |= {
                one.provenance.metric: dataclasses.replace(one, circumstances=facts)
                for one in words
            }
        return tuple(figures[name] for name in self._chosen)
