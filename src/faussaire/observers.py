"""Observers that leave pictures and pages in the run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.core.batch import Batch, BatchDraws, RowDraws, mix
from faussaire.core.events import Event, Finished, Measured, PreviewDue, Saved
from faussaire.core.family import Family, Pictures
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.material import PictureMaterial
from faussaire.previews import Previewer
from faussaire.report.page import write_report
from faussaire.report.pictures import beside, grid, save_png, stacked, to_uint8


class Previews(Previewer):
    """`samples/reals.png` at the start, then what the averaged weights make.

    Of noise: a grid from the same latents each time. Of pictures: inputs, outputs and what they should
    be, side by side, from pictures that are not trained on where there are any. Of what does both, the
    grid with rebuilt pictures beside their originals below.
    """

    def __init__(
        self, state: State, run: Run, material: PictureMaterial, holdout: float | None, seed: int
    ) -> None:
        super().__init__(state, run)
        images = material.images
        spec: Pictures = state.family.spec
        conditional = getattr(state.family.config, "conditional", False)
        classes = len(spec.classes) if conditional else 0
        columns = classes if 5 <= classes <= 12 else 8
        count = preview_count(spec, columns)
        self._show: Callable[[Family[Any]], Image.Image]
        if state.family.applies:
            self._show = partial(self._beside, _demonstration(state, material, holdout, seed))
        else:
            labels = class_columns(classes, count, columns) if classes else None
            self._show = partial(self._samples, count, columns, labels, seed)
            if state.family.rebuilds:
                above = self._show
                below = partial(self._beside, _demonstration(state, material, holdout, seed))
                self._show = lambda family: stacked(above(family), below(family))
        reals = run.samples / "reals.png"
        if not reals.exists():
            rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
            save_png(grid(np.asarray(images.pixels[rows]), columns=columns), reals)

    def leave(self, family: Family[Any], stem: Path) -> None:
        save_png(self._show(family), stem.with_suffix(".png"))

    def _samples(
        self, count: int, columns: int, labels: Tensor | None, seed: int, family: Family[Any]
    ) -> Image.Image:
        """A grid of samples."""
        draws = RowDraws.counted(seed, count, device=self.state.device.name)
        if labels is not None:
            labels = labels.to(self.state.device.name)
        samples = family.sample(draws, labels=labels).float().cpu()
        return grid(to_uint8(samples), columns=columns)

    def _beside(self, batch: Callable[[], Batch], family: Family[Any]) -> Image.Image:
        """Inputs, outputs and what they should be, a row for each."""
        return beside([part.float().cpu() for part in family.demonstrated(batch())])


def _demonstration(
    state: State, material: PictureMaterial, holdout: float | None, seed: int
) -> Callable[[], Batch]:
    """Makes a batch of a few rows of each table, unseen where there are any, and always the same."""
    fields: dict[str, Tensor] = {}
    count = max(2, min(8, int(4e6 / (3 * state.family.spec.height * state.family.spec.width))))
    splits = material.split(holdout)
    count = min(count, *(max(len(unseen), len(train)) for train, unseen in splits))
    for table, (train, unseen) in zip(material.tables, splits, strict=True):
        pool = unseen if len(unseen) >= count else train
        rows = pool[np.linspace(0, len(pool) - 1, count).astype(int)]
        for name, field in table.items():
            fields[name] = state.device.put(np.ascontiguousarray(field[rows]))

    def batch() -> Batch:
        draws = BatchDraws(
            mix(seed, "preview"), total=count, rows=slice(0, count), device=state.device.name
        )
        return Batch(fields, draws, count)

    return batch


def preview_count(spec: Pictures, columns: int) -> int:
    """Eight rows of small pictures, fewer of large ones: some four megapixels at most."""
    rows = int(4e6 / (columns * spec.height * spec.width))
    return columns * min(8, max(1, rows))


def class_columns(classes: int, count: int, columns: int) -> Tensor:
    """Labels (count,) such that each column of a grid shows one class, as far as they go."""
    column = torch.arange(count) % columns
    row = torch.arange(count) // columns
    blocks = math.ceil(classes / columns)
    return (column + columns * (row % blocks)) % classes


class Reporter:
    """Keeps `report.html` fresh: after previews and checkpoints, but not more than it may cost."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next = 0.0

    def see(self, event: Event) -> None:
        if isinstance(event, PreviewDue | Saved | Measured) and time.monotonic() >= self._next:
            began = time.monotonic()
            write_report(self._run.path)
            # At most a hundredth of the time goes into the page.
            self._next = time.monotonic() + max(5.0, 100 * (time.monotonic() - began))
        elif isinstance(event, Finished):
            write_report(self._run.path)

    def close(self) -> None:
        pass
