"""Train the catalogue and keep what the doctor saw and what was true.

    python benchmarks/doctor/run.py --data DATA --out FOLDER [--only TEXT] [--list] [--balance]
        [--set first|second|third]

DATA holds `fashion_mnist/`, `mnist_t10k/`, `emoji_noto/` and, for the FID,
`weights/squeezenet1_1_features.safetensors`. Each case leaves `FOLDER/cases/NAME.json`: its events and
the facts that `truth.py` decides on. What is there, or has been begun, is not run again, so that several
such commands can share the work; about a minute and a half for a case on one core. `--balance` trains
with `--balance auto`, into `FOLDER/balanced`; other sets have other seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from catalogue import POINTS, SETS, Case, cases

import faussaire
from faussaire.core.batch import mix
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import Diverged
from faussaire.core.events import Audience, Event
from faussaire.core.loop import Loop, Plan
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.doctor import modes
from faussaire.doctor.balance import Balance
from faussaire.doctor.examiner import Examiner
from faussaire.doctor.mixtures import cover, grid, ring
from faussaire.doctor.watch import Watch
from faussaire.evaluation import read_as_they_are
from faussaire.metrics.classifier import SmallResNet

SIDE = 32
COUNT = 1000
"""Samples that are judged."""
MIXTURES = {"ring": ring(deviation=0.05), "grid": grid(deviation=0.1)}


# ---- Data ----


def idx(path: Path) -> np.ndarray:
    import gzip

    with gzip.open(path) as file:
        raw = file.read()
    sides = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sides)).reshape(sides)


def everything(name: str, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """All pictures (N, 28, 28) and labels (N,) of `digits` or `fashion`."""
    folder, part = {"digits": ("mnist_t10k", "t10k"), "fashion": ("fashion_mnist", "train")}[name]
    pictures = idx(data / folder / f"{part}-images-idx3-ubyte.gz")
    return pictures, idx(data / folder / f"{part}-labels-idx1-ubyte.gz")


def source(name: str, data: Path, out: Path) -> str:
    """The source of a set; what is made for it lies in OUT."""
    base, _, how = name.partition("-")
    if base == "emoji":
        if not how:
            return str(data / "emoji_noto")
        folder = out / "data" / name
        if not folder.exists():
            some = sorted((data / "emoji_noto").rglob("*.png"))[::383][:10]
            folder.mkdir(parents=True)
            for path in some:
                shutil.copy(path, folder)
        return str(folder)
    path = out / "data" / f"{name}.npz"
    if not path.exists():
        pictures, labels = everything(base, data)
        if how == "ten":
            first = [int(np.flatnonzero(labels == label)[0]) for label in range(10)]
            pictures, labels = pictures[first], labels[first]
        elif how == "shuffled":
            labels = np.random.default_rng(0).permutation(labels)
        elif how == "boots":
            pictures, labels = pictures[labels == 9], labels[labels == 9]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, images=pictures, labels=labels)
        part.replace(path)
    return str(path)


def classifier(name: str, data: Path, out: Path) -> SmallResNet:
    """Tells the classes of `digits` or `fashion`: (N, 1, 32, 32) in [-1, 1] to logits."""
    path = out / f"{name}.pt"
    net = SmallResNet(1, 10, width=16)
    if path.exists():
        net.load_state_dict(torch.load(path))
        return net.eval()
    pictures, labels = everything(name, data)
    x = F.interpolate(torch.tensor(pictures[:, None] / 127.5 - 1.0).float(), SIDE, mode="bilinear")
    y = torch.tensor(labels.astype(np.int64))
    torch.manual_seed(0)
    order = torch.randperm(len(x))
    train, test = order[1000:], order[:1000]
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(800):
        rows = train[torch.randint(len(train), (64,))]
        loss = F.cross_entropy(net(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    right = float((net(x[test]).argmax(1) == y[test]).float().mean())
    print(f"classifier of {name}: {right:.3f} of 1,000 unseen are right", flush=True)
    part = path.with_suffix(f".{os.getpid()}.pt")
    torch.save(net.state_dict(), part)
    part.replace(path)
    return net


# ---- Points ----


class Keeper:
    """Keeps ticks and looks as records."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def see(self, event: Event) -> None:
        self.records.append(event.record())

    def close(self) -> None:
        pass


def play_points(case: Case, out: Path, balance: bool) -> dict[str, Any]:
    """Train on a mixture, under the doctor's eyes, and count modes."""
    mixture = MIXTURES[case.data]
    torch.manual_seed(mix(case.seed, "weights"))
    family = modes.Points(modes.PointsConfig(**POINTS | case.settings))
    state = State(family, Device(name="cpu", precision="float32"), total=case.examples)
    points, _ = mixture.draw(modes.POINTS, mix(case.seed, "points"))
    table = {"points": points / np.float32(mixture.scale)}
    held = np.arange(0, modes.POINTS, 200)
    rows = np.setdiff1d(np.arange(modes.POINTS), held)
    keeper = Keeper()
    folder = out / "runs" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    loop = Loop(
        state,
        Stream([table], seed=mix(case.seed, "order"), rows=[rows]),
        Plan(batch=family.training["batch"], seed=case.seed),
        world=World(),
        audience=Audience([keeper]),
        doctor=Watch(
            Examiner(state, table, rows, held, at_once=lambda: 256, seed=case.seed),
            {},
            balance=Balance(dict(vars(family.config))) if balance else None,
            every=case.examples // 60 if balance else 0,
        ),
        checkpoints=Checkpoints(folder),
    )
    outcome = "complete"
    try:
        loop.run()
    except Diverged:
        outcome = "diverged"
    shutil.rmtree(folder, ignore_errors=True)
    found = {}
    if state.is_finite():
        found = asdict(cover(modes.samples(state, mixture), mixture))
    return {"outcome": outcome, "facts": found, "events": keeper.records}


# ---- Pictures ----


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "faussaire", *words], capture_output=True, text=True, check=False
    )


def play_pictures(case: Case, data: Path, out: Path, balance: bool) -> dict[str, Any]:
    """Train a family with the command, and measure what it makes."""
    assert case.family is not None
    run = out / "runs" / case.name
    shutil.rmtree(run, ignore_errors=True)
    base, _, how = case.data.partition("-")
    words = [case.family, source(case.data, data, out), "--resolution", str(SIDE), "--seed"]
    words += [str(case.seed), "--examples", str(case.examples), "--out", str(run), "--keep", "1"]
    if base == "emoji":
        words += ["--channels", "rgb"]
    if balance:
        words += ["--balance", "auto"]
    if case.family != "classic":
        words += ["--size", "tiny"]
    measuring = ["--extractor", "squeezenet1.1", "--weights", str(data / "weights")]
    if how != "ten":  # a distance to ten pictures says nothing
        words += ["--evaluate-every", str(case.examples // 2), "--evaluate-metrics", "fid"]
        words += ["--evaluate-count", str(COUNT), *measuring]
    for key, value in case.settings.items():
        flag = f"--{key.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    done = command("train", *words)
    if not (run / "events.jsonl").exists():
        raise SystemExit(f"{words}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    facts: dict[str, Any] = {}
    outcome = next((e["outcome"] for e in events if e["event"] == "finished"), "none")
    facts["fids"] = [
        [e["examples"] / case.examples, next(iter(e["figures"].values()))]
        for e in events
        if e["event"] == "measured"
    ]
    if any((run / "checkpoints").glob("*")):
        if how == "ten":
            whole = ["--against", source(base, data, out), "--count", str(COUNT), "--json"]
            done = command("evaluate", str(run), "--metrics", "fid", *whole, *measuring)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            facts["fids"] = [[1.0, json.loads(done.stdout)["figures"][0]["value"]]]
        facts |= judge(case, run, data, out)
    shutil.rmtree(run, ignore_errors=True)
    return {"outcome": outcome, "facts": facts, "events": events}


def judge(case: Case, run: Path, data: Path, out: Path) -> dict[str, Any]:
    """What classes the samples are of, and how near they are to the training pictures, in pixels."""
    base, _, how = case.data.partition("-")
    if base == "emoji" and not how:
        return {}
    labels = np.arange(COUNT) % 10
    wanted = labels.tolist() if case.settings.get("conditional") else None
    fakes = faussaire.load(run).sample(COUNT, seed=1, label=wanted) * 2.0 - 1.0
    facts: dict[str, Any] = {}
    if base != "emoji":
        net = classifier(base, data, out)
        with torch.no_grad():
            logits = net(fakes)
        named = logits.argmax(1).numpy()
        share = np.bincount(named, minlength=10) / COUNT
        some = share[share > 0]
        facts["classes"] = int((share >= 0.02).sum())
        facts["classes_kl"] = float((some * np.log(10 * some)).sum())
        facts["sure"] = float((logits.softmax(1).max(1).values > 0.9).float().mean())
        if wanted is not None:
            facts["as_asked"] = float((named == labels).mean())
    if how == "ten":
        known = table(source(case.data, data, out), fakes.shape[1]).flatten(1)
        between = torch.cdist(known, known)
        usual = float(between[between > 0].median())
        nearest = torch.cdist(fakes.flatten(1), known).min(dim=1).values
        facts["copies"] = float((nearest < 0.5 * usual).float().mean())
    return facts


def table(path: str, channels: int) -> torch.Tensor:
    """The training pictures as the nets see them, (N, C, 32, 32) in [-1, 1]."""
    mode = "grey" if channels == 1 else "rgb"
    images = read_as_they_are(
        path, resolution=(SIDE, SIDE), channels=mode, classes="none", progress=None
    )
    return torch.tensor(images.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--balance", action="store_true")
    parser.add_argument("--set", choices=[*SETS], default="first")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    folder = options.out / ("balanced" if options.balance else "cases")
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases(options.set):
        if options.only not in case.name:
            continue
        if options.list:
            print(case.name)
            continue
        path = folder / f"{case.name}.json"
        try:
            path.with_suffix(".taken").open("x").close()
        except FileExistsError:
            continue
        began = time.monotonic()
        if case.family is None:
            found = play_points(case, options.out, options.balance)
        else:
            found = play_pictures(case, options.data, options.out, options.balance)
        record = {"name": case.name, **asdict(case), **found}
        path.write_text(json.dumps(record) + "\n")
        print(
            f"{case.name}: {found['outcome']} {found['facts']} {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
