"""How often sgan is right with 100 labels, beside networks that learn from these labels alone.

    python benchmarks/sgan.py --data DIRECTORY > benchmarks/sgan.txt

The directory holds `mnist_t10k` (10,000 digits) and `fashion_mnist`, of which the 10,000 test
pictures are taken, as IDX. Of each set 1,000 pictures are held out for the test; 9,000 are learnt from,
100 of them with their label, 10 a class; a seed chooses which, and everything else that is drawn. The
baselines learn from the same 100 labels: logistic regression, and the layers of sgan's own discriminator
with dropout, by cross-entropy. Their settings are usual ones, not searched for.

sgan is trained by `faussaire.train` as the command line does it. An epoch shows the discriminator each
picture once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import faussaire
from faussaire.core.figures import read_figures
from faussaire.families import load_family
from faussaire.labelling import Labelling
from faussaire.material import split

SETS = {
    "mnist": "mnist_t10k/t10k-images-idx3-ubyte.gz",
    "fashion": "fashion_mnist/t10k-images-idx3-ubyte.gz",
}
LABELS, HELD = 100, 0.1


def pixels_and_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) and class numbers (N,)."""
    from faussaire.data.pack import pack

    images = pack(path)
    assert images.labels is not None
    return images.pixels, images.labels


def trained(net: nn.Module, x: Tensor, y: Tensor, steps: int, decay: float) -> nn.Module:
    """By cross-entropy on all rows at once, with Adam."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=decay)
    net.train()
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval()


def layers(widths: list[int], classes: int) -> nn.Sequential:
    """The hidden layers of sgan's dense discriminator, with dropout in place of noise."""
    parts: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        parts += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*parts, nn.Linear(widths[-1], classes))


def right(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share told right."""
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=[*SETS])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--size", default="base")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="epochs between figures")
    parser.add_argument("--runs", type=Path, help="keep the runs here")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of sgan")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = dict(word.split("=", 1) for word in options.set)
    shown = " ".join(options.set) or "defaults"
    print(
        f"sgan --size {options.size}, {options.epochs} epochs, {shown}; torch {torch.__version__}"
    )
    for name in options.sets:
        found: dict[str, list[float]] = {"logistic": [], "network": [], "sgan": []}
        source = options.data / SETS[name]
        pixels, labels = pixels_and_labels(source)
        x = torch.from_numpy(pixels.reshape(len(pixels), -1).copy()).float() / 255.0
        y = torch.from_numpy(labels)
        for seed in options.seeds:
            train, held = split(len(labels), HELD)
            classes = [str(number) for number in range(10)]
            known = Labelling.of(labels, classes, train, held, only=LABELS, seed=seed)
            lessons, exam = torch.from_numpy(known.told), torch.from_numpy(known.tests)
            torch.manual_seed(seed)
            hidden = load_family("sgan").sizes[options.size]["hidden"]
            widths = [x.shape[1], *map(int, hidden.split(","))]
            line = nn.Linear(x.shape[1], 10)
            for word, net, steps in (("logistic", line, 500), ("network", layers(widths, 10), 300)):
                taught = trained(net, x[lessons], y[lessons], steps, 1e-4)
                found[word].append(right(taught, x[exam], y[exam]))
            began, spent = time.monotonic(), time.process_time()
            run = faussaire.train(
                "sgan",
                source,
                out=(options.runs or Path(tempfile.mkdtemp())) / f"{name}-{seed}",
                size=options.size,
                labels_only=LABELS,
                labels_seed=seed,
                seed=seed,
                holdout=HELD,
                examples=2 * len(train) * options.epochs,  # the generator's phase has its own
                preview_every=2 * len(train) * options.every,
                evaluate_every=2 * len(train) * options.every,
                save_every="10m",
                doctor="off",
                quiet=True,
                **changes,
            )
            course = read_figures(run.path / "metrics.jsonl")
            figure = course[-1]
            found["sgan"].append(figure.value)
            seconds = time.monotonic() - began
            print(
                f"{name} seed {seed}: "
                + ", ".join(f"{word} {values[-1]:.3f}" for word, values in found.items())
                + f"; {figure.name} ± {figure.error:.3f}; {seconds:.0f} s, of which this process "
                f"worked {time.process_time() - spent:.0f} s; after every {options.every} epochs: "
                + " ".join(f"{one.value:.3f}" for one in course),
                flush=True,
            )
        for word, values in found.items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(
                f"{name} {word}: {statistics.mean(values):.3f} ± {spread:.3f} over {len(values)} seeds"
            )


if __name__ == "__main__":
    main()
