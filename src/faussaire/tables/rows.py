"""Encoded rows as tensors: one-hot vectors of compact rows, and the way from logits to rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Batch
from faussaire.tables.spec import TableSpec


def real_rows(batch: Batch, spec: TableSpec) -> Tensor:
    """The batch's rows encoded, (N, width) float32: alphas, and one 1 in each one-hot vector."""
    alphas, places = batch["alphas"], batch["places"].long()
    hot = torch.zeros(len(places), sum(spec.blocks), device=places.device)
    hot.scatter_(1, places + torch.tensor(spec.starts, device=places.device), 1.0)
    return torch.cat([alphas, hot], dim=1)


def in_modes(batch: Batch, spec: TableSpec) -> Tensor:
    """(N, A) float32: 1 where a number lies in a Gaussian mode, 0 at points and where it is missing."""
    gaussian = torch.tensor([len(column.means) for column in spec.numeric])
    places = batch["places"][:, : spec.alphas]
    return (places < gaussian.to(places.device)).float()


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from numbers uniform in [0, 1): -log(-log u). Jang et al. 2016, arXiv 1611.01144."""
    return -(-uniform.clamp(1e-20, 1.0 - 1e-7).log()).log()


def soft_rows(logits: Tensor, noise: Tensor, spec: TableSpec, tau: float) -> Tensor:
    """Rows that can be differentiated: tanh for alphas, Gumbel-softmax for one-hot vectors.

    Args:
        logits: (N, width).
        noise: uniform in [0, 1), (N, width - alphas).
        spec: of the table.
        tau: temperature of the softmax.
    """
    noisy = ((logits[:, spec.alphas :] + gumbel(noise)) / tau).split(spec.blocks, dim=1)
    parts = [part.softmax(1) for part in noisy]
    alphas = logits[:, : spec.alphas].tanh()
    if any(column.places > len(column.means) for column in spec.numeric):
        # Real alphas are 0 at points and where missing: that need not be learnt.
        inside = [
            part[:, : len(column.means)].sum(1)
            for part, column in zip(parts, spec.numeric, strict=False)
        ]
        alphas = alphas * torch.stack(inside, dim=1)
    return torch.cat([alphas, *parts], dim=1)


def hard_rows(
    alphas: Tensor, logits: Tensor, noise: Tensor, spec: TableSpec, temperature: float = 1.0
) -> Tensor:
    """Rows as real ones are: each one-hot vector drawn from softmax(logits / temperature).

    Args:
        alphas: (N, A), cut to [-1, 1].
        logits: (N, width - A).
        noise: uniform in [0, 1), of the logits' shape.
        spec: of the table.
        temperature: 0 takes the likeliest.
    """
    parts = [
        F.one_hot(part.argmax(1), part.shape[1]).float()
        for part in (logits + temperature * gumbel(noise)).split(spec.blocks, dim=1)
    ]
    return torch.cat([alphas.clamp(-1.0, 1.0), *parts], dim=1)


def log_shares(logits: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Log-probabilities within each one-hot vector, of the logits' shape (N, sum of blocks)."""
    return torch.cat([part.log_softmax(1) for part in logits.split(blocks, dim=1)], dim=1)
