"""The examination itself, on players whose state is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from faussaire.core import events
from faussaire.core.batch import Batch
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import Interrupted
from faussaire.core.events import Audience
from faussaire.core.family import Family, Look, Pictures
from faussaire.core.loop import Loop, Order, Plan
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.doctor.examiner import Examiner
from faussaire.doctor.watch import Watch
from faussaire.families import load_family

ROWS = np.arange(200)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(200, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(200) % 4
    return {"images": coarse.repeat(4, axis=1).repeat(4, axis=2), "labels": labels}


def state_of(name: str = "dcgan", classes: tuple[str, ...] = (), **settings: Any) -> State:
    torch.manual_seed(0)
    kind = load_family(name)
    spec = Pictures(channels=3, height=16, width=16, classes=classes)
    return State(
        kind(kind.Config(**settings), spec), Device(name="cpu", precision="float32"), total=1000
    )


class Staged:
    """Stands in for a family's look: chosen reals' fakes and logits."""

    def __init__(self, state: State, look: Any) -> None:
        state.family.examined = look  # type: ignore[method-assign]
        state.family.judged = lambda batch, clock: look(batch, clock).real_logits  # type: ignore[method-assign]


def test_a_generator_that_copies_is_seen_to_copy(table):
    state = state_of(width=8)
    copies = state.device.put(table["images"][:128])

    def look(batch, clock):
        reals = batch["images"]
        return Look(
            reals=reals,
            fakes=copies[: len(reals)] + 0.001,
            real_logits=torch.ones(len(reals)),
            fake_logits=torch.zeros(len(reals)),
        )

    Staged(state, look)
    found = Examiner(state, table, ROWS[:150], ROWS[150:], at_once=lambda: 128)()
    assert found["copying"] < 0.05
    assert found["win rate"] == 1.0
    assert found["overfit"] == 0.5
    assert found["diversity"] == pytest.approx(1.0, abs=0.1)


def test_mirrored_copies_are_copies_where_training_mirrors(table):
    state = state_of(width=8)

    def look(batch, clock):
        flat = torch.zeros(batch.total)
        mirrored = state.device.put(table["images"][: batch.total]).flip(3)
        return Look(reals=batch["images"], fakes=mirrored, real_logits=flat, fake_logits=flat)

    Staged(state, look)
    found = {
        flip: Examiner(state, table, ROWS[:150], ROWS[150:], flip=flip)()["copying"]
        for flip in (False, True)
    }
    assert found[True] < 0.01
    assert found[False] > 0.5


def test_memory_fades_with_the_pictures(table):
    """ProGAN in the middle of a fade shows other pictures than at its beginning."""
    state = state_of("progan", fmap_base=64, fmap_max=16, latent=8)
    family = state.family
    examiner = Examiner(state, table, ROWS[:150], ROWS[150:], at_once=lambda: 128)
    copies = state.device.put(table["images"][:128])

    def look(batch, clock):
        reals = family.shown(batch, clock)
        fakes = family.shown(
            Batch({"images": copies[: batch.total]}, batch.draws, batch.total), clock
        )
        flat = torch.zeros(batch.total)
        return Look(reals=reals, fakes=fakes, real_logits=flat, fake_logits=flat)

    Staged(state, look)
    fade = next(stage for stage in state.stages if stage.name == "16x16 fade")
    for examples in (fade.until - 120, fade.until - 60, fade.until - 1):
        state.clock = Clock(examples=examples, total=1000, stage=fade.name)
        assert examiner()["copying"] < 0.01


def test_a_generator_of_nan_has_opinions_only(table):
    state = state_of(width=8)

    def look(batch, clock):
        flat = torch.zeros(batch.total)
        nothing = torch.full_like(batch["images"], float("nan"))
        return Look(reals=batch["images"], fakes=nothing, real_logits=flat, fake_logits=flat)

    Staged(state, look)
    found = Examiner(state, table, ROWS[:150], ROWS[150:])()
    assert found["win rate"] == 0.5
    assert "diversity" not in found


def test_a_collapsed_class_is_named(table):
    state = state_of(width=8, classes=("a", "b", "c", "d"), conditional=True)

    def look(batch, clock):
        fakes = batch["images"].flip(2).clone()
        third = batch["labels"] == 2
        fakes[third] = fakes[third][:1]
        flat = torch.zeros(len(fakes))
        return Look(reals=batch["images"], fakes=fakes, real_logits=flat, fake_logits=flat)

    Staged(state, look)
    found = Examiner(
        state, table, ROWS[:160], ROWS[160:], at_once=lambda: 200, classes=("a", "b", "c", "d")
    )()
    assert found["diversity of c"] == 0.0
    assert found["diversity of a"] > 0.8
    assert found["duplicates"] == pytest.approx(0.25, abs=0.08)


def test_large_batches_are_looked_at_in_parts_as_in_training(table):
    sizes = []
    state = state_of(width=8)
    inner = state.family.examined

    def look(batch, clock):
        sizes.append(batch.total)
        return inner(batch, clock)

    Staged(state, look)
    Examiner(state, table, ROWS[:150], ROWS[150:], at_once=lambda: 30)()
    # 128 of 150, the last part of 8 left out; all 50 unseen, in 30 and 20.
    assert sizes == [30, 30, 30, 30, 30, 20]


def test_few_pictures_or_no_game_give_no_signs(table):
    state = state_of(width=8)
    assert Examiner(state, table, ROWS[:7], ROWS[:0])() == {}
    Staged(state, lambda batch, clock: None)
    assert Examiner(state, table, ROWS, ROWS[:0])() == {}


def test_without_unseen_pictures_the_rest_is_there(table):
    found = Examiner(state_of(width=8), table, ROWS, ROWS[:0])()
    assert "overfit" not in found
    assert found["copying"] > 0


def test_a_doctor_that_fails_ends_alone(table):
    state = state_of(width=8)
    heard: list[events.Event] = []

    class Ears:
        def see(self, event: events.Event) -> None:
            heard.append(event)

        def close(self) -> None:
            pass

    def fail() -> dict[str, float]:
        raise RuntimeError("no stethoscope")

    Loop(
        state,
        Stream([table], seed=0),
        Plan(batch=100),
        world=World(),
        audience=Audience([Ears()]),
        doctor=Watch(fail, {}),
    ).run()
    assert state.clock.examples == 1000
    notes = [event.message for event in heard if isinstance(event, events.Noted)]
    assert notes == ["The doctor had to give up: RuntimeError('no stethoscope')."]


class Idle:
    """A doctor who looks and has nothing to say."""

    every, looked_at, well = 0, -1, True
    order: Order = "go on"

    def examine(self):
        return {"diversity": 1.0}

    def hurry(self):
        self.hurried = getattr(self, "hurried", 0) + 1

    def diagnose(self, look):
        return None

    def treat(self, checkpoints):
        return None

    def rescue(self, checkpoints):
        return None

    def record(self):
        return {}


@pytest.mark.parametrize(("order", "code"), [("stop", 3), ("finish", None)])
def test_a_doctor_may_end_a_run_where_that_was_asked_for(table, tmp_path, order, code):
    class Stern(Idle):
        def diagnose(self, look):
            self.order = order

    state = state_of(width=8)
    loop = Loop(
        state,
        Stream([table], seed=0),
        Plan(batch=100),
        checkpoints=Checkpoints(tmp_path),
        doctor=Stern(),
    )
    if code is None:
        loop.run()
    else:
        with pytest.raises(Interrupted, match="doctor") as caught:
            loop.run()
        assert caught.value.code == code
    assert state.clock.examples == 100
    assert Checkpoints(tmp_path).all()[-1].name.endswith("100")  # nothing is lost


def test_looks_take_their_share_of_the_time_and_more_of_it_early(table, monkeypatch):
    """On a clock of our own: rounds take a second, looks take two."""
    now = 0.0
    monkeypatch.setattr("faussaire.core.loop.time.monotonic", lambda: now)
    state = state_of(width=8)
    looks = []

    class Slow(Idle):
        def examine(self):
            nonlocal now
            now += 2.0
            return {"diversity": 1.0}

        def diagnose(self, look):
            looks.append(look.progress)

    loop = Loop(state, Stream([table], seed=0), Plan(batch=1), doctor=Slow())

    def play():
        nonlocal now
        now += 1.0
        state.clock = dataclasses.replace(state.clock, examples=state.clock.examples + 1)

    monkeypatch.setattr(loop.rounds, "play", play)
    loop.run()
    assert state.clock.examples == 1000
    taken = 2.0 * len(looks)
    assert 0.015 * now < taken < 0.025 * now
    early = sum(progress <= 0.3 for progress in looks)
    assert early >= 0.45 * len(looks)
    assert loop.doctor.hurried  # two seconds are a tenth of what all looks may take


def test_an_examiner_in_a_hurry_looks_at_fewer(table):
    sizes = []
    state = state_of(width=8)
    inner = state.family.examined

    def look(batch, clock):
        sizes.append(batch.total)
        return inner(batch, clock)

    Staged(state, look)
    examiner = Examiner(state, table, ROWS[:150], ROWS[150:], at_once=lambda: 128)
    for _ in range(4):
        found = examiner()
        examiner.hurry()
    assert sizes[::2] == [128, 64, 48, 48]  # the others are of unseen pictures
    assert {"overfit", "copying", "coverage"} <= found.keys()


def test_a_family_without_the_game_is_no_patient():
    assert Family(None, None).examined(None, Clock()) is None  # type: ignore[arg-type]
