"""Music as a modality: where reading, previews, figures and models of music meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faussaire.core.batch import RowDraws
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.family import Family
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.modality import Measurer
from faussaire.music.material import MusicMaterial, read_music
from faussaire.music.midi import write_midi
from faussaire.music.picture import sheet
from faussaire.music.spec import Score
from faussaire.previews import Previewer
from faussaire.report.pictures import save_png

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.music.model import MusicModel

_SHOWN = 8


class Music:
    """The modality of what makes phrases of several tracks."""

    noun = "phrases"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> MusicMaterial:
        return read_music(settings.source, settings.data, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> Score:
        lists = ("tracks", "programs", "classes")
        return Score(**{**record, **{name: tuple(record[name]) for name in lists}})

    def previews(
        self, state: State, run: Run, material: MusicMaterial, holdout: float | None, seed: int
    ) -> MusicPreviews:
        return MusicPreviews(state, run, material, seed)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: MusicMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.music.evaluation import MusicMeasurer  # only who measures waits for it

        return MusicMeasurer(state, run, checkpoints, material, settings, stop_asked)

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.music.evaluation import evaluate_music

        return evaluate_music(inquiry)

    def model(self, family: Family[Any], spec: Score, examples: int, device: Device) -> MusicModel:
        from faussaire.music.model import MusicModel

        return MusicModel(family, spec, examples, device)


class MusicPreviews(Previewer):
    """`samples/reals.png` at the start, then phrases of the averaged weights: rolls and a MIDI file.

    The same noise each time. Without pretty_midi, which JSON does not need, there are pictures alone.
    """

    def __init__(self, state: State, run: Run, material: MusicMaterial, seed: int) -> None:
        super().__init__(state, run)
        self._seed = seed
        reals = run.samples / "reals.png"
        if not reals.exists():
            rows = np.linspace(0, len(material) - 1, min(_SHOWN, len(material))).astype(int)
            save_png(sheet(material.rolls[rows], material.spec), reals)

    def leave(self, family: Family[Any], stem: Path) -> None:
        draws = RowDraws.counted(self._seed, _SHOWN, device=self.state.device.name)
        rolls = family.sample(draws).cpu().numpy().astype(np.uint8)
        score: Score = family.spec
        save_png(sheet(rolls, score), stem.with_suffix(".png"))
        if _has_pretty_midi():
            write_midi(stem.with_suffix(".mid"), rolls[0], score)


def _has_pretty_midi() -> bool:
    from importlib.util import find_spec

    return find_spec("pretty_midi") is not None
