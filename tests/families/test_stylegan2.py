"""What the papers say of StyleGAN2, and what its parts are by definition."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.optim import Adam, lazy_correction
from faussaire.families.stylegan2 import (
    Halving,
    LatentMapping,
    ModulatedConv2d,
    StyledLayer,
    StyleGAN2,
    StyleGAN2Config,
    Synthesis,
    demodulation,
    levels,
)
from faussaire.nn.equal import EqualConv2d, EqualLinear
from faussaire.nn.resample import upsample_conv

RGB32 = Pictures(channels=3, height=32, width=32)
GAME: dict[str, Any] = {"noise": True, "mixing": 0.9, "path_length": 2.0, "lr": 0.0025}
TINY: dict[str, Any] = {"latent": 8, "style": 8, "width": 16, "max_width": 8, **GAME}
OWN = {field.name for field in dataclasses.fields(StyleGAN2Config)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def config(preset: str, **changed: Any) -> StyleGAN2Config:
    """A preset without its training settings."""
    settings = {name: value for name, value in StyleGAN2.presets[preset].items() if name in OWN}
    return StyleGAN2Config(**{**settings, **changed})


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def square(side: int) -> Pictures:
    return Pictures(channels=3, height=side, width=side)


def players(settings: StyleGAN2Config, spec: Pictures) -> tuple[int, int]:
    """Parameters of generator and discriminator."""
    with torch.device("meta"):
        nets = StyleGAN2(settings, spec).nets
    return count(nets["mapping"], nets["synthesis"]), count(nets["discriminator"])


def batch(family: StyleGAN2, rows: int = 4, seed: int = 3) -> Batch:
    images = torch.rand(rows, *family.spec.shape) * 2 - 1
    labels = torch.arange(rows) % max(1, len(family.spec.classes))
    draws = BatchDraws(seed, total=rows, rows=slice(0, rows))
    return Batch({"images": images, "labels": labels}, draws, rows)


# ---- Facts of the papers ----


def test_the_papers_networks_at_1024_have_the_papers_sizes():
    """Section 4.1 of 1912.04958: twice the features takes G from 25M to 30M and D from 24M to 29M.

    To the last parameter these are the sums of the layers in the tables of the released models.
    """
    assert players(config("paper"), square(1024)) == (30_370_060, 29_012_513)
    narrow = players(config("paper", width=4096), square(1024))
    assert [round(parameters / 1e6) for parameters in narrow] == [25, 24]


def test_layers_at_1024():
    with torch.device("meta"):
        family = StyleGAN2(config("paper"), square(1024))
    mapping, synthesis, discriminator = family.nets.values()
    assert isinstance(synthesis, Synthesis)
    assert levels(family.config, family.spec) == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert synthesis.styles == 18
    assert synthesis.constant.shape == (1, 512, 4, 4)
    sides = [side for side, _ in synthesis.noise_sizes]
    assert sides == [4, *(2**power for power in range(3, 11) for _ in range(2))]
    dense = [m.weight.shape for m in mapping.modules() if isinstance(m, EqualLinear)]
    assert dense == [(512, 512)] * 8
    convolutions = [m for m in discriminator.modules() if isinstance(m, EqualConv2d)]
    assert convolutions[-1].weight.shape == (512, 513, 3, 3)


def test_optimisers_and_rounds_are_the_papers():
    family = StyleGAN2(StyleGAN2Config(**GAME), RGB32)
    spec = family.optimisers()["synthesis"]
    assert isinstance(spec, Adam)
    assert (spec.lr, spec.betas, spec.eps) == (0.0025, (0.0, 0.99), 1e-8)
    stages = family.stages(1000)
    rounds = {phase.name: (phase.every, phase.nets) for phase in stages[0].phases}
    players = ("mapping", "synthesis")
    assert rounds == {
        "discriminator": (1, ("discriminator",)),
        "penalty": (16, ("discriminator",)),
        "generator": (1, players),
        "path": (4, players),
    }
    # Appendix B: k / (k + 1).
    assert lazy_correction(["discriminator"], stages) == pytest.approx(16 / 17)
    assert lazy_correction(["mapping"], stages) == pytest.approx(4 / 5)


def test_without_path_length_its_phase_and_its_state_are_gone():
    family = StyleGAN2(StyleGAN2Config(**{**TINY, "path_length": 0.0}, augment="none"), RGB32)
    assert [phase.name for phase in family.phases()] == ["discriminator", "penalty", "generator"]
    assert family.extra_state() == {}


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_large_sizes_play_the_papers_game(size):
    assert {**GAME, "r1": None}.items() <= StyleGAN2.sizes[size].items()


def test_gamma_follows_pixels_and_batch():
    """ADA's released rule gives 0.82 for 256 pixels and a batch of 16."""
    with torch.device("meta"):
        family = StyleGAN2(StyleGAN2Config(**TINY, r1=None), square(256))
    family._rows = 16
    assert family.r1 == pytest.approx(0.8192)
    small = StyleGAN2(StyleGAN2Config(**TINY, r1=None), RGB32)
    small.discriminator_loss(batch(small, rows=8), Clock())
    assert small.r1 == pytest.approx(2e-4 * 32 * 32 / 8)
    assert StyleGAN2(StyleGAN2Config(**TINY), RGB32).r1 == 1.0


# ---- Modulated convolution ----


def defined(layer: ModulatedConv2d, x: Tensor, w: Tensor) -> Tensor:
    """Equations 1 and 3 as they stand: a kernel for each picture."""
    scales = layer.affine(w)
    made = []
    for picture, scale in zip(x, scales, strict=True):
        along = (-1, 1, 1, 1) if layer.grow else (1, -1, 1, 1)
        kernel = layer.weight * layer.scale * scale.view(along)
        if layer.demodulate:
            summed = (0, 2, 3) if layer.grow else (1, 2, 3)
            kernel = kernel * (kernel.square().sum(summed, keepdim=True) + 1e-8).rsqrt()
        if layer.grow:
            made.append(upsample_conv(picture[None], kernel))
        else:
            made.append(F.conv2d(picture[None], kernel, padding=layer.weight.shape[-1] // 2))
    return torch.cat(made)


@pytest.mark.parametrize("grow", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_is_a_kernel_for_each_picture(grow, demodulate):
    layer = ModulatedConv2d(6, 5, 3, 4, grow=grow, demodulate=demodulate).double()
    x = torch.randn(3, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y, factor = layer(x, w)
    assert (factor is None) is not demodulate
    if factor is not None:
        y = y * factor[:, :, None, None]
    expected = defined(layer, x, w)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    inputs = [x, w, *layer.parameters()]
    direction = torch.randn_like(y)
    for mine, other in zip(
        torch.autograd.grad((y * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-9, rtol=1e-9)


def test_demodulated_kernels_have_unit_norm_whatever_the_style():
    weight, scales = torch.randn(7, 5, 3, 3), 10 * torch.randn(4, 5)
    kernels = weight[None] * scales[:, None, :, None, None]
    norms = (kernels * demodulation(weight, scales)[:, :, None, None, None]).square().sum((2, 3, 4))
    torch.testing.assert_close(norms, torch.ones_like(norms))


# ---- Initial statistics ----


@pytest.mark.parametrize(
    ("grow", "kept"),
    # Growing white noise: along each side a pixel is 3/4 of one and 1/4 of another.
    [(False, 1.0), (True, (10 / 16) ** 2)],
)
def test_a_layer_keeps_the_mean_square_that_its_filter_leaves(grow, kept):
    layer = StyledLayer(128, 128, StyleGAN2Config(), grow=grow)
    with torch.no_grad():
        made = layer(torch.randn(4, 128, 32, 32), torch.randn(4, 256), None)
    inside = made[:, :, 2:-2, 2:-2]
    # 2 E[leaky(a)^2] = 1.04 E[a^2] for a normal a.
    assert inside.square().mean().item() == pytest.approx(1.04 * kept, rel=0.1)


@pytest.mark.parametrize("residual", [True, False])
def test_a_halving_keeps_the_mean_square_of_what_its_filter_passes(residual):
    found = []
    for _ in range(12):  # one layer's varies by a tenth with its weights
        layer = Halving(64, 64, residual=residual)
        with torch.no_grad():
            made = layer(torch.randn(32, 64, 1, 1).expand(-1, -1, 16, 16))[:, :, 2:-2, 2:-2]
        found.append(made.square().mean().item())
    assert sum(found) / len(found) == pytest.approx(1.04, rel=0.1)


def test_weights_begin_normal_styles_at_one_noise_at_zero():
    family = StyleGAN2(StyleGAN2Config(**GAME, width=256), RGB32)
    for module in family.nets["synthesis"].modules():
        if isinstance(module, ModulatedConv2d):
            assert module.weight.std().item() == pytest.approx(1.0, rel=0.1)
            bias = module.affine.bias
            assert bias is not None
            assert bias.eq(1.0).all()
        if isinstance(module, StyledLayer):
            assert module.strength is not None
            assert module.strength.item() == 0.0
    for module in family.nets["mapping"].modules():
        if isinstance(module, EqualLinear):
            assert module.weight.std().item() == pytest.approx(100.0, rel=0.05)  # a rate of 0.01
    w = family.nets["mapping"](torch.randn(256, 256))
    assert w.square().mean().item() == pytest.approx(1.0, rel=0.2)


# ---- Path length ----


class LinearMapping(nn.Module):
    """w = z."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.one * z


class LinearSynthesis(nn.Module):
    """g(w) = sum_l A_l w_l: its Jacobian is A everywhere."""

    def __init__(self, styles: int, style: int, spec: Pictures) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(styles, math.prod(spec.shape), style))
        self.spec = spec

    def forward(self, w: Tensor, noise: Tensor | None) -> Tensor:
        return torch.einsum("lps,nls->np", self.maps, w).unflatten(1, self.spec.shape)


def test_path_length_of_a_linear_generator():
    spec = Pictures(channels=2, height=16, width=24)
    family = StyleGAN2(StyleGAN2Config(**{**TINY, "noise": False}, path_decay=0.25), spec)
    linear = LinearSynthesis(family.styles, 8, spec)
    family.nets |= {"mapping": LinearMapping(), "synthesis": linear}
    terms = family.path_loss(batch(family, rows=6, seed=11), Clock())

    draws = BatchDraws(11, total=6, rows=slice(0, 6))
    family.latents(draws)
    direction = draws.normal(2, 16, 24)[::2].flatten(1) / math.sqrt(16 * 24)
    pulled = torch.einsum("np,lps->nls", direction, linear.maps)
    lengths = pulled.square().sum(2).mean(1).sqrt()
    mean = 0.25 * lengths.mean()  # the mean begins at 0
    torch.testing.assert_close(family.mean_path, mean.detach(), rtol=1e-5, atol=1e-5)
    expected = 2.0 * (lengths - mean.detach()).square().mean()
    torch.testing.assert_close(terms["length"], expected, rtol=1e-4, atol=1e-4)
    (mine,) = torch.autograd.grad(terms["length"], linear.maps)
    (other,) = torch.autograd.grad(expected, linear.maps)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_path_weight_is_the_papers():
    """Appendix B's weight on lengths of the whole w against ours on root mean squares over layers."""
    for power in (6, 8, 10):
        side = 2**power
        with torch.device("meta"):
            family = StyleGAN2(StyleGAN2Config(**TINY), square(side))
        paper = math.log(2) / (side**2 * (math.log(side) - math.log(2)))
        ours = family.config.path_length / (side**2 * family.styles)
        assert ours == pytest.approx(paper)


# ---- Mean w, truncation, mixing, noise ----


def test_the_mean_w_follows_what_training_makes():
    family = StyleGAN2(StyleGAN2Config(**TINY), RGB32)
    mapping = family.nets["mapping"]
    expected = torch.zeros(8)
    for seed in range(3):
        draws = BatchDraws(seed, total=4, rows=slice(0, 4))
        family.made(Batch({}, draws, 4), Clock())
        z = family.latents(BatchDraws(seed, total=4, rows=slice(0, 4)))
        expected = 0.998 * expected + 0.002 * mapping(z).mean(0).detach()
        torch.testing.assert_close(mapping.mean, expected)


def test_truncation_draws_pictures_towards_the_mean():
    family = StyleGAN2(StyleGAN2Config(**TINY), RGB32)
    mapping = family.nets["mapping"]
    assert isinstance(mapping, LatentMapping)
    mapping.mean.copy_(torch.randn(8))
    z, draws = torch.randn(3, 8), RowDraws.counted(0, 3)
    with torch.no_grad():
        none, whole, half, one = (
            family.sample(draws, latents=z, truncation=psi) for psi in (None, 1.0, 0.5, 0.0)
        )
        middle = family.nets["synthesis"](0.5 * (mapping.mean + mapping(z)))
    torch.testing.assert_close(none, whole)
    torch.testing.assert_close(half, middle.clamp(-1, 1))  # the strength of noise begins at 0
    torch.testing.assert_close(one, one[:1].expand_as(one))
    assert (whole[0] - whole[1]).abs().max() > 0.01


def test_mixed_styles_begin_with_one_latent_and_end_with_the_other():
    family = StyleGAN2(StyleGAN2Config(**TINY), RGB32)
    rows = 4000
    w, other = torch.zeros(rows, 8), torch.ones(rows, 8)
    styles = family.mixed(w, other, BatchDraws(0, total=rows, rows=slice(0, rows)))
    assert styles.shape == (rows, 8, 8)  # 2 log2(32) - 2 styles
    first = styles[:, :, 0]
    assert first[:, 0].eq(0).all()
    assert (first.diff(dim=1) >= 0).all()
    share = (first[:, -1] == 1).float().mean()
    assert share.item() == pytest.approx(0.9, abs=0.02)
    own = (first == 0).sum(1)[first[:, -1] == 1]
    assert set(own.tolist()) == set(range(1, 8))


def test_noise_is_fixed_where_latents_are_given():
    family = StyleGAN2(StyleGAN2Config(**TINY), RGB32)
    for layer in family.nets["synthesis"].modules():
        if isinstance(layer, StyledLayer) and layer.strength is not None:
            nn.init.constant_(layer.strength, 0.5)
    z = torch.randn(1, 8).expand(2, -1)
    with torch.no_grad():
        given = family.sample(RowDraws.counted(5, 2), latents=z)
        free = family.sample(RowDraws.counted(5, 2))
        again = family.sample(RowDraws.counted(6, 2), latents=z)
    torch.testing.assert_close(given[0], given[1])
    torch.testing.assert_close(given, again)
    assert (free[0] - free[1]).abs().max() > 0.01


def test_conditions_reach_both_players():
    spec = Pictures(channels=1, height=16, width=16, classes=("a", "b", "c"))
    family = StyleGAN2(StyleGAN2Config(**TINY, conditional=True), spec)
    z = torch.randn(1, 8).expand(3, -1)
    classes = torch.eye(3)
    styles = family.nets["mapping"](z, classes)
    assert (styles[0] - styles[1]).abs().max() > 0.01
    x = torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1)
    logits = family.nets["discriminator"](x, classes)
    assert logits.shape == (3,)
    assert (logits[0] - logits[1]).abs() > 1e-4


@pytest.mark.parametrize("critic", ["residual", "plain"])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (64, 48), (33, 128)], ids=str)
def test_any_size(critic, size):
    spec = Pictures(channels=4, height=size[0], width=size[1])
    family = StyleGAN2(StyleGAN2Config(**TINY, critic=critic), spec)
    made = family.sample(RowDraws.counted(0, 2))
    assert made.shape == (2, 4, *size)
    assert family.nets["discriminator"](made).shape == (2,)


def test_pictures_below_16_pixels_are_refused():
    with pytest.raises(UserError, match="at least 16x16, not 8x20"):
        StyleGAN2(StyleGAN2Config(), Pictures(channels=1, height=20, width=8))
