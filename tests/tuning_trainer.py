"""Trains nothing: a run's folder as `faussaire train` would leave it, within milliseconds.

    python tuning_trainer.py RUN SETTINGS.yaml

The figure falls along the run; how low it gets depends on the rate alone, and is best at lr 1e-3. The
batch says what else happens: 11 the doctor finds collapse, 12 it is not sure, 13 the run diverges,
14 it fails, 15 it hangs at the third measurement until a file `go` lies beside the run, 16 nothing is
measured.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from faussaire.core.figures import Figure, Provenance, append_figures

run, settings = Path(sys.argv[1]), yaml.safe_load(Path(sys.argv[2]).read_text())
launcher = os.getppid()
TOTAL = 1000


def tell(event: str, examples: int, **facts: object) -> None:
    """A line of events.jsonl."""
    record = {"event": event, "examples": examples, "elapsed": examples / 100, **facts}
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def save_and_go(number: int, frame: object) -> None:
    """As training does for SIGTERM."""
    tell("finished", int((run / "at").read_text()), outcome="interrupted")
    sys.exit(143)


signal.signal(signal.SIGTERM, save_and_go)
run.mkdir(exist_ok=True)
begin = int((run / "at").read_text()) if (run / "at").exists() else 0
(run / "config.yaml").write_text(yaml.safe_dump(settings))
(run / "begun").open("a").write(f"{begin}\n")
batch = settings["batch"]
if batch == 14:
    print("faussaire: The memory is full.\n  Lower --batch.", flush=True)
    sys.exit(2)
tell("started", begin, family="dcgan", total=TOTAL)
level = 10 + 10 * abs(math.log10(settings["lr"] / 1e-3))
for step in range(1, 6):
    examples = step * TOTAL // 5
    (run / "at").write_text(str(max(begin, examples)))
    if batch == 15 and step == 3:
        (run / "hanging").touch()
        while not (run.parent / "go").exists():
            if os.getppid() != launcher:
                save_and_go(0, None)
            time.sleep(0.02)
    if batch != 16 and examples > begin:
        figure = Figure(
            provenance=Provenance(
                metric="fid",
                extractor=settings["extractor"],
                count=100,
                reference="train",
                reference_key="k",
            ),
            value=round(level * (1 + (5 - step) / 5), 3),
            circumstances={"examples": examples, "seed": 0},
        )
        append_figures(run / "metrics.jsonl", [figure])
        tell("measured", examples, figures={figure.name: figure.value}, best=True, seconds=0.1)
    if batch in (11, 12) and step == 2:
        confidence = 0.95 if batch == 11 else 0.6
        facts = {"evidence": "", "advice": ""}
        tell("diagnosed", examples, name="collapse", ill=True, confidence=confidence, **facts)
        time.sleep(1.0 if batch == 11 else 0.0)
    if batch == 13 and step == 3:
        tell(
            "finished",
            examples,
            outcome="diverged",
            message="The loss became nan: training diverged. Lower it.",
        )
        sys.exit(2)
tell("finished", TOTAL, outcome="complete")
