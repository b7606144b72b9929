"""Errors that a person can act on.

Every mistake a user can make ends in a `UserError`: a sentence with the cause and the value, and a
hint with the next step. The command line prints it without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend.

    Args:
        cause: what went wrong, with the offending value, as a sentence.
        hint: what to do next, as a sentence; empty only where nothing can be said.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.cause} {self.hint}".rstrip()


class Diverged(UserError):
    """Training produced NaN, infinity or an exploding loss; the last good checkpoint is kept."""


class Interrupted(UserError):
    """A signal, or the death of another process, ended the run before its time.

    Args:
        code: exit code: 130 for Ctrl-C, 143 for SIGTERM as shells have it, else 2.
    """

    def __init__(self, cause: str, hint: str = "", code: int = 2) -> None:
        super().__init__(cause, hint)
        self.code = code


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'dcgan'?"` if one of `known` resembles `name`, else an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{match[0]}'?" if match else ""
