"""Pieces of the engine against their formulas."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faussaire.core.average import Average, decay
from faussaire.core.batch import Batch, BatchDraws, RowDraws, mix
from faussaire.core.checkpoint import Checkpoints, load_checkpoint
from faussaire.core.clock import Clock
from faussaire.core.device import Device, precise
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.events import Tick
from faussaire.core.family import Family
from faussaire.core.loop import Plan, Rounds
from faussaire.core.optim import LBFGS, SGD, Adam, Optimiser, OptimiserSpec, lazy_correction
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.core.run import EventFile, Run
from faussaire.core.state import State


def nothing(batch, clock):
    return {}


def phase(**how):
    return Phase(name="p", nets=("a",), loss=nothing, **how)


def test_stages_follow_the_count():
    stages = (
        Stage(name="one", phases=(phase(),), until=100),
        Stage(name="two", phases=(phase(),), until=300),
        Stage(name="three", phases=(phase(),)),
    )
    assert [stage_at(stages, n).name for n in (0, 99, 100, 299, 300, 10**9)] == [
        "one", "one", "two", "two", "three", "three",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least 1"):
        phase(every=0)


def test_lazy_correction_is_that_of_stylegan2():
    def plan(every: int) -> tuple[Stage, ...]:
        return (Stage(name="s", phases=(phase(), phase(every=every))),)

    assert lazy_correction(("a",), plan(16)) == pytest.approx(16 / 17)
    assert lazy_correction(("a",), plan(4)) == pytest.approx(4 / 5)
    assert lazy_correction(("b",), plan(4)) == 1.0
    net = nn.Linear(2, 2)
    optimiser = Optimiser(
        Adam(nets=("a",), lr=1e-2, betas=(0.0, 0.99)), dict(net.named_parameters()), 0.8
    )
    assert optimiser.rate(Clock()) == pytest.approx(8e-3)
    optimiser.step(Clock())
    assert optimiser._torch.param_groups[0]["betas"] == (0.0, pytest.approx(0.99**0.8))


def test_averages_have_their_half_life_in_examples_whatever_the_batch():
    long = 10**9
    assert decay(1000, long, half_life=1000, ramp=1.0) == pytest.approx(0.5)
    assert decay(100, long, half_life=1000, ramp=1.0) ** 10 == pytest.approx(0.5)
    assert decay(64, 640, half_life=10_000, ramp=0.05) == pytest.approx(0.5**2)
    assert decay(64, 0, half_life=10_000, ramp=0.05) == 0.0


def test_averages_copy_buffers_and_never_move_their_source():
    net = nn.BatchNorm1d(3)
    average = Average({"n": net})
    net.running_mean.fill_(5.0)
    with torch.no_grad():
        net.weight.fill_(3.0)
    average.update(Clock(examples=10), 10**6)
    assert torch.equal(average.nets["n"].running_mean, net.running_mean)
    torch.testing.assert_close(average.nets["n"].weight.data, torch.full((3,), 3.0))
    assert not average.nets["n"].weight.requires_grad
    assert average.nets["n"].weight.data_ptr() != net.weight.data_ptr()


def test_draws_of_two_processes_are_those_of_one():
    whole = BatchDraws(5, total=8, rows=slice(0, 8))
    halves = [BatchDraws(5, total=8, rows=slice(s, s + 4)) for s in (0, 4)]
    assert torch.equal(whole.normal(3), torch.cat([half.normal(3) for half in halves]))
    assert torch.equal(whole.integers(9), torch.cat([half.integers(9) for half in halves]))
    assert mix(1, "a", 2) == mix(1, "a", 2) != mix(1, "a", 3)


def test_row_draws_have_a_seed_each():
    assert torch.equal(
        RowDraws.counted(1, 5).normal(4)[3:], RowDraws.counted(1, 2, start=3).normal(4)
    )


def test_shared_values_are_made_once_and_differentiable():
    batch = Batch({}, BatchDraws(0, total=2, rows=slice(0, 2)), 2)
    made = [batch.shared("x", lambda: object()) for _ in range(2)]
    assert made[0] is made[1]


def test_prepared_nets_speak_float32_and_precise_ones_differentiate_twice():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 36, 1))
    Device(name="cpu", precision="bfloat16").prepare(net)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    low = net(x)
    assert low.dtype == torch.float32
    with precise():
        high = net(x)
        (gradient,) = torch.autograd.grad(high.sum(), x, create_graph=True)
    assert not torch.equal(low, high)
    gradient.square().sum().backward()
    assert all(p.grad is not None for p in list(net.parameters())[:1])
    torch.testing.assert_close(low, high, atol=0.05, rtol=0.05)


def test_pictures_arrive_scaled_and_channels_last():
    import numpy as np

    array = np.array([[[[0, 255, 51]]]], np.uint8)  # (1, 1, 1, 3)
    picture = Device(name="cpu", precision="float32").put(array)
    assert picture.shape == (1, 3, 1, 1)
    torch.testing.assert_close(picture.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_a_world_of_one_changes_nothing():
    world = World()
    x = torch.ones(3)
    world.mean_([x])
    assert world.any(True, False) == (True, False)
    assert world.gather(x) is x
    assert world.rows(6) == slice(0, 6)
    with pytest.raises(UserError, match="multiple of 4"):
        World(rank=1, size=4).rows(6)


def record(examples: int) -> dict:
    return {"examples": examples, "elapsed": 0.0}


def test_checkpoints_keep_the_last_few_and_the_marked(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    tensors = {"networks": {"a": torch.arange(6.0).view(2, 3).t()}}
    first = kept.save(tensors, record(1))
    kept.mark(first, "best")
    for examples in (2, 3, 4):
        kept.save(tensors, record(examples))
    assert [int(path.name) for path in kept.all()] == [1, 3, 4]
    assert kept.find("best") == first
    assert kept.find("3").name == f"{3:012d}"
    with pytest.raises(UserError, match="There are: latest, 1, 3, 4, best"):
        kept.find("2")
    groups, found = load_checkpoint(kept.find())
    assert torch.equal(groups["networks"]["a"], tensors["networks"]["a"])
    assert found["examples"] == 4
    assert {path.suffix for path in kept.find().iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "garbage", "format"])
def test_damaged_checkpoints_are_named_and_passed_over(damage, tmp_path):
    kept = Checkpoints(tmp_path)
    tensors = {"networks": {"a": torch.ones(1000)}}
    kept.save(tensors, record(1))
    last = kept.save(tensors, record(2))
    file, state = last / "networks.safetensors", last / "state.json"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(content[:-7] + b"x" + content[-6:])
    elif damage == "cut":
        file.write_bytes(content[:100])
    elif damage == "lose":
        file.unlink()
    elif damage == "garbage":
        state.write_text("{")
    else:
        state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
    with pytest.raises(UserError):
        load_checkpoint(last)
    loaded = kept.load_latest()
    assert loaded is not None
    assert loaded[1]["examples"] == 1
    assert len(loaded[2]) == 1
    assert kept.save(tensors, record(2)) == last
    load_checkpoint(last)


def test_events_survive_a_torn_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "tick", "exam')
    file = EventFile(path)
    file.see(Tick(examples=5, elapsed=1.0, rounds=1, stage="s"))
    file.close()
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["examples"] == 5
    assert len(lines) == 2


def test_one_process_a_run(tmp_path):
    one, two = Run(tmp_path / "r"), Run(tmp_path / "r")
    one.acquire()
    with pytest.raises(UserError, match="Another process is training"):
        two.acquire()
    one.release()
    two.acquire()
    two.release()


class Valley(Family[Any]):
    """Rosenbrock's valley as a family of one net of two numbers, lying at (1, 1), and noise."""

    def __init__(self, optimiser: OptimiserSpec, noise: float = 0.0) -> None:
        super().__init__(None, None)
        self.noise = noise
        self.looks: list[float] = []
        self.nets = {"point": nn.Linear(1, 2, bias=False)}
        nn.init.constant_(self.nets["point"].weight, -1.0)
        self._optimiser = optimiser

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {"point": self._optimiser}

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (Stage(name="s", phases=(Phase(name="p", nets=("point",), loss=self.loss),)),)

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        x, y = self.nets["point"].weight.flatten()  # type: ignore[operator]
        shift = (
            self.noise * batch.shared("n", lambda: batch.normal(1).mean()) * batch.normal(1).mean()
        )
        self.looks.append(float(shift))
        return {"height": (1 - x).square() + 100 * (y - x.square()).square() + shift * x}


class Empty:
    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        return {}


def test_lbfgs_finds_the_end_of_a_valley_where_others_crawl():
    ends = {}
    for name, spec in (
        ("lbfgs", LBFGS(nets=("point",), iterations=10)),
        ("sgd", SGD(nets=("point",), lr=1e-3)),
    ):
        state = State(Valley(spec), Device(name="cpu", precision="float32"), total=100)
        rounds = Rounds(state, Empty(), Plan(batch=1), World())
        for _ in range(6):
            rounds.play()
        ends[name] = (state.family.nets["point"].weight - 1.0).norm().item()  # type: ignore[operator]
    assert ends["lbfgs"] < 1e-3
    assert ends["sgd"] > 1.0


def test_every_look_of_a_line_search_sees_the_same_random_numbers():
    family = Valley(LBFGS(nets=("point",), iterations=5), noise=0.1)
    state = State(family, Device(name="cpu", precision="float32"), total=100)
    rounds = Rounds(state, Empty(), Plan(batch=2), World())
    rounds.play()
    assert len(family.looks) > 3
    assert len({*family.looks}) == 1
    rounds.play()
    assert len({*family.looks}) == 2


def test_gradients_reach_fused_optimisers_in_the_layout_of_their_parameters():
    """A fused Adam walks both as they lie: of another layout, it would move the wrong numbers."""

    class Painted(Valley):
        def __init__(self) -> None:
            super().__init__(Adam(nets=("point",), lr=0.1))
            self.nets = {"point": nn.Conv2d(3, 4, 3, bias=False)}  # channels_last once prepared

        def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
            weight = self.nets["point"].weight
            assert isinstance(weight, Tensor)
            slope = torch.zeros(4, 3, 3, 3)
            slope[:, 1] = 1.0  # in rows
            return {"slope": (weight.contiguous() * slope).sum()}

    family = Painted()
    state = State(family, Device(name="cpu", precision="float32"), total=10)
    before = family.nets["point"].weight.detach().clone()  # type: ignore[operator]
    Rounds(state, Empty(), Plan(batch=1), World()).play()
    moved = family.nets["point"].weight.detach() - before  # type: ignore[operator]
    torch.testing.assert_close(moved[:, 1], torch.full((4, 3, 3), -0.1))
    assert not moved[:, [0, 2]].any()
