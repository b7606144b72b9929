"""Tables on the command line: from a CSV to synthetic rows and figures, and what is wrong with files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cli.commands import faussaire
from tables.people import NAMES, write

TINY = [
    "--latent",
    "8",
    "--width",
    "16",
    "--batch",
    "100",
    "--examples",
    "3000",
    "--holdout",
    ".25",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    source = write(folder / "people.csv", 600)
    out, err = faussaire("train", "ctgan", source, *TINY, "--out", folder / "run")
    said = out + err
    assert "age: integer" in said
    assert "Column 'id' looks like an ID" in said
    assert "Column 'country' is always 'FR'" in said
    return folder / "run"


def test_rows_under_conditions_are_written_with_the_table_s_columns(trained, tmp_path):
    target = tmp_path / "synthetic.csv"
    faussaire("sample", trained, "--count", "25", "--where", "member=yes", "--out", target)
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    assert list(rows[0]) == list(NAMES)
    assert {row["member"] for row in rows} == {"yes"}
    assert {row["country"] for row in rows} == {"FR"}
    _, err = faussaire("sample", trained, "--count", "2", "--out", target, expect=2)
    assert "--overwrite" in err
    out, _ = faussaire("sample", trained, "--count", "2", "--seed", "3")
    assert len(out.splitlines()) == 3
    _, err = faussaire("sample", trained, "--where", "age>1000", expect=2)
    assert "0 fulfil" in err


def test_figures_stand_beside_those_of_real_rows(trained):
    pytest.importorskip("sklearn")
    names = "shapes,pairs,nearer,exact-copies"
    out, _ = faussaire("evaluate", trained, "--count", "300", "--metrics", names, "--json")
    found = {figure["metric"]: figure for figure in json.loads(out)["figures"]}
    assert set(found) == set(names.split(","))
    assert 0.0 < found["shapes"]["real"] < found["shapes"]["value"] < 1.0
    assert found["nearer"]["real"] == 0.5
    assert (trained / "evaluation" / "columns.svg").read_text().startswith("<svg")
    assert "age" in (trained / "samples" / "reals.txt").read_text()


def test_bad_files_end_in_a_sentence_before_a_run_is_begun(tmp_path):
    path = tmp_path / "bad.csv"
    for content, words in (
        (b"", "is empty"),
        (b"a,b\n1,2\n3\n", "line 3"),
        (b"a\nx\nx\n", "no column to learn"),
        ("a,b\né,1\n".encode("latin-1"), "--encoding latin-1"),
    ):
        path.write_bytes(content)
        _, err = faussaire("train", "tvae", path, *TINY, "--out", tmp_path / "run", expect=2)
        assert words in err
        assert "bad.csv" in err
    assert not (tmp_path / "run" / "config.yaml").exists()
