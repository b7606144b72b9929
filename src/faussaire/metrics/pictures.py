"""What is measured: sets of pictures, read in blocks as uint8, whether from a disk or a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from faussaire.core.batch import RowDraws, mix
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.data.pack import Images
from faussaire.report.pictures import to_uint8


class PictureSet(Protocol):
    """A sized set of pictures of one shape.

    Attributes:
        name: what figures call it: `train`.
        key: of its content; empty for samples.
        whole: whether these are all the pictures that the key is of.
        shape: (H, W, C), C being 1, 3 or 4.
        labels: (count,) int64 indices into `classes`, or None.
        classes: class names.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def whole(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def labels(self) -> np.ndarray | None: ...
    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """These pictures, uint8 (n, H, W, C)."""
        ...


class Packed:
    """Pictures of a source, packed.

    Args:
        images: the pack.
        name: what figures call it.
        count: use so many of them, chosen by `shuffled_rows`; None: all, in their order.
    """

    def __init__(self, images: Images, name: str, count: int | None = None) -> None:
        self._images, self.name, self.key = images, name, images.key
        self._rows = None
        if count is not None and count < len(images):
            self._rows = np.sort(shuffled_rows(len(images))[:count])
        height, width = images.resolution
        self.shape = (height, width, images.channels)
        self.classes = tuple(images.classes)
        labels = images.labels
        self.labels = labels if labels is None or self._rows is None else labels[self._rows]

    @property
    def whole(self) -> bool:
        """Whether these are all pictures of the pack."""
        return self._rows is None

    def __len__(self) -> int:
        return len(self._images) if self._rows is None else len(self._rows)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        chosen = rows if self._rows is None else self._rows[rows]
        return self._images.pixels[chosen]


@dataclass(frozen=True)
class Samples:
    """An endless sequence of samples, cut at `count`; each picture depends on its own number alone.

    Attributes:
        family: as samples are made with it: averaged nets, evaluation mode.
        device: where it runs.
        count: how many.
        seed: names the sequence.
        labels: (count,) class numbers for a conditional family, or None.
    """

    family: Family[Any]
    device: str
    count: int
    seed: int
    labels: np.ndarray | None = None
    name: str = "samples"
    key: str = ""
    whole: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        channels, height, width = self.family.spec.shape
        return height, width, channels

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.family.spec.classes

    def __len__(self) -> int:
        return self.count

    @torch.no_grad()
    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        draws = RowDraws([mix(self.seed, int(row)) for row in rows], device=self.device)
        labels = None
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[np.asarray(rows)]).to(self.device)
        return to_uint8(self.family.sample(draws, labels=labels))


def labels_like(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """(count,) class numbers in the proportions of `labels`, mixed: what a perfect model would give.

    Rounding follows the largest remainders, so that every class has its share to within one.
    """
    share = np.bincount(labels, minlength=classes) * (count / len(labels))
    whole = np.floor(share).astype(np.int64)
    for index in np.argsort(whole - share, kind="stable")[: count - int(whole.sum())]:
        whole[index] += 1
    return np.repeat(np.arange(classes), whole)[shuffled_rows(count)]


def shuffled_rows(count: int, seed: int = 0) -> np.ndarray:
    """A permutation of 0..count-1 that no version of NumPy changes."""
    key = np.array([mix("reference", seed), count], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def require_alike(fakes: PictureSet, reals: PictureSet) -> None:
    """Refuse to compare pictures of different sizes or channels.

    Raises:
        UserError: with both sizes.
    """
    if fakes.shape != reals.shape:
        raise UserError(
            f"The pictures differ in size: {fakes.name} are {_words(fakes.shape)}, "
            f"{reals.name} are {_words(reals.shape)}.",
            "Bring both to one size with --resolution, and to the same colours with --channels.",
        )


def _words(shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    return f"{width}x{height} { ({1: 'grey', 3: 'RGB', 4: 'RGBA'}[channels]) }"
