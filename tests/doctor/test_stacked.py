"""Stacks of digits, on three kinds of bars that stand for digits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from doctor.bars import write_bars
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.doctor.digits import Digits, Eye, spoiled
from faussaire.doctor.stacked import (
    RECIPES,
    Stacks,
    cover,
    mode_of,
    samples,
    shares,
    side_by_side,
    train,
)
from faussaire.metrics import classifier

CPU = Device(name="cpu", precision="float32")


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bars(tmp_path_factory.mktemp("bars"))


@pytest.fixture
def digits(bars: Path) -> Digits:
    return Digits.read(str(bars), None, 16)


@pytest.fixture
def eye(digits: Digits) -> Eye:
    return Eye.taught(digits, CPU)


def test_digits_bring_their_labels_and_some_are_held_out(digits, bars):
    assert (digits.classes, len(digits.held), len(digits.taught)) == (3, 48, 192)
    assert set(digits.held) | set(digits.taught) == set(range(240))
    again = Digits.read(str(bars), str(bars.with_name("train-labels-idx1-ubyte")), 16)
    np.testing.assert_array_equal(digits.held, again.held)
    np.testing.assert_array_equal(digits.labels, again.labels)


def test_digits_without_labels_and_too_few_are_refused(tmp_path):
    few = write_bars(tmp_path, 12)
    with pytest.raises(UserError, match="12 digits of 3 classes are too few"):
        Digits.read(str(few), None, 16)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="have no labels"):
        Digits.read(str(few), None, 16)


def test_modes_are_numbered_and_have_the_shares_of_their_digits(digits):
    told = np.array([[0, 0], [0, 2], [1, 0], [2, 2]])
    np.testing.assert_array_equal(mode_of(told, 3), [0, 2, 3, 8])
    np.testing.assert_array_equal(mode_of(np.array([[7, 0, 3]]), 10), [703])
    each = np.bincount(digits.labels[digits.taught]) / 192
    even = shares(digits, 3)
    assert even.shape == (27,)
    assert even.sum() == pytest.approx(1.0)
    assert even[mode_of(np.array([[2, 0, 1]]), 3)[0]] == pytest.approx(each[2] * each[0] * each[1])


def test_a_stack_has_digits_of_the_rows_asked_for_in_its_channels(digits):
    stream = Stacks(digits, digits.held, 2, seed=5)
    found = stream.read(0, 96)["images"]
    assert found.shape == (96, 16, 16, 2)
    pixels = digits.images.pixels[..., 0]
    pairs = []
    for stack in found:
        same = [(pixels == stack[..., channel]).all(axis=(1, 2)) for channel in range(2)]
        assert all(one.sum() == 1 for one in same)
        pairs.append([int(one.argmax()) for one in same])
    assert set(np.ravel(pairs)) == set(digits.held.tolist())
    assert sum(one == other for one, other in pairs) < 10  # channels are drawn apart
    np.testing.assert_array_equal(stream.read(40, 8)["images"], found[40:48])
    other = Stacks(digits, digits.held, 2, seed=6).read(0, 96)["images"]
    assert (other != found).any()


def test_what_is_told_is_counted():
    """Two digits of ten, evenly; every mode seen, one of them never with confidence."""
    told = np.stack(np.meshgrid(range(10), range(10)), axis=2).reshape(-1, 2).repeat(20, axis=0)
    chances = np.full(told.shape, 0.99)
    chances[(told == (3, 4)).all(axis=1), 1] = 0.4
    found = cover(told, chances, np.full(100, 0.01), 10)
    assert (found.modes, found.touched, found.found) == (100, 100, 99)
    assert found.quality == pytest.approx(0.99)
    assert found.reverse_kl == pytest.approx(0.0, abs=1e-12)
    # A generator whose second digit is always a 4 has ten modes.
    told[:, 1] = 4
    found = cover(told, np.ones(told.shape), np.full(100, 0.01), 10)
    assert (found.touched, found.found) == (10, 10)
    assert found.reverse_kl == pytest.approx(math.log(10))


def test_the_eye_reads_stacks_and_no_noise(digits, eye):
    assert eye.accuracy > 0.9
    stacks = Stacks(digits, digits.held, 3, seed=1).read(0, 300)["images"]
    told, chances = eye.tell(stacks)
    assert told.shape == chances.shape == (300, 3)
    # Each channel is told as if it stood alone, in its place.
    alone, _ = eye.tell(stacks[..., 1:2])
    np.testing.assert_array_equal(told[:, 1], alone[:, 0])
    real = cover(told, chances, shares(digits, 3), 3)
    assert real.touched == 27
    assert real.quality > 0.7
    assert real.reverse_kl < 0.15
    noise = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    for nothing in (noise, np.zeros_like(noise)):
        told, chances = eye.tell(nothing)
        assert cover(told, chances, shares(digits, 3), 3).quality < 0.05
    assert eye.fooled < 0.5


def test_spoiled_digits_are_others_and_repeat(digits):
    pixels, labels = digits.images.pixels, digits.labels
    bad = spoiled(pixels, labels, seed=1)
    assert (bad.shape, bad.dtype) == (pixels.shape, np.uint8)
    assert (bad != pixels).any(axis=(1, 2, 3)).mean() > 0.95
    np.testing.assert_array_equal(bad, spoiled(pixels, labels, seed=1))
    # Overlaid are digits of two classes: nowhere darker than the one, and somewhere lighter.
    assert (bad[2::6] >= pixels[2::6]).all()
    assert (bad[2::6].astype(int) - pixels[2::6] > 50).any(axis=(1, 2, 3)).all()


def test_the_eye_is_kept_and_taught_anew_where_its_file_is_damaged(
    digits, eye, monkeypatch, tmp_path
):
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path))
    lessons = []

    def teach(pictures, classes, *, width, device, **how):
        lessons.append(pictures)
        return classifier.untaught(1, classes, width, device=device, seed=len(lessons)).eval()

    monkeypatch.setattr(classifier, "teach", teach)
    first, again = Eye.taught(digits, CPU), Eye.taught(digits, CPU)
    assert len(lessons) == 1
    shown = lessons[0].read(range(192))
    taught = digits.images.pixels[digits.taught]
    np.testing.assert_array_equal(shown, taught)
    np.testing.assert_array_equal(np.bincount(lessons[0].labels)[3], 2 * 192)
    stacks = Stacks(digits, digits.held, 1, seed=1).read(0, 20)["images"]
    np.testing.assert_array_equal(first.tell(stacks)[1], again.tell(stacks)[1])
    (kept,) = (tmp_path / "eyes").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-40])
    Eye.taught(digits, CPU)
    assert len(lessons) == 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_and_repeat(recipe, digits):
    settings = {**RECIPES[recipe], "width": 4, "latent": 8}
    first, again = (
        samples(train(settings, digits, 2, examples=640, seed=3, device=CPU), 40) for _ in range(2)
    )
    assert first.shape == (40, 16, 16, 2)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    other = samples(train(settings, digits, 2, examples=640, seed=4, device=CPU), 40)
    assert (first != other).any()


def test_stacks_are_shown_digit_beside_digit():
    stacks = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    shown = side_by_side(stacks)
    assert shown.shape == (2, 3, 8, 1)
    np.testing.assert_array_equal(shown[:, :, :4, 0], stacks[..., 0])
    np.testing.assert_array_equal(shown[:, :, 4:, 0], stacks[..., 1])
