"""What the papers say of SNGAN's networks and SAGAN's attention."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from faussaire.core.clock import Clock
from faussaire.core.family import Pictures
from faussaire.core.optim import Adam
from faussaire.core.schedule import as_schedule
from faussaire.families.sngan import (
    SNGAN,
    DiscriminatorBlock,
    GeneratorBlock,
    SelfAttention,
    SNGANConfig,
    nearest_side,
)
from faussaire.nn.spectral import converge

TRAINING = {"batch"}


def preset(name: str, side: int, *, classes: int = 0, **settings: object) -> SNGAN:
    """A preset's networks, without memory for their weights."""
    chosen = {k: v for k, v in SNGAN.presets[name].items() if k not in TRAINING}
    spec = Pictures(
        channels=3, height=side, width=side, classes=tuple(str(i) for i in range(classes))
    )
    with torch.device("meta"):
        return SNGAN(SNGANConfig(**{**chosen, **settings}), spec)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shapes(net: nn.Module, kind: type[nn.Module], *inputs: Tensor) -> list[tuple[int, ...]]:
    """Shapes (C, H, W) after each module of a kind."""
    seen: list[tuple[int, ...]] = []
    for module in net.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    net(*inputs)
    return seen


def conv(wide: int, narrow: int, side: int = 3) -> int:
    return wide * narrow * side * side + narrow


def test_the_networks_for_cifar_are_appendix_b4():
    family = preset("cifar", 32)
    generator, discriminator = family.nets.values()
    # Dense to 4x4x256; three blocks of two 3x3, one 1x1 and two batch norms; batch norm, 3x3.
    block = 2 * conv(256, 256) + conv(256, 256, 1) + 2 * 2 * 256
    assert count(generator) == 128 * 4096 + 4096 + 3 * block + 2 * 256 + conv(256, 3) == 4_276_739
    first = conv(3, 128) + conv(128, 128) + conv(3, 128, 1)
    down, plain = 2 * conv(128, 128) + conv(128, 128, 1), 2 * conv(128, 128)
    assert count(discriminator) == first + down + 2 * plain + 129 == 1_053_825


@pytest.mark.parametrize(
    ("name", "side", "made", "seen"),
    [
        (
            "cifar",
            32,
            [(256, 8, 8), (256, 16, 16), (256, 32, 32)],
            [(128, 16, 16), (128, 8, 8), (128, 8, 8), (128, 8, 8)],
        ),
        (
            "imagenet",
            128,
            [(1024, 8, 8), (512, 16, 16), (256, 32, 32), (128, 64, 64), (64, 128, 128)],
            [
                (64, 64, 64),
                (128, 32, 32),
                (256, 16, 16),
                (512, 8, 8),
                (1024, 4, 4),
                (1024, 4, 4),
            ],
        ),
    ],
)
def test_the_papers_tables(name, side, made, seen):
    generator, discriminator = preset(name, side).nets.values()
    with torch.no_grad():
        assert shapes(generator, GeneratorBlock, torch.empty(2, 128, device="meta")) == made
    widths = [block.conv2.weight.shape[0] for block in discriminator.blocks]
    assert widths == [shape[0] for shape in seen]
    halves = [block.halve for block in discriminator.blocks]
    sides = [side, *(shape[1] for shape in seen)]
    assert halves == [before > after for before, after in pairwise(sides)]


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_every_size_is_larger_than_the_one_before(side):
    counts = []
    for size in ("tiny", "small", "base", "large"):
        with torch.device("meta"):
            spec = Pictures(channels=3, height=side, width=side)
            family = SNGAN(SNGANConfig(**SNGAN.sizes[size]), spec)
        counts.append([count(net) for net in family.nets.values()])
    for smaller, larger in pairwise(counts):
        assert all(before < after for before, after in zip(smaller, larger, strict=True))
    with torch.device("meta"):
        assert [count(net) for net in SNGAN(SNGANConfig(), spec).nets.values()] == counts[1]


def test_the_discriminator_halves_where_its_blocks_say():
    torch.manual_seed(0)
    spec = Pictures(channels=3, height=32, width=32)
    for plain, sides in ((1, [16, 8, 4, 4]), (2, [16, 8, 8, 8])):
        config = SNGANConfig(width=4, max_width=8, plain_blocks=plain)
        discriminator = SNGAN(config, spec).nets["discriminator"]
        seen = shapes(discriminator, DiscriminatorBlock, torch.zeros(2, 3, 32, 32))
        assert [shape[1] for shape in seen] == sides


def test_classes_cost_a_gain_and_a_bias_each_and_one_projection():
    plain, by_class = preset("cifar", 32), preset("cifar", 32, classes=10, conditional=True)
    norms = 3 * 2 * (10 - 1) * 2 * 256  # in place of one gain and bias for all, ten
    assert count(by_class.nets["generator"]) - count(plain.nets["generator"]) == norms
    assert count(by_class.nets["discriminator"]) - count(plain.nets["discriminator"]) == 10 * 128


def test_the_discriminator_projects():
    """D(x, y) - D(x, y') = <V (y - y'), phi(x)>: equation 3 of Miyato and Koyama 2018."""
    torch.manual_seed(0)
    spec = Pictures(channels=1, height=16, width=16, classes=("a", "b", "c"))
    family = SNGAN(SNGANConfig(width=4, max_width=8, conditional=True), spec)
    discriminator = family.nets["discriminator"].eval()
    x = torch.randn(5, 1, 16, 16)
    found: dict[str, Tensor] = {}
    discriminator.classify.register_forward_pre_hook(lambda _, given: found.update(phi=given[0]))
    logits = [discriminator(x, torch.eye(3)[[label] * 5]) for label in range(3)]
    embedding = discriminator.embed.normalised()
    for label in range(3):
        wanted = found["phi"] @ (embedding[:, label] - embedding[:, 0])
        torch.testing.assert_close(logits[label] - logits[0], wanted)
    torch.testing.assert_close(
        discriminator(x), discriminator.classify(found["phi"])[:, 0]
    )  # without a class: the unconditional logit


def test_weights_begin_as_glorots():
    torch.manual_seed(0)
    family = SNGAN(SNGANConfig(), Pictures(channels=3, height=32, width=32))
    for net in family.nets.values():
        for block in net.blocks:
            for conv2d, gain in ((block.conv1, 2.0), (block.conv2, 2.0), (block.shortcut, 1.0)):
                if conv2d is not None:
                    out, inner, *sides = conv2d.weight.shape
                    fans = (out + inner) * math.prod(sides)
                    wanted = math.sqrt(gain * 2.0 / fans)
                    assert float(conv2d.weight.detach().std()) == pytest.approx(wanted, rel=0.1)


def test_the_discriminators_layers_all_have_norm_one_from_the_start():
    torch.manual_seed(0)
    spec = Pictures(channels=3, height=32, width=32, classes=("a", "b"))
    settings = {"width": 8, "max_width": 16, "attention": 16, "generator_spectral": True}
    for name, net in SNGAN(SNGANConfig(conditional=True, **settings), spec).nets.items():
        layers = {k: m for k, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        modulating = {k for k in layers if ".gain" in k or ".bias" in k}
        for key in layers.keys() - modulating:
            largest = torch.linalg.svdvals(layers[key].normalised().detach().flatten(1))[0]
            assert float(largest) == pytest.approx(1.0, rel=0.1), f"{name}.{key}"
        assert bool(modulating) == (name == "generator")
    plain = SNGAN(SNGANConfig(width=8, max_width=16), spec).nets["generator"]
    assert not any(hasattr(module, "normalised") for module in plain.modules())


def test_attention_is_its_equation_and_begins_as_nothing():
    torch.manual_seed(0)
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 6, 4)
    assert torch.equal(layer(x), x)
    converge(layer, 300)
    layer.eval()
    with torch.no_grad():
        layer.gamma.fill_(0.7)
        f, g, h, v = (
            conv2d.normalised().flatten(1)
            for conv2d in (layer.query, layer.key, layer.value, layer.out)
        )
        assert (f.shape, g.shape, h.shape, v.shape) == ((2, 16), (2, 16), (8, 16), (16, 8))
        wanted = torch.empty_like(x)
        for n in range(2):
            pixels = x[n].flatten(1)  # (16, 24)
            keys, values = (
                nn.functional.max_pool2d((w @ pixels).view(1, -1, 6, 4), 2)[0].flatten(1)
                for w in (g, h)
            )
            for i in range(24):
                beta = torch.stack([(f @ pixels[:, i]) @ keys[:, j] for j in range(6)]).softmax(0)
                o = v @ (values * beta).sum(dim=1)
                wanted[n].flatten(1)[:, i] = pixels[:, i] + 0.7 * o
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


def test_attention_sits_at_the_resolution_asked_for():
    family = preset("sagan", 128, classes=1000)
    assert family.nets["discriminator"].embed.weight.shape == (1024, 1000)  # by class
    generator, discriminator = family.nets.values()
    # At 32 pixels both networks have 256 channels: after the generator's third block (8, 16, 32)
    # and the discriminator's second (64, 32).
    assert generator.attention.query.weight.shape == (32, 256, 1, 1)
    assert generator.attend_after == 2
    assert discriminator.attention.query.weight.shape == (16, 128, 1, 1)
    assert discriminator.attend_after == 1
    assert nearest_side(64, [8, 16, 32]) == 2
    assert nearest_side(0, [8]) is None


def test_the_players_rates_are_the_papers():
    families = {
        "cifar": preset("cifar", 32),
        "imagenet": preset("imagenet", 32),
        "sagan": preset("sagan", 32, classes=10),
    }
    specs = {name: family.optimisers() for name, family in families.items()}
    begin, end = Clock(examples=0, total=100), Clock(examples=100, total=100)

    def rates(name: str, clock: Clock) -> tuple[float, ...]:
        return tuple(as_schedule(spec.lr)(clock) for spec in specs[name].values())

    for name in ("cifar", "imagenet"):
        assert rates(name, begin) == (2e-4, 2e-4)
        assert rates(name, end) == (0.0, 0.0)
        assert families[name].config.critic_steps == 5
    assert rates("sagan", begin) == rates("sagan", end) == (1e-4, 4e-4)
    for optimisers in specs.values():
        for spec in optimisers.values():
            assert isinstance(spec, Adam)
            assert spec.betas == (0.0, 0.9)
    assert families["sagan"].config.critic_steps == 1
    assert {family.config.loss for family in families.values()} == {"hinge"}


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (64, 48), (33, 128)])
def test_any_size(size):
    spec = Pictures(channels=1, height=size[0], width=size[1])
    family = SNGAN(SNGANConfig(width=4, max_width=8), spec)
    made = family.nets["generator"](torch.randn(2, 128))
    assert made.shape == (2, 1, *size)
    assert family.nets["discriminator"](made).shape == (2,)
