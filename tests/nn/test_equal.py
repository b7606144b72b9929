"""The layers of `faussaire.nn.equal` against their definitions."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from faussaire.nn.equal import EqualConv2d, EqualLinear, minibatch_stddev, pixel_norm


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_linear_layer_is_its_formula():
    layer = EqualLinear(6, 5, bias_init=0.5, gain=2.0, rate=0.01)
    x = torch.randn(3, 6)
    expected = 2.0 * 0.01 / math.sqrt(6) * x @ layer.weight.T + 0.01 * layer.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(0.01 * layer.bias, torch.full((5,), 0.5))


@pytest.mark.parametrize(("stride", "padding", "side"), [(1, None, 8), (2, 1, 4), (1, 0, 6)])
def test_a_convolution_is_its_formula(stride, padding, side):
    layer = EqualConv2d(4, 7, 3, gain=1.5, stride=stride, padding=padding)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 8, 8)
    weight = layer.weight * 1.5 / math.sqrt(4 * 9)
    expected = F.conv2d(x, weight, layer.bias, stride, 1 if padding is None else padding)
    torch.testing.assert_close(layer(x), expected)
    assert expected.shape == (2, 7, side, side)


def test_without_bias_there_is_none():
    assert [name for name, _ in EqualLinear(2, 2, bias=False).named_parameters()] == ["weight"]
    assert [name for name, _ in EqualConv2d(2, 2, 1, bias=False).named_parameters()] == ["weight"]


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_gain_is_the_deviation_at_the_start(rate):
    linear = EqualLinear(512, 512, gain=2**0.5, rate=rate)
    assert linear.weight.std().item() == pytest.approx(1 / rate, rel=0.01)
    assert linear(torch.randn(64, 512)).std().item() == pytest.approx(2**0.5, rel=0.03)
    conv = EqualConv2d(128, 128, 3, padding=0)
    assert conv.weight.std().item() == pytest.approx(1.0, rel=0.01)
    assert conv(torch.randn(4, 128, 10, 10)).std().item() == pytest.approx(1.0, rel=0.03)


def test_the_rate_scales_what_a_step_of_adam_does():
    """All effective weights move by lr * rate * gain / sqrt(fan-in), whatever their gradient."""
    moves = {}
    for rate in (1.0, 0.1):
        layer = EqualLinear(16, 4, rate=rate)
        adam = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.99))
        before = [(layer.weight * layer.scale).clone(), (layer.bias * rate).clone()]
        layer(torch.randn(8, 16)).square().sum().backward()
        adam.step()
        after = [layer.weight * layer.scale, layer.bias * rate]
        moves[rate] = [(b - a).abs() for a, b in zip(before, after, strict=True)]
    for rate, (weight, bias) in moves.items():
        torch.testing.assert_close(
            weight, torch.full_like(weight, 1e-3 * rate / 4), rtol=1e-2, atol=0
        )
        torch.testing.assert_close(bias, torch.full_like(bias, 1e-3 * rate), rtol=1e-2, atol=0)


def test_pixel_norm_gives_unit_mean_square():
    x = 5 * torch.randn(2, 8, 3, 3) + 1
    y = pixel_norm(x)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(2, 3, 3))
    torch.testing.assert_close(y[0, :, 1, 2], x[0, :, 1, 2] / x[0, :, 1, 2].square().mean().sqrt())
    torch.testing.assert_close(pixel_norm(x[:, :, 0, 0]), y[:, :, 0, 0])
    assert torch.equal(pixel_norm(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_statistics_of_bfloat16_are_taken_in_float32():
    x = (100 + torch.randn(4, 64, 4, 4)).bfloat16()
    y = minibatch_stddev(x)
    assert y.dtype == torch.bfloat16
    expected = x.double().var(dim=0, unbiased=False).sqrt().mean()
    assert y[0, -1, 0, 0].item() == pytest.approx(expected.item(), rel=2**-8)
    assert pixel_norm(x).dtype == torch.bfloat16
    assert pixel_norm(x).double().square().mean().item() == pytest.approx(1.0, rel=2**-7)


def test_minibatch_stddev_is_the_papers():
    """Deviation over the group at each feature and position, averaged to one number."""
    x = torch.randn(8, 6, 3, 5)
    y = minibatch_stddev(x, group=4)
    assert y.shape == (8, 7, 3, 5)
    assert torch.equal(y[:, :6], x)
    for rows in (slice(0, 4), slice(4, 8)):
        expected = x[rows].std(dim=0, unbiased=False).mean()
        torch.testing.assert_close(y[rows, 6], expected.expand(4, 3, 5))


def test_minibatch_stddev_by_parts_of_the_features():
    x = torch.randn(4, 6, 2, 2)
    y = minibatch_stddev(x, group=4, channels=3)
    assert y.shape == (4, 9, 2, 2)
    for part in range(3):
        expected = x[:, 2 * part : 2 * part + 2].std(dim=0, unbiased=False).mean()
        torch.testing.assert_close(y[:, 6 + part], expected.expand(4, 2, 2))


@pytest.mark.parametrize(("rows", "group"), [(6, 3), (7, 1), (3, 3), (10, 2), (1, 1)])
def test_a_group_that_does_not_divide_gives_way_to_the_largest_that_does(rows, group):
    x = torch.randn(rows, 2, 2, 2)
    assert torch.equal(minibatch_stddev(x, group=4), minibatch_stddev(x, group=group))
    assert group == 1 or not torch.equal(minibatch_stddev(x, group=4), minibatch_stddev(x, group=1))


def test_halves_of_a_batch_form_the_groups_of_the_whole():
    x = torch.randn(8, 4, 2, 2)
    halves = torch.cat([minibatch_stddev(x[:4]), minibatch_stddev(x[4:])])
    assert torch.equal(minibatch_stddev(x), halves)


def test_equal_pictures_have_a_finite_gradient():
    x = torch.randn(1, 4, 2, 2).repeat(4, 1, 1, 1).requires_grad_()
    y = minibatch_stddev(x)
    y.square().sum().backward()
    assert y[:, 4].max().item() == pytest.approx(1e-4, rel=1e-3)
    assert x.grad.isfinite().all()


def test_gradients_are_exact_twice():
    """A gradient penalty differentiates through all of them twice."""
    linear, conv = EqualLinear(3, 2, rate=0.5).double(), EqualConv2d(2, 3, 3, gain=2.0).double()
    x = torch.randn(4, 2, 2, 2, dtype=torch.double, requires_grad=True)
    for function in (
        conv,
        lambda x: linear(pixel_norm(conv(x))[:, :, 0, 0]),
        lambda x: minibatch_stddev(x, group=2, channels=2)[:, 2:].square(),
    ):
        torch.autograd.gradcheck(function, x)
        torch.autograd.gradgradcheck(function, x)


def test_channels_last_is_kept_forwards_and_backwards():
    """A single tensor in the other layout makes its neighbours many times slower."""
    look = EqualConv2d(1, 8, 1).to(memory_format=torch.channels_last)
    conv = EqualConv2d(8, 8, 3).to(memory_format=torch.channels_last)
    x = torch.randn(4, 1, 6, 6)
    layers = [look, pixel_norm, lambda x: F.leaky_relu(x, 0.2), conv, pixel_norm, minibatch_stddev]
    kept = []
    for layer in layers:
        x = layer(x)
        kept.append(x)
    gradients = torch.autograd.grad(x, kept, torch.randn_like(x))
    for value in [*kept, *gradients]:
        assert value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_single_pixels_is_one(layout):
    layer = EqualConv2d(5, 3, 1)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 4, 6).contiguous(memory_format=layout)
    expected = F.conv2d(x, layer.weight / math.sqrt(5), layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_copies_and_the_meta_device():
    layer = EqualConv2d(2, 3, 3)
    twin = copy.deepcopy(layer)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(layer(x), twin(x))
    with torch.device("meta"):
        made = EqualLinear(4, 4)(pixel_norm(torch.empty(2, 4)))
        maps = minibatch_stddev(EqualConv2d(2, 3, 3)(torch.empty(4, 2, 8, 8)))
    assert (made.device.type, maps.shape) == ("meta", (4, 4, 8, 8))
