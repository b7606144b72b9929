"""What is read off the rounds as they are played: means of losses, sizes of gradients and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from faussaire.core.distributed import World


class Pulse:
    """Feels one round: how large gradients are, and how far steps go, by phase."""

    def __init__(self) -> None:
        self._found: dict[str, Tensor] = {}
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def before(
        self, phase: str, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
    ) -> None:
        """Note the gradients of a step that is about to be taken."""
        self._kept = [parameter.detach().clone() for parameter in parameters]
        self._found[f"gradient {phase}"] = _norm([g for g in gradients if g is not None])

    @torch.no_grad()
    def after(self, phase: str, parameters: Sequence[Tensor]) -> None:
        """Note how far it went, relative to the weights."""
        moved = [now - then for now, then in zip(parameters, self._kept, strict=True)]
        self._found[f"step {phase}"] = _norm(moved) / _norm(self._kept).clamp(min=1e-12)
        self._kept = []

    def signs(self) -> dict[str, float]:
        """`gradient <phase>`: its norm; `step <phase>`: length of the step over that of the weights."""
        return {name: float(value) for name, value in self._found.items()}


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all numbers together, ()."""
    if not tensors:
        return torch.zeros(())
    return torch.stack([tensor.float().square().sum() for tensor in tensors]).sum().sqrt()


class Means:
    """Running means that stay on the device until somebody looks."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, values: Mapping[str, Tensor], group: str) -> None:
        """Count these scalars in."""
        for name, value in values.items():
            key = (group, name)
            value = value.detach().float()
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + 1

    def take(self, world: World) -> dict[str, dict[str, float]]:
        """Means over what was added since the last call, over all processes, by group."""
        keys = sorted(self._sums)
        taken: dict[str, dict[str, float]] = {"losses": {}, "signs": {}}
        if keys:
            sums = torch.stack([self._sums[key] for key in keys])
            world.mean_([sums])
            for key, total in zip(keys, sums.tolist(), strict=True):
                taken[key[0]][key[1]] = total / self._counts[key]
        self._sums, self._counts = {}, {}
        return taken
