"""Which kind of data lies at a source, and what is said of it to people who name no family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.commands import faussaire, make_pictures
from faussaire.advice import OTHERS
from faussaire.families import load_family
from faussaire.kinds import kind_of
from tables.people import write


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("people.csv", "name,age\nAnne,31\nJohn,20\n", "tables"),
        ("people.tsv", "name\tage\nAnne\t31\n", "tables"),
        ("photos.csv", "name,label\na.png,cat\nb.jpg,dog\n", "pictures"),
        ("semicolons.csv", "file;label\nx/a.webp;cat\n", "pictures"),
        ("files.csv", "file,size\nreport.pdf,12\n", "tables"),
        ("said.csv", "review\nvery good indeed\nnot for me\n", "texts"),
        ("one.csv", "age\n31\n20\n", "tables"),
        ("empty.csv", "", "tables"),
        ("latin.csv", b"name,age\nJos\xe9,3\n", "tables"),
        ("lines.txt", "a sentence\nanother\n", "texts"),
        ("tune.mid", b"MThd", "music"),
        ("rolls.json", "{}", "music"),
        ("voice.flac", b"fLaC", "sound"),
        ("digits.npy", b"", "pictures"),
    ],
)
def test_files_are_known_by_ending_and_columns(tmp_path: Path, name, text, kind) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert kind_of(str(path)) == kind


def test_folders_are_what_most_of_their_files_are(tmp_path: Path) -> None:
    assert kind_of("digits") == kind_of("hf:some/where") == kind_of(str(tmp_path)) == "pictures"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "meta.json").touch()
    assert kind_of(str(tmp_path)) == "music"
    for name in ("a.wav", "b.WAV", "deep/c.mp3"):
        (tmp_path / name).touch()
    assert kind_of(str(tmp_path)) == "sound"
    for number in range(4):
        (tmp_path / f"{number}.JPG").touch()
    assert kind_of(str(tmp_path)) == "pictures"


def test_parquet_is_known_by_its_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for column, kind in (("age", "tables"), ("image", "pictures")):
        path = tmp_path / f"{column}.parquet"
        pq.write_table(pa.table({column: [b"x"], "other": [1]}), path)
        assert kind_of(str(path)) == kind
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR")
    assert kind_of(str(broken)) == "tables"


def test_families_that_are_advised_are_for_that_kind() -> None:
    for kind, advice in OTHERS.items():
        for name in (advice.family, *(name for name, _ in advice.others)):
            assert load_family(name).modality == kind


@pytest.mark.long
def test_a_table_is_checked_advised_on_and_trained_as_advised(tmp_path: Path) -> None:
    source = write(tmp_path / "people.csv", 400)
    out, _ = faussaire("check", source)
    assert "400 rows of 10 columns" in out
    assert "age: integer" in out
    assert "warning: Column 'id' looks like an ID" in out
    told = json.loads(faussaire("check", source, "--json")[0])
    assert told["kind"] == "tables"
    assert told["columns"]["age"] == "integer"

    out, _ = faussaire("advise", source, "--for", "2s")
    assert "advice   tvae" in out
    command = out.strip().splitlines()[-1]
    assert command.startswith("faussaire train tvae ")
    faussaire(*command.split()[1:], "--out", tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()

    _, err = faussaire("advise", source, "--resolution", "32", expect=2)
    assert "--resolution is for pictures" in err
    assert "is a table" in err
    _, err = faussaire("check", source, "--fit", "pad", expect=2)
    assert "--fit is for pictures" in err
    _, err = faussaire("train", "dcgan", source, expect=2)
    assert "has no column that names files" in err
    assert f"Is it a table? `faussaire train tvae {source}`." in " ".join(err.split())


def test_texts_music_and_pictures_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("the cat sat .\nthe dog ran .\n" * 30)
    told = json.loads(faussaire("advise", tmp_path / "said.txt", "--json")[0])
    assert (told["kind"], told["advice"]["family"]) == ("texts", "lm")
    assert told["examples"] == 200_000
    assert told["command"].startswith("faussaire train lm ")

    pytest.importorskip("pretty_midi")
    piece = np.tile([60, 48], (64, 1)).tolist()
    (tmp_path / "tune.json").write_text(json.dumps({"train": [piece] * 6}))
    out, _ = faussaire("check", tmp_path / "tune.json")
    assert "phrases of 4 bars" in out

    pictures = make_pictures(tmp_path / "p", 12)
    out, _ = faussaire("check", pictures)
    assert "12 pictures" in out
