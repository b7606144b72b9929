"""What rebuilds pictures, on the command line: train, sample, apply, film, evaluate."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image

import faussaire as library
from cli.commands import make_pictures
from faussaire.cli import main
from faussaire.core.errors import UserError

pytestmark = pytest.mark.xdist_group("vae")  # they share a run


def command(*words: object) -> int:
    """Within this process: none of these commands is new, and each start takes seconds."""
    return main([*map(str, words)])


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Pictures of two classes, and a run on them that measured itself on the way."""
    folder = tmp_path_factory.mktemp("vae")
    make_pictures(folder / "photos", 60, classes=True)
    small = ["--resolution", "16", "--net", "mlp", "--hidden", "16", "--latent", "4"]
    with redirect_stdout(io.StringIO()) as said:
        done = command(
            *["train", "vae", folder / "photos", "--out", folder / "run", *small],
            *["--batch", "16", "--examples", "320", "--holdout", "0.3", "--evaluate-every", "160"],
        )
    assert done == 0
    return folder, said.getvalue()


def figures(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_tells_its_uses_measures_its_bound_and_shows_what_it_rebuilds(desk):
    folder, said = desk
    assert "faussaire apply" in said
    assert "faussaire sample" in said
    names = {one["name"] for one in figures(folder / "run")}
    assert names == {"elbo[18/held-out,bernoulli]"}
    assert len(figures(folder / "run")) == 2
    best = min(figures(folder / "run"), key=lambda one: one["value"])["examples"]
    marks = json.loads((folder / "run" / "checkpoints" / "marks.json").read_text())
    assert int(marks["best"]) == best
    previews = sorted((folder / "run" / "samples").glob("0*.png"))
    with Image.open(previews[-1]) as image, Image.open(previews[-1].parent / "reals.png") as reals:
        assert image.height > reals.height  # a grid as of the reals, and pairs below


def test_pictures_of_any_size_come_back_in_the_models(desk, tmp_path, capsys):
    folder, _ = desk
    Image.new("RGBA", (37, 21), (200, 30, 30, 128)).save(tmp_path / "odd.png")
    photos = folder / "photos" / "red"
    assert not command("apply", folder / "run", photos, tmp_path, "--out", tmp_path / "made")
    assert "16x16 RGB" in capsys.readouterr().err
    made = sorted((tmp_path / "made").iterdir())
    assert len(made) == 31
    for path in made:
        with Image.open(path) as image:
            assert image.size == (16, 16)
    sides = ["--plus", photos, "--minus", folder / "photos" / "blue", "--strength", "3"]
    command("apply", folder / "run", photos, "--out", tmp_path / "more", *sides)
    pairs = [(path, tmp_path / "more" / path.name) for path in made if path.name != "odd.png"]
    changed = 0
    for one, other in pairs:
        with Image.open(one) as plain, Image.open(other) as moved:
            changed += np.any(np.asarray(plain) != np.asarray(moved))
    assert changed > 20
    words = ["apply", folder / "run", photos, "--out", tmp_path / "x", "--plus", photos]
    assert command(*words) == 2


def test_from_python_pictures_become_latents_and_back(desk):
    folder, _ = desk
    model = library.load(folder / "run")
    paths = sorted((folder / "photos" / "red").iterdir())[:3]
    z = model.encode(paths)
    assert z.shape == (3, 4)
    back = model.decode(z)
    for row, path in zip(back, paths, strict=True):
        made = np.asarray(model.apply(path))
        assert np.abs(made - 255 * row.permute(1, 2, 0).numpy()).max() <= 1
    tensors = model.encode(back)
    assert tensors.shape == (3, 4)
    one = model.apply(paths[0], shift=z[1] - z[0])
    assert np.abs(np.asarray(one) - 255 * back[1].permute(1, 2, 0).numpy()).max() <= 1
    with pytest.raises(UserError, match="as \\(C, H, W\\)"):
        model.encode(back[:, :, :8])


def test_a_film_goes_through_given_pictures(desk, tmp_path):
    folder, _ = desk
    ends = sorted((folder / "photos" / "red").iterdir())[:2]
    words = ["film", folder / "run", tmp_path / "between.gif", "--seconds", "1", "--through", *ends]
    assert not command(*words)
    with Image.open(tmp_path / "between.gif") as film:
        assert film.n_frames > 5
    assert command("film", folder / "run", tmp_path / "x.gif", "--through", ends[0]) == 2


def test_evaluate_asks_the_encoder_of_pictures_held_out(desk, capsys):
    folder, _ = desk
    how = ["--metrics", "elbo,active-units,psnr", "--json"]
    assert not command("evaluate", folder / "run", *how)
    found = {one["metric"]: one for one in json.loads(capsys.readouterr().out)["figures"]}
    assert found.keys() == {"elbo", "active-units", "psnr"}
    assert found["elbo"]["reference"] == "held-out"
    assert found["elbo"]["count"] == found["psnr"]["count"] == 18
    assert found["elbo"]["parts"].keys() == {"reconstruction", "divergence"}
    assert found["psnr"]["given"] is None
    more = ["--metrics", "swd,elbo", "--count", "40", "--against", folder / "photos", "--json"]
    assert not command("evaluate", folder / "run", *more)
    found = {one["metric"]: one for one in json.loads(capsys.readouterr().out)["figures"]}
    assert found["elbo"]["count"] == 60
    assert found["elbo"]["reference"] == "photos"
