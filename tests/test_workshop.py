"""What is measured before a run begins."""

from __future__ import annotations

import numpy as np
import pytest

from faussaire import workshop
from faussaire.core.config import resolve
from faussaire.core.phase import Phase, Stage
from faussaire.families import load_family
from faussaire.workshop import Workshop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    source = tmp_path_factory.mktemp("data") / "pictures.npy"
    np.save(source, np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    kind = load_family("dcgan")
    layer = {"batch": 256, "resolution": 32, "width": 32}
    return Workshop.open(resolve("dcgan", str(source), kind.Config, layer))


@pytest.mark.long
def test_the_part_that_fits_depends_on_the_memory_that_is_free(shop, monkeypatch):
    peaks = {size: workshop._peak_elsewhere(shop.settings, size) for size in (32, 128)}
    assert peaks[128] > peaks[32] > 2**26
    monkeypatch.setattr(workshop, "_peak_elsewhere", lambda settings, size: peaks[size])
    monkeypatch.setattr(workshop, "available_memory", lambda: 2**40)
    assert shop.fit() == 256
    # Just above what 64 take, by the straight line through the two.
    middle = peaks[32] + (peaks[128] - peaks[32]) / 3
    monkeypatch.setattr(workshop, "available_memory", lambda: 1.01 * middle / 0.8)
    assert shop.fit() == 64
    monkeypatch.setattr(workshop, "available_memory", lambda: 1)
    assert shop.fit() == 1


def test_lazy_phases_cost_as_often_as_they_come(shop):
    """A round without them, and their share of the rounds with them."""
    calls: list[int] = []

    class Playing:
        """Rounds that take 1 s, and 4 s more where a phase of every 4th is due."""

        class State:
            clock = workshop.dataclasses.make_dataclass(
                "Clock", [("examples", int), ("rounds", int)]
            )(0, 0)

        class Means:
            @staticmethod
            def take(world):
                return {}

        state, means = State(), Means()

        def play(self) -> None:
            rounds = self.state.clock.rounds
            calls.append(rounds)
            now[0] += 1.0 + (4.0 if rounds % 4 == 0 else 0.0)
            self.state.clock = workshop.dataclasses.replace(self.state.clock, examples=10)

    now = [0.0]
    phases = tuple(
        Phase(name=name, nets=("net",), loss=lambda batch, clock: {}, every=every)
        for name, every in (("main", 1), ("lazy", 4))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop.time, "perf_counter", lambda: now[0])
        cost = shop.seconds_an_example(Playing(), Stage(name="s", phases=phases), 2)
    assert calls == [1, 1, 4]
    assert cost == pytest.approx((1.0 + 4.0 / 4) / 10)
