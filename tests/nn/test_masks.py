"""Holes drawn at random."""

from __future__ import annotations

import pytest
import torch

from faussaire.core.batch import BatchDraws, RowDraws
from faussaire.nn.masks import holes


@pytest.mark.parametrize("kind", ["wide", "thin"])
@pytest.mark.parametrize("size", [(16, 16), (64, 96)])
def test_holes_are_somewhere_and_not_everywhere(kind, size):
    found = holes(RowDraws.counted(0, 200), *size, kind)
    assert found.shape == (200, 1, *size)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    share = found.mean(dim=(1, 2, 3))
    assert (share > 0.0).float().mean() > 0.97  # of 16 pixels a thin line may miss all
    assert 0.05 < share.mean() < 0.4
    assert share.max() < 0.95


def test_sizes_are_in_proportion_to_the_picture():
    small, large = (holes(RowDraws.counted(1, 100), side, side) for side in (32, 128))
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert (shrunk - small).abs().mean() < 0.03


def test_a_row_has_the_holes_of_its_own_numbers():
    whole = holes(BatchDraws(5, total=6, rows=slice(0, 6)), 24, 24)
    part = holes(BatchDraws(5, total=6, rows=slice(2, 4)), 24, 24)
    assert torch.equal(whole[2:4], part)
    assert not torch.equal(whole[0], whole[1])
