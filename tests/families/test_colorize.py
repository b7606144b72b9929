"""Colour for grey pictures: lightness stays, colour does not leak in, any size and kind of file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.application import Opened
from faussaire.core.batch import Batch, BatchDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.colorize import (
    Colorize,
    ColorizeConfig,
    guided,
    normalised,
    resized,
    restored,
)
from faussaire.metrics.paired import colourfulness
from faussaire.model import Model
from faussaire.nn.lab import in_gamut, lab_to_rgb, rgb_to_lab

SPEC = Pictures(channels=3, height=32, width=32, input_channels=1)
CLOCK = Clock(total=100)


def family(**settings) -> Colorize:
    torch.manual_seed(0)
    made = Colorize(ColorizeConfig(width=4, **settings), SPEC)
    # As it begins it would make next to no colour.
    torch.nn.init.normal_(made.nets["generator"].paint.weight, std=0.5)
    for net in made.nets.values():
        net.eval()
    return made


def batch(images: torch.Tensor) -> Batch:
    count = len(images)
    return Batch({"images": images}, BatchDraws(0, total=count, rows=slice(0, count)), count)


def test_lightness_is_the_pictures_own_in_full_resolution():
    x = torch.rand(1, 3, 45, 70) * 2.0 - 1.0
    with torch.no_grad():
        y = family().apply(x, None)
    assert y.shape == x.shape
    assert colourfulness(y) > 5.0
    lightness = [rgb_to_lab(picture)[:, 0] for picture in (x, y)]
    torch.testing.assert_close(lightness[1], lightness[0], atol=0.1, rtol=0)


def test_the_inputs_colours_are_not_looked_at():
    x = torch.rand(1, 3, 32, 40) * 2.0 - 1.0
    lab = rgb_to_lab(x)
    grey = lab_to_rgb(torch.cat([lab[:, :1], 0.0 * lab[:, 1:]], dim=1))
    other = lab_to_rgb(in_gamut(torch.cat([lab[:, :1], -lab[:, 1:]], dim=1)))
    made = family()
    with torch.no_grad():
        colours = [made.apply(picture, None) for picture in (x, grey, other)]
    torch.testing.assert_close(colours[1], colours[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(colours[2], colours[0], atol=1e-2, rtol=0)
    inputs = made.inputs(batch(x))
    assert inputs.shape[1] == 1
    torch.testing.assert_close(inputs, made.inputs(batch(grey)), atol=1e-5, rtol=0)


def test_the_working_size():
    assert family().working_size(480, 320) == (48, 32)
    assert family(work_resolution=64).working_size(480, 320) == (96, 64)
    assert family(work_resolution=0).working_size(480, 321) == (480, 321)


def test_the_term_against_brown_ends_where_results_are_colourful_enough():
    torch.manual_seed(1)
    real = torch.rand(4, 3, 32, 32) * 2.0 - 1.0
    made = family(vivid=0.5)
    lab = normalised(rgb_to_lab(real))
    duller = torch.cat([lab[:, :1], 0.1 * lab[:, 1:]], dim=1).requires_grad_()
    dull = made.comparison(batch(real), duller, CLOCK)
    assert dull["colour"] > 0.6 * made.config.lambda_colour
    (pull,) = torch.autograd.grad(dull["colour"], duller)
    assert pull[:, 1:].abs().sum() > 0.0
    assert made.comparison(batch(real), lab, CLOCK)["colour"] == 0.0
    assert made.comparison(batch(real), lab, CLOCK)["l1"] == 0.0
    # Without any colour there is a gradient, too, and not an infinite one.
    grey = torch.cat([lab[:, :1], 0.0 * lab[:, 1:]], dim=1).requires_grad_()
    made.comparison(batch(real), grey, CLOCK)["colour"].backward()
    assert grey.grad.isfinite().all()


def test_colours_are_enlarged_along_edges():
    light = torch.full((1, 1, 80, 80), -0.6)
    light[..., 43:] = 0.6  # an edge that the small picture has not where it is
    small = resized(light, (16, 16))
    torch.manual_seed(0)
    colours = torch.cat([0.5 * small.sign(), -0.3 * small.sign()], dim=1)
    colours = colours + 0.1 * torch.randn_like(colours)
    wanted = torch.cat([0.5 * light.sign(), -0.3 * light.sign()], dim=1)
    errors = [
        (guided(colours, small, light, radius) - wanted).abs()[..., 38:48].mean()
        for radius in (2, 0)
    ]
    assert errors[0] < 0.6 * errors[1]
    even = torch.full((1, 2, 16, 16), 0.25)
    torch.testing.assert_close(guided(even, small, light, 2), torch.full((1, 2, 80, 80), 0.25))


def test_lab_in_the_range_of_networks_and_back():
    lab = rgb_to_lab(torch.rand(2, 3, 8, 8) * 2.0 - 1.0)
    assert normalised(lab).abs().max() <= 1.0
    torch.testing.assert_close(restored(normalised(lab)), lab, atol=1e-4, rtol=0)


def test_grey_pictures_teach_no_colour():
    with pytest.raises(UserError, match="these are grey"):
        Colorize(ColorizeConfig(), Pictures(channels=1, height=32, width=32, input_channels=1))


def test_every_kind_of_picture_is_coloured_in_its_size(tmp_path):
    model = Model(family(), SPEC, 0, Device(name="cpu", precision="float32"))
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (21, 35), np.uint8)
    made = model.apply(Image.fromarray(grey))
    assert (made.mode, made.size) == ("RGB", (35, 21))
    clear = np.dstack([grey, grey, grey, 255 - grey])
    made = model.apply(clear)
    assert made.shape == (21, 35, 4)
    assert np.array_equal(made[..., 3], 255 - grey)
    deep = tmp_path / "deep.png"
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep)
    made = model.answer(Opened.read(deep))
    assert torch.equal(made.colour, model.answer(Opened.of(Image.fromarray(grey))).colour)
    # Large pictures are seen whole: in tiles colours would not agree.
    wide = torch.rand(1, 3, 600, 1900)
    sizes = []
    forward = model.family.nets["generator"].forward
    model.family.nets["generator"].forward = lambda x: sizes.append(x.shape[2:]) or forward(x)
    assert model.apply(wide).shape == wide.shape
    assert sizes == [(32, 101)]
    assert model.apply(wide, work_resolution=16).shape == wide.shape
    assert sizes[1] == (16, 51)
