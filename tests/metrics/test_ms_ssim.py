"""MS-SSIM against a slow reference in float64, and its mean over pairs."""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.signal import convolve2d

from faussaire.core.errors import UserError
from faussaire.metrics.ms_ssim import WEIGHTS, MsSsimPairs, diversity, ms_ssim, scales_of
from metrics.test_swd import blurred, crops, noisy


def window(x: np.ndarray) -> np.ndarray:
    places = np.arange(11) - 5
    taps = np.exp(-(places**2) / (2 * 1.5**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    return convolve2d(x, kernel, mode="valid")


def halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, mirrored at the far border: as the authors' own program."""
    return uniform_filter(x, 2, mode="reflect", origin=-1)[::2, ::2]


def slow_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """x, y: uint8 (H, W, C)."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scales = scales_of(*x.shape[:2])
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    channels = []
    for c in range(x.shape[2]):
        a, b = x[:, :, c].astype(float), y[:, :, c].astype(float)
        product = 1.0
        for scale in range(scales):
            ma, mb = window(a), window(b)
            va, vb, cov = (
                window(p) - q for p, q in ((a * a, ma**2), (b * b, mb**2), (a * b, ma * mb))
            )
            local = (2 * cov + c2) / (va + vb + c2)
            if scale == scales - 1:
                local = local * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            product *= max(local.mean(), 0.0) ** weights[scale]
            a, b = halved(a), halved(b)
        channels.append(product)
    return float(np.mean(channels))


SHAPES = [(28, 28, 1), (32, 32, 3), (45, 67, 3), (64, 64, 4), (161, 170, 1), (176, 180, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_reference(shape: tuple[int, int, int]):
    x = crops(3, *shape)
    changed = [noisy(x, 15.0), blurred(x, 3), crops(3, *shape, seed=1), 255 - x]
    for y in changed:
        expected = [slow_ms_ssim(a, b) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
        np.testing.assert_allclose(ms_ssim(x, y).numpy(), expected, atol=2e-6)


def test_equal_pictures_are_1_and_negatives_0():
    x = crops(4, 64, 64)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4, dtype=torch.float64))
    noise = torch.randint(256, x.shape, generator=torch.Generator().manual_seed(0)).byte()
    assert ms_ssim(noise, 255 - noise).eq(0.0).all()
    flat = torch.full_like(x, 9)
    torch.testing.assert_close(ms_ssim(flat, flat), torch.ones(4, dtype=torch.float64))


def test_falls_with_noise_and_is_symmetric():
    x = crops(6, 64, 64)
    found = [float(ms_ssim(x, noisy(x, amount)).mean()) for amount in (0, 5, 10, 20, 40)]
    assert found == sorted(found, reverse=True)
    torch.testing.assert_close(ms_ssim(x, noisy(x, 20.0)), ms_ssim(noisy(x, 20.0), x))


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [
        (11, 11, 1),
        (20, 90, 1),
        (21, 21, 2),
        (28, 28, 2),
        (32, 32, 2),
        (64, 64, 3),
        (128, 99, 4),
        (160, 160, 4),
        (161, 161, 5),
        (1024, 1024, 5),
    ],
)
def test_scales(height: int, width: int, scales: int):
    assert scales_of(height, width) == scales == MsSsimPairs((height, width, 3)).scales


def test_pairs_of_a_stream():
    pictures = crops(21)
    expected = ms_ssim(pictures[0:20:2], pictures[1:20:2])
    for sizes in ([21], [1] * 21, [3, 5, 13]):
        pairs = MsSsimPairs((32, 32, 3))
        for block in pictures.split(sizes):
            pairs(block.numpy())
        assert pairs.count == 10
        assert pairs.mean == pytest.approx(float(expected.mean()), rel=1e-6)
        assert pairs.error == pytest.approx(float(expected.std()) / 10**0.5, rel=1e-6)
    few = MsSsimPairs((32, 32, 3), pairs=4)
    for block in pictures.split(3):
        few.add(block)
    assert few.count == 4
    assert few.mean == pytest.approx(float(expected[:4].mean()), rel=1e-6)


def test_diversity_is_the_mean_over_different_pictures():
    pictures = crops(8)
    every = [
        float(ms_ssim(pictures[i : i + 1], pictures[j : j + 1]))
        for i in range(8)
        for j in range(8)
        if i != j
    ]
    found = diversity(pictures, pairs=3_000)
    assert found.count == 3_000
    assert found.error == pytest.approx(stdev(every) / 3_000**0.5, rel=0.1)
    assert abs(found.mean - fmean(every)) < 4.0 * stdev(every) / 3_000**0.5
    assert diversity(pictures, pairs=50, seed=1).mean == diversity(pictures, pairs=50, seed=1).mean
    assert diversity(pictures, pairs=50, seed=1).mean != diversity(pictures, pairs=50, seed=2).mean


def test_a_collapsed_generator_has_no_variety():
    varied, collapsed = crops(40), noisy(crops(1).expand(40, -1, -1, -1), 3.0)
    assert diversity(varied, pairs=200).mean < 0.4
    assert diversity(collapsed, pairs=200).mean > 0.9


def test_what_cannot_be_measured():
    with pytest.raises(UserError, match="at least 11x11, not 10x64"):
        MsSsimPairs((10, 64, 3))
    with pytest.raises(UserError, match="1 pictures make no pair"):
        diversity(crops(1))
    pairs = MsSsimPairs((32, 32, 3))
    pairs.add(crops(1))
    with pytest.raises(UserError, match="No two pictures"):
        _ = pairs.mean
    pairs.add(crops(1))
    assert (pairs.mean, pairs.error) == (pytest.approx(1.0), None)
    with pytest.raises(UserError, match="must be uint8"):
        pairs.add(torch.zeros(2, 32, 32, 3))
