"""Pictures to pictures on the command line: pairs, two sets, and what is made with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.commands import faussaire
from faussaire.cli import main

pytestmark = pytest.mark.xdist_group("apply")  # they share a run
SMALL = ["--resolution", "16", "--width", "8", "--batch", "4", "--examples", "24"]


def discs(folder: Path, names: list[str], ending: str = "png", negative: bool = False) -> Path:
    """Discs on a ground, or the same in negative."""
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        y, x = np.mgrid[:24, :20]
        inside = np.hypot(y - rng.uniform(8, 16), x - rng.uniform(7, 13)) < 6
        pixels = np.where(inside[..., None], [220, 40, 40], [20, 60, 120]).astype(np.uint8)
        Image.fromarray(255 - pixels if negative else pixels).save(folder / f"{name}.{ending}")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two folders of the same stems, but for one each; and a trained run."""
    folder = tmp_path_factory.mktemp("pairs")
    names = [f"p{index}" for index in range(12)]
    discs(folder / "in", [*names, "lonely"])
    discs(folder / "out", [*names, "other"], "jpg", negative=True)
    out, err = faussaire(
        "train", "pix2pix", folder / "in", folder / "out", "--out", folder / "run", *SMALL
    )
    return folder, out + err


def test_pairs_are_found_and_what_has_no_partner_is_said(pairs):
    folder, said = pairs
    facts = json.loads((folder / "run" / "data.json").read_text())
    assert facts["count"] == facts["input_count"] == 12
    assert facts["paired"]
    assert {Path(one["name"]).stem for one in facts["alone"]} == {"lonely", "other"}
    assert "lonely" in said
    assert "faussaire apply" in said
    previews = sorted((folder / "run" / "samples").glob("0*.png"))
    with Image.open(previews[-1]) as image:
        assert image.width > 3 * 16


def test_apply_answers_in_the_size_of_the_question_and_alike_for_a_seed(pairs, tmp_path):
    folder, _ = pairs
    Image.new("RGBA", (37, 21), (200, 30, 30, 128)).save(tmp_path / "odd.png")
    for name in ("one", "two"):
        faussaire("apply", folder / "run", tmp_path / "odd.png", "--out", tmp_path / name)
    with (
        Image.open(tmp_path / "one" / "odd.png") as one,
        Image.open(tmp_path / "two" / "odd.png") as two,
    ):
        assert one.size == (37, 21)
        assert one.mode == "RGBA"
        assert np.array_equal(np.array(one), np.array(two))
        assert set(np.array(one)[..., 3].flatten()) == {128}
    faussaire(
        "apply", folder / "run", tmp_path / "odd.png", "--out", tmp_path / "tiled", "--tile", 128
    )


def test_a_broken_file_is_listed_and_the_others_are_made(pairs, tmp_path):
    folder, _ = pairs
    discs(tmp_path / "in", ["a", "b"])
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    words = ["apply", folder / "run", tmp_path / "in", "--out", tmp_path / "made"]
    out, err = faussaire(*words, expect=1)
    assert "2 pictures" in out
    assert "c.png" in err
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a.png", "b.png"]
    _, err = faussaire(*words, expect=2)
    assert "overwritten" in err
    out, _ = faussaire(*words, "--skip", "--json", expect=1)
    assert json.loads(out)["skipped"] == 2


def test_a_run_from_noise_cannot_be_applied_and_a_translator_cannot_be_sampled(
    pairs, tmp_path, capsys
):
    folder, _ = pairs
    assert main(["sample", str(folder / "run"), "--out", str(tmp_path / "x")]) == 2
    assert "faussaire apply" in capsys.readouterr().err
    _, err = faussaire(
        "apply", folder / "run", folder / "in", "--out", tmp_path / "y", "--inverse", expect=2
    )
    assert "no way back" in err


def test_inputs_are_made_of_the_pictures_themselves(pairs, tmp_path):
    folder, _ = pairs
    words = ["train", "pix2pix", folder / "out", "--make", "edges", "--out", tmp_path / "run"]
    faussaire(*words, *SMALL)
    faussaire("apply", tmp_path / "run", folder / "in", "--out", tmp_path / "made")
    assert len(list((tmp_path / "made").iterdir())) == 13


def test_grey_pictures_get_colours_from_a_folder_to_figures(pairs, tmp_path):
    folder, _ = pairs
    run, made = tmp_path / "run", tmp_path / "made"
    faussaire("train", "colorize", folder / "out", "--out", run, "--holdout", 0.25, *SMALL)
    (tmp_path / "grey").mkdir()
    with Image.open(folder / "out" / "p0.jpg") as image:
        image.convert("L").resize((31, 22)).save(tmp_path / "grey" / "a.png")
    faussaire("apply", run, tmp_path / "grey", "--out", made)
    with Image.open(made / "a.png") as image, Image.open(tmp_path / "grey" / "a.png") as grey:
        assert (image.mode, image.size) == ("RGB", (31, 22))
        # The lightness that was given stays: Lab's, of which luma is a good half-way house.
        far = np.abs(np.asarray(image.convert("L"), float) - np.asarray(grey, float))
        assert np.median(far) < 16
    out, _ = faussaire("evaluate", run, "--metrics", "psnr,colourfulness")
    assert "psnr[held-out,3 pairs]" in out
    assert "as given" in out
    assert (run / "evaluation" / "answers.png").exists()


def test_holes_are_filled_from_a_folder_and_a_mask(pairs, tmp_path):
    folder, _ = pairs
    run, made = tmp_path / "run", tmp_path / "made"
    words = ["--blocks", 1, "--discriminator-width", 8, "--lambda-perceptual", 0]
    faussaire("train", "inpaint", folder / "out", "--out", run, *SMALL, *words)
    mask = np.zeros((24, 20), np.uint8)
    mask[6:12, 5:15] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "some").mkdir()
    with Image.open(folder / "out" / "p1.jpg") as image:
        image.save(tmp_path / "some" / "p1.png")
    faussaire("apply", run, tmp_path / "some", "--masks", tmp_path / "mask.png", "--out", made)
    before, after = (np.asarray(Image.open(d / "p1.png")) for d in (tmp_path / "some", made))
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert not np.array_equal(before[mask == 255], after[mask == 255])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pix2pix", "in"], "learns from pairs"),
        (["cyclegan", "in"], "two sets"),
        (["pix2pix", "in", "out", "--make", "edges"], "makes its inputs itself"),
        (["pix2pix", "in", "empty"], "no pictures"),
        (["pix2pix", "in", "strange"], "No picture of"),
        (["pix2pix", "in", "out", "--conditional"], "condition"),
        (["dcgan", "in", "out"], "one set of pictures"),
    ],
)
def test_sources_that_do_not_fit(pairs, tmp_path, words, said, capsys):
    folder, _ = pairs
    (folder / "empty").mkdir(exist_ok=True)
    if not (folder / "strange").exists():
        discs(folder / "strange", ["elsewhere", "other"])
    places = [
        folder / word if word in ("in", "out", "empty", "strange") else word for word in words
    ]
    assert main([str(word) for word in ["train", *places, "--out", tmp_path / "run", *SMALL]]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.long
def test_two_sets_and_the_way_back(pairs, tmp_path):
    folder, _ = pairs
    words = ["train", "cyclegan", folder / "in", folder / "out", "--out", tmp_path / "run"]
    faussaire(*words, *SMALL, "--blocks", 1, "--discriminator-width", 8)
    for flag in ([], ["--inverse"]):
        faussaire(
            "apply",
            tmp_path / "run",
            folder / "in" / "p0.png",
            "--out",
            tmp_path / "made",
            "--overwrite",
            *flag,
        )
    resumed, _ = faussaire("resume", tmp_path / "run", "--examples", 40)
    assert "Done" in resumed
