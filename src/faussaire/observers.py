"""Observers that leave pictures and pages in the run folder."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.events import Event, Finished, Measured, PreviewDue, Saved
from faussaire.core.family import Pictures
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.pack import Images
from faussaire.report.page import write_report
from faussaire.report.pictures import grid, save_png, to_uint8


class Previews:
    """`samples/reals.png` at the start, then grids from the same latents with averaged weights."""

    def __init__(self, state: State, run: Run, images: Images, seed: int) -> None:
        self._state, self._run, self._seed = state, run, seed
        self._shown = -1
        spec: Pictures = state.family.spec
        conditional = getattr(state.family.config, "conditional", False)
        classes = len(spec.classes) if conditional else 0
        self._columns = classes if 5 <= classes <= 12 else 8
        self._count = preview_count(spec, self._columns)
        self._labels = class_columns(classes, self._count, self._columns) if classes else None
        reals = run.samples / "reals.png"
        if not reals.exists():
            rows = np.linspace(0, len(images) - 1, min(self._count, len(images))).astype(int)
            save_png(grid(np.asarray(images.pixels[rows]), columns=self._columns), reals)

    def see(self, event: Event) -> None:
        if isinstance(event, PreviewDue) and event.examples != self._shown:
            self._shown = event.examples
            path = self._run.samples / f"{event.examples:012d}.png"
            save_png(grid(to_uint8(self._sample()), columns=self._columns), path)

    def _sample(self) -> Tensor:
        draws = RowDraws.counted(self._seed, self._count, device=self._state.device.name)
        labels = self._labels
        if labels is not None:
            labels = labels.to(self._state.device.name)
        with self._state.sampling() as family:
            return family.sample(draws, labels=labels).float().cpu()

    def close(self) -> None:
        pass


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
