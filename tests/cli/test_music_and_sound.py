"""Music and sound by the commands that people type: train, resume, sample, evaluate, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import faussaire as library
from cli.commands import faussaire
from faussaire.music.model import MusicModel
from faussaire.report.page import render
from faussaire.sound.model import SoundModel
from faussaire.sound.waves import write_wave

TUNE = ["--width", "8", "--shared", "8", "--private", "4", "--batch", "8", "--device", "cpu"]
NOISE = ["--width", "2", "--latent", "8", "--batch", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def music_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a few made-up pieces of two voices, measured once."""
    pytest.importorskip("pretty_midi")
    folder = tmp_path_factory.mktemp("music")
    rng = np.random.default_rng(0)
    pieces = [
        [[int(60 + root + 4 * (step // 8 % 2)), int(48 + root)] for step in range(64)]
        for root in rng.integers(12, size=12)
    ]
    (folder / "pieces.json").write_text(json.dumps({"train": pieces}))
    faussaire(
        *("train", "musegan", folder / "pieces.json", "--out", folder / "run", *TUNE, "--bars", 2),
        *("--examples", 96, "--holdout", 0.2, "--evaluate-every", 48, "--evaluate-count", 20),
    )
    return folder / "run"


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tones of two classes, measured once."""
    pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("sound")
    time = np.arange(4096) / 8000
    for name, pitch in (("high", 900.0), ("low", 300.0)):
        for take in range(25):
            tone = 0.4 * np.sin(2 * np.pi * (pitch + take) * time)
            write_wave(folder / "tones" / f"{name}_{take}.wav", tone, 8000)
    faussaire(
        *("train", "wavegan", folder / "tones", "--out", folder / "run", *NOISE, "--conditional"),
        *("--classes", "prefix", "--examples", 96, "--evaluate-every", 48, "--evaluate-count", 20),
    )
    return folder / "run"


def figures_of(run: Path) -> dict[str, float]:
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return {record["metric"]: record["value"] for record in map(json.loads, lines)}


def test_music_leaves_previews_figures_and_a_page(music_run):
    shown = {path.suffix for path in (music_run / "samples").glob("0*")}
    assert shown == {".png", ".mid"}
    assert (music_run / "samples" / "reals.png").exists()
    assert figures_of(music_run)["music-gap"] >= 0.0
    assert "best" in json.loads((music_run / "checkpoints" / "marks.json").read_text("utf-8"))
    assert "musegan" in render(music_run)


@pytest.mark.long
def test_music_goes_on_and_is_sampled_and_measured(music_run, tmp_path):
    faussaire("resume", music_run, "--examples", 144)
    said, _ = faussaire(
        "sample", music_run, "--count", 3, "--out", tmp_path / "made", "--wav", "off"
    )
    assert "3 phrases" in said
    made = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert made == ["rolls.png", *(f"seed0-0000{row}.mid" for row in range(3))]
    _, again = faussaire("sample", music_run, "--out", tmp_path / "made", "--count", 3, expect=2)
    assert "exists already" in again
    model = library.load(music_run, device="cpu")
    assert isinstance(model, MusicModel)
    rolls = model.sample(4, seed=1)
    assert np.array_equal(model.sample(2, seed=1, start=2), rolls[2:])
    assert np.array_equal(model.decode(model.latents(4, seed=1)), rolls)
    assert {*np.unique(rolls)} <= {0, 1}
    faussaire("evaluate", music_run, "--count", 20)
    assert {"tonal-distance", "pitch-classes", "empty-bars"} <= figures_of(music_run).keys()
    assert (music_run / "evaluation" / "rolls.png").exists()
    _, wrong = faussaire("evaluate", music_run, "--metrics", "fid", expect=2)
    assert "this makes phrases" in wrong


def test_sound_leaves_previews_figures_and_a_page(sound_run):
    shown = {path.suffix for path in (sound_run / "samples").glob("0*")}
    assert shown == {".png", ".wav"}
    assert figures_of(sound_run)["log-mel"] > 0.0
    assert "data:audio/wav" in render(sound_run)


@pytest.mark.long
def test_sound_goes_on_and_is_sampled_and_measured(sound_run, tmp_path):
    faussaire("resume", sound_run, "--examples", 144)
    said, _ = faussaire(
        "sample", sound_run, "--count", 2, "--out", tmp_path / "made", "--class", "low"
    )
    assert "2 clips" in said
    assert {path.suffix for path in (tmp_path / "made").iterdir()} == {".wav", ".png"}
    model = library.load(sound_run, device="cpu")
    assert isinstance(model, SoundModel)
    waves = model.sample(4, seed=1, label=[0, 1, 0, 1])
    assert waves.shape == (4, 4096)
    assert np.allclose(model.sample(2, seed=1, start=2, label="low")[1], waves[3], atol=1e-5)
    with pytest.raises(library.UserError, match=r"no class 'lo'.*Did you mean 'low'"):
        model.sample(1, label="lo")
    faussaire("evaluate", sound_run, "--count", 20)
    assert {"class-score", "class-kept", "mel-nearest"} <= figures_of(sound_run).keys()


@pytest.mark.parametrize("family", ["musegan", "wavegan"])
def test_nothing_to_learn_from_is_one_sentence(family, tmp_path):
    (tmp_path / "empty").mkdir()
    _, told = faussaire("train", family, tmp_path / "empty", "--out", tmp_path / "run", expect=2)
    assert "no files at all" in told
