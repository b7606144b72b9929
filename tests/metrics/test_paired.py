"""Figures of pairs, against their definitions and the libraries that people compare with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faussaire.metrics import paired


def pictures(seed: int, size: tuple[int, int] = (24, 20)) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.uniform(-1.0, 1.0, (2, 3, *size)), dtype=torch.float32)


def test_l1_and_psnr_by_hand_and_inside_a_mask():
    x, y = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    y[:, :, :2] = 0.2
    assert paired.l1(x, y).item() == pytest.approx(0.05)
    assert paired.psnr(x, y).item() == pytest.approx(-10 * np.log10(0.01 / 2), abs=1e-4)
    upper = torch.zeros(1, 1, 4, 4)
    upper[:, :, :2] = 1.0
    assert paired.l1(x, y, upper).item() == pytest.approx(0.1)
    assert paired.psnr(x, y, upper).item() == pytest.approx(20.0, abs=1e-4)
    assert paired.psnr(x, x).item() == float("inf")


def test_luma_is_bt601_in_the_studio_range():
    black, white = torch.full((1, 3, 2, 2), -1.0), torch.ones(1, 3, 2, 2)
    assert paired.luma_8_bit(black).unique().tolist() == [16.0]
    assert paired.luma_8_bit(white).mean().item() == pytest.approx(235.0, abs=1e-3)
    assert paired.luma_8_bit(white[:, :1]).mean().item() == pytest.approx(235.0, abs=1e-3)


def test_ssim_is_its_definition():
    """Equation 13 window by window. scikit-image's, with Gaussian weights, gives the same."""
    x, y = pictures(0), (pictures(0) + 0.5 * pictures(1)).clamp(-1.0, 1.0)
    found = paired.ssim_luma(x, y)
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(taps, taps) / taps.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for index in range(2):
        a, b = (paired.luma_8_bit(v)[index, 0].double().numpy() for v in (x, y))
        values = []
        for top in range(a.shape[0] - 10):
            for left in range(a.shape[1] - 10):
                p, q = (v[top : top + 11, left : left + 11] for v in (a, b))
                mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
                var_p, var_q = (
                    (weights * (v - m) ** 2).sum() for v, m in ((p, mean_p), (q, mean_q))
                )
                both = (weights * (p - mean_p) * (q - mean_q)).sum()
                values.append(
                    (2 * mean_p * mean_q + c1)
                    * (2 * both + c2)
                    / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
                )
        assert found[index].item() == pytest.approx(np.mean(values), abs=1e-5)


def test_borders_are_left_out():
    x, y = pictures(0), pictures(0)
    y[:, :, 0] = 1.0
    assert paired.psnr_luma(x, y, border=1).tolist() == [float("inf")] * 2
    assert torch.isfinite(paired.psnr_luma(x, y)).all()


def test_grey_has_no_colour_and_flat_no_detail():
    assert paired.colourfulness(torch.full((1, 3, 4, 4), 0.3)).item() == pytest.approx(0, abs=1e-3)
    red = torch.full((1, 3, 4, 4), -1.0)
    red[:, 0] = 1.0
    # rg = 255, yb = 127.5 everywhere: .3 of their length.
    assert paired.colourfulness(red).item() == pytest.approx(0.3 * np.hypot(255, 127.5), rel=1e-4)
    assert paired.gradient_energy(red).item() == pytest.approx(0.0, abs=1e-9)
    assert paired.gradient_energy(pictures(0)).min() > 0.01


def test_colourfulness_of_real_photographs(real_data):
    """applications record a mean of 40.3 on these hundred."""
    from PIL import Image

    values = []
    for path in sorted((real_data / "bsds500/test/photo").glob("*.jpg"))[:100]:
        with Image.open(path) as image:
            pixels = torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
        values.append(paired.colourfulness(pixels / 127.5 - 1.0).item())
    assert np.mean(values) == pytest.approx(40.3, abs=3.0)
