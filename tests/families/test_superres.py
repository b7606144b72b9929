"""Super-resolution: networks of known sizes, stages, other people's weights, use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import faussaire
from faussaire.application import Opened, answer
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device, precise
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.superres import RRDB, SRResNet, SuperRes, SuperResConfig, UNetDiscriminator
from faussaire.nn.degrade import enlarged

CPU = Device(name="cpu", precision="float32")
RGB = Pictures(channels=3, height=32, width=32, input_channels=3)


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def made(channels: int = 3, **settings) -> SuperRes:
    torch.manual_seed(0)
    small = {"width": 8, "blocks": 1, "grow": 4, "discriminator_width": 4, "perceptual": "none"}
    spec = Pictures(channels=channels, height=32, width=32, input_channels=channels)
    return SuperRes(SuperResConfig(**{**small, **settings}), spec)


def images(size: int = 32, channels: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(2, channels, size, size) * 2.0 - 1.0


def batch(x: torch.Tensor) -> Batch:
    draws = BatchDraws(0, total=len(x), rows=slice(0, len(x)))
    return Batch({"images": x}, draws, len(x))


def test_networks_are_as_large_as_those_of_the_papers():
    with torch.device("meta"):
        assert count(RRDB(3, 64, 23, 32, 4)) == 16_697_987  # ESRGAN's published weights
        assert count(RRDB(3, 64, 23, 32, 2, unshuffle=2)) == 16_703_171  # RealESRGAN_x2plus
        # SRGAN says 1.5 M; its 33 batch normalisations, 4,224 numbers, are left out here.
        srresnet = SRResNet(3, 64, 16, 4, kernel=9, steps=True)
        assert count(srresnet) == 1_545_238
        assert count(UNetDiscriminator(3, 64)) == 4_376_897  # Real-ESRGAN's


@pytest.mark.parametrize("net", ["srresnet", "rrdb"])
@pytest.mark.parametrize(("scale", "tail"), [(2, "direct"), (2, "steps"), (4, "steps")])
@pytest.mark.parametrize("size", [(9, 7), (16, 12)])
def test_any_picture_becomes_larger_by_the_scale_and_training_begins_at_bicubic(
    net, scale, tail, size
):
    x = torch.rand(1, 3, *size) * 2.0 - 1.0
    family = made(net=net, scale=scale, tail=tail)
    y = family.apply(x, RowDraws.counted(0, 1))
    torch.testing.assert_close(y, enlarged(x, scale).clamp(-1.0, 1.0), atol=1e-5, rtol=0)
    plain = made(net=net, scale=scale, tail=tail, residual=False).apply(x, RowDraws.counted(0, 1))
    assert plain.shape == (1, 3, scale * size[0], scale * size[1])
    assert not torch.allclose(plain, y)


def test_stages_and_rates():
    family = made(pixel_share=0.25)
    first, second = family.stages(1000)
    assert (first.name, first.until) == ("pixel", 250)
    assert [phase.nets for phase in first.phases] == [("generator",)]
    assert [phase.nets for phase in second.phases] == [("discriminator",), ("generator",)]
    rate = family.rate("generator")
    assert rate(Clock(examples=0, total=1000)) == pytest.approx(1e-3)
    assert rate(Clock(examples=249, total=1000)) == pytest.approx(1e-5, rel=0.01)
    assert rate(Clock(examples=250, total=1000)) == 1e-4
    (alone,) = made(lambda_gan=0.0).stages(1000)
    assert alone.until is None
    assert [phase.name for phase in alone.phases] == ["pixel"]
    assert made(lambda_gan=0.0).examined(batch(images()), Clock(examples=999, total=1000)) is None


@pytest.mark.parametrize("pixel", ["l1", "mse"])
def test_the_pixel_stage_lowers_what_it_says(pixel):
    family = made(pixel=pixel)
    x = images()
    (found,) = family.pixel_loss(batch(x), Clock()).values()
    with torch.no_grad():
        error = (family.made(batch(x), Clock()) - x) / 2.0
    expected = error.abs().mean() if pixel == "l1" else error.square().mean()
    torch.testing.assert_close(found, expected)


def test_terms_of_the_adversarial_stage_have_their_weights():
    family = made(lambda_pixel=3.0, lambda_gan=0.5, lambda_perceptual=2.0)
    family._eye = lambda fake, real: torch.tensor(0.25)
    x = images()
    terms = family.generator_loss(batch(x), Clock())
    assert terms.keys() == {"adversarial", "l1", "perceptual"}
    assert terms["perceptual"] == 0.5
    torch.testing.assert_close(terms["l1"], 3.0 * family.pixel_loss(batch(x), Clock())["l1"])
    whole = made(lambda_gan=1.0)
    whole.nets = family.nets
    full = whole.generator_loss(batch(x), Clock())["adversarial"]
    torch.testing.assert_close(terms["adversarial"], 0.5 * full)


def test_missing_weights_are_told_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("FAUSSAIRE_WEIGHTS", raising=False)
    for name in ("squeezenet1.1", "vgg19"):
        with pytest.raises(UserError, match="--perceptual none"):
            made(perceptual=name).optimisers()
        made(perceptual=name, lambda_gan=0.0).optimisers()  # which needs none


def test_a_size_that_does_not_divide_is_refused():
    spec = Pictures(channels=3, height=33, width=33, input_channels=3)
    with pytest.raises(UserError, match="that 2 divides"):
        SuperRes(SuperResConfig(perceptual="none"), spec)


def test_the_discriminator_judges_each_pixel_at_any_size():
    net = UNetDiscriminator(3, 4)
    assert net(torch.zeros(2, 3, 20, 30)).shape == (2, 1, 20, 30)


# ---- Use ----


def answered(family: SuperRes, opened: Opened, **how) -> Opened:
    for net in family.nets.values():
        net.eval()
    return answer(family, CPU, opened, **how)


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_are_the_whole_to_rounding(scale):
    family = made(scale=scale, blocks=2, residual=False, tail="steps", kernel=5)
    opened = Opened(torch.rand(1, 3, 190, 331) * 2.0 - 1.0, None, False)
    whole = answered(family, opened, tile=0).colour
    side = 4 * (32 + 2 * family.reach)
    assert side < 331
    tiles = answered(family, opened, tile=side).colour
    assert whole.shape == (1, 3, 190 * scale, 331 * scale)
    torch.testing.assert_close(tiles, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_stays_grey_deep_stays_deep_and_alpha_grows(channels):
    family = made(channels)
    for mode in ("L", "RGB", "RGBA"):
        image = Image.new(mode, (9, 7), 120 if mode == "L" else (10, 200, 30, 40)[: len(mode)])
        made_of = answered(family, Opened.of(image)).image()
        assert made_of.size == (18, 14)
        if mode == "L" or channels == 3:
            assert made_of.mode == mode
        if mode == "RGBA" and channels > 1:
            assert abs(made_of.getpixel((9, 7))[3] - 40) <= 1
    deep = torch.linspace(-1.0, 1.0, 63).view(1, 1, 7, 9)
    values = np.asarray(answered(family, Opened(deep, None, True)).image())
    assert values.dtype == np.uint16
    assert values.shape == (14, 18)
    assert len(np.unique(values)) > 200  # more than steps of 1/255 would give


# ---- Weights of others ----


def theirs(state: dict[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """Our names as each program has them."""
    doublings = sum(key.startswith("up.") and key.endswith("weight") for key in state)
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
    found = {}
    for key, value in state.items():
        stem, kind = key.rsplit(".", 1)
        part = stem.split(".")
        if layout == "basicsr":
            name = {"head": "conv_first", "bend": "conv_body", "fine": "conv_hr"}.get(stem)
            if part[0] == "body":
                name = f"body.{part[1]}.rdb{int(part[2]) + 1}.conv{int(part[4]) + 1}"
            up = "conv_up"
        elif layout == "second":
            name = {"head": "conv_first", "bend": "trunk_conv", "fine": "HRconv"}.get(stem)
            if part[0] == "body":
                name = f"RRDB_trunk.{part[1]}.RDB{int(part[2]) + 1}.conv{int(part[4]) + 1}"
            up = "upconv"
        else:
            end = 2 + 3 * doublings
            names = {"head": 0, "fine": end, "paint": end + 2}
            name = f"model.{names[stem]}" if stem in names else None
            if stem == "bend":
                name = f"model.1.sub.{blocks}"
            if part[0] == "body":
                name = f"model.1.sub.{part[1]}.RDB{int(part[2]) + 1}.conv{int(part[4]) + 1}.0"
            up = None
        if part[0] == "up":
            name = f"{up}{int(part[1]) + 1}" if up else f"model.{3 * (int(part[1]) + 1)}"
        if stem == "paint" and name is None:
            name = "conv_last"
        found[f"{name}.{kind}"] = value
    return found


@pytest.mark.parametrize("layout", ["basicsr", "second", "first"])
@pytest.mark.parametrize(("scale", "unshuffle"), [(4, 1), (2, 2), (2, 1)])
def test_published_weights_of_any_layout_are_read(layout, scale, unshuffle, tmp_path: Path):
    family = made(net="rrdb", scale=scale, unshuffle=unshuffle, blocks=2, residual=False)
    net = family.nets["generator"].eval()
    state = theirs(net.state_dict(), layout)
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    other = tmp_path / "model.pth"
    torch.save({"params": {}, "params_ema": {k: v.half() for k, v in state.items()}}, other)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 13, 3), np.uint8))
    x = Opened.of(picture).colour
    with torch.no_grad():
        expected = net(x)
    for path, error in ((file, 1e-5), (other, 0.02)):  # the second in half precision
        model = faussaire.load(path, device="cpu")
        assert isinstance(model.family, SuperRes)
        assert (model.family.scale, model.family.config.blocks) == (scale, 2)
        with torch.no_grad(), precise():
            found = model.family.apply(x, RowDraws.counted(0, 1))
        torch.testing.assert_close(found, expected.clamp(-1, 1), atol=error, rtol=0)
        assert model.apply(picture).size == (13 * scale, 10 * scale)


def test_weights_of_other_networks_are_refused(tmp_path: Path):
    good = theirs(made(net="rrdb", scale=4).nets["generator"].state_dict(), "basicsr")
    cases = {
        "holds 'strange.weight'": {**good, "strange.weight": torch.zeros(1)},
        "has no layer": {k: v for k, v in good.items() if not k.startswith("conv_last")},
        "missing": {k: v for k, v in good.items() if not k.startswith("conv_hr")},
        "enlarges by 8": {
            **good,
            "conv_up3.weight": good["conv_up2.weight"].clone(),
            "conv_up3.bias": good["conv_up2.bias"].clone(),
        },
    }
    for words, state in cases.items():
        path = tmp_path / "file.safetensors"
        save_file(state, path)
        with pytest.raises(UserError, match=words):
            faussaire.load(path, device="cpu")
