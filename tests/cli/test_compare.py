"""`faussaire compare`, typed for real, on runs that were trained for a moment."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import faussaire as package
from cli.commands import faussaire, make_pictures
from faussaire.cli import main
from faussaire.comparison import compare
from faussaire.core.figures import Figure, Provenance, append_figures

TINY: dict[str, Any] = {"width": 4, "batch": 16, "resolution": 16, "examples": 32, "quiet": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: two that differ in their rate, and one with another latent space."""
    folder = tmp_path_factory.mktemp("runs")
    photos = make_pictures(folder / "photos", count=24)
    differing: dict[str, dict[str, Any]] = {
        "slow": {"latent": 8},
        "fast": {"latent": 8, "lr": 0.01},
        "large": {"latent": 9},
    }
    for name, own in differing.items():
        package.train("dcgan", photos, out=folder / name, **TINY, **own)
    for name, value in (("slow", 12.345), ("fast", 23.456)):
        figure = Figure(
            provenance=Provenance(metric="fid", extractor="pixels", count=24, reference="train"),
            value=value,
            error=0.25,
            real=1.5,
            circumstances={"examples": 32, "seed": 0},
        )
        append_figures(folder / name / "metrics.jsonl", [figure])
    return folder


def grids(page: Path) -> list[np.ndarray]:
    """The pictures in a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text())
    return [np.asarray(Image.open(BytesIO(b64decode(text)))) for text in found]


def test_the_terminal_shows_settings_and_figures_in_full(runs):
    said, err = faussaire("compare", runs / "slow", runs / "fast")
    lines = said.splitlines()
    assert next(line for line in lines if line.startswith("lr ")).split() == [
        "lr",
        "0.0002",
        "0.01",
    ]
    assert not any(line.startswith("width") for line in lines), "equal settings are not shown"
    row = next(line for line in lines if line.startswith("fid[")).split()
    assert " ".join(row) == "fid[pixels,24/train] 12.35 ± 0.25 best 23.46 ± 0.25 1.5 lower"
    assert "…" not in said
    assert err == ""
    assert len(lines) == len([line for line in lines if len(line) < 200])


def test_long_names_are_not_cut_when_piped(runs, tmp_path):
    long = tmp_path / ("a-very-long-name-of-a-run-" * 6)
    long.symlink_to(runs / "fast", target_is_directory=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("family: dcgan\nsource: " + "deep/" * 40 + "folder\n")
    said, err = faussaire("compare", long, other)
    assert "deep/" * 40 + "folder" in said
    assert "other has no figures yet: `faussaire evaluate " in err


def test_json_is_complete_and_alone_on_standard_output(runs):
    said, _ = faussaire("compare", runs / "slow", runs / "fast", runs / "large", "--json")
    found = json.loads(said)
    assert [run["name"] for run in found["runs"]] == ["slow", "fast", "large"]
    assert found["runs"][0]["examples"] == 32
    assert found["settings"]["latent"] == {"slow": 8, "fast": 8, "large": 9}
    assert found["figures"][0]["best"] == ["slow"]
    assert found["figures"][0]["values"]["fast"]["value"] == 23.456
    assert "large has no figures yet" in found["notes"][0]
    assert "base64" not in said


def test_samples_on_the_page_are_those_of_the_seed(runs, tmp_path, capsys):
    page = tmp_path / "page" / "compare.html"
    words = ["compare", str(runs / "slow"), str(runs / "fast"), "--html", str(page)]
    assert main([*words, "--samples", "4", "--seed", "3", "--device", "cpu"]) == 0
    assert f"page in {page}" in capsys.readouterr().out
    assert "began with the same latent vector, of seed 3" in page.read_text()
    shown = grids(page)
    for name, grid in zip(("slow", "fast"), shown, strict=True):
        expected = np.asarray(package.load(runs / name, device="cpu").grid(4, seed=3))
        assert np.array_equal(grid, expected)
    assert not np.array_equal(shown[0], shown[1])


def test_other_latent_spaces_are_told(runs, tmp_path, capsys):
    page = tmp_path / "compare.html"
    words = ["compare", str(runs / "slow"), str(runs / "large"), "--html", str(page)]
    assert main([*words, "--samples", "2"]) == 0
    assert "not equal latent vectors" in capsys.readouterr().err
    assert "not equal latent vectors" in page.read_text()


def test_a_damaged_run_does_not_hide_the_other(runs, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text((runs / "fast" / "config.yaml").read_text())
    checkpoint = broken / "checkpoints" / f"{32:012d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text("family: dcgan\n")
    found = compare([runs / "slow", broken, begun], samples=2, device="cpu")
    assert [side.grid is not None for side in found.sides] == [True, False, False]
    assert found.same_latents is None
    assert any("broken makes no samples" in note for note in found.notes)
    assert any("begun has no checkpoint yet" in note for note in found.notes)
    with pytest.raises(package.UserError, match="not a readable checkpoint"):
        compare([broken, begun], samples=2, device="cpu")


def test_without_samples_a_page_has_no_pictures(runs, tmp_path):
    page = tmp_path / "compare.html"
    words = ["compare", str(runs / "slow"), str(runs / "fast"), "--html", str(page)]
    assert main([*words, "--no-samples"]) == 0
    assert grids(page) == []
    assert "What they make" not in page.read_text()
    assert main([*words, "--samples", "0", "--overwrite"]) == 0
    assert grids(page) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no run at all"),
        (["slow"], "'slow' alone"),
        (["slow", "nowhere"], "'nowhere' is not a run"),
        (["slow", "photos"], "'photos' is not a run"),
        (["slow", "slow"], "given twice"),
        (["slow", "fast", "--checkpoint", "99"], "'slow' has no checkpoint '99'"),
        (["slow", "fast", "--checkpoint", "best"], "It has: latest, 32."),
        (["slow", "fast", "--html", "slow"], "is a folder"),
        (["slow", "fast", "--html", "slow/config.yaml/page.html"], "is no folder"),
        (["slow", "fast", "--html", "slow/config.yaml"], "Add --overwrite"),
        (["slow", "fast", "--html", "page.html", "--samples", "-1"], "-1 samples"),
    ],
)
def test_mistakes_are_sentences(runs, words, expected, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    before = sorted(path.name for path in runs.iterdir())
    assert main(["compare", *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err.replace("\n  ", " ")
    assert said.err.startswith("faussaire:")
    assert said.out == ""
    assert sorted(path.name for path in runs.iterdir()) == before
