"""Search for settings: trials by Optuna, each an ordinary run; the hopeless are ended early."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from faussaire.core.errors import UserError
from faussaire.tuning.plan import Found, Plan
from faussaire.tuning.training import Command

__all__ = ["Found", "Plan", "require_optuna", "tune"]


def tune(
    plan: Plan,
    *,
    told: Callable[[str], None] = lambda sentence: None,
    command: Command | None = None,
) -> Found:
    """Run a search, or go on with it, until it has all its trials.

    Its folder then has `tune.yaml`, `study.db`, `trials/`, `tuning.html`, and `best.yaml` for
    `faussaire train --config`.

    Args:
        plan: what to do.
        told: given sentences on the way.
        command: trains in place of `faussaire train`.

    Raises:
        UserError: see its sentence; Interrupted is a kind of it.
    """
    require_optuna()
    from faussaire.tuning.search import Search

    return Search(plan, told, command).run()


def require_optuna() -> None:
    """Make sure that Optuna is there.

    Raises:
        UserError: it is not.
    """
    try:
        importlib.import_module("optuna")
    except ImportError as error:
        raise UserError(
            "Optuna, which searches, is not installed.",
            "Install it with pip install 'faussaire[tune]'.",
        ) from error
