"""Holes in photographs: nearer to what was there than the fillings that learn nothing?

    python benchmarks/inpaint.py --data DATA --out FOLDER [--threads 1] [--examples 52000] [--seed 0]
        [--set KEY=VALUE ...] [--run RUN | --baselines]

DATA holds `bsds500/{train,val,test}/photo/` (Martin, Fowlkes, Tal and Malik's Berkeley photographs) and
`weights/squeezenet1_1_features.safetensors`. Training sees the 300 of train and val at 128x128, with
holes drawn at random. Figures are means over the first hundred of test by name, resized and
cut to 128x128, with a square hole of 64x64 in the middle, and count the hole alone: L1 in units
of the whole range and PSNR; the perceptual distance (SqueezeNet 1.1) is of the whole filled picture.

Beside the model stand the mean of what is known, the nearest known pixel, and Telea (2004), where
OpenCV is installed (`pip install opencv-python-headless`; the project does not need it). A sheet of
emptied, filled and real pictures is written to FOLDER. --run measures a run that is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

import faussaire
from faussaire.metrics.paired import l1, psnr
from faussaire.metrics.perceptual import open_perceptual

SIDE, HOLE = 128, 64
SETTINGS = {
    "resolution": SIDE,
    "margin": 0.25,
    "flip": True,
    "size": "tiny",
    "batch": 8,
    "lr": 5e-4,
    "discriminator_lr": 2e-4,
    "lr_decay": "linear",
    "half_life": 2000,
}


def photos(data: Path, *parts: str) -> list[Path]:
    """The photographs of some parts, in the order of their names."""
    return [
        path
        for part in parts
        for path in sorted((data / "bsds500" / part / "photo").iterdir())
        if path.suffix.lower() in (".jpg", ".png")
    ]


def read(path: Path) -> Tensor:
    """(1, 3, SIDE, SIDE) in [-1, 1]."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def with_mean(x: Tensor, hole: Tensor) -> Tensor:
    """The hole in the mean colour of what is known."""
    known = 1.0 - hole
    mean = (x * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True)
    return torch.where(hole > 0, mean, x)


def nearest_known(hole: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the hole, (K, 2), and of each the known one that is nearest, (K, 2)."""
    known = (hole[0, 0] == 0).nonzero()
    missing = (hole[0, 0] > 0).nonzero()
    rows = [torch.cdist(part.float(), known.float()).argmin(dim=1) for part in missing.split(256)]
    return missing, known[torch.cat(rows)]


def with_nearest(x: Tensor, missing: Tensor, nearest: Tensor) -> Tensor:
    """Every missing pixel as the known one that is nearest to it."""
    made = x.clone()
    made[:, :, missing[:, 0], missing[:, 1]] = x[:, :, nearest[:, 0], nearest[:, 1]]
    return made


def with_telea(x: Tensor, hole: Tensor) -> Tensor:
    """Telea 2004, "An Image Inpainting Technique Based on the Fast Marching Method", radius 3."""
    import cv2  # pyright: ignore[reportMissingImports]

    pixels = ((x[0].permute(1, 2, 0) + 1.0) * 127.5).round().to(torch.uint8).numpy()
    mask = (255 * hole[0, 0]).to(torch.uint8).numpy()
    made = cv2.inpaint(np.ascontiguousarray(pixels), mask, 3, cv2.INPAINT_TELEA)
    return torch.from_numpy(made).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=52_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", type=Path, help="measure this run, and train none")
    parser.add_argument("--baselines", action="store_true", help="measure no model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    perceptual = open_perceptual(options.data / "weights")
    real = [read(path) for path in photos(options.data, "test")[:100]]
    begin = (SIDE - HOLE) // 2
    hole = torch.zeros(1, 1, SIDE, SIDE)
    hole[:, :, begin : begin + HOLE, begin : begin + HOLE] = 1.0

    places = nearest_known(hole)

    def show(name: str, made: list[Tensor], remark: str = "") -> None:
        rows, wanted = torch.cat(made), torch.cat(real)
        mask = hole.expand(len(rows), -1, -1, -1)
        with torch.no_grad():
            distance = float(perceptual(rows, wanted).mean())
        error, quality = (
            float(l1(rows, wanted, mask).mean()),
            float(psnr(rows, wanted, mask).mean()),
        )
        print(f"{name:20}{error:8.3f}{quality:8.2f}{distance:13.4f}{remark}", flush=True)

    print(f"{'':20}{'L1':>8}{'PSNR':>8}{'perceptual':>13}")
    show("mean", [with_mean(x, hole) for x in real])
    show("nearest pixel", [with_nearest(x, *places) for x in real])
    telea = None
    try:
        telea = [with_telea(x, hole) for x in real]
        show("Telea (OpenCV)", telea)
    except ModuleNotFoundError:
        print("Telea: OpenCV is not installed.")
    if options.baselines:
        return
    run = options.run or options.out / "inpaint"
    began = time.process_time()
    if options.run is None:
        source = options.out / "photos"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        for path in photos(options.data, "train", "val"):
            shutil.copyfile(path, source / path.name)
        own = dict(word.split("=", 1) for word in options.set)
        faussaire.train(
            "inpaint", source, out=run, examples=options.examples, seed=options.seed, quiet=True,
            doctor="off", **{**SETTINGS, **own},
        )  # fmt: skip
    spent = (time.process_time() - began) / 60
    model = faussaire.load(run)
    made = [(model.apply((x + 1.0) / 2.0, mask=hole) * 255.0).round() / 127.5 - 1.0 for x in real]
    show("inpaint", made, f"  {model.examples} examples, {spent:.0f} min of one core")
    rows = []
    for i in range(0, 100, 8):
        cells = [torch.where(hole > 0, 0.0, real[i]), made[i], real[i]]
        rows.append(torch.cat([*cells[:1], *([telea[i]] if telea else []), *cells[1:]], dim=3))
    sheet = torch.cat(rows, dim=2)[0]
    levels = ((sheet + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(options.out / f"{run.name}.png")


if __name__ == "__main__":
    main()
