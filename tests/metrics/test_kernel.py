"""KID and CMMD against slow loops in float64, and their bias over many draws."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest
import torch
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics import kernel
from faussaire.metrics.kernel import KernelDistance, cmmd, kid, polynomial_mmd


def sets(n: int, m: int, dimensions: int = 6) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(n)
    x = torch.randn(n, dimensions, generator=draws)
    return x, 0.8 * torch.randn(m, dimensions, generator=draws) + 0.3


def slow_unbiased(x: Tensor, y: Tensor) -> float:
    def k(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / len(a) + 1.0) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)
    return xx + yy - 2.0 * xy


def slow_cmmd(x: Tensor, y: Tensor, sigma: float = 10.0) -> float:
    x, y = (v.double() / v.double().norm(dim=1, keepdim=True) for v in (x, y))

    def mean(a: Tensor, b: Tensor) -> float:
        squared = (a[:, None] - b[None]).square().sum(dim=2)
        return float(torch.exp(-squared / (2.0 * sigma**2)).mean())

    return 1000.0 * (mean(x, x) + mean(y, y) - 2.0 * mean(x, y))


@pytest.mark.parametrize("block", [4, 7, 2048])
@pytest.mark.parametrize(("n", "m"), [(12, 15), (7, 8), (2, 3)])
def test_against_loops(n: int, m: int, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "_BLOCK", block)
    x, y = sets(n, m)
    assert polynomial_mmd(x, y) == pytest.approx(slow_unbiased(x, y), rel=1e-10)
    assert cmmd(x, y) == pytest.approx(slow_cmmd(x, y), rel=1e-8)
    assert cmmd(x, y, sigma=0.7) == pytest.approx(slow_cmmd(x, y, 0.7), rel=1e-10)


def test_polynomial_mmd_is_unbiased():
    """In one dimension MMD^2 = 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2 of raw moments."""
    draws = torch.Generator().manual_seed(0)
    shift = 0.5
    true = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    found = [
        polynomial_mmd(
            torch.randn(20, 1, generator=draws), torch.randn(15, 1, generator=draws) + shift
        )
        for _ in range(1_500)
    ]
    same = [
        polynomial_mmd(torch.randn(20, 1, generator=draws), torch.randn(15, 1, generator=draws))
        for _ in range(1_500)
    ]
    for values, expected in ((found, true), (same, 0.0)):
        assert abs(fmean(values) - expected) < 4.0 * stdev(values) / len(values) ** 0.5
    assert min(same) < 0.0 < max(same)


def test_kid_is_the_mean_of_its_subsets():
    x, y = sets(400, 300)
    found = kid(x, y, subsets=60, size=50, seed=3)
    assert (found.subsets, found.size) == (60, 50)
    # The subsets' mean estimates the same as the whole sample.
    assert abs(found.value - polynomial_mmd(x, y)) < 4.0 * found.error
    assert found == kid(x, y, subsets=60, size=50, seed=3)
    assert found.value != kid(x, y, subsets=60, size=50, seed=4).value


@pytest.mark.parametrize(
    ("shift", "n", "low", "high"), [(0.5, 400, 0.8, 1.3), (0.0, 400, 1.0, 4.0)]
)
def test_the_error_is_how_far_other_pictures_would_move_kid(
    shift: float, n: int, low: float, high: float
):
    """Against the deviation of KID over new pictures; on the safe side where the sets are alike."""
    draws = torch.Generator().manual_seed(0)

    def once(seed: int) -> KernelDistance:
        x, y = (torch.randn(n, 4, generator=draws) for _ in range(2))
        return kid(x, y + shift, subsets=30, size=100, seed=seed)

    found = [once(seed) for seed in range(60)]
    deviation = stdev(one.value for one in found)
    # 60 draws tell a deviation to a tenth.
    assert low < fmean(one.error for one in found) / deviation < high


def test_kid_of_few_pictures():
    x, y = sets(40, 30)
    assert kid(x, y).size == 15
    assert kid(x, y).error > 0
    with pytest.raises(UserError, match="9 feature vectors are too few"):
        kid(x[:9], y)


def test_cmmd_of_equal_sets_and_its_bias():
    x, y = sets(60, 60)
    assert cmmd(x, x) == pytest.approx(0.0, abs=1e-9)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), rel=1e-9)
    assert cmmd(x * 5.0, y) == pytest.approx(cmmd(x, y), rel=1e-6)
    # Two draws of one distribution: 1000 * 2 / n * E[1 - k], and E[1 - k] = 1 / 100 nearly.
    draws = torch.Generator().manual_seed(1)
    same = [
        cmmd(torch.randn(50, 64, generator=draws), torch.randn(50, 64, generator=draws))
        for _ in range(100)
    ]
    assert fmean(same) == pytest.approx(1000.0 * 2.0 / 50 * 0.01, rel=0.02)


def test_cmmd_keeps_its_digits_near_0():
    """Kernel values lie within 2 % of 1, and sums of them would cancel to nothing."""
    torch.manual_seed(0)
    x = torch.randn(50, 32, dtype=torch.float64)
    y = x + 3e-7 * torch.randn(50, 32, dtype=torch.float64)
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (x, y))
    # To first order in 1 / sigma^2, MMD^2 is |mean(a) - mean(b)|^2 / sigma^2.
    expected = 1000.0 * float((a.mean(dim=0) - b.mean(dim=0)).square().sum()) / 100.0
    assert cmmd(x, y) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("measure", [kid, polynomial_mmd, cmmd])
def test_what_cannot_be_measured(measure):
    x, y = sets(30, 30)
    with pytest.raises(UserError, match="6 and 5 dimensions"):
        measure(x, y[:, :5])
    with pytest.raises(UserError, match="floating-point"):
        measure(x, y.long())
    y[7, 1] = float("nan")
    with pytest.raises(UserError, match="picture 7 holds NaN or infinity"):
        measure(x, y)


def test_an_embedding_of_length_0():
    x, y = sets(30, 30)
    x[4] = 0.0
    with pytest.raises(UserError, match="length 0"):
        cmmd(x, y)
