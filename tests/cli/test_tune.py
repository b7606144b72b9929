"""`faussaire tune`, typed for real: stopped, gone on with, and its result put to use."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from cli.commands import faussaire, start
from faussaire.cli import main
from faussaire.cli.train import parse_settings
from faussaire.cli.tune import Command, Trials, with_budget

pytest.importorskip("optuna")

TINY = ["digits", "--resolution", "16", "--width", "4", "--latent", "8", "--extractor", "pixels"]
SHORT = [*TINY, "--evaluate-count", "100", "--trials", "2", "--examples", "6400"]


@pytest.mark.long
def test_a_search_is_stopped_goes_on_and_its_result_trains(tmp_path: Path, capsys) -> None:
    out = tmp_path / "found"
    words = ["tune", "dcgan", *SHORT, "--out", out, "--search", "lr=1e-4..1e-2", "batch=8,16"]
    process = start(*words)
    patience = time.monotonic() + 300
    while not list(out.glob("trials/0000/checkpoints/0*/state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 130, err
    assert "Stopped by Ctrl-C in trial 0000; it is saved" in err
    assert "The same command goes on" in err
    assert "Traceback" not in err
    said, err = faussaire(*words, "--json", timeout=300)
    assert "trial 0000, 1 of 2: lr 2e-4, batch 16 (as it would be trained without a search)" in err
    found = json.loads(said)
    by = {Path(row["run"]).name: row for row in found["found"]}
    assert {name: row["state"] for name, row in by.items()} == {
        "0000": "complete",
        "0002": "complete",
    }
    assert by["0000"]["start"]
    begun = [
        json.loads(line)["examples"]
        for line in (out / "trials/0000/events.jsonl").read_text().splitlines()
        if '"started"' in line
    ]
    assert len(begun) == 2
    assert begun[1] > 0, "it went on from its checkpoint"
    best = out / "best.yaml"
    said, _ = faussaire("train", "dcgan", *TINY[:1], "--config", best, "--dry-run", "--json")
    settings = json.loads(said)["settings"]
    winner = found["found"][0]["settings"]
    assert {name: settings[name] for name in winner} == winner
    assert settings["width"] == 4
    page = (out / "tuning.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    assert page.count('<svg class="chart"') == 3
    again = list(map(str, words))
    assert main(again) == 0, "nothing is left to do"
    assert (
        f"faussaire train dcgan digits --config {best}" in capsys.readouterr().out.splitlines()[-1]
    )
    assert main([*again, "--width", "8"]) == 2
    assert "width is 4, not 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "seconds", "examples"),
    [
        (["--for", "10m"], 30.0, None),
        (["--for-each", "10m"], 600.0, None),
        (["--examples=5k"], None, 5000),
    ],
)
def test_budgets(words: list[str], seconds: float | None, examples: int | None) -> None:
    settings, command = parse_settings(
        *("dcgan", "digits", words, []), name="tune", kind=Command, training=Trials
    )
    training = with_budget(settings, command, {words[0].partition("=")[0]}).training
    assert (training.duration, training.examples) == (seconds, examples)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dcgan", "digits"], "No budget was given"),
        (["dcgan", "digits", "--for", "1h", "--for-each", "5m"], "--for and --for-each were given"),
        (["dcgan", "digits", "--for", "1h", "--examples", "5k"], "they may disagree"),
        (["dcgan", "--for", "1h"], "faussaire tune dcgan needs data"),
        (["dcgun", "digits", "--for", "1h"], "Did you mean 'dcgan'"),
        (["dcgan", "nowhere/", "--for", "1h"], "nowhere"),
        (["dcgan", "digits", "--for", "1h", "--trials", "0"], "--trials 0 are none"),
        (["dcgan", "digits", "--for", "1h", "--search", "lrr=1..2"], "no setting 'lrr'"),
        (
            ["dcgan", "digits", "--for", "1h", "--search", "lr=1e-5..1e-2", "--lr", "1e-3"],
            "lr is both given and searched",
        ),
        (["--for", "1h"], "needs a family and data"),
    ],
)
def test_mistakes_are_told_in_sentences(
    words: list[str], sentence: str, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["tune", *words])
    except SystemExit as left:  # the parser's own mistakes
        code = left.code
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert code == 2
    assert sentence in said
    assert not (tmp_path / "tunings").exists(), "nothing was begun"


def test_completion_knows_the_command(capsys) -> None:
    main(["completion", "words", "tune", "dc"])
    assert capsys.readouterr().out.split() == ["dcgan"]
    main(["completion", "words", "tune", "dcgan", "digits", "--fo"])
    assert set(capsys.readouterr().out.split()) == {"--for", "--for-each"}
    main(["completion", "words", "tune", "dcgan", "digits", "--max"])
    assert capsys.readouterr().out.split() == ["--max-width"]
