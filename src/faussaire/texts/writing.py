"""What families of texts share: a network that says which token comes next, and sentences of it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.texts.recurrent import per_token, shifted, surprise, write

ConfigT = TypeVar("ConfigT")


class Writer(Family[ConfigT]):
    """A family whose `nets["generator"]` is called as `Recurrent` is.

    Its config has a `temperature`, of samples where none is asked for.
    """

    modality = "texts"
    averaged = ("generator",)

    @classmethod
    def judged_by(cls, config: Any) -> tuple[str, ...]:
        """The likelihood of sentences that were held out."""
        return ("nll",)

    def likelihood(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Nats for each token of the batch: the loss of maximum likelihood."""
        tokens = batch["tokens"].long()
        return {"nll": per_token(self.surprise(tokens), tokens, self.spec, batch)}

    def surprise(self, tokens: Tensor) -> Tensor:
        """-log p of each token given those before it, in nats: (N, T) int64 to (N, T)."""
        logits, _ = self.nets["generator"](shifted(tokens, self.spec.begin))
        return surprise(logits, tokens)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Token numbers (N, T) int64; `spec.decode` makes sentences of them.

        Args:
            draws: randomness for N rows.
            labels, latents: there are none.
            truncation: the temperature, 0 (always the most likely token) or more; None: the settings'.

        Raises:
            UserError: the temperature is below 0.
        """
        temperature = self.config.temperature if truncation is None else truncation  # type: ignore[attr-defined]
        if temperature < 0.0:
            raise UserError(
                f"A temperature of {temperature:g} means nothing.",
                "Give 0 or more; 1 is as learnt.",
            )
        return write(self.nets["generator"], self.spec, draws, temperature=temperature)

    @torch.no_grad()
    def written(self, batch: Batch) -> Tensor:
        """As many sentences as the batch has, as the generator stands: (N, T) int64."""
        return write(self.nets["generator"], self.spec, batch.draws)
