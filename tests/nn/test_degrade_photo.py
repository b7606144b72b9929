"""Degradations: Pillow is what shrinking and JPEG must agree with."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.core.batch import BatchDraws, RowDraws
from faussaire.nn import degrade_photo
from faussaire.nn.degrade import enlarged, rounded, shrunk
from faussaire.nn.degrade_photo import Chance, bell, degrade, kernel, noisy, photo, sinc
from faussaire.nn.jpeg import jpeg


def picture(height: int = 75, width: int = 91) -> np.ndarray:
    """Smooth colours with edges and some texture, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width] / 20.0
    waves = [np.sin(x + 2 * y), np.cos(3 * x - y), np.sin(x * y)]
    shade = np.stack(waves, axis=2) * 80 + 128
    shade[20:50, 30:60] = (220, 40, 90)
    noise = np.random.default_rng(0).normal(0, 4, shade.shape)
    return (shade + noise).clip(0, 255).astype(np.uint8)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    rows = torch.from_numpy(np.array(pixels)).float() / 255.0
    rows = rows[:, :, None] if rows.dim() == 2 else rows
    return rows.permute(2, 0, 1)[None]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10.0 * math.log10(float((a - b).square().mean()))


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_pillows(quality, mode):
    image = Image.fromarray(picture()).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    theirs = tensor(np.asarray(Image.open(file)))
    x = tensor(np.asarray(image))
    ours = jpeg(x, quality)
    agreed, lost = psnr(ours, theirs), psnr(x, theirs)
    assert agreed > 40.0
    # At the best qualities both differ from the picture by roundings alone.
    assert quality == 95 or agreed > lost + 8.0


def test_jpeg_refuses_other_qualities():
    with pytest.raises(ValueError, match="1 to 100"):
        jpeg(torch.zeros(1, 3, 8, 8), 0)


@pytest.mark.parametrize("scale", [2, 4])
def test_shrinking_and_enlarging_are_pillows(scale):
    pixels = picture(72, 96)
    image = Image.fromarray(pixels)
    x = tensor(pixels) * 2.0 - 1.0
    for ours, size in (
        (shrunk(x, scale), (96 // scale, 72 // scale)),
        (enlarged(x, scale), (96 * scale, 72 * scale)),
    ):
        # One channel of floats at a time: bytes are rounded between Pillow's two passes.
        for channel in range(3):
            plane = Image.fromarray(pixels[:, :, channel].astype(np.float32))
            theirs = np.asarray(plane.resize(size, Image.Resampling.BICUBIC))
            found = ((ours[0, channel] + 1.0) * 127.5).numpy()
            np.testing.assert_allclose(found, theirs, atol=2e-3)
        bytes_ = tensor(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))
        assert psnr((rounded(ours) + 1.0) / 2.0, bytes_) > 50.0


def test_kernels_are_what_their_names_say():
    for side, wide, plateau in ((21, 2.0, False), (15, 1.2, True)):
        weights = bell(side, wide, wide, 0.0, 1.0, plateau=plateau)
        assert weights.sum() == pytest.approx(1.0, abs=1e-5)
        torch.testing.assert_close(weights, weights.T)
    at = torch.arange(21.0) - 10.0
    gauss = bell(21, 2.0, 1.0, 0.0, 1.0)
    assert (gauss * at[None].square()).sum() == pytest.approx(4.0, rel=0.01)  # across
    assert (gauss * at[:, None].square()).sum() == pytest.approx(1.0, rel=0.01)
    turned = bell(21, 2.0, 1.0, math.pi / 2, 1.0)
    torch.testing.assert_close(turned, gauss.T, atol=1e-6, rtol=0)
    # A sinc lets slow waves pass and stops fast ones.
    wave = sinc(21, math.pi / 2)
    passed = [float((wave * torch.cos(w * at)[None]).sum()) for w in (0.0, math.pi / 5, 2.8)]
    assert passed[0] == pytest.approx(1.0, abs=1e-5)
    assert passed[1] == pytest.approx(1.0, abs=0.15)
    assert abs(passed[2]) < 0.15


def test_random_kernels_keep_their_shares_and_the_mean():
    chance = Chance(torch.Generator().manual_seed(0))
    found = [kernel(chance, (0.2, 3.0)) for _ in range(300)]
    assert {k.shape[0] for k in found} == set(degrade_photo.SIDES)
    assert all(float(k.sum()) == pytest.approx(1.0, abs=1e-4) for k in found)
    rings = sum(bool((k < -1e-6).any()) for k in found) / len(found)
    assert rings == pytest.approx(degrade_photo.SINC, abs=0.05)


def test_noise_is_grey_in_two_of_five_and_as_strong_as_said():
    x = torch.full((3, 32, 32), 0.5)
    chance = Chance(torch.Generator().manual_seed(1))
    rows = [noisy(x, chance, degrade_photo.FIRST) - x for _ in range(200)]
    alike = sum(bool((row[0] - row[1]).abs().max() < 1e-6) for row in rows) / len(rows)
    assert alike == pytest.approx(degrade_photo.GREY_NOISE, abs=0.1)
    strong = torch.stack([row.std() for row in rows])
    # Gaussian 30 / 255; Poisson 3 sqrt(0.5 / 256).
    assert strong.max() < 0.14
    assert strong.mean() == pytest.approx(0.06, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [2, 4])
def test_photographs_depend_on_their_draws_alone(channels, scale):
    x = torch.rand(4, channels, 32, 40) * 2.0 - 1.0
    y = photo(x, RowDraws.counted(3, 4), scale)
    assert y.shape == (4, channels, 32 // scale, 40 // scale)
    assert y.abs().max() <= 1.0
    torch.testing.assert_close(y, rounded(y), atol=1e-6, rtol=0)
    assert torch.equal(y, photo(x, RowDraws.counted(3, 4), scale))
    assert torch.equal(y[:2], photo(x[:2], RowDraws.counted(3, 2), scale))
    assert not torch.equal(y, photo(x, RowDraws.counted(4, 4), scale))
    parts = [
        photo(x[rows], BatchDraws(0, total=4, rows=rows), scale)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    whole = photo(x, BatchDraws(0, total=4, rows=slice(0, 4)), scale)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_photographs_stay_what_they_show():
    """Over many draws, brightness and layout remain: nothing is shifted or turned."""
    pixels = torch.zeros(3, 64, 64)
    pixels[:, :, 32:] = 0.8
    chance = Chance(torch.Generator().manual_seed(2))
    mean = torch.stack([degrade(pixels, chance, 2) for _ in range(60)]).mean(0)
    assert mean.shape == (3, 32, 32)
    assert mean[:, :, :10].mean() < 0.15
    assert mean[:, :, 22:].mean() == pytest.approx(0.8, abs=0.08)
    middle = mean.mean((0, 1))
    assert middle[15:17].mean() == pytest.approx(0.4, abs=0.08)
