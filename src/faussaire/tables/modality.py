"""Tables as a modality: where reading, previews, figures and models of tables meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from faussaire.tables.material import TableMaterial, read_material
from faussaire.tables.spec import TableSpec

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation, Inquiry
    from faussaire.tables.model import TableModel

_SHOWN = 24
_CELL = 20


class Tables:
    """The modality of what makes rows of a table."""

    noun = "rows"

    def read(
        self,
        settings: Settings,
        kind: type[Family[Any]],
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> TableMaterial:
        return read_material(settings, kind, progress=progress, preflight=preflight)

    def spec(self, record: Mapping[str, Any]) -> TableSpec:
        return TableSpec.of(record)

    def previews(
        self, state: State, run: Run, material: TableMaterial, holdout: float | None, seed: int
    ) -> Previews:
        return Previews(state, run, material, seed)

    def measurer(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: TableMaterial,
        settings: Settings,
        *,
        stop_asked: Callable[[], str],
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> Measurer:
        from faussaire.tables.evaluation import TableMeasurer  # only who measures waits for it

        return TableMeasurer(state, run, checkpoints, material, settings, stop_asked)

    def evaluate(self, inquiry: Inquiry) -> Evaluation:
        from faussaire.tables.evaluation import evaluate

        return evaluate(inquiry)

    def model(
        self, family: Family[Any], spec: TableSpec, examples: int, device: Device
    ) -> TableModel:
        from faussaire.tables.model import TableModel

        return TableModel(family, spec, examples, device)


class Previews(Previewer):
    """`samples/reals.txt` at the start, then rows that the averaged weights make, of the same draws."""

    def __init__(self, state: State, run: Run, material: TableMaterial, seed: int) -> None:
        super().__init__(state, run)
        self._seed = seed
        reals = run.samples / "reals.txt"
        if not reals.exists():
            count = min(_SHOWN, len(material))
            rows = np.linspace(0, len(material) - 1, count).astype(int)
            frame = material.frame
            texts = [[cells.values[code] for code in cells.codes[rows]] for cells in frame.columns]
            replace_file(reals, aligned(frame.names, texts))

    def leave(self, family: Family[Any], stem: Path) -> None:
        draws = RowDraws.counted(self._seed, _SHOWN, device=self.state.device.name)
        rows = family.sample(draws).float().cpu().numpy()
        spec: TableSpec = family.spec
        names = [column.name for column in spec.columns]
        replace_file(stem.with_suffix(".txt"), aligned(names, spec.decode(rows)))


def aligned(names: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    """Columns of text side by side under their names, long cells cut."""
    columns = [
        [_cut(cell) for cell in (name, *column)] for name, column in zip(names, texts, strict=True)
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _cut(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…"
