"""Photographs at twice their size: what each stage of `superres` gains and costs.

    python benchmarks/superres.py --data DATA --out FOLDER [--pixel 26000] [--adversarial 1600]
        [--count 100] [--sheet FILE.png] [--settings ...]

DATA holds `bsds500/{train,test}/photo` (BSDS500, research use) and
`weights/squeezenet1_{0,1}*.safetensors`. Trained is on the 200 pictures of `train`, with the pixel stage
first and then, in the same run, the adversarial stage; FOLDER keeps the run. Measured is on the first
hundred pictures of `test` by name: each is shrunk by Pillow's bicubic filter, enlarged, and compared
with itself: PSNR and SSIM of Y with two pixels of the border left out (what papers print), and two
perceptual distances of the middle 256x256 pixels. That of SqueezeNet 1.1 is what the adversarial stage
lowers; that of SqueezeNet 1.0, a network with other weights, it has never seen.

--sheet puts details of four pictures side by side: bicubic, pixel stage, adversarial stage, real.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import faussaire
from faussaire.metrics import squeezenet
from faussaire.metrics.paired import psnr_luma, ssim_luma
from faussaire.metrics.perceptual import PerceptualDistance, open_perceptual
from faussaire.metrics.weights import SQUEEZENET_1_0, checksum, fill, obtain, read_tensors

SCALE = 2
MIDDLE = 256
SETTINGS = ["--resolution", "64", "--blocks", "4", "--batch", "8", "--seed", "0"]
GAME = ["--lambda-gan", "0.01", "--lr", "3e-4"]
FIGURES = ("PSNR", "SSIM", "SqueezeNet 1.1", "SqueezeNet 1.0")


def train(options: argparse.Namespace) -> list[str]:
    """Both stages, as far as they have not been trained; the commands."""
    run = options.out / "run"
    whole = options.pixel + options.adversarial
    source = options.data / "bsds500" / "train" / "photo"
    common = ["train", "superres", str(source), *SETTINGS, *options.settings, "--out", str(run)]
    common += ["--doctor", "off", "--preview-every", "0", "--save-every", "400", "--keep", "10"]
    second = ["--examples", str(whole), "--pixel-share", f"{options.pixel / whole:.9f}", *GAME]
    commands = [
        [*common, "--examples", str(options.pixel), "--lambda-gan", "0"],
        [*common, *second, "--allow-changes"],
    ]
    marks = [options.pixel, whole] if options.adversarial else [options.pixel]
    for command, mark in zip(commands, marks, strict=False):
        if not (run / "checkpoints" / f"{mark:012d}").exists():
            subprocess.run([sys.executable, "-m", "faussaire", *command], check=True)
    named = {str(source): "DATA/bsds500/train/photo", str(run): "FOLDER/run"}
    return [
        " ".join(["faussaire", *(named.get(word, word) for word in command)])
        for command, _ in zip(commands, marks, strict=False)
    ]


def eye_1_0() -> PerceptualDistance:
    """The perceptual distance with SqueezeNet 1.0."""
    path = obtain(SQUEEZENET_1_0)
    state = read_tensors(path)
    net = squeezenet.SqueezeNet.like("1.0", state)
    fill(net, state, path, "Give the weights of SqueezeNet 1.0.")
    net.eval().requires_grad_(False)
    mean, deviation = squeezenet.MEAN, squeezenet.DEVIATION
    return PerceptualDistance(net, "squeezenet1.0-stages", checksum(path)[:16], mean, deviation)


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def middle(x: Tensor) -> Tensor:
    top, left = (max(0, (side - MIDDLE) // 2) for side in x.shape[2:])
    return x[:, :, top : top + MIDDLE, left : left + MIDDLE]


def pictures(options: argparse.Namespace) -> list[tuple[Image.Image, Image.Image]]:
    """Pictures, and the same shrunk."""
    found = []
    folder = options.data / "bsds500" / "test" / "photo"
    for path in sorted(folder.iterdir())[: options.count]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        size = tuple(side // SCALE * SCALE for side in image.size)
        image = image.crop((0, 0, *size))
        small = image.resize(tuple(s // SCALE for s in size), Image.Resampling.BICUBIC)
        found.append((image, small))
    return found


def measured(
    enlarge: Callable[[Image.Image], Image.Image], pairs: list[tuple[Image.Image, Image.Image]]
) -> list[float]:
    """Means of `FIGURES`."""
    eyes = [open_perceptual(), eye_1_0()]
    rows = []
    with torch.no_grad():
        for image, small in pairs:
            real, made = tensor(image), tensor(enlarge(small))
            rows.append(
                [
                    float(psnr_luma(made, real, border=SCALE)),
                    float(ssim_luma(made, real, border=SCALE)),
                    *(float(eye(middle(made), middle(real))) for eye in eyes),
                ]
            )
    return np.mean(rows, axis=0).tolist()


def sheet(
    pairs: list[tuple[Image.Image, Image.Image]],
    ways: list[Callable[[Image.Image], Image.Image]],
    path: Path,
) -> None:
    """Details of some pictures, three times as large: a row for each, a column for each way."""
    side, rows = 96, []
    for image, small in pairs[3::25]:
        shown = [*(way(small) for way in ways), image]
        left, top = ((length - side) // 2 for length in image.size)
        cells = [
            each.crop((left, top, left + side, top + side)).resize(
                (3 * side, 3 * side), Image.Resampling.NEAREST
            )
            for each in shown
        ]
        rows.append(np.concatenate([np.asarray(cell) for cell in cells], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pixel", type=int, default=26_000)
    parser.add_argument("--adversarial", type=int, default=1_600)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    os.environ.setdefault("FAUSSAIRE_WEIGHTS", str(options.data / "weights"))
    options.out.mkdir(parents=True, exist_ok=True)
    commands = train(options)
    pairs = pictures(options)
    ways: dict[str, Callable[[Image.Image], Image.Image]] = {
        "bicubic": lambda small: small.resize(
            (SCALE * small.width, SCALE * small.height), Image.Resampling.BICUBIC
        )
    }
    stages = {"pixel stage": options.pixel}
    if options.adversarial:
        stages["adversarial stage"] = options.pixel + options.adversarial
    for name, examples in stages.items():
        model = faussaire.load(options.out / "run", checkpoint=str(examples), device="cpu")
        ways[name] = model.apply
    count = sum(p.numel() for p in model.family.nets["generator"].parameters())
    print("\n".join(commands))
    print(f"faussaire {faussaire.__version__}, torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} thread(s), generator of {count:,} parameters, ", end="")
    print(f"{len(pairs)} pictures\n")
    print(f"{'':<20}" + "".join(f"{name:>16}" for name in FIGURES))
    kept = options.out / "figures.json"
    known = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for name, way in ways.items():
        key = f"{name} {stages.get(name, 0)} {len(pairs)}"
        if key not in known:
            known[key] = measured(way, pairs)
            kept.write_text(json.dumps(known, indent=1), "utf-8")
        psnr, *others = known[key]
        print(f"{name:<20}{psnr:>13.2f} dB" + "".join(f"{v:>16.4f}" for v in others), flush=True)
    if options.sheet:
        sheet(pairs, list(ways.values()), options.sheet)


if __name__ == "__main__":
    main()
