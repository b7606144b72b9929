"""Chorales by `musegan`: figures beside those of the data, of noise, and of shuffled voices.

    python benchmarks/music.py --data DATA --out FOLDER [--for 10m] [--settings ...] [--count 500]

DATA holds `music_jsb` (Bach's chorales: four voices, sixteenths). Trained is on its part `train`; FOLDER
keeps the run. Samples, Bernoulli noise of equal density, and the data with the bars of each voice in
an order of their own are measured in the same way (`faussaire.music.metrics`), beside phrases of `train`
and of `test`, which was not trained on. A shuffled voice is the data's own, so only what is between
voices, tonal distance, can tell them from the data.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import faussaire
from faussaire.music import metrics
from faussaire.music.evaluation import gap
from faussaire.music.material import read_music
from faussaire.music.spec import MusicData
from faussaire.report.pictures import save_png


def train(options: argparse.Namespace) -> list[str]:
    """The run, unless it has come to its end before; the command."""
    run = options.out / "run"
    command = ["train", "musegan", str(options.data / "music_jsb"), "--out", str(run)]
    command += ["--for", options.time, "--seed", str(options.seed), "--holdout", "0"]
    command += ["--doctor", "off", *options.settings]
    if not options.measure_only:
        subprocess.run([sys.executable, "-m", "faussaire", *command], check=True)
    return ["faussaire", *command]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--for", dest="time", default="10m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--measure-only", action="store_true")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    command = train(options)

    model = faussaire.load(options.out / "run")
    score = model.spec
    data = MusicData(stride=score.bars, lowest=score.lowest, pitches=score.pitches)
    source = str(options.data / "music_jsb")
    reals = read_music(source, data).rolls[:]
    unseen = read_music(source, MusicData(**{**vars(data), "part": "test"}), preflight=False).rolls[
        :
    ]
    save_png(model.sheet(16), options.out / "samples.png")
    sets = {
        "train": reals,
        "test": unseen,
        "samples": model.sample(options.count),
        "noise": metrics.noise_like(reals, options.count, options.seed),
        "shuffled": metrics.shuffled(reals, options.seed),
    }
    found = {name: metrics.measure(rolls, score) for name, rolls in sets.items()}
    real = found["train"]
    print(" ".join(command))
    events = (options.out / "run" / "events.jsonl").read_text("utf-8").splitlines()
    elapsed = json.loads(events[-1]).get("elapsed", 0.0)
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} thread(s), seed {options.seed}; "
        f"{model.examples:,} examples in {elapsed:.0f} s by the clock; {options.count} samples, "
        f"{len(reals)} phrases of train, {len(unseen)} of test\n"
    )
    for name, tracks in real.items():
        print(f"{name:20}" + "".join(f"{track:>16}" for track in tracks))
        for which, values in found.items():
            cells = [values.get(name, {}).get(track, np.nan) for track in tracks]
            print(f"  {which:18}" + "".join(f"{value:16.3f}" for value in cells))
    print("\ndistance from train, the mean over tracks")
    away = {
        which: metrics.discrepancy(values, real)
        for which, values in found.items()
        if which != "train"
    }
    print(f"{'':20}" + "".join(f"{which:>16}" for which in away))
    for name in real:
        print(f"{name:20}" + "".join(f"{values[name]:16.4f}" for values in away.values()))
    for which in ("samples", "test", "shuffled"):
        parts = gap(found[which], real, found["noise"])
        print(f"gap of {which} (0 as train, 1 as noise): {np.mean([*parts.values()]):.3f}")


if __name__ == "__main__":
    main()
