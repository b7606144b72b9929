"""Pictures made from pictures, measured beside the truth."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import faussaire
from faussaire.core.errors import UserError
from faussaire.core.figures import METRICS, read_figures
from faussaire.data.decode import normalise
from faussaire.examination import Answer
from faussaire.marking import METERS
from faussaire.metrics import paired
from faussaire.metrics.weights import Unavailable

pytestmark = pytest.mark.xdist_group("examination")  # they share runs
SMALL = {"resolution": 16, "width": 4, "batch": 4, "doctor": "off", "quiet": True}
SMALL |= {"preview_every": 0}


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    """Perceptual distances cannot be had, wherever the tests run."""
    monkeypatch.delenv("FAUSSAIRE_WEIGHTS", raising=False)

    def missing(*words, **how):
        raise Unavailable("The weights are not here.", "Give --weights.")

    monkeypatch.setattr("faussaire.marking.open_perceptual", missing)


def noise(folder: Path, count: int, size: tuple[int, int] = (24, 20), *, seed: int = 0) -> Path:
    """Smooth noise in colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"p{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two folders of the same names, and a run that measured itself on a part of them."""
    folder = tmp_path_factory.mktemp("examined")
    noise(folder / "in", 24)
    noise(folder / "out", 24, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "faussaire.marking.open_perceptual",
            lambda *words: (_ for _ in ()).throw(Unavailable("They are not here.", "")),
        )
        faussaire.train(
            "pix2pix", folder / "in", target=str(folder / "out"), out=folder / "run", holdout=0.25,
            examples=24, evaluate_every=12, **SMALL,
        )  # fmt: skip
    return folder


def test_training_measures_what_is_held_out_and_marks_the_best_by_what_the_family_says(pairs):
    figures = read_figures(pairs / "run" / "metrics.jsonl")
    assert {figure.name for figure in figures} == {
        "l1[held-out,6 pairs]", "psnr[held-out,6 pairs]", "ssim_luma[held-out,6 pairs]"
    }  # fmt: skip
    l1 = {f.examples: f.value for f in figures if f.provenance.metric == "l1"}
    assert sorted(l1) == [12, 24]
    marks = json.loads((pairs / "run" / "checkpoints" / "marks.json").read_text())
    assert int(marks["best"]) == min(l1, key=lambda at: l1[at])
    # Without its weights the perceptual distance cannot decide, and what did is on record.
    assert "evaluate_metrics: l1,psnr,ssim_luma" in (pairs / "run" / "config.yaml").read_text()


def test_a_measurement_repeats_what_training_measured(pairs):
    known = {f.name: f.value for f in read_figures(pairs / "run" / "metrics.jsonl")}
    found = faussaire.evaluate(pairs / "run", out=pairs / "again")
    for figure in found.figures:
        assert figure.value == pytest.approx(known[figure.name], rel=1e-5)
        assert figure.error is not None
    assert any("perceptual is left out" in note for note in found.notes)
    assert "6 pairs of held-out, 16x16" in found.against
    again = {f.name: f.given for f in read_figures(pairs / "again" / "metrics.jsonl")}
    assert again == {figure.name: figure.given for figure in found.figures}
    with Image.open(pairs / "again" / "evaluation" / "answers.png") as sheet:
        assert sheet.width > sheet.height > 3 * 16  # six rows of three, two beside each other


def test_what_doing_nothing_gets_stands_beside(pairs):
    found = faussaire.evaluate(
        pairs / "run", against=pairs / "in", target=shutil.copytree(pairs / "in", pairs / "twin"),
        metrics="l1,psnr", out=pairs / "same",
    )  # fmt: skip
    assert (found["l1"].given, found["psnr"].given) == (0.0, 100.0)
    assert found["l1"].value > 0


def test_other_pairs_are_measured_and_sets_of_them(pairs):
    found = faussaire.evaluate(
        pairs / "run", against=pairs / "in", target=pairs / "out", metrics="psnr,fid,kid",
        extractor="pixels", out=pairs / "other",
    )  # fmt: skip
    assert [figure.name for figure in found.figures] == [
        "psnr[in,24 pairs]", "fid[pixels,24/in,clean]", "kid[pixels,24/in,clean,100x12]"
    ]  # fmt: skip
    assert found["fid"].real is not None
    everything = faussaire.evaluate(pairs / "run", metrics="all", out=pairs / "all")
    measured = {figure.provenance.metric for figure in everything.figures}
    assert {"l1", "psnr", "psnr_luma", "ssim_luma"} <= measured
    assert not {"l1_hole", "consistency", "cycle_l1", "fid"} & measured  # 6 are too few for sets


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"metrics": "l1_hole"}, "fills none"),
        ({"metrics": "cycle_l1"}, "no way back"),
        ({"metrics": "consistency"}, "not known of pix2pix"),
        ({"metrics": "perceptual"}, "weights are not here"),
        ({"metrics": "fid", "extractor": "pixels"}, "too few"),
        ({"metrics": "ppl", "against": "in", "target": "out"}, "needs a generator"),
        ({"target": "out"}, "no --against"),
        ({"against": "in"}, "learns from pairs"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(pairs, how, said):
    places = {key: pairs / how[key] for key in ("against", "target") if key in how}
    with pytest.raises(UserError, match=said):
        faussaire.evaluate(pairs / "run", **{**how, **places})


def test_two_sets_are_measured_both_ways_and_by_pairs_where_they_are_given(pairs):
    run = faussaire.train(
        "cyclegan", pairs / "in", target=str(pairs / "out"), out=pairs / "cyclegan", examples=4,
        blocks=1, discriminator_width=4, **SMALL,
    ).path  # fmt: skip
    found = faussaire.evaluate(run, extractor="pixels")
    assert [figure.name for figure in found.figures] == [
        "fid[pixels,24/train,clean]",
        "cycle_l1[train,24 pairs]",
        "fid[pixels,24/train,clean,back]",
        "cycle_l1[train,24 pairs,back]",
    ]
    assert any("No pictures were held out" in note for note in found.notes)
    model = faussaire.load(run)
    with Image.open(pairs / "in" / "p00.png") as image:
        x = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None, :, 2:18, 4:20] / 255.0
    assert model.apply(x, inverse=True).shape == x.shape
    by_pairs = faussaire.evaluate(run, against=pairs / "in", target=pairs / "out", metrics="l1")
    assert by_pairs.figures[0].name == "l1[in,24 pairs]"
    with pytest.raises(UserError, match="learns without pairs"):
        faussaire.evaluate(run, metrics="l1")


def test_super_resolution_is_measured_as_papers_do(pairs, tmp_path):
    """Whole pictures, whole levels, luma, without a border as wide as the scale."""
    run = faussaire.train(
        "superres", pairs / "out", out=tmp_path / "run", examples=4, blocks=1, lambda_gan=0.0, **SMALL
    ).path  # fmt: skip
    others = noise(tmp_path / "others", 2, (45, 33), seed=3)
    found = faussaire.evaluate(run, against=others)
    model = faussaire.load(run)
    wanted, plain = [], []
    for path in sorted(others.iterdir()):
        with Image.open(path) as image:
            large = normalise(image).crop((0, 0, 44, 32))
        small = large.resize((22, 16), Image.Resampling.BICUBIC)
        made, cubic = model.apply(small), small.resize(large.size, Image.Resampling.BICUBIC)
        made, cubic, large = (
            torch.tensor(np.array(each)).permute(2, 0, 1)[None] / 127.5 - 1
            for each in (made, cubic, large)
        )
        wanted.append(float(paired.psnr_luma(made, large, border=2)))
        plain.append(float(paired.psnr_luma(cubic, large, border=2)))
    assert found.figures[0].name == "psnr_luma[others,2 pairs,x2,bicubic,border=2]"
    assert found["psnr_luma"].value == pytest.approx(np.mean(wanted), abs=0.3)  # of 48: rounding
    assert found["psnr_luma"].provenance.pictures == "whole"
    assert found["consistency"].value > 30
    assert found["psnr_luma"].given == pytest.approx(np.mean(plain), abs=0.3)  # the same
    one = faussaire.evaluate(run, against=others, count=1, metrics="psnr_luma")["psnr_luma"]
    assert (one.provenance.count, one.provenance.whole) == (1, False)


def test_colours_stand_beside_the_real_ones_and_holes_count_alone(pairs, tmp_path):
    coloured = faussaire.train(
        "colorize", pairs / "out", out=tmp_path / "colour", examples=4, **SMALL
    ).path
    figure = faussaire.evaluate(coloured)["colourfulness"]
    assert figure.real is not None
    assert figure.given == pytest.approx(0.0, abs=0.5)  # whole levels
    assert figure.parts["share of the real"] == pytest.approx(figure.value / figure.real)
    holed = faussaire.train(
        "inpaint", pairs / "out", out=tmp_path / "holes", examples=4, blocks=1, discriminator_width=4,
        **SMALL,
    ).path  # fmt: skip
    found = faussaire.evaluate(holed)
    assert found["l1_hole"].value > found["l1"].value > 0
    # The mean of what is known is no worse than the mean of all.
    assert 0 < (found["l1_hole"].given or 0) < 0.5
    assert found["psnr_hole"].name == "psnr_hole[train,24 pairs,wide]"


def test_equal_pictures_have_finite_figures():
    x = torch.zeros(2, 3, 16, 16)
    seen = Answer(None, x, x, x, "16x16x3", lambda: x)  # pyright: ignore[reportArgumentType]
    assert METERS["psnr"](seen).tolist() == [100.0, 100.0]
    assert METERS["l1"](seen).tolist() == [0.0, 0.0]
    assert METERS["cycle_l1"](seen).tolist() == [0.0, 0.0]
    assert all(math.isfinite(value) for value in METERS["colourfulness"](seen).tolist())
    assert {*METERS, "perceptual"} <= {*METRICS}
