"""Are the digits digits? A classifier trained on the real ones reads the forged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import faussaire


def read_digits(run: Path, each: int = 50) -> tuple[float, float]:
    """Share of samples read as the class they were asked for, and their deviation within a class.

    The reader is a nearest-neighbour vote over the 1,797 real digits, at their own 8x8 pixels.
    """
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    real = load_digits()
    reader = KNeighborsClassifier(5).fit(real.data / 16.0, real.target)
    model = faussaire.load(run)
    right, spread = [], []
    for digit in range(10):
        small = F.interpolate(model.sample(each, label=digit), size=8, mode="area").flatten(1)
        right.append(float(np.mean(reader.predict(small.numpy()) == digit)))
        spread.append(float(small.std(dim=0).mean()))
    return float(np.mean(right)), float(np.mean(spread))


@pytest.mark.slow
def test_the_demo_makes_digits_that_a_classifier_reads_and_that_differ(tmp_path):
    torch.set_num_threads(2)
    faussaire.train(
        "dcgan", "digits", out=tmp_path / "run", resolution=32, width=32, conditional=True,
        examples="120k", quiet=True,
    )  # fmt: skip
    right, spread = read_digits(tmp_path / "run")
    print(f"read rightly {right:.3f}, deviation within a class {spread:.3f}")
    assert right > 0.85
    assert spread > 0.08, "each class has collapsed to a few pictures"
