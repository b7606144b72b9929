"""FastGAN's networks against the paper and its released code, and the rules of its game."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.optim import Adam
from faussaire.families.fastgan import (
    Discriminator,
    Excitation,
    FastGAN,
    FastGANConfig,
    Gate,
    Generator,
    Look,
    Noise,
    ProjectedDiscriminator,
    Pyramid,
    quarter,
)
from faussaire.nn.fused import BatchNormAct2d

CLOCK = Clock(total=100)


def square(side: int, channels: int = 3) -> Pictures:
    return Pictures(channels=channels, height=side, width=side)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def tiny(side: int = 32, **settings) -> FastGAN:
    torch.manual_seed(0)
    return FastGAN(FastGANConfig(**{"width": 4, "latent": 8, **settings}), square(side))


def players(family: FastGAN) -> tuple[Generator, Discriminator]:
    generator, discriminator = family.nets.values()
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    return generator, discriminator


def a_batch(family: FastGAN, count: int = 4) -> Batch:
    images = torch.rand(count, *family.spec.shape, generator=torch.Generator().manual_seed(2)) * 2
    return Batch({"images": images - 1}, BatchDraws(3, total=count, rows=slice(0, count)), count)


def conv(low: int, high: int, side: int = 3) -> int:
    return low * high * side * side


def test_the_papers_generator_at_256():
    """Counted from the table of layers: convolutions without bias, a gain and a bias for each norm."""
    with torch.device("meta"):
        net = FastGAN(FastGANConfig(width=64), square(256)).nets["generator"]
    widths = [1024, 512, 256, 128, 128, 64, 32]  # at 4, 8, ... 256 pixels
    count = 256 * 2048 * 16 + 2 * 2048
    for step in range(6):
        low, high = widths[step : step + 2]
        count += conv(low, 2 * high) + 4 * high
        if step % 2 == 0:
            count += conv(high, 2 * high) + 4 * high + 2  # and two strengths of noise
    for low, high in ((1024, 128), (512, 64), (256, 32)):  # 4 gates 64, 8 gates 128, 16 gates 256
        count += conv(low, high, 4) + conv(high, high, 1)
    count += conv(64, 3, 1) + conv(32, 3)  # pictures of 128 and 256 pixels
    assert parameters(net) == count
    assert count == 29_127_846  # 29.1 million


def test_the_papers_discriminator_at_256():
    with torch.device("meta"):
        net = FastGAN(FastGANConfig(width=64), square(256)).nets["discriminator"]
    widths = [16, 32, 64, 128, 256, 512]  # at 256, 128, ... 8 pixels
    count = conv(3, 16)
    for low, high in pairwise(widths):
        count += conv(low, high, 4) + conv(high, high) + conv(low, high, 1) + 6 * high
    for low, high in ((16, 128), (32, 256), (64, 512)):
        count += conv(low, high, 4) + conv(high, high, 1)
    count += conv(512, 256, 1) + 2 * 256 + conv(256, 1, 4)
    small = [32, 64, 128, 256]  # of the copy of 128 pixels, at 64, ... 8
    count += conv(3, 32, 4) + conv(256, 1, 4)
    for low, high in pairwise(small):
        count += conv(low, high, 4) + 2 * high
    for start in (512, 256, 256):  # decoders from 8 pixels to 128
        decoder = [start, 128, 64, 64, 32]
        for low, high in pairwise(decoder):
            count += conv(low, 2 * high) + 4 * high
        count += conv(32, 3)
    assert parameters(net) == count


@pytest.mark.parametrize(
    ("side", "logits", "rebuilt", "skips"),
    [(256, 50, 128, 3), (512, 50, 128, 4), (64, 50, 32, 1), (32, 50, 16, 1)],
)
def test_sizes_of_what_the_players_make(side, logits, rebuilt, skips):
    family = tiny(side)
    generator, discriminator = players(family)
    noise = [torch.empty(2, *shape).normal_() for shape in family.noise_shapes]
    large, small = generator(torch.randn(2, 8), None, noise, small=True)
    judged, *decoded = discriminator((large, small), None, torch.tensor([0, 3]))
    assert large.shape == (2, 3, side, side)
    assert small.shape == (2, 3, *family.small_size) == (2, 3, *[min(128, side // 2)] * 2)
    assert judged.shape == (2, logits)  # 5x5 windows of either branch
    assert [tuple(x.shape) for x in decoded] == [(2, 3, rebuilt, rebuilt)] * 3
    assert len(generator.skips) == skips


def test_at_512_and_above_the_discriminator_halves_on_its_way_in():
    """The 256-pixel nets stay as they are; at 1024 a layer of 8 channels comes before."""
    with torch.device("meta"):
        bodies = {
            side: players(FastGAN(FastGANConfig(width=64), square(side)))[1]
            for side in (256, 512, 1024)
        }
    counts = {side: parameters(net) for side, net in bodies.items()}
    assert counts[512] - counts[256] == conv(3, 16, 4) - conv(3, 16)
    assert counts[1024] - counts[512] == conv(3, 8, 4) + conv(8, 16, 4) + 32 - conv(3, 16, 4)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (48, 32), (100, 75)])
def test_any_size_and_grey_and_transparent(size):
    for channels in (1, 4):
        spec = Pictures(channels=channels, height=size[0], width=size[1])
        family = FastGAN(FastGANConfig(width=4, latent=8), spec)
        generator, discriminator = family.nets.values()
        made = generator(torch.randn(2, 8))
        assert made.shape == (2, channels, *size)
        assert discriminator(made).shape[0] == 2
    with pytest.raises(UserError, match="at least 16x16"):
        FastGAN(FastGANConfig(), square(15))


def test_initial_weights_and_their_spectral_norm():
    torch.manual_seed(0)
    family = FastGAN(FastGANConfig(width=16), square(64))
    for net in family.nets.values():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
                sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
                used = sigma / layer.sigma()  # pyright: ignore[reportCallIssue]
                assert sigma > 0.1
                assert used.item() == pytest.approx(1.0, abs=0.1)
            if isinstance(layer, BatchNormAct2d):
                assert layer.weight.mean().item() == pytest.approx(1.0, abs=0.04)
    assert all(
        noise.weight == 0
        for noise in family.nets["generator"].modules()
        if isinstance(noise, Noise)
    )
    spec = family.optimisers()["generator"]
    assert isinstance(spec, Adam)
    assert (spec.lr, spec.betas) == (2e-4, (0.5, 0.999))


def test_a_gate_is_a_gated_linear_unit():
    torch.manual_seed(0)
    gate = Gate(3).eval()
    x = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(gate(x), nn.functional.glu(x / (1 + 1e-5) ** 0.5, dim=1))


def test_an_excitation_scales_whole_channels_between_nothing_and_all():
    torch.manual_seed(0)
    excite = Excitation(8, 5)
    gates = excite(torch.randn(3, 8, 9, 7))
    assert gates.shape == (3, 5, 1, 1)
    assert ((gates > 0) & (gates < 1)).all()
    small = torch.randn(3, 8, 4, 4)
    # Pooled to 4x4, a map of 4x4 enlarged by whole numbers is itself.
    torch.testing.assert_close(
        excite.eval()(small), excite(small.repeat_interleave(3, 2).repeat_interleave(2, 3))
    )


def test_noise_matters_once_its_strength_is_learnt():
    family = tiny()
    generator = family.nets["generator"].eval()
    z = torch.randn(2, 8)
    noise = [torch.randn(2, *shape) for shape in family.noise_shapes]
    assert torch.equal(generator(z), generator(z, None, noise))
    for layer in generator.modules():
        if isinstance(layer, Noise):
            nn.init.constant_(layer.weight, 0.5)
    assert not torch.allclose(generator(z), generator(z, None, noise))


def test_pictures_of_given_latents_depend_on_them_alone():
    """One noise for all rows, so that a walk from z to z does not flicker."""
    family = tiny()
    generator = family.nets["generator"].eval()
    for layer in generator.modules():
        if isinstance(layer, Noise):
            nn.init.constant_(layer.weight, 0.5)
    with torch.no_grad():
        z = torch.randn(1, 8).expand(3, -1)
        one, two, three = family.sample(RowDraws.counted(1, 3), latents=z)
        assert torch.equal(one, two)
        assert torch.equal(one, three)
        again = family.sample(RowDraws.counted(2, 3), latents=z)
        assert torch.equal(again[0], one)
        drawn = family.sample(RowDraws.counted(1, 3))
        assert torch.equal(family.sample(RowDraws.counted(1, 2)), drawn[:2])
        assert not torch.equal(drawn[0], drawn[1])


def test_the_sizes_and_presets():
    widths = [FastGAN.sizes[size]["width"] for size in ("tiny", "small", "base", "large")]
    assert widths == sorted(set(widths))
    assert (widths[1], widths[2]) == (FastGANConfig().width, FastGAN.presets["paper"]["width"])
    assert (FastGAN.training["batch"], FastGAN.presets["paper"]["batch"]) == (16, 8)
    projected = {k: v for k, v in FastGAN.presets["projected"].items() if k != "batch"}
    config = FastGANConfig(**projected)
    assert (config.loss, config.margin_noise) == ("hinge", 0.0)
    assert config.augment == "diffaugment"
    assert config.augment_policy == "color,translation,cutout"
    assert (config.lr, config.beta1, config.beta2) == (2e-4, 0.0, 0.99)


def test_quarters_cover_the_picture():
    x = torch.arange(2.0 * 6 * 4).view(1, 2, 6, 4).expand(4, -1, -1, -1)
    parts = quarter(x, torch.arange(4))
    assert parts.shape == (4, 2, 3, 2)
    whole = torch.cat([torch.cat([parts[0], parts[1]], 2), torch.cat([parts[2], parts[3]], 2)], 1)
    assert torch.equal(whole, x[0])


def test_reals_are_rebuilt_as_they_were_shown():
    """The terms of the discriminator's phase, and which pictures its decoders are held to."""
    family = tiny(augment_policy="color", margin_noise=0.0)
    batch = a_batch(family)
    terms = family.discriminator_loss(batch, CLOCK)
    assert set(terms) == {"adversarial", "reconstruction"}
    look = family.critic(batch, CLOCK)
    assert isinstance(look, Look)
    assert look.rebuilt is not None
    images, part, rebuilt = look.rebuilt
    assert not torch.equal(images, batch["images"])  # augmented
    assert part.shape == (4,)
    whole, corner = (
        nn.functional.interpolate(x, (16, 16), mode="area") for x in (images, quarter(images, part))
    )
    assert {made.shape for made in rebuilt} == {whole.shape}
    exact = (whole, corner, whole)
    assert family.reconstruction_loss(images, part, exact).item() == 0
    worse = (whole, corner, whole + 0.25)
    assert family.reconstruction_loss(images, part, worse).item() == pytest.approx(0.25)
    look.rebuilt = None
    family.generator_loss(batch, CLOCK)
    assert look.rebuilt is None  # nothing is rebuilt in the generator's phase


class Sure(nn.Module):
    """A discriminator whose logits are all .9; it knows the logits of the last reals shown."""

    def forward(self, images, condition=None, part=None):
        logits = torch.full((len(images[0]), 500), 0.9, requires_grad=True)
        if part is None:
            return logits
        self.seen = logits
        return logits, *[images[0]] * 3


def test_the_margin_is_drawn_for_every_logit():
    """Hinge with margins in (.8, 1]: constant logits of .9 are inside the margin half of the time."""
    family = tiny(augment="none")
    family.nets["discriminator"] = sure = Sure()
    batch = a_batch(family)
    terms = family.discriminator_loss(batch, CLOCK)
    (pulled,) = torch.autograd.grad(terms["adversarial"], sure.seen)
    assert (pulled != 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    # E max(0, m - .9) with m in U(.8, 1) is .025, E max(0, m + .9) is 1.8.
    assert terms["adversarial"].item() == pytest.approx(1.825, abs=0.01)
    exact = tiny(augment="none", margin_noise=0.0)
    exact.nets["discriminator"] = sure
    assert exact.discriminator_loss(a_batch(exact), CLOCK)["adversarial"].item() == pytest.approx(2)


def test_the_margin_is_nobody_elses_business():
    """Consistency, LeCam, drift, ADA's signs and what is observed see the discriminator's logits."""
    family = tiny(augment="ada", consistency=10.0, lecam=0.3, drift=1.0, ada_span=100.0)
    family.nets["discriminator"] = Sure()
    heard: list[torch.Tensor] = []
    family.ada.update = lambda signs, examples: heard.append(signs)
    batch = a_batch(family)
    terms = family.discriminator_loss(batch, CLOCK)
    assert terms["consistency"].item() == 0.0
    assert terms["drift"].item() == pytest.approx(0.81)
    assert terms["lecam"].item() == pytest.approx(0.3 * 2 * 0.81)  # both levels begin at 0
    assert {float(value) for value in heard[0].flatten()} == {1.0}
    observed = {name: value.item() for name, value in batch.observed.items()}
    assert observed["critic(x)"] == pytest.approx(0.9)
    assert observed["critic(G(z))"] == pytest.approx(0.9)


def test_conditions_reach_both_players():
    spec = Pictures(channels=1, height=16, width=16, classes=("a", "b", "c"))
    family = FastGAN(FastGANConfig(width=4, latent=8, conditional=True), spec)
    generator, discriminator = (net.eval() for net in family.nets.values())
    made = generator(torch.randn(1, 8).expand(3, -1), torch.eye(3))
    assert not torch.allclose(made[0], made[1])
    judged = discriminator(made[:1].expand(3, -1, -1, -1), torch.eye(3)).mean(1)
    assert len(set(judged.tolist())) == 3


# ---- The projected discriminator ----


def test_a_projected_discriminator_without_weights_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("FAUSSAIRE_WEIGHTS", raising=False)
    family = tiny(discriminator="projected")
    assert family.sample(BatchDraws(0, total=2, rows=slice(0, 2))).shape == (2, 3, 32, 32)
    with pytest.raises(UserError, match="squeezenet1_1"):
        family.discriminator_loss(a_batch(family), CLOCK)


@pytest.fixture
def weights(real_data, monkeypatch):
    folder = real_data / "weights"
    if not (folder / "squeezenet1_1_features.safetensors").is_file():
        pytest.skip("no SqueezeNet weights in the folder of real data")
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(folder))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_projected_discriminator_sees_four_scales_and_none_of_them_is_its_own(weights, channels):
    torch.manual_seed(0)
    spec = Pictures(channels=channels, height=32, width=48)
    family = FastGAN(FastGANConfig(width=4, latent=8, discriminator="projected"), spec)
    discriminator = family.nets["discriminator"]
    assert isinstance(discriminator, ProjectedDiscriminator)
    batch = a_batch(family)
    images = batch["images"].requires_grad_(True)
    maps = discriminator.pyramid(images)
    assert [x.shape[1] for x in maps] == [64, 128, 256, 512]
    assert [min(x.shape[2:]) for x in maps] == discriminator.pyramid.sides(spec)
    assert all(0.05 < x.square().mean().sqrt() < 20 for x in maps)
    (gradient,) = torch.autograd.grad(torch.stack([x.mean() for x in maps]).sum(), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    assert not any("pyramid" in name for name in discriminator.state_dict())
    terms = family.discriminator_loss(batch, CLOCK)
    assert set(terms) == {"adversarial"}
    gradients = torch.autograd.grad(terms["adversarial"], list(discriminator.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    family.generator_loss(batch, CLOCK)["adversarial"].backward()
    assert all(
        p.grad is not None
        for n, p in family.nets["generator"].named_parameters()
        if "small" not in n
    )


def test_random_projections_are_the_same_in_every_process():
    torch.manual_seed(1)
    one = Pyramid()
    torch.manual_seed(2)
    two = Pyramid()
    for a, b in zip(one._channels + one._scales, two._channels + two._scales, strict=True):
        assert torch.equal(a, b)
        fan_in = a[0].numel()
        assert a.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)
