"""Counts of samples whose modes are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from faussaire.doctor.coverage import tally

EVEN = np.full(100, 0.01)


def all_good(count: int) -> np.ndarray:
    return np.ones(count, bool)


def test_even_samples_have_no_distance_and_random_ones_the_known_bias():
    exact = np.repeat(np.arange(100), 50)
    found = tally(exact, all_good(5000), EVEN)
    assert (found.modes, found.touched, found.found) == (100, 100, 100)
    assert found.quality == 1.0
    assert found.reverse_kl == pytest.approx(0.0, abs=1e-12)
    rng = np.random.default_rng(0)
    drawn = [tally(rng.integers(100, size=5000), all_good(5000), EVEN) for _ in range(200)]
    # (K - 1) / 2N, whose mean over 200 draws has a deviation of sqrt(2 * 99) / 2N / sqrt(200).
    bias = np.mean([one.reverse_kl for one in drawn])
    assert bias == pytest.approx(99 / 10_000, abs=4 * math.sqrt(198) / 10_000 / math.sqrt(200))


def test_a_missing_mode_is_missed():
    modes = np.repeat(np.arange(99), 50)
    found = tally(modes, all_good(len(modes)), EVEN)
    assert (found.touched, found.found) == (99, 99)
    assert found.reverse_kl == pytest.approx(math.log(100 / 99))


def test_a_fifth_of_its_share_finds_a_mode_and_less_does_not():
    # 1,000 samples: 10 to a mode, so that two find it.
    modes = np.concatenate([[0, 0], [1], np.full(997, 2)])
    found = tally(modes, all_good(1000), EVEN)
    assert (found.touched, found.found) == (3, 2)


def test_a_spray_touches_and_finds_nothing():
    """Samples everywhere, of which one in a hundred is good."""
    modes = np.tile(np.arange(100), 50)
    good = np.arange(5000) % 101 == 0
    by_good = tally(modes, good, EVEN)
    by_any = tally(modes, good, EVEN, touching=all_good(5000))
    assert by_any.touched == 100
    assert by_good.touched == by_any.touched - 50 == 50
    assert by_any.found == by_good.found == 0
    assert by_any.quality == pytest.approx(0.01)
    assert by_any.reverse_kl == pytest.approx(0.0, abs=1e-12)


def test_uneven_modes_should_have_uneven_samples():
    shares = np.array([0.7, 0.2, 0.1])
    right = np.repeat(np.arange(3), [70, 20, 10])
    assert tally(right, all_good(100), shares).reverse_kl == pytest.approx(0.0, abs=1e-12)
    even = np.repeat(np.arange(3), [34, 33, 33])
    wanted = sum(p * math.log(p / q) for p, q in zip((0.34, 0.33, 0.33), shares, strict=True))
    assert tally(even, all_good(100), shares).reverse_kl == pytest.approx(wanted)
    # A fifth of 70, 20 and 10 is 14, 4 and 2.
    few = np.repeat(np.arange(3), [13, 85, 2])
    assert tally(few, all_good(100), shares).found == 2
