"""Filtered resizing against its definition: zeros between pixels, a filter, pixels left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from faussaire.nn.resample import TAPS, blur, downsample, upsample, upsample_conv

BINOMIAL6 = (1.0, 5.0, 10.0, 10.0, 5.0, 1.0)
FILTERS = pytest.mark.parametrize("taps", [TAPS, (1.0, 1.0), BINOMIAL6], ids=lambda t: str(len(t)))
SIZES = pytest.mark.parametrize("size", [(8, 8), (5, 7), (6, 4)], ids=str)
MARGIN = 16


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def plane(x: Tensor) -> Tensor:
    """The picture with so much nothing around it that no filter reaches the end."""
    return F.pad(x, (MARGIN,) * 4)


def filtered(plane: Tensor, taps: tuple[float, ...], *, shift: int) -> Tensor:
    """y(p) = sum_j taps(j) x(p + j - shift) along both sides, pixel by pixel."""
    row = torch.tensor(taps, dtype=plane.dtype) / sum(taps)
    for side in (2, 3):
        parts = [weight * plane.roll(shift - place, dims=side) for place, weight in enumerate(row)]
        plane = torch.stack(parts).sum(dim=0)
    return plane


def zeros_between(x: Tensor) -> Tensor:
    """Pixel i of x at 2i."""
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def defined_up(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    grown = 4.0 * filtered(plane(zeros_between(x)), taps, shift=len(taps) // 2)
    return grown[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def defined_down(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    kept = filtered(plane(x), taps, shift=len(taps) // 2 - 1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return kept[:, :, : x.shape[2] // 2 * 2 : 2, : x.shape[3] // 2 * 2 : 2]


def defined_up_conv(x: Tensor, weight: Tensor, taps: tuple[float, ...]) -> Tensor:
    """The convolution reads the grown plane beyond the picture, too."""
    grown = 4.0 * filtered(plane(zeros_between(x)), taps, shift=len(taps) // 2)
    kernel = weight.transpose(0, 1).flip(2, 3)  # F.conv2d correlates
    return F.conv2d(grown, kernel, padding=1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def defined_down_conv(x: Tensor, weight: Tensor, taps: tuple[float, ...]) -> Tensor:
    clear = filtered(plane(x), taps, shift=len(taps) // 2 - 1)
    found = F.conv2d(clear, weight, padding=1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return found[:, :, : x.shape[2] // 2 * 2 : 2, : x.shape[3] // 2 * 2 : 2]


@FILTERS
@SIZES
def test_growing_and_shrinking_are_their_definitions(taps, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(upsample(x, taps), defined_up(x, taps))
    torch.testing.assert_close(downsample(x, taps), defined_down(x, taps))
    assert upsample(x, taps).shape[2:] == (2 * size[0], 2 * size[1])
    assert downsample(x, taps).shape[2:] == (size[0] // 2, size[1] // 2)


@pytest.mark.parametrize("taps", [TAPS, BINOMIAL6], ids=lambda t: str(len(t)))
@SIZES
def test_with_convolutions_they_are_those_of_the_endless_plane(taps, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weight = torch.randn(3, 5, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(upsample_conv(x, weight, taps), defined_up_conv(x, weight, taps))
    kernel = weight.transpose(0, 1)
    shrunk = F.conv2d(blur(x, taps, padding=len(taps) // 2), kernel, stride=2)
    torch.testing.assert_close(shrunk, defined_down_conv(x, kernel, taps))


def test_a_constant_keeps_its_value_inside():
    x = torch.full((1, 1, 8, 8), 0.7)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    for made in (upsample(x), downsample(x), blur(x)):
        torch.testing.assert_close(made[inside], torch.full_like(made[inside], 0.7))


@FILTERS
@SIZES
def test_derivatives_are_exact_twice(taps, size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    for function in (
        lambda x: upsample(x, taps),
        lambda x: downsample(x, taps),
        lambda x: blur(x, taps, padding=1, gain=2.0),
    ):
        squared = lambda x, function=function: function(x).square()  # noqa: E731
        assert torch.autograd.gradcheck(squared, (x,), fast_mode=True)
        assert torch.autograd.gradgradcheck(squared, (x,), fast_mode=True)
    if len(taps) > 2:
        grown = lambda x, weight: upsample_conv(x, weight, taps).square()  # noqa: E731
        assert torch.autograd.gradgradcheck(grown, (x, weight), fast_mode=True)


@pytest.mark.parametrize("function", [upsample, downsample, blur], ids=lambda f: f.__name__)
def test_bfloat16_stays_within_its_rounding_and_autocast_leaves_float32(function):
    x = torch.randn(2, 16, 8, 8)
    exact = function(x)
    rounded = function(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(x), exact)


def test_channels_last_stays():
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    for function in (upsample, downsample, blur):
        made = function(x)
        assert made.is_contiguous(memory_format=torch.channels_last)
        (gradient,) = torch.autograd.grad(made.square().sum(), x)
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_other_filters_are_refused():
    for taps in ((1.0, 2.0, 1.0), (1.0, 2.0, 3.0, 4.0)):
        with pytest.raises(ValueError, match="symmetric and even"):
            blur(torch.zeros(1, 1, 8, 8), taps)
