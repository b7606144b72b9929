"""`faussaire evaluate`, and measuring while training, typed for real."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import faussaire as package
from cli.commands import TINY, faussaire, make_pictures, start
from faussaire.cli import main
from faussaire.core.errors import UserError
from faussaire.core.figures import METRICS, OF_SETS, read_figures
from faussaire.metrics import classifier

PIXELS = ["--extractor", "pixels"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("photos"), classes=True)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that measured itself on the way: at 240, 480 and at its end, 640 examples."""
    out = tmp_path_factory.mktemp("runs") / "measured"
    said, _ = faussaire(
        "train", "dcgan", photos, "--out", out, *TINY, *PIXELS, "--examples", "640",
        "--classes", "folders", "--conditional",
        "--evaluate-every", "240", "--evaluate-count", "60", "--evaluate-metrics", "fid,kid",
    )  # fmt: skip
    assert "measured fid[pixels,60/train,clean]" in said
    assert "the best so far" in said
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.long
def test_training_measures_and_keeps_the_best_checkpoint(run):
    figures = [f for f in read_figures(run / "metrics.jsonl") if f.provenance.metric == "fid"]
    assert [figure.examples for figure in figures] == [240, 480, 640]
    best = min(figures, key=lambda figure: figure.value)
    marks = json.loads((run / "checkpoints" / "marks.json").read_text())
    assert marks == {"best": f"{best.examples:012d}"}
    assert (run / "checkpoints" / marks["best"] / "state.json").exists()
    for figure in figures:
        assert figure.circumstances["checkpoint"] == f"{figure.examples:012d}"
        assert figure.provenance.reference_count == 48
        assert figure.circumstances["dataset"] == figure.provenance.reference_key
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    measured = [event for event in events if event["event"] == "measured"]
    assert [event["examples"] for event in measured] == [240, 480, 640]
    assert measured[0]["best"] is True
    assert "extractor: pixels" in (run / "config.yaml").read_text()


@pytest.mark.long
def test_ctrl_c_does_not_wait_for_a_measurement(photos, tmp_path):
    process = start(
        "train", "dcgan", photos, "--out", tmp_path / "run", *TINY, *PIXELS, "--examples", "9600",
        "--classes", "none", "--evaluate-every", "160", "--evaluate-count", "1000000",
    )  # fmt: skip
    saved = tmp_path / "run" / "checkpoints" / f"{160:012d}" / "state.json"
    deadline = time.monotonic() + 60
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # into the measurement of a million samples, which follows at once
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "everything is saved" in err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.long
def test_two_processes_measure_once(photos, tmp_path):
    faussaire(
        "train", "dcgan", photos, "--out", tmp_path / "run", *TINY, *PIXELS, "--examples", "320",
        "--processes", "2", "--classes", "none", "--evaluate-every", "160",
        "--evaluate-count", "60",
    )  # fmt: skip
    figures = read_figures(tmp_path / "run" / "metrics.jsonl")
    assert [figure.examples for figure in figures] == [160, 320]


def test_measuring_changes_no_weight(run, photos, tmp_path):
    faussaire(
        "train", "dcgan", photos, "--out", tmp_path / "plain", *TINY, "--examples", "640",
        "--classes", "folders", "--conditional",
    )  # fmt: skip
    last = "000000000640/networks.safetensors"
    ours = (run / "checkpoints" / last).read_bytes()
    assert ours == (tmp_path / "plain" / "checkpoints" / last).read_bytes()


def test_a_measurement_repeats_what_training_measured(copy):
    before = [f for f in read_figures(copy / "metrics.jsonl") if f.examples == 480]
    said, _ = faussaire(
        "evaluate", copy, *PIXELS, "--metrics", "fid", "--count", 60, "--json", "--checkpoint", 480
    )
    found = json.loads(said)["figures"][0]
    assert found["name"] == "fid[pixels,60/train,clean]"
    assert found["value"] == pytest.approx(before[0].value, rel=1e-9)


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command prints, in this process: most of a command's seconds are imports."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_usual_metrics_with_table_and_pictures(copy, capsys):
    said = typed(capsys, copy, *PIXELS, "--count", 100)
    for metric in ("fid", "kid", "precision", "coverage", "authenticity", "swd", "ms-ssim"):
        assert f"{metric}[" in said
    assert "100/train" in said
    with Image.open(copy / "evaluation" / "neighbours.png") as image:
        assert image.width > 64
    for figure in read_figures(copy / "metrics.jsonl"):
        assert math.isfinite(figure.value)
        assert figure.real is not None
        assert figure.circumstances["seconds"] >= 0


@pytest.mark.long
def test_everything_that_can_be_measured_without_weights(copy, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 60)
    wanted = ",".join(name for name in OF_SETS if name not in ("is", "ppl"))
    said = typed(capsys, copy, *PIXELS, "--metrics", wanted, "--count", 100, "--json")
    figures = {figure["metric"]: figure for figure in json.loads(said)["figures"]}
    assert set(figures) == set(wanted.split(","))
    assert set(figures["class-fid"]["parts"]) == {"blue", "red"}
    assert 0 <= figures["cas"]["value"] <= 1
    assert figures["cas"]["real"] is not None


def test_python_gives_the_same(copy):
    found = package.evaluate(copy, metrics="kid", count=60, extractor="pixels")
    assert found["kid"].name == "kid[pixels,60/train,clean,100x24]"
    with pytest.raises(KeyError, match="fid was not measured"):
        found["fid"]
    with pytest.raises(UserError, match="either a run, or both fake and real"):
        package.evaluate(fake="x")


def test_against_other_pictures(copy, tmp_path, capsys):
    other = make_pictures(tmp_path / "held out", count=30)
    said = typed(capsys, copy, *PIXELS, "--against", other, "--metrics", "fid", "--count", 60)
    assert "fid[pixels,60/held_out,clean]" in said


def test_one_folder_against_another(photos, tmp_path, capsys):
    pictures = make_pictures(tmp_path / "same", classes=True)
    said = typed(
        capsys, "--fake", pictures, "--real", photos, *PIXELS, "--out", tmp_path / "out",
        "--metrics", "fid,precision,recall,swd,authenticity", "--json",
    )  # fmt: skip
    figures = {figure["metric"]: figure["value"] for figure in json.loads(said)["figures"]}
    assert figures["fid"] == pytest.approx(0, abs=1e-4)
    assert figures["precision"] == figures["recall"] == 1
    assert figures["swd"] < 20
    assert figures["authenticity"] == 0  # every picture is a copy
    assert len(read_figures(tmp_path / "out" / "metrics.jsonl")) == 5
    assert (tmp_path / "out" / "evaluation" / "neighbours.png").exists()


def test_real_features_are_kept_and_a_damaged_cache_is_made_anew(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))
    first = package.evaluate(copy, metrics="fid", count=60, extractor="pixels")["fid"]
    (folder,) = (path for path in (tmp_path / "cache" / "features").iterdir() if path.is_dir())
    before = (folder / "vectors.npy").stat().st_mtime_ns
    again = package.evaluate(copy, metrics="fid", count=60, extractor="pixels")["fid"]
    assert again.value == first.value
    assert (folder / "vectors.npy").stat().st_mtime_ns == before
    (folder / "moments.npz").write_bytes(b"half of it")
    anew = package.evaluate(copy, metrics="fid", count=60, extractor="pixels")["fid"]
    assert anew.value == first.value
    assert (folder / "vectors.npy").stat().st_mtime_ns > before


def noise(folder: Path, count: int, size: tuple[int, int]) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_bad_input_is_a_sentence_and_writes_nothing(copy, photos, tmp_path, capsys):
    three = noise(tmp_path / "three", 3, (24, 20))
    small = noise(tmp_path / "small", 30, (16, 16))
    mixed = noise(tmp_path / "mixed", 30, (16, 16))
    Image.new("RGB", (20, 20)).save(mixed / "other.png")
    empty = tmp_path / "empty"
    shutil.copytree(copy, empty)
    shutil.rmtree(empty / "checkpoints")
    before = (copy / "metrics.jsonl").read_bytes()
    (tmp_path / "file").write_text("")
    cases = [
        ([copy, *PIXELS, "--out", tmp_path / "file"], "'file' could not be made"),
        ([copy, *PIXELS, "--resolution", "32"], "do not apply to a run"),
        ([copy, *PIXELS, "--metrics", "class-fid", "--count", "12"], "rarest class has 6 pictures"),
        (["--fake", three, "--real", photos, *PIXELS], "3 pictures (three) are too few"),
        (["--fake", small, "--real", photos, *PIXELS], "differ in size: small are 16x16 RGB"),
        (["--fake", mixed, "--real", small, *PIXELS], "have 2 sizes, from 16x16 to 20x20"),
        ([empty, *PIXELS], "holds no checkpoint yet"),
        ([tmp_path / "nowhere"], "is not a run"),
        ([copy, "--against", tmp_path / "nowhere", *PIXELS], "There is nothing at"),
        ([copy, "--metrics", "fidd"], "Did you mean 'fid'?"),
        ([copy, *PIXELS, "--metrics", "is"], "needs a classifier, and pixels is none"),
        ([copy, "--extractor", "pixel"], "Did you mean 'pixels'?"),
        ([copy, "--fake", photos, "--real", photos], "only one of the two"),
        (["--fake", photos], "needs --real"),
        ([], "needs a run"),
        ([copy, "--count", "0"], "0"),
    ]
    for words, expected in cases:
        try:
            code = main(["evaluate", *map(str, words)])
        except SystemExit as stop:  # the parser's own way out
            code = stop.code
        said = capsys.readouterr()
        assert code == 2, words
        assert expected in said.err, (words, said.err)
        assert "Traceback" not in said.err
    assert (copy / "metrics.jsonl").read_bytes() == before
    assert not (copy / "evaluation").exists()


def test_a_diverged_generator_is_told(copy, capsys):
    from safetensors.torch import load_file, save_file

    checkpoint = max((copy / "checkpoints").glob("[0-9]*"))
    for name in ("networks", "averaged"):
        tensors = load_file(checkpoint / f"{name}.safetensors")
        save_file({k: v * math.nan for k, v in tensors.items()}, checkpoint / f"{name}.safetensors")
    state = json.loads((checkpoint / "state.json").read_text())
    import hashlib

    for name in state["sha256"]:
        state["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "state.json").write_text(json.dumps(state))
    before = (copy / "metrics.jsonl").read_bytes()
    assert main(["evaluate", str(copy), *PIXELS]) == 2
    assert "values that are not numbers" in capsys.readouterr().err
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_another_ruler_does_not_pass_the_mark_on(copy, photos):
    """Measured with other counts, the best checkpoint is measured anew before it may lose its mark."""
    best = json.loads((copy / "checkpoints" / "marks.json").read_text())["best"]
    faussaire(
        "resume", copy, "--examples", "960", "--evaluate-count", "50", "--evaluate-every", "960",
    )  # fmt: skip
    figures = [
        figure
        for figure in read_figures(copy / "metrics.jsonl")
        if figure.provenance.metric == "fid" and figure.provenance.count == 50
    ]
    assert {figure.examples for figure in figures} == {int(best), 960}
    winner = min(figures, key=lambda figure: figure.value)
    marks = json.loads((copy / "checkpoints" / "marks.json").read_text())
    assert int(marks["best"]) == winner.examples


def test_a_figure_that_would_mean_nothing_is_refused_before_training(photos, tmp_path):
    faussaire(
        "train", "dcgan", photos, "--out", tmp_path / "run", *TINY, *PIXELS, "--examples", "320",
        "--classes", "folders", "--conditional", "--evaluate-every", "160",
        "--evaluate-metrics", "kid", "--evaluate-count", "9", expect=2,
    )  # fmt: skip
    assert not (tmp_path / "run").exists()  # told before anything was written


def test_the_floor_has_the_counts_of_the_figure(copy):
    few = package.evaluate(copy, metrics="fid", count=12, extractor="pixels")["fid"]
    many = package.evaluate(copy, metrics="fid", count=500, extractor="pixels")["fid"]
    assert few.real_counts == "12/36"
    assert many.real_counts == "24/24"
    assert few.real != many.real


def test_all_means_all_that_fit(copy, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    said = json.loads(typed(capsys, copy, *PIXELS, "--metrics", "all", "--count", 60, "--json"))
    measured = {figure["metric"] for figure in said["figures"]}
    assert {"fid", "cas", "class-fid", "swd"} <= measured
    assert "is" not in measured
    assert any(note.startswith("Left out, for they do not fit: is") for note in said["notes"])


def test_tiny_pictures_are_measured_by_what_fits(tmp_path):
    sets = [noise(tmp_path / name, 30, (6, 6)) for name in ("a", "b")]
    found = package.evaluate(fake=sets[0], real=sets[1], extractor="pixels")
    measured = {figure.provenance.metric for figure in found.figures}
    assert "fid" in measured
    assert not {"swd", "ms-ssim"} & measured


def test_metrics_are_explained(capsys):
    assert main(["evaluate", "--explain"]) == 0
    said = capsys.readouterr().out
    for metric in METRICS.values():
        assert metric.reading in said.replace("\n", " ")
