"""Synthetic rows of UCI Adult: does who learns from them tell real incomes?

    python benchmarks/tables.py FAMILY --data DATA [--epochs 100] [--seed 0] [--set KEY=VALUE ...]
        [--at 30 60] [--rows 1000] [--trees] [--out FOLDER] [--threads 1]
    python benchmarks/tables.py rows.csv --data DATA [--trees]

DATA holds `tabular_adult/adult.csv` (Becker and Kohavi 1996, 32,561 rows). 8,000 rows are held out;
which follows from `tables.material.split_rows`. A family trains on the other 24,561 and makes as
many rows; a logistic regression (one-hot categories, standardised numbers) learns from these and is
tested on the held-out rows: accuracy, F1 of incomes above 50K, area under the ROC curve. Beside it
stand the same learnt from the real rows (TRTR) and from each column drawn by itself (`real` in
place of a family). A CSV in place of a family holds rows that another program made. --trees adds
gradient boosting, --at measures on the way. --rows trains on so many rows alone, and shows what
synthetic ones add to them. Seconds are those of the processor, besides those of the clock, which on
a busy machine say little; measuring is not among them.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from faussaire.core.batch import RowDraws, mix
from faussaire.core.config import resolve
from faussaire.core.device import Device, keep_memory
from faussaire.core.distributed import World
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.families import load_family
from faussaire.tables.material import encode_as, encode_frame, split_rows
from faussaire.tables.reading import read_frame
from faussaire.tables.scores import Plain, Task
from faussaire.tables.stream import ConditionStream
from faussaire.training import layers

HELD_OUT = 8000


def sampled(state: State, count: int, seed: int) -> np.ndarray:
    """Encoded rows (count, width) from the averaged nets."""
    parts = []
    with state.sampling(settle=True) as family:
        for first in range(0, count, 1000):
            draws = RowDraws.counted(seed, min(1000, count - first), start=first)
            parts.append(family.sample(draws).numpy())
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", help="ctgan, tvae, real, or a CSV")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--at", type=int, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--trees", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()  # as every command does

    frame = read_frame(options.data / "tabular_adult" / "adult.csv")
    train, test = split_rows(len(frame), HELD_OUT / len(frame))
    train = train[: options.rows]
    began = time.process_time()
    kind = load_family(options.family if options.family in ("ctgan", "tvae") else "ctgan")
    material = encode_frame(frame, fit=train, conditional=getattr(kind, "conditions", False))
    print(f"encoded in {time.process_time() - began:.1f} s: {material.spec.width} numbers a row")
    every = Plain.of(material.spec, material.alphas, material.places)
    real, unseen = every.take(train), every.take(test)
    task = Task(material.spec, "income", real)

    def tell(name: str, rows: Plain) -> None:
        for learner in ("linear", "trees") if options.trees else ("linear",):
            score = task.score(rows, unseen, learner)
            print(
                f"{name:24} {learner:7} {score.accuracy:.3f} / {score.f1:.3f} / {score.auc:.3f}",
                flush=True,
            )

    if options.family == "real":
        tell("real", real)
        tell("1,000 real", real.take(np.arange(1000)))
        tell("columns by themselves", real.shuffled())
        return
    if Path(options.family).is_file():
        others, _ = encode_as(material.spec, read_frame(Path(options.family)))
        tell(Path(options.family).stem, others)
        return

    given = dict(word.split("=", 1) for word in options.set)
    settings = resolve(
        options.family,
        "adult",
        kind.Config,
        *layers(options.family, {}),
        {"seed": options.seed},
        given,
    )
    torch.manual_seed(mix(options.seed, "weights"))
    total = options.epochs * len(train)
    state = State(
        kind(settings.model, material.spec),
        Device.choose("cpu", options.precision),
        total=total,
        half_life=settings.training.half_life,
    )
    fields = {"alphas": material.alphas, "places": material.places}
    order = mix(options.seed, "order")
    if material.conditional:
        stream = ConditionStream(material.spec, **fields, seed=order, rows=train)
    else:
        stream = Stream([fields], seed=order, rows=[train])
    plan = Plan(batch=settings.training.batch, seed=options.seed)
    rounds = Rounds(state, stream, plan, World())
    used = elapsed = 0.0
    for epoch in sorted({*options.at, options.epochs}):
        began, clock = time.process_time(), time.monotonic()
        while state.clock.examples < epoch * len(train):
            rounds.play()
        used += time.process_time() - began
        elapsed += time.monotonic() - clock
        means = {**rounds.means.take(World())["losses"]}
        losses = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        print(f"epoch {epoch}: {used:.0f} s ({elapsed:.0f} by the clock); {losses}", flush=True)
        rows = sampled(state, len(train), options.seed)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            np.save(options.out / f"{options.family}-{options.seed}-{epoch}.npy", rows)
        made = Plain.decoded(material.spec, rows)
        tell(f"{options.family}, {epoch} epochs", made)
        if options.rows:
            tell(f"{len(real):,} real rows", real)
            tell("both together", real.joined(made))


if __name__ == "__main__":
    main()
