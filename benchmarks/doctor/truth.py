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
COPIED = 0.3
"""Share of samples that are copies."""
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
        wrong.append("diverged")
    if record["family"] is None:
        if facts and facts["touched"] < FEW_MODES * facts["modes"]:
            wrong.append(f"{facts['touched']} of {facts['modes']} modes")
        if facts and facts["reverse_kl"] > UNEVEN:
            wrong.append(f"modes uneven by {facts['reverse_kl']:.2f}")
        return ", ".join(wrong)
    if facts.get("classes", 10) < FEW_CLASSES and "boots" not in record["data"]:
        wrong.append(f"{facts['classes']} of 10 classes")
    elif facts.get("classes_kl", 0.0) > UNEVEN_CLASSES and "boots" not in record["data"]:
        wrong.append(f"classes uneven by {facts['classes_kl']:.2f}")
    data = record["data"] if record["data"] in usual else record["data"].partition("-")[0]
    if facts.get("fids"):
        fid = facts["fids"][-1][1]
        if fid > FAR * usual[data]:
            wrong.append(f"fid {fid:.0f}, usual {usual[data]:.0f}")
    if facts.get("copies", 0.0) > COPIED:
        wrong.append(f"{facts['copies']:.0%} copies")
    if facts.get("as_asked", 1.0) < AS_ASKED:
        wrong.append(f"{facts['as_asked']:.0%} as asked")
    return ", ".join(wrong)
