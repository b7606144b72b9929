"""What the paper says of BigGAN's networks, regularisation and sampling."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import _family, build
from torch import Tensor, nn

from faussaire.core.batch import RowDraws
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.family import Pictures
from faussaire.core.loop import Plan, Rounds
from faussaire.core.optim import Adam
from faussaire.core.state import State
from faussaire.families.biggan import (
    BigGAN,
    BigGANConfig,
    DiscriminatorBlock,
    GeneratorBlock,
    orthogonal_penalty,
)
from faussaire.nn.conditional import ConditionalBatchNormAct2d
from faussaire.nn.fused import BatchNormAct2d

IMAGENET = tuple(str(i) for i in range(1000))
TRAINING = {"batch", "half_life"}
SETTINGS = {k: v for k, v in BigGAN.presets["imagenet"].items() if k not in TRAINING}


def published(side: int) -> BigGAN:
    """The paper's networks, without memory for their weights."""
    with torch.device("meta"):
        spec = Pictures(channels=3, height=side, width=side, classes=IMAGENET)
        return BigGAN(BigGANConfig(**SETTINGS), spec)


def small(**settings: object) -> BigGAN:
    torch.manual_seed(0)
    spec = Pictures(channels=3, height=32, width=32, classes=("a", "b", "c"))
    return BigGAN(BigGANConfig(**{"width": 2, "chunk": 4, "shared": 6, **settings}), spec)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_biggan_128_has_the_published_parameters():
    family = published(128)
    generator, discriminator = family.nets.values()
    assert count(generator) == 70_433_988  # 70.43 M
    assert count(discriminator) == 87_982_370  # 87.98 M
    assert family.latent == 120
    assert generator.shared.weight.shape == (128, 1000)
    assert generator.blocks[0].norm1.gain.weight.shape == (16 * 96, 128 + 20)
    assert generator.project.weight.shape == (4 * 4 * 16 * 96, 20)


@pytest.mark.parametrize(
    ("side", "made", "seen", "latent"),
    [
        (64, (16, 8, 4, 2), (1, 2, 4, 8, 16), 100),
        (128, (16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 120),
        (256, (16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 140),
        (512, (16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), 160),
    ],
)
def test_the_papers_tables(side, made, seen, latent):
    family = published(side)
    generator, discriminator = family.nets.values()
    assert family.latent == latent
    blocks = [block.conv2.weight.shape[0] for block in generator.blocks]
    assert blocks == [96 * multiple for multiple in made]
    blocks = [block.conv2.weight.shape[0] for block in discriminator.blocks]
    assert blocks == [96 * multiple for multiple in seen]
    assert [block.halve for block in discriminator.blocks] == [True] * (len(seen) - 1) + [False]
    # Attention at 64 pixels, on as many channels as the tables have there.
    assert generator.blocks[generator.attend_after].conv2.weight.shape[0] == 96 * made[3]
    assert side // 2 ** (discriminator.attend_after + 1) == min(64, side // 2)


def test_the_flat_networks_end_at_8x8():
    family = small(flat=True)
    sizes: list[tuple[int, ...]] = []
    for block in family.nets["discriminator"].blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    family.nets["discriminator"](torch.zeros(2, 3, 32, 32))
    assert sizes == [(8, 16, 16), (8, 8, 8), (8, 8, 8), (8, 8, 8)]


def test_every_weight_begins_orthogonal_and_every_layer_with_norm_one():
    for net in small(attention=16, conditional=True, spectral_modulation=True).nets.values():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
                torch.testing.assert_close(values, torch.ones_like(values), atol=1e-4, rtol=0)
                if hasattr(layer, "sigma"):
                    assert float(layer.sigma().detach()) == pytest.approx(1.0, abs=1e-4)
                if layer.bias is not None:
                    assert not layer.bias.any()
    generator = small(conditional=True, spectral_modulation=True).nets["generator"]
    plain = [m for m in generator.modules() if type(m) in (nn.Conv2d, nn.Linear)]
    assert plain == [generator.shared]  # all else is spectrally normalised


def test_free_modulations_begin_small_at_any_width():
    generator = small(conditional=True).nets["generator"]
    for block in generator.blocks:
        for layer in (block.norm1.gain, block.norm1.bias, block.norm2.gain, block.norm2.bias):
            assert not hasattr(layer, "sigma")
            values = torch.linalg.svdvals(layer.weight.detach())
            torch.testing.assert_close(values, torch.full_like(values, 0.1), atol=1e-5, rtol=0)


def test_z_is_a_chunk_for_the_first_layer_and_one_for_each_block():
    family = small(conditional=True)
    generator = family.nets["generator"]
    assert family.latent == 4 * 4
    seen: list[Tensor] = []
    generator.project.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    z, condition = torch.randn(5, 16), torch.eye(3)[[0, 1, 2, 0, 1]]
    generator(z, condition)
    embedding = generator.shared(condition)
    assert torch.equal(seen[0], z[:, :4])
    for index, given in enumerate(seen[1:]):
        assert torch.equal(given[:, :6], embedding)
        assert torch.equal(given[:, 6:], z[:, 4 * index + 4 : 4 * index + 8])


def test_orthogonal_regularisation_against_its_formula():
    net = nn.ModuleDict({"shared": nn.Linear(3, 2), "a": nn.Linear(2, 2), "b": nn.Conv2d(2, 3, 1)})
    with torch.no_grad():
        net["a"].weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 2.0]]))  # rows meet in 3
        net["b"].weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 2.0], [1.0, 0.0]])[..., None, None])
    net.shared = net["shared"]
    # Off the diagonal, twice each: 3^2 of a, 5^2 of b's first and third row.
    assert float(orthogonal_penalty(net).detach()) == pytest.approx(2 * 9 + 2 * 25)
    (gradient,) = torch.autograd.grad(orthogonal_penalty(net), net["a"].weight)
    gram = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    torch.testing.assert_close(gradient, 4.0 * gram @ net["a"].weight.detach())
    fresh = small().nets["generator"]
    tall = sum(
        # A matrix with more rows than columns cannot have them all at right angles.
        float(
            (layer.weight.flatten(1) @ layer.weight.flatten(1).t())
            .fill_diagonal_(0.0)
            .square()
            .sum()
        )
        for layer in (m for m in copy.deepcopy(fresh).requires_grad_(False).modules())
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    assert float(orthogonal_penalty(fresh).detach()) == pytest.approx(tall, rel=1e-3)


def test_the_players_of_the_paper():
    family = published(128)
    generator, discriminator = family.optimisers().values()
    assert isinstance(generator, Adam)
    assert isinstance(discriminator, Adam)
    assert (generator.lr, discriminator.lr) == (5e-5, 2e-4)
    for spec in (generator, discriminator):
        assert (spec.betas, spec.eps) == ((0.0, 0.999), 1e-6)
    assert (family.config.critic_steps, family.config.loss) == (2, "hinge")
    assert family.config.orthogonal == 1e-4


@pytest.mark.parametrize("name", ["imagenet", "cifar"])
def test_presets_average_with_the_papers_decay_at_each_step_of_the_generator(name):
    """Every critic step draws a batch; the averages follow once a round."""
    settings = BigGAN.presets[name]
    case = _family("biggan", **{"width": 2, "chunk": 4}, critic_steps=settings["critic_steps"])
    state = build(case)
    Rounds(state, case.stream(0, 1), Plan(batch=case.batch), World()).play()
    drawn = state.clock.examples // case.batch
    assert drawn == settings["critic_steps"]
    a_round = drawn * settings["batch"]
    assert 0.5 ** (a_round / settings["half_life"]) == pytest.approx(0.9999, abs=1e-7)


def test_settling_gives_the_averaged_generator_statistics_of_its_own():
    state = State(small(conditional=True), Device(name="cpu", precision="float32"), total=100)
    twin, raw = state.average.nets["generator"], state.family.nets["generator"]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    u = {name: value.clone() for name, value in twin.named_buffers() if name.endswith(".u")}
    assert u
    with state.sampling(settle=True) as family:
        for name, value in twin.named_buffers():
            if name.endswith("running_mean"):
                assert not torch.equal(value, before[name])
            if name.endswith(".u"):
                assert torch.equal(value, u[name])
        settled = {name: value.clone() for name, value in twin.named_buffers()}
        assert not any(module.training for module in twin.modules())
        # In evaluation the last norm's input then has the mean and variance that it subtracts.
        seen: list[Tensor] = []
        twin.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        family.sample(RowDraws.counted(11, 512))
        torch.testing.assert_close(
            seen[0].mean((0, 2, 3)), twin.norm.running_mean, atol=0.05, rtol=0.1
        )
        torch.testing.assert_close(
            seen[0].var((0, 2, 3)), twin.norm.running_var, atol=0.05, rtol=0.1
        )
    with state.sampling(settle=True):
        for name, value in twin.named_buffers():
            torch.testing.assert_close(value, settled[name])  # the same wherever it is done
    for name, value in twin.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert raw.training


def test_without_classes_z_modulates_alone():
    family = small()
    generator = family.nets["generator"]
    assert generator.shared is None
    norms = [m for m in generator.modules() if isinstance(m, ConditionalBatchNormAct2d)]
    assert {norm.gain.weight.shape[1] for norm in norms} == {4}
    assert isinstance(generator.norm, BatchNormAct2d)
    assert family.nets["discriminator"].embed is None


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (64, 48), (33, 128)])
def test_any_size(size):
    spec = Pictures(channels=1, height=size[0], width=size[1])
    family = BigGAN(BigGANConfig(width=2), spec)
    made = family.nets["generator"](torch.randn(2, family.latent))
    assert made.shape == (2, 1, *size)
    assert family.nets["discriminator"](made).shape == (2,)
    assert sum(
        isinstance(m, GeneratorBlock) for m in family.nets["generator"].modules()
    ) + 1 == sum(isinstance(m, DiscriminatorBlock) for m in family.nets["discriminator"].modules())
