"""Pictures of words: do they follow their captions, new ones too, and at what price in quality?

    python benchmarks/words.py --data DATA --out FOLDER [--family stackgan] [--examples 40k] [--seed 0]
        [--set KEY=VALUE ...] [--count 500] [--no-baseline]

DATA holds `emoji_noto/`: Noto's emoji, 72x72, with English and French names in `captions.csv`. Used are
those without a tone of skin (1,926; the others are near copies), at 32 px on white, each with both names
as captions; a tenth is held out with all its names. The run in FOLDER goes on where it was stopped.

Written are the figures of `faussaire evaluate`, each beside what real pictures get:

- R-precision, 1 of 100, of trained captions and of names that were held out: to be far above 1 %;
- how often the discriminator prefers a picture beside its own caption: to be above one half;
- variety of one caption, to be above 0;
- Fréchet distance, beside that of an unconditional dcgan that saw as many examples as the game;

and grids of pictures of `grinning face`, `red heart`, their French names, and held-out names.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import faussaire
from faussaire.captions.material import CaptionMaterial, read_captioned
from faussaire.core.config import resolve
from faussaire.core.quantity import parse_count
from faussaire.families import load_family
from faussaire.report.pictures import save_png

SHARED = {"resolution": 32, "batch": 16, "half_life": 1500, "holdout": 0.1, "doctor": "off"}
SETTINGS = {
    **{"sentence": 64, "reader_width": 64, "eye_width": 12, "words_batch": 64, "words_lr": 2e-3},
    **{"latent": 32, "words_share": 0.25},
}
FAMILIES = {
    "stackgan": {"width": 12, "augmented": 32, "compressed": 32, "blocks": 1},
    "dfgan": {"width": 8},
}
ASKED = ("grinning face", "visage rieur", "red heart", "cœur rouge")


def write_captions(data: Path, out: Path) -> Path:
    """The names of the emoji without a tone of skin, a row for each name."""
    path = out / "captions.csv"
    with (data / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["skintone"]]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text"])
        for row in rows:
            writer.writerow([Path(row["file"]).name, row["caption_en"]])
            writer.writerow([Path(row["file"]).name, row["caption_fr"]])
    return path


def held_out(material: CaptionMaterial, holdout: float, count: int) -> list[str]:
    """Names that are held out and of whose words all are known, the first of each picture."""
    _, rows = material.split(holdout)[0]
    names = [material.of(int(row))[0] for row in rows]
    return [name for name in names if not material.spec.unknown(name)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="stackgan")
    parser.add_argument("--examples", default="40k")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-baseline", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    emoji = options.data / "emoji_noto"
    captions = write_captions(emoji, options.out)
    settings = {**SHARED, **SETTINGS, **FAMILIES[options.family], "seed": options.seed}
    settings |= dict(pair.split("=", 1) for pair in options.set)
    examples = parse_count(options.examples)
    name = options.family
    began = time.monotonic()
    run = faussaire.train(
        name,
        emoji / "images",
        out=options.out / name,
        captions=captions,
        examples=examples,
        **settings,
    )
    print(f"{name}: {examples:,} examples, {time.monotonic() - began:.0f} s", flush=True)
    metrics = "fid,r-precision,r-precision-new,matched,matched-new,caption-variety"
    found = faussaire.evaluate(run.path, metrics=metrics, count=options.count)
    for figure in found.figures:
        error = "" if figure.error is None else f" +- {figure.error:.3f}"
        real = "" if figure.real is None else f"   real pictures {figure.real:.4g}"
        print(f"{figure.name:60} {figure.value:.4g}{error}{real}", flush=True)

    config = load_family(name).Config
    material = read_captioned(
        resolve(name, str(emoji / "images"), config, run.config()),
        load_family(name),
        preflight=False,
    )
    new = held_out(material, float(settings["holdout"]), 6)
    model = faussaire.load(run.path)
    texts = [*ASKED, *new]
    for remark in model.remarks(texts):
        print(remark)
    save_png(model.grid(8, text=texts), options.out / f"{name}.png")
    print(f"{options.out / name}.png: {', '.join(ASKED)}; held out: {', '.join(new)}", flush=True)

    if not options.no_baseline:
        game = round(examples * (1.0 - float(settings["words_share"])))
        plain = options.out / "pictures"
        plain.mkdir(exist_ok=True)
        for row, pixels in zip(material.images.names, material.images.pixels, strict=True):
            if not (plain / row).exists():
                from PIL import Image

                Image.fromarray(pixels).save(plain / row)
        began = time.monotonic()
        baseline = faussaire.train(
            "dcgan",
            plain,
            out=options.out / "dcgan",
            examples=game,
            width=settings["width"],
            latent=settings["latent"],
            seed=options.seed,
            **{key: settings[key] for key in SHARED},
        )
        print(f"dcgan: {game:,} examples, {time.monotonic() - began:.0f} s", flush=True)
        for figure in faussaire.evaluate(baseline.path, metrics="fid", count=options.count).figures:
            print(
                f"{figure.name:60} {figure.value:.4g}   real pictures {figure.real:.4g}", flush=True
            )


if __name__ == "__main__":
    main()
