"""Pictures drawn for tests."""

from __future__ import annotations

import numpy as np
from PIL import Image


def draw(seed: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Image.Image:
    """A smooth random picture, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return picture.convert(mode if mode in ("LA", "RGBA") else "RGB").convert(mode)
