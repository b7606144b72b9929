"""A table with all that tables have: gaps, dates, long tails, constants, IDs, rare values."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

NAMES = ("id", "age", "income", "height", "joined", "member", "town", "job", "country", "rooms")


def rows(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Rows of text; income follows age and job."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        age = int(np.clip(rng.normal(45, 15), 18, 90))
        job = str(rng.choice(["clerk", "smith", "judge"], p=[0.6, 0.35, 0.05]))
        income = 0 if rng.random() < 0.3 else int(np.exp(rng.normal(8 + age / 30, 1.5)))
        height = "" if rng.random() < 0.1 else f"{rng.normal(170, 10):.1f}"
        day = np.datetime64("2020-01-01") + int(rng.integers(0, 1000))
        member = str(rng.choice(["yes", "no"]))
        town = f"town {int(rng.zipf(1.6)) % 40}"
        rooms = str(int(rng.integers(1, 6)))
        found.append(
            (
                f"P{number:05d}x",
                str(age),
                str(income),
                height,
                str(day),
                member,
                town,
                job,
                "FR",
                rooms,
            )
        )
    return found


def write(path: Path, count: int = 400, *, seed: int = 0, names: tuple[str, ...] = NAMES) -> Path:
    """A CSV of them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows(count, seed))
    return path
