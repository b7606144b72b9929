"""Holes: what is known stays, what networks are made of, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.core.batch import Batch, BatchDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.inpaint import (
    FourierGenerator,
    GatedConv,
    Inpaint,
    InpaintConfig,
    Spectrum,
    filled,
    without,
)
from faussaire.model import Model

SPEC = Pictures(channels=3, height=32, width=32, input_channels=4)
CLOCK = Clock(total=100)


def family(**settings) -> Inpaint:
    torch.manual_seed(0)
    settings = {"width": 4, "discriminator_width": 4, "blocks": 1, **settings}
    made = Inpaint(InpaintConfig(**settings), SPEC)
    for net in made.nets.values():
        net.eval()
    return made


@pytest.mark.parametrize("generator", ["fourier", "gated"])
@pytest.mark.parametrize("size", [(32, 32), (17, 45), (9, 70)])
def test_known_pixels_are_the_pictures_own(generator, size):
    x = torch.rand(2, 3, *size) * 2.0 - 1.0
    hole = torch.zeros(2, 1, *size)
    hole[:, :, 3:7, 2:9] = 1.0
    made = family(generator=generator)
    with torch.no_grad():
        y = made.apply(torch.cat([x, 2.0 * hole - 1.0], dim=1), None)
        blind = torch.where(hole > 0, 0.7, x)
        again = made.apply(torch.cat([blind, 2.0 * hole - 1.0], dim=1), None)
    outside = (hole == 0).expand_as(x)
    assert torch.equal(y[outside], x[outside])
    assert not torch.equal(y, x)
    assert torch.equal(y, again)  # what lies in the hole is not looked at


def test_a_spectrum_sees_all_places_and_is_precise_under_autocast():
    torch.manual_seed(0)
    layer = Spectrum(4).eval()
    x = torch.randn(1, 4, 12, 10, requires_grad=True)
    (pull,) = torch.autograd.grad(layer(x)[0, 0, 5, 5], x)
    assert (pull.abs().sum(dim=1) > 0).float().mean() > 0.95
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer(x), exact)
        # Of odd sides the inverse needs to be told.
        assert layer(torch.randn(1, 4, 7, 5)).shape == (1, 4, 7, 5)


def test_the_papers_sizes():
    """LaMa-Fourier has 27 M parameters (table 1 of the paper), without LaMa's discriminator."""
    net = FourierGenerator(3, 64, 9, 0.75)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(27e6, rel=0.02)


def test_gates_decide_what_passes():
    layer = GatedConv(2, 3)
    torch.nn.init.zeros_(layer.conv.weight)
    with torch.no_grad():
        layer.conv.bias.copy_(torch.tensor([1.0, 1.0, 1.0, -30.0, 0.0, 30.0]))
        y = layer(torch.randn(1, 2, 4, 4))
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_errors_are_told_apart_by_place():
    images = torch.rand(2, 3, 32, 32) * 2.0 - 1.0
    batch = Batch({"images": images}, BatchDraws(0, total=2, rows=slice(0, 2)), 2)
    made = family(lambda_gan=0.0, lambda_known=2.0, lambda_missing=3.0)
    x = made.inputs(batch)
    hole = (x[:, -1:] + 1.0) / 2.0
    assert torch.equal(x[:, :-1], images * (1.0 - hole))
    made.nets["generator"] = lambda x: (images + 0.1 * hole - 0.4 * (1.0 - hole),)
    terms = made.comparison(batch, filled(x, made.pictures(batch)[-1]), CLOCK)
    torch.testing.assert_close(terms["missing"], torch.tensor(0.3))
    torch.testing.assert_close(terms["known"], torch.tensor(0.8))


def test_masks_from_python(tmp_path):
    model = Model(family(), SPEC, 0, Device(name="cpu", precision="float32"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:20] = 255
    made = model.apply(pixels, mask=mask)
    assert np.array_equal(made[mask == 0], pixels[mask == 0])
    assert not np.array_equal(made, pixels)
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    assert np.array_equal(np.asarray(model.apply(Image.fromarray(pixels), mask=path)), made)
    with pytest.raises(UserError, match="nothing says where"):
        model.apply(pixels)
    with pytest.raises(UserError, match="10x10 pixels, and the picture 30x20"):
        model.apply(pixels, mask=np.zeros((10, 10), np.uint8))
    with pytest.raises(UserError, match="own size"):
        model.apply(pixels, mask=mask, work_resolution=64)
    # In tiles, too, only the hole changes.
    wide = torch.rand(1, 3, 64, 300)
    hole = torch.zeros(1, 1, 64, 300)
    hole[:, :, 20:40, 100:200] = 1.0
    tiled = model.apply(wide, mask=hole, tile=128)
    known = (hole == 0).expand_as(wide)
    torch.testing.assert_close(tiled[known], wide[known])


def test_without_and_filled():
    x = torch.ones(1, 2, 2, 2)
    hole = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    emptied = without(x, hole)
    assert emptied[0, 0].tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert emptied[0, 2].tolist() == [[1.0, -1.0], [-1.0, -1.0]]
    assert filled(emptied, 5.0 * x)[0, 1].tolist() == [[5.0, 1.0], [1.0, 1.0]]
