"""The shared game: every loss and cure trains, and small games go the way that theory says."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch

from faussaire import losses
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.families.dcgan import DCGAN, DCGANConfig
from faussaire.game import Levels, LossName, Replay, truncated

CPU = Device(name="cpu", precision="float32")
GREY = Pictures(channels=1, height=16, width=16)


def play(spec: Pictures = GREY, rounds: int = 2, labels=None, **settings) -> Rounds:
    """A few rounds of a tiny dcgan."""
    torch.manual_seed(0)
    family = DCGAN(DCGANConfig(width=4, **settings), spec)
    rng = np.random.default_rng(0)
    table = {"images": rng.integers(0, 256, (32, spec.height, spec.width, 1), dtype=np.uint8)}
    if labels is not None:
        table["labels"] = labels
    state = State(family, CPU, total=1000)
    playing = Rounds(state, Stream([table], seed=0), Plan(batch=8), World())
    for _ in range(rounds):
        playing.play()
    return playing


def test_the_setting_names_every_game():
    assert set(get_args(LossName)) == set(losses.GAMES)


@pytest.mark.parametrize("loss", losses.GAMES)
def test_every_loss_plays(loss):
    means = play(loss=loss).means.take(World())
    assert {"discriminator.adversarial", "generator.adversarial"} == set(means["losses"])
    assert all(math.isfinite(value) for value in means["losses"].values())
    assert ("D(x)" in means["signs"]) == losses.GAMES[loss].probability


def test_every_term_is_named_and_weighed():
    weights = {"r1": 2.0, "r2": 3.0, "gradient_penalty": 5.0, "dragan": 7.0, "drift": 0.5}
    once = play(rounds=1, **weights).means.take(World())["losses"]
    twice = play(rounds=1, **{k: 2 * v for k, v in weights.items()}).means.take(World())["losses"]
    for name in weights:
        assert once[f"discriminator.{name}"] > 0
        ratio = twice[f"discriminator.{name}"] / once[f"discriminator.{name}"]
        assert ratio == pytest.approx(2.0, rel=1e-4)


def test_lazy_penalties_have_a_phase_of_their_own():
    playing = play(rounds=5, r1=1.0, r2=1.0, penalty_every=4)
    means = playing.means
    assert means._counts["losses", "penalty.r1"] == 2  # rounds 0 and 4
    assert means._counts["losses", "discriminator.adversarial"] == 5
    assert "discriminator.r1" not in means.take(World())["losses"]
    assert play(r1=0.0, penalty_every=4).means.take(World())["losses"].keys() == {
        "discriminator.adversarial",
        "generator.adversarial",
    }


def test_clipping_bounds_every_weight_that_the_generator_meets():
    playing = play(loss="wasserstein", clip=0.01, rounds=3)
    family = playing.state.family
    family.clip_weights()
    largest = max(p.abs().max().item() for p in family.nets["discriminator"].parameters())
    assert largest == pytest.approx(0.01)


def test_a_two_time_scale_rule_and_a_decay():
    family = DCGAN(DCGANConfig(lr=1e-4, discriminator_lr=4e-4, lr_decay="linear"), GREY)
    found = {
        name: [spec.lr(Clock(examples=at, total=100)) for at in (0, 50, 100)]
        for name, spec in family.optimisers().items()
    }
    assert found["generator"] == pytest.approx([1e-4, 5e-5, 0.0])
    assert found["discriminator"] == pytest.approx([4e-4, 2e-4, 0.0])


def test_a_vector_is_a_condition_like_a_class():
    """The same pictures, described by one-hot vectors in place of classes: the same training."""
    numbers = np.arange(32) % 3
    by_class = Pictures(channels=1, height=16, width=16, classes=("a", "b", "c"))
    by_vector = Pictures(channels=1, height=16, width=16, vector=3)
    one = play(by_class, labels=numbers, conditional=True)
    two = play(by_vector, labels=np.eye(3, dtype=np.float32)[numbers], conditional=True)
    for name, value in one.state.tensors()["networks"].items():
        assert torch.equal(value, two.state.tensors()["networks"][name]), name
    draws = RowDraws.counted(0, 2)
    sampler = two.state.sampler()
    with torch.no_grad():
        made = sampler.sample(draws, labels=torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))
    assert made.shape == (2, 1, 16, 16)
    with pytest.raises(UserError, match="condition vectors"):
        sampler.sample(draws)


def test_conditional_needs_classes():
    with pytest.raises(UserError, match="at least two classes"):
        DCGAN(DCGANConfig(conditional=True), GREY)


@pytest.mark.parametrize("loss", [name for name, game in losses.GAMES.items() if not game.levelled])
def test_ada_refuses_losses_without_a_level(loss):
    with pytest.raises(UserError, match="differences of D"):
        DCGAN(DCGANConfig(augment="ada", loss=loss), GREY)


def test_a_gamma_that_is_none_or_nought_takes_no_penalty():
    for settings in ({"r1": None, "r2": None}, {"r1": 0.0, "r2": None}):
        means = play(penalty_every=2, rounds=3, **settings).means.take(World())["losses"]
        assert set(means) == {"discriminator.adversarial", "generator.adversarial"}


def test_consistency_is_nought_where_nothing_is_transformed(monkeypatch):
    monkeypatch.setattr("faussaire.game.diff_augment", lambda images, draws, policy: images)
    means = play(rounds=1, consistency=1.0, augment="ada").means.take(World())["losses"]
    # Batch norm sees the same batch, so that the same pictures get the same logits.
    assert means["discriminator.consistency"] == pytest.approx(0.0, abs=1e-10)


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="colour"):
        DCGANConfig(augment_policy="colour,cutout")


def test_lecam_levels_are_means_without_the_pull_of_zero():
    levels = Levels()
    assert levels.real == levels.fake == 0.0
    for _ in range(3):
        levels.update(torch.tensor(2.0), torch.tensor(-1.0))
        assert levels.real.item() == pytest.approx(2.0)
        assert levels.fake.item() == pytest.approx(-1.0)
    other = Levels()
    other.load(levels.state())
    other.update(torch.tensor(0.0), torch.tensor(0.0))
    assert 1.0 < other.real.item() < 2.0


def test_the_state_of_controllers_is_saved_and_put_back():
    playing = play(rounds=9, augment="ada", lecam=0.3, ada_span=50.0)
    saved = playing.state.family.extra_state()
    assert {"ada.p", "lecam.sums"} <= set(saved)
    other = DCGAN(DCGANConfig(width=4, augment="ada", lecam=0.3), GREY)
    other.load_extra_state(saved)
    assert all(torch.equal(saved[name], value) for name, value in other.extra_state().items())


def test_replayed_draws_repeat():
    replay = Replay(BatchDraws(1, total=4, rows=slice(0, 4)))
    first = [replay.uniform(2), replay.normal(), replay.integers(5)]
    replay.rewind()
    again = [replay.uniform(2), replay.normal(), replay.integers(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(replay.normal(), first[1])


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 2.0])
def test_truncation_gives_the_truncated_normal_distribution(threshold):
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    cut = truncated(z, threshold)
    assert cut.abs().max() <= threshold
    # Variance of a normal variable given |z| <= t: 1 - 2 t phi(t) / (2 Phi(t) - 1).
    inside = math.erf(threshold / math.sqrt(2))
    density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * threshold * density / inside
    # The standard error of a variance of n numbers is at most sqrt(2 / n) of it, 0.3 %.
    assert cut.var().item() == pytest.approx(variance, rel=0.015)
    assert (cut.sort().indices == z.sort().indices).float().mean() > 0.99  # order is kept
    with pytest.raises(UserError, match="no latent vectors"):
        truncated(z, 0.0)


# ---- The Dirac-GAN ----


def dirac(loss: str, *, r1: float = 0.0, r2: float = 0.0, rate: float = 0.05, steps: int = 1500):
    """Distances from the balance (0, 0) of the smallest GAN there is.

    Mescheder et al. 2018, arXiv 1801.04406, section 2: the data are a point at 0, the generator a
    point at theta, the discriminator D(x) = psi x. Simultaneous gradient descent from (1, 1).
    """
    theta = torch.tensor(1.0, dtype=torch.float64)
    psi = torch.tensor(1.0, dtype=torch.float64)
    game = losses.GAMES[loss]
    distances = []
    for _ in range(steps):
        theta.requires_grad_(True), psi.requires_grad_(True)

        def critic(x):
            return psi * x.squeeze(1)  # noqa: B023 - used within this turn of the loop

        x, fake = torch.zeros(1, 1, dtype=torch.float64), theta.view(1, 1)
        on_real, on_fake = critic(x), critic(fake)
        judge = game.discriminator(on_real, critic(fake.detach()))
        judge = judge + r1 * losses.zero_centred_penalty(critic, x)
        judge = judge + r2 * losses.zero_centred_penalty(critic, fake)
        (dpsi,) = torch.autograd.grad(judge, psi)
        (dtheta,) = torch.autograd.grad(game.generator(on_real.detach(), on_fake), theta)
        theta, psi = (theta - rate * dtheta).detach(), (psi - rate * dpsi).detach()
        distances.append(math.hypot(float(theta), float(psi)))
    return distances


def test_the_unpenalised_dirac_gan_circles_and_never_arrives():
    """Its eigenvalues at the balance are imaginary, +-f'(0) i, so that steps of a finite size even
    drift outwards (theorem 2.2 and lemma 2.3): for a linear loss by sqrt(1 + rate^2) each."""
    assert dirac("minimax")[-1] > 1.0
    distances = dirac("wasserstein")
    growth = math.sqrt(1 + 0.05**2)
    assert distances[-1] / distances[0] == pytest.approx(growth ** (len(distances) - 1))


@pytest.mark.long
@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_saturation_alone_arrives_at_no_linear_rate(loss):
    """The same eigenvalues; only higher orders pull, the distance falling about as 1 / sqrt(t).

    (With its real at 0 the relativistic Dirac-GAN is the non-saturating one, but for a constant.)
    """
    distances = dirac(loss, steps=6000)
    assert distances[-1] > 0.1
    assert 0.6 < distances[5999] / distances[2999] < 1.0  # 1 / sqrt(2) is 0.71


@pytest.mark.parametrize("loss", ["nonsaturating", "minimax", "wasserstein", "relativistic"])
@pytest.mark.parametrize("penalty", [{"r1": 0.5}, {"r2": 0.5}, {"r1": 0.5, "r2": 0.5}], ids=str)
def test_zero_centred_penalties_bring_the_dirac_gan_home(loss, penalty):
    """Both add -gamma to the real part (theorem 4.1), here gamma/2 each on half of the trace."""
    distances = dirac(loss, **penalty)
    assert distances[-1] < 1e-3


def test_the_dirac_gan_contracts_at_the_rate_of_its_eigenvalues():
    """Wasserstein with R1: the step matrix [[1, h], [-h, 1 - h gamma]] in (theta, psi)."""
    rate, gamma = 0.05, 0.5
    distances = dirac("wasserstein", r1=gamma, rate=rate, steps=800)
    step = np.array([[1.0, rate], [-rate, 1.0 - rate * gamma]])
    radius = max(abs(np.linalg.eigvals(step)))
    measured = (distances[700] / distances[300]) ** (1 / 400)
    assert measured == pytest.approx(radius, rel=1e-3)


def test_fakes_are_shared_and_detached():
    """Both players see the same fakes, and the discriminator's step leaves no gradient on them."""
    family = DCGAN(DCGANConfig(width=4), GREY)
    draws = BatchDraws(0, total=4, rows=slice(0, 4))
    batch = Batch({"images": torch.zeros(4, 1, 16, 16)}, draws, 4)
    clock = Clock()
    first, second = family.fakes(batch, clock), family.fakes(batch, clock)
    assert first is second
    loss = family.discriminator_loss(batch, clock)["adversarial"]
    inside = torch.autograd.grad(
        loss, list(family.nets["generator"].parameters()), allow_unused=True
    )
    assert all(gradient is None for gradient in inside)
