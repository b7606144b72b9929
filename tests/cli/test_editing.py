"""`faussaire project` and `faussaire edit` on runs of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import faussaire
from cli.commands import faussaire as command
from cli.commands import make_pictures
from faussaire.cli import main
from faussaire.cli.edit import Options, reserved, spelled_out
from faussaire.core.errors import UserError

SMALL = {
    "resolution": 16,
    "batch": 8,
    "examples": 32,
    "preview_every": 0,
    "doctor": "off",
    "quiet": True,
}
QUICK = ["--steps", "3", "--extractor", "none"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stylegan2, one of dcgan, an encoder for the first, and pictures of two kinds."""
    folder = tmp_path_factory.mktemp("desk")
    photos = make_pictures(folder / "photos", 16, classes=True)
    tiny = {"latent": 8, "style": 8, "width": 16, "max_width": 16, "classes": "none"}
    faussaire.train("stylegan2", photos, out=folder / "styles", **tiny, **SMALL)
    faussaire.train(
        "dcgan", photos, out=folder / "plain", width=4, latent=8, classes="none", **SMALL
    )
    faussaire.train(
        "e4e",
        photos,
        out=folder / "encoder",
        **{"generator": folder / "styles", "perceptual": "none", "classes": "none"},
        **{"width": 4, "max_width": 8, "critic_width": 8},
        **SMALL,
    )
    return folder


def ran(capsys: pytest.CaptureFixture[str], *words: object, expect: int = 0) -> str:
    """A command in this process: what it said."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == expect, said.out + said.err
    return said.out if expect == 0 else said.err


def test_photographs_are_projected_by_a_real_process(desk, tmp_path):
    photo = desk / "photos" / "red" / "picture 1.png"
    before = {path: path.read_bytes() for path in (desk / "styles").rglob("*") if path.is_file()}
    out, err = command(
        "project",
        desk / "styles",
        photo,
        "--out",
        tmp_path,
        *QUICK,
        "--tune",
        "--tune-steps",
        2,
        timeout=600,
    )
    assert "100.0%" in out
    assert "left" in out
    assert "psnr" in out
    assert "resized from 24x20 to 16x16" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "picture 1-compare.png",
        "picture 1.png",
        "picture 1.safetensors",
        "tuned.safetensors",
    ]
    with Image.open(tmp_path / "picture 1-compare.png") as shown:
        assert shown.size == (4 * 64 + 3 * 2, 64)  # photograph, before, after, error
    after = {path: path.read_bytes() for path in (desk / "styles").rglob("*") if path.is_file()}
    assert before == after


def test_from_photograph_to_edit(desk, tmp_path, capsys):
    run, found = desk / "styles", tmp_path / "found"
    photo = desk / "photos" / "red" / "picture 1.png"
    ran(
        capsys,
        "project",
        run,
        photo,
        desk / "photos" / "blue",
        "--out",
        found,
        *QUICK,
        "--space",
        "w+",
    )
    assert "exists" in ran(capsys, "project", run, photo, "--out", found, *QUICK, expect=2)
    latent = found / "picture 1.safetensors"

    assert "no directions yet" in ran(capsys, "edit", run, "--list")
    said = ran(capsys, "edit", run, latent, "--smile", 2, "--out", tmp_path, expect=2)
    assert "--smile is neither an option nor a direction" in said
    assert "pca1" in ran(capsys, "edit", run, "--find", "pca", "--count", 2)
    ran(capsys, "edit", run, "--find", "sefa", "--count", 1, "--layers", "0-1")
    assert "already" in ran(capsys, "edit", run, "--find", "pca", "--count", 2, expect=2)
    told = json.loads(ran(capsys, "edit", run, "--list", "--json"))
    assert [one["name"] for one in told] == ["pca1", "pca2", "sefa1_0_1"]
    red, blue = desk / "photos" / "red", desk / "photos" / "blue"
    said = ran(
        capsys,
        "edit",
        run,
        "--learn",
        "red",
        "--yes",
        red,
        "--no",
        blue,
        "--by",
        "projection",
        *QUICK,
    )
    assert "accuracy" in said
    assert "is an option" in ran(
        capsys, "edit", run, "--learn", "film", "--yes", red, "--no", blue, expect=2
    )

    out = tmp_path / "edited"
    ran(capsys, "edit", run, latent, "--pca1", 2, "--red", "-1", "--without", "pca2", "--out", out)
    edited = Image.open(out / "picture 1.png")
    assert edited.size == (16, 16)
    assert edited.tobytes() != Image.open(found / "picture 1.png").tobytes()
    ran(capsys, "edit", run, "--seeds", "1-2", "--strip", "red", "--out", out, "--truncation", 0.7)
    with Image.open(out / "seed2-red.png") as strip:
        assert strip.size == (7 * 64 + 6 * 2, 64)
    ran(capsys, "edit", run, latent, "--seeds", 4, "--mix", "--out", out)
    assert (out / "mixed.png").exists()
    ran(capsys, "edit", run, "--seeds", "1-2", "--film", tmp_path / "walk.gif", "--frames", 4)
    with Image.open(tmp_path / "walk.gif") as film:
        assert film.n_frames == 4
    words = ("--seeds", 1, "--strip", "pca1", "--film", tmp_path / "up.gif", "--frames", 3)
    assert json.loads(ran(capsys, "edit", run, *words, "--json"))["written"]
    assert "Nothing says where" in ran(capsys, "edit", run, latent, "--pca1", 1, expect=2)
    assert "nothing to edit" in ran(capsys, "edit", run, "--pca1", 1, "--out", out, expect=2)
    other = ("edit", desk / "plain", latent, "--out", tmp_path / "other")
    assert "has no space" in ran(capsys, *other, expect=2)


def test_an_encoder_takes_the_place_of_the_search(desk, tmp_path, capsys):
    photo = desk / "photos" / "red" / "picture 1.png"
    words = (
        "project",
        desk / "styles",
        photo,
        "--encoder",
        desk / "encoder",
        "--extractor",
        "none",
    )
    told = json.loads(ran(capsys, *words, "--out", tmp_path / "a", "--json"))
    assert told["found"][0]["space"] == "w+"
    better = json.loads(ran(capsys, *words, "--out", tmp_path / "b", "--json", "--steps", 100))
    assert better["found"][0]["psnr"] > told["found"][0]["psnr"]
    ran(capsys, "apply", desk / "encoder", photo, "--out", tmp_path / "made")
    with Image.open(tmp_path / "made" / "picture 1.png") as made:
        assert made.size == (24, 20)
    faussaire.train(
        "stylegan2",
        desk / "photos",
        out=desk / "styles",
        classes="none",
        allow_changes=True,
        **{"latent": 8, "style": 8, "width": 16, "max_width": 16},
        **{**SMALL, "examples": 40},
    )
    assert "another generator" in ran(capsys, *words, "--out", tmp_path / "c", expect=2)
    wrong = (
        "project",
        desk / "plain",
        photo,
        "--encoder",
        desk / "styles",
        "--out",
        tmp_path / "d",
    )
    assert "encodes no pictures" in ran(capsys, *wrong, "--extractor", "none", expect=2)


def test_dcgan_is_edited_in_z(desk, tmp_path, capsys):
    run = desk / "plain"
    ran(capsys, "edit", run, "--find", "sefa", "--count", 2)
    ran(capsys, "edit", run, desk / "photos" / "blue", "--sefa1", 1, "--out", tmp_path, *QUICK)
    assert len([*tmp_path.glob("*.png")]) == 8
    assert "has no space 'w'" in ran(
        capsys, "edit", run, "--seeds", 1, "--space", "w", "--out", tmp_path / "w", expect=2
    )


def test_names_of_directions_are_options(tmp_path):
    folder = tmp_path / "run" / "directions"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("family: stylegan2\n")
    (folder / "smile.safetensors").write_bytes(b"")
    run = str(tmp_path / "run")
    assert spelled_out([run, "--smile", "-2", "--seed", "3"]) == [
        run, "--seed", "3", "--direction", "smile=-2"
    ]  # fmt: skip
    assert spelled_out([run, "--direction", "old=1", "--smile=2"]) == [
        run, "--direction", "smile=2", "old=1"
    ]  # fmt: skip
    with pytest.raises(UserError, match="Did you mean 'smile'"):
        spelled_out([run, "--smiel", "2"])
    assert {"class", "find", "no-such"} & reserved() == {"class", "find"}
    assert Options.__doc__
