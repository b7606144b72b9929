"""Images per second of the `classic` networks at 64x64x3, batch 64, against a tutorial's loop.

    make bench            (or: python benchmarks/speed.py [--rounds 8] [--steps 6] [--json FILE])

The tutorial's loop is the one of the well-known DCGAN tutorials: float32, NCHW, eager, default Adam, a
DataLoader, one generator pass shared by both players, losses read at every step, no averaging. Ours is
the engine end to end as `faussaire train classic` runs it: packed data, stream, both phases, averaged
weights, ticks to an events file, previews. Both train the same networks on the same pictures.

Each variant is a process of its own and they take turns, a block of steps each, so that a noisy
machine is noisy to all alike. Figures are medians over rounds; the ratio is the median of the ratios
of one round's blocks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
VARIANTS = {
    "tutorial": "float32, NCHW, eager, Adam, DataLoader",
    "float32": "our engine in float32",
    "plain": "our engine in bf16, layers in plain torch",
    "default": "our engine as it comes",
}
# aten operations by what they do, for the breakdown.
GROUPS = {
    "convolution gradients": ("convolution_backward",),
    "convolution forward": ("_convolution", "mkldnn_convolution", "convolution"),
    "norm and activation": (
        "_FusedNormAct",
        "_FusedNormActBackward",
        "native_batch_norm",
        "native_batch_norm_backward",
        "threshold_backward",
        "leaky_relu",
        "leaky_relu_backward",
        "relu",
        "clamp_min",
    ),
    "dense layers, bias gradients": ("mm", "addmm", "bmm", "sum"),
    "casts and copies": ("copy_", "_to_copy", "clone", "cat"),
    "optimiser and averaging": ("_fused_adam_", "_foreach_lerp_", "lerp_"),
}


def pictures(folder: Path) -> Path:
    """4,096 pictures of smooth noise as one array file: (N, 64, 64, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(4096, 8, 8, 3), dtype=np.uint8)
    path = folder / "pictures.npy"
    np.save(path, coarse.repeat(8, axis=1).repeat(8, axis=2))
    return path


def tutorial(source: Path) -> Callable[[int], None]:
    """Steps of the loop that a tutorial shows."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from faussaire.core.family import Pictures
    from faussaire.families.classic import Discriminator, Generator
    from faussaire.nn import fused

    fused.enabled = False
    spec = Pictures(channels=3, height=64, width=64)
    generator, discriminator = Generator(100, spec), Discriminator(spec)
    images = torch.from_numpy(np.load(source)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    loader = DataLoader(TensorDataset(images.contiguous()), BATCH, shuffle=True, drop_last=True)
    judge = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    forge = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    one, zero = torch.ones(BATCH), torch.zeros(BATCH)
    batches = iter(loader)

    def steps(count: int) -> None:
        nonlocal batches
        for _ in range(count):
            real = next(batches, None)
            if real is None:
                batches = iter(loader)
                real = next(batches)
            judge.zero_grad()
            on_real = criterion(discriminator(real[0]), one)
            on_real.backward()
            fake = generator(torch.randn(BATCH, 100))
            on_fake = criterion(discriminator(fake.detach()), zero)
            on_fake.backward()
            judge.step()
            forge.zero_grad()
            fooled = criterion(discriminator(fake), one)
            fooled.backward()
            forge.step()
            on_real.item(), on_fake.item(), fooled.item()

    return steps


def engine(source: Path, variant: str) -> Callable[[int], None]:
    """Steps of the engine, observers included."""
    from faussaire.core.config import resolve
    from faussaire.core.events import Audience
    from faussaire.core.loop import Loop
    from faussaire.core.run import EventFile, Run
    from faussaire.families import load_family
    from faussaire.nn import fused
    from faussaire.observers import Previews
    from faussaire.workshop import Workshop

    fused.enabled = variant != "plain"
    precision = "float32" if variant == "float32" else "auto"
    family = load_family("classic")
    settings = resolve(
        "classic", str(source), family.Config, {"batch": BATCH, "precision": precision}
    )
    shop = Workshop.open(settings)
    run = Run(source.parent / variant)
    run.acquire()
    total = 200_000
    state = shop.state(total)
    plan = shop.plan(total)
    watching = Audience(
        [EventFile(run.events), Previews(state, run, shop.material, None, plan.seed)]
    )
    loop = Loop(state, shop.stream(), dataclasses.replace(plan), audience=watching)
    until = 0

    def complete() -> bool:
        return state.clock.examples >= until

    loop._complete = complete  # type: ignore[method-assign]

    def steps(count: int) -> None:
        nonlocal until
        until = state.clock.examples + count * BATCH
        loop.run()

    return steps


def profile(steps: Callable[[int], None]) -> dict[str, float]:
    """Milliseconds of one step by group of operations."""
    import torch

    steps(2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        steps(5)
    found = dict.fromkeys([*GROUPS, "everything else"], 0.0)
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::")
        group = next((key for key, names in GROUPS.items() if name in names), "everything else")
        found[group] += event.self_cpu_time_total / 1e3 / 5
    return found


def worker(variant: str, source: Path) -> None:
    """Answer each line `N` with the seconds of N steps, `profile` with a breakdown."""
    began = time.perf_counter()
    steps = tutorial(source) if variant == "tutorial" else engine(source, variant)
    steps(1)
    print(json.dumps(time.perf_counter() - began), flush=True)
    for line in sys.stdin:
        if line.strip() == "profile":
            print(json.dumps(profile(steps)), flush=True)
            continue
        start = time.perf_counter()
        steps(int(line))
        print(json.dumps(time.perf_counter() - start), flush=True)


class Worker:
    """A variant in its own process."""

    def __init__(self, variant: str, source: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", variant, "--source", str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KINETO_LOG_LEVEL": "99"},  # the profiler talks of itself otherwise
        )
        self.first = self.answer()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A variant ended early; see its message above.")
        return json.loads(line)

    def ask(self, question: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.source)
        return
    from faussaire.core.run import environment

    facts = environment()
    keys = ("faussaire", "torch", "python", "processor", "cores")
    print(", ".join(f"{key} {facts[key]}" for key in keys))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FAUSSAIRE_CACHE"] = str(Path(folder) / "cache")
        source = pictures(Path(folder))
        workers = {name: Worker(name, source) for name in VARIANTS}
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(options.rounds):
            for name, one in workers.items():
                times[name].append(one.ask(str(options.steps)) / options.steps)
        breakdown = workers["default"].ask("profile")
        for one in workers.values():
            one.close()
    report(times, breakdown, options)


def report(
    times: dict[str, list[float]], breakdown: dict[str, float], options: argparse.Namespace
) -> None:
    base = times["tutorial"]
    print(f"\nclassic 64x64x3, batch {BATCH}; {options.rounds} rounds of {options.steps} steps\n")
    print(f"{'variant':<10} {'images/s':>9} {'ratio':>6}  {'quartiles':<13} what")
    rows = {}
    for name, seconds in times.items():
        ratios = [slow / fast for slow, fast in zip(base, seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        per_second = BATCH / statistics.median(seconds)
        rows[name] = {"images_per_second": per_second, "ratio": middle, "quartiles": [low, high]}
        spread = f"{low:.2f} to {high:.2f}"
        print(f"{name:<10} {per_second:>9.1f} {middle:>6.2f}  {spread:<13} {VARIANTS[name]}")
    whole = sum(breakdown.values())
    print(f"\nWhere a step's {whole:.0f} ms go, by default (under the profiler):")
    for name, spent in sorted(breakdown.items(), key=lambda item: -item[1]):
        print(f"  {name:<30} {spent:6.1f} ms  {spent / whole:5.1%}")
    if options.json:
        options.json.write_text(json.dumps({"variants": rows, "breakdown_ms": breakdown}, indent=1))


if __name__ == "__main__":
    main()
