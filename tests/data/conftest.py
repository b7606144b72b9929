"""Real pictures for every test: drawn into tmp_path, or taken from the data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.drawing import draw


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that none touches the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def many(pictures: Path) -> Callable[..., Path]:
    """many(count, height, width) writes PNGs 000.png, ... and returns their folder."""

    def write(count: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Path:
        for i in range(count):
            draw(i, height, width, mode).save(pictures / f"{i:03d}.png")
        return pictures

    return write
