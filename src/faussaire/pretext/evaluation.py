"""Measuring self-supervision: the share of answers that are right, on examples that were held out."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, Provenance, choose_metrics
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.evaluation import split_name
from faussaire.material import PictureMaterial
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
from faussaire.pretext.clips import ClipMaterial
from faussaire.pretext.exam import MOST, Exam, marked_sheet

METRIC = "pretext-accuracy"


@torch.no_grad()
def mark(
    family: Family[Any],
    device: Device,
    exam: Exam,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Figure:
    """The share of a family's answers that are right, beside what guessing gets.

    Args:
        family: pretext, with averaged nets in evaluation mode.
        device: where it runs.
        exam: what to ask about.
        progress: called as progress(what, done, total).
    """
    right: list[Tensor] = []
    truths: list[Tensor] = []
    done = 0
    for batch in exam.batches(device):
        progress("asking", done, exam.count)
        done += batch.size
        logits, truth = family.asked(batch)  # pyright: ignore[reportAttributeAccessIssue]
        right.append((logits.argmax(dim=1) == truth).float().cpu())
        truths.append(truth.cpu())
    found, truth = torch.cat(right), torch.cat(truths)
    each: int = family.asked_of_each  # pyright: ignore[reportAttributeAccessIssue]
    answers: Sequence[str] = family.answers  # pyright: ignore[reportAttributeAccessIssue]
    # Questions of one picture are no independent trials: the error is that of the pictures' means.
    means = torch.cat([part.reshape(each, -1).mean(dim=0) for part in right])
    error = means.std().item() / len(means) ** 0.5 if len(means) > 1 else None
    config: Any = family.config
    return Figure(
        provenance=Provenance(
            metric=METRIC,
            count=len(found),
            reference=exam.name,
            reference_count=exam.count,
            reference_key=exam.key,
            whole=exam.whole,
            details=f"{config.task},{len(answers)} answers",
        ),
        value=found.mean().item(),
        error=error,
        given=1.0 / len(answers),
        parts={
            name: found[truth == number].mean().item()
            for number, name in enumerate(answers)
            if (truth == number).any()
        },
    )


def _refuse_others(asked: Any) -> None:
    if asked not in (None, "auto", "all"):
        require_modality(choose_metrics(asked), "pretext", "answers")


class AnswerMeasurer(Measurer):
    """Measures the answers of a run while it trains, on what is held out."""

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: PictureMaterial | ClipMaterial,
        settings: Settings,
        stop_asked: Callable[[], str],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        _refuse_others(settings.training.evaluate_metrics)
        most = min(settings.training.evaluate_count, MOST)
        self._exam = Exam.of(material, settings.data.holdout, most=most)

    @property
    def reference(self) -> str:
        """What is asked about: `held-out`, or `train` where nothing is."""
        return self._exam.name

    @property
    def names(self) -> Sequence[str]:
        return (METRIC,)

    def count(self, name: str) -> int:
        family: Any = self._state.family
        return family.asked_of_each * self._exam.count

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        began = time.monotonic()
        figure = mark(family, self._state.device, self._exam, progress)
        place = place_of(self._run, examples, self._exam.key)
        facts = facts_of(place, Options(), time.monotonic() - began, self._state.device)
        return (dataclasses.replace(figure, circumstances=facts),)


def evaluate_answers(inquiry: Inquiry) -> Evaluation:
    """Measure a run's answers, on what it held out or on another source.

    Raises:
        UserError: no such data, or what is asked for belongs to other data.
    """
    from faussaire.pretext.modality import read_any

    inquiry.refuse_pictures("answers")
    _refuse_others(inquiry.options.metrics)
    began = time.monotonic()
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    notes, tell = inquiry.teller()
    name, data = None, settings.data
    if inquiry.against is not None:
        name = split_name(inquiry.against)
        data = dataclasses.replace(
            data, labels=None, classes="auto", resolution=(model.spec.height, model.spec.width)
        )
        settings = dataclasses.replace(settings, source=inquiry.against, data=data)
    material = read_any(settings, type(model.family), progress=inquiry.progress, preflight=False)
    if material.spec.channels != model.spec.channels:
        raise UserError(
            f"The pictures in '{settings.source}' have {material.spec.channels} channels, and the run "
            f"learnt from {model.spec.channels}.",
            "Give pictures like those that it was trained on.",
        )
    trained_on = run.read("data.json").get("key")
    if name is None and trained_on not in (None, material.key):
        tell(
            f"What lies in '{settings.source}' has changed since the run was trained, and is measured "
            "as it is now."
        )
    exam = Exam.of(material, data.holdout, name=name, most=min(options.count or MOST, MOST))
    if exam.name == "train":
        tell("Nothing was held out: the answers may be known by heart. Train with --holdout.")
    figure = mark(model.family, model.device, exam)
    seconds = time.monotonic() - began
    facts = facts_of(place_of(run, model.examples, material.key), options, seconds, model.device)
    picture = io.BytesIO()
    marked_sheet(model.family, model.device, exam).save(picture, format="PNG")
    return Evaluation(
        title=f"{run.path} at {model.examples:,} examples, {figure.provenance.count:,} questions",
        against=f"{exam.count:,} examples ({exam.name})",
        figures=(dataclasses.replace(figure, circumstances=facts),),
        notes=tuple(notes),
        sheets=(
            Sheet(
                name="questions.png",
                content=picture.getvalue(),
                caption="questions, framed in green where the answer is right and in red where not",
            ),
        ),
        run=run.path,
        seconds=seconds,
    )
