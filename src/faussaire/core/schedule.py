"""Schedules: pure functions of the clock.

They read `clock.examples` and `clock.total`, never a step counter of their own, so that neither the
batch size nor the number of processes nor a resume changes what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from faussaire.core.clock import Clock

Schedule = Callable[[Clock], float]


def constant(value: float) -> Schedule:
    """`value`, always."""
    return lambda clock: value


def linear(start: float, end: float, *, begin: float = 0.0, until: float = 1.0) -> Schedule:
    """From `start` to `end` in a straight line between two shares of the run, flat outside."""

    def value(clock: Clock) -> float:
        share = (clock.progress - begin) / max(until - begin, 1e-12)
        return start + (end - start) * min(1.0, max(0.0, share))

    return value


def cosine(start: float, end: float, *, examples: int) -> Schedule:
    """From `start` to `end` along half a cosine over the first `examples` examples, then `end`."""

    def value(clock: Clock) -> float:
        share = min(1.0, clock.examples / max(1, examples))
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))

    return value


def as_schedule(value: float | Schedule) -> Schedule:
    """A number becomes a constant schedule."""
    return value if callable(value) else constant(value)
