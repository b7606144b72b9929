"""Neighbours against brute force in float64, and sets whose figures are known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import faussaire
from faussaire.core.errors import UserError
from faussaire.metrics import neighbours
from faussaire.metrics.neighbours import knn_radii, nearest, prdc, reaches


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x.double()[:, None] - y.double()[None]).square().sum(dim=2)


def brute_radii(x: Tensor, k: int) -> Tensor:
    """Squared."""
    return squared(x, x).fill_diagonal_(torch.inf).sort(dim=1).values[:, k - 1]


def brute_prdc(real: Tensor, fake: Tensor, k: int = 3, density_k: int = 5) -> dict[str, float]:
    between = squared(real, fake)
    narrow = between <= brute_radii(real, k)[:, None]
    wide = between <= brute_radii(real, density_k)[:, None]
    in_fake = between <= brute_radii(fake, k)[None]
    return {
        "precision": float(narrow.any(dim=0).double().mean()),
        "recall": float(in_fake.any(dim=1).double().mean()),
        "density": int(wide.sum()) / (density_k * len(fake)),
        "coverage": float(wide.any(dim=1).double().mean()),
    }


def pair(kind: str, dimensions: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(dimensions)
    x = torch.randn(337, dimensions, generator=draws)
    y = 0.9 * torch.randn(291, dimensions, generator=draws)
    if kind == "far from 0":
        return x + 1000.0, y + 1000.0
    if kind == "repeated":
        x = x[torch.randint(40, (337,), generator=draws)]
        return x, torch.cat([x[:150], y[:141]])
    if kind == "collapsed":
        return x, y[:1].repeat(291, 1)
    if kind == "all equal":
        return torch.ones(337, dimensions), torch.ones(291, dimensions)
    if kind == "tiny":
        return x * 1e-22, y * 1e-22
    if kind == "huge":
        return x * 1e18, y * 1e18
    if kind == "huge later":
        x[:260] = y[:260] = 0.0
        return x * 1e20, y * 1e20
    if kind == "float64":
        return x.double(), y.double()
    return x, y


KINDS = [
    "plain",
    "far from 0",
    "repeated",
    "collapsed",
    "all equal",
    "tiny",
    "huge",
    "huge later",
    "float64",
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch):
    """So that small sets, too, have several tiles and remainders."""
    torch.manual_seed(0)
    monkeypatch.setattr(neighbours, "_ROWS", 100)
    monkeypatch.setattr(neighbours, "_COLUMNS", 130)


@pytest.mark.parametrize("dimensions", [1, 3, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_against_brute_force(kind: str, dimensions: int):
    x, y = pair(kind, dimensions)
    assert prdc(x, y) == brute_prdc(x, y)
    assert prdc(y, x, precision_k=2, density_k=2) == brute_prdc(y, x, 2, 2)
    torch.testing.assert_close(knn_radii(x, 4), brute_radii(x, 4).sqrt().float())
    distances, rows = nearest(x, y, 3)
    expected = squared(x, y).sort(dim=1).values[:, :3].sqrt().float()
    torch.testing.assert_close(distances, expected)
    torch.testing.assert_close(squared(x, y).gather(1, rows).sqrt().float(), expected)


def test_small_differences_far_from_0():
    """Neighbours a ten-thousandth of the vectors' length away, which float32 products cannot see."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(200, 32, generator=draws)
    near = x + 1e-4 * torch.randn(200, 32, generator=draws)
    distances, rows = nearest(near, x, 1)
    assert rows[:, 0].equal(torch.arange(200))
    torch.testing.assert_close(distances[:, 0].double(), (near.double() - x.double()).norm(dim=1))


def test_products_that_are_not_float32():
    """Where torch was told to multiply in bfloat16, results stay exact."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        x, y = pair("plain", 64)
        assert prdc(x, y) == brute_prdc(x, y)
        distances, _ = nearest(x, y, 1)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(distances[:, 0], squared(x, y).min(dim=1).values.sqrt().float())


@pytest.mark.parametrize("dimensions", [2, 16, 512, 2048])
def test_the_bound_on_rounding(dimensions: int):
    draws = torch.Generator().manual_seed(0)
    plain = torch.randn(300, dimensions, generator=draws)
    for x in (
        plain,
        plain.exp(),
        plain.relu() + 30.0,
        plain * torch.linspace(0, 1, dimensions) ** 4,
    ):
        distances = neighbours._Distances.between(x, x)
        assert distances.dtype == torch.float32
        tile = distances.tile(slice(0, 300), slice(0, 300))
        i, j = torch.randint(300, (2, 3000), generator=draws)
        exact = neighbours._exact(x, i, x, j)
        assert float((tile.squared[i, j] - exact).abs().max()) < 0.6 * tile.slack


def test_equal_sets():
    x = torch.randn(200, 16)
    found = prdc(x, x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0)
    assert found["density"] == pytest.approx(
        6.0 / 5.0
    )  # each ball holds 5 neighbours and its centre


def test_disjoint_sets():
    x = torch.randn(200, 16)
    assert prdc(x, x + 100.0) == dict.fromkeys(("precision", "recall", "density", "coverage"), 0.0)


def test_half_of_the_modes_dropped():
    modes = 100.0 * torch.arange(10).repeat_interleave(20)
    real = torch.randn(200, 4) + modes[:, None]
    found = prdc(real, real[:100])
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 0.5, 0.5)
    assert found["density"] == pytest.approx(6.0 / 5.0)


def test_half_of_the_fakes_are_nonsense():
    real = torch.randn(200, 4)
    found = prdc(real, torch.cat([real[:100], torch.randn(100, 4) + 1000.0]))
    assert found["precision"] == 0.5
    assert found["density"] == pytest.approx(0.5 * 6.0 / 5.0, rel=0.1)


def test_a_ball_is_closed():
    """Fakes exactly on the surface belong to it: on a line of whole numbers, ties are exact."""
    real = torch.arange(10.0)[:, None]
    found = prdc(real, real + 3.0, precision_k=1, density_k=1)
    assert found == brute_prdc(real, real + 3.0, 1, 1)
    assert found["precision"] == 0.8  # 3 to 9 coincide, 10 touches the ball of 9


def test_progress_reaches_its_end():
    x, y = pair("plain", 3)
    for call in (
        lambda tell: prdc(x, y, progress=tell),
        lambda tell: knn_radii(x, 2, progress=tell),
        lambda tell: nearest(x, y, 2, progress=tell),
    ):
        told: list[tuple[int, int]] = []
        call(lambda done, total, told=told: told.append((done, total)))
        total = told[0][1]
        assert told == [(done, total) for done in range(1, total + 1)]


def test_what_cannot_be_measured():
    x, y = pair("plain", 3)
    with pytest.raises(UserError, match="5 feature vectors are too few: this statistic needs 6"):
        prdc(x[:5], y)
    with pytest.raises(UserError, match="3 feature vectors are too few: this statistic needs 4"):
        prdc(x, y[:3])
    with pytest.raises(UserError, match="2 feature vectors are too few: this statistic needs 3"):
        nearest(x, y[:2], 3)
    with pytest.raises(UserError, match="3 and 2 dimensions"):
        nearest(x, y[:, :2], 1)
    x[5] = float("nan")
    for call in (lambda: prdc(y, x), lambda: knn_radii(x, 1), lambda: nearest(y, x, 1)):
        with pytest.raises(UserError, match="picture 5 holds NaN or infinity"):
            call()


MEASURE = """
import resource, torch
from faussaire.metrics.neighbours import prdc
torch.manual_seed(0)
x, y = torch.randn(50_000, 64), torch.randn(50_000, 64)
print(prdc(x, y)["precision"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as on Linux")
def test_memory_at_full_size():
    environment = {**os.environ, "PYTHONPATH": str(Path(faussaire.__file__).parent.parent)}
    found = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    )
    precision, kibibytes = found.stdout.split()
    assert 0.0 < float(precision) < 1.0
    assert int(kibibytes) < 2 * 1024**2


def test_reaches_that_are_known_change_nothing():
    x, y = pair("plain", 6)
    known = reaches(x, 5)
    assert torch.allclose(known[:, 2], brute_radii(x, 3))
    assert prdc(x, y, real_reaches=known) == prdc(x, y)
