"""The controller that acts on verdicts, and what the engine does with a treatment."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from faussaire.core import events
from faussaire.core.checkpoint import Checkpoints, load_checkpoint
from faussaire.core.device import Device
from faussaire.core.errors import Diverged, UserError
from faussaire.core.events import Audience
from faussaire.core.family import Pictures
from faussaire.core.loop import Loop, Plan
from faussaire.core.state import State
from faussaire.core.treatment import Treatment
from faussaire.data.stream import Stream
from faussaire.doctor.balance import MOST, PATIENCE, RESCUES, Balance
from faussaire.doctor.verdicts import ILL, Evidence, Verdict
from faussaire.doctor.watch import Watch
from faussaire.families import load_family

GAME = {
    "lr": 2e-4,
    "discriminator_lr": None,
    "critic_steps": 1,
    "generator_steps": 1,
    "r1": 0.0,
    "gradient_penalty": 0.0,
    "augment": "none",
}


def treated(name: str, looks: int = PATIENCE, **settings: object) -> Treatment | None:
    """What comes of the same verdict at so many looks."""
    balance, found = Balance({**GAME, **settings}), None
    for _ in range(looks):
        found = found or balance.treat(Verdict(name=name, confidence=1.0), [0, 500], 600)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        (
            "discriminator too strong",
            {"critic_steps": 5},
            {"critic_steps": 1, "discriminator_lr": 1e-4},
        ),
        ("discriminator too strong", {}, {"generator_steps": 2, "discriminator_lr": 1e-4}),
        (
            "discriminator too strong",
            {"lr": 1e-7, "discriminator_lr": 4e-4, "generator_steps": 4},
            {"lr": 1e-4, "discriminator_lr": 2e-4},
        ),
        ("discriminator too weak", {"discriminator_lr": 1e-6}, {"discriminator_lr": 2e-4}),
        ("discriminator too weak", {}, {"lr": 1e-4, "discriminator_lr": 2e-4}),
        ("collapse", {"lr": 1e-7, "discriminator_lr": 2e-4}, {"lr": 5e-5}),
        ("oscillating", {"discriminator_lr": 4e-4}, {"lr": 1e-4, "discriminator_lr": 2e-4}),
        ("memorising", {}, {"augment": "diffaugment"}),
        ("memorising", {"augment": "ada", "r1": 3.0}, {"r1": 6.0}),
    ],
)
def test_each_imbalance_has_its_treatment(name, settings, expected):
    found = treated(name, **settings)
    assert found is not None
    assert dict(found.settings) == pytest.approx(expected)
    assert found.back_to == (500 if name == "collapse" else None)
    assert found.why.startswith(name)


@pytest.mark.parametrize("name", ["healthy", "warming up", "finished", "stalled", "labels unfit"])
def test_nothing_is_done_to_the_healthy_or_to_what_rates_do_not_help(name):
    assert treated(name, looks=50) is None


def test_a_verdict_is_acted_on_once_it_is_certain():
    for name in ("collapse", "discriminator too strong"):
        balance = Balance(dict(GAME))
        doubts = [1 - 0.5**looks for looks in range(1, 6)]
        given = [
            balance.treat(Verdict(name=name, confidence=doubt), [0, 500], 600) for doubt in doubts
        ]
        assert [one is not None for one in given] == [False] * 4 + [True]


def test_a_young_generator_is_given_time():
    for name, acts in (
        ("collapse", False),
        ("discriminator too strong", False),
        ("diverging", True),
    ):
        balance = Balance(dict(GAME))
        given = [
            balance.treat(Verdict(name=name, confidence=1.0), [0, 500], 600, 0.2)
            for _ in range(PATIENCE)
        ]
        assert any(one is not None for one in given) == acts


def test_a_collapsed_run_goes_back_to_the_last_good_checkpoint_with_smaller_steps():
    balance = Balance(dict(GAME))
    for _ in range(PATIENCE):
        found = balance.treat(Verdict(name="collapse", confidence=1.0), [0, 500, 1000], 700)
    assert found == Treatment(
        settings={"lr": 1e-4},
        back_to=500,
        why="collapse: back to 500 examples, and lr 0.0001",
    )


def test_a_generator_that_ran_off_begins_anew_with_a_teacher():
    far = Evidence(sign="distance", value=80.0, limit=0.15)
    balance = Balance({**GAME, "discriminator_lr": 1e-7})
    for _ in range(PATIENCE):
        found = balance.treat(
            Verdict(name="discriminator too weak", confidence=1.0, evidence=(far,)), [0, 500], -1
        )
    assert found is not None
    assert found.back_to == 0
    assert found.settings == {"discriminator_lr": 2e-4}


def test_treatments_wait_and_come_to_an_end():
    balance = Balance(dict(GAME))
    given = [balance.treat(Verdict(name="oscillating", confidence=1.0), [], -1) for _ in range(100)]
    places = [place for place, one in enumerate(given) if one is not None]
    assert len(places) == MOST
    assert min(b - a for a, b in pairwise(places)) == PATIENCE
    rescues = [Balance(dict(GAME)).rescue("broke down", [], -1)]  # nowhere to go back to
    assert rescues == [None]
    balance = Balance(dict(GAME))
    rescues = [balance.rescue("broke down", [0], -1) for _ in range(10)]
    assert sum(one is not None for one in rescues) == RESCUES


def test_families_without_such_settings_are_left_alone():
    balance = Balance({"width": 8})
    for name in ILL:
        for _ in range(2 * PATIENCE):
            assert balance.treat(Verdict(name=name, confidence=1.0), [0], 0) is None


# ---- The engine ----


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return {"images": rng.integers(0, 256, size=(200, 16, 16, 3), dtype=np.uint8)}


def state_of(total: int = 1600, **settings) -> State:
    torch.manual_seed(0)
    kind = load_family("dcgan")
    spec = Pictures(channels=3, height=16, width=16)
    return State(
        kind(kind.Config(width=8, **settings), spec),
        Device(name="cpu", precision="float32"),
        total=total,
    )


def content(state: State) -> dict[str, torch.Tensor]:
    return {
        f"{group}/{name}": value.clone()
        for group, tensors in state.tensors().items()
        for name, value in tensors.items()
    }


class Ears:
    def __init__(self):
        self.heard = []

    def see(self, event):
        self.heard.append(event)

    def close(self):
        pass


def test_changed_settings_move_rates_and_keep_all_that_was_learnt(table):
    state = state_of()
    Loop(state, Stream([table], seed=0), Plan(batch=50)).rounds.play()
    before, nets = content(state), dict(state.family.nets)
    state.change(lr=1e-5, augment="diffaugment", generator_steps=3)
    after = content(state)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(state.family.nets[name] is net for name, net in nets.items())
    assert {opt.rate(state.clock) for opt in state.optimisers.values()} == {1e-5}
    rounds = Loop(state, Stream([table], seed=0), Plan(batch=50)).rounds
    rounds.play()
    assert state.clock.examples == 50 + 3 * 50  # a batch for each of the generator's steps
    with pytest.raises(UserError, match="critic_steps"):
        state.change(critic_steps=0)


class Sick:
    """A stand-in for a look: as ill as it is told, from the looks before alone."""

    def __init__(self, **signs):
        self.signs = {"win rate": 0.8, "margin": 1.0, "distance": 0.5, "diversity": 0.9, **signs}

    def __call__(self):
        return dict(self.signs)


def watch_for(state: State, **signs) -> Watch:
    return Watch(Sick(**signs), {}, balance=Balance(dict(vars(state.family.config))), every=50)


def run(state, watch, table, folder, ears=None, until=None, record=None):
    loop = Loop(
        state,
        Stream([table], seed=0),
        Plan(batch=25),
        audience=Audience([ears] if ears else []),
        checkpoints=Checkpoints(folder, keep=100),
        doctor=watch,
        record=record,
    )
    if until is not None:
        loop._complete = lambda: state.clock.examples >= until  # type: ignore[method-assign]
    loop.run()
    return loop


def test_treatments_happen_at_fixed_places_and_a_resumed_run_is_treated_alike(table, tmp_path):
    whole, ears = state_of(), Ears()
    run(whole, watch_for(whole, **{"win rate": 0.0}), table, tmp_path / "whole", ears)
    given = [event for event in ears.heard if isinstance(event, events.Treated)]
    assert len(given) >= 3
    assert all(event.examples % 50 == 25 for event in given)  # the first look is after a round
    assert whole.family.config.lr < 2e-4
    # What held of the settings before says nothing of these: five looks say it anew.
    assert all(b.examples - a.examples >= 5 * 50 for a, b in pairwise(given))

    # Interrupted between two treatments, and resumed in what might be another process.
    stop = given[1].examples + 75
    half = state_of()
    run(half, watch_for(half, **{"win rate": 0.0}), table, tmp_path / "half", until=stop)
    groups, record = load_checkpoint(Checkpoints(tmp_path / "half").all()[-1])
    resumed = state_of()
    resumed.load(groups, record)
    resumed.change(**record["treatment"])
    watch = watch_for(resumed, **{"win rate": 0.0})
    watch.load(record["doctor"])
    again = Ears()
    run(resumed, watch, table, tmp_path / "half", again, record={"treatment": record["treatment"]})
    later = [event for event in again.heard if isinstance(event, events.Treated)]
    assert [(e.examples, dict(e.settings)) for e in later] == [
        (e.examples, dict(e.settings)) for e in given if e.examples > stop
    ]
    one, two = content(whole), content(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_broken_run_goes_back_and_goes_on_more_gently(table, tmp_path, monkeypatch):
    state, ears = state_of(), Ears()
    watch = watch_for(state)
    loop = Loop(
        state,
        Stream([table], seed=0),
        Plan(batch=25, save_every=0.0),
        audience=Audience([ears]),
        checkpoints=Checkpoints(tmp_path, keep=100),
        doctor=watch,
    )
    monkeypatch.setattr(Loop, "_interval", 0.0)
    broken = []
    sound = Loop._guard

    def guard(self, losses):
        if self.state.clock.examples >= 500 and not broken:
            broken.append(content(self.state))
            self._diverge("The loss became nan")
        sound(self, losses)

    monkeypatch.setattr(Loop, "_guard", guard)
    loop.run()
    assert state.clock.examples == 1600
    given = [event for event in ears.heard if isinstance(event, events.Treated)]
    assert len(given) == 1
    assert given[0].from_examples == 500
    assert given[0].examples < 500
    assert given[0].settings == {"lr": 1e-4}
    assert state.family.config.lr == 1e-4
    # Without it, the run ends there.
    broken.clear()
    with pytest.raises(Diverged):
        Loop(
            state_of(), Stream([table], seed=0), Plan(batch=25, save_every=0.0),
            checkpoints=Checkpoints(tmp_path / "other"),
        ).run()  # fmt: skip


def test_checkpoints_that_a_run_takes_back_are_removed_with_their_marks(table, tmp_path):
    state = state_of()
    checkpoints = Checkpoints(tmp_path, keep=100)
    for examples in (100, 200, 300):
        path = checkpoints.save(state.tensors(), {**state.record(), "examples": examples})
    checkpoints.mark(path, "best")
    checkpoints.mark(checkpoints.all()[0], "start")
    checkpoints.forget_after(200)
    assert [int(path.name) for path in checkpoints.all()] == [100, 200]
    assert checkpoints.marks().keys() == {"start"}
