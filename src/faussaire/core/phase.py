"""An algorithm as data: stages made of phases, which the loop walks through.

One *round* visits every phase of the current stage once (or `repeat` times, or every `every` rounds).
A GAN is two phases, a VAE is one, style transfer is one whose only net is a picture, and SeqGAN is
three stages. The loop knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from faussaire.core.batch import Batch
    from faussaire.core.clock import Clock

Loss = Callable[["Batch", "Clock"], "Mapping[str, Tensor]"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """These nets move to lower this loss; every other net stands still meanwhile.

    Attributes:
        name: prefix of the loss terms in console, events and plots.
        nets: names of the nets whose parameters are stepped.
        loss: named terms, each a mean over the batch, whose sum is lowered.
        every: visit in one round of `every` only (a lazy regulariser). Its loss is multiplied by
            `every`, so that the expected gradient is that of a visit each round.
        repeat: visits in a round. The first sees the round's batch, each further one a fresh batch.
        fresh: even the first visit sees a batch of its own.
    """

    name: str
    nets: tuple[str, ...]
    loss: Loss
    every: int = 1
    repeat: int = 1
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.every < 1 or self.repeat < 1 or not self.nets:
            raise ValueError(f"phase {self.name}: nets must be named, every and repeat at least 1")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training plan.

    Attributes:
        name: shown to the user.
        phases: visited in this order in each round.
        until: examples seen at which the stage ends; None: the end of the run.
        batch: examples in a batch of this stage over all processes; None: the run's.
    """

    name: str
    phases: tuple[Phase, ...]
    until: int | None = None
    batch: int | None = None


def stage_at(stages: Sequence[Stage], examples: int) -> Stage:
    """The stage in force once `examples` examples have been seen: a pure function of the count."""
    for stage in stages:
        if stage.until is None or examples < stage.until:
            return stage
    return stages[-1]
