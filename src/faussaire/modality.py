"""What is particular to a kind of data: how it is read, shown, written and measured.

The engine knows families and batches, the commands know runs. Whether examples are pictures, rows of a
table or sentences, a modality alone knows: `Family.modality` names it. Adding one is a module with an
object that is a `Modality`, a material that is a `Material`, and one line in `_REGISTRY`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from faussaire.core.config import DataConfig, Settings
from faussaire.core.family import Family
from faussaire.core.loop import Stream
from faussaire.data.parallel import Progress

if TYPE_CHECKING:
    from faussaire.core.checkpoint import Checkpoints
    from faussaire.core.device import Device
    from faussaire.core.events import Observer
    from faussaire.core.run import Run
    from faussaire.core.state import State
    from faussaire.measuring import Evaluation, Inquiry


class Material(Protocol):
    """What a run trains on, read and ready."""

    @property
    def spec(self) -> Any:
        """What the family is told of it: a dataclass of plain values, which checkpoints keep."""
        ...

    @property
    def key(self) -> str:
        """Of the contents."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of it, as sentences."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What the preflight found odd, as sentences; nothing where it was not asked."""
        ...

    def __len__(self) -> int:
        """Examples."""
        ...

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each table the rows that are trained on and those held out, (K,) int64 each."""
        ...

    def one_table(
        self, holdout: float | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The data by field name, and rows that are trained on and held out: for the doctor."""
        ...

    def stream(self, data: Any, *, seed: int, rank: int, world: int) -> Stream:
        """The endless stream of one process, with the run's settings of data."""
        ...

    def settled(self, data: Any) -> DataConfig:
        """These settings with what was left to choose filled in, as `config.yaml` keeps them."""
        ...

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds: `count` and `key` at least."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        ...

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        ...


class Measurer(Protocol):
    """Measures a run while it trains."""

    @property
    def extractor(self) -> str:
        """Name of the network that it looks through; empty: none."""
        ...

    @property
    def metrics(self) -> str:
        """What is measured, as settings have it, the metric that decides first."""
        ...

    def __call__(self) -> dict[str, Any] | None:
        """Figures of the newest checkpoint, and whether it is the best; None: nothing new."""
        ...


class Modality(Protocol):
    """How one kind of data is handled.

    Attributes:
        noun: of examples, in sentences: `pictures`.
    """

    noun: str

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> Material:
        """The data that a run's settings name.

        Args:
            settings: of the run.
            kind: its family.
            progress: called as progress(what, done, total).
            preflight: whether to look for what is odd about them.

        Raises:
            UserError: nothing usable, or an option that does not fit.
        """
        ...

    def spec(self, record: Mapping[str, Any]) -> Any:
        """What a family was told of its data, from what `dataclasses.asdict` made of it.

        Raises:
            KeyError, TypeError: the record is none.
        """
        ...

    def previews(
        self, state: State, run: Run, material: Any, holdout: float | None, seed: int
    ) -> Observer:
        """Who leaves previews in the run's `samples/`."""
        ...

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: Any,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        """Who measures the run while it trains.

        Raises:
            UserError: what is asked for cannot be measured.
        """
        ...

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        """Measure a run.

        Raises:
            UserError: what is asked for cannot be measured.
        """
        ...

    def model(self, family: Family[Any], spec: Any, examples: int, device: Device) -> Any:
        """What `faussaire.load` gives: the family with its weights, and ways to use it."""
        ...


_REGISTRY = {
    "pictures": ("faussaire.pictures", "Pictures"),
    "pretext": ("faussaire.pretext.modality", "Questions"),
    "captions": ("faussaire.captions.modality", "Captions"),
    "music": ("faussaire.music.modality", "Music"),
    "sound": ("faussaire.sound.modality", "Sounds"),
    "tables": ("faussaire.tables.modality", "Tables"),
    "texts": ("faussaire.texts.modality", "Texts"),
}


def load_modality(kind: type[Family[Any]]) -> Modality:
    """The modality of a family."""
    module, name = _REGISTRY[kind.modality]
    return getattr(importlib.import_module(module), name)()
