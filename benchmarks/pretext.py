"""Self-supervision: answers on held-out data, and what frozen features are worth to a classifier.

    python benchmarks/pretext.py PART ... --data DATA --out FOLDER [--examples N] [--seeds 0 1 2]

PARTS, each seed a run of N examples (pictures, or triplets of frames) that is kept in FOLDER:
- `rotation`: `pretext --task rotation` on Fashion-MNIST, answers on held-out pictures; then a logistic
  regression on the features of 1,000 labelled training pictures, tested on 2,000 of the test set. Beside
  it: the same network before its first step (its batch norm having seen as many pictures as a probe),
  and the pixels.
- `gan`: `dcgan` on Fashion-MNIST with `--rotation 1` and without, equal examples; the same regression on
  their discriminators' features.
- `position`: `pretext --task position` on the photographs of bsds500; answers on others.
- `position-clothes`: the same on Fashion-MNIST at 32 pixels, patches of 7.
- `shapes`, `actions`: `pretext --task order` on video_clips, whole clips held out.

DATA is a folder of `fashion_mnist`, `bsds500` and `video_clips`. Lines are printed as they are known.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import faussaire
from faussaire.core.figures import read_figures
from faussaire.core.run import Run
from faussaire.data.pack import PackOptions, pack
from faussaire.families import load_family
from faussaire.features import features_of
from faussaire.model import load

TAUGHT, TESTED = 1_000, 2_000


def clothes(data: Path) -> tuple[np.ndarray, ...]:
    """Labelled pictures to learn from and to be tested on: uint8 (N, 28, 28, 1) and classes."""
    found: list[np.ndarray] = []
    for name, count in (("train", TAUGHT), ("t10k", TESTED)):
        images = pack(data / "fashion_mnist" / f"{name}-images-idx3-ubyte.gz", PackOptions())
        assert images.labels is not None
        found += [np.asarray(images.pixels[:count]), images.labels[:count]]
    return tuple(found)


def probe(see: Any, pictures: tuple[np.ndarray, ...]) -> float:
    """Accuracy of a logistic regression on what `see` makes of pictures."""
    taught, labels, tested, truth = pictures
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    reader.fit(see(taught), labels)
    return float(reader.score(see(tested), truth))


def pixels(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1) / 255.0


def fresh(run: Path, seed: int, pictures: np.ndarray) -> Any:
    """What a run's network sees before its first step, batch norm having met the pictures."""
    model = load(run)
    torch.manual_seed(seed)
    kind = load_family(str(Run(run).config()["family"]))
    family = kind(model.family.config, model.spec)
    x = torch.tensor(pictures).permute(0, 3, 1, 2) / 127.5 - 1.0
    with torch.no_grad():
        for some in x.split(50):
            family.features(some)
    for net in family.nets.values():
        net.eval()
    return lambda rows: features_of(family, model.device, rows).numpy()


def train(family: str, source: Path, out: Path, seed: int, examples: int, **how: Any) -> Path:
    """A run of so many examples, unless it is there, and what it took."""
    began, before = time.perf_counter(), time.process_time()
    faussaire.train(
        family,
        str(source),
        out=out,
        seed=seed,
        examples=examples,
        doctor="off",
        preview_every=0,
        save_every=1e6,
        quiet=True,
        **how,
    )
    wall, spent = time.perf_counter() - began, time.process_time() - before
    print(
        f"  {out.name}: {examples:,} examples, {spent:.0f} s of processor, {wall:.0f} s by the clock"
    )
    return out


def told(run: Path) -> None:
    """The last figure of a run with its error, beside guessing."""
    one = read_figures(run / "metrics.jsonl")[-1]
    parts = ", ".join(f"{name} {value:.2f}" for name, value in one.parts.items())
    error = "" if one.error is None else f" +- {one.error:.3f}"
    print(f"  {one.name} {one.value:.3f}{error}, by guessing {one.given:.3f}; {parts}", flush=True)


def rotation(options: argparse.Namespace, seed: int) -> None:
    source = options.data / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    run = train(
        "pretext",
        source,
        options.out / f"rotation-{seed}",
        seed,
        options.examples,
        task="rotation",
        width=options.width,
        holdout=0.01,
        evaluate_every=options.examples,
        half_life=options.examples // 20,
    )
    told(run)
    pictures = clothes(options.data)
    model = load(run)
    learnt = probe(lambda rows: model.features(rows).numpy(), pictures)
    before = probe(fresh(run, seed, pictures[0]), pictures)
    print(
        f"  probe: features {learnt:.3f}, untrained {before:.3f}, pixels {probe(pixels, pictures):.3f}"
    )


def gan(options: argparse.Namespace, seed: int) -> None:
    source = options.data / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    pictures = clothes(options.data)
    found = {}
    for weight in (0.0, 1.0):
        run = train(
            "dcgan",
            source,
            options.out / f"dcgan-{weight:g}-{seed}",
            seed,
            options.examples,
            width=options.width,
            max_width=8 * options.width,
            rotation=weight,
            batch=64,
        )
        model = load(run)
        found[weight] = probe(lambda rows, m=model: m.features(rows).numpy(), pictures)
        untrained = probe(fresh(run, seed, pictures[0]), pictures)
    print(
        f"  probe of D: with rotation {found[1.0]:.3f}, without {found[0.0]:.3f}, untrained "
        f"{untrained:.3f}",
        flush=True,
    )


def position(options: argparse.Namespace, seed: int) -> None:
    run = train(
        "pretext",
        options.data / "bsds500" / "train" / "photo",
        options.out / f"position-{seed}",
        seed,
        options.examples,
        task="position",
        width=options.width,
        resolution=96,
        margin=0.33,
        holdout=0.2,
        evaluate_every=options.examples,
        half_life=options.examples // 20,
    )
    told(run)


def position_of_clothes(options: argparse.Namespace, seed: int) -> None:
    run = train(
        "pretext",
        options.data / "fashion_mnist" / "train-images-idx3-ubyte.gz",
        options.out / f"position-clothes-{seed}",
        seed,
        options.examples,
        task="position",
        width=options.width,
        resolution=32,
        patch=7,
        holdout=0.01,
        evaluate_every=options.examples,
        half_life=options.examples // 20,
    )
    told(run)


def order(name: str, options: argparse.Namespace, seed: int) -> None:
    run = train(
        "pretext",
        options.data / "video_clips" / name,
        options.out / f"{name}-{seed}",
        seed,
        options.examples,
        task="order",
        width=options.width,
        resolution=32,
        holdout=0.2,
        evaluate_every=options.examples,
        half_life=options.examples // 20,
    )
    told(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    parts = {"rotation": rotation, "gan": gan, "position": position}
    parts["position-clothes"] = position_of_clothes
    print(f"faussaire {faussaire.__version__}, torch {torch.__version__}, 1 thread, {options}")
    for part in options.parts:
        for seed in options.seeds:
            print(f"{part}, seed {seed}", flush=True)
            if part in parts:
                parts[part](options, seed)
            else:
                order(part, options, seed)


if __name__ == "__main__":
    main()
