"""Pictures as a modality: where reading, previews, figures and models of pictures meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.family import Family
from faussaire.core.family import Pictures as Spec
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.material import PictureMaterial, read_material
from faussaire.modality import Measurer
from faussaire.observers import Previews

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.model import Model


class Pictures:
    """The modality of what makes pictures, of noise or of pictures."""

    noun = "pictures"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> PictureMaterial:
        return read_material(settings, kind, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> Spec:
        return Spec(**{**record, "classes": tuple(record["classes"])})

    def previews(
        self, state: State, run: Run, material: PictureMaterial, holdout: float | None, seed: int
    ) -> Previews:
        return Previews(state, run, material, holdout, seed)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: PictureMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.evaluator import Evaluator
        from faussaire.measuring import Options  # only who measures waits for it

        training = settings.training
        options = Options(
            metrics=training.evaluate_metrics,
            count=training.evaluate_count,
            extractor=training.extractor,
            weights=training.weights,
        )
        return Evaluator(
            state, run, checkpoints, material, settings, options,
            stop_asked=stop_asked, progress=progress, note=note,
        )  # fmt: skip

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.evaluation import evaluate_pictures

        return evaluate_pictures(inquiry)

    def model(self, family: Family[Any], spec: Spec, examples: int, device: Device) -> Model:
        from faussaire.model import Model

        return Model(family, spec, examples, device)
