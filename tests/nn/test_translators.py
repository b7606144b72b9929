"""Layers and networks of families that turn pictures into pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faussaire.core.batch import RowDraws
from faussaire.nn import degrade, fused
from faussaire.nn.fused import InstanceNormAct2d
from faussaire.nn.patch import PatchDiscriminator, fitting_halvings
from faussaire.nn.unet import NEARLY, UNet, fitting_unet


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_instance_norm_is_torchs_and_has_its_gradients(slope):
    torch.manual_seed(0)
    x = torch.randn(3, 16, 5, 7, dtype=torch.float32, requires_grad=True)
    layer = InstanceNormAct2d(16, slope)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    expected = torch.nn.functional.instance_norm(x, weight=layer.weight, bias=layer.bias)
    expected = torch.nn.functional.leaky_relu(expected, slope) if slope < 1.0 else expected
    found = layer(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    wanted = (x, layer.weight, layer.bias)
    pull = torch.randn_like(found)
    for one, two in zip(
        torch.autograd.grad(found, wanted, pull),
        torch.autograd.grad(expected, wanted, pull),
        strict=True,
    ):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_the_fast_instance_norm_is_the_plain_one_to_bf16(monkeypatch):
    torch.manual_seed(0)
    layer = InstanceNormAct2d(32, 0.2)
    x = torch.randn(3, 32, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    if not fused._norm_is_fast(x, layer.weight):
        pytest.skip("no fast kernels on this machine")
    ends = []
    for quick in (True, False):
        monkeypatch.setattr(fused, "enabled", quick)
        row = x.clone().requires_grad_()
        y = layer(row)
        assert y.is_contiguous(memory_format=torch.channels_last)
        ends.append((y, *torch.autograd.grad(y.float().square().sum(), [row, *layer.parameters()])))
    for one, two in zip(*ends, strict=True):
        error = (one.float() - two.float()).norm() / two.float().norm()
        assert error < 0.01


def test_a_picture_is_normalised_alone():
    layer = InstanceNormAct2d(16)
    x = torch.randn(4, 16, 6, 6)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


@pytest.mark.parametrize(("halvings", "reach"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_patches_are_as_large_as_the_paper_says(halvings, reach):
    """The pixels on which one logit in the middle depends."""
    torch.manual_seed(0)
    net = PatchDiscriminator(1, 0, 4, halvings, norm=False)
    x = torch.zeros(1, 1, 256, 256, requires_grad=True)
    logits = net(x)
    middle = logits.shape[2] // 2
    (found,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows = found[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == reach


@pytest.mark.parametrize("side", [16, 17, 31, 32, 64, 100, 128, 256])
def test_small_pictures_get_discriminators_that_fit(side):
    net = PatchDiscriminator(3, 3, 4, fitting_halvings(side, 3))
    x = torch.zeros(1, 3, side, side)
    assert min(net(x, x).shape[2:]) >= 1


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 16), (64, 48)])
def test_a_unet_answers_in_the_same_size(size):
    halvings = fitting_unet(*size)
    net = UNet(2, 3, 4, halvings)
    draws = RowDraws.counted(0, 2)
    x = torch.randn(2, 2, *size)
    noise = net.noise(draws, *size)
    y = net(x, noise)
    assert y.shape == (2, 3, *size)
    assert not torch.equal(y, net(x, net.noise(RowDraws.counted(1, 2), *size)))
    # Dropout of one half keeps the mean: about half of the values pass, doubled.
    kept = torch.cat([(part >= 0.5).float().flatten() for part in noise])
    assert 0.2 < kept.mean() < 0.8


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (1, 3), (4, 3)])
def test_a_direct_unet_begins_as_a_copy(inputs: int, outputs: int):
    net = UNet(inputs, outputs, 4, 3, direct=True).eval()
    torch.nn.init.zeros_(net.paint.weight)  # pyright: ignore[reportArgumentType]
    x = torch.rand(2, inputs, 20, 28) * 2.0 - 1.0
    with torch.no_grad():
        made = net(x)
    wanted = x.expand(-1, outputs, -1, -1) if inputs == 1 else x[:, :outputs]
    assert made.shape == (2, outputs, 20, 28)
    # Its ends are not reached at first: there tanh would pass no gradient.
    torch.testing.assert_close(made, wanted.clamp(-NEARLY, NEARLY), atol=1e-5, rtol=0)


def test_the_papers_unet():
    """54.4 M numbers: the authors' network for 256 pixels and three channels."""
    net = UNet(3, 3, 64, 8)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(54.41e6, rel=1e-3)
    judge = PatchDiscriminator(3, 3, 64, 3)
    assert sum(p.numel() for p in judge.parameters()) == pytest.approx(2.769e6, rel=1e-3)


def test_what_is_left_of_a_picture():
    x = torch.full((2, 3, 32, 32), -0.5)
    x[:, :, :, 16:] = 0.9
    draws = RowDraws.counted(0, 2)
    lines = degrade.degraded("edges", x, draws)
    assert lines.shape == (2, 1, 32, 32)
    assert (lines[:, :, :, 15:17] < 0.0).all()  # dark where it changes
    assert (lines[:, :, :, :12] > 0.999).all()
    assert (lines[:, :, :, 20:] > 0.999).all()
    torch.testing.assert_close(degrade.degraded("grey", x, draws), x[:, :1])
    small = degrade.degraded("small", x, draws)
    assert small.shape == x.shape
    torch.testing.assert_close(small[:, :, 8:24, :8], x[:, :, 8:24, :8], atol=0.05, rtol=0)


def test_holes_cover_some_and_never_all():
    holes = degrade.boxes(RowDraws.counted(0, 200), 32, 24)
    assert holes.shape == (200, 1, 32, 24)
    share = holes.mean(dim=(1, 2, 3))
    assert set(holes.unique().tolist()) == {0.0, 1.0}
    assert share.min() > 0.005
    assert share.max() < 0.75
    masked = degrade.degraded("mask", torch.ones(200, 3, 32, 24), RowDraws.counted(0, 200))
    assert torch.equal((masked[:, 3:] + 1.0) / 2.0, holes)
    assert (masked[:, :3][holes.expand(-1, 3, -1, -1) == 1.0] == 0.0).all()


def test_the_fast_instance_norm_has_second_derivatives():
    torch.manual_seed(0)
    layer = InstanceNormAct2d(16, 0.2)
    x = torch.randn(2, 16, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    if not fused._norm_is_fast(x, layer.weight):
        pytest.skip("no fast kernels on this machine")
    x.requires_grad_()
    (slope,) = torch.autograd.grad(layer(x).float().square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.float().square().sum(), x)
    assert torch.isfinite(second.float()).all()
    assert second.abs().max() > 0
