"""Bars that stand for digits: three classes, in MNIST's files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_bars(folder: Path, count: int = 240) -> Path:
    """Bars of 16x16 pixels: half lie, a third stand, a sixth fall from left to right."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [count // 2, count // 3, count // 6])[rng.permutation(count)]
    pixels = rng.integers(0, 30, (count, 16, 16))
    for picture, label, at in zip(pixels, labels, rng.integers(4, 10, count), strict=True):
        if label == 0:
            picture[at : at + 3, 2:14] = 220
        elif label == 1:
            picture[2:14, at : at + 3] = 220
        else:
            for step in range(12):
                picture[2 + step, max(0, step + at - 7) : step + at - 3] = 220
    write_idx(folder / "train-images-idx3-ubyte", pixels)
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    return folder / "train-images-idx3-ubyte"
