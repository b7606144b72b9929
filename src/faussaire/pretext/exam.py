"""Examples that self-supervision is asked about, and a picture of its answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from faussaire.core.batch import Batch, BatchDraws, mix
from faussaire.core.device import Device
from faussaire.core.family import Family
from faussaire.core.loop import Stream as Readable
from faussaire.data.stream import Stream
from faussaire.material import PictureMaterial
from faussaire.pretext.clips import ClipMaterial, TripletStream
from faussaire.report.pictures import grid, to_uint8

MOST = 2_000
"""Examples that are asked about: pictures, or triplets of frames."""
_TRIPLETS = 8
"""Triplets that are drawn for each window that is held out, at most."""
_BATCH = 32
_SHOWN = 24
_RIGHT, _WRONG, _BORDER = (40, 170, 90), (210, 60, 50), 2


@dataclass(frozen=True)
class Exam:
    """Examples to ask about, always the same.

    Attributes:
        name: `held-out`, `train`, or the name of another source.
        key: of the contents that they are from.
        count: how many.
        whole: whether these are all of that name.
        stream: reads them.
    """

    name: str
    key: str
    count: int
    whole: bool
    stream: Readable

    @classmethod
    def of(
        cls,
        material: PictureMaterial | ClipMaterial,
        holdout: float | None,
        *,
        name: str | None = None,
        most: int = MOST,
    ) -> Exam:
        """What is held out; where nothing is, what is trained on.

        Args:
            material: pictures or clips.
            holdout: the share that is held out.
            name: of another source, all of which is asked about.
            most: examples.
        """
        if name is None:
            train, unseen = material.split(holdout)[0]
            name, rows = ("held-out", unseen) if len(unseen) else ("train", train)
        else:
            rows = np.arange(len(material))
        if isinstance(material, ClipMaterial):
            triplets = TripletStream(material, rows, seed=0)
            count = min(most, _TRIPLETS * len(rows))
            return cls(name, material.key, count, len(rows) <= most, triplets)
        stream = Stream([{"images": material.images.pixels}], rows=[rows], seed=0)
        return cls(name, material.key, min(most, len(rows)), len(rows) <= most, stream)

    def batches(self, device: Device) -> Iterator[Batch]:
        """The examples, with random numbers of their own."""
        for first in range(0, self.count, _BATCH):
            size = min(_BATCH, self.count - first)
            fields = {n: device.put(x) for n, x in self.stream.read(first, size).items()}
            draws = BatchDraws(
                mix("questions", first), total=size, rows=slice(0, size), device=device.name
            )
            yield Batch(fields, draws, size)


@torch.no_grad()
def marked_sheet(family: Family[Any], device: Device, exam: Exam) -> Image.Image:
    """Questions in rows of their pictures, framed in green where the answer is right, else in red."""
    batch = next(exam.batches(device))
    views, truth = family.questions(batch)  # pyright: ignore[reportAttributeAccessIssue]
    again = next(exam.batches(device))
    logits, _ = family.asked(again)  # pyright: ignore[reportAttributeAccessIssue]
    chosen = torch.linspace(0, len(truth) - 1, min(_SHOWN, len(truth))).long()
    right = (logits.argmax(dim=1) == truth).cpu()[chosen].tolist()
    shown = views.cpu()[chosen]
    low, high = (
        shown.amin(dim=(1, 2, 3, 4), keepdim=True),
        shown.amax(dim=(1, 2, 3, 4), keepdim=True),
    )
    if float(low.min()) < -1.01 or float(high.max()) > 1.01 or family.config.task == "position":
        shown = (shown - low) / (high - low).clamp(min=1e-6) * 2.0 - 1.0  # without means
    pictures = to_uint8(shown.flatten(0, 1))[..., :3]
    pictures = np.repeat(pictures, 3, axis=3) if pictures.shape[3] == 1 else pictures
    scale = max(1, 64 // max(pictures.shape[1:3]))
    pictures = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    questions = pictures.reshape(len(right), -1, *pictures.shape[1:])
    rows = np.stack([np.concatenate([*question], axis=1) for question in questions])
    framed = np.empty(
        (len(rows), rows.shape[1] + 2 * _BORDER, rows.shape[2] + 2 * _BORDER, 3), np.uint8
    )
    framed[:] = np.array([_RIGHT if one else _WRONG for one in right], np.uint8)[:, None, None]
    framed[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = rows
    return grid(framed, columns=max(1, 8 // views.shape[1]), scale=1)
