"""Real pictures against real pictures: the floor of the figures, on Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from faussaire.data.pack import Images, pack
from faussaire.metrics.extractors import Extractor, open_extractor
from faussaire.metrics.frechet import Moments, frechet_distance
from faussaire.metrics.kernel import kid


@pytest.fixture
def fashion(real_data: Path) -> Images:
    return pack(real_data / "fashion_mnist" / "train-images-idx3-ubyte.gz")


def halves(images: Images, extractor: Extractor, count: int, seed: int) -> tuple[float, float]:
    """Fréchet and kernel distance of `count` pictures and `count` others."""
    rows = np.random.default_rng(seed).permutation(len(images))[: 2 * count]
    first, second = (extractor(images.pixels[np.sort(part)]).vectors for part in np.split(rows, 2))
    frechet = frechet_distance(Moments.of(first), Moments.of(second))
    return frechet, kid(first, second, subsets=20).value


@pytest.mark.long
def test_halves_in_pixels_are_near_and_stable_over_seeds(fashion):
    found = [halves(fashion, open_extractor("pixels"), 10_000, seed) for seed in range(4)]
    frechet, kernel = zip(*found, strict=True)
    # A few directions of pixels hold most of the variance, so chance moves the floor by a seventh...
    assert stdev(frechet) < 0.3 * fmean(frechet)
    # ...which is nothing beside classes that are missing.
    assert fashion.labels is not None
    kept = fashion.pixels[fashion.labels < 5][:10_000]
    extractor = open_extractor("pixels")
    robbed, whole = (Moments.of(extractor(p).vectors) for p in (kept, fashion.pixels[:10_000]))
    assert max(frechet) < 0.2 * frechet_distance(robbed, whole)
    assert max(map(abs, kernel)) < 0.05


@pytest.mark.slow
def test_halves_in_features_are_stable_over_seeds(fashion, real_data):
    extractor = open_extractor("squeezenet1.1", weights=real_data / "weights")
    found = [halves(fashion, extractor, 1_500, seed) for seed in range(3)]
    frechet, kernel = zip(*found, strict=True)
    print(f"fid of halves {frechet}, kid {kernel}")
    assert stdev(frechet) < 0.1 * fmean(frechet)
    assert max(map(abs, kernel)) < 0.1 * fmean(frechet)
