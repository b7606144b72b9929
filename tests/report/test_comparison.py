"""Runs side by side, from folders as training and evaluation leave them."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import faussaire
from cli.commands import environment
from faussaire.comparison import compare, listed
from faussaire.core.errors import UserError
from faussaire.core.figures import Figure, Provenance, append_figures
from faussaire.report.comparison import facts, render
from report.test_page import check

PROVENANCE: dict[str, Any] = {
    "metric": "fid",
    "extractor": "squeezenet1.1",
    "weights": "b8a52dc0",
    "resize": "clean",
    "count": 1000,
    "reference": "train",
    "reference_count": 1797,
    "reference_key": "aaaa",
    "pictures": "16x16x1",
}


def figure(
    value: float,
    examples: int | None = 500,
    *,
    error: float | None = None,
    real: float | None = None,
    seed: int = 0,
    **provenance: Any,
) -> Figure:
    circumstances = {"seed": seed} if examples is None else {"examples": examples, "seed": seed}
    return Figure(
        provenance=Provenance(**{**PROVENANCE, **provenance}),
        value=value,
        error=error,
        real=real,
        circumstances=circumstances,
    )


def make_run(
    folder: Path,
    figures: list[Figure] | None = None,
    *,
    saved: tuple[int, ...] = (500,),
    key: str = "aaaa",
    **settings: Any,
) -> Path:
    """A run's folder without weights: all that is needed where no samples are drawn."""
    folder.mkdir(parents=True)
    config = {"family": "dcgan", "source": "digits", "lr": 0.0002, **settings}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "data.json").write_text(json.dumps({"key": key, "count": 1797}))
    for examples in saved:
        checkpoint = folder / "checkpoints" / f"{examples:012d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"elapsed": examples / 10}))
    if figures:
        append_figures(folder / "metrics.jsonl", figures)
    return folder


def test_settings_that_differ_and_no_others(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", lr=0.1, width=4)
    b = make_run(tmp_path / "b", lr=0.2, width=4, flip=None)
    found = compare([a, b])
    assert found.settings == {"lr": {"a": 0.1, "b": 0.2}, "flip": {"b": None}}
    assert compare([b, a]).settings["lr"] == {"b": 0.2, "a": 0.1}


@pytest.mark.parametrize(
    ("metric", "values", "real", "best"),
    [
        ("fid", (10.0, 12.0, 11.0), 1.0, ("a",)),
        ("precision", (0.5, 0.7, 0.6), 0.9, ("b",)),
        ("authenticity", (0.2, 0.8, 0.55), 0.5, ("c",)),
        ("ms-ssim", (0.2, 0.4, 0.9), None, ()),  # like real pictures, and nobody knows those
        ("fid", (10.0, 10.0, 11.0), None, ("a", "b")),
        ("fid", (10.0, 10.0, 10.0), None, ()),
    ],
)
def test_the_best_is_that_of_the_metric(tmp_path, metric, values, real, best) -> None:
    runs = [
        make_run(tmp_path / name, [figure(value, real=real, metric=metric)])
        for name, value in zip("abc", values, strict=True)
    ]
    (row,) = compare(runs).rows
    assert row.best == best
    assert row.real == real
    assert [row.figures[name].value for name in "abc"] == list(values)


@pytest.mark.parametrize(
    ("metric", "errors", "close"),
    [
        ("fid", (0.1, 0.1), ()),
        ("fid", (0.4, 0.4), ("b",)),  # 1.0 < 2 * 0.566
        ("fid", (0.4, None), ()),
        ("is", (0.4, 0.4), ()),  # a deviation over splits
    ],
)
def test_a_lead_within_the_error_is_called_close(tmp_path, metric, errors, close) -> None:
    values = (11.0, 10.0) if metric == "is" else (10.0, 11.0)
    a, b = (
        make_run(tmp_path / name, [figure(value, error=error, metric=metric)])
        for name, value, error in zip("ab", values, errors, strict=True)
    )
    (row,) = compare([a, b]).rows
    assert row.best == ("a",)
    assert row.close == close


def test_the_measurement_at_the_checkpoint_counts_else_the_newest(tmp_path: Path) -> None:
    course = [figure(30.0, 100), figure(20.0, 500), figure(25.0, 300)]
    a = make_run(tmp_path / "a", course, saved=(100, 300, 500))
    b = make_run(tmp_path / "b", course, saved=(100, 900))
    (row,) = compare([a, b]).rows
    assert {name: one.value for name, one in row.figures.items()} == {"a": 20.0, "b": 25.0}
    (row,) = compare([a, b], checkpoint="100").rows
    assert {one.value for one in row.figures.values()} == {30.0}
    page = render(compare([a, b]))
    assert "at 300 examples" in page
    assert "at 500 examples" not in page


def test_a_figure_measured_anew_replaces_the_older_one(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(30.0), figure(31.0, seed=1)])
    b = make_run(tmp_path / "b", [figure(20.0, None)])
    (row,) = compare([a, b]).rows
    assert row.figures["a"].value == 31.0
    assert "at an unknown point" in render(compare([a, b]))


def test_figures_of_other_provenance_never_share_a_row(tmp_path: Path) -> None:
    pixels: dict[str, Any] = {"extractor": "pixels", "weights": "", "resize": "clean"}
    a = make_run(tmp_path / "a", [figure(10.0), figure(0.2, metric="kid")])
    b = make_run(tmp_path / "b", [figure(900.0, **pixels), figure(9.0, metric="kid", **pixels)])
    found = compare([a, b])
    assert [(row.provenance.name, list(row.figures)) for row in found.rows] == [
        ("fid[squeezenet1.1,1000/train,clean]", ["a"]),
        ("fid[pixels,1000/train,clean]", ["b"]),
        ("kid[squeezenet1.1,1000/train,clean]", ["a"]),
        ("kid[pixels,1000/train,clean]", ["b"]),
    ]
    assert all(row.best == () for row in found.rows)
    (one,) = found.incomparable
    sentence = "fid, kid: a and b are not comparable: the extractor is squeezenet1.1 and pixels."
    assert one.sentence() == sentence
    assert one.differences == {"extractor": ("squeezenet1.1", "pixels")}
    assert sentence in render(found)
    assert "best</span>" not in render(found)


def test_the_package_compares_too(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, [figure(1.0)]) for name in "ab")
    assert faussaire.compare(a, b) == compare([a, b])


def test_another_word_for_the_same_reference_separates_nothing(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(1.0)])
    b = make_run(tmp_path / "b", [figure(2.0, reference="test")])
    assert len(compare([a, b]).rows) == 1


def test_every_difference_of_provenance_separates(tmp_path: Path) -> None:
    other = {
        "weights": "ffff",
        "resize": "legacy",
        "count": 999,
        "reference_count": 5,
        "reference_key": "bbbb",
        "whole": False,
        "pictures": "8x8x1",
        "details": "k=5",
        "revision": 2,
    }
    a = make_run(tmp_path / "a", [figure(1.0)])
    for name, value in other.items():
        b = make_run(tmp_path / name, [figure(2.0, **{name: value})])
        found = compare([a, b])
        assert len(found.rows) == 2, name
        (one,) = found.incomparable
        assert list(one.differences) == [name]


def test_reasons_are_joined_whatever_the_order_of_runs(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, [figure(1.0, count=count)])
        for name, count in (("a", 1000), ("b", 2000), ("c", 1000), ("d", 2000))
    ]
    (three,) = compare(runs[:3]).incomparable
    assert (three.left, three.right) == (("a", "c"), ("b",))
    assert "a and c are not comparable with b: " in three.sentence()
    (one,) = compare(runs).incomparable
    assert (
        one.sentence()
        == "fid: a and c are not comparable with b and d: the number of samples is 1000 and 2000."
    )


def test_runs_that_share_a_row_are_comparable(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(1.0, count=50), figure(2.0)])
    b = make_run(tmp_path / "b", [figure(3.0), figure(1.5, count=70)])
    found = compare([a, b])
    assert [row.best for row in found.rows] == [(), ("a",), ()]
    assert found.incomparable == ()


def test_a_run_without_figures_is_told_how_to_get_some(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(1.0)])
    b = make_run(tmp_path / "b and more")
    (note,) = compare([a, b]).notes
    assert note.startswith(f"b and more has no figures yet: `faussaire evaluate '{b}'`")
    assert f"<code>faussaire evaluate &#39;{b}&#39;</code>" in render(compare([a, b]))
    assert "None of these runs has figures yet" in render(compare([b, make_run(tmp_path / "c")]))


def test_other_pictures_are_told(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, key=key) for name, key in (("a", "1"), ("b", "2"), ("c", "1"))
    ]
    assert "not trained on the same pictures: a and c; b." in compare(runs).notes[0]
    assert not any("same pictures" in note for note in compare(runs[::2]).notes)


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "x" / "run"), make_run(tmp_path / "y" / "run")
    assert compare([a, b]).names == ("x/run", "y/run")
    assert compare([a, make_run(tmp_path / "y" / "other")]).names == ("run", "other")


def test_facts_belong_to_the_checkpoint(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", saved=(500, 90_000))
    b = make_run(tmp_path / "b", saved=())
    rows = dict(facts(compare([a, b]).sides))
    assert rows["examples seen"] == ["90,000", "0"]
    assert rows["training time"] == ["2h30m", "0.0s"]
    assert dict(facts(compare([a, make_run(tmp_path / "c")], checkpoint="500").sides))[
        "examples seen"
    ] == ["500", "500"]


def test_the_best_checkpoint_by_its_mark(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, saved=(100, 200, 300)) for name in "ab"]
    for path, best in zip(runs, (100, 200), strict=True):
        marks = path / "checkpoints" / "marks.json"
        marks.write_text(json.dumps({"best": f"{best:012d}"}))
    assert [side.checkpoint for side in compare(runs, checkpoint="best").sides] == [100, 200]
    (runs[0] / "checkpoints" / "marks.json").write_text("[")
    with pytest.raises(UserError, match=r"marks\.json' is damaged"):
        compare(runs, checkpoint="best")


def test_damage_that_can_be_lived_with(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(1.0)])
    b = make_run(tmp_path / "b", [figure(2.0)])
    with (a / "metrics.jsonl").open("a") as file:
        file.write('{"name": "fid[squ')
    (a / "checkpoints" / f"{500:012d}" / "state.json").write_text("{")
    (row,) = compare([a, b]).rows
    assert row.best == ("a",)
    (b / "metrics.jsonl").unlink()
    (b / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl' cannot be read"):
        compare([a, b])


def test_the_record_is_json_without_pictures(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [figure(1.0, error=0.1, real=0.5), figure(0.3, metric="recall")])
    b = make_run(tmp_path / "b", [figure(2.0, error=0.1), figure(0.2, metric="recall", count=7)])
    found = json.loads(json.dumps(compare([a, b]).record(), allow_nan=False))
    assert [run["settings"]["family"] for run in found["runs"]] == ["dcgan", "dcgan"]
    fid, recall, other = found["figures"]
    assert (fid["best"], fid["real"], recall["best"], other["best"]) == (["a"], 0.5, [], [])
    assert Figure.of(fid["values"]["b"]) == figure(2.0, error=0.1)
    assert found["incomparable"][0]["differences"] == {"count": [1000, 7]}


def test_the_page_is_complete_in_itself(tmp_path: Path) -> None:
    course = [figure(40.0, 100, real=2.0), figure(20.0, 500, real=2.0)]
    a = make_run(tmp_path / "a", course)
    b = make_run(tmp_path / "b", [figure(30.0, 500)], lr=0.5)
    path = compare([a, b]).write_html(tmp_path / "new" / "compare.html")
    page = path.read_text()
    links = check(page)
    assert "img" not in links.tags
    for words in ("Settings that differ", "real pictures", "0.5", f"faussaire compare {a} {b}"):
        assert words in page
    assert page.count('class="line"') == 2, "one line for each run"
    assert [file.name for file in path.parent.iterdir()] == ["compare.html"]


def test_grids_stand_in_the_page(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path / "a"), make_run(tmp_path / "b")])
    sides = tuple(
        dataclasses.replace(side, grid=Image.new("RGBA", (30, 20), 5)) for side in found.sides
    )
    for same, words in ((True, "same latent vector"), (False, "not equal latent vectors")):
        page = render(dataclasses.replace(found, sides=sides, same_latents=same))
        assert len(check(page).targets) == 2
        assert words in page


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&' {{ 1234*5678 }}"
    a = make_run(tmp_path / evil.replace("/", "∕"), [figure(1.0)], saved=(1,), **{evil: evil})
    b = make_run(tmp_path / "b", [figure(2.0, details=evil)], source=evil)
    page = render(compare([a, b]))
    assert check(page).tags.count("script") == 1
    assert "<script>alert" not in page
    assert "onerror=alert(2)>" not in page
    assert "7006652" not in page.split("</style>")[1].split("<h2>")[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "no run at all"),
        (("a",), "'a' alone"),
        (("a", "missing"), "'missing' is not a run"),
        (("a", "a"), "The run 'a' was given twice."),
        (("a", "b", "b/../a"), "also as 'a'"),
    ],
)
def test_mistakes_are_sentences(tmp_path, monkeypatch, names, expected) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("a"))
    make_run(Path("b"))
    with pytest.raises(UserError) as caught:
        compare(names)
    assert expected in caught.value.cause
    assert caught.value.hint


def test_checkpoints_that_are_not_there(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", saved=(500, 600)), make_run(tmp_path / "b", saved=())
    with pytest.raises(UserError, match=r"no checkpoint '700'\. It has: latest, 500, 600\."):
        compare([a, b], checkpoint="700")
    with pytest.raises(UserError, match=r"b' has no checkpoint 'best'\. It has none yet"):
        compare([b, a], checkpoint="best")
    with pytest.raises(UserError, match="-1 samples"):
        compare([a, b], samples=-1)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path / "a"), make_run(tmp_path / "b")])
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "a", tmp_path / "file" / "compare.html"):
        with pytest.raises(UserError, match=r"is a folder|is no folder"):
            found.write_html(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_left_of_a_page_that_a_full_disk_cut(tmp_path: Path, monkeypatch) -> None:
    found = compare([make_run(tmp_path / "a"), make_run(tmp_path / "b")])

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UserError, match="full"):
        found.write_html(tmp_path / "compare.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_no_torch_without_samples(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", [figure(1.0)]), make_run(tmp_path / "b")
    code = (
        "import sys\n"
        "from faussaire.comparison import compare\n"
        f"compare([{str(a)!r}, {str(b)!r}]).write_html({str(tmp_path / 'c.html')!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_lists_of_names() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
