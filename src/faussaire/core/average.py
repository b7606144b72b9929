"""Exponential moving averages of networks: what samples are made with.

The half-life is in examples, so neither batch size nor processes change it. It never exceeds a share
of what has been seen (Karras et al. 2020, StyleGAN2-ADA, `ema_rampup`), so that the average of a
short run does not lag behind at its random beginning.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from faussaire.core.clock import Clock


def decay(examples: int, seen: int, *, half_life: float, ramp: float) -> float:
    """Weight of the old average in an update after `examples` more examples, `seen` in all."""
    effective = min(half_life, seen * ramp)
    return 0.5 ** (examples / effective) if effective > 0 else 0.0


class Average:
    """Averaged twins of some nets; parameters are averaged, buffers are copied."""

    def __init__(
        self, nets: dict[str, nn.Module], *, half_life: float = 10_000.0, ramp: float = 0.05
    ) -> None:
        self.half_life, self.ramp = half_life, ramp
        self._sources = nets
        self.nets = {name: copy.deepcopy(net).eval() for name, net in nets.items()}
        for net in self.nets.values():
            net.requires_grad_(False)

    @torch.no_grad()
    def update(self, clock: Clock, examples: int) -> None:
        """Move the averages after a round of `examples` examples, `clock` being its end."""
        keep = decay(examples, clock.examples, half_life=self.half_life, ramp=self.ramp)
        for name, source in self._sources.items():
            twin = self.nets[name]
            ours: list[Tensor] = [*twin.parameters()]
            theirs: list[Tensor] = [*source.parameters()]
            if ours:
                torch._foreach_lerp_(ours, theirs, 1.0 - keep)  # pyright: ignore
            for mine, other in zip(twin.buffers(), source.buffers(), strict=True):
                mine.copy_(other)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers as `<net>.<name>`."""
        return {
            f"{name}.{key}": value
            for name, net in self.nets.items()
            for key, value in net.state_dict().items()
        }
