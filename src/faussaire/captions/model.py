"""A trained model of words and pictures, loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.captions.ready import Ready, open_ready
from faussaire.captions.spec import normalised
from faussaire.core.batch import RowDraws, mix
from faussaire.core.errors import UserError
from faussaire.model import Model
from faussaire.report import pictures
from faussaire.report.captioned import captioned_grid
from faussaire.sampling import seeded_rows

_BATCH = 64


class CaptionedModel(Model):
    """A family with trained, averaged weights that makes pictures of captions."""

    @cached_property
    def _ready(self) -> Ready:
        return open_ready(self.spec.encoder)  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Captions as the family takes them: (N, T) tokens, or (N, E) vectors of a ready encoder.

        Raises:
            UserError: one is empty, or training met none of its words; or a ready encoder cannot be had.
        """
        spec: Any = self.spec
        for text in texts:
            if not normalised(text):
                raise UserError("A text to make pictures of is empty.", "Write some words.")
            if not spec.embedding and spec.strange(text):
                raise UserError(
                    f"Training met no word of '{text}', so nothing can be made of it.",
                    f"It met captions such as: {'; '.join(spec.known[:4])}.",
                )
        if spec.embedding:
            return torch.from_numpy(self._ready.vectors(texts))
        return torch.from_numpy(spec.encode(texts))

    def remarks(self, texts: Sequence[str]) -> list[str]:
        """Sentences on words of these texts that training never met, and on what is cut."""
        spec: Any = self.spec
        if spec.embedding:
            return []
        found = []
        for text in texts:
            strange = spec.unknown(text)
            if strange and not spec.strange(text):  # of which nothing is made at all
                words = ", ".join(f"'{word}'" for word in strange)
                found.append(f"Training never met {words} of '{text}': the picture is of the rest.")
        return found

    def sample(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        count: int = 16,
        *,
        text: str | Sequence[str] | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        truncation: float | None = None,
        start: int = 0,
    ) -> Tensor:
        """Pictures as float32 (count, C, H, W) in [0, 1], on the CPU; of several texts `count` of each.

        Picture i of a text depends on it and on (seed, start + i) alone.

        Args:
            count: how many of each text.
            text: what to make pictures of, or several; None: captions of the training data, at random.
            seed: names an endless sequence of pictures.
            seeds: the first picture of each of these seeds, in place of count, seed and start.
            truncation: keeps latent numbers within it, for more typical samples.
            start: where in the sequence to begin.

        Raises:
            UserError: a text is empty, or training met none of its words.
        """
        rows = seeded_rows(count, seed, seeds, start)
        if text is None:
            return self._made(rows, self._drawn(rows), truncation)
        texts = self.encode([text] if isinstance(text, str) else list(text))
        return torch.cat([self._made(rows, one.expand(len(rows), -1), truncation) for one in texts])

    def decode(
        self, latents: Tensor, labels: Tensor | None = None, *, text: str | None = None
    ) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] of one text from latent vectors (N, ...).

        Args:
            latents: of `latents`.
            labels: captions of each, as `encode` gives them, in place of the text.
            text: None: the first caption that the model remembers.

        Raises:
            UserError: the text is empty, or training met none of its words.
        """
        if labels is None:
            known: Any = self.spec.known  # pyright: ignore[reportAttributeAccessIssue]
            labels = self.encode([text or known[0]]).expand(len(latents), -1)
        return super().decode(latents, labels)

    def _drawn(self, rows: Sequence[tuple[int, int]]) -> Tensor:
        """A caption that is known for each row."""
        spec: Any = self.spec
        known = self.encode(spec.known)
        draws = RowDraws([mix("caption", *row) for row in rows])
        return known[draws.integers(len(known))]

    def _made(
        self, rows: Sequence[tuple[int, int]], texts: Tensor, truncation: float | None
    ) -> Tensor:
        parts = []
        for first in range(0, len(rows), _BATCH):
            part = slice(first, first + _BATCH)
            draws = RowDraws([mix(*row) for row in rows[part]], device=self.device.name)
            parts.append(self._run(draws, texts[part], None, truncation))
        return torch.cat(parts)

    def grid(
        self, count: int = 16, *, text: str | Sequence[str] | None = None, **how: Any
    ) -> Image.Image:
        """`sample` as one picture, with each text above its pictures."""
        made = pictures.to_uint8(self.sample(count, text=text, **how) * 2.0 - 1.0)
        if text is None:
            return pictures.grid(made)
        texts = [text] if isinstance(text, str) else list(text)
        return captioned_grid(np.split(made, len(texts)), texts)
