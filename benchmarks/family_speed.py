"""A row per image family: images per second in training and sampling, and peak memory.

    python benchmarks/family_speed.py [--resolution 32] [--rounds 5] [--families dcgan ...] [--json FILE]

`eager` is float32 with plain torch layers and torch's own second derivatives; `default` is what
`faussaire train FAMILY` does here. Both train the family's default networks on the same pictures, in its
last stage, lazy penalties counted as often as they come. pix2pix, which makes pictures from pictures,
learns them from their edges with `--size small`; to sample is to apply it. Each is a process of its own
and they take turns, so that a noisy machine is noisy to both; speeds are medians, the gain is the median
of one round's ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = ("eager", "default")
SAMPLES = 64
TRANSLATORS = {"pix2pix": {"make": "edges", "size": "small"}}
"""Families that make pictures from pictures and have a row, with their settings for it."""


def pictures(folder: Path, side: int) -> Path:
    """1,024 pictures of smooth noise as one array file: (N, side, side, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(1024, side // 4, side // 4, 3), dtype=np.uint8)
    path = folder / "pictures.npy"
    np.save(path, coarse.repeat(4, axis=1).repeat(4, axis=2))
    return path


def worker(family: str, variant: str, source: Path) -> None:
    """Answer each line with [seconds a trained image, seconds a sampled image, peak bytes]."""
    import torch

    from faussaire.core import device
    from faussaire.core.batch import RowDraws
    from faussaire.core.config import resolve
    from faussaire.core.loop import Rounds
    from faussaire.families import load_family
    from faussaire.nn import fused
    from faussaire.workshop import DEFAULT_EXAMPLES, Workshop

    plain = variant == "eager"
    if plain:
        fused.enabled = False
        device.FastSecondDerivatives = nullcontext  # type: ignore[misc, assignment]
    kind = load_family(family)
    precision = {"precision": "float32" if plain else "auto"}
    own = dict(TRANSLATORS.get(family, {}))
    size = kind.sizes[own.pop("size")] if "size" in own else {}
    settings = resolve(family, str(source), kind.Config, kind.training, size, own, precision)
    shop = Workshop.open(settings)
    state = shop.state(DEFAULT_EXAMPLES)
    playing = Rounds(state, shop.stream(), shop.plan(DEFAULT_EXAMPLES), shop.world)
    stage = list(shop.visit_stages(state))[-1]
    playing.play()
    print(json.dumps([0, 0, 0]), flush=True)
    for _ in sys.stdin:
        training = shop.seconds_an_example(playing, stage, 1)
        with state.sampling() as sampler, torch.no_grad():
            draws = RowDraws.counted(0, SAMPLES, device=shop.device.name)
            # Of what a translator is applied to only the size matters.
            shape = (SAMPLES, sampler.takes, shop.spec.height, shop.spec.width)
            x = torch.zeros(shape, device=shop.device.name) if kind.applies else None
            began = time.perf_counter()
            sampler.sample(draws) if x is None else sampler.apply(x, draws)
            shop.device.synchronise()
            sampling = (time.perf_counter() - began) / SAMPLES
        print(json.dumps([training, sampling, shop.device.peak_memory()]), flush=True)


class Worker:
    """A variant of a family in its own process."""

    def __init__(self, family: str, variant: str, source: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", family, variant, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def answer(self) -> list[float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A variant ended early; see its message above.")
        return json.loads(line)

    def ask(self) -> list[float]:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(family: str, source: Path, rounds: int) -> dict[str, Any]:
    """Both variants in turns."""
    workers = {variant: Worker(family, variant, source) for variant in VARIANTS}
    answers: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant, one in workers.items():
            answers[variant].append(one.ask())
    for one in workers.values():
        one.close()
    found: dict[str, Any] = {"family": family}
    for index, what in enumerate(("train", "sample")):
        times = {variant: [answer[index] for answer in some] for variant, some in answers.items()}
        for variant, some in times.items():
            found[f"{what}_{variant}"] = 1.0 / statistics.median(some)
        pairs = zip(times["eager"], times["default"], strict=True)
        found[f"{what}_gain"] = statistics.median(slow / fast for slow, fast in pairs)
    for variant, some in answers.items():
        found[f"memory_{variant}"] = max(answer[2] for answer in some)
    return found


def main() -> None:
    from faussaire import families
    from faussaire.core.run import environment

    if len(sys.argv) == 5 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    makers = [name for name in families.names() if not families.load_family(name).applies]
    makers += TRANSLATORS
    parser.add_argument("--families", nargs="+", default=makers)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    facts = environment()
    keys = ("faussaire", "torch", "python", "processor", "cores")
    print(", ".join(f"{key} {facts[key]}" for key in keys))
    print(f"{options.resolution}x{options.resolution}x3, each family's defaults; images a second\n")
    print(
        f"{'family':<10} {'train':>14} {'gain':>5} {'sample':>15} {'gain':>5} {'memory, MiB':>13}"
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FAUSSAIRE_CACHE"] = str(Path(folder) / "cache")
        source = pictures(Path(folder), options.resolution)
        for family in options.families:
            one = measure(family, source, options.rounds)
            found.append(one)
            print(
                f"{family:<10} {one['train_eager']:>6.0f} {one['train_default']:>7.0f} "
                f"{one['train_gain']:>5.1f} {one['sample_eager']:>7.0f} {one['sample_default']:>7.0f} "
                f"{one['sample_gain']:>5.1f} {one['memory_eager'] / 2**20:>6.0f} "
                f"{one['memory_default'] / 2**20:>6.0f}",
                flush=True,
            )
    print("\ntwo figures are eager and default")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
