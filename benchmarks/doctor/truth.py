"""What was true of a run, decided without the doctor's signs.

Points: modes counted by the known mixture. Pictures: the FID against that of the runs meant to be
healthy on the same data, classes told by a network trained on the labels, nearness to the training
pictures.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

FEW_MODES = 0.9
"""Share of modes that must be touched."""
UNEVEN = 0.15
"""Reverse KL of modes above which some are all but lost."""
FEW_CLASSES = 8
"""Of ten, with at least a fifth of their share."""
UNEVEN_CLASSES = 0.5
FAR = 2.0
"""FID over the usual one of healthy runs."""
WORSE = 1.3
"""The same of a run whose FID no longer falls."""
FALLING = 0.8
"""FID at the end over that at half the run, of a run meant to be healthy that needs more time only."""
AS_ASKED = 0.5
"""Share of samples of the class that was asked for; .1 is chance."""

Record = dict[str, Any]


def usual_fids(records: Sequence[Record]) -> dict[str, float]:
    """The median last FID of runs meant to be healthy, for each set of pictures."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["family"] and record["design"] == "healthy" and record["facts"].get("fids"):
            found.setdefault(record["data"], []).append(record["facts"]["fids"][-1][1])
    return {data: statistics.median(fids) for data, fids in found.items()}


def illness(record: Record, usual: dict[str, float]) -> str:
    """What was wrong with a run in the end, in words; empty where nothing was."""
    facts, wrong = record["facts"], []
    if record["outcome"] == "diverged":
        return "diverged"
    if record["family"] is None:
        if facts["touched"] < FEW_MODES * facts["modes"]:
            wrong.append(f"{facts['touched']} of {facts['modes']} modes")
        if facts["reverse_kl"] > UNEVEN:
            wrong.append(f"modes uneven by {facts['reverse_kl']:.2f}")
        return ", ".join(wrong)
    if record["design"] == "ten pictures":
        return "there are ten pictures"  # there is nothing to learn but to copy or to collapse
    fids = [fid for _, fid in facts.get("fids", [])]
    young = len(fids) > 1 and fids[-1] < FALLING * fids[0] and record["design"] == "healthy"
    boots = "boots" in record["data"]  # one class is right
    if not young and not boots:
        if facts.get("classes", 10) < FEW_CLASSES:
            wrong.append(f"{facts['classes']} of 10 classes")
        elif facts.get("classes_kl", 0.0) > UNEVEN_CLASSES:
            wrong.append(f"classes uneven by {facts['classes_kl']:.2f}")
    data = record["data"] if record["data"] in usual else record["data"].partition("-")[0]
    stuck = len(fids) > 1 and fids[-1] > 0.95 * fids[0]
    if fids and not young and fids[-1] > (WORSE if stuck else FAR) * usual[data]:
        wrong.append(f"fid {fids[-1]:.0f}, usual {usual[data]:.0f}")
    if facts.get("as_asked", 1.0) < AS_ASKED:
        wrong.append(f"{facts['as_asked']:.0%} as asked")
    return ", ".join(wrong)
