"""What the paper says of semi-supervised GANs: logits, losses, noise, initialisation."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.dcgan import DCGAN, DCGANConfig
from faussaire.families.sgan import SGAN, Discriminator, Normed, SGANConfig

TEN = tuple(str(number) for number in range(10))
MNIST = Pictures(channels=1, height=28, width=28, classes=TEN)
CIFAR = Pictures(channels=3, height=32, width=32, classes=TEN)
SMALL = Pictures(channels=1, height=4, width=4, classes=("a", "b", "c"))


def small(**settings: object) -> SGAN:
    torch.manual_seed(0)
    return SGAN(
        SGANConfig(**{"hidden": "12,8", "generator_hidden": "8", "latent": 4, **settings}), SMALL
    )


def drawn(count: int = 6, seed: int = 0) -> BatchDraws:
    return BatchDraws(seed, total=count, rows=slice(0, count))


def batch(family: SGAN, count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(5)
    fields = {
        name: torch.rand(count, *family.spec.shape, generator=generator) * 2 - 1
        for name in ("images", "labelled")
    }
    return Batch({**fields, "labels": torch.arange(count) % 3}, drawn(count), count)


def shapes(net: nn.Module, kind: type) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape) for layer in net.modules() if isinstance(layer, kind)]


def test_the_networks_are_those_of_the_paper():
    with torch.device("meta"):
        dense, convolutional = SGAN(SGANConfig(), MNIST), SGAN(SGANConfig(), CIFAR)
    widths = [784, 1000, 500, 250, 250, 250, 10]
    expected = [(narrow, wide) for wide, narrow in pairwise(widths)]
    assert shapes(dense.nets["discriminator"], nn.Linear) == expected
    assert shapes(dense.nets["generator"], nn.Linear) == [(500, 100), (500, 500), (784, 500)]
    kernels = shapes(convolutional.nets["discriminator"], nn.Conv2d)
    assert [kernel[0] for kernel in kernels] == [96, 96, 96, *[192] * 6]
    assert [kernel[2] for kernel in kernels] == [3] * 7 + [1] * 2
    ups = shapes(convolutional.nets["generator"], nn.ConvTranspose2d)
    assert ups == [(512, 256, 5, 5), (256, 128, 5, 5), (128, 3, 5, 5)]
    assert shapes(convolutional.nets["generator"], nn.Linear) == [(8192, 100)]
    rates = [family.optimisers()["discriminator"].lr for family in (dense, convolutional)]
    assert rates == pytest.approx([3e-3, 3e-4])


def test_the_losses_are_those_of_k_plus_one_classes_whose_last_logit_is_0():
    """Against cross-entropies over K + 1 explicit logits, with the same noise."""
    family = small()
    given = batch(family)
    family.initialise(given, Clock())
    given.draws.rewind(drawn().mark())
    terms = family.discriminator_loss(given, Clock(rounds=1))

    draws = drawn()
    with torch.no_grad():
        fakes = family.forge(draws)
        parts = (given["labelled"], given["images"], fakes)
        logits = torch.stack([family.judge(part, draws)[0] for part in parts])
        full = torch.cat([logits, torch.zeros(3, len(fakes), 1)], dim=2)  # the fake class
        likely = full.log_softmax(dim=2)
        real = likely[..., :3].logsumexp(dim=2)
        right = given["labels"]
        own = likely[0].gather(1, right[:, None])[:, 0] - real[0]  # given that it is real
    torch.testing.assert_close(terms["labelled"], -own.mean())
    torch.testing.assert_close(terms["unlabelled"], -0.5 * real[1].mean())
    torch.testing.assert_close(terms["fake"], -0.5 * likely[2][:, 3].mean())


def test_the_generator_matches_mean_features_of_the_last_hidden_layer():
    family = small(noise=0.0, input_noise=0.0)
    given = batch(family)
    (term,) = family.generator_loss(given, Clock()).values()
    draws = drawn()
    family.judge(given["images"], draws)  # whose noise is drawn first
    fakes = family.forge(draws)
    features = [family.judge(x)[1].mean(dim=0) for x in (given["images"], fakes)]
    assert features[0].shape == (8,)
    torch.testing.assert_close(term, (features[0] - features[1]).square().mean())


@pytest.mark.parametrize("spec", [MNIST, CIFAR], ids=["dense", "convolutional"])
def test_the_first_batch_leaves_every_layer_with_mean_0_and_deviation_1(spec):
    settings = {"hidden": "20,16", "generator_hidden": "8", "width": 4, "generator_width": 4}
    torch.manual_seed(0)
    family = SGAN(SGANConfig(**settings), spec)
    net = family.nets["discriminator"]
    assert isinstance(net, Discriminator)
    x, noise = torch.rand(64, *spec.shape) * 2 - 1, net.noise(drawn(64))
    net.initialise(x, noise)
    seen: list[torch.Tensor] = []
    for layer in net.modules():
        if isinstance(layer, Normed):
            layer.register_forward_hook(lambda layer, inputs, out: seen.append(out))
    net(x, noise)
    assert len(seen) == (3 if spec is MNIST else 10)
    for out in seen:
        values = out.detach().transpose(0, 1).flatten(1)
        torch.testing.assert_close(values.mean(dim=1), torch.zeros(len(values)), atol=1e-4, rtol=0)
        deviation = values.std(dim=1, correction=0)
        torch.testing.assert_close(deviation, torch.ones(len(values)), atol=1e-3, rtol=0)
    assert net.initialised


def test_initialisation_comes_once_and_not_after_the_first_round():
    family = small()
    net = family.nets["discriminator"]
    family.discriminator_loss(batch(family), Clock(rounds=3))
    assert not net.initialised
    family.discriminator_loss(batch(family), Clock(rounds=0))
    first = {name: value.clone() for name, value in net.state_dict().items()}
    family.discriminator_loss(batch(family, 9), Clock(rounds=0))
    assert all(torch.equal(value, first[name]) for name, value in net.state_dict().items())
    assert net.initialised


def test_a_weight_normalised_layer_ignores_the_length_of_its_weights():
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(3, 4, bias=False), torch.randn(5, 3)),
        (nn.Conv2d(3, 4, 3, bias=False), torch.randn(2, 3, 6, 6)),
        (nn.ConvTranspose2d(3, 4, 3, bias=False), torch.randn(2, 3, 6, 6)),
    ):
        normed = Normed(layer)
        before = normed(x)
        lengths = torch.tensor([2.0, 3.0, 0.5, 7.0])
        with torch.no_grad():
            ones = [1] * (layer.weight.dim() - 1)
            shape = (1, 4, *ones[1:]) if normed.axis else (4, *ones)
            layer.weight.mul_(lengths.view(shape))
        torch.testing.assert_close(normed(x), before)


def test_noise_is_for_training_and_probabilities_sum_to_1():
    family = small()
    x = batch(family)["images"]
    told = family.classify(x)
    assert told.shape == (6, 3)
    torch.testing.assert_close(told.sum(dim=1), torch.ones(6))
    assert torch.equal(told, family.classify(x))
    noisy = family.judge(x, drawn())[0]
    assert not torch.allclose(noisy, family.judge(x)[0])
    torch.testing.assert_close(noisy, family.judge(x, drawn())[0])


def test_dropout_keeps_the_expectation():
    family = SGAN(SGANConfig(width=2, generator_width=2), CIFAR)
    net = family.nets["discriminator"]
    assert isinstance(net, Discriminator)
    masks = net.noise(drawn(40))
    assert [tuple(mask.shape[1:]) for mask in masks] == [(3, 32, 32), (2, 16, 16), (4, 8, 8)]
    for mask, rate in zip(masks, (0.2, 0.5, 0.5), strict=True):
        assert sorted(mask.unique().tolist()) == [0.0, pytest.approx(1 / (1 - rate))]
        assert float(mask.mean()) == pytest.approx(1.0, abs=0.05)


def test_what_does_not_fit_is_told_in_a_sentence():
    with pytest.raises(UserError, match="no labels"):
        SGAN(SGANConfig(), Pictures(channels=1, height=8, width=8))
    with pytest.raises(UserError, match="one class"):
        SGAN(SGANConfig(), Pictures(channels=1, height=8, width=8, classes=("a",)))
    with pytest.raises(UserError, match="16x16"):
        SGAN(SGANConfig(), Pictures(channels=3, height=8, width=8, classes=TEN))
    with pytest.raises(UserError, match="hidden cannot be '12,,3'"):
        SGANConfig(hidden="12,,3")
    with pytest.raises(UserError, match="truncation"):
        small().sample(RowDraws.counted(0, 1), truncation=0.5)
    with pytest.raises(UserError, match="dcgan tells no classes"):
        DCGAN(DCGANConfig(width=2), Pictures(channels=1, height=16, width=16)).classify(
            torch.zeros(1, 1, 16, 16)
        )
