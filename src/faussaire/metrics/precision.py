"""Float32 that is float32: a figure must not depend on what was set for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(kind: str) -> Iterator[None]:
    """Within it, products on this kind of device are of float32: no TF32, no bf16, no autocast.

    Convolutions on NVIDIA GPUs round to TF32 by torch's default, and
    `torch.set_float32_matmul_precision`, common in training scripts, rounds matrix products.

    Args:
        kind: `cpu`, `cuda` or `mps`.
    """
    cpu, cudnn = torch.backends.mkldnn, torch.backends.cudnn
    knobs = []
    if kind == "cpu":
        knobs = [cpu.conv, cpu.matmul]  # pyright: ignore[reportAttributeAccessIssue]
    elif kind == "cuda":
        knobs = [cudnn.conv, torch.backends.cuda.matmul]  # pyright: ignore[reportAttributeAccessIssue]
    before = [knob.fp32_precision for knob in knobs]
    for knob in knobs:
        knob.fp32_precision = "ieee"
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        for knob, value in zip(knobs, before, strict=True):
            knob.fp32_precision = value
