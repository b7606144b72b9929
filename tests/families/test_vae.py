"""What the papers say of vae and vaegan: the bound, the three ways of gradients, latents in use."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from faussaire.asking import Wanted, divide
from faussaire.autoencoding import divergence, drawn
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
from faussaire.families.vae import LEAST, VAE, VAEConfig, black_or_white, deviation_of
from faussaire.families.vaegan import VAEGAN, VAEGANConfig, halvings
from faussaire.rebuilding import Known, latent_figures

GREY = Pictures(channels=1, height=16, width=16, classes=("dark", "light"))
CPU = Device(name="cpu", precision="float32")


def shades(count: int = 256) -> dict[str, np.ndarray]:
    """Discs anywhere, darker than their ground (class 0) or lighter."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:16, :16]
    middles = rng.uniform(5, 11, size=(count, 2))
    inside = np.hypot(y - middles[:, :1, None], x - middles[:, 1:, None]) < 4
    labels = np.arange(count) % 2
    light = np.where(inside == (labels == 1)[:, None, None], 230, 30).astype(np.uint8)
    return {"images": light[..., None], "labels": labels}


def floats(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def batch_of(count: int = 8) -> Batch:
    table = shades(count)
    fields = {"images": floats(table["images"]), "labels": torch.from_numpy(table["labels"])}
    return Batch(fields, BatchDraws(3, total=count, rows=slice(0, count)), count)


@pytest.fixture(scope="module")
def learnt():
    """A small conditional VAE that has seen 25,600 discs; with averaged weights."""
    torch.manual_seed(0)
    config = VAEConfig(net="mlp", hidden=64, latent=6, conditional=True, lr=3e-3)
    state = State(VAE(config, GREY), CPU, total=25_600)
    rounds = Rounds(state, Stream([shades()], seed=0), Plan(batch=64), World())
    while state.clock.examples < 25_600:
        rounds.play()
    family = state.sampler()
    for net in family.nets.values():
        net.eval()
    return family


# ---- The bound ----


def test_the_divergence_is_that_of_gaussians():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    exact = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), exact)


def test_the_likelihoods_are_those_of_the_distributions():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 16, 16) * 2 - 1
    target, logits = (x + 1) / 2, torch.randn(4, 1, 16, 16)
    family = VAE(VAEConfig(), GREY)
    whole = Bernoulli(logits=logits).log_prob(target.round()).flatten(1).sum(1)
    torch.testing.assert_close(
        family.surprise(target.round() * 2 - 1, logits, torch.zeros(1)), -whole
    )
    for level in (torch.tensor([-2.0]), torch.randn(4, 1, 16, 16)):
        family = VAE(VAEConfig(likelihood="gaussian"), GREY)
        wanted = Normal(logits.sigmoid(), deviation_of(level)).log_prob(target).flatten(1).sum(1)
        torch.testing.assert_close(family.surprise(x, logits, level), -wanted)


@pytest.mark.parametrize("spread", ["shared", "pixel", "fixed"])
def test_the_gaussian_begins_with_the_deviation_asked_for(spread):
    config = VAEConfig(likelihood="gaussian", spread=spread, deviation=0.2, net="mlp")
    decoder = VAE(config, GREY).nets["decoder"]
    with torch.no_grad():
        decoder.body[-1].weight.zero_()
        out, level = decoder(torch.randn(2, 64))
    assert out.shape == (2, 1, 16, 16)
    torch.testing.assert_close(deviation_of(level), torch.full_like(level, 0.2))
    assert isinstance(decoder.level, torch.nn.Parameter) == (spread == "shared")
    assert float(deviation_of(torch.tensor(-50.0))) == pytest.approx(LEAST)


def test_the_bound_lies_above_the_exact_surprise():
    """With a single latent number, p(x) is an integral that can be done."""
    torch.manual_seed(0)
    family = VAE(VAEConfig(net="mlp", hidden=8, latent=1), GREY)
    x = batch_of()["images"]
    z = torch.linspace(-6, 6, 2001)[:, None]
    with torch.no_grad():
        logits, level = family.nets["decoder"](z)
        step, exact = float(z[1, 0] - z[0, 0]), []
        for one in x:
            given = -family.surprise(one.expand(len(z), -1, -1, -1), logits, level)
            prior = Normal(0.0, 1.0).log_prob(z[:, 0])
            exact.append(-(given + prior).logsumexp(0) - math.log(step))
        costs = torch.stack(
            [sum(family.costs(x, None, torch.randn(len(x), 1))) for _ in range(400)]
        ).mean(0)
    assert (costs > torch.stack(exact) - 1e-2).all()


def test_z_is_drawn_from_the_posterior_and_is_its_mean_without_noise():
    mean, log_variance = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), math.log(0.25))
    torch.manual_seed(0)
    z = drawn(mean, log_variance, torch.randn(20_000, 1))
    assert float(z.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(z.std()) == pytest.approx(0.5, abs=0.02)
    assert drawn(mean, log_variance, None) is mean


def test_binarised_pixels_are_white_as_often_as_their_grey_says():
    torch.manual_seed(0)
    x = torch.full((1, 1, 200, 200), 0.4)  # 70 % white
    drawn_ = black_or_white(x, torch.rand_like(x))
    assert set(drawn_.unique().tolist()) == {-1.0, 1.0}
    assert float((drawn_ > 0).float().mean()) == pytest.approx(0.7, abs=0.01)


def test_beta_is_annealed_and_weighs_the_divergence_alone():
    family = VAE(VAEConfig(beta=4.0, anneal=0.5, net="mlp", hidden=8), GREY)
    assert [family.weight(Clock(examples=n, total=100)) for n in (0, 25, 50, 90)] == [0, 2, 4, 4]
    terms = {
        n: family.loss(batch_of(), Clock(examples=n, total=100)) for n in (25, 50)
    }  # the same draws
    torch.testing.assert_close(terms[25]["reconstruction"], terms[50]["reconstruction"])
    torch.testing.assert_close(2 * terms[25]["divergence"], terms[50]["divergence"])


def test_the_presets_are_the_papers_networks():
    digits = Pictures(channels=1, height=28, width=28)
    family = VAE(VAEConfig(**{k: v for k, v in VAE.presets["mlp"].items() if k != "batch"}), digits)
    shapes = [tuple(p.shape) for p in family.nets["encoder"].parameters() if p.dim() == 2]
    assert shapes == [(400, 784), (40, 400)]
    shapes = [tuple(p.shape) for p in family.nets["decoder"].parameters() if p.dim() == 2]
    assert shapes == [(400, 20), (784, 400)]


# ---- Learning, and use ----


def test_it_learns_to_rebuild_and_says_so_in_nats(learnt):
    pixels, labels = shades(64)["images"], shades(64)["labels"]
    known = Known(pixels, labels, "held-out", "key", True)
    tell = {"seed": 1}
    elbo, units = latent_figures(learnt, CPU, known, ("elbo", "active-units"), **tell)
    torch.manual_seed(0)
    untaught = VAE(learnt.config, GREY)
    (before,) = latent_figures(untaught, CPU, known, ("elbo",), **tell)
    # Two grey levels and where the disc is: 69.1 nats are the entropy of pixels at .1 and .9 alone.
    assert elbo.value < 110 < before.value
    assert elbo.value == pytest.approx(elbo.parts["reconstruction"] + elbo.parts["divergence"])
    assert elbo.provenance.details == "bernoulli"
    assert 2 <= units.value <= 6  # a place has two numbers
    assert units.provenance.details == "of=6"
    again = latent_figures(learnt, CPU, known, ("elbo",), **tell)[0]
    assert again.value == elbo.value
    x = floats(pixels)
    with torch.no_grad():
        rebuilt = learnt.apply(x, RowDraws.counted(0, len(x)))
    assert float((rebuilt - x).abs().mean()) < 0.35 * float((x - x.mean(0)).abs().mean())


def test_a_class_that_nobody_told_is_found_and_another_can_be_had(learnt):
    table = shades(64)
    x, labels = floats(table["images"]), torch.from_numpy(table["labels"])
    with torch.no_grad():
        assert torch.equal(learnt.likeliest(x), labels)
        z = learnt.encode(x, labels)
        assert torch.equal(learnt.encode(x), z)
        same = learnt.sample(RowDraws.counted(0, 64), labels=labels, latents=z)
        other = learnt.sample(RowDraws.counted(0, 64), labels=1 - labels, latents=z)
    middle = (slice(None), 0, 8, 8)
    assert (same[middle].sign() == x[middle].sign()).float().mean() > 0.9
    assert (other[middle].sign() == -x[middle].sign()).float().mean() > 0.9


def test_what_is_added_to_latents_moves_the_picture(learnt):
    """Discs on the right less discs on the left, added to those on the left.

    Of one class: nothing says that latents mean the same in each.
    """
    x = floats(shades(256)["images"][::2])
    columns = torch.arange(16.0)
    ink = (x - x[:, :, :1, :1]).abs().sum((1, 2))  # of each column
    place = (ink * columns).sum(1) / ink.sum(1)
    with torch.no_grad():
        z = learnt.encode(x)
        shift = z[place > 8.5].mean(0) - z[place < 6.5].mean(0)
        left = x[place < 6.5]
        plain = learnt.apply(left, RowDraws.counted(0, len(left)))
        moved = learnt.moved(shift).apply(left, RowDraws.counted(0, len(left)))
    ends = [(part - part[:, :, :1, :1]).abs().sum((1, 2)) for part in (plain, moved)]
    before, after = ((ink * columns).sum(1) / ink.sum(1) for ink in ends)
    assert (after > before + 0.7).float().mean() > 0.9
    assert learnt.shift is None  # a view was moved


def test_metrics_of_latents_are_refused_where_they_mean_nothing():
    plain = DCGAN(DCGANConfig(width=4), GREY)
    with pytest.raises(UserError, match="dcgan has none"):
        divide(plain, "elbo")
    assert divide(plain, None) == Wanted(None, (), (), must=False)
    with pytest.raises(UserError, match="features instead"):
        divide(VAEGAN(VAEGANConfig(width=4), GREY), "elbo")
    vae = VAE(VAEConfig(width=4), GREY)
    assert divide(vae, "fid,elbo,psnr") == Wanted(("fid",), ("elbo",), ("psnr",), must=True)
    assert divide(vae, None) == Wanted(None, ("elbo", "active-units"), (), must=False)
    with pytest.raises(UserError, match="dcgan has no encoder"):
        plain.encode(torch.zeros(1, 1, 16, 16))
    with pytest.raises(UserError, match="encodes no pictures"):
        plain.moved(torch.zeros(3))


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="two classes"):
        VAE(VAEConfig(conditional=True), Pictures(channels=1, height=16, width=16))
    with pytest.raises(UserError, match="at least 16x16"):
        VAEGAN(VAEGANConfig(), Pictures(channels=1, height=12, width=16))
    with pytest.raises(UserError, match="deviation"):
        VAEConfig(deviation=0.0)


@pytest.mark.parametrize("kind", [VAE, VAEGAN])
def test_the_map_that_directions_are_sought_in_is_the_decoders_first(kind):
    family = kind(kind.Config(conditional=True, width=8), GREY)
    (found,) = family.affines()
    decoder = family.nets["decoder"]
    layer = decoder.project if isinstance(family, VAE) else decoder.dense.linear
    z = torch.randn(2, family.latent)
    told = torch.zeros(2, layer.in_features - family.latent)  # of no class
    bias = 0.0 if layer.bias is None else layer.bias
    torch.testing.assert_close(layer(torch.cat([z, told], dim=1)) - bias, z @ found.T)


# ---- The three ways of VAE-GAN ----


def gradients(family, net: str, loss, seed: int = 3) -> torch.Tensor:
    """Of a phase's loss with respect to one net, as one vector."""
    batch = batch_of()
    terms = loss(family)(batch, Clock())
    found = torch.autograd.grad(
        sum(terms.values()), list(family.nets[net].parameters()), allow_unused=True
    )
    return torch.cat([g.flatten() for g in found if g is not None])


def test_the_encoder_never_sees_the_game_and_the_decoder_does():
    """Turning the discriminator's verdict around changes nothing for the one, much for the other."""
    results = []
    for sign in (1.0, -1.0):
        torch.manual_seed(0)
        family = VAEGAN(VAEGANConfig(width=4, latent=4), GREY)
        with torch.no_grad():
            family.nets["discriminator"].end.weight.mul_(sign)
        results.append(
            (
                gradients(family, "encoder", lambda f: f.encoder_loss),
                gradients(family, "decoder", lambda f: f.decoder_loss),
            )
        )
    (encoder, decoder), (encoder_, decoder_) = results
    assert torch.equal(encoder, encoder_)
    assert (decoder - decoder_).norm() > 0.1 * decoder.norm()


def test_the_decoder_gets_gamma_times_the_features_less_the_game():
    def decoder(gamma: float, keep=lambda name: True) -> torch.Tensor:
        torch.manual_seed(0)
        family = VAEGAN(VAEGANConfig(width=4, latent=4, gamma=gamma), GREY)
        original = family.decoder_loss
        return gradients(
            family,
            "decoder",
            lambda f: lambda b, c: {k: v for k, v in original(b, c).items() if keep(k)},
        )

    game = decoder(0.0)
    features = decoder(1.0, lambda name: name == "features")
    torch.testing.assert_close(decoder(3.0), game + 3.0 * features, rtol=1e-3, atol=1e-6)
    assert features.norm() > 0


def test_the_discriminator_judges_three_kinds_of_pictures_once_each():
    torch.manual_seed(0)
    family = VAEGAN(VAEGANConfig(width=4, latent=4), GREY)
    batch = batch_of()
    terms = family.discriminator_loss(batch, Clock())
    assert terms.keys() == {"real", "rebuilt", "sampled"}
    assert not torch.equal(family.rebuilt(batch), family.fakes(batch))
    grads = torch.autograd.grad(
        sum(terms.values()),
        [*family.nets["decoder"].parameters(), *family.nets["encoder"].parameters()],
        allow_unused=True,
        materialize_grads=True,
    )
    assert all(not g.any() for g in grads)


def test_pictures_are_compared_after_the_layer_asked_for():
    spec = Pictures(channels=3, height=64, width=64)
    assert [halvings(side, side) for side in (16, 28, 32, 64, 128)] == [1, 2, 2, 3, 4]
    shapes = []
    for layer in (1, 2, None):
        net = VAEGAN(VAEGANConfig(width=8, layer=layer), spec).nets["discriminator"].eval()
        with torch.no_grad():
            shapes.append(tuple(net(torch.zeros(1, 3, 64, 64))[1].shape[1:]))
    assert shapes == [(4, 64, 64), (16, 32, 32), (32, 8, 8)]  # an eighth of table 1's widths


def test_the_warm_up_moves_the_discriminator_alone():
    family = VAEGAN(VAEGANConfig(width=4, latent=4, warm_up=0.25), GREY)
    first, then = family.stages(100)
    assert (first.until, [phase.name for phase in first.phases]) == (25, ["discriminator"])
    assert [phase.name for phase in then.phases] == ["discriminator", "encoder", "decoder"]
    assert family.examined(batch_of(), Clock(examples=24, total=100)) is None
    assert family.examined(batch_of(), Clock(examples=25, total=100)) is not None
