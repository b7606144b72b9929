"""A trained model of texts, loaded again: sentences, and how likely it finds others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.sampling import seeded_rows
from faussaire.texts.recurrent import counted
from faussaire.texts.tokens import TextSpec
from faussaire.texts.writing import Writer

_BATCH = 256


class TextModel:
    """A family of texts with trained, averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: its vocabulary, and how tokens become sentences.
        examples: how many sentences it had seen.
        device: where it runs.
    """

    def __init__(self, family: Writer[Any], spec: TextSpec, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    def sample(
        self,
        count: int = 16,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        temperature: float | None = None,
        start: int = 0,
    ) -> list[str]:
        """Sentences; sentence i depends on (seed, start + i) and the temperature alone.

        Args:
            count: how many.
            seed: names an endless sequence of sentences.
            seeds: the first sentence of each of these seeds, in place of count, seed and start.
            temperature: 0 writes the likeliest sentence, 1 as was learnt, more is wilder; None: the
                run's own.
            start: where in the sequence to begin.

        Raises:
            UserError: none were asked for, or the temperature is below 0.
        """
        return self.spec.decode(self.tokens(seeded_rows(count, seed, seeds, start), temperature))

    @torch.no_grad()
    def tokens(self, rows: Sequence[tuple[int, int]], temperature: float | None = None) -> Tensor:
        """Token numbers (N, T) int64 of sentences named by (seed, place in its sequence).

        Raises:
            UserError: none were asked for, or the temperature is below 0.
        """
        parts = []
        for first in range(0, len(rows), _BATCH):
            keys = [mix(*row) for row in rows[first : first + _BATCH]]
            draws = RowDraws(keys, device=self.device.name)
            parts.append(self.family.sample(draws, truncation=temperature).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def surprise(self, sentences: Sequence[str]) -> list[float]:
        """Mean -log p of each sentence's tokens, its end among them, in nats; words it never met count.

        Raises:
            UserError: there are no sentences.
        """
        if not sentences:
            raise UserError("No sentences were given.", "Give a list of them.")
        tokens = torch.from_numpy(self.spec.encode(sentences)).long().to(self.device.name)
        found: list[float] = []
        for rows in tokens.split(_BATCH):
            counts = counted(rows, self.spec)
            nats = self.family.surprise(rows).float() * counts
            found += (nats.sum(1) / counts.sum(1)).tolist()
        return found
