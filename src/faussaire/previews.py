"""What a run leaves in `samples/` while it trains, whatever its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from faussaire.core.events import Event, PreviewDue
from faussaire.core.family import Family
from faussaire.core.run import Run
from faussaire.core.state import State


class Previewer(ABC):
    """An observer that has the averaged weights make something whenever a preview is due.

    Of the same random numbers each time, so that what changes is what was learnt. Real examples lie
    beside it from the start, as `reals`, which each kind of data writes when it is made.

    Args:
        state: what is trained.
        run: in whose folder previews lie.
    """

    def __init__(self, state: State, run: Run) -> None:
        self.state, self.run = state, run
        self._last = -1

    @abstractmethod
    def leave(self, family: Family[Any], stem: Path) -> None:
        """Write a preview.

        Args:
            family: with averaged weights, in evaluation mode.
            stem: path of the files, which lack their ending.
        """

    def see(self, event: Event) -> None:
        """Leave one preview for each number of examples at which one is due."""
        if isinstance(event, PreviewDue) and event.examples != self._last:
            self._last = event.examples
            with self.state.sampling() as family:
                self.leave(family, self.run.samples / f"{event.examples:012d}")

    def close(self) -> None:  # noqa: B027  (most observers have something to close, not these)
        """Nothing is held open."""
