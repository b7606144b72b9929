"""Seconds that the statistics take: the Fréchet distance in 2,048 dimensions, and neighbours.

    PYTHONPATH=src python benchmarks/metrics_speed.py [--count 50000] [--dimensions 64]

The memory printed is the peak of the whole process. Seconds are of the processor, over all threads,
for neighbours on a machine hardly change them.
"""

from __future__ import annotations

import argparse
import resource
import time
from statistics import median

import torch

from faussaire.metrics.frechet import Moments, frechet_distance
from faussaire.metrics.neighbours import prdc


def frechet(count: int, dimensions: int = 2048) -> float:
    """Median seconds of three distances between sets of `count` vectors."""
    a, b = (Moments.of(torch.randn(count, dimensions)) for _ in range(2))
    taken = []
    for _ in range(3):
        began = time.process_time()
        frechet_distance(a, b)
        taken.append(time.process_time() - began)
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=64)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    count, dimensions = arguments.count, arguments.dimensions
    began = time.process_time()
    prdc(*torch.randn(2, count, dimensions))
    taken = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"neighbours, {count:,} x {count:,} in {dimensions}: {taken:.1f} s, peak {peak:.0f} MiB")
    print(f"Frechet, 2,048 dimensions, 5,000 vectors: {frechet(5_000):.2f} s")
    print(f"Frechet, 2,048 dimensions, 1,500 vectors: {frechet(1_500):.2f} s")


if __name__ == "__main__":
    main()
