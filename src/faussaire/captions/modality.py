"""Pictures with captions as a modality: where reading, previews, figures and models meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from faussaire.captions.material import CaptionMaterial, read_captioned
from faussaire.captions.spec import Captioned
from faussaire.core.batch import RowDraws
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.family import Family
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.modality import Measurer
from faussaire.observers import preview_count
from faussaire.previews import Previewer
from faussaire.report.captioned import captioned_grid
from faussaire.report.pictures import grid, save_png, to_uint8

if TYPE_CHECKING:
    from faussaire.captions.model import CaptionedModel
    from faussaire.measuring import Evaluation, Inquiry


class Captions:
    """The modality of what makes pictures of words."""

    noun = "pictures"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> CaptionMaterial:
        return read_captioned(settings, kind, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> Captioned:
        return Captioned.of(record)

    def previews(
        self, state: State, run: Run, material: CaptionMaterial, holdout: float | None, seed: int
    ) -> Previews:
        return Previews(state, run, material, holdout, seed)

    def measurer(
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
    ) -> Measurer:
        from faussaire.captions.evaluation import CaptionMeasurer  # only who measures waits for it

        return CaptionMeasurer(
            state, run, checkpoints, material, settings,
            stop_asked=stop_asked, progress=progress, note=note,
        )  # fmt: skip

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.captions.evaluation import evaluate

        return evaluate(inquiry)

    def model(self, family: Any, spec: Captioned, examples: int, device: Device) -> CaptionedModel:
        from faussaire.captions.model import CaptionedModel

        return CaptionedModel(family, spec, examples, device)


class Previews(Previewer):
    """`samples/reals.png` at the start, then a grid with a caption above each row.

    A row begins with a real picture of its caption; the others are made of the same noise each time.
    Half of the captions are of pictures that are not trained on, where there are any.
    """

    ROWS, COLUMNS = 8, 8

    def __init__(
        self,
        state: State,
        run: Run,
        material: CaptionMaterial,
        holdout: float | None,
        seed: int,
    ) -> None:
        super().__init__(state, run)
        self._seed = seed
        rows = max(2, preview_count(state.family.spec, self.COLUMNS) // self.COLUMNS)
        train, held = material.split(holdout)[0]
        unseen = _spread(held, min(rows // 2, len(held)))
        chosen = np.concatenate([_spread(train, min(rows - len(unseen), len(train))), unseen])
        self._pictures = np.asarray(material.images.pixels[chosen])
        marks = [
            "" if row < len(chosen) - len(unseen) else " (held out)" for row in range(len(chosen))
        ]
        self._captions = [
            material.of(int(picture))[0] + mark for picture, mark in zip(chosen, marks, strict=True)
        ]
        texts = material.texts[material.which[chosen, 0]]
        self._texts = torch.from_numpy(texts).repeat_interleave(self.COLUMNS - 1, dim=0)
        reals = run.samples / "reals.png"
        if not reals.exists():
            count = preview_count(state.family.spec, 8)
            some = _spread(np.arange(len(material)), min(count, len(material)))
            save_png(grid(np.asarray(material.images.pixels[some]), columns=8), reals)

    def leave(self, family: Family[Any], stem: Path) -> None:
        device = self.state.device.name
        draws = RowDraws.counted(self._seed, len(self._texts), device=device)
        made = to_uint8(family.sample(draws, labels=self._texts.to(device)).float().cpu())
        made = made.reshape(len(self._pictures), self.COLUMNS - 1, *made.shape[1:])
        rows = [
            np.concatenate([real[None], some])
            for real, some in zip(self._pictures, made, strict=True)
        ]
        save_png(captioned_grid(rows, self._captions), stem.with_suffix(".png"))


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Some of these rows, evenly."""
    if count == 0:
        return rows[:0]
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]
