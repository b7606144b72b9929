"""Losses as pure functions, in float32: adversarial ones with their penalties, and perceptual ones.

Logits are what a discriminator gives before any sigmoid, (N,) or (N, 1, h, w) for patches: positive
means real. Each function returns a scalar to be lowered, a mean over all logits.

`GAMES` has the losses as pairs by name. Penalties take samples as (N, ...), or as a tuple of such
tensors where a critic looks at several at once (the scales of a picture): norms are then over all.

Perceptual losses compare maps of a network's layers, (N, C, h, w) each, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.device import differentiable_twice
from faussaire.core.twice import of_inputs_only

Samples = Tensor | tuple[Tensor, ...]
Critic = Callable[[Samples], Tensor]
Mean = Callable[[Tensor], Tensor]


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


def discriminator_relativistic_average(
    real: Tensor, fake: Tensor, mean: Mean = torch.mean
) -> Tensor:
    """Reals against the mean fake, fakes against the mean real.

    -E[log sigmoid(D(x) - E D(G(z)))] - E[log(1 - sigmoid(D(G(z)) - E D(x)))]. Jolicoeur-Martineau
    2018, arXiv 1807.00734, section 4.2 (RaSGAN); the loss of ESRGAN (Wang et al. 2018, arXiv
    1809.00219, equation 1).
    """
    return F.softplus(mean(fake) - real).mean() + F.softplus(fake - mean(real)).mean()


def generator_relativistic_average(real: Tensor, fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    """The same with real and fake exchanged. Wang et al. 2018, arXiv 1809.00219, equation 2."""
    return discriminator_relativistic_average(fake, real, mean)


def discriminator_relativistic_average_hinge(
    real: Tensor, fake: Tensor, mean: Mean = torch.mean
) -> Tensor:
    """E[max(0, 1 - D(x) + E D(G(z)))] + E[max(0, 1 + D(G(z)) - E D(x))].

    Jolicoeur-Martineau 2018, arXiv 1807.00734, appendix (RaHingeGAN): both sides against the other's
    mean, and nothing is gained beyond a margin of 1.
    """
    return F.relu(1.0 - (real - mean(fake))).mean() + F.relu(1.0 + (fake - mean(real))).mean()


def generator_relativistic_average_hinge(
    real: Tensor, fake: Tensor, mean: Mean = torch.mean
) -> Tensor:
    """The same with real and fake exchanged."""
    return discriminator_relativistic_average_hinge(fake, real, mean)


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


def gradient_penalty(critic: Critic, real: Samples, fake: Samples, mix: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2] at points x^ between reals and fakes.

    Gulrajani et al. 2017, arXiv 1704.00028, equation 3 without lambda.

    Args:
        critic: gives logits, (N,).
        real, fake: (N, ...).
        mix: (N,) uniform in [0, 1]: the epsilon of each sample.
    """
    between = tuple(
        torch.lerp(two.detach(), one.detach(), mix.view(-1, *[1] * (one.dim() - 1)))
        for one, two in zip(_parts(real), _parts(fake), strict=True)
    )
    at = between if isinstance(real, tuple) else between[0]
    return (_gradients(critic, at)[1].norm(dim=1) - 1.0).square().mean()


def dragan_penalty(critic: Critic, real: Samples, noise: Samples) -> Tensor:
    """E[(|grad D(x + delta)| - 1)^2] around reals alone.

    Kodali et al. 2017, "On Convergence and Stability of GANs", arXiv 1705.07215, section 3, without
    lambda and with k = 1.

    Args:
        critic: gives logits, (N,).
        real: (N, ...).
        noise: delta, of the same shape.
    """
    around = tuple(
        one.detach() + two.detach() for one, two in zip(_parts(real), _parts(noise), strict=True)
    )
    at = around if isinstance(real, tuple) else around[0]
    return (_gradients(critic, at)[1].norm(dim=1) - 1.0).square().mean()


def zero_centred_penalty(critic: Critic, samples: Samples) -> Tensor:
    """1/2 E[|grad D(x)|^2]: R1 on real samples, R2 on fakes, without gamma.

    Mescheder et al. 2018, arXiv 1801.04406, equations 9 and 10. The norm sums over all dimensions of
    a sample.

    Args:
        critic: gives logits, (N,).
        samples: (N, ...).
    """
    return judged_with_penalty(critic, samples)[1]


def judged_with_penalty(critic: Critic, samples: Samples) -> tuple[Tensor, Tensor]:
    """D(x), (N,), and `zero_centred_penalty` there: where both are needed, one forward gives both."""
    logits, gradients = _gradients(critic, samples)
    return logits, 0.5 * gradients.square().sum(dim=1).mean()


def matching_penalty(
    critic: Callable[[Tensor, Tensor], Tensor], real: Tensor, condition: Tensor, power: float
) -> Tensor:
    """E[(|grad_x D(x, e)| + |grad_e D(x, e)|)^p] at real pictures beside their own conditions.

    Tao et al. 2022, DF-GAN, arXiv 2008.05865, equation 3, without k.

    Args:
        critic: of samples and conditions, gives logits, (N,).
        real: (N, ...).
        condition: (N, D).
        power: p.
    """
    shape = real.shape
    sizes = [real[0].numel(), condition.shape[1]]
    _, gradients = _gradients(
        lambda parts: critic(parts[0].view(shape), parts[1]), (real.flatten(1), condition)
    )
    of_real, of_condition = gradients.split(sizes, dim=1)
    return (of_real.norm(dim=1) + of_condition.norm(dim=1)).pow(power).mean()


def _parts(samples: Samples) -> tuple[Tensor, ...]:
    return samples if isinstance(samples, tuple) else (samples,)


def _gradients(critic: Critic, samples: Samples) -> tuple[Tensor, Tensor]:
    """Logits, and the critic's gradient at each sample as a row, (N, D); both differentiable."""
    leaves = tuple(part.detach().requires_grad_(True) for part in _parts(samples))
    with differentiable_twice():
        logits = critic(leaves if isinstance(samples, tuple) else leaves[0])
        with of_inputs_only():
            gradients = torch.autograd.grad(logits.sum(), leaves, create_graph=True)
    rows = [gradient.flatten(1) for gradient in gradients]
    return logits, torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]


@dataclass(frozen=True)
class Game:
    """A discriminator's loss and the generator's answer.

    Attributes:
        discriminator: of logits (real, fake).
        generator: of logits (real, fake); only a relativistic one looks at the first.
        relativistic: whether the generator's loss needs D(x).
        levelled: whether 0 is where D is undecided; a loss that compares, or has no bound, says
            nothing of D's level.
        probability: whether the sigmoid of a logit is D's probability that the sample is real.
        average: whether both take `mean`, the mean over all logits of the batch: where it lies on
            several processes, that is not the mean of the logits at hand.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    relativistic: bool = False
    levelled: bool = True
    probability: bool = False
    average: bool = False


def _of_fakes(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda real, fake: loss(fake)


GAMES: dict[str, Game] = {
    "nonsaturating": Game(
        discriminator_minimax, _of_fakes(generator_nonsaturating), probability=True
    ),
    "minimax": Game(discriminator_minimax, _of_fakes(generator_minimax), probability=True),
    "least-squares": Game(discriminator_least_squares, _of_fakes(generator_least_squares)),
    "wasserstein": Game(critic_wasserstein, _of_fakes(generator_wasserstein), levelled=False),
    "hinge": Game(discriminator_hinge, _of_fakes(generator_hinge)),
    "relativistic": Game(
        discriminator_relativistic, generator_relativistic, relativistic=True, levelled=False
    ),
    "relativistic-average": Game(
        discriminator_relativistic_average,
        generator_relativistic_average,
        relativistic=True,
        levelled=False,
        average=True,
    ),
    "relativistic-average-hinge": Game(
        discriminator_relativistic_average_hinge,
        generator_relativistic_average_hinge,
        relativistic=True,
        levelled=False,
        average=True,
    ),
}
"""The losses by name: what the setting `loss` of the image families chooses from."""


def gram(maps: Tensor) -> Tensor:
    """Gram matrices of maps: which channels are active together, wherever that is.

    G_ij = 1/M sum_k F_ik F_jk over the M = h w places. Gatys et al. 2016, "Image Style Transfer Using
    Convolutional Neural Networks", equation 3, which sums; the mean compares pictures of any sizes.

    Args:
        maps: (N, C, h, w).

    Returns:
        (N, C, C).
    """
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def style_loss(
    grams: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """sum_l w_l |G_l - A_l|^2 / |A_l|^2, the norms being Frobenius'.

    Gatys et al. 2016, equations 4 and 5: a layer's term there is |G_l - A_l|^2 / (4 C^2) of Gram
    matrices of means. Measured by the target itself, it is 0 for the style and 1 for a picture of which
    the layer sees nothing, in every layer of every network: so weights need no tuning to the network.

    Args:
        grams: of the pictures, by layer, (N, C, C) each.
        targets: of the style, (1, C, C) or (N, C, C) each.
        weights: w_l, by the names of the layers that count.
    """
    return _weighted(grams, targets, weights)


def content_loss(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """sum_l w_l |F_l - P_l|^2 / |P_l|^2: whether the same things are seen at the same places.

    Gatys et al. 2016, equation 1, is 1/2 |F_l - P_l|^2; for the norm that it is measured by, see
    `style_loss`.

    Args:
        maps: of the pictures, by layer, (N, C, h, w) each.
        targets: of the content, of the same shapes.
        weights: w_l, by the names of the layers that count.
    """
    return _weighted(maps, targets, weights)


def _weighted(
    found: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """sum_l w_l of the mean over the rows of |X_l - Y_l|^2 / |Y_l|^2."""
    terms = []
    for name, weight in weights.items():
        target = targets[name].flatten(1)
        apart = (found[name].flatten(1) - target).square().sum(1)
        # The size of a layer that sees nothing in the target is no measure.
        size = target.square().sum(1).clamp(min=torch.finfo(target.dtype).tiny)
        terms.append(weight * (apart / size).mean())
    return torch.stack(terms).sum()


def perceptual_loss(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """sum_l w_l / (C h w) |F_l - P_l|^2, a mean over the batch.

    Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", arXiv
    1603.08155, equation 2: the feature reconstruction loss.

    Args:
        maps, targets: by layer, (N, C, h, w) each, of the same shapes.
        weights: w_l, by the names of the layers that count.
    """
    terms = [weight * F.mse_loss(maps[name], targets[name]) for name, weight in weights.items()]
    return torch.stack(terms).sum()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """sum_i 1/N_i |D_i(x) - D_i(G(z))|_1 over the layers of a discriminator.

    Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs"
    (pix2pixHD), arXiv 1711.11585, equation 4. No gradient goes to the side of the reals.

    Args:
        fake, real: maps of each layer, of the same shapes.
    """
    pairs = zip(fake, real, strict=True)
    return torch.stack([F.l1_loss(one, other.detach()) for one, other in pairs]).sum()


def total_variation(x: Tensor, beta: float = 2.0) -> Tensor:
    """The mean over places and channels of (dx^2 + dy^2)^(beta / 2), of differences of neighbours.

    Mahendran and Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them", arXiv
    1412.0035, section 2.2. With beta 2 it smoothes; with beta 1 edges may stay.

    Args:
        x: pictures (N, C, H, W), of at least 2x2 pixels.
        beta: above 0.
    """
    down = x[..., 1:, :-1] - x[..., :-1, :-1]
    right = x[..., :-1, 1:] - x[..., :-1, :-1]
    steep = down.square() + right.square()
    if beta == 2.0:
        return steep.mean()
    return (steep + 1e-8).pow(beta / 2.0).mean()  # a root has no slope at 0
