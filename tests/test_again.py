"""The same command again finds its own run: what settings are kept as agrees with what was asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.commands import make_pictures
from faussaire.core.config import resolve
from faussaire.families import load_family
from faussaire.sound.waves import write_wave
from faussaire.training import differences
from faussaire.workshop import Workshop
from tables.people import write

# A share of which no whole number of examples is held out, for any of the sources.
SHARE = 0.13


def _photos(folder: Path) -> tuple[str, dict[str, object]]:
    return str(make_pictures(folder / "photos")), {"resolution": "16"}


def _told(folder: Path) -> tuple[str, dict[str, object]]:
    photos = make_pictures(folder / "photos")
    names = sorted(path.name for path in photos.iterdir())
    table = folder / "captions.csv"
    table.write_text(
        "file,text\n" + "".join(f"{name},picture {n}\n" for n, name in enumerate(names))
    )
    return str(photos), {"resolution": "16", "captions": str(table)}


def _people(folder: Path) -> tuple[str, dict[str, object]]:
    return str(write(folder / "people.csv", 70)), {}


def _sentences(folder: Path) -> tuple[str, dict[str, object]]:
    path = folder / "sentences.txt"
    path.write_text("".join(f"sentence number {number}\n" for number in range(70)))
    return str(path), {"length": 8}


def _pieces(folder: Path) -> tuple[str, dict[str, object]]:
    path = folder / "pieces.json"
    pieces = [[[60 + step % root, 48] for step in range(64)] for root in range(2, 13)]
    path.write_text(json.dumps({"train": pieces}))
    return str(path), {"bars": 2}


def _tones(folder: Path) -> tuple[str, dict[str, object]]:
    pytest.importorskip("soundfile")
    for take in range(11):
        tone = 0.4 * np.sin(np.arange(4096) * (0.2 + take / 50))
        write_wave(folder / "tones" / f"{take}.wav", tone, 8000)
    return str(folder / "tones"), {"length": 4096}


@pytest.mark.parametrize(
    ("family", "make"),
    [
        ("dcgan", _photos),
        ("dfgan", _told),
        ("pretext", _photos),
        ("tvae", _people),
        ("lm", _sentences),
        ("musegan", _pieces),
        ("wavegan", _tones),
    ],
)
@pytest.mark.parametrize("holdout", [SHARE, None])
def test_what_is_kept_is_what_was_asked(family, make, holdout, tmp_path, monkeypatch) -> None:
    if family == "musegan":
        pytest.importorskip("pretty_midi")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))
    source, asked = make(tmp_path)
    settings = resolve(family, source, load_family(family).Config, {**asked, "holdout": holdout})
    shop = Workshop.open(settings)
    data = shop.material.settled(settings.data)
    kept = resolve(family, source, type(settings.model), {**asked, **vars(data)})
    assert not differences(kept.flat(), settings.flat())
    # And whoever reads the kept settings holds out the same.
    first, second = shop.material.split(holdout), shop.material.split(data.holdout)
    for (train, unseen), (again, unseen_again) in zip(first, second, strict=True):
        assert len(unseen) or holdout is None
        np.testing.assert_array_equal(train, again)
        np.testing.assert_array_equal(unseen, unseen_again)
