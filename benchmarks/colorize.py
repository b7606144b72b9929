"""Grey photographs in colour: nearer to the real colours than grey, and not brown?

    python benchmarks/colorize.py --data DATA --out FOLDER [--threads 1] [--examples 16000] [--seed 0]
        [--set KEY=VALUE ...] [--ablations] [--run RUN]

DATA holds `bsds500/{train,val,test}/photo/`: Martin, Fowlkes, Tal and Malik's Berkeley photographs,
481x321. Training sees the 300 of train and val; figures are means over the first hundred of test in
the order of their names, in full size, as `faussaire apply` makes them:

- PSNR of RGB in dB, to be above that of the grey picture itself (its lightness, without colour);
- colourfulness (Hasler and Süsstrunk 2003), to be at least 60 % of that of the photographs.

Each alone is easy: brown wins the first against any bold guess, and loud colours the second. A sheet
of grey, made and real ones is written to FOLDER. --ablations trains without the term against brown
(`lambda_colour=0`), and without a discriminator, too; --run measures a run that is there. `guide=0`
is the same model with its colours plainly enlarged.
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
from PIL import Image
from torch import Tensor

import faussaire
from faussaire.metrics.paired import colourfulness, psnr
from faussaire.nn.lab import lab_to_rgb, rgb_to_lab

SETTINGS = {
    "resolution": 64,
    "margin": 0.25,
    "flip": True,
    "width": 24,
    "batch": 16,
    "lr": 5e-4,
    "discriminator_lr": 2e-4,
    "lr_decay": "linear",
    "half_life": 1500,
}
ABLATIONS = {
    "as it is": {},
    "no colour term": {"lambda_colour": 0.0},
    "L1 alone": {"lambda_colour": 0.0, "lambda_gan": 0.0},
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
    """(1, 3, H, W) in [-1, 1]."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def greyed(x: Tensor) -> Tensor:
    """The lightness of RGB pictures (N, 3, H, W), in RGB without colour, in whole levels."""
    lab = rgb_to_lab(x)
    grey = lab_to_rgb(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], dim=1))
    return ((grey + 1.0) * 127.5).round() / 127.5 - 1.0


def figures(made: list[Tensor], real: list[Tensor]) -> tuple[float, float]:
    """Mean PSNR and mean colourfulness."""
    pairs = list(zip(made, real, strict=True))
    return (
        float(torch.cat([psnr(one, other) for one, other in pairs]).mean()),
        float(torch.cat([colourfulness(one) for one in made]).mean()),
    )


def sheet(rows: list[tuple[Tensor, ...]], path: Path) -> None:
    """Pictures side by side, halved."""
    cells = []
    for row in rows:
        row = tuple(x.transpose(2, 3) if x.shape[2] > x.shape[3] else x for x in row)
        strip = torch.cat([x[:, :, :320, :480] for x in row], dim=3)
        cells.append(torch.nn.functional.avg_pool2d(strip, 2))
    whole = torch.cat(cells, dim=2)[0]
    levels = ((whole + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--run", type=Path, help="measure this run, and train none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    real = [read(path) for path in photos(options.data, "test")[:100]]
    grey = [greyed(x) for x in real]
    print(f"{'':24}{'PSNR':>8}{'colourfulness':>16}")
    for name, rows in (("photographs", real), ("grey", grey)):
        quality, colour = figures(rows, real)
        print(f"{name:24}{quality:8.2f}{colour:16.1f}", flush=True)
    own = dict(word.split("=", 1) for word in options.set)
    for name, changes in (ABLATIONS if options.ablations else {"as it is": {}}).items():
        run = options.run or options.out / name.replace(" ", "-")
        began = time.process_time()
        if options.run is None:
            source = options.out / "photos"
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir()
            for path in photos(options.data, "train", "val"):
                shutil.copyfile(path, source / path.name)
            faussaire.train(
                "colorize", source, out=run, examples=options.examples, seed=options.seed,
                quiet=True, doctor="off", **{**SETTINGS, **changes, **own},
            )  # fmt: skip
        spent = time.process_time() - began
        model = faussaire.load(run)
        made = [(model.apply((x + 1.0) / 2.0) * 255.0).round() / 127.5 - 1.0 for x in grey]
        quality, colour = figures(made, real)
        share = colour / figures(real, real)[1]
        print(
            f"{name:24}{quality:8.2f}{colour:16.1f}  {share:4.0%} of the photographs', "
            f"{model.examples} examples, {spent / 60:.0f} min of one core",
            flush=True,
        )
        if model.family.config.guide:
            model.family = model.family.changed(guide=0)
            plain = [(model.apply((x + 1.0) / 2.0) * 255.0).round() / 127.5 - 1.0 for x in grey]
            quality, colour = figures(plain, real)
            print(f"{'  guide=0':24}{quality:8.2f}{colour:16.1f}", flush=True)
        rows = [(grey[i], made[i], real[i]) for i in range(0, 100, 8)]
        sheet(rows, options.out / f"{run.name}.png")


if __name__ == "__main__":
    main()
