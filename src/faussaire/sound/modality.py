"""Sound as a modality: where reading, previews, figures and models of sound meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from faussaire.core.batch import RowDraws
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.family import Family
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.modality import Measurer
from faussaire.previews import Previewer
from faussaire.report.pictures import save_png
from faussaire.sound.material import SoundMaterial, read_sound
from faussaire.sound.mel import sheet
from faussaire.sound.spec import Sound
from faussaire.sound.waves import write_wave

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.sound.model import SoundModel

_SHOWN, _PAUSE = 16, 0.15


class Sounds:
    """The modality of what makes short clips of sound."""

    noun = "clips"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> SoundMaterial:
        return read_sound(settings.source, settings.data, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> Sound:
        return Sound(**{**record, "classes": tuple(record["classes"])})

    def previews(
        self, state: State, run: Run, material: SoundMaterial, holdout: float | None, seed: int
    ) -> SoundPreviews:
        return SoundPreviews(state, run, material, seed)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: SoundMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.sound.evaluation import SoundMeasurer  # only who measures waits for it

        return SoundMeasurer(state, run, checkpoints, material, settings, stop_asked)

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.sound.evaluation import evaluate_sound

        return evaluate_sound(inquiry)

    def model(self, family: Family[Any], spec: Sound, examples: int, device: Device) -> SoundModel:
        from faussaire.sound.model import SoundModel

        return SoundModel(family, spec, examples, device)


class SoundPreviews(Previewer):
    """`samples/reals.png` at the start, then clips of the averaged weights: spectrograms and a WAV.

    The same noise each time, and each class in turn; the WAV has them one after the other.
    """

    def __init__(self, state: State, run: Run, material: SoundMaterial, seed: int) -> None:
        super().__init__(state, run)
        self._seed = seed
        reals = run.samples / "reals.png"
        if not reals.exists():
            rows = np.linspace(0, len(material) - 1, min(_SHOWN, len(material))).astype(int)
            waves = material.waves[rows] / np.float32(32768.0)
            save_png(sheet(waves, material.spec.rate), reals)
            write_wave(reals.with_suffix(".wav"), one_after_another(waves, material.spec.rate),
                       material.spec.rate)  # fmt: skip

    def leave(self, family: Family[Any], stem: Path) -> None:
        spec: Sound = family.spec
        place = self.state.device.name
        labels = None
        if getattr(family.config, "conditional", False):
            labels = torch.arange(_SHOWN, device=place) % len(spec.classes)
        draws = RowDraws.counted(self._seed, _SHOWN, device=place)
        waves = family.sample(draws, labels=labels).float().cpu().numpy()
        save_png(sheet(waves, spec.rate), stem.with_suffix(".png"))
        write_wave(stem.with_suffix(".wav"), one_after_another(waves, spec.rate), spec.rate)


def one_after_another(waves: np.ndarray, rate: int) -> np.ndarray:
    """Clips (N, L) with a pause behind each, as one wave."""
    return np.pad(waves, ((0, 0), (0, round(_PAUSE * rate)))).reshape(-1)
