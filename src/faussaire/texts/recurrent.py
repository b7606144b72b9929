"""A recurrent network that says which token comes next, and how sentences are drawn from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.texts.tokens import END, TextSpec

States = tuple[Tensor, Tensor]


class Recurrent(nn.Module):
    """An LSTM over tokens: (N, T) numbers, the last of which `spec.begin`, to logits (N, T, V).

    Hochreiter and Schmidhuber 1997. The LSTM runs in float32 at any precision of the run: torch has
    none in bfloat16 on many processors, and it is small beside the layer onto the vocabulary.

    Args:
        spec: of the texts.
        embedding: numbers that stand for a token.
        hidden: numbers in a layer's state.
        layers: of the LSTM.
        dropout: share of a layer's outputs that training drops, between layers and before the last.
        scale: deviation of the normal distribution that weights begin with; None: torch's own way.
    """

    def __init__(
        self,
        spec: TextSpec,
        *,
        embedding: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.size + 1, embedding)
        self.lstm = nn.LSTM(
            embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Linear(hidden, spec.size)
        nn.init.normal_(self.embed.weight, 0.0, 0.1)
        if scale is not None:
            for parameter in self.parameters():
                nn.init.normal_(parameter, 0.0, scale)

    def forward(self, tokens: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Logits of what follows each of the tokens (N, T), and the states (layers, N, H) at the end."""
        seen = self.drop(self.embed(tokens))
        with torch.autocast(seen.device.type, enabled=False):
            out, after = self.lstm(seen.float(), states)
        return self.predict(self.drop(out)), after


def shifted(tokens: Tensor, begin: int) -> Tensor:
    """What precedes each token: (N, T) to (N, T), the first `begin`."""
    return F.pad(tokens[:, :-1], (1, 0), value=begin)


def counted(tokens: Tensor, spec: TextSpec) -> Tensor:
    """1 for each token up to a sentence's end, the end among them, and 0 behind it: (N, T) float32."""
    if not spec.ends:
        return torch.ones_like(tokens, dtype=torch.float32)
    ended = (tokens == END).int()
    return (ended.cumsum(1) - ended == 0).float()


def surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of each token, in nats, (N, T), by logits (N, T, V)."""
    return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


def per_token(surprises: Tensor, tokens: Tensor, spec: TextSpec, batch: Batch) -> Tensor:
    """The mean of (N, T) numbers over the tokens of a batch, over all processes, that count.

    Processes and parts share one denominator, so that each token weighs the same.
    """
    mask = counted(tokens, spec)
    return (surprises * mask).sum(dim=1).mean() / batch.mean(mask.sum(dim=1))


def choose(logits: Tensor, chances: Tensor, temperature: float = 1.0) -> Tensor:
    """Tokens drawn from softmax(logits / temperature): (N, V) and uniform (N,) in [0, 1) to (N,).

    Temperature 0 takes the most likely token.
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    shares = (logits if temperature == 1.0 else logits / temperature).softmax(dim=1).cumsum(dim=1)
    # Rounding may leave the last sum beside 1.
    token = torch.searchsorted(shares, chances[:, None] * shares[:, -1:], right=True)
    return token.squeeze(1).clamp(max=logits.shape[1] - 1)


def write(net: nn.Module, spec: TextSpec, draws: Draws, *, temperature: float = 1.0) -> Tensor:
    """Sentences drawn from a network like `Recurrent`: (N, T) int64, `END` behind each one's end.

    Args:
        net: (tokens (N, 1), states or None) -> (logits (N, 1, V), states).
        spec: of its texts.
        draws: randomness for N rows.
        temperature: of each choice; 0 takes the most likely token.
    """
    chances = draws.uniform(spec.length)
    before = torch.full((draws.size,), spec.begin, device=chances.device)
    states, rows = None, []
    for step in range(spec.length):
        logits, states = net(before[:, None], states)
        before = following(before, choose(logits[:, -1], chances[:, step], temperature), spec)
        rows.append(before)
    return torch.stack(rows, dim=1)


def following(before: Tensor, chosen: Tensor, spec: TextSpec) -> Tensor:
    """The chosen tokens (N,), or `END` where the sentence had ended with the one before."""
    return torch.where(before == END, END, chosen) if spec.ends else chosen
