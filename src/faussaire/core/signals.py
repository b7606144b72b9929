"""Ctrl-C and SIGTERM as wishes that the loop grants between two rounds."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Self

from faussaire.core.errors import Interrupted


class Signals:
    """While entered, the first signal is heard and the second one acts as it always did.

    Attributes:
        patient: whether a signal waits for the loop to ask; before there is a loop, nothing can be
            lost, and it ends what is going on at once.
    """

    def __init__(self) -> None:
        self.name = ""
        self.patient = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        # Python lets only the main thread handle signals; in a notebook's thread they stay as set.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[signal.Signals(number)]
        self._restore(number)
        if not self.patient:
            raise Interrupted(
                f"Stopped by {self.name} before training began.", code=128 + int(number)
            )

    def _restore(self, number: int) -> None:
        signal.signal(number, self._before.pop(number))  # pyright: ignore[reportArgumentType]

    def __exit__(self, *failure: object) -> None:
        for number in list(self._before):
            self._restore(number)

    def asked(self) -> str:
        """The signal that came, or an empty string."""
        launcher = os.environ.get("FAUSSAIRE_LAUNCHER")
        if not self.name and launcher and os.getppid() != int(launcher):
            self.name = "the end of its launcher"  # which was killed and could pass on nothing
        return self.name
