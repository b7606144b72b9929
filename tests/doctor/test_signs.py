"""Vital signs against sets whose signs are known."""

from __future__ import annotations

import math

import pytest
import torch

from faussaire.doctor import signs
from faussaire.doctor.signs import Glance


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


def test_the_win_rate_is_the_area_under_the_roc_curve():
    one, other = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])
    # Pairs: 3 beats all three; 1 beats 0, ties with 1, loses to 2.
    assert signs.win_rate(one, other) == pytest.approx(4.5 / 6)
    assert signs.win_rate(one, one) == 0.5


def test_the_win_rate_needs_no_level(draw):
    one, other = draw(50) + 1, draw(60)
    assert signs.win_rate(one, other) == pytest.approx(signs.win_rate(3 * one + 7, 3 * other + 7))


def test_the_margin_is_in_units_of_spread(draw):
    one, other = 2 * draw(20_000) + 10, 2 * draw(20_000)
    assert signs.margin(one, other) == pytest.approx(5.0, rel=0.02)


@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 16, 24), (3, 4, 4), (1, 2, 2)])
def test_reals_are_at_distance_one_for_a_glance(draw, shape):
    reals = draw(40, *shape)
    rows = Glance.of(reals)(reals)
    assert signs.mean_distance(rows) == pytest.approx(1.0, rel=0.1)


def test_a_glance_sees_a_shape_and_not_only_its_brightness():
    picture = torch.full((2, 1, 32, 32), -1.0)
    picture[0, :, 8:24, 4:12] = 1.0  # the same bar, standing on the left and on the right
    picture[1, :, 8:24, 20:28] = 1.0
    noise = 0.05 * torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = Glance.of(picture)(picture + noise)
    assert float((rows[0] - rows[1]).norm()) > 0.8


def test_diversity_is_one_for_more_of_the_same_and_zero_for_one(draw):
    reals = draw(400, 10)
    assert signs.diversity(draw(400, 10), reals) == pytest.approx(1.0, abs=0.03)
    assert signs.diversity(0.5 * draw(400, 10), reals) == pytest.approx(0.5, abs=0.02)
    assert signs.diversity(torch.ones(50, 10), reals) == 0.0


def test_duplicates_are_counted(draw):
    reals, fakes = draw(200, 10), draw(100, 10)
    assert signs.duplicates(fakes, reals) == 0.0
    fakes[50:75] = fakes[:25] + 1e-3
    assert signs.duplicates(fakes, reals) == pytest.approx(0.5)
    reals[:4] = reals[4:8]  # a folder with some pictures twice
    assert signs.duplicates(fakes, reals) == pytest.approx(0.5)
    assert signs.duplicates(torch.ones(20, 10), reals) == 1.0


def test_effective_rank_counts_directions(draw):
    basis = torch.linalg.qr(draw(10, 10)).Q
    assert signs.effective_rank(draw(5000, 10)) == pytest.approx(10.0, abs=0.01)
    assert signs.effective_rank(draw(5000, 3) @ basis[:3]) == pytest.approx(3.0, abs=0.01)
    assert signs.effective_rank(torch.ones(20, 5)) == 1.0


def test_coverage_is_one_for_another_draw_and_the_share_of_modes_else(draw):
    """Reals in four far modes; fakes in all, in two, and nowhere."""
    centres = 50 * torch.eye(4)

    def some(modes: int):
        return draw(200, 4) + centres[torch.arange(200) % modes]

    reals = some(4)
    assert signs.coverage(some(4), reals) == pytest.approx(1.0, abs=0.06)
    # 100 fakes a mode in place of 50 reach a little more of those two modes.
    assert signs.coverage(some(2), reals) == pytest.approx(0.51, abs=0.03)
    assert signs.coverage(draw(200, 4) + 1000, reals) == 0.0


def test_copies_are_nearer_than_what_is_new(draw):
    train = draw(500, 10)
    unseen, among = signs.nearest(draw(100, 10), train), signs.nearest(train, count=100)
    assert len(among) == 100
    assert signs.copying(draw(100, 10), train, unseen) == pytest.approx(1.0, abs=0.08)
    assert signs.copying(draw(100, 10), train, among) == pytest.approx(1.0, abs=0.08)
    copies = train[:100] + 0.01 * draw(100, 10)
    assert signs.copying(copies, train, unseen) < 0.03


def test_a_checkerboard_is_seen():
    rows = torch.arange(32)
    board = ((rows[:, None] + rows) % 2).float() * 2 - 1
    stripes = (rows % 2).float().expand(1, 1, 32, 32) * 2 - 1
    smooth = torch.sin(rows * 2 * math.pi / 32).expand(1, 1, 32, 32)
    assert signs.checkerboard(board[None, None]) == pytest.approx(1.0)
    assert signs.checkerboard(stripes) == pytest.approx(1.0)
    assert signs.checkerboard(stripes[..., :31]) > 0.75  # no whole number of periods
    assert signs.checkerboard(smooth) == pytest.approx(0.0, abs=1e-6)
    assert signs.checkerboard(torch.zeros(2, 3, 8, 8)) == 0.0


def test_a_circle_leads_nowhere(draw):
    start, step = draw(16, 8), draw(16, 8)
    length = float(step.norm(dim=1).mean())
    straight = [start + k * step for k in range(5)]
    path, way = signs.path_and_way(straight)
    assert (path, way) == (pytest.approx(4 * length), pytest.approx(4 * length))
    there_and_back = [start, start + step, start, start + step, start]
    path, way = signs.path_and_way(there_and_back)
    assert (path, way) == (pytest.approx(4 * length), 0.0)
