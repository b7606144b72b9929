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


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]: nothing is gained beyond a margin of 1.

    Lim and Ye 2017, "Geometric GAN", arXiv 1705.02894; Miyato et al. 2018, arXiv 1802.05957,
    equation 16, negated.
    """
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """-E[D(G(z))]. Miyato et al. 2018, arXiv 1802.05957, equation 17, negated."""
    return -fake.mean()


def discriminator_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """E[-log sigmoid(D(x) - D(G(z)))], reals and fakes in pairs.

    Jolicoeur-Martineau 2018, "The relativistic discriminator", arXiv 1807.00734, section 4; the
    loss of R3GAN (Huang et al. 2024, arXiv 2501.05441). Every fake is judged beside a real, so no
    generator can win by making all reals look fake.

    Args:
        real, fake: logits of the same shape, (N, ...).
    """
    return F.softplus(fake - real).mean()


def generator_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """E[-log sigmoid(D(G(z)) - D(x))]: the pairs of `discriminator_relativistic`, turned around."""
    return F.softplus(real - fake).mean()


def discriminator_relativistic_average(real: Tensor, fake: Tensor) -> Tensor:
    """Reals against the mean fake, fakes against the mean real.

    -E[log sigmoid(D(x) - E D(G(z)))] - E[log(1 - sigmoid(D(G(z)) - E D(x)))]. Jolicoeur-Martineau
    2018, arXiv 1807.00734, section 4.2 (RaSGAN); the loss of ESRGAN (Wang et al. 2018, arXiv
    1809.00219, equation 1).
    """
    return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()


def generator_relativistic_average(real: Tensor, fake: Tensor) -> Tensor:
    """The same with real and fake exchanged. Wang et al. 2018, arXiv 1809.00219, equation 2."""
    return discriminator_relativistic_average(fake, real)


def lecam(real: Tensor, fake: Tensor, real_level: Tensor, fake_level: Tensor) -> Tensor:
    """E[(D(x) - a_F)^2] + E[(D(G(z)) - a_R)^2], for few data, without lambda.

    Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", arXiv
    2104.03310, section 3: each side's logits are drawn towards the other side's usual level, which
    keeps a discriminator from being sure.

    Args:
        real, fake: logits.
        real_level, fake_level: a_R and a_F, moving averages of E[D(x)] and of E[D(G(z))].
    """
    return (real - fake_level).square().mean() + (fake - real_level).square().mean()


def consistency(logits: Tensor, augmented: Tensor) -> Tensor:
    """E[(D(x) - D(T(x)))^2]: a picture is as real after an augmentation T as before.

    Zhang et al. 2020, arXiv 1910.12027, on reals; Zhao et al. 2021, arXiv 2002.04724, on fakes, too
    (bCR). Without lambda.
    """
    return (logits - augmented).square().mean()


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


def dragan_penalty(critic: Critic, real: Tensor, noise: Tensor) -> Tensor:
    """E[(|grad D(x + delta)| - 1)^2] around reals alone.

    Kodali et al. 2017, "On Convergence and Stability of GANs", arXiv 1705.07215, section 3, without
    lambda and with k = 1.

    Args:
        critic: gives logits, (N,).
        real: (N, ...).
        noise: delta, of the same shape.
    """
    at = real.detach() + noise.detach()
    return (_gradient(critic, at).flatten(1).norm(dim=1) - 1.0).square().mean()


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
