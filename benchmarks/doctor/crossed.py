"""What limits found on two sets of runs are worth on the third, in turn: an honest reading of a search.

    python benchmarks/doctor/crossed.py [--trials 150] [--seed 0]

The rules of `doctor.verdicts` stay; their limits are searched by small steps from what they are, for
the share of ill runs named in the first 30 % less twice that of false alarms. Each of the three recorded
sets is judged by limits that were found on the other two. At last limits are found on all.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from judge import EARLY, Record, load
from truth import illness, usual_fids

from faussaire.doctor.chart import Entry
from faussaire.doctor.verdicts import Diagnostician, Limits

FOLDER = Path(__file__).parent
SETS = ("records", "second", "third")
SEARCHED = (
    "young", "late", "led", "far", "lost", "alike", "poor", "twins", "certain", "clear", "blind",
    "still", "swing", "copied", "learnt", "told", "kept",
)  # fmt: skip


def named(record: Record, limits: Limits) -> bool:
    """Whether an illness is named early."""
    if record["outcome"] == "diverged" and record["ended"] <= EARLY:
        return True
    doctor = Diagnostician(limits)
    return any(
        doctor.see(Entry(**look)).ill for look in record["looks"] if look["progress"] <= EARLY
    )


def counts(runs: list[tuple[Record, bool]], limits: Limits) -> tuple[int, int, int, int]:
    """Ill runs, those of them that are named, well runs, and those that are called ill."""
    said = [(ill, named(record, limits)) for record, ill in runs]
    ill, well = [name for sick, name in said if sick], [name for sick, name in said if not sick]
    return len(ill), sum(ill), len(well), sum(well)


def worth(runs: list[tuple[Record, bool]], limits: Limits) -> float:
    ill, hits, well, alarms = counts(runs, limits)
    return hits / ill - 2.0 * alarms / well


def search(runs: list[tuple[Record, bool]], trials: int, seed: int) -> Limits:
    """The best limits found."""
    rng = np.random.default_rng(seed)
    best, top = Limits(), worth(runs, Limits())
    for _ in range(trials):
        names = rng.choice(SEARCHED, rng.integers(1, 4), replace=False)
        changes = {
            name: type(getattr(best, name))(getattr(best, name) * float(np.exp(rng.normal(0, 0.2))))
            for name in map(str, names)
        }
        if changes.get("certain", 0.0) >= 1.0:
            continue
        tried = replace(best, **changes)
        if (found := worth(runs, tried)) > top:
            best, top = tried, found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    runs: dict[str, list[tuple[Record, bool]]] = {}
    for name in SETS:
        records = load(FOLDER / f"{name}.jsonl.gz")
        usual = usual_fids(records)
        runs[name] = [(record, bool(illness(record, usual))) for record in records]
    sums = np.zeros((2, 4), int)
    for name in SETS:
        others = [run for other in SETS if other != name for run in runs[other]]
        limits = search(others, options.trials, options.seed)
        for row, (what, chosen) in enumerate((("as they are", Limits()), ("searched", limits))):
            found = counts(runs[name], chosen)
            sums[row] += found
            print(
                f"{name:8} {what:12} {found[1]}/{found[0]} named, {found[3]}/{found[2]} false",
                flush=True,
            )
    for row, what in zip(sums, ("as they are", "searched"), strict=True):
        print(f"all      {what:12} {row[1] / row[0]:.1%} named, {row[3] / row[2]:.1%} false")
    every = [run for name in SETS for run in runs[name]]
    limits = search(every, options.trials, options.seed)
    plain = asdict(Limits())
    print(
        "on all:", counts(every, limits), {k: v for k, v in asdict(limits).items() if v != plain[k]}
    )


if __name__ == "__main__":
    main()
