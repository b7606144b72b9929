"""A table on disk for the tests of tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tables.people import write


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write(tmp_path / "people.csv")
