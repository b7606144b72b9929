"""Pictures of which some have a label: which labels are told, and what the stream makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faussaire.classification import questions
from faussaire.core.config import resolve
from faussaire.core.errors import UserError
from faussaire.data.check import check
from faussaire.data.pack import pack
from faussaire.data.sources import open_source
from faussaire.families import load_family
from faussaire.labelling import Labelling
from faussaire.material import read_material

ABC = ("a", "b", "c")


def pictures(folder: Path, names: list[str]) -> Path:
    """Grey pictures of which the first pixel is the place in the list."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 6), 100, np.uint8)
        pixels[0, 0] = index
        Image.fromarray(pixels).save(path)
    return folder


def test_classes_are_asked_for_sources_of_any_kind(tmp_path):
    assert len(questions([Path("digits")])) == 1797
    folder = pictures(tmp_path / "set", ["a/0.png", "b/1.png"])
    found = questions([folder], classes="folders")
    assert [(one.name, one.label) for one in found] == [("a/0.png", "a"), ("b/1.png", "b")]
    several = questions([folder / "a", folder / "b" / "*.png"])
    assert [(one.name, one.label) for one in several] == [
        (f"{folder}/a/0.png", None),
        (f"{folder}/b/1.png", None),
    ]
    assert several[1].read().size == (6, 6)
    with pytest.raises(UserError, match="nothing at"):
        questions([tmp_path / "gone"])


def chosen(labels: list[int], **how: object) -> Labelling:
    rows = np.arange(len(labels))
    train, held = (
        (rows, rows[:0]) if "held" not in how else (rows[: -how["held"]], rows[-how.pop("held") :])
    )  # type: ignore[operator]
    return Labelling.of(np.array(labels), ABC, train, held, **how)  # type: ignore[arg-type]


def test_few_labels_are_chosen_evenly_and_by_their_seed():
    labels = [0, 1, 2, -1] * 30
    seven = chosen(labels, only=7, seed=1)
    assert sorted(np.bincount(seven.labels[seven.told])) == [2, 2, 3]
    assert np.array_equal(seven.told, chosen(labels, only=7, seed=1).told)
    assert not np.array_equal(seven.told, chosen(labels, only=7, seed=2).told)
    assert seven.note.startswith("7 of 120 pictures to learn from have a label: 2 to 3 a class; ")
    assert "labels of 83 others are hidden" in seven.note


def test_held_out_labels_are_never_told():
    labels = [0, 1, 2, -1] * 30
    some = chosen(labels, only=9, held=40)
    assert set(some.told) <= set(range(80))
    assert some.tests.tolist() == [row for row in range(80, 120) if labels[row] >= 0]
    assert some.note.endswith("Of 40 held out, 30 have one.")


def test_labels_that_do_not_do_are_told_in_a_sentence():
    with pytest.raises(UserError, match="leaves some of the 3 classes"):
        chosen([0, 1, 2] * 9, only=2)
    with pytest.raises(UserError, match="asks for 5 labels of each class, and 'c' has 1"):
        chosen([0, 1] * 9 + [2], only=15)
    with pytest.raises(
        UserError, match="class 'c' is left to learn from: its 1 with a label is held out"
    ):
        chosen([0, 1] * 9 + [2], held=1)
    assert "Nothing is learnt from pictures without one" in chosen([0, 1, 2]).note


@pytest.mark.parametrize("way", ["table", "folders", "loose", "array"])
def test_pictures_without_a_label_are_kept_where_they_are_wanted(tmp_path, way):
    folder = tmp_path / "set"
    how: dict[str, object] = {}
    if way == "table":
        pictures(folder, [f"{i}.png" for i in range(6)])
        (folder / "labels.csv").write_text(
            "file,label\n0.png,cat\n3.png,dog\n4.png,\ngone.png,dog\n"
        )
    elif way == "array":
        source = tmp_path / "x.npz"
        x = np.zeros((6, 6, 6), np.uint8)
        np.savez(source, x=x, y=np.array([0, -1, -1, 1, -1, -1]))
        folder = source
    else:
        names = ["cat/0.png", "dog/3.png"]
        others = [f"unlabelled/{i}.png" for i in (1, 2, 4, 5)]
        pictures(
            folder, [*names, *([one.split("/")[1] for one in others] if way == "loose" else others)]
        )
        how = {"classes": "folders"}
    with open_source(folder, partial=True, **how) as source:  # type: ignore[arg-type]
        images = pack(source)
        found = check(source)
    assert len(images) == 6
    assert images.labels is not None
    assert sorted(images.labels.tolist()) == [-1, -1, -1, -1, 0, 1]
    assert "2 of 6 pictures have a label: 1 a class." in found.notes
    if way == "table":
        assert any("1 files named in 'labels.csv' are not among" in note for note in images.notes)
        with open_source(folder) as source:  # as ever, for families that do not want them
            plain = pack(source)
            said = check(source)
        assert len(plain) == 2
        assert any("families that learn from both" in one.text for one in said.warnings)


def test_the_stream_draws_labelled_pictures_beside_all_of_them(tmp_path):
    folder = pictures(tmp_path / "set", [f"{i:02d}.png" for i in range(40)])
    rows = "\n".join(f"{i:02d}.png,{'cat' if i % 2 else 'dog'}" for i in range(20))
    (folder / "labels.csv").write_text(f"file,label\n{rows}\n")
    kind = load_family("sgan")
    settings = resolve("sgan", str(folder), kind.Config, {"holdout": 0.25, "labels_only": 4})
    material = read_material(settings, kind)
    assert material.spec.classes == ("cat", "dog")
    assert material.images.labels is None  # nobody else takes -1 for a class
    assert any(note.startswith("4 of 30 pictures to learn from") for note in material.notes)
    train, held = material.split(0.25)[0]
    stream = material.stream(settings.data, seed=0, rank=0, world=1)
    seen = stream.read(0, 60)
    assert set(seen["images"][:, 0, 0, 0].tolist()) == set(train.tolist())
    labelled = seen["labelled"][:, 0, 0, 0].tolist()
    assert len(set(labelled)) == 4
    assert not set(labelled) & set(held.tolist())
    assert all(
        label == (number % 2 == 0) for number, label in zip(labelled, seen["labels"], strict=True)
    )
    half = [
        material.stream(settings.data, seed=0, rank=rank, world=2).read(0, 60) for rank in (0, 1)
    ]
    for name, whole in seen.items():
        assert np.array_equal(np.concatenate([part[name] for part in half]), whole)
