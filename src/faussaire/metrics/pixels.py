"""Features that need no weights: a random projection of small pictures.

A picture of 32x32 in RGB is 3,072 numbers; a fixed Gaussian matrix takes them to 256 that keep
squared distances in the mean, and each to within 9 % (one standard deviation: Johnson and
Lindenstrauss 1984, "Extensions of Lipschitz mappings into a Hilbert space").

What such features see: colours, brightness, contrast, the layout of large shapes, how varied the
pictures are in these, and exact copies. What they do not see: anything finer than 1/32 of the side,
texture, and what a picture shows. They are not invariant to anything: a face moved by two of the
32 pixels is far from itself. So a Fréchet distance of pixels tells noise from pictures and a
collapsed generator from a varied one, and follows a training run; it does not rank good generators,
and compares only with other figures of `pixels`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

SIZE = 32  # pixels a side
FEATURES = 256
SEED = 20_140_610  # the day of arXiv 1406.2661


def gaussian(rows: int, columns: int, seed: int) -> np.ndarray:
    """(rows, columns) float64 draws of N(0, 1), the same for all time.

    NumPy promises to keep the raw stream of a bit generator, but not how its own normal draws are
    made of it; so they are made here: Box and Muller 1958, from the upper 53 bits of each number.
    """
    count = (rows * columns + 1) // 2
    raw = np.random.Philox(key=seed).random_raw(2 * count)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:count])), 2.0 * np.pi * uniform[count:]
    draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return draws[: rows * columns].reshape(rows, columns)


class Projection(nn.Module):
    """(N, 3, 32, 32) in [0, 1] -> (N, 256): squared distances are kept in the mean."""

    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = gaussian(3 * SIZE * SIZE, FEATURES, SEED) / np.sqrt(FEATURES)
        self.register_buffer("matrix", torch.from_numpy(matrix).float())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix
