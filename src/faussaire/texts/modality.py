"""Texts as a modality: where reading, previews, figures and models of sentences meet the engine."""

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
from faussaire.core.files import replace_file
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.modality import Measurer
from faussaire.previews import Previewer
from faussaire.texts.corpus import Corpus
from faussaire.texts.tokens import TextSpec

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.texts.model import TextModel

_SHOWN = 40


class Texts:
    """The modality of what writes sentences."""

    noun = "sentences"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> Corpus:
        return Corpus.read(settings.source, settings.data, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> TextSpec:
        return TextSpec.of(record)

    def previews(
        self, state: State, run: Run, material: Corpus, holdout: float | None, seed: int
    ) -> Previews:
        return Previews(state, run, material, seed)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: Corpus,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.texts.evaluation import TextMeasurer  # only who measures waits for it

        return TextMeasurer(state, run, checkpoints, material, settings, stop_asked)

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.texts.evaluation import evaluate

        return evaluate(inquiry)

    def model(self, family: Any, spec: TextSpec, examples: int, device: Device) -> TextModel:
        from faussaire.texts.model import TextModel

        return TextModel(family, spec, examples, device)


class Previews(Previewer):
    """`samples/reals.txt` at the start, then what the averaged weights write, of the same draws."""

    def __init__(self, state: State, run: Run, material: Corpus, seed: int) -> None:
        super().__init__(state, run)
        self._seed = seed
        reals = run.samples / "reals.txt"
        if not reals.exists():
            rows = np.linspace(0, len(material) - 1, min(_SHOWN, len(material))).astype(int)
            _write(reals, material.spec.decode(material.tokens[rows]))

    def leave(self, family: Family[Any], stem: Path) -> None:
        draws = RowDraws.counted(self._seed, _SHOWN, device=self.state.device.name)
        with torch.no_grad():
            tokens = family.sample(draws).cpu()
        _write(stem.with_suffix(".txt"), family.spec.decode(tokens))


def _write(path: Path, sentences: list[str]) -> None:
    replace_file(path, "\n".join(sentences) + "\n")
