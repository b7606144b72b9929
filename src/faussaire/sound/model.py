"""A trained model of sound, loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.report.pictures import save_png
from faussaire.sampling import class_numbers, sample_rows, seeded_rows
from faussaire.sound.mel import sheet
from faussaire.sound.spec import Sound
from faussaire.sound.waves import write_wave


class SoundModel:
    """A family of sound with trained, averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: the form of its clips.
        examples: how many clips it had seen.
        device: where it runs.
    """

    def __init__(self, family: Family[Any], spec: Sound, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    @property
    def conditional(self) -> bool:
        """Whether samples have a class."""
        return bool(getattr(self.family.config, "conditional", False))

    def sample(
        self,
        count: int = 16,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        label: str | int | Sequence[int] | None = None,
        truncation: float | None = None,
        start: int = 0,
    ) -> np.ndarray:
        """Clips as float32 (count, length) in [-1, 1].

        Clip i depends on (seed, start + i) alone.

        Args:
            count: how many.
            seed: names an endless sequence of clips.
            seeds: the first clip of each of these, in place of count, seed and start.
            label: a class by name or number for all, or a number for each; None: drawn at random.
            truncation: what the noise is multiplied by, up to 1: less gives more typical clips.
            start: where in the sequence to begin.

        Raises:
            UserError: no such class, or a truncation out of range.
        """
        rows = seeded_rows(count, seed, seeds, start)
        labels = class_numbers(label, len(rows), self.spec.classes, self.conditional)
        made = sample_rows(self.family, self.device, rows, labels=labels, truncation=truncation)
        return made.numpy()

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> np.ndarray:
        """Clips from latent vectors (N, K) and class numbers (N,), float32 (N, length)."""
        rows = [(0, row) for row in range(len(latents))]
        return sample_rows(self.family, self.device, rows, labels=labels, latents=latents).numpy()

    def latents(self, count: int, *, seed: int = 0) -> Tensor:
        """The latent vectors that `sample(count, seed=seed)` starts from, (count, K)."""
        found = self.family.latents(RowDraws.counted(seed, count))
        assert found is not None
        return found

    def sheet(self, count: int = 16, **how: Any) -> Image.Image:
        """`sample` as one picture of spectrograms."""
        return sheet(self.sample(count, **how), self.spec.rate)

    def save(
        self,
        folder: str | Path,
        count: int = 16,
        *,
        seed: int = 0,
        overwrite: bool = False,
        **how: Any,
    ) -> list[Path]:
        """Write samples as WAV, `seed0-00003.wav`, and one picture of all, `spectrograms.png`.

        Args:
            folder: made if it does not exist.
            count, seed, how: as for `sample`.
            overwrite: replace files that exist.

        Returns:
            The files, in order.

        Raises:
            UserError: a file exists already (then none is written), or soundfile is not installed.
        """
        target = Path(folder)
        rows = seeded_rows(count, seed, how.get("seeds"), how.get("start", 0))
        paths = [target / f"seed{one}-{row:05d}.wav" for one, row in rows]
        picture = target / "spectrograms.png"
        taken = next((path for path in (*paths, picture) if path.exists()), None)
        if taken is not None and not overwrite:
            raise UserError(
                f"'{taken}' exists already.", "Add --overwrite, or name another folder."
            )
        waves = self.sample(count, seed=seed, **how)
        for path, wave in zip(paths, waves, strict=True):
            write_wave(path, wave, self.spec.rate)
        save_png(sheet(waves[:32], self.spec.rate), picture)
        return [*paths, picture]
