"""Self-supervision as a modality: pictures or clips in, answers measured, features out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.material import PictureMaterial, read_material
from faussaire.modality import Measurer
from faussaire.pretext.clips import ClipMaterial, read_clips
from faussaire.pretext.exam import Exam, marked_sheet
from faussaire.previews import Previewer
from faussaire.report.pictures import grid, save_png

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.pretext.model import PretextModel

_REALS = 32


def read_any(
    settings: Settings,
    kind: type[Family[Any]],
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> PictureMaterial | ClipMaterial:
    """Clips for the order of time, else pictures.

    Raises:
        UserError: nothing usable, or a setting that does not fit.
    """
    if settings.model.task == "order":
        for name in ("flip", "margin", "labels"):
            if getattr(settings.data, name):
                raise UserError(
                    f"--{name} is for pictures, and the order of time is learnt from clips.",
                    "Leave it out.",
                )
        return read_clips(settings.source, settings.data, progress=progress, preflight=preflight)
    for name in ("span", "apart"):
        if getattr(settings.data, name) is not None:
            raise UserError(
                f"--{name} counts frames of clips, and --task {settings.model.task} reads pictures.",
                "Leave it out, or add --task order.",
            )
    return read_material(settings, kind, progress=progress, preflight=preflight)


class Questions:
    """The modality of what learns to see by answering questions."""

    noun = "answers"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> PictureMaterial | ClipMaterial:
        return read_any(settings, kind, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> Pictures:
        return Pictures(**{**record, "classes": tuple(record["classes"])})

    def previews(
        self,
        state: State,
        run: Run,
        material: PictureMaterial | ClipMaterial,
        holdout: float | None,
        seed: int,
    ) -> QuestionPreviews:
        return QuestionPreviews(state, run, material, holdout)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: PictureMaterial | ClipMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.pretext.evaluation import AnswerMeasurer

        measurer = AnswerMeasurer(state, run, checkpoints, material, settings, stop_asked)
        if measurer.reference == "train":
            note("Nothing is held out, so answers are measured on what is trained on (--holdout).")
        return measurer

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.pretext.evaluation import evaluate_answers

        return evaluate_answers(inquiry)

    def model(
        self, family: Family[Any], spec: Pictures, examples: int, device: Device
    ) -> PretextModel:
        from faussaire.pretext.model import PretextModel

        return PretextModel(family, spec, examples, device)


class QuestionPreviews(Previewer):
    """`samples/reals.png` at the start, then questions that were held out, framed by right and wrong."""

    def __init__(
        self,
        state: State,
        run: Run,
        material: PictureMaterial | ClipMaterial,
        holdout: float | None,
    ) -> None:
        super().__init__(state, run)
        self._exam = Exam.of(material, holdout)
        reals = run.samples / "reals.png"
        if not reals.exists():
            clips = isinstance(material, ClipMaterial)
            images = material.packed.values if clips else material.images.pixels
            rows = np.linspace(0, len(images) - 1, min(_REALS, len(images))).astype(int)
            save_png(grid(np.asarray(images[rows]), columns=8), reals)

    def leave(self, family: Family[Any], stem: Path) -> None:
        sheet = marked_sheet(family, self.state.device, self._exam)
        save_png(sheet, stem.with_suffix(".png"))
