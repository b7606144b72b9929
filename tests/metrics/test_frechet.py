"""The Fréchet distance against closed forms, 50 digits, SciPy and singular values."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics.frechet import Moments, MomentsSum, frechet_distance


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def features(count: int, dimensions: int, seed: int = 0, decay: float = 1.0) -> Tensor:
    """Correlated, skewed features away from 0, as a network's after a ReLU and pooling."""
    draws = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(99))
    scales = torch.linspace(0, -decay, dimensions)
    raw = torch.randn(count, dimensions, generator=draws) * 10.0**scales
    return (raw @ mix + 0.5).relu() + 3.0


def gaussian(mean: Tensor, covariance: Tensor) -> Moments:
    return Moments(count=10_000, mean=mean.double(), covariance=covariance.double())


def covariance(dimensions: int, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    a = torch.randn(dimensions, dimensions + 3, generator=draws, dtype=torch.float64)
    return a @ a.T / dimensions


def by_singular_values(x: Tensor, y: Tensor) -> float:
    """tr (S1 S2)^(1/2) is the nuclear norm of X Y^T, X and Y centred: exact for any counts."""
    x, y = x.double(), y.double()
    a, b = ((v - v.mean(dim=0)) / (len(v) - 1) ** 0.5 for v in (x, y))
    apart = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    root = torch.linalg.svdvals(a @ b.T).sum()
    return float(apart + a.square().sum() + b.square().sum() - 2.0 * root)


def test_independent_dimensions():
    first, second = torch.rand(2, 30, dtype=torch.float64)
    apart = torch.linspace(-1, 1, 30, dtype=torch.float64)
    expected = apart.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    a = gaussian(torch.zeros(30), torch.diag(first))
    b = gaussian(apart, torch.diag(second))
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_commuting_covariances():
    vectors, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))
    first, second = torch.rand(2, 30, dtype=torch.float64)
    a, b = (gaussian(torch.ones(30), vectors @ torch.diag(s) @ vectors.T) for s in (first, second))
    expected = (first.sqrt() - second.sqrt()).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_any_covariances_to_50_digits():
    s1, s2 = covariance(6, 1), covariance(6, 2)
    with mpmath.workdps(50):
        a, b = (mpmath.matrix(s.tolist()) for s in (s1, s2))
        values, vectors = mpmath.eigsy(a)
        factor = vectors * mpmath.diag([mpmath.sqrt(v) for v in values])
        roots = [mpmath.sqrt(v) for v in mpmath.eigsy(factor.T * b * factor, eigvals_only=True)]
        spread = sum(a[i, i] + b[i, i] for i in range(6))
        expected = float(spread - 2 * mpmath.fsum(roots))
    mean = torch.zeros(6)
    assert frechet_distance(gaussian(mean, s1), gaussian(mean, s2)) == pytest.approx(
        expected, rel=1e-12
    )


def test_equals_scipy_where_scipy_is_right():
    a, b = Moments.of(features(3_000, 64)), Moments.of(features(2_000, 64, seed=1) * 1.1)
    root = np.real(scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()))
    expected = (
        (a.mean - b.mean).square().sum()
        + a.covariance.trace()
        + b.covariance.trace()
        - 2.0 * np.trace(root)
    )
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "m"), [(40, 30), (40, 2), (150, 40), (500, 30), (101, 400), (100, 100), (500, 400)]
)
def test_any_counts(n: int, m: int):
    """Below, at and above D = 100, where covariances are singular, nearly so, or not."""
    x, y = features(n, 100), features(m, 100, seed=1)
    a, b = Moments.of(x), Moments.of(y)
    assert frechet_distance(a, b) == pytest.approx(by_singular_values(x, y), rel=1e-11)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


@pytest.mark.parametrize("count", [300, 60])
def test_features_that_never_fire(count: int):
    x, y = features(count, 80), features(250, 80, seed=1)
    x[:, 10:40] = 0.0
    y[:, 30:50] = 0.0
    found = frechet_distance(Moments.of(x), Moments.of(y))
    assert found == pytest.approx(by_singular_values(x, y), rel=1e-6)


def test_wide_range_of_eigenvalues():
    """Ten decades between the largest and the smallest variance, as in real networks."""
    x, y = features(300, 100, decay=5.0), features(300, 100, seed=1, decay=5.0)
    found = frechet_distance(Moments.of(x), Moments.of(y))
    assert found == pytest.approx(by_singular_values(x, y), rel=1e-5)


@pytest.mark.parametrize("count", [2, 50, 128, 129, 500])
def test_equal_sets_are_at_no_distance(count: int):
    moments = Moments.of(features(count, 128))
    assert 0.0 <= frechet_distance(moments, moments) <= 1e-6 * float(moments.covariance.trace())


def test_a_single_value_repeated():
    still = Moments.of(torch.full((20, 5), 2.0))
    moved = replace(still, mean=still.mean + 1.0)
    assert frechet_distance(still, moved) == pytest.approx(5.0)


@pytest.mark.parametrize("sizes", [[1, 1, 998], [999, 1], [250] * 4, [1000], [0, 300, 700]])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_moments_of_a_stream(sizes: list[int], offset: float):
    x = features(1_000, 40) + offset
    total = MomentsSum()
    for block in x.split(sizes):
        total.add(block)
    found = total.moments()
    wide = x.double().numpy()
    assert found.count == 1_000
    np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-10)
    expected = np.cov(wide, rowvar=False)
    assert np.abs(found.covariance.numpy() - expected).max() <= 1e-10 * np.abs(expected).max()
    assert found.mean.dtype == found.covariance.dtype == torch.float64


def test_what_cannot_be_measured():
    good = Moments.of(features(50, 8))
    with pytest.raises(UserError, match="1 feature vectors are too few"):
        Moments.of(features(1, 8))
    total = MomentsSum()
    total.add(features(1, 8))
    with pytest.raises(UserError, match="1 feature vectors have no covariance"):
        total.moments()
    with pytest.raises(UserError, match="8 and 9 dimensions"):
        total.add(features(1, 9))
    with pytest.raises(UserError, match="8 and 9 dimensions"):
        frechet_distance(good, Moments.of(features(50, 9)))
    for bad in (float("nan"), float("inf")):
        x = features(50, 8)
        x[33, 2] = bad
        with pytest.raises(UserError, match="picture 33 holds NaN or infinity"):
            Moments.of(x)
        spoiled = replace(good, mean=good.mean.clone().fill_(bad))
        with pytest.raises(UserError, match="moments of 50 feature vectors hold NaN"):
            frechet_distance(good, spoiled)
