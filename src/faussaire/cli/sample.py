"""`faussaire sample RUN`: from a trained run, whatever it makes.

What can be asked differs between pictures, sentences and tables, so each kind of data has its own
module of options, `sample_<modality>.py`; the run says which.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from faussaire.core.errors import UserError
from faussaire.core.run import Run
from faussaire.families import modality_of


def run(arguments: list[str]) -> int:
    """Sample, and write what was asked for."""
    module = importlib.import_module(f"faussaire.cli.sample_{made_by(arguments)}")
    return module.run(arguments)


def made_by(words: Sequence[str]) -> str:
    """The kind of data that the run among these words makes; pictures where there is none."""
    for word in words:
        if word.startswith("-"):
            continue
        try:
            family = Run.around(Path(word)).config().get("family")
        except (UserError, OSError):
            continue  # the value of a flag, or a mistake that the command tells of
        return modality_of(str(family))
    return "pictures"
