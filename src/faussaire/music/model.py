"""A trained model of music, loaded again."""

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
from faussaire.music.midi import find_synth, play, write_midi
from faussaire.music.picture import sheet
from faussaire.music.spec import Score
from faussaire.report.pictures import save_png
from faussaire.sampling import sample_rows, seeded_rows


class MusicModel:
    """A family of music with trained, averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: the form of its phrases.
        examples: how many phrases it had seen.
        device: where it runs.
    """

    def __init__(self, family: Family[Any], spec: Score, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    def sample(
        self,
        count: int = 16,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        truncation: float | None = None,
        start: int = 0,
    ) -> np.ndarray:
        """Phrases as uint8 (count, bars, steps, pitches, tracks) of 0 and 1.

        Phrase i depends on (seed, start + i) alone.

        Args:
            count: how many.
            seed: names an endless sequence of phrases.
            seeds: the first phrase of each of these, in place of count, seed and start.
            truncation: what the noise is multiplied by: less than 1 gives more typical phrases.
            start: where in the sequence to begin.

        Raises:
            UserError: none were asked for, or the truncation is out of range.
        """
        rows = seeded_rows(count, seed, seeds, start)
        made = sample_rows(self.family, self.device, rows, truncation=truncation)
        return made.numpy().astype(np.uint8)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Phrases from latent vectors, (N, bars, steps, pitches, tracks) uint8."""
        rows = [(0, row) for row in range(len(latents))]
        return sample_rows(self.family, self.device, rows, latents=latents).numpy().astype(np.uint8)

    def latents(self, count: int, *, seed: int = 0) -> Tensor:
        """The latent vectors that `sample(count, seed=seed)` starts from, (count, K)."""
        found = self.family.latents(RowDraws.counted(seed, count))
        assert found is not None
        return found

    def sheet(self, count: int = 8, **how: Any) -> Image.Image:
        """`sample` as one picture of piano rolls."""
        return sheet(self.sample(count, **how), self.spec)

    def save(
        self,
        folder: str | Path,
        count: int = 16,
        *,
        seed: int = 0,
        wav: str = "auto",
        overwrite: bool = False,
        **how: Any,
    ) -> list[Path]:
        """Write samples as MIDI, `seed0-00003.mid`, and one picture of all, `rolls.png`.

        Args:
            folder: made if it does not exist.
            count, seed, how: as for `sample`.
            wav: `auto` also writes WAV files where a soft synth is installed, `on` insists, `off` does
                not.
            overwrite: replace files that exist.

        Returns:
            The files, in order.

        Raises:
            UserError: a file exists already (then none is written), pretty_midi is not installed, or
                no soft synth is where one was asked for.
        """
        synth = None if wav == "off" else find_synth()
        if wav == "on" and synth is None:
            raise UserError(
                "No soft synth was found: neither fluidsynth with a sound font nor timidity.",
                "Install one (Debian: fluidsynth and fluid-soundfont-gm), or leave --wav out.",
            )
        target = Path(folder)
        rows = seeded_rows(count, seed, how.get("seeds"), how.get("start", 0))
        paths = [target / f"seed{one}-{row:05d}.mid" for one, row in rows]
        picture = target / "rolls.png"
        taken = next((path for path in (*paths, picture) if path.exists()), None)
        if taken is not None and not overwrite:
            raise UserError(
                f"'{taken}' exists already.", "Add --overwrite, or name another folder."
            )
        rolls = self.sample(count, seed=seed, **how)
        written = []
        for path, roll in zip(paths, rolls, strict=True):
            write_midi(path, roll, self.spec)
            written.append(path)
            if synth is not None:
                play(path, path.with_suffix(".wav"), synth)
                written.append(path.with_suffix(".wav"))
        save_png(sheet(rolls[:32], self.spec), picture)
        return [*written, picture]
