"""What papers and courses say of the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faussaire.core.family import Pictures
from faussaire.families.classic import Classic, ClassicConfig
from faussaire.families.dcgan import DCGAN, DCGANConfig, doublings
from faussaire.nn.fused import BatchNormAct2d, UpConv2d

RGB64 = Pictures(channels=3, height=64, width=64)


def outputs(body: nn.Module, x: torch.Tensor, kind: tuple[type, ...]) -> list[tuple[int, ...]]:
    """Shapes (C, H, W) after each layer of these kinds."""
    seen: list[tuple[int, ...]] = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
        for layer in body.modules()
        if isinstance(layer, kind)
    ]
    body(x)
    for handle in handles:
        handle.remove()
    return seen


def test_the_classic_generator_is_the_textbooks():
    family = Classic(ClassicConfig(), RGB64)
    generator = family.nets["generator"]
    assert generator.project.weight.shape == (8192, 100)
    shapes = outputs(generator, torch.randn(2, 100), (UpConv2d, nn.Conv2d))
    assert shapes == [(256, 16, 16), (128, 32, 32), (64, 64, 64), (3, 64, 64)]
    assert generator.base == (128, 8, 8)
    probability = family.nets["discriminator"](torch.zeros(2, 3, 64, 64)).sigmoid()
    assert probability.shape == (2,)
    assert ((probability > 0) & (probability < 1)).all()


def test_the_paper_preset_of_dcgan_has_the_papers_widths():
    settings = {k: v for k, v in DCGAN.presets["paper"].items() if k != "batch"}
    family = DCGAN(DCGANConfig(**settings), RGB64)
    z = torch.rand(2, 100) * 2 - 1
    shapes = outputs(family.nets["generator"], z, (nn.ConvTranspose2d,))
    assert shapes == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]


def test_dcgans_guidelines():
    torch.manual_seed(0)
    family = DCGAN(DCGANConfig(), RGB64)
    generator, discriminator = family.nets.values()
    assert not any(isinstance(m, nn.Linear | nn.MaxPool2d) for m in generator.modules())
    assert not isinstance(list(generator.body)[-2], BatchNormAct2d)
    assert isinstance(list(generator.body)[-1], nn.Tanh)
    slopes = {m.negative_slope for m in discriminator.modules() if isinstance(m, BatchNormAct2d)}
    assert slopes == {0.2}
    for net in (generator, discriminator):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            if isinstance(layer, BatchNormAct2d):
                assert layer.weight.mean().item() == pytest.approx(1.0, abs=0.02)
    spec = family.optimisers()["generator"]
    assert (spec.lr, spec.betas) == (2e-4, (0.5, 0.999))


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (64, 48), (100, 75), (33, 128)])
def test_dcgan_takes_any_size(size):
    spec = Pictures(channels=1, height=size[0], width=size[1])
    family = DCGAN(DCGANConfig(width=4), spec)
    made = family.nets["generator"](torch.randn(2, 100))
    assert made.shape == (2, 1, *size)
    assert family.nets["discriminator"](made).shape == (2,)
    assert [doublings(s, s) for s in (16, 31, 32, 64, 128)] == [2, 2, 3, 4, 5]


def test_labels_reach_both_players():
    spec = Pictures(channels=1, height=16, width=16, classes=("a", "b", "c"))
    family = DCGAN(DCGANConfig(width=4, conditional=True), spec)
    generator, discriminator = family.nets.values()
    z = torch.randn(1, 100).expand(3, -1)
    x = torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1)
    made = generator.eval()(z, torch.eye(3))
    judged = discriminator.eval()(x, torch.eye(3))
    assert not torch.allclose(made[0], made[1])
    assert len(set(judged.tolist())) == 3
