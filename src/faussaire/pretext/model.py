"""A network trained by self-supervision, loaded again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.device import Device
from faussaire.core.family import Family, Pictures
from faussaire.features import Given, features_of


class PretextModel:
    """What pretext has learnt to see, with averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: the form of its pictures.
        examples: how many it had seen.
        device: where it runs.
    """

    def __init__(self, family: Family[Any], spec: Pictures, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    def features(self, images: Given) -> Tensor:
        """What it sees in pictures, float32 (N, K) on the CPU: see `faussaire.features.features_of`."""
        return features_of(self.family, self.device, images)

    def sample(self, count: int = 16, **how: Any) -> Tensor:
        """It makes nothing.

        Raises:
            UserError: always, with what it is for.
        """
        return self.family.sample(RowDraws.counted(0, count), **how)
