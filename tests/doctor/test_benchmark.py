"""The recorded runs: a change of the rules must not make the doctor worse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "doctor"
SETS = {"second": 72, "third": 73}


@pytest.mark.parametrize(
    ("half", "recall", "false_alarms"),
    [("tune", 95, 5), ("report", 75, 1), ("second", 89, 6), ("third", 83, 12)],
)
def test_illness_is_named_early_and_health_is_not_called_ill(half, recall, false_alarms):
    said = subprocess.run(
        [
            sys.executable,
            str(FOLDER / "judge.py"),
            str(FOLDER / (f"{half}.jsonl.gz" if half in SETS else "records.jsonl.gz")),
            "--half",
            half,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    def early(row: str) -> tuple[int, int]:
        """(runs, named in the first 30 %)."""
        line = next(line for line in said.splitlines() if line.startswith(f"| **{row}**"))
        _, _, count, named, _, _ = line.split("|")
        return int(count), int(named.split()[0])

    ill, well = early("all ill"), early("all well")
    assert ill[0] + well[0] == SETS.get(half, 36)
    assert 100 * ill[1] >= recall * ill[0]
    assert 100 * well[1] <= false_alarms * well[0]
