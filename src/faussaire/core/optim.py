"""Optimisers as data: which nets they own and how they step.

They belong to nets, not to phases: a discriminator's loss and its lazy penalty share one set of
moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faussaire.core.clock import Clock
from faussaire.core.phase import Stage
from faussaire.core.schedule import Schedule, as_schedule


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015) over the parameters of `nets`.

    Attributes:
        nets: whose parameters it moves.
        lr: the rate.
        betas: of the moments.
        eps: beneath the square root of the second.
        decay: times a parameter is added to its gradient (L2, before the moments).
    """

    nets: tuple[str, ...]
    lr: float | Schedule
    betas: tuple[float, float | Schedule] = (0.5, 0.999)
    eps: float = 1e-8
    decay: float = 0.0

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
        return torch.optim.Adam(
            parameters, lr=1.0, eps=self.eps, weight_decay=self.decay, fused=fused
        )


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


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """Limited-memory BFGS with a line search for the strong Wolfe conditions.

    Nocedal and Wright 2006, "Numerical Optimization", algorithms 7.5 and 3.5. For losses that are the
    same at every look: a step looks at the phase's loss several times, with the same random numbers.

    Attributes:
        nets: whose parameters it moves.
        lr: length of the first trial of each line search; 1 is the whole step.
        iterations: in a step, with at most 1.25 times as many looks at the loss.
        history: pairs of steps and changes of the gradient that are remembered.
    """

    nets: tuple[str, ...]
    lr: float | Schedule = 1.0
    iterations: int = 10
    history: int = 20

    def settings(self, clock: Clock, correction: float) -> dict[str, Any]:
        """What a step at this instant uses."""
        return {"lr": as_schedule(self.lr)(clock) * correction}

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            parameters,
            max_iter=self.iterations,
            history_size=self.history,
            # The phase says when it is over: small losses have small changes.
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )


OptimiserSpec = Adam | SGD | LBFGS

Look = Callable[[], Tensor]
"""Gives the phase's loss where the parameters stand now, and leaves its gradients in `.grad`."""


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


#: Of the state of L-BFGS, what is a list of tensors, and what is a number.
_LISTS = ("old_dirs", "old_stps", "ro")
_NUMBERS = {"func_evals": int, "n_iter": int, "prev_loss": float, "t": float}


def _remembered(entry: str, value: Tensor, parameter: Tensor) -> Any:
    """An entry of the state of L-BFGS, as torch has it."""
    if entry in _NUMBERS:
        return _NUMBERS[entry](value)
    value = value.to(parameter.device, copy=True)
    return list(value.unbind()) if entry in _LISTS else value


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

    def step(self, clock: Clock, look: Look | None = None) -> None:
        """One step along the gradients in `.grad`; parameters without one stay.

        Args:
            clock: when.
            look: for L-BFGS, which tries several points in a step.
        """
        for group in self._torch.param_groups:
            group.update(self._spec.settings(clock, self._correction))
        if not isinstance(self._spec, LBFGS):
            self._torch.step()
            return
        assert look is not None

        def closure() -> float:
            loss = float(look())
            for parameter in self.parameters.values():
                if parameter.grad is not None:  # torch flattens it, which wants rows in order
                    parameter.grad = parameter.grad.contiguous()
            return loss

        self._torch.step(closure)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as tensors named `<parameter>/<entry>`.

        L-BFGS keeps that of all its parameters with the first: numbers, and lists of past steps.
        """
        found = {}
        for name, parameter in self.parameters.items():
            for entry, value in self._torch.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}/{entry}"] = value
                elif isinstance(value, list):
                    if entry in _LISTS and value:
                        found[f"{name}/{entry}"] = torch.stack(value)
                elif value is not None:
                    found[f"{name}/{entry}"] = torch.tensor(value, dtype=torch.float64)
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave.

        Moments take the memory layout of their parameter: fused kernels walk both side by side.
        """
        self._torch.state.clear()
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            parameter = self.parameters[name]
            if isinstance(self._spec, LBFGS):
                self._torch.state[parameter][entry] = _remembered(entry, value, parameter)
                continue
            if value.shape == parameter.shape and value.dim() > 0:
                restored = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            else:
                # Fused kernels want even the step count on the parameter's device.
                restored = value.to(parameter.device, copy=True)
            self._torch.state[parameter][entry] = restored.detach()
