"""A run with a budget of time: how many examples, and what becomes of the plan on a slower machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from tests import toys

from faussaire.core import events
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.events import Audience
from faussaire.core.forecast import Forecast, Pace
from faussaire.core.loop import Loop, Plan
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.core.state import State

PHASE = Phase(name="p", nets=("net",), loss=lambda batch, clock: {})


def stages(total: int) -> list[Stage]:
    """A cheap quarter and a dear rest."""
    first = Stage(name="small", phases=(PHASE,), until=total // 4)
    return [first, Stage(name="large", phases=(PHASE,))]


FORECAST = Forecast({"small": 0.01, "large": 0.1}, stages)


def test_time_is_counted_by_stage():
    assert FORECAST.time(1000) == pytest.approx(250 * 0.01 + 750 * 0.1)
    assert FORECAST.time(1000, 200, 300) == pytest.approx(50 * 0.01 + 50 * 0.1)
    assert FORECAST.time(1000, 400, 400) == 0
    halves = FORECAST.time(1000, 0, 130), FORECAST.time(1000, 130)
    assert sum(halves) == pytest.approx(FORECAST.time(1000))


def test_examples_are_what_the_time_suffices_for():
    assert FORECAST.time(FORECAST.examples(600.0)) == pytest.approx(600.0, rel=2e-3)
    # From example 2000 on, all of which is dear where the total is below 8000.
    assert FORECAST.examples(100.0, 2000) == pytest.approx(3000, rel=2e-3)


def follow(slower: Callable[[float], float], seconds: float = 600.0) -> tuple[Clock, list[int]]:
    """A run to its deadline on a machine `slower(elapsed)` times slower than forecast; its totals."""
    pace = Pace(FORECAST, seconds)
    clock = Clock(total=FORECAST.examples(seconds))
    elapsed, totals = 0.0, [clock.total]
    while elapsed < seconds:
        stage = "small" if clock.examples < clock.total // 4 else "large"
        clock = dataclasses.replace(clock, examples=clock.examples + 4)
        elapsed += 4 * slower(elapsed) * FORECAST.seconds[stage]
        total = pace.total(clock, elapsed)
        if total != clock.total:
            totals.append(total)
        clock = dataclasses.replace(clock, total=total)
    return clock, totals


@pytest.mark.parametrize("slower", [0.97, 1.0, 1.05])
def test_a_run_in_time_keeps_its_plan(slower):
    _, totals = follow(lambda elapsed: slower)
    assert len(totals) == 1


@pytest.mark.parametrize("slower", [0.5, 1.5, 2.0, 4.0])
def test_a_run_at_another_speed_still_ends_where_its_plan_ends(slower):
    clock, totals = follow(lambda elapsed: slower)
    assert (clock.total < 0.9 * totals[0]) if slower > 1 else (clock.total > 1.1 * totals[0])
    # Within the tolerance, after which nothing is planned anew.
    assert 0.85 * clock.total < clock.examples < 1.1 * clock.total


def test_a_passing_slowness_is_made_good_again():
    clock, totals = follow(lambda elapsed: 3.0 if 60 <= elapsed < 90 else 1.0)
    assert min(totals) < 0.9 * totals[0]
    assert clock.total > 0.85 * totals[0]
    assert 0.85 * clock.total < clock.examples < 1.1 * clock.total


def test_a_new_plan_never_skips_a_stage_nor_goes_back():
    """Nine stages of growing on a machine that becomes four times slower, then recovers."""

    def growing(total: int) -> list[Stage]:
        span = total // 16
        rests = [Stage(name=str(n), phases=(PHASE,), until=(n + 1) * span) for n in range(8)]
        return [*rests, Stage(name="8", phases=(PHASE,))]

    forecast = Forecast({str(n): 0.005 * (n + 1) for n in range(9)}, growing)
    pace, clock = Pace(forecast, 600.0), Clock(total=forecast.examples(600.0))
    elapsed, visited = 0.0, [0]
    while elapsed < 600.0:
        slower = 1.0 if elapsed < 30 else 4.0 if elapsed < 200 else 1.0
        stage = int(stage_at(growing(clock.total), clock.examples).name)
        clock = dataclasses.replace(clock, examples=clock.examples + 4)
        elapsed += 4 * slower * forecast.seconds[str(stage)]
        clock = dataclasses.replace(clock, total=pace.total(clock, elapsed))
        visited.append(stage)
    assert visited == sorted(visited)
    assert set(visited) == set(range(9))
    assert 0.85 * clock.total < clock.examples < 1.1 * clock.total


def test_the_loop_plans_anew_and_says_so():
    """A forecast that is a hundred times too good: both stages are nevertheless gone through."""

    class Staged(toys.WGANGP):
        def stages(self, total: int) -> tuple[Stage, ...]:
            (only,) = super().stages(total)
            first = dataclasses.replace(only, name="first", until=total // 2)
            return (first, dataclasses.replace(only, name="second"))

    class Listener:
        def __init__(self) -> None:
            self.heard: list[events.Event] = []

        def see(self, event: events.Event) -> None:
            self.heard.append(event)

        def close(self) -> None:
            pass

    promised = 2_000_000
    state = State(Staged(), Device(name="cpu", precision="float32"), total=promised)
    seconds = 3.0
    forecast = Forecast(dict.fromkeys(("first", "second"), seconds / promised), state.family.stages)
    listener = Listener()
    Loop(
        state,
        toys.TOYS["wgan-gp"].stream(0, 1),
        Plan(batch=64, seconds=seconds),
        audience=Audience([listener]),
        pace=Pace(forecast, seconds),
    ).run()
    begun = [event.stage for event in listener.heard if isinstance(event, events.StageBegan)]
    assert begun == ["first", "second"]
    assert state.clock.total < promised / 2
    notes = [event.message for event in listener.heard if isinstance(event, events.Noted)]
    assert "slower" in notes[0]
