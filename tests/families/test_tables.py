"""CTGAN and TVAE: what the papers' parts do, and that relations are learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import ROWS, table_rows

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.families import load_family
from faussaire.tables.measures import associations
from faussaire.tables.rows import hard_rows, real_rows, soft_rows
from faussaire.tables.scores import Plain
from faussaire.tables.stream import ConditionStream


def batch_of(count: int = 32) -> Batch:
    fields = {name: torch.from_numpy(field[:count]) for name, field in table_rows().items()}
    return Batch(fields, BatchDraws(0, total=count, rows=slice(0, count)), count)


def built(name: str, **settings):
    torch.manual_seed(0)
    kind = load_family(name)
    return kind(kind.Config(latent=4, width=16, **settings), ROWS)


def test_soft_rows_are_near_to_hard_ones_where_logits_are_sure():
    rows = real_rows(batch_of(), ROWS)
    noise = torch.full((32, ROWS.width - ROWS.alphas), 0.5)
    logits = torch.cat([rows[:, :2].clamp(-0.99, 0.99).atanh(), 50.0 * rows[:, 2:]], dim=1)
    torch.testing.assert_close(soft_rows(logits, noise, ROWS, 0.2), rows, atol=1e-4, rtol=0)
    torch.testing.assert_close(hard_rows(rows[:, :2], logits[:, 2:], noise, ROWS), rows)


def test_hard_rows_are_drawn_by_their_shares():
    logits = torch.tensor([0.7, 0.3]).log().expand(20_000, 2)
    spec = replace(ROWS, columns=(ROWS.columns[1],))
    noise = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    rows = hard_rows(torch.zeros(20_000, 0), logits, noise, spec)
    assert rows[:, 0].mean() == pytest.approx(0.7, abs=0.015)
    # Half the temperature squares the shares: .49 / (.49 + .09).
    rows = hard_rows(torch.zeros(20_000, 0), logits, noise, spec, temperature=0.5)
    assert rows[:, 0].mean() == pytest.approx(0.845, abs=0.015)


def test_tvae_at_temperature_nought_takes_the_likeliest_category_of_each_z():
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def drawn(temperature: float, seed: int):
        family = built("tvae", temperature=temperature)
        return family.sample(RowDraws.counted(seed, 64), latents=z)[:, ROWS.alphas :]

    assert torch.equal(drawn(0.0, 1), drawn(0.0, 2))
    assert not torch.equal(drawn(1.0, 1), drawn(1.0, 2))


def test_packs_hold_rows_and_their_conditions_and_too_few_rows_are_told():
    family = built("ctgan", pac=4, critic_width=8)
    batch = batch_of(10)
    condition = family.asked(batch)
    rows = real_rows(batch, ROWS)
    packs = family.packed(rows, condition)
    assert packs.shape == (2, 4 * (ROWS.width + ROWS.condition))
    first = torch.cat([rows[1], condition[1]])
    torch.testing.assert_close(packs[0].view(4, -1)[1], first)
    # Without a drawn condition, a row is asked for one of its own values.
    assert (condition.sum(1) == 1).all()
    assert (rows[:, -ROWS.condition :] * condition).sum(1).eq(1).all()
    with pytest.raises(UserError, match="3 rows at once are fewer than the 4 of a pack"):
        family.packed(rows[:3], condition[:3])


def test_settling_takes_the_statistics_of_the_weights_that_sample():
    family = built("ctgan")
    norm = family.nets["generator"].blocks[0].norm
    before = norm.running_mean.clone()
    for net in family.nets.values():
        net.eval()
    with torch.no_grad():
        family.settle(RowDraws.counted(0, 16))
    assert not torch.equal(norm.running_mean, before)
    assert not norm.training
    assert norm.momentum == 0.1


def test_places_outside_of_gaussian_modes_cost_tvae_nothing():
    family = built("tvae")
    points = {name: torch.from_numpy(field[:16].copy()) for name, field in table_rows().items()}
    points["places"][:, :2] = torch.tensor([2, 1])  # a point, and a Gaussian mode

    def numbers(alpha: float) -> float:
        points["alphas"][:, 0] = alpha
        batch = Batch(points, BatchDraws(0, total=16, rows=slice(0, 16)), 16)
        rows = real_rows(batch, ROWS)
        with torch.no_grad():
            family.nets["encoder"].body[0].weight[:, 0] = 0.0  # its only other way in
        assert rows[0, 0] == alpha
        return family.loss(batch, Clock(total=1))["numbers"].item()

    assert numbers(0.0) == numbers(0.9)


@pytest.mark.long
def test_ctgan_learns_that_columns_have_to_do_with_each_other():
    rows = table_rows(2000)
    spec = replace(ROWS, rows=2000)
    kind = load_family("ctgan")
    torch.manual_seed(0)
    config = kind.Config(latent=16, width=32, critic_width=32, lr=2e-3, critic_lr=2e-3, pac=2)
    state = State(kind(config, spec), Device(name="cpu", precision="float32"), total=60_000)
    stream = ConditionStream(spec, **rows, seed=1)
    rounds = Rounds(state, stream, Plan(batch=100), World())
    while state.clock.examples < 60_000:
        rounds.play()
    with state.sampling(settle=True) as family:
        made = Plain.decoded(spec, family.sample(RowDraws.counted(0, 1000)).numpy())
    real = associations(spec, Plain.of(spec, rows["alphas"], rows["places"]))
    sex, job = 2, 3
    assert real[sex, job] > 0.7
    assert associations(spec, made)[sex, job] > 0.5 * real[sex, job]
    assert associations(spec, made.shuffled())[sex, job] < 0.15
    assert np.isfinite(made.codes).all()
