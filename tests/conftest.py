"""Settings shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tests are fastest, and repeat best, on one thread each."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    folder = os.environ.get("FAUSSAIRE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data here: set FAUSSAIRE_DATA to the folder that holds them")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No test reads or fills the user's cache."""
    if "FAUSSAIRE_CACHE" not in os.environ:
        monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
