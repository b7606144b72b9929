"""`faussaire sample RUN` of what makes nothing."""

from __future__ import annotations

from faussaire.core.errors import UserError


def run(arguments: list[str]) -> int:
    """Say what it is for.

    Raises:
        UserError: always.
    """
    raise UserError(
        "pretext learns to see and makes nothing, so it cannot be sampled.",
        "What it sees: faussaire features RUN pictures/ --out features.npz",
    )
