"""Optimisers as data: which nets they own and how they step.

They belong to nets, not to phases: a discriminator's loss and its lazy penalty share one set of
moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faussaire.core.clock import Clock
from faussaire.core.phase import Stage
from faussaire.core.schedule import Schedule, as_schedule


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015) over the parameters of `nets`."""

    nets: tuple[str, ...]
    lr: float | Schedule
    betas: tuple[float, float | Schedule] = (0.5, 0.999)
    eps: float = 1e-8

    def settings(self, clock: Clock, correction: float) -> dict[str, Any]:
        """What a step at this instant uses."""
        beta2 = as_schedule(self.betas[1])(clock)
        return {
            "lr": as_schedule(self.lr)(clock) * correction,
            "betas": (self.betas[0] ** correction, beta2**correction),
        }

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        kinds = {parameter.device.type for parameter in parameters}
        fused = kinds <= {"cpu", "cuda"}
        return torch.optim.Adam(parameters, lr=1.0, eps=self.eps, fused=fused)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain stochastic gradient descent over the parameters of `nets`."""

    nets: tuple[str, ...]
    lr: float | Schedule
    momentum: float = 0.0

    def settings(self, clock: Clock, correction: float) -> dict[str, Any]:
        """What a step at this instant uses."""
        return {"lr": as_schedule(self.lr)(clock) * correction}

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0, momentum=self.momentum)


OptimiserSpec = Adam | SGD


def lazy_correction(nets: Iterable[str], stages: Sequence[Stage]) -> float:
    """Factor on the rate, and exponent on the betas, of an optimiser that lazy phases also step.

    A phase visited every k rounds adds 1/k steps a round; StyleGAN2 (Karras et al. 2020, appendix B)
    multiplies the rate by k / (k + 1) and raises the betas to it, so that a round moves the
    parameters, and forgets, as much as one step would. Beside n critic steps it is n / (n + 1/k).
    """
    owned = set(nets)

    def correction(stage: Stage) -> float:
        ours = [phase for phase in stage.phases if owned & {*phase.nets}]
        usual = sum(phase.repeat for phase in ours if phase.every == 1)
        lazy = sum(phase.repeat / phase.every for phase in ours if phase.every > 1)
        return usual / (usual + lazy) if usual else 1.0

    return min(correction(stage) for stage in stages)


class Optimiser:
    """A built optimiser, its schedule, and its state by parameter name."""

    def __init__(
        self, spec: OptimiserSpec, parameters: dict[str, nn.Parameter], correction: float = 1.0
    ) -> None:
        self.nets = spec.nets
        self.parameters = parameters
        self._spec = spec
        self._correction = correction
        self._torch = spec.build(list(parameters.values()))

    def rate(self, clock: Clock) -> float:
        """The learning rate at this instant, lazy correction included."""
        return self._spec.settings(clock, self._correction)["lr"]

    def step(self, clock: Clock) -> None:
        """One step along the gradients in `.grad`; parameters without one stay."""
        for group in self._torch.param_groups:
            group.update(self._spec.settings(clock, self._correction))
        self._torch.step()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as tensors named `<parameter>/<entry>`."""
        found = {}
        for name, parameter in self.parameters.items():
            for entry, value in self._torch.state.get(parameter, {}).items():
                if value is not None:
                    found[f"{name}/{entry}"] = value
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave.

        Moments take the memory layout of their parameter: fused kernels walk both side by side.
        """
        self._torch.state.clear()
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            parameter = self.parameters[name]
            if value.shape == parameter.shape and value.dim() > 0:
                restored = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            else:
                # Fused kernels want even the step count on the parameter's device.
                restored = value.to(parameter.device, copy=True)
            self._torch.state[parameter][entry] = restored.detach()
