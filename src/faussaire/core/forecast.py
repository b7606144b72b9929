"""What a run will take: told by a few measured rounds, and told again where a machine gets slower.

Schedules end where a run ends, and are functions of the examples seen. A run with a budget of time must
therefore be planned for a number of examples. Where the machine slows down afterwards (a laptop gets
hot, another program runs), the time would be over in the middle of the plan: ProGAN's last level not
yet there, a rate that should have fallen to 0 still high. `Pace` plans such a run anew, for fewer
examples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faussaire.core.clock import Clock
from faussaire.core.phase import Stage


@dataclass(frozen=True)
class Forecast:
    """Seconds from examples and back, by what an example costs in each stage.

    Attributes:
        seconds: an example costs over all processes, by stage.
        stages: the training plan for a total of examples.
    """

    seconds: Mapping[str, float]
    stages: Callable[[int], Sequence[Stage]]

    def time(self, total: int, begin: int = 0, end: int | None = None) -> float:
        """Seconds from example `begin` to `end` of a run of `total`; None: its own end."""
        end = total if end is None else end
        reached, spent = 0, 0.0
        dearest = max(self.seconds.values())
        for stage in self.stages(total):
            until = end if stage.until is None else min(end, stage.until)
            count = max(0, until - max(begin, reached))
            spent += count * self.seconds.get(stage.name, dearest)
            reached = max(reached, until)
        return spent

    def examples(self, seconds: float, begin: int = 0) -> int:
        """Total of the run that takes so many seconds from example `begin` to its end."""
        low, high = begin + 1, 2 * (begin + 1)
        while self.time(high, begin) < seconds and high < 1 << 50:
            low, high = high, 2 * high
        while high - low > max(1, low // 1000):
            middle = (low + high) // 2
            low, high = (middle, high) if self.time(middle, begin) <= seconds else (low, middle)
        return low


class Pace:
    """How a run with a budget of time keeps up with its forecast.

    Args:
        forecast: made before the run began.
        seconds: the budget.
    """

    SETTLED = 0.03
    """Share of the budget before which nothing is concluded: the first rounds are slow."""
    TOLERANCE = 0.08
    """Share of the budget by which the run may seem to outlast it."""

    def __init__(self, forecast: Forecast, seconds: float) -> None:
        self.forecast, self.seconds = forecast, seconds
        self._marks: deque[tuple[float, int]] = deque()

    def total(self, clock: Clock, elapsed: float) -> int:
        """Examples that the run should now be planned for: `clock.total`, or fewer.

        The speed is that of the last third of the run so far. There are never more than planned: a
        plan that grew would undo what was reached. A run that is faster trains on at its end.
        """
        self._marks.append((elapsed, clock.examples))
        while len(self._marks) > 2 and self._marks[1][0] <= elapsed * 2 / 3:
            self._marks.popleft()
        then, seen = self._marks[0]
        expected = self.forecast.time(clock.total, seen, clock.examples)
        left = self.seconds - elapsed
        if elapsed - then < self.SETTLED * self.seconds or expected <= 0 or left <= 0:
            return clock.total
        slower = (elapsed - then) / expected
        rest = slower * self.forecast.time(clock.total, clock.examples)
        if rest - left <= self.TOLERANCE * self.seconds:
            return clock.total
        return min(clock.total, self.forecast.examples(left / slower, clock.examples))
