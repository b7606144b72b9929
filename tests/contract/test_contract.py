"""What every family promises. A new family inherits all of this by one line in cases.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import (
    CAPTIONED,
    CASES,
    CPU,
    FAMILIES,
    SMALL,
    TABLES,
    build,
    content,
    differing,
    each,
    forged,
    train,
)

from faussaire.core.average import decay
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.checkpoint import Checkpoints, load_checkpoint
from faussaire.core.device import Device, has_compiler
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.events import Audience, Event, Examined, Tick
from faussaire.core.family import Pictures
from faussaire.core.loop import Loop, Plan, Rounds
from faussaire.core.phase import stage_at
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.doctor.examiner import Examiner
from faussaire.doctor.watch import Watch

every_case = each(CASES)
every_family = each(FAMILIES)
every_game = each([*FAMILIES, *CAPTIONED, *TABLES])


class Ears:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def see(self, event: Event) -> None:
        self.heard.append(event)

    def close(self) -> None:
        pass


@every_case
def test_losses_are_named_finite_scalars_and_training_moves_every_parameter(case):
    state = build(case)
    before = content(state)
    ears = Ears()
    train(case, state, 3840, audience=Audience([ears]))
    moved = differing_in(before, content(state))
    still = {name for name in before if name.startswith("networks/")} - {*moved}
    assert not still, f"parameters that training never touched: {sorted(still)}"
    last = [event for event in ears.heard if isinstance(event, Tick)][-1]
    assert last.losses
    assert all(math.isfinite(value) for value in last.losses.values())
    assert all(name.count(".") == 1 for name in last.losses)


@every_case
def test_only_the_nets_of_the_phase_get_gradients(case):
    state = build(case)
    rounds = Rounds(state, case.stream(0, 1), Plan(batch=case.batch), World())
    phases = {phase.name: phase for stage in state.stages for phase in stage.phases}
    for phase in phases.values():
        rounds._position = 0
        parts = rounds._draw(stage_at(state.stages, 0))
        before = content(state)
        rounds._visit(phase, parts)
        parameters = {
            f"networks/{net}.{name}": net
            for net, module in state.family.nets.items()
            for name, _ in module.named_parameters()
        }
        moved = {
            parameters[name] for name in differing_in(before, content(state)) if name in parameters
        }
        assert moved <= set(phase.nets), f"{phase.name} also moved {moved - set(phase.nets)}"
        assert moved, f"{phase.name} moved nothing"
        assert all(p.grad is None for net in state.family.nets.values() for p in net.parameters())
        assert all(p.requires_grad for ps in state.movable.values() for p in ps)


def differing_in(one, two):
    """Differing names among those that both hold: optimiser state appears with the first step."""
    return [name for name in one if name in two and not torch.equal(one[name], two[name])]


@every_case
def test_resume_is_bit_identical(case, tmp_path):
    straight = build(case)
    train(case, straight, 3200)

    interrupted = build(case)
    checkpoints = Checkpoints(tmp_path)
    train(case, interrupted, 1500, checkpoints=checkpoints)
    resumed = build(case, seed=99)  # other initial weights: all must come from the checkpoint
    groups, record, complaints = checkpoints.load_latest() or pytest.fail("nothing was saved")
    assert not complaints
    resumed.load(groups, record)
    assert resumed.clock.examples == interrupted.clock.examples
    assert not differing(content(interrupted), content(resumed))
    train(case, resumed, 3200)
    assert not differing(content(straight), content(resumed))


@every_case
def test_resume_where_a_stage_begins(case, tmp_path):
    """The round after the last of a stage knows which stage it is in, resumed or not."""
    total = 400
    state = build(case, total=total)
    ends = [stage.until for stage in state.stages[:-1]]
    if not ends:
        pytest.skip("it has one stage")
    until = -(-ends[0] / case.scale)  # in the measure of `train`
    train(case, state, until)
    assert state.clock.examples >= ends[0]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state.tensors(), state.record())
    resumed = build(case, seed=99, total=total)
    groups, record, _ = checkpoints.load_latest() or pytest.fail("nothing was saved")
    resumed.load(groups, record)
    further = (state.clock.examples + 1) / case.scale
    train(case, state, further)
    train(case, resumed, further)
    assert state.clock == resumed.clock
    assert not differing(content(state), content(resumed))


@every_case
def test_observers_previews_and_saving_change_nothing(case, tmp_path):
    plain = build(case)
    train(case, plain, 800)

    watched = build(case)

    class Nosy(Ears):
        """Samples at every event, as previews do."""

        def see(self, event: Event) -> None:
            super().see(event)
            with torch.no_grad():
                forged(watched.sampler(), RowDraws.counted(0, 2))

    train(
        case,
        watched,
        800,
        audience=Audience([Nosy()]),
        checkpoints=Checkpoints(tmp_path),
        plan={"preview_every": 100, "save_every": 0.0},
    )
    assert not differing(content(plain), content(watched))


@every_game
def test_the_doctor_changes_nothing_and_finds_numbers(case, monkeypatch):
    monkeypatch.setattr(Loop, "EXAMINING", 1e9)  # at every round
    monkeypatch.setattr(Loop, "AT_FIRST", 1e9)
    monkeypatch.setattr(Loop, "_interval", 0.0)
    plain = build(case)
    train(case, plain, 600)

    examined = build(case)
    rows = np.arange(96)
    table = case.table(SMALL)
    classes = SMALL.classes if "labels" in table else ()
    examiner = Examiner(examined, table, rows[:80], rows[80:], classes=classes)
    ears = Ears()
    train(case, examined, 600, doctor=Watch(examiner, {}), audience=Audience([ears]))
    assert not differing(content(plain), content(examined))
    looks = [event for event in ears.heard if isinstance(event, Examined)]
    if not case.game:
        assert not looks
        return
    first, silent = examined.stages[0], 0
    if len(first.phases) == 1 and first.until is not None:  # one net moves, and nobody plays yet
        silent = math.ceil(first.until / case.batch) - 1
    assert len(looks) == examined.clock.rounds - silent
    for look in looks:
        assert {"win rate", "overfit", "diversity", "copying"} <= look.signs.keys()
        assert all(math.isfinite(value) for value in look.signs.values()), look.signs
    assert any(name.startswith("step ") for name in looks[-1].signs)


@every_case
def test_samples_are_determined_by_the_seed_and_do_not_depend_on_their_number(case):
    state = build(case)
    train(case, state, 200)
    family = state.sampler()
    for net in family.nets.values():
        net.eval()
    with torch.no_grad():
        few = forged(family, RowDraws.counted(7, 3))
        again = forged(family, RowDraws.counted(7, 3))
        many = forged(family, RowDraws.counted(7, 6))
        other = forged(family, RowDraws.counted(8, 3))
    assert torch.equal(few, again)
    # Kernels differ with the batch size, hence not bit for bit; 1e-4 is far below a grey level.
    torch.testing.assert_close(few.float(), many[:3].float(), atol=1e-4, rtol=1e-4)
    draws_nothing = (
        "painting",
        "pretext",
        "cyclegan",
        "superres",
        "colorize",
        "inpaint",
        "faststyle",
        "adain",
        "e4e",
    )
    if not case.name.startswith(draws_nothing):
        assert not torch.equal(few, other)


#: Nets in which a picture's output depends on it alone, or on the pair that a part of two holds.
# Relativistic averages, msggan's and progan's own loss, are statistics of a batch, too.
WITHOUT_BATCH_STATISTICS = (
    "r3gan",
    "stylegan2",
    "progan-loss=wasserstein",
    "msggan-conditional",
    "pix2pix",
    "colorize",
    "ring",
    "tvae",
    "wgan",
)


@each([case for case in CASES if case.name.startswith(WITHOUT_BATCH_STATISTICS)])
def test_a_batch_in_parts_trains_as_the_whole(case):
    """To rounding, which Adam magnifies where gradients are tiny: the bound is on the norm."""
    ends = {}
    part = 2 if case.pictures else 3
    for micro in (None, part):
        state = build(case)
        train(case, state, 800, plan={"micro": micro})
        ends[micro] = content(state)
    assert ends[None].keys() == ends[part].keys()
    for name, whole in ends[None].items():
        if name.startswith(("networks/", "training/extra")) and whole.is_floating_point():
            error = (whole - ends[part][name]).norm() / whole.norm().clamp(min=0.1)
            assert error < 0.05, f"{name} differs by {error:.2%}"


@every_case
def test_averages_follow_their_formula(case):
    state = build(case)
    rounds = Rounds(state, case.stream(0, 1), Plan(batch=case.batch), World())
    expected = {
        (name, key): value.clone()
        for name, net in state.average.nets.items()
        for key, value in net.named_parameters()
    }
    for _ in range(5):
        before = state.clock.examples
        rounds.play()
        keep = decay(
            state.clock.examples - before,
            state.clock.examples,
            half_life=state.average.half_life,
            ramp=state.average.ramp,
        )
        for name in state.average.nets:
            for key, value in state.family.nets[name].named_parameters():
                expected[name, key] = keep * expected[name, key] + (1 - keep) * value.detach()
    for name, net in state.average.nets.items():
        for key, value in net.named_parameters():
            torch.testing.assert_close(value, expected[name, key], atol=1e-6, rtol=1e-5)


@every_case
def test_a_saved_family_samples_as_before(case, tmp_path):
    state = build(case)
    train(case, state, 400, checkpoints=Checkpoints(tmp_path))
    groups, record = load_checkpoint(Checkpoints(tmp_path).find())
    other = build(case, seed=4)
    other.load(groups, record)
    for family in (state.family, other.family):
        for net in family.nets.values():
            net.eval()
    with torch.no_grad():
        one = forged(state.sampler(), RowDraws.counted(1, 4))
        two = forged(other.sampler(), RowDraws.counted(1, 4))
    assert torch.equal(one, two)


@every_case
def test_bfloat16_trains_like_float32(case):
    """Mean losses over a short run agree to within what bf16's 8 bits of mantissa explain."""
    means = {}
    for precision in ("float32", "bfloat16"):
        state = build(case, device=Device(name="cpu", precision=precision))
        rounds = Rounds(state, case.stream(0, 1), Plan(batch=case.batch), World())
        while state.clock.examples < case.examples(1600):
            rounds.play()
        assert state.is_finite()
        assert all(p.dtype == torch.float32 for ps in state.movable.values() for p in ps)
        means[precision] = rounds.means.take(World())["losses"]
    assert means["float32"].keys() == means["bfloat16"].keys()
    for name, value in means["float32"].items():
        assert means["bfloat16"][name] == pytest.approx(value, abs=0.05, rel=0.1), name


@every_family
@pytest.mark.parametrize(
    "spec",
    [
        Pictures(channels=1, height=16, width=16),
        Pictures(channels=4, height=24, width=16),
        Pictures(channels=3, height=32, width=48),
    ],
    ids=["grey", "rgba-tall", "wide"],
)
def test_picture_families_take_any_shape(case, spec):
    spec = Pictures(**{**vars(spec), "classes": ("a", "b")})
    if spec.channels < 3 and not case.grey:
        with pytest.raises(UserError, match="grey"):
            case.make(spec)
        return
    if "rotation" in case.name and spec.height != spec.width:
        with pytest.raises(UserError, match="square"):
            case.make(spec)
        return
    torch.manual_seed(0)
    state = State(case.make(spec), CPU, total=100)
    data = Stream([case.table(spec)], seed=0)
    Rounds(state, data, Plan(batch=4), World()).play()
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        samples = forged(state.sampler(), RowDraws.counted(0, 2), labels)
    channels = state.family.gives if state.family.applies else spec.channels
    assert samples.shape == (2, channels, spec.height, spec.width)
    assert samples.dtype == torch.float32
    assert samples.abs().max() <= 1.0
    if state.family.panels:
        fields = {name: CPU.put(field[:2]) for name, field in case.table(spec).items()}
        batch = Batch(fields, BatchDraws(0, total=2, rows=slice(0, 2), device="cpu"), 2)
        with torch.no_grad():
            parts = state.sampler().demonstrated(batch)
        assert len(parts) == len(state.family.panels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler, at work within torch, gives many
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler to build kernels with")
@pytest.mark.parametrize(
    "case", [*{case.name.partition("-")[0]: case for case in FAMILIES[::-1]}.values()], ids=str
)
def test_compiled_networks_train_as_eager_ones_do(case):
    """Through every stage of a short run; kernels that were fused round differently."""
    ends = []
    for device in (CPU, Device(name="cpu", precision="float32", compile=True)):
        state = build(case, device=device, total=960)
        train(case, state, 960)
        ends.append(content(state))
    eager, fused = ends
    for name, value in eager.items():
        if name.startswith("networks/"):
            torch.testing.assert_close(fused[name], value, rtol=0.05, atol=0.01, msg=name)
