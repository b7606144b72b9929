"""The doctor's verdicts on the recorded runs, beside the truth.

    python benchmarks/doctor/judge.py RECORDS [--half tune|report|second|third|all] [--each]

RECORDS is the folder `cases` of `run.py`, or `records.jsonl.gz`, which `--pack FILE` makes of it: what
the doctor saw of each run, and the facts.

The rules and their thresholds (`doctor.verdicts`) were made with the first half of the catalogue before
its eyes; the second half, which was trained after they stood, was looked at before the last three
changes. The second and third set, of all cases with other seeds, were trained after everything stood.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from catalogue import SETS, cases
from truth import illness, usual_fids

from faussaire.doctor.chart import Entry
from faussaire.doctor.verdicts import Diagnostician, diagnose_run

EARLY = 0.3
"""Share of the budget within which an illness is to be named."""

Record = dict[str, Any]


def load(path: Path) -> list[Record]:
    if path.is_file():
        with gzip.open(path, "rt") as file:
            records = [json.loads(line) for line in file]
    else:
        records = [json.loads(one.read_text()) for one in path.glob("*.json")]
        records = [slim(record) for record in records]
    order = {case.name: place for place, case in enumerate(c for name in SETS for c in cases(name))}
    return sorted((r for r in records if r["name"] in order), key=lambda r: order[r["name"]])


def slim(record: Record) -> Record:
    """A record with its looks alone, in four digits."""
    events = record.pop("events")
    looks = [event for event in events if event["event"] == "examined"]
    ticks = [event for event in events if event["event"] == "tick"]
    each = ticks[-1]["rounds"] / ticks[-1]["examples"] if ticks else 0.0
    record["ended"] = round(ticks[-1]["progress"], 4) if ticks else 0.0
    record["looks"] = [
        {
            "examples": look["examples"],
            "rounds": round(each * look["examples"]),
            "progress": round(look["progress"], 4),
            "signs": {name: float(f"{value:.4g}") for name, value in look["signs"].items()},
        }
        for look in looks
    ]
    return record


def halves() -> dict[str, str]:
    """`tune` or `report` for each name of the first set, `second` or `third` for the others."""
    names = [case.name for case in cases()]
    middle = len(names) // 2
    first = {name: "tune" if place < middle else "report" for place, name in enumerate(names)}
    later = {case.name: which for which in ("second", "third") for case in cases(which)}
    return first | later


def verdicts(record: Record) -> list[tuple[float, str, bool]]:
    """(progress, verdict, ill) after each look."""
    doctor = Diagnostician()
    found = []
    for look in record["looks"]:
        verdict = doctor.see(Entry(**look))
        found.append((look["progress"], verdict.title, verdict.ill))
    if record["outcome"] == "diverged":  # as `faussaire doctor` says it
        found.append(
            (record["ended"], diagnose_run(doctor.chart.entries, "diverged")[0].title, True)
        )
    return found


def first_ill(course: list[tuple[float, str, bool]], until: float) -> tuple[float, str] | None:
    """When and what was first said to be wrong, up to a share of the budget."""
    return next(((at, what) for at, what, ill in course if ill and at <= until), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument(
        "--half", choices=["tune", "report", "second", "third", "all"], default="all"
    )
    parser.add_argument("--each", action="store_true", help="a line for each run")
    parser.add_argument("--pack", type=Path)
    options = parser.parse_args()
    records = load(options.records)
    if options.pack:
        with gzip.open(options.pack, "wt") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    usual, half = usual_fids(records), halves()
    table: dict[str, list[int]] = {}
    named: Counter[str] = Counter()
    when: list[float] = []
    for record in records:
        if options.half not in ("all", half[record["name"]]):
            continue
        truth = illness(record, usual)
        course = verdicts(record)
        early, ever = first_ill(course, EARLY), first_ill(course, 1.0)
        last = course[-1][1] if course else "no looks"
        kind = record["design"] if truth else "healthy"
        if record["design"] == "healthy" and truth:
            kind = "meant to be healthy, was ill"
        elif record["design"] != "healthy" and not truth:
            kind = "meant to be ill, was healthy"
        row = table.setdefault(kind, [0, 0, 0])
        row[0] += 1
        row[1] += early is not None
        row[2] += ever is not None
        if truth and early:
            when.append(early[0])
            named[f"{kind}: {early[1]}"] += 1
        if options.each:
            right = "  " if (early is not None) == bool(truth) else "!!"
            said = f"{early[1]} at {early[0]:.0%}" if early else "-"
            later = f"{ever[1]} at {ever[0]:.0%}" if ever and not early else ""
            print(
                f"{right} {record['name'][:78]:78} | {truth or 'well':45} | {said} {later} | {last}"
            )
    ill = {kind: row for kind, row in table.items() if "healthy" not in kind or "was ill" in kind}
    well = {kind: row for kind, row in table.items() if kind not in ill}
    print(f"\nhalf: {options.half}")
    print("| what was wrong | runs | named in the first 30 % | named at all |\n|---|---|---|---|")
    for kind, (count, early, ever) in sorted(ill.items()) + sorted(well.items()):
        print(f"| {kind} | {count} | {early} | {ever} |")
    for title, rows in (("ill", ill), ("well", well)):
        count, early, ever = (sum(column) for column in zip(*rows.values(), strict=True))
        shares = f"{early} ({early / count:.0%}) | {ever} ({ever / count:.0%})"
        print(f"| **all {title}** | {count} | {shares} |")
    print("\nnames given:", ", ".join(f"{name} ({count})" for name, count in sorted(named.items())))
    if when:
        print(f"median progress at the first verdict: {sorted(when)[len(when) // 2]:.0%}")


if __name__ == "__main__":
    main()
