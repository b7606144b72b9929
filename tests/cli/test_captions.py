"""Pictures of words by the command line: from a table of captions to labelled grids and figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cli.commands import faussaire, make_pictures

TINY = [
    *(
        "--width",
        "4",
        "--latent",
        "8",
        "--sentence",
        "8",
        "--reader-width",
        "8",
        "--eye-width",
        "4",
    ),
    *(
        "--augmented",
        "4",
        "--compressed",
        "4",
        "--blocks",
        "1",
        "--batch",
        "8",
        "--resolution",
        "16",
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    make_pictures(folder / "photos")
    names = sorted(path.name for path in (folder / "photos").iterdir())
    rows = [f'{name},"a car, number {row}",voiture {row}' for row, name in enumerate(names[:-1])]
    table = folder / "captions.csv"
    table.write_text("file,en,fr\n" + "\n".join(rows) + "\n", encoding="utf-8")
    out, err = faussaire(
        *("train", "stackgan", folder / "photos", "--captions", table),
        *("--caption-columns", "en,fr", "--holdout", "0.3", "--examples", "96", *TINY),
        *("--out", folder / "run"),
    )
    said = out + err
    assert "1 of 48 pictures have no caption" in said
    assert "14 pictures are held out, 28 of whose captions no trained picture has" in said
    for stage in ("words", "sketch", "refine"):
        assert f"stage: {stage}" in said
    return folder / "run"


def test_several_texts_make_a_labelled_grid_and_unknown_words_are_told(run, tmp_path):
    wishes = tmp_path / "wishes.txt"
    wishes.write_text("une voiture\n\n", encoding="utf-8")
    grid = tmp_path / "grid.png"
    _, err = faussaire(
        *("sample", run, "--text", "a car", "--text", "a zebra", "--texts", wishes, "--count", "4"),
        *("--grid", grid, "--out", tmp_path / "each"),
    )
    notes = " ".join(err.split())
    assert "Training never met 'zebra' of 'a zebra'" in notes
    assert "Training never met 'une' of 'une voiture'" in notes
    with Image.open(grid) as image:
        assert image.width == 4 * 64 + 3 * 2
        assert image.height == 3 * (64 + 20 + 2)
    folders = sorted(path.name for path in (tmp_path / "each").iterdir())
    assert folders == ["00 a car", "01 a zebra", "02 une voiture"]
    assert len([*(tmp_path / "each").rglob("*.png")]) == 12
    _, err = faussaire("sample", run, "--text", "zebra crossing", expect=2)
    assert "Training met no word of 'zebra crossing'" in " ".join(err.split())


def test_a_run_is_measured_and_what_cannot_be_is_told(run):
    out, _ = faussaire("evaluate", run, "--count", "16", "--extractor", "pixels", "--json")
    found = json.loads(out)
    names = [figure["metric"] for figure in found["figures"]]
    assert names[-3:] == ["matched", "matched-new", "caption-variety"]
    assert "r-precision" not in names
    assert any("99 wrong captions beside each right one" in note for note in found["notes"])
    assert (run / "evaluation" / "new-captions.png").exists()


def test_missing_captions_end_the_command_with_a_sentence(tmp_path):
    photos = make_pictures(tmp_path / "photos", 12)
    _, err = faussaire("train", "dfgan", photos, "--resolution", "16", expect=2)
    assert "have no captions: there is no" in " ".join(err.split())
    table = tmp_path / "captions.csv"
    table.write_text("file,text\npicture 1.png,a\npicture 2.png, \n", encoding="utf-8")
    _, err = faussaire("train", "dfgan", photos, "--captions", table, expect=2)
    assert "Line 3 of" in err
    assert "has an empty caption of 'picture 2.png'" in " ".join(err.split())
