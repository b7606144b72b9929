"""Adversarial losses and penalties: pure functions of logits, in float32.

Logits are what a discriminator gives before any sigmoid, (N,) or (N, 1, h, w) for patches: positive
means real. Each function returns a scalar to be lowered, a mean over all logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.device import precise

Critic = Callable[[Tensor], Tensor]


def discriminator_minimax(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], D the sigmoid of the logits.

    Goodfellow et al. 2014, arXiv 1406.2661, equation 1; -log sigmoid(a) = softplus(-a).
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_nonsaturating(fake: Tensor) -> Tensor:
    """-E[log D(G(z))]: the generator maximises the probability that its fakes pass as real.

    Goodfellow et al. 2014, section 3: strong gradients while the discriminator is winning.
    """
    return F.softplus(-fake).mean()


def generator_minimax(fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))]: the game as first written, equation 1 of Goodfellow et al. 2014.

    Its gradient vanishes where the discriminator is sure, which is where the generator begins.
    """
    return -F.softplus(fake).mean()


def discriminator_least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 E[(D(x) - 1)^2] + 1/2 E[D(G(z))^2]. Mao et al. 2017, arXiv 1611.04076, equation 9."""
    return 0.5 * ((real - 1.0).square().mean() + fake.square().mean())


def generator_least_squares(fake: Tensor) -> Tensor:
    """1/2 E[(D(G(z)) - 1)^2]. Mao et al. 2017, arXiv 1611.04076, equation 9."""
    return 0.5 * (fake - 1.0).square().mean()


def critic_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)]. Arjovsky et al. 2017, arXiv 1701.07875, equation 2, negated."""
    return fake.mean() - real.mean()


def generator_wasserstein(fake: Tensor) -> Tensor:
    """-E[D(G(z))]. Arjovsky et al. 2017, arXiv 1701.07875."""
    return -fake.mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2] at points x^ between reals and fakes.

    Gulrajani et al. 2017, arXiv 1704.00028, equation 3 without lambda.

    Args:
        critic: gives logits, (N,).
        real, fake: (N, ...).
        mix: (N,) uniform in [0, 1]: the epsilon of each sample.
    """
    weight = mix.view(-1, *[1] * (real.dim() - 1))
    between = torch.lerp(fake.detach(), real.detach(), weight)
    return (_gradient(critic, between).flatten(1).norm(dim=1) - 1.0).square().mean()


def zero_centred_penalty(critic: Critic, samples: Tensor) -> Tensor:
    """1/2 E[|grad D(x)|^2]: R1 on real samples, R2 on fakes, without gamma.

    Mescheder et al. 2018, arXiv 1801.04406, equations 9 and 10. The norm sums over all dimensions of
    a sample.

    Args:
        critic: gives logits, (N,).
        samples: (N, ...).
    """
    return 0.5 * _gradient(critic, samples.detach()).square().flatten(1).sum(dim=1).mean()


def _gradient(critic: Critic, at: Tensor) -> Tensor:
    """The critic's gradient at each sample, differentiable itself."""
    at = at.requires_grad_(True)
    with precise():
        (gradient,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    return gradient
