"""Sampling many rows from a family, a part at a time, each from a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import Device
from faussaire.core.errors import UserError, nearest
from faussaire.core.family import Family

_BATCH = 64


def seeded_rows(
    count: int, seed: int, seeds: Sequence[int] | None, start: int
) -> list[tuple[int, int]]:
    """(seed, place in its sequence) of each row.

    Args:
        count, seed, start: rows `start` to `start + count - 1` of the sequence that `seed` names.
        seeds: the first row of each of these in their place.

    Raises:
        UserError: that is none.
    """
    rows = [(seed, start + row) for row in range(count)]
    if seeds is not None:
        rows = [(each, 0) for each in seeds]
    if not rows:
        raise UserError("No samples were asked for.", "Ask for at least one.")
    return rows


@torch.no_grad()
def sample_rows(
    family: Family[Any],
    device: Device,
    rows: Sequence[tuple[int, int]],
    *,
    labels: Tensor | None = None,
    latents: Tensor | None = None,
    truncation: float | None = None,
) -> Tensor:
    """What a family makes of these rows, on the CPU; row i depends on its own seed alone.

    Args:
        family: with averaged nets in evaluation mode.
        device: where it runs.
        rows: of `seeded_rows`.
        labels: (N,) class numbers, or None.
        latents: (N, ...) in place of drawn ones.
        truncation: see `Family.sample`.
    """
    parts = []
    for first in range(0, len(rows), _BATCH):
        part = slice(first, first + _BATCH)
        draws = RowDraws([mix(*row) for row in rows[part]], device=device.name)
        made = family.sample(
            draws,
            labels=None if labels is None else labels[part].to(device.name),
            latents=None if latents is None else latents[part].to(device.name),
            truncation=truncation,
        )
        parts.append(made.float().cpu())
    return torch.cat(parts)


def class_numbers(
    label: str | int | Sequence[int] | None,
    count: int,
    classes: Sequence[str],
    conditional: bool,
) -> Tensor | None:
    """Class numbers (count,) for a class by name or number, or one for each row; None for None.

    Raises:
        UserError: the model has no classes, or no such class.
    """
    if label is None:
        return None
    if not conditional:
        raise UserError(
            "This model was not trained by class, so no class can be asked of it.",
            "Train with --conditional.",
        )
    if isinstance(label, str):
        if label not in classes:
            raise UserError(
                f"There is no class '{label}'.{nearest(label, classes)}",
                f"The classes are: {', '.join(classes[:20])}.",
            )
        label = list(classes).index(label)
    numbers = [label] * count if isinstance(label, int) else list(label)
    if len(numbers) != count or not all(0 <= one < len(classes) for one in numbers):
        raise UserError(
            f"The class numbers {label} do not fit {count} samples of {len(classes)} classes.",
            f"Give one number from 0 to {len(classes) - 1}, or one for each sample.",
        )
    return torch.tensor(numbers, dtype=torch.int64)
