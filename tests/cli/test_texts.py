"""Sentences by the commands that people type: train, resume, sample, evaluate, and what they refuse."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

import faussaire as library
from cli.commands import faussaire
from faussaire import families
from faussaire.report.page import render
from faussaire.texts.model import TextModel

SMALL = ["--size", "tiny", "--hidden", "16", "--embedding", "8", "--batch", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 sentences of a small grammar, a line each."""
    path = tmp_path_factory.mktemp("texts") / "sentences.txt"
    words = itertools.product(
        ("a", "the", "my", "one"),
        ("cat", "dog", "horse", "bird", "fish"),
        ("sees", "likes", "hears", "chases"),
        ("you.", "it.", "us!"),
    )
    path.write_text("\n".join(map(" ".join, words)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(sentences: Path) -> Path:
    """A run of some hundred sentences, measured once, a fifth of them held out."""
    out = sentences.parent / "run"
    faussaire(
        *("train", "lm", sentences, "--out", out, *SMALL, "--examples", 640, "--holdout", 0.2),
        *("--evaluate-every", 320, "--lr", 0.02),
    )
    return out


def test_previews_are_sentences(run: Path):
    shown = sorted((run / "samples").glob("*.txt"))
    assert (run / "samples" / "reals.txt") in shown
    assert len(shown) > 2
    assert all(path.read_text("utf-8").strip() for path in shown)


def test_its_checkpoints_were_measured_and_the_best_is_marked(run: Path):
    marks = json.loads((run / "checkpoints" / "marks.json").read_text("utf-8"))
    assert "best" in marks
    figures = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    nll = [figure["value"] for figure in figures if figure["metric"] == "nll"]
    assert nll[-1] < nll[0], "what it learns makes real sentences less surprising"


@pytest.mark.long
def test_sampling_writes_sentences_and_nothing_else(run: Path, tmp_path: Path):
    out, _ = faussaire("sample", run, "--count", 5, "--seed", 3)
    assert len(out.splitlines()) == 5
    again, _ = faussaire("sample", run, "--count", 3, "--seed", 3)
    assert again.splitlines() == out.splitlines()[:3], "more sentences begin with the same"
    coldest, _ = faussaire("sample", run, "--count", 3, "--temperature", 0)
    assert len({*coldest.splitlines()}) == 1, "at 0 there is one likeliest sentence"
    target = tmp_path / "made.txt"
    faussaire("sample", run, "--count", 4, "--out", target)
    assert len(target.read_text("utf-8").splitlines()) == 4
    _, err = faussaire("sample", run, "--out", target, expect=2)
    assert "--overwrite" in err


def test_python_has_the_same_sentences(run: Path):
    model = library.load(run)
    assert isinstance(model, TextModel)
    out, _ = faussaire("sample", run, "--count", 5, "--seed", 3)
    assert model.sample(5, seed=3) == out.splitlines()
    assert model.sample(seeds=[3]) == out.splitlines()[:1]
    usual, odd = model.surprise(["the dog likes it.", "it. it. it. it."])
    assert usual < odd


@pytest.mark.long
def test_resuming_goes_on(run: Path, sentences: Path, tmp_path: Path):
    out = tmp_path / "run"
    faussaire("train", "lm", sentences, "--out", out, *SMALL, "--examples", 160)
    faussaire("resume", out, "--examples", 320)
    assert (out / "checkpoints" / "000000000320").is_dir()
    sentences_now = tmp_path / "other.txt"
    sentences_now.write_text("one\nother\nsentence\n" * 20, "utf-8")
    _, err = faussaire("resume", out, sentences_now, "--examples", 480, expect=2)
    assert "sentences" in err
    assert "changed" in err


def test_evaluation_measures_and_shows(run: Path, sentences: Path):
    out, _ = faussaire("evaluate", run, "--count", 60, "--metrics", "nll,bleu,self-bleu,copies")
    for name in ("nll[", "bleu[", "self-bleu[", "copies[", "held-out"):
        assert name in out
    assert (run / "evaluation" / "sentences.txt").read_text("utf-8").count("\n") > 10
    page = render(run)
    assert "Self-BLEU" in page
    assert "<svg" in page
    assert "faussaire film" not in page, "a walk through sentences is no film"
    _, err = faussaire("evaluate", run, "--metrics", "fid", expect=2)
    assert "sentences" in err
    _, err = faussaire("evaluate", run, "--resize", "legacy", expect=2)
    assert "pictures" in err
    out, _ = faussaire("evaluate", run, "--against", sentences, "--metrics", "nll")
    assert "/sentences,word]" in out


def test_a_dry_run_tells_of_sentences(sentences: Path):
    out, _ = faussaire("train", "lm", sentences, *SMALL, "--dry-run")
    assert "240 sentences" in out


def test_without_data_the_message_names_a_text_file():
    _, err = faussaire("train", "lm", expect=2)
    assert "sentences.txt" in err


@pytest.mark.parametrize("command", ["film", "apply"])
def test_what_is_for_pictures_refuses(run: Path, tmp_path: Path, command: str):
    Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
    words = {
        "film": (run, tmp_path / "x.gif"),
        "apply": (run, tmp_path / "dot.png", "--out", tmp_path / "x"),
    }[command]
    _, err = faussaire(command, *words, expect=2)
    assert "sentences" in err


@pytest.mark.parametrize("name", families.names())
def test_modalities_are_known_without_importing(name: str):
    assert families.modality_of(name) == families.load_family(name).modality
