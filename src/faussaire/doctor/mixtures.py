"""Mixtures of Gaussians in the plane: the one place where every mode is known and can be counted.

The sets of Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks", arXiv
1712.04086, section 4.1, after Srivastava et al. 2017 (VEEGAN), arXiv 1705.07761: a ring of 8 on a circle
of radius 1 with deviation .01, and a grid of 25 with means in {-4, -2, 0, 2, 4}^2 and deviation .05.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from faussaire.doctor.coverage import Coverage, tally


@dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians in the plane.

    Attributes:
        name: for people.
        centres: (K, 2).
        deviation: of each in each direction.
    """

    name: str
    centres: np.ndarray
    deviation: float

    @property
    def modes(self) -> int:
        """K."""
        return len(self.centres)

    @property
    def scale(self) -> float:
        """Root mean square of a coordinate: dividing by it gives coordinates of unit size."""
        return math.sqrt(float(np.square(self.centres).mean()) + self.deviation**2)

    def draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Points (count, 2) float32 and the modes (count,) that they come from."""
        rng = np.random.default_rng(seed)
        modes = rng.integers(self.modes, size=count)
        points = self.centres[modes] + self.deviation * rng.normal(size=(count, 2))
        return points.astype(np.float32), modes


def ring(modes: int = 8, radius: float = 1.0, deviation: float = 0.01) -> Mixture:
    """Modes at equal distances on a circle."""
    angles = 2.0 * np.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Mixture(f"ring of {modes}", centres, deviation)


def grid(side: int = 5, step: float = 2.0, deviation: float = 0.05) -> Mixture:
    """Modes on a square grid around 0."""
    places = step * (np.arange(side) - (side - 1) / 2)
    centres = np.stack(np.meshgrid(places, places, indexing="ij"), axis=2).reshape(-1, 2)
    return Mixture(f"grid of {side * side}", centres, deviation)


MIXTURES = {"ring8": ring(), "grid25": grid()}


def cover(samples: np.ndarray, mixture: Mixture) -> Coverage:
    """Count the modes of samples (N, 2); good ones are within three deviations of the nearest mode.

    Modes touched (by good samples), good samples and reverse KL as in PacGAN's section 4.1 (Table 1),
    on N samples, which they take 2,500 of; `found` is ours.
    """
    distances = np.linalg.norm(samples[:, None, :] - mixture.centres[None, :, :], axis=2)
    good = distances.min(axis=1) < 3.0 * mixture.deviation
    shares = np.full(mixture.modes, 1.0 / mixture.modes)
    return tally(distances.argmin(axis=1), good, shares)


def picture(samples: np.ndarray, mixture: Mixture, side: int = 256) -> np.ndarray:
    """A map of samples (N, 2) as a picture (side, side, 3) uint8: dark points, modes in red."""
    reach = 1.25 * float(np.abs(mixture.centres).max()) + 3.0 * mixture.deviation
    image = np.full((side, side, 3), 255, np.uint8)

    def places(points: np.ndarray) -> np.ndarray:
        # Upwards is towards the first row.
        cells = (points * (1.0, -1.0) / reach + 1.0) * side / 2.0
        return np.floor(cells).astype(int)

    for x, y in places(mixture.centres):
        image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = (255, 190, 180)
    cells = places(samples)
    inside = ((cells >= 0) & (cells < side)).all(axis=1)
    image[cells[inside, 1], cells[inside, 0]] = (30, 40, 90)
    return image
