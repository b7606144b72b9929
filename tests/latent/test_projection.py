"""Codes, where they lie, and the search for those of pictures."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import FAMILIES

from faussaire.core.errors import UserError
from faussaire.core.state import settling_draws
from faussaire.latent.likeness import Likeness, psnr
from faussaire.latent.projection import Search, autocorrelation, project, ramp
from faussaire.latent.space import Space
from faussaire.latent.tuning import Tuning, load_tuned, save_tuned, tune
from faussaire.metrics.maps import FeatureMaps
from faussaire.model import Model
from latent.conftest import PLACE, tiny


@pytest.mark.parametrize(
    ("family", "name"), [("stylegan2", "w"), ("stylegan2", "z"), ("dcgan", "z")]
)
def test_codes_of_seeds_show_what_sample_shows(request, family, name):
    family = request.getfixturevalue(family)
    space = Space(family, name)
    shown = space.show(space.draw(3, seeds=[4, 5, 6]))
    sampled = Model(family, family.spec, 0, PLACE).sample(seeds=[4, 5, 6]) * 2.0 - 1.0
    assert torch.allclose(shown, sampled, atol=1e-5)


def test_a_code_of_w_is_one_of_w_plus_repeated(stylegan2):
    w, plus = Space(stylegan2, "w"), Space(stylegan2, "w+")
    codes = w.draw(2, 1)
    assert plus.layers == plus.depth == stylegan2.styles == len(stylegan2.affines())
    assert torch.allclose(w.show(codes), plus.show(codes.expand(-1, plus.layers, -1)))
    assert plus.mean.shape == (1, plus.layers, 8)


def test_the_spread_is_that_of_the_codes(stylegan2):
    space = Space(stylegan2, "w")
    codes = space.draw(4000, 9)[:, 0]
    spread = space.spread
    assert torch.allclose(spread.mean[0], codes.mean(0), atol=0.05 * spread.sigma)
    assert spread.sigma == pytest.approx(float(codes.var(0).sum().sqrt()), rel=0.05)
    way = torch.randn(8, generator=torch.Generator().manual_seed(0))
    along = float((codes @ (way / way.norm())).std())
    assert spread.along(7.0 * way) == pytest.approx(along, rel=0.1)
    assert torch.allclose(space.truncated(codes[:, None], 0.0)[:, 0], spread.mean.expand(4000, -1))


def test_families_without_a_space_say_so(dcgan):
    with pytest.raises(UserError, match="dcgan has no space 'w'"):
        Space(dcgan, "w")
    with pytest.raises(UserError, match="no mapping"):
        dcgan.mapped(torch.zeros(1, 8))
    with pytest.raises(UserError, match="no styles"):
        dcgan.synthesised(torch.zeros(1, 8))


@pytest.mark.parametrize(("name", "least"), [("w", 30.0), ("w+", 30.0), ("z", 14.0)])
def test_a_models_own_samples_are_found_again(stylegan2, pixels_only, name, least):
    space = Space(stylegan2, name)
    targets = Space(stylegan2, "w").show(Space(stylegan2, "w").draw(2, 3))
    nothing = psnr(space.show(space.mean.expand(2, -1, -1)), targets)
    told = []
    found = project(space, targets, pixels_only, Search(steps=100), watch=told.append)
    assert (found.psnr > least).all(), found.psnr
    assert (found.psnr > nothing + 3.0).all()
    assert torch.allclose(found.made, space.show(found.codes), atol=1e-5)
    assert told[-1].progress == 1.0
    assert told[-1].remaining == 0.0


def test_samples_of_dcgan_are_found_in_z(dcgan, pixels_only):
    space = Space(dcgan, "z")
    codes = space.draw(2, 8)
    targets = space.show(codes)
    found = project(space, targets, pixels_only, Search(steps=120))
    others = psnr(space.show(space.draw(2, 77)), targets)
    assert (found.psnr > others + 10.0).all(), (found.psnr, others)


def test_a_picture_is_sought_alike_alone_and_among_others(stylegan2, pixels_only):
    space = Space(stylegan2, "w")
    targets = space.show(space.draw(3, 3))
    three = project(space, targets, pixels_only, Search(steps=12, batch=3))
    alone = project(space, targets[:1], pixels_only, Search(steps=12))
    parts = project(space, targets, pixels_only, Search(steps=12, batch=1))
    assert torch.allclose(three.codes[:1], alone.codes, atol=1e-4)
    assert torch.allclose(three.codes, parts.codes, atol=1e-4)


def test_noise_is_sought_too_and_stays_white():
    family = tiny("noisy")
    space = Space(family, "w")
    target = space.show(space.draw(1, 3))
    assert family.noise_planes[0] == (4, 4)
    found = project(space, target, Likeness(None), Search(steps=40))
    assert found.noise is not None
    sizes = [height * width for height, width in family.noise_planes]
    for plane in found.noise.split(sizes, dim=1):
        assert plane.mean().abs() < 1e-4
        assert plane.square().mean() == pytest.approx(1.0, abs=1e-3)
    assert torch.allclose(space.show(found.codes, found.noise), found.made, atol=1e-5)


def test_noise_with_a_shape_costs_more_than_white_noise():
    planes = [(16, 16)]
    white = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    stripes = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(64)[None]
    checks = (torch.arange(256) // 16 + torch.arange(256) % 16).remainder(2)[None] * 2.0 - 1.0
    costs = [float(autocorrelation(noise, planes)) for noise in (white, stripes, checks)]
    assert costs[0] < 0.1
    # Stripes of two: neighbours to the right are alike in half of the places, those below everywhere.
    assert costs[1] > 0.9
    assert costs[2] == pytest.approx(2.0)  # every neighbour is the opposite, at one scale


def test_the_rate_rises_and_falls_as_in_the_paper():
    rates = [ramp(step / 1000) for step in range(1000)]
    assert rates[0] < 0.01
    assert rates[25] == pytest.approx(0.501)
    assert all(rate == 1.0 for rate in rates[50:750])
    assert rates[875] == pytest.approx(0.5)
    assert rates[-1] < 1e-4


def test_a_network_sees_more_than_pixels():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3, 2)]
    maps = FeatureMaps(
        layers, {"one": 1, "two": 2}, ["one", "two"], mean=(0.5,) * 3, deviation=(0.2,) * 3
    )
    likeness = Likeness(maps)
    x = torch.rand(2, 1, 16, 16) * 2.0 - 1.0
    seen = likeness.seen(x)
    assert seen[0].shape[2] == 62  # small pictures are shown at 64 pixels
    assert torch.allclose(seen[1].square().sum(1), torch.ones(1), atol=1e-3)
    assert (likeness.perceptual(seen, seen) == 0).all()
    assert (likeness.perceptual(seen, likeness.seen(-x)) > 0).all()
    assert likeness.seen(torch.zeros(1, 3, 512, 300))[0].shape[2:] == (435, 254)


def test_the_generator_is_tuned_to_a_picture_and_the_run_stays(stylegan2, tmp_path):
    space, likeness = Space(stylegan2, "w"), Likeness(None)
    before = {key: v.clone() for key, v in stylegan2.nets["synthesis"].state_dict().items()}
    other = Space(tiny("stylegan2", seed=1), "w")  # what another model makes, this one cannot
    target = other.show(other.draw(1, 2))
    found = project(space, target, likeness, Search(steps=30))
    how = Tuning(steps=50, rate=1e-2, locality=1.0)
    view = tune(space, found, target, likeness, how, place=PLACE)
    here = Space(view, "w")
    better = psnr(here.show(found.codes), target)
    assert better > found.psnr + 2.0, (better, found.psnr)
    after = stylegan2.nets["synthesis"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)

    free = Space(
        tune(space, found, target, likeness, dataclasses.replace(how, locality=0.0), place=PLACE),
        "w",
    )
    away = space.draw(8, 5)
    kept, lost = (psnr(one.show(away), space.show(away)).mean() for one in (here, free))
    assert kept > lost  # what lies elsewhere is held

    save_tuned(tmp_path / "tuned.safetensors", view, {"sources": ["x"]})
    again = Space(load_tuned(tmp_path / "tuned.safetensors", stylegan2, PLACE), "w")
    assert torch.equal(again.show(found.codes), here.show(found.codes))
    with pytest.raises(UserError, match="another model"):
        load_tuned(tmp_path / "tuned.safetensors", tiny("noisy"), PLACE)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        load_tuned(tmp_path / "bad.safetensors", stylegan2, PLACE)


SOUGHT = {
    case.name.partition("-")[0]: case
    for case in FAMILIES
    if case.game and "conditional" not in case.name and not case.make().applies
}


@pytest.mark.parametrize("case", SOUGHT.values(), ids=str)
def test_every_family_that_makes_pictures_of_noise_can_be_sought(case, pixels_only, monkeypatch):
    monkeypatch.setattr("faussaire.latent.space.SURVEYED", 64)
    monkeypatch.setattr("faussaire.latent.projection.TRIED", 8)
    torch.manual_seed(0)
    family = case.make()
    for net in family.nets.values():
        PLACE.prepare(net.eval())
    with torch.no_grad():
        family.settle(settling_draws("cpu"))
    space = Space(family, "z")
    target = space.show(space.draw(1, 1))
    found = project(space, target, pixels_only, Search(steps=3))
    assert found.codes.shape == (1, 1, space.width)
    assert not torch.equal(found.codes, space.draw(1, 1).cpu())
    codes = space.draw(1, 2).requires_grad_()
    (slope,) = torch.autograd.grad(space.render(codes).sum(), codes)
    assert slope.isfinite().all()
    assert slope.any()
