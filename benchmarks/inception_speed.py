"""How fast does the FID network read pictures, and does being fast move its features or the FID?

pytorch-fid as it comes, our plain network, the folded one and the fast one read the same batches of
64x64 pictures in turn, resizing included, so that what else the machine does burdens all alike. The
table gives pictures a second (medians), the median of the ratios to the first form in the same
round, processor seconds a picture (which neighbours on the machine hardly change), and the largest
difference of a picture's features relative to their norm.

The FID part reads two halves of real pictures with the plain and the fast network, under random
weights whose batch norm has been fitted to real pictures, so that features vary as they would.

pytorch-fid is optional: see inception_parity.py for an environment that has it.

    PYTHONPATH=src python benchmarks/inception_speed.py --data train-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from inception_parity import pictures, pytorch_fid, randomised
from torch import Tensor, nn

from faussaire.metrics.inception import FEATURES, SIZE, Inception2015, to_input
from faussaire.metrics.inception_fast import fast, folded, kernels
from faussaire.metrics.resize import resize

Form = Callable[[Tensor], Tensor]
"""uint8 (N, 3, H, W) -> features (N, 2048)."""


def forms(net: Inception2015) -> dict[str, Form]:
    """The contestants, pytorch-fid first where it is installed; all with its own resizing."""
    networks = {"plain": net, "folded": folded(net), "fast": fast(net)}
    if kernels() is None:
        del networks["fast"]  # the same as folded here
    found: dict[str, Form] = {}
    reference = pytorch_fid(net)
    if reference is not None:
        used, _ = reference
        found["pytorch-fid"] = lambda x: used(x / 255.0)[0].flatten(1)

    def reader(network: Callable) -> Form:
        return lambda x: network(to_input(resize(x, (SIZE, SIZE), "pytorch"), "pytorch"))[0]

    return found | {name: reader(network) for name, network in networks.items()}


def race(contestants: dict[str, Form], batch: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8, generator=generator)
    features = {name: form(x) for name, form in contestants.items()}  # also the warm-up
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    processor: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, form in contestants.items():
            start, used = time.perf_counter(), time.process_time()
            form(x)
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    first = next(iter(contestants))
    print(
        f"{'':<14}{'pictures/s':>11}{'ratio':>8}{'cpu ms/picture':>16}{'ratio':>8}{'features':>11}"
    )
    for name in contestants:
        ratio, lean = (
            median(a / b for a, b in zip(taken[first], taken[name], strict=True))
            for taken in (wall, processor)
        )
        far = ((features[name] - features[first]).norm(dim=1) / features[first].norm(dim=1)).max()
        print(
            f"{name:<14}{batch / median(wall[name]):>11.1f}{ratio:>8.2f}"
            f"{1e3 * median(processor[name]) / batch:>16.1f}{lean:>8.2f}{far:>11.1e}"
        )


def fit(net: Inception2015, x: Tensor) -> None:
    """Give batch norm the statistics of these pictures, so that no layer goes flat."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0
    net(x)
    for norm in norms:
        norm.training = False


def frechet(a: Tensor, b: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), in float64; Heusel et al. 2017, equation 6.

    The trace of the root is the sum of singular values of A'B, where C = A A' and C' = B B'.
    """
    a, b = a.double(), b.double()
    centred = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    root = torch.linalg.svdvals(centred[0] @ centred[1].mT).sum()
    spread = sum(x.square().sum() for x in centred)
    return float((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * root)


def shift(net: Inception2015, path: Path, count: int) -> None:
    found = torch.stack(pictures(path, 2 * count))
    inputs = [to_input(resize(block, (SIZE, SIZE))) for block in found[:32].split(32)]
    fit(net, inputs[0])
    lean = fast(net)
    features: dict[str, list[Tensor]] = {"plain": [], "fast": []}
    for block in found.split(50):
        x = to_input(resize(block, (SIZE, SIZE)))
        features["plain"].append(net(x)[0])
        features["fast"].append(lean(x)[0])
    both = {name: torch.cat(blocks) for name, blocks in features.items()}
    far = (both["fast"] - both["plain"]).norm(dim=1) / both["plain"].norm(dim=1)
    spread = (both["plain"] - both["plain"].mean(0)).norm(dim=1) / both["plain"].norm(dim=1)
    distances = {name: frechet(x[:count], x[count:]) for name, x in both.items()}
    change = abs(distances["fast"] / distances["plain"] - 1)
    print(
        f"\nFID of {count} against {count} pictures of {path.name}: plain {distances['plain']:.6f}, "
        f"fast {distances['fast']:.6f}, changed by {change:.1e}"
    )
    print(f"a half against itself: {frechet(both['plain'][:count], both['fast'][:count]):.1e}")
    print(
        f"features differ by at most {far.max():.1e} of their norm; pictures differ from their mean "
        f"by {spread.mean():.2f} of it"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Race the forms of the FID network.")
    parser.add_argument("--data", type=Path, help="an IDX file, for the FID part")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="0 leaves the race out")
    parser.add_argument("--count", type=int, default=500, help="pictures in each half")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {platform.machine()}, "
        f"AMX kernels {'on' if kernels() else 'off'}, load {os.getloadavg()[0]:.1f}, "
        f"{FEATURES} features\n"
    )
    net = randomised()
    if arguments.rounds:
        race(forms(net), arguments.batch, arguments.rounds)
    if arguments.data:
        shift(net, arguments.data, arguments.count)


if __name__ == "__main__":
    main()
