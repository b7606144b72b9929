"""Spoken digits by `wavegan`: a classifier's score and log-mel statistics, beside noise and recordings.

    python benchmarks/sound.py --data DATA --out FOLDER [--for 10m] [--length 8192] [--settings ...]

DATA holds `audio_spoken_digits` (1,500 recordings, 8 kHz). Trained is by class on all; FOLDER keeps the
run. A classifier (`faussaire.sound.classifier`) is taught three quarters of the recordings and tried on
the others; with it samples, white noise as loud as the recordings, and the recordings themselves get
their Inception Score (1 to 10), and the share of clips of the digit that was asked for.
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
from faussaire.report.pictures import save_png
from faussaire.sound.classifier import inception_score
from faussaire.sound.evaluation import Reference
from faussaire.sound.material import read_sound
from faussaire.sound.mel import mel_distance, nearest_distance, noise_like, sheet
from faussaire.sound.spec import SoundData
from faussaire.sound.waves import write_wave


def train(options: argparse.Namespace) -> list[str]:
    """The run, unless it has come to its end before; the command."""
    run = options.out / "run"
    source = str(options.data / "audio_spoken_digits")
    command = ["train", "wavegan", source, "--classes", "prefix", "--conditional"]
    command += ["--slices", "first", "--length", str(options.length), "--out", str(run)]
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
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--measure-only", action="store_true")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    command = train(options)

    model = faussaire.load(options.out / "run")
    spec = model.spec
    data = SoundData(classes="prefix", slices="first", length=spec.length, holdout=0.0)
    material = read_sound(str(options.data / "audio_spoken_digits"), data)
    reference = Reference.of(material, 0.0)
    ear = reference.ear()
    labels = np.arange(options.count) % len(spec.classes)
    samples = model.sample(options.count, label=labels.tolist())
    noise = noise_like(reference.waves, options.count, options.seed)
    one, two = reference.halves
    save_png(sheet(samples[:20], spec.rate, columns=5), options.out / "samples.png")
    write_wave(options.out / "samples.wav", samples[:20].reshape(-1), spec.rate)
    print(" ".join(command))
    events = (options.out / "run" / "events.jsonl").read_text("utf-8").splitlines()
    elapsed = json.loads(events[-1]).get("elapsed", 0.0)
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} thread(s), seed {options.seed}; "
        f"{model.examples:,} examples in {elapsed:.0f} s by the clock; {options.count} samples\n"
        f"the classifier tells {ear.accuracy:.1%} of {ear.unseen} recordings that it was not taught\n"
    )
    rows = {
        "samples": (samples, labels),
        "white noise": (noise, labels),
        "recordings": (reference.waves, material.labels[reference.judged]),
    }
    print(f"{'':14}{'class score':>14}{'class kept':>14}{'log-mel, dB':>14}{'nearest, dB':>14}")
    for name, (waves, asked) in rows.items():
        told = ear(waves)
        kept = float((told.argmax(axis=1) == asked).mean())
        if name == "recordings":  # one half of them against the other
            far, near = mel_distance(one, two, spec.rate), nearest_distance(one, two, spec.rate)
        else:
            far = mel_distance(waves, reference.waves, spec.rate)
            near = nearest_distance(waves, reference.waves, spec.rate)
        print(f"{name:14}{inception_score(told):14.2f}{kept:14.1%}{far:14.2f}{near:14.2f}")


if __name__ == "__main__":
    main()
