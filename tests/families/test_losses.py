"""Losses and penalties against closed forms, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from faussaire import losses


def test_losses_at_known_logits():
    zero = torch.zeros(4)
    assert losses.discriminator_minimax(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert losses.generator_nonsaturating(zero).item() == pytest.approx(math.log(2))
    assert losses.generator_minimax(zero).item() == pytest.approx(-math.log(2))
    assert losses.critic_wasserstein(torch.ones(2), zero).item() == -1.0
    assert losses.generator_wasserstein(torch.ones(2)).item() == -1.0
    assert losses.discriminator_least_squares(torch.ones(2), zero).item() == 0.0
    assert losses.generator_least_squares(zero).item() == 0.5


def test_minimax_vanishes_where_the_discriminator_is_sure_and_nonsaturating_does_not():
    """The reason for the non-saturating loss: gradients -sigmoid(a) and -sigmoid(-a) at a = -10."""
    logit = torch.tensor([-10.0], dtype=torch.float64, requires_grad=True)
    (minimax,) = torch.autograd.grad(losses.generator_minimax(logit), logit)
    (saving,) = torch.autograd.grad(losses.generator_nonsaturating(logit), logit)
    assert minimax.item() == pytest.approx(-1 / (1 + math.exp(10)), rel=1e-9)
    assert saving.item() == pytest.approx(-1 / (1 + math.exp(-10)), rel=1e-9)


def test_penalties_of_a_linear_critic():
    torch.manual_seed(0)
    critic = nn.Linear(6, 1).double()
    x, y = torch.randn(5, 6).double(), torch.randn(5, 6).double()
    weight = critic.weight

    def judge(points):
        return critic(points).squeeze(1)

    r1 = losses.zero_centred_penalty(judge, x)
    torch.testing.assert_close(r1, 0.5 * weight.square().sum())
    (gradient,) = torch.autograd.grad(r1, weight)
    torch.testing.assert_close(gradient, weight.data)
    penalty = losses.gradient_penalty(judge, x, y, torch.rand(5).double())
    torch.testing.assert_close(penalty, (weight.norm() - 1).square())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * (1 - 1 / weight.norm()) * weight.data)


def test_the_gradient_penalty_looks_between_with_an_epsilon_for_each_sample():
    seen = []

    def judge(points):
        seen.append(points.detach())
        return points.square().sum(dim=1)

    real, fake, mix = torch.ones(3, 2), torch.zeros(3, 2), torch.tensor([0.0, 0.5, 1.0])
    losses.gradient_penalty(judge, real, fake, mix)
    torch.testing.assert_close(seen[0], mix[:, None].expand(3, 2))


def test_penalties_are_second_order():
    x = torch.randn(3, 4, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def value(weight):
        return losses.zero_centred_penalty(
            lambda p: torch.func.functional_call(net, {"0.weight": weight}, p).squeeze(1), x
        )

    assert torch.autograd.gradcheck(value, (net[0].weight,))


def test_hinge_stops_at_its_margin():
    real = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([-3.0, 0.0], dtype=torch.float64, requires_grad=True)
    loss = losses.discriminator_hinge(real, fake)
    assert loss.item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1) / 2)
    of_real, of_fake = torch.autograd.grad(loss, (real, fake))
    assert of_real.tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert of_fake.tolist() == pytest.approx([0, 0.5])
    assert losses.generator_hinge(fake).item() == pytest.approx(1.5)


def test_relativistic_losses_see_only_differences():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 7).double()
    for loss in (
        losses.discriminator_relativistic,
        losses.generator_relativistic,
        losses.discriminator_relativistic_average,
        losses.generator_relativistic_average,
    ):
        torch.testing.assert_close(loss(real, fake), loss(real + 5.0, fake + 5.0))
    paired = -torch.log(torch.sigmoid(real - fake)).mean()
    torch.testing.assert_close(losses.discriminator_relativistic(real, fake), paired)
    torch.testing.assert_close(losses.generator_relativistic(fake, real), paired)
    average = (
        -torch.log(torch.sigmoid(real - fake.mean())).mean()
        - torch.log(1 - torch.sigmoid(fake - real.mean())).mean()
    )
    torch.testing.assert_close(losses.discriminator_relativistic_average(real, fake), average)
    torch.testing.assert_close(losses.generator_relativistic_average(fake, real), average)


def test_the_relativistic_average_hinge_is_the_hinge_of_differences():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 7).double()
    hinge = losses.discriminator_hinge(real - fake.mean(), fake - real.mean())
    found = losses.discriminator_relativistic_average_hinge(real, fake)
    torch.testing.assert_close(found, hinge)
    torch.testing.assert_close(losses.generator_relativistic_average_hinge(fake, real), hinge)
    apart = losses.discriminator_relativistic_average_hinge(real + 9.0, fake - 9.0)
    assert apart.item() == 0.0
    back = losses.generator_relativistic_average_hinge(real + 9.0, fake - 9.0)
    assert back.item() == pytest.approx(2 + 2 * (18 + (real.mean() - fake.mean()).item()))


def test_lecam_draws_each_side_to_the_level_of_the_other():
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-2.0])
    found = losses.lecam(real, fake, torch.tensor(2.0), torch.tensor(-1.0))
    assert found.item() == pytest.approx((16 + 4) / 2 + 16)
    level = torch.tensor(0.5)
    assert losses.lecam(level.expand(4), level.expand(4), level, level).item() == 0


def test_consistency_is_the_squared_difference():
    assert losses.consistency(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 2.5


def test_dragan_looks_around_the_reals():
    torch.manual_seed(0)
    seen = []

    def judge(points):
        seen.append(points.detach())
        return points.square().sum(dim=1)  # whose gradient is 2 x

    real, noise = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    found = losses.dragan_penalty(judge, real, noise)
    torch.testing.assert_close(seen[0], real + noise)
    expected = ((2 * (real + noise)).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(found, expected)
