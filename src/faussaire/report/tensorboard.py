"""A run's curves and previews for TensorBoard, for those who live in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.core.events import Event, Measured, PreviewDue, Started, Tick


class TensorBoard:
    """An observer that writes to `RUN/tensorboard`; a UserError where the extra is not installed.

    It must come after the observer that writes previews, whose files it shows.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed.",
                "Install it with pip install 'faussaire[tensorboard]'.",
            ) from error
        self._make = SummaryWriter
        self._run = run
        self._writer: Any = None

    def see(self, event: Event) -> None:
        """Write a tick's figures, or the preview that was just made."""
        if isinstance(event, Started):
            # Purging hides what a crashed process had written beyond the checkpoint gone on from.
            self.close()
            self._writer = self._make(
                str(self._run / "tensorboard"), purge_step=event.examples or None
            )
        elif isinstance(event, Tick) and self._writer:
            groups = {"losses": event.losses, "signs": event.signs, "rates": event.rates}
            for group, values in groups.items():
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, event.examples)
            self._writer.add_scalar("speed/per_second", event.per_second, event.examples)
        elif isinstance(event, Measured) and self._writer:
            for name, value in event.figures.items():
                self._writer.add_scalar(f"figures/{name}", value, event.examples)
        elif isinstance(event, PreviewDue) and self._writer:
            path = self._run / "samples" / f"{event.examples:012d}.png"
            if path.exists():
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGBA" if "A" in image.mode else "RGB"))
                self._writer.add_image("samples", pixels, event.examples, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer:
            self._writer.close()
            self._writer = None
