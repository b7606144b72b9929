"""z, W or W+ of a family, as one thing: codes (N, layers, numbers) in, pictures out.

A code of z or of W has one layer, one of W+ a row for each layer of the synthesis network (Abdal, Qin,
Wonka 2019, "Image2StyleGAN", arXiv 1904.03189, section 4). So a direction is added to a code in the same
way in all of them, and one of W moves a code of W+ in all of its layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import precise
from faussaire.core.errors import UserError
from faussaire.core.family import Family

_ROWS = 256  # codes or pictures made at once
SURVEYED = 10_000
"""Codes from which a space's mean and spread are taken (arXiv 1912.04958, appendix D)."""


@dataclass(frozen=True)
class Spread:
    """Where the codes of a space lie.

    Attributes:
        mean: (1, numbers).
        sigma: root of the mean squared distance to the mean, summed over numbers.
        covariance: (numbers, numbers).
    """

    mean: Tensor
    sigma: float
    covariance: Tensor

    def along(self, vector: Tensor) -> float:
        """Standard deviation of codes along a vector (numbers,) of any length."""
        unit = vector / vector.norm()
        return math.sqrt(max(0.0, float(unit @ self.covariance @ unit)))


class Space:
    """One of a family's spaces.

    Args:
        family: with averaged nets in evaluation mode.
        name: `z`, `w` or `w+`.
        device: where the nets are.
        label: the class of all pictures, for a conditional family; None: drawn for each.

    Raises:
        UserError: the family has no such space, or no latents at all.
    """

    def __init__(
        self, family: Family[Any], name: str, *, device: str = "cpu", label: int | None = None
    ) -> None:
        kind = type(family).__name__.lower()
        probe = None
        if not family.applies and family.modality == "pictures":
            probe = family.latents(RowDraws.counted(0, 1, device=device))
        if probe is None:
            raise UserError(
                f"{kind} makes no pictures of a latent vector, so there is nothing to look for.",
                "Give a run of a family that does: stylegan2, dcgan, sngan, r3gan ...",
            )
        if name not in family.spaces:
            raise UserError(
                f"{kind} has no space '{name}'.", f"Choose {' or '.join(family.spaces)}."
            )
        self.family, self.name, self.device, self.label = family, name, device, label
        self.conditional = bool(getattr(family.config, "conditional", False))
        self.shape = probe.shape[1:]
        self.depth = len(family.affines()) if family.spaces != ("z",) else 1
        self.layers = self.depth if name == "w+" else 1
        self.width = probe[0].numel() if name == "z" else family.mapped(*self._one(probe)).shape[1]

    def _one(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return z, self.labels(len(z)) if self.conditional else None

    def labels(self, count: int, seed: int = 0, start: int = 0) -> Tensor | None:
        """Class numbers for rows of a sequence: the one asked for, or drawn; None without classes.

        Raises:
            UserError: the model was trained on vectors.
        """
        if not self.conditional:
            return None
        classes = len(self.family.spec.classes)
        if not classes:
            raise UserError(
                "The model is conditioned on vectors, which nobody gave.",
                "Only models with classes, or without conditions, can be edited.",
            )
        if self.label is not None:
            return torch.full((count,), self.label, device=self.device)
        draws = RowDraws.counted(mix(seed, "labels"), count, start=start, device=self.device)
        return draws.integers(classes)

    def of_z(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Codes (N, 1, numbers) of z (N, ...): those of W+ are those of W."""
        if self.name == "z":
            return z.flatten(1)[:, None]
        with precise():
            return self.family.mapped(z, labels)[:, None]

    @torch.no_grad()
    def draw(self, count: int, seed: int = 0, *, seeds: Sequence[int] | None = None) -> Tensor:
        """Codes of random samples, (count, 1, numbers): those that `Model.sample` begins with.

        Args:
            count: how many.
            seed: names the sequence.
            seeds: the first of each of these seeds' sequences instead.
        """
        rows = [(seed, row) for row in range(count)] if seeds is None else [(s, 0) for s in seeds]
        parts = []
        for first in range(0, len(rows), _ROWS):
            some = rows[first : first + _ROWS]
            z = self.family.latents(RowDraws([mix(*row) for row in some], device=self.device))
            assert z is not None
            parts.append(self.of_z(z, self.labels(len(some), seed, first)))
        return torch.cat(parts)

    @cached_property
    def spread(self) -> Spread:
        """Mean and covariance of 10,000 codes; those of W+ are those of W."""
        codes = self.draw(SURVEYED, mix("latent spread"))[:, 0].double()
        mean = codes.mean(0, keepdim=True)
        around = codes - mean
        covariance = around.T @ around / len(codes)
        return Spread(mean.float(), float(covariance.trace().sqrt()), covariance.float())

    @property
    def mean(self) -> Tensor:
        """The code in the middle, (1, layers, numbers)."""
        return self.spread.mean[:, None].expand(1, self.layers, -1)

    def truncated(self, codes: Tensor, share: float) -> Tensor:
        """Codes drawn to the mean: 1 changes nothing, 0 gives the mean. Karras 2019, appendix B."""
        return torch.lerp(self.spread.mean[:, None], codes, share)

    def render(
        self, codes: Tensor, noise: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Pictures (N, C, H, W) of codes (N, layers, numbers), differentiable; in float32.

        Not bounded by [-1, 1] where the family has styles.

        Args:
            codes: of this space.
            noise: (N, numbers of all noise planes); None: the same fixed noise for all.
            labels: (N,) of a conditional family that is looked at in z.
        """
        with precise():
            if self.name != "z":
                w = codes[:, 0] if codes.shape[1] == 1 else codes
                return self.family.synthesised(w, noise)
            if labels is None:
                labels = self.labels(len(codes))
            draws = RowDraws.counted(0, len(codes), device=self.device)
            z = codes[:, 0].reshape(-1, *self.shape)
            return self.family.sample(draws, labels=labels, latents=z)

    @torch.no_grad()
    def show(
        self, codes: Tensor, noise: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1], on the CPU."""
        parts = []
        for first in range(0, len(codes), 64):
            rows = slice(first, first + 64)
            parts.append(
                self.render(
                    codes[rows].to(self.device),
                    None if noise is None else noise[rows].to(self.device),
                    None if labels is None else labels[rows].to(self.device),
                )
            )
        return torch.cat(parts).clamp(-1.0, 1.0).cpu()
