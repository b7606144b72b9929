"""What a run will take: told by a few measured rounds, and told again where a machine gets slower.

Schedules end where a run ends, and are functions of the examples seen. A run with a budget of time must
therefore be planned for a number of examples. Where the machine slows down afterwards (a laptop gets
hot, another program runs), the time would be over in the middle of the plan: ProGAN's last level not
yet there, a rate that should have fallen to 0 still high. `Pace` plans such a run anew, for fewer
examples, and for more again where the slowness passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faussaire.core.clock import Clock
from faussaire.core.phase import Stage, stage_at


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

    SETTLED = 0.05
    """Share of the budget before which nothing is concluded: the first rounds are slow."""
    TOLERANCE = 0.08
    """Share of the budget by which the run may seem to end late, or early."""

    def __init__(self, forecast: Forecast, seconds: float) -> None:
        self.forecast, self.seconds = forecast, seconds
        self._marks: deque[tuple[float, int]] = deque()

    def total(self, clock: Clock, elapsed: float) -> int:
        """Examples that the run should now be planned for, at the speed of its last third so far.

        Fewer where it would end late; more where it would end early, so that a passing slowness is
        made good again. The present stage stays the present one, if only for a moment: none is
        skipped, none comes twice, and what remains to be changed is left to the next call.
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
        late = slower * self.forecast.time(clock.total, clock.examples) - left
        if abs(late) <= self.TOLERANCE * self.seconds:
            return clock.total
        wanted = self.forecast.examples(left / slower, clock.examples)
        return self._towards(wanted, clock)

    def _towards(self, wanted: int, clock: Clock) -> int:
        """The total nearest to `wanted` whose stage at this example is the present one."""

        def stage(total: int) -> str:
            return stage_at(self.forecast.stages(total), clock.examples).name

        near, far, now = clock.total, wanted, stage(clock.total)
        if stage(far) == now:
            return far
        while abs(far - near) > max(1, near // 1000):
            middle = (near + far) // 2
            near, far = (middle, far) if stage(middle) == now else (near, middle)
        return near
