"""What `--balance auto` saves, and whether it harms: recorded runs with and without it, by the truth.

    python benchmarks/doctor/balance.py CASES BALANCED

CASES and BALANCED are the folders `cases` and `balanced` of `run.py` and `run.py --balance`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from truth import illness, usual_fids


def level(record: dict[str, Any]) -> str:
    """The figure that says most: the last FID, or the modes touched and how unevenly."""
    facts = record["facts"]
    if facts.get("fids"):
        return f"fid {facts['fids'][-1][1]:.0f}"
    if "touched" in facts:
        return f"{facts['touched']}/{facts['modes']} modes, KL {facts['reverse_kl']:.2f}"
    return "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("balanced", type=Path)
    options = parser.parse_args()
    plain = {p.stem: json.loads(p.read_text()) for p in options.cases.glob("*.json")}
    other = {p.stem: json.loads(p.read_text()) for p in options.balanced.glob("*.json")}
    usual = usual_fids([*plain.values()])
    print("| run | without | with | treatments |\n|---|---|---|---|")
    ill = saved = well = kept = 0
    for name in sorted(other):
        before, after = (illness(records[name], usual) for records in (plain, other))
        count = sum(event["event"] == "treated" for event in other[name]["events"])
        words = [
            f"{level(records[name])}{' (' + what + ')' if what else ''}"
            for records, what in ((plain, before), (other, after))
        ]
        print(f"| {name} | {words[0]} | {words[1]} | {count} |")
        ill, saved = ill + bool(before), saved + bool(before and not after)
        well, kept = well + (not before), kept + (not before and not after)
    print(f"\nill without: {ill}, saved: {saved}; well without: {well}, still well: {kept}")


if __name__ == "__main__":
    main()
