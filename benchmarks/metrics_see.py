"""Which metric sees what: figures of real pictures that were spoilt in known ways, more and more.

    python benchmarks/metrics_see.py --data FASHION_MNIST --weights FOLDER [--extractor squeezenet1.1]
                                     [--count 2500] [--json FILE] [--plot FILE.png]

The reference is one random part of the data, the pictures judged are another, which no metric should
mind; then these are blurred, made noisy, robbed of classes, repeated, or replaced by copies of the
reference. For each metric and damage the table shows the figure without damage and with the most,
and whether it went one way at every step. The plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from faussaire.core.device import Device
from faussaire.core.figures import METRICS
from faussaire.data.pack import Images, PackOptions, pack
from faussaire.data.source import content_digest
from faussaire.measuring import Options, measure
from faussaire.metrics.extractors import open_extractor
from faussaire.metrics.pictures import Packed

MEASURED = (
    *("fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "authenticity"),
    *("swd", "ms-ssim"),
)
DAMAGES = {
    "blur (sigma in pixels)": (0, 0.5, 1, 1.5, 2),
    "noise (deviation of 255)": (0, 8, 16, 32, 64),
    "classes dropped (of 10)": (0, 2, 4, 6, 8),
    "repeats of each picture": (1, 4, 16, 64, 256),
    "copies of the reference (%)": (0, 25, 50, 75, 100),
}


def as_images(pixels: np.ndarray, labels: np.ndarray, classes: list[str]) -> Images:
    """Pictures in memory, as a pack is."""
    names = [str(row) for row in range(len(pixels))]
    return Images(pixels, labels, classes, names, content_digest(pixels), {"mode": "L"})


def damaged(damage: str, amount: float, spare: Images, reference: Images, count: int) -> np.ndarray:
    """`count` pictures, uint8 (N, H, W, C), spoilt by so much."""
    assert spare.labels is not None
    chance = np.random.default_rng(1)
    pictures = spare.pixels[:count]
    if damage.startswith("blur") and amount:
        blur = ImageFilter.GaussianBlur(amount)
        return np.stack([np.asarray(Image.fromarray(p[..., 0]).filter(blur)) for p in pictures])[
            ..., None
        ]
    if damage.startswith("noise"):
        noisy = pictures + chance.normal(0, amount, pictures.shape)
        return np.rint(noisy).clip(0, 255).astype(np.uint8)
    if damage.startswith("classes"):
        kept = spare.pixels[spare.labels >= amount]
        return kept[:count]
    if damage.startswith("repeats"):
        few = pictures[: max(1, count // int(amount))]
        return few[np.arange(count) % len(few)]
    if damage.startswith("copies"):
        copies = int(count * amount / 100)
        return np.concatenate([reference.pixels[:copies], pictures[copies:]])
    return pictures


def course(metric: str, values: list[float]) -> str:
    """How a figure goes from step to step, in a word."""
    steps = [now - before for before, now in itertools.pairwise(values)]
    rising, falling = (all(sign * step >= 0 for step in steps) for sign in (1, -1))
    if not (rising or falling):
        return "up and down"
    better = METRICS[metric].better
    if better == "real":
        return "rises" if rising else "falls"
    return "worse" if rising == (better == "lower") else "better"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--extractor", default="squeezenet1.1")
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    source = arguments.data / "train-images-idx3-ubyte.gz"
    whole = pack(str(source) if source.exists() else str(arguments.data), PackOptions())
    assert whole.labels is not None
    order = np.random.default_rng(0).permutation(len(whole))
    count = arguments.count

    def part(rows: np.ndarray) -> Images:
        assert whole.labels is not None
        return as_images(whole.pixels[rows], whole.labels[rows], whole.classes)

    reference, spare = part(order[:count]), part(order[count:])
    extractor = open_extractor(arguments.extractor, weights=arguments.weights)
    options = Options(metrics=MEASURED, extractor=extractor)
    device = Device.choose("auto", "auto")
    results: dict[str, dict[str, list[float]]] = {}
    real: dict[str, float] = {}
    for damage, amounts in DAMAGES.items():
        results[damage] = {metric: [] for metric in MEASURED}
        for amount in amounts:
            pixels = damaged(damage, amount, spare, reference, count)
            fakes = Packed(as_images(pixels, np.zeros(len(pixels), int), ["all"]), "damaged")
            found = measure(
                fakes, Packed(reference, "train"), options, device=device, circumstances={}
            )
            for figure in found.figures:
                results[damage][figure.provenance.metric].append(figure.value)
                real[figure.provenance.metric] = figure.real or 0.0
            values = "  ".join(f"{f.provenance.metric} {f.value:.4g}" for f in found.figures)
            print(f"{damage} {amount}: {values}", flush=True)
    facts = {"count": count, "extractor": extractor.name, "real": real, "results": results}
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1))
    tell(facts)
    if arguments.plot:
        plot(facts, arguments.plot)


def tell(facts: dict[str, Any]) -> None:
    """The table: from no damage to the greatest, and whether every step went one way."""
    count, columns = facts["count"], list(DAMAGES)
    print(f"\n{count} pictures against {count}, {facts['extractor']}\n")
    print("| metric | real | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for metric in MEASURED:
        cells = []
        for damage in columns:
            values = facts["results"][damage][metric]
            cells.append(f"{values[0]:.3g} to {values[-1]:.3g}, {course(metric, values)}")
        print(f"| {metric} | {facts['real'][metric]:.3g} | " + " | ".join(cells) + " |")


def plot(facts: dict[str, Any], path: Path) -> None:
    """A row a metric, a column a damage; the dashed line is the real-vs-real value."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = len(MEASURED), len(DAMAGES)
    figure, axes = plt.subplots(rows, columns, figsize=(2.1 * columns, 1.25 * rows), sharey="row")
    for row, metric in enumerate(MEASURED):
        for column, (damage, amounts) in enumerate(DAMAGES.items()):
            axis = axes[row, column]
            axis.plot(range(5), facts["results"][damage][metric], "o-", ms=3, lw=1.4, c="#0072b2")
            axis.axhline(facts["real"][metric], ls="--", lw=0.9, c="#888888")
            axis.set_xticks(range(5), [f"{a:g}" for a in amounts] if row == rows - 1 else [])
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
            if row == 0:
                axis.set_title(damage, fontsize=7.5)
            if column == 0:
                axis.set_ylabel(metric, fontsize=8)
    figure.tight_layout(pad=0.6)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
