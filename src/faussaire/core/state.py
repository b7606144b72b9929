"""Everything that training changes: what a checkpoint must hold, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from faussaire.core.average import Average
from faussaire.core.batch import RowDraws, mix
from faussaire.core.clock import Clock
from faussaire.core.device import Device, eagerly
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.optim import Optimiser, lazy_correction
from faussaire.core.phase import stage_at

Groups = dict[str, dict[str, Tensor]]


class State:
    """A family being trained: nets, averages, optimisers and the clock.

    Args:
        family: with freshly initialised nets; they are moved to `device` here.
        device: where and how the nets run.
        total: examples planned.
        half_life: of the averages, in examples; None: the family's.
    """

    def __init__(
        self, family: Family[Any], device: Device, *, total: int, half_life: float | None = None
    ) -> None:
        self.family = family
        self.device = device
        self.elapsed = 0.0
        self.clock = Clock(total=total)
        self.average = Average(
            {name: family.nets[name] for name in family.averaged},
            half_life=family.half_life if half_life is None else half_life,
        )
        for net in [*family.nets.values(), *family.frozen().values()]:
            device.prepare(net)
        for net in self.average.nets.values():
            device.prepare(net, compile=False)  # previews are too rare to repay compilation
        self.plan(total)
        self.optimisers = self._built()
        self._check_ownership()

    def plan(self, total: int) -> None:
        """(Re)make the training plan for a run of `total` examples, the clock staying."""
        self.stages = tuple(self.family.stages(total))
        stage = stage_at(self.stages, self.clock.examples).name
        self.clock = dataclasses.replace(self.clock, total=total, stage=stage)

    def change(self, **settings: Any) -> None:
        """Go on with other settings of the family: nets, averages, moments and the clock stay."""
        self.family = self.family.changed(**settings)
        self.plan(self.clock.total)
        before = {name: optimiser.tensors() for name, optimiser in self.optimisers.items()}
        self.optimisers = self._built()
        for name, optimiser in self.optimisers.items():
            optimiser.load(before[name])

    def _built(self) -> dict[str, Optimiser]:
        return {
            name: Optimiser(
                spec, self._parameters(spec.nets), lazy_correction(spec.nets, self.stages)
            )
            for name, spec in self.family.optimisers().items()
        }

    def _parameters(self, nets: tuple[str, ...]) -> dict[str, nn.Parameter]:
        return {
            f"{net}.{name}": parameter
            for net in nets
            for name, parameter in self.family.nets[net].named_parameters()
        }

    def _check_ownership(self) -> None:
        owners = [net for optimiser in self.optimisers.values() for net in optimiser.nets]
        moved = {net for stage in self.stages for phase in stage.phases for net in phase.nets}
        if len(owners) != len(set(owners)) or not moved <= set(owners):
            raise ValueError(f"optimisers own {owners}, phases move {sorted(moved)}")

    @property
    def movable(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by net, of the nets that some optimiser owns."""
        return {
            net: list(self.family.nets[net].parameters())
            for optimiser in self.optimisers.values()
            for net in optimiser.nets
        }

    def sampler(self) -> Family[Any]:
        """The family as samples should be made with it: averaged nets in place of the raw ones."""
        return self.family.with_nets(self.average.nets)

    @contextmanager
    def sampling(self, *, settle: bool = False) -> Iterator[Family[Any]]:
        """The sampler with every net in evaluation mode and without gradients; all is put back.

        Args:
            settle: get it ready as a finished model would be (`Family.settle`): for measuring.
        """
        modes = {name: net.training for name, net in self.family.nets.items()}
        for net in self.family.nets.values():
            net.eval()
        try:
            with torch.no_grad(), _buffers_kept(self.average.nets if settle else {}):
                family = self.sampler()
                if settle:
                    family.settle(settling_draws(self.device.name))
                yield family
        finally:
            for name, net in self.family.nets.items():
                net.train(modes[name])

    @contextmanager
    def untouched(self) -> Iterator[Family[Any]]:
        """The live family, in training mode, to look at: what looking changes is put back.

        That is buffers (batch norm's running statistics, spectral norm's vectors), the family's
        extra state and random numbers. Without gradients, and eager, for looks are of any size.
        """
        extra = self.family.extra_state()
        extra = {name: value.clone() for name, value in extra.items()}
        devices = [self.device.name] if self.device.kind == "cuda" else []
        try:
            with (
                torch.no_grad(),
                eagerly(),
                torch.random.fork_rng(devices),
                _buffers_kept(self.family.nets),
            ):
                yield self.family
        finally:
            if extra:
                self.family.load_extra_state(extra)

    def is_finite(self) -> bool:
        """Whether every parameter is a finite number."""
        totals = [
            parameter.detach().abs().sum()
            for parameters in self.movable.values()
            for parameter in parameters
        ]
        return bool(torch.stack(totals).sum().isfinite())

    def tensors(self) -> Groups:
        """All state as named tensors, by file: `networks`, `averaged`, `training`."""
        return {
            "networks": _flatten(self.family.nets),
            "averaged": self.average.tensors(),
            "training": {
                **{
                    f"optimiser/{name}/{key}": value
                    for name, optimiser in self.optimisers.items()
                    for key, value in optimiser.tensors().items()
                },
                **{f"extra/{key}": value for key, value in self.family.extra_state().items()},
            },
        }

    def load(self, groups: Groups, record: Mapping[str, Any]) -> None:
        """Put back what `tensors` and `record` gave.

        Raises:
            UserError: something is missing, or the tensors belong to other networks.
        """
        if missing := {"networks", "averaged", "training"} - groups.keys():
            raise UserError(
                f"The checkpoint lacks {', '.join(sorted(missing))}.", "Use an older checkpoint."
            )
        load_nets(self.family.nets, groups["networks"])
        load_nets(self.average.nets, groups["averaged"])
        training = groups["training"]
        for name, optimiser in self.optimisers.items():
            optimiser.load(_below(f"optimiser/{name}/", training))
        self.family.load_extra_state(
            {key: value.to(self.device.name) for key, value in _below("extra/", training).items()}
        )
        self.elapsed = float(record["elapsed"])
        self.clock = dataclasses.replace(
            self.clock,
            examples=int(record["examples"]),
            rounds=int(record["rounds"]),
            stage=stage_at(self.stages, int(record["examples"])).name,
        )

    def record(self) -> dict[str, Any]:
        """The part of the state that is not tensors."""
        return {
            "examples": self.clock.examples,
            "rounds": self.clock.rounds,
            "total": self.clock.total,
            "elapsed": self.elapsed,
        }


@contextmanager
def _buffers_kept(nets: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put the nets' buffers back to what they were at the beginning."""
    kept = {name: [buffer.clone() for buffer in net.buffers()] for name, net in nets.items()}
    try:
        yield
    finally:
        for name, buffers in kept.items():
            for buffer, value in zip(nets[name].buffers(), buffers, strict=True):
                buffer.copy_(value)


def settling_draws(device: str) -> RowDraws:
    """The randomness of `Family.settle`: the same wherever a model is made ready."""
    return RowDraws.counted(mix("settle"), 64, device=device)


def load_nets(nets: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors named `<net>.<key>` into the nets, in place.

    Raises:
        UserError: a name is missing or superfluous, or a shape differs.
    """
    for name, net in nets.items():
        try:
            net.load_state_dict(_below(f"{name}.", tensors), strict=True)
        except RuntimeError as error:
            raise UserError(
                f"The checkpoint does not fit the network '{name}': {error}",
                "It was made with other settings or another version; use the run's own config.yaml.",
            ) from error


def _flatten(nets: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, net in nets.items()
        for key, value in net.state_dict().items()
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, without it."""
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
