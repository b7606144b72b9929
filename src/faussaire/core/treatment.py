"""A change of settings in the middle of a run, asked for by a declared controller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What is to be changed, and why.

    Attributes:
        settings: of the family, by name; nets, averages and moments stay.
        back_to: examples seen at the checkpoint to go back to first; None: go on from here.
        why: a sentence for the user.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    back_to: int | None = None
    why: str = ""

    def text(self) -> str:
        """As a line, for other processes."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Treatment:
        """What `text` gave."""
        return cls(**json.loads(text))
