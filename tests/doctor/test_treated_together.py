"""Two real processes under a doctor who acts are treated as one would be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli.commands import free_port

SCRIPT = Path(__file__).with_name("treated_together.py")


def processes(count: int, folder: Path, *words: str) -> list[dict]:
    folder.mkdir()
    port = free_port()
    started = []
    for rank in range(count):
        places = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        started.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder), *words],
                env={**environment, **places, **address} if count > 1 else environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


@pytest.mark.long
def test_two_processes_are_treated_as_one(tmp_path):
    (alone,) = processes(1, tmp_path / "one", "diversity", "0.01")
    first, second = processes(2, tmp_path / "two", "diversity", "0.01")
    assert first["treated"]
    assert all(seen > now for seen, now, _ in first["treated"])  # back to a checkpoint
    assert first["treated"] == alone["treated"]
    assert first["settings"] == second["settings"] == alone["settings"]
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
        if name.startswith("networks/"):
            # Sums over halves of a batch are added in another order, which Adam magnifies.
            off = (tensor - alone["weights"][name]).norm() / (1e-6 + tensor.norm())
            assert off < 0.05, f"{name}: {off:.3f}"
