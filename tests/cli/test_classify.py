"""Classes on the command line: train with few labels, classify, evaluate."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import faussaire as library
from cli.commands import faussaire as process
from faussaire.cli import main

pytestmark = pytest.mark.xdist_group("classify")  # they share a run


def faussaire(*words: object, expect: int = 0) -> tuple[str, str]:
    """As `process`, in this one: what it said on standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    assert code == expect, f"exit code {code}\n{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def squares(folder: Path, count: int) -> list[tuple[str, str]]:
    """Pictures of two classes that anybody tells apart: a light square on the left, or on the right."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        side = index % 2
        pixels = rng.integers(0, 60, (8, 8)).astype(np.uint8)
        pixels[2:6, 4 * side : 4 * side + 4] += 180
        name = f"p{index:03d}.png"
        Image.fromarray(pixels).save(folder / name)
        rows.append((name, ("left", "right")[side]))
    return rows


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    rows = squares(folder / "set", 200)
    table(
        folder / "few.csv",
        [(name, label if i < 120 else "") for i, (name, label) in enumerate(rows)],
    )
    out, err = faussaire(
        *("train", "sgan", folder / "set", "--labels", folder / "few.csv", "--out", folder / "run"),
        *(
            "--holdout",
            "0.25",
            "--labels-only",
            "10",
            "--hidden",
            "32,16",
            "--generator-hidden",
            "16",
        ),
        *("--batch", "20", "--examples", "1600", "--evaluate-every", "800", "--lr", "0.01"),
    )
    return folder, rows, out + err


def test_training_says_how_many_have_a_label_and_measures_accuracy(trained):
    folder, _, said = trained
    assert "10 of 150 pictures to learn from have a label: 5 a class" in " ".join(said.split())
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["metric"] for one in found] == ["accuracy", "accuracy"]
    assert found[-1]["reference"] == "held-out"
    assert found[-1]["value"] > 0.9
    assert found[-1]["parts"].keys() == {"left", "right"}
    assert json.loads((folder / "run" / "data.json").read_text())["count"] == 200


def test_classify_writes_a_table_and_never_over_another(trained, tmp_path):
    folder, rows, _ = trained
    out = tmp_path / "told.csv"
    truth = table(tmp_path / "truth.csv", rows)
    words = ("classify", folder / "run", folder / "set", "--out", out)
    said, _ = process(*words, "--labels", truth, "--probabilities")
    assert "of 200 pictures with a label are right" in said
    assert "always 'left' would be 50.0%" in said
    with out.open() as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == ["file", "class", "probability", "label", "p(left)", "p(right)"]
    assert [(one["file"], one["label"]) for one in found] == rows
    right = sum(one["class"] == one["label"] for one in found) / len(found)
    assert right > 0.9
    assert f"{right:.1%} of 200" in said
    for one in found:
        assert float(one["probability"]) == max(float(one["p(left)"]), float(one["p(right)"]))
    _, err = faussaire(*words, expect=2)
    assert "would be overwritten" in err
    said, _ = faussaire(*words, "--labels", truth, "--overwrite", "--json")
    facts = json.loads(said)
    assert facts["accuracy"] == pytest.approx(right)
    assert sum(map(sum, facts["confusion"])) == 200
    assert facts["no_skill"] == 0.5


def test_files_patterns_and_what_cannot_be_read(trained, tmp_path):
    folder, rows, _ = trained
    large = tmp_path / "large.png"
    with Image.open(folder / "set" / "p001.png") as image:
        image.resize((40, 40)).convert("RGB").save(large)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    said, err = faussaire("classify", folder / "run", tmp_path / "*.png", expect=1)
    assert "not classified: broken.png" in err
    found = list(csv.DictReader(said.splitlines()))
    assert [(one["file"], one["class"]) for one in found] == [("large.png", "right")]
    assert "label" not in found[0]
    out = tmp_path / "some.csv"
    faussaire(
        "classify", folder / "run", folder / "set" / "p00*.png", "--out", out,
        "--labels", table(tmp_path / "truth.csv", rows),
    )  # fmt: skip
    assert len(out.read_text().splitlines()) == 11


def test_labels_of_other_classes_and_families_without_any(trained, tmp_path):
    folder, rows, _ = trained
    words = ("classify", folder / "run", folder / "set", "--out", tmp_path / "x.csv", "--labels")
    _, err = faussaire(*words, table(tmp_path / "y.csv", [(n, "up") for n, _ in rows]), expect=2)
    assert "No label is a class of this model" in err
    (tmp_path / "x.csv").unlink(missing_ok=True)
    _, err = faussaire(*words, table(tmp_path / "z.csv", [("gone.png", "left")]), expect=2)
    assert "No file named in" in err
    other = tmp_path / "bare"
    shutil.copytree(folder / "set", other)
    _, err = faussaire("train", "sgan", other, "--out", tmp_path / "r", expect=2)
    assert "have no labels" in err
    assert not (tmp_path / "r").exists()


def test_evaluate_measures_accuracy_and_keeps_the_confusions(trained, tmp_path):
    folder, _, _ = trained
    said, _ = faussaire("evaluate", folder / "run", "--metrics", "accuracy", "--json")
    (figure,) = json.loads(said)["figures"]
    assert figure["name"].startswith("accuracy[")
    assert figure["given"] >= 0.5
    assert "left" in (folder / "run" / "evaluation" / "confusion.txt").read_text()
    other = tmp_path / "other"
    names = squares(other, 30)
    table(other / "labels.csv", names)
    said, _ = faussaire(
        "evaluate", folder / "run", "--against", other, "--metrics", "accuracy", "--json"
    )
    (figure,) = json.loads(said)["figures"]
    assert figure["name"] == "accuracy[30/other]"
    assert figure["value"] > 0.9


def test_python_classifies_pictures_of_any_kind(trained):
    folder, rows, _ = trained
    model = library.load(folder / "run")
    paths = [folder / "set" / name for name, _ in rows[:4]]
    told = model.classify(paths)
    assert told.told == [label for _, label in rows[:4]]
    assert told.probabilities.shape == (4, 2)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    same = model.classify(torch.from_numpy(pixels)[:, None] / 255.0)
    torch.testing.assert_close(same.probabilities, told.probabilities)
    assert (
        model.classify(Image.open(paths[0])).told == model.classify(pixels[0]).told == told.told[:1]
    )
    with pytest.raises(library.UserError, match="do not fit"):
        model.classify(torch.zeros(1, 3, 8, 8))
