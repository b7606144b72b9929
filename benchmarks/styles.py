"""Do networks that paint in one pass carry the manner of a painting, and leave the photograph in place?

    python benchmarks/styles.py faststyle|adain --data DATA --out FOLDER [--examples N] [--size small]
        [--resolution 128] [--seed 0] [--threads 1] [--set KEY=VALUE ...]

DATA holds `bsds500/{train,val,test}/photo`, `style_pictures/` and
`weights/squeezenet1_1_features.safetensors`. Measured are the first 20 photographs of test by name, in
full size, as `faussaire apply` paints them, with SqueezeNet 1.1:

- the Gram distance to the painting in `faststyle`'s layers (0 for the painting itself, 1 for a picture
  of which the network sees nothing), beside that of the photographs as they are;
- what is lost of the photograph: the distance of fire4's maps, as a share of their size. Another
  photograph stands beside it: who is no nearer than that has painted over everything.

`faststyle` learns The Starry Night. `adain` learns from 100 photographs of val as well as two paintings,
and is shown The Scream, too, which it has never seen. Leaves FOLDER/FAMILY.png: photographs, and
what became of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import faussaire
from faussaire import losses
from faussaire.families.faststyle import RECIPES
from faussaire.metrics.maps import open_maps
from faussaire.originals import no_larger, read_picture
from faussaire.report.pictures import beside

RECIPE = RECIPES["squeezenet1.1"]
PAINTINGS = {"The Starry Night": "starry_night_google.jpg", "The Scream": "the_scream.jpg"}
EXAMPLES = {"faststyle": 6_000, "adain": 12_000}
SEEN, SHOWN = 20, 6


def photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".jpg")


def train(options: argparse.Namespace, run: Path) -> None:
    """In FOLDER, unless that has been done."""
    if (run / "checkpoints").exists():
        return
    data, pictures = options.data / "bsds500", options.data / "style_pictures"
    given: dict[str, object] = {"style": pictures / PAINTINGS["The Starry Night"]}
    if options.family == "adain":
        styles = options.out / "styles"
        styles.mkdir(parents=True, exist_ok=True)
        for path in [
            *photos(data / "val/photo"),
            pictures / PAINTINGS["The Starry Night"],
            pictures / "shipwreck.jpg",
        ]:
            shutil.copyfile(path, styles / path.name)
        given = {"target": str(styles)}
    given |= dict(word.split("=", 1) for word in options.set)
    faussaire.train(
        options.family, data / "train/photo", out=run, size=options.size, seed=options.seed,
        resolution=options.resolution, examples=options.examples or EXAMPLES[options.family],
        perceptual="squeezenet1.1", quiet=True, **given,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", choices=[*EXAMPLES])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--size", default="small")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = options.data / "weights"
    os.environ.setdefault("FAUSSAIRE_WEIGHTS", str(weights))
    words = {str(options.data): "DATA", str(options.out): "FOLDER"}
    told = shlex.join(words.get(word, word) for word in sys.argv[1:])
    print(f"python benchmarks/styles.py {told}")
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {options.threads} threads"
    )
    run, began = options.out / options.family, time.process_time()
    train(options, run)
    taken = time.process_time() - began
    model = faussaire.load(run, device="cpu")
    print(
        f"{model.examples:,} examples at {options.resolution} pixels, {taken / 60:.1f} min of processors"
    )

    maps = open_maps(
        "squeezenet1.1", weights / "squeezenet1_1_features.safetensors", RECIPE.layers, pool=RECIPE.pool
    )  # fmt: skip

    @torch.no_grad()
    def seen(x: Tensor) -> dict[str, Tensor]:
        return maps(x)

    def grams(x: Tensor) -> dict[str, Tensor]:
        return {name: losses.gram(seen(x)[name]) for name in RECIPE.style}

    chosen = photos(options.data / "bsds500/test/photo")[:SEEN]
    originals = [read_picture(path).tensor for path in chosen]
    columns = [originals]
    learnt = [*PAINTINGS][: 2 if options.family == "adain" else 1]
    print("\n| painting | | Gram distance | lost of the photograph |\n|---|---|---|---|")
    for name in learnt:
        path = options.data / "style_pictures" / PAINTINGS[name]
        painting = no_larger(read_picture(path).tensor, 321)  # as high as the photographs
        target = grams(painting)
        how = {"style": path} if options.family == "adain" else {}
        made = [2.0 * model.apply((x + 1.0) / 2.0, **how) - 1.0 for x in originals]
        columns.append(made)
        turned = [originals[(place + 1) % SEEN] for place in range(SEEN)]
        for what, rows in (("photograph", originals), (options.family, made), ("another", turned)):
            far = [float(losses.style_loss(grams(x), target, RECIPE.style)) for x in rows]
            lost = []
            for one, other in zip(rows, originals, strict=True):
                height, width = (min(one.shape[axis], other.shape[axis]) for axis in (2, 3))
                pair = [x[:, :, :height, :width] for x in (one, other)]
                there = losses.content_loss(seen(pair[0]), seen(pair[1]), RECIPE.content)
                lost.append(float(there))
            print(
                f"| {name} | {what} | {sum(far) / SEEN:.3f} | {sum(lost) / SEEN:.3f} |", flush=True
            )
    least = [min(x.shape[axis] for column in columns for x in column) for axis in (2, 3)]
    sheet = beside(
        [
            torch.cat([x[:, :, : least[0], : least[1]] for x in column[:: SEEN // SHOWN][:SHOWN]])
            for column in columns
        ]
    )
    sheet.thumbnail((2000, 2000), Image.Resampling.LANCZOS)
    sheet.save(options.out / f"{options.family}.png")


if __name__ == "__main__":
    main()
