"""CIE Lab against known colours, and back."""

from __future__ import annotations

import pytest
import torch

from faussaire.nn.lab import gamma, in_gamut, lab_to_rgb, linear, rgb_to_lab


def colour(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # worked by hand from the CIE's formulas, as tables of colours have them
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((119, 119, 119), (50.034, 0.0, 0.0)),
        ((255, 0, 0), (53.241, 80.092, 67.203)),
        ((0, 255, 0), (87.735, -86.183, 83.179)),
        ((0, 0, 255), (32.297, 79.188, -107.860)),
        ((255, 255, 0), (97.139, -21.554, 94.478)),
        ((1, 2, 3), (0.510, -0.122, -0.471)),  # on the straight part of both curves
    ],
)
def test_known_colours(rgb, lab):
    found = rgb_to_lab(colour(*rgb) / 127.5 - 1.0)
    torch.testing.assert_close(found, colour(*lab), atol=3e-3, rtol=0)


def test_there_and_back():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 20, 30) * 2.0 - 1.0
    x[0, :, :4] = torch.tensor([-1.0, -0.99, 1.0, 0.0])[None, :, None]
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(x)), x, atol=2e-5, rtol=0)
    levels = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    torch.testing.assert_close(gamma(linear(levels)), levels, atol=1e-7, rtol=0)


def test_gradients_are_right_and_finite_everywhere():
    torch.manual_seed(0)
    x = (torch.rand(1, 3, 2, 3, dtype=torch.float64) * 1.6 - 0.8).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, (x,))
    lab = rgb_to_lab(x.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lab_to_rgb, (lab,))
    ends = torch.tensor([-1.0, 1.0, 0.0]).expand(1, 3, 1, 3).clone().requires_grad_()
    rgb_to_lab(ends).sum().backward()
    far = torch.tensor([[0.0, 100.0, 50.0], [120.0, 0.0, -120.0], [-120.0, 120.0, 0.0]])
    far = far.view(1, 3, 1, 3).requires_grad_()
    lab_to_rgb(far).sum().backward()
    assert ends.grad.isfinite().all()
    assert far.grad.isfinite().all()


def test_colours_that_srgb_lacks_keep_their_lightness_and_hue():
    lab = torch.tensor([[50.0, 100.0, -80.0], [95.0, 20.0, 60.0], [50.0, 10.0, 10.0]])
    lab = lab.T.reshape(1, 3, 1, 3)
    kept = in_gamut(lab)
    shown = rgb_to_lab(lab_to_rgb(kept))
    torch.testing.assert_close(shown, kept, atol=0.05, rtol=0)
    torch.testing.assert_close(kept[:, 0], lab[:, 0])
    hues = [torch.atan2(part[:, 2], part[:, 1]) for part in (kept, lab)]
    torch.testing.assert_close(*hues)
    chroma = [part[:, 1:].norm(dim=1).flatten() for part in (kept, lab)]
    assert (chroma[0][:2] < chroma[1][:2]).all()
    assert chroma[0][2] == chroma[1][2]
