"""Counting modes where every mode is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from faussaire.doctor.mixtures import MIXTURES, cover, grid, picture, ring
from faussaire.doctor.modes import RECIPES, samples, train


def test_the_sets_are_pacgans():
    circle, square = MIXTURES["ring8"], MIXTURES["grid25"]
    assert (circle.modes, circle.deviation) == (8, 0.01)
    np.testing.assert_allclose(np.linalg.norm(circle.centres, axis=1), 1.0)
    assert (square.modes, square.deviation) == (25, 0.05)
    assert {tuple(c) for c in square.centres} == {
        (x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)
    }


@pytest.mark.parametrize("name", MIXTURES)
def test_the_mixture_itself_covers_all(name):
    mixture = MIXTURES[name]
    points, modes = mixture.draw(2500, seed=0)
    found = cover(points, mixture)
    assert found.touched == found.found == mixture.modes
    # Three deviations in the plane hold 1 - exp(-9/2) = 98.9 %.
    assert found.quality == pytest.approx(1.0 - math.exp(-4.5), abs=0.006)
    # Of N samples over K modes the plug-in KL is (K - 1) / 2N on average.
    assert found.reverse_kl < 3 * mixture.modes / 5000
    assert np.square(points / mixture.scale).mean() == pytest.approx(1.0, abs=0.03)
    assert (np.bincount(modes) > 50).all()


def test_lost_modes_are_counted():
    mixture = grid()
    points, modes = mixture.draw(20_000, seed=1)
    found = cover(points[modes < 5], mixture)
    assert (found.touched, found.found) == (5, 5)
    assert found.reverse_kl == pytest.approx(math.log(5), abs=0.01)


def test_a_spray_over_the_plane_touches_modes_and_finds_none():
    rng = np.random.default_rng(0)
    found = cover(rng.uniform(-5, 5, size=(2500, 2)), grid())
    assert found.touched >= 15
    assert found.found <= 2
    assert found.quality < 0.05


def test_a_map_shows_modes_and_samples():
    mixture = ring(4)
    empty = picture(np.zeros((0, 2)), mixture)
    full = picture(mixture.draw(100, seed=0)[0], mixture)
    assert empty.shape == (256, 256, 3)
    assert (full != empty).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_and_repeat(recipe):
    mixture = MIXTURES["ring8"]
    first, again = (
        samples(train(RECIPES[recipe], mixture, examples=5000, seed=3), mixture) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2500, 2)


@pytest.mark.long
def test_r3gan_learns_the_ring():
    """Far from PacGAN's budget: samples come near the circle and lie all around it."""
    mixture = ring(8, deviation=0.1)
    state = train(RECIPES["r3gan"], mixture, examples=200_000)
    found = cover(samples(state, mixture), mixture)
    assert found.found == 8
    assert found.quality > 0.6
