"""Directions: found, learnt, kept, and pictures moved along them."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.latent import directions as ways
from faussaire.latent.directions import Direction
from faussaire.latent.editor import Editor
from faussaire.latent.photos import read_photo
from faussaire.latent.projection import Search
from faussaire.latent.shelf import Latent, Shelf, check_name
from faussaire.latent.space import Space
from faussaire.model import Model
from latent.conftest import PLACE, tiny


def unit(*numbers: float) -> Direction:
    vector = torch.tensor(numbers, dtype=torch.float32)
    return Direction(
        name="d", space="w", vector=vector / vector.norm(), deviation=2.0, method="given"
    )


def test_components_are_those_of_the_codes(stylegan2):
    space = Space(stylegan2, "w")
    found = ways.principal(space, 8, sampled=4000)
    codes = space.draw(4000, 123)[:, 0]
    variances = [float((codes @ one.vector).var()) for one in found]
    assert variances == sorted(variances, reverse=True)
    vectors = torch.stack([one.vector for one in found])
    assert torch.allclose(vectors @ vectors.T, torch.eye(8), atol=1e-4)
    assert sum(one.facts["variance"] for one in found) == pytest.approx(1.0, abs=1e-4)
    assert found[0].deviation == pytest.approx(variances[0] ** 0.5, rel=0.1)


def test_components_of_pictures_move_pictures_more_than_chance(dcgan):
    space = Space(dcgan, "z")
    found = ways.principal(space, 3, sampled=2000)
    base = space.draw(24, 5)

    def change(one: Direction) -> float:
        moved = space.show(ways.moved(base, "z", [(one, 1.0)]))
        return float((moved - space.show(base)).square().mean())

    by_chance = np.mean([change(one) for one in ways.chance(space, 8)])
    assert change(found[0]) > 1.2 * by_chance


def test_the_closed_form_is_what_layers_change_most_by(stylegan2, dcgan):
    for space in (Space(stylegan2, "w"), Space(dcgan, "z")):
        maps = torch.cat([*space.family.affines()])
        first, *_, last = ways.closed_form(space, 8)
        gains = [float((maps @ one.vector).norm()) for one in (first, last)]
        for one in ways.chance(space, 10):
            assert gains[1] - 1e-5 <= float((maps @ one.vector).norm()) <= gains[0] + 1e-5
        assert first.facts["eigenvalue"] == pytest.approx(gains[0] ** 2, rel=1e-4)
    # dcgan's first layer is indeed that map.
    z = torch.randn(2, 8)
    project = dcgan.nets["generator"].project
    assert torch.allclose(
        project(z[:, :, None, None]).flatten(1), z @ dcgan.affines()[0].T, atol=1e-5
    )
    # stylegan2's is, but for what demodulation undoes.
    convolution = stylegan2.nets["synthesis"].layers[1].convolution
    styles = convolution.affine(stylegan2.nets["mapping"].mean[None])
    change = stylegan2.affines()[1]
    assert (styles @ change).abs().max() < 1e-4 * styles.norm()
    apart = convolution.affine(z) - convolution.affine.bias - z @ change.T
    along = (apart @ styles.T) @ styles / styles.square().sum()
    assert torch.allclose(apart, along, atol=1e-5)
    rgb = stylegan2.nets["synthesis"].to_rgb[-1].convolution.affine
    assert torch.allclose(rgb(z) - 1.0, z @ stylegan2.affines()[-1].T, atol=1e-5)


def test_demodulation_undoes_a_common_factor_of_styles(stylegan2):
    """Which is why SeFa must not count it."""
    convolution = copy.deepcopy(stylegan2.nets["synthesis"].layers[1].convolution)
    x = torch.randn(1, convolution.weight.shape[0 if convolution.grow else 1], 4, 4)
    made = []
    for factor in (1.0, 3.0):
        with torch.no_grad():
            convolution.affine.weight.zero_()
            convolution.affine.bias.copy_(factor * torch.linspace(0.5, 1.5, x.shape[1]))
            y, scale = convolution(x, torch.zeros(1, convolution.affine.weight.shape[1]))
        made.append(y * scale[:, :, None, None])
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-5)


def test_layers_are_chosen(stylegan2):
    space = Space(stylegan2, "w")
    (found,) = ways.closed_form(space, 1, layers=(1, 2))
    assert found.name == "sefa1_1_2"
    codes = space.draw(1).expand(-1, space.depth, -1)
    moved = ways.moved(codes, "w+", [(found, 1.0)])
    assert [bool(row.any()) for row in (moved - codes)[0]] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(UserError, match="has 1"):
        ways.moved(space.draw(1), "w", [(found, 1.0)])
    with pytest.raises(UserError, match="no layers 3 to 99"):
        ways.closed_form(space, 1, layers=(3, 99))
    with pytest.raises(UserError, match="maps w, not z"):
        ways.closed_form(Space(stylegan2, "z"), 1)


def test_a_boundary_is_learnt_and_what_belongs_to_another_taken_away(stylegan2):
    space = Space(stylegan2, "w")
    codes = space.draw(400, 2)
    around = codes[:, 0] - space.spread.mean
    truth, other = unit(1, 1, 0, 0, 0, 0, 0, 0), unit(1, 0, 0, 0, 0, 0, 0, 0)
    yes = (around @ truth.vector > 0).numpy()
    found = ways.separating(space, "corner", codes, yes)
    assert found.facts["accuracy"] > 0.9
    assert float(found.vector @ truth.vector) > 0.8
    apart = ways.without(found, [other], space)
    assert abs(float(apart.vector @ other.vector)) < 1e-5
    assert float(apart.vector.norm()) == pytest.approx(1.0)
    two = ways.without(found, [other, unit(1, 2, 0, 0, 0, 0, 0, 1)], space)
    assert abs(float(two.vector @ unit(1, 2, 0, 0, 0, 0, 0, 1).vector)) < 1e-5
    with pytest.raises(UserError, match="Nothing of 'corner' is left"):
        ways.without(found, [found], space)
    with pytest.raises(UserError, match="3 examples with it"):
        ways.separating(space, "few", codes[:10], np.arange(10) < 3)


def test_ends_are_the_surest():
    high, low = ways.ends(np.arange(100.0), 0.05)
    assert sorted(high) == [95, 96, 97, 98, 99]
    assert sorted(low) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"0\.7"):
        ways.ends(np.arange(100.0), 0.7)


def test_directions_are_kept_and_named(tmp_path):
    shelf = Shelf(tmp_path / "directions")
    assert shelf.names() == []
    one = dataclasses.replace(unit(3, 4), name="smile", layers=(0, 3), facts={"accuracy": 0.9})
    shelf.save(one)
    again = shelf.load("smile")
    assert again.facts == {"accuracy": 0.9}
    assert again.layers == (0, 3)
    assert torch.equal(again.step, one.step)
    with pytest.raises(UserError, match="already"):
        shelf.save(one)
    shelf.save(one, overwrite=True)
    with pytest.raises(UserError, match="Did you mean 'smile'"):
        shelf.load("smiel")
    with pytest.raises(UserError, match="cannot name"):
        check_name("Big Smile")
    (tmp_path / "directions" / "bad.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UserError, match="cannot be read"):
        shelf.load("bad")


def test_latents_are_kept(tmp_path):
    latent = Latent(
        space="w",
        code=torch.randn(1, 1, 8),
        source="me.jpg",
        psnr=31.5,
        tuned=tmp_path / "tuned.safetensors",
    )
    latent.save(tmp_path / "me.safetensors")
    again = Latent.load(tmp_path / "me.safetensors")
    assert torch.equal(again.code, latent.code)
    assert dataclasses.replace(again, code=latent.code) == latent
    shelf = Shelf(tmp_path)
    with pytest.raises(UserError, match="no direction"):
        shelf.load("me")
    path = shelf.save(dataclasses.replace(unit(1, 0), name="x"))
    with pytest.raises(UserError, match="no latent"):
        Latent.load(path)


# ---- The editor ----


def test_edits_move_by_deviations(editor):
    space = editor.space()
    latent, second = editor.samples([1, 2])
    first, *_ = editor.find("pca", 2)
    moved = editor.edit(latent, pca1=1.5)
    assert torch.allclose(moved.code - latent.code, 1.5 * first.step)
    assert torch.allclose(editor.edit(latent).code, latent.code)
    middle = editor.edit(latent, truncation=0.0)
    assert torch.allclose(middle.code[0], space.spread.mean)
    row = editor.strip(latent, "pca2")
    assert len(row) == 7
    assert torch.equal(row[3].code, latent.code)
    assert editor.grid(row, 7).size == (7 * 64 + 12, 64)
    with pytest.raises(UserError, match="no direction 'smile'"):
        editor.edit(latent, smile=1)
    mixed = [editor.mixed(latent, second, at) for at in (0, 2, 6)]
    shown = editor.render([*mixed, latent, second])
    assert torch.allclose(shown[0], shown[4], atol=1e-6)
    assert torch.allclose(shown[2], shown[3], atol=1e-6)
    assert not torch.allclose(shown[1], shown[3], atol=1e-3)
    walk = [*editor.between([latent, second], 5)]
    assert torch.equal(walk[0].code, latent.code)
    assert torch.allclose(walk[4].code, second.code)
    assert torch.allclose(walk[2].code, (latent.code + second.code) / 2)
    assert [frame.shape for frame in editor.frames(walk[:2])] == [(64, 64, 3)] * 2
    (layered,) = editor.find("sefa", 1, layers=(0, 1))
    only = editor.edit(latent, {layered.name: 1.0})
    assert only.space == "w+"
    assert editor.render([only]).shape == (1, 3, 16, 16)


def test_z_is_edited_where_there_is_no_w(dcgan):
    editor = Editor(Model(dcgan, dcgan.spec, 0, PLACE))
    latent, second = editor.samples([1, 2])
    editor.find("sefa", 2)
    assert editor.edit(latent, sefa1=1).space == "z"
    walk = [*editor.between([latent, second], 9, closed=True)]
    assert torch.equal(walk[0].code, latent.code)
    for refused in (
        lambda: editor.mixed(latent, second, 1),
        lambda: editor.edit(latent, truncation=0.5),
        lambda: editor.find("pca", 1, layers=(0, 1)),
        lambda: editor.between([latent], 3).__next__(),
    ):
        with pytest.raises(UserError):
            refused()


def test_directions_of_two_folders(editor, tmp_path, monkeypatch):
    """What the model's own samples show is learnt by a classifier, and by projecting."""
    space = editor.space()
    codes = space.draw(160, 50)
    pictures = space.show(codes)
    bright = pictures.mean((1, 2, 3))
    order = bright.argsort()
    for name, rows in (("dark", order[:40]), ("light", order[-40:])):
        (tmp_path / name).mkdir()
        for row in rows.tolist():
            levels = ((pictures[row] + 1.0) * 127.5).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(levels).save(tmp_path / name / f"{row}.png")
    folders = [tmp_path / "light"], [tmp_path / "dark"]
    monkeypatch.setattr("faussaire.latent.labels.STEPS", 40)
    found = editor.learn("light", *folders, count=400)
    assert found.facts["accuracy"] > 0.8
    base = editor.samples(range(16))

    def brighter(name: str) -> float:
        up, down = (editor.render([editor.edit(one, {name: s}) for one in base]) for s in (2, -2))
        return float((up.mean((1, 2, 3)) > down.mean((1, 2, 3))).float().mean())

    assert brighter("light") > 0.9
    editor.learn("lit", *folders, by="projection", search=Search(steps=25, batch=40))
    assert brighter("lit") > 0.9
    with pytest.raises(UserError, match="No encoder"):
        editor.learn("no", *folders, by="encoder")


def test_photographs_become_as_the_models_pictures(editor, tmp_path):
    Image.new("L", (40, 20), 255).save(tmp_path / "wide.png")
    found = editor.project([tmp_path / "wide.png"], search=Search(steps=2))
    (one,) = found
    assert one.photo.shape == (1, 3, 16, 16)
    assert (one.photo == 1.0).all()
    assert "made RGB, cut to its middle and resized from 40x20 to 16x16" in editor.notes[0]
    picture = one.comparison()
    assert picture.size == (3 * 64 + 4, 64)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be used"):
        editor.photo(tmp_path / "text.png")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="video"):
        editor.project([tmp_path / "a.mp4"])
    spec = Pictures(channels=4, height=8, width=16)
    framed = read_photo(Image.new("RGB", (8, 8), "black"), spec, {"fit": "pad"})
    assert framed.shape == (1, 4, 8, 16)
    assert (framed[0, 3, :, 0] == -1).all()  # the frame is transparent


def test_a_model_with_classes_wants_to_know_which():
    family = tiny("stylegan2", classes=("a", "b"))
    model = Model(family, family.spec, 0, PLACE)
    editor = Editor(model)
    with pytest.raises(UserError, match="which one"):
        editor.project([Image.new("RGB", (16, 16))])
    latents = editor.samples([1, 2, 3])
    assert editor.render(latents).shape == (3, 3, 16, 16)
    told = Editor(model, label="b")
    shown = told.render(told.samples([1]))
    assert torch.allclose(shown, model.sample(seeds=[1], label="b") * 2.0 - 1.0, atol=1e-5)
